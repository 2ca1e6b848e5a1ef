//! A checkpoint's folder, and how it becomes valid at once.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, lchown};
use std::path::{Path, PathBuf};

/// The folder while it is written.
pub(crate) fn unfinished(folder: &Path) -> PathBuf {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    folder.with_file_name(name)
}

/// Makes an empty folder to write to. Memory of a VE's users goes there: it is root's alone.
pub(crate) fn begin(folder: &Path) -> io::Result<PathBuf> {
    let new = unfinished(folder);
    remove(&new)?;
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    if let Some(parent) = folder.parent() {
        builder.create(parent)?;
    }
    builder.create(&new)?;
    Ok(new)
}

/// Brings everything that was written to disk, and makes it the checkpoint. It belongs to the VE's
/// root from here on: when CRIU wakes a VE, it reads most images as that user. No path leads there
/// from within a VE.
pub(crate) fn finish(new: &Path, folder: &Path, owner: u32) -> io::Result<()> {
    for entry in fs::read_dir(new)? {
        lchown(entry?.path(), Some(owner), Some(owner))?;
    }
    lchown(new, Some(owner), Some(owner))?;
    // The whole file system: a flush for each of a hundred images would take longer.
    rustix::fs::syncfs(File::open(new)?)?;
    remove(folder)?;
    fs::rename(new, folder)?;
    match folder.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// Removes a folder; one that is not there is well.
pub(crate) fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Bytes of all files directly in a folder.
pub(crate) fn bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.filter_map(|entry| entry.metadata().ok());
    sizes.map(|metadata| metadata.len()).sum()
}
