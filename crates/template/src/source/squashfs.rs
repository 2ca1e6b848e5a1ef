//! Squashfs images, as split images of Incus have them, by the program `unsquashfs`.
//!
//! The kernel could mount one, but a hostile image would be read by code in the kernel that trusts
//! its superblock; a process that can be killed and that writes into a staging folder is the safer
//! of the two.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::error::ImportError;
use crate::ingest::Ingest;

/// How often a running program is looked at.
const POLL: Duration = Duration::from_millis(50);

/// Whether a file is a squashfs image (little-endian magic, format 4).
pub(super) fn is_one(path: &Path) -> bool {
    super::open(path)
        .ok()
        .and_then(|mut file| super::head::<4>(&mut file).ok())
        .is_some_and(|head| head == b"hsqs")
}

/// Unpacks an image into the staging folder and gives the folder.
pub(super) fn unpack(
    image: &Path,
    staging: &Path,
    ingest: &mut Ingest<'_>,
) -> Result<PathBuf, ImportError> {
    ingest.source = image.to_owned();
    let folder = staging.join("squashfs");
    let mut child = Command::new("unsquashfs")
        .args(["-no-progress", "-quiet", "-ignore-errors", "-d"])
        .arg(&folder)
        .arg(std::path::absolute(image).map_err(|e| ingest.read_error(e))?)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|source| ImportError::Program {
            path: image.to_owned(),
            program: "unsquashfs",
            package: "squashfs-tools",
            source,
        })?;
    loop {
        if let Some(status) = child.try_wait().map_err(|e| ingest.read_error(e))? {
            return match status.success() {
                true => Ok(folder),
                false => Err(ingest.damaged("`unsquashfs` cannot unpack it")),
            };
        }
        if let Err(cancelled) = ingest.check() {
            // That it ended meanwhile is no error.
            let _ = child.kill();
            let _ = child.wait();
            return Err(cancelled);
        }
        std::thread::sleep(POLL);
    }
}
