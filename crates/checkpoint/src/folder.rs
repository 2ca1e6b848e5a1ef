//! A checkpoint's folder, and how it becomes valid, and void, at once.
//!
//! ```text
//! ID.new   being written: of no use
//! ID       complete and on disk; with a file `spent` in it, its VE was woken: of no use any more
//! ID.gone  being removed
//! ```

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, lchown};
use std::path::{Path, PathBuf};

use runtime::gate::SPENT;

/// What folders are called that are no checkpoints.
const UNFINISHED: &str = "new";
const GONE: &str = "gone";

/// The folder while it is written.
pub(crate) fn unfinished(folder: &Path) -> PathBuf {
    beside(folder, UNFINISHED)
}

fn beside(folder: &Path, what: &str) -> PathBuf {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(what);
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
    discard(folder)?;
    fs::rename(new, folder)?;
    sync_parent(folder)
}

/// Whether a checkpoint is there that can be woken.
pub(crate) fn is_valid(folder: &Path) -> bool {
    folder.is_dir() && !folder.join(SPENT).exists()
}

/// Makes a checkpoint void, and removes it; one that is not there is well.
pub(crate) fn discard(folder: &Path) -> io::Result<()> {
    let gone = beside(folder, GONE);
    remove(&gone)?;
    match fs::rename(folder, &gone) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        outcome => outcome?,
    }
    sync_parent(folder)?;
    remove(&gone)
}

fn sync_parent(folder: &Path) -> io::Result<()> {
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

/// Removes all folders beside each other in `all` but those that can be woken and whose name `keep`
/// accepts. Returns the names of those that were no leftovers.
pub(crate) fn sweep(all: &Path, keep: impl Fn(&str) -> bool) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(all) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut removed = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let valid = !name.contains('.') && is_valid(&entry.path());
        if valid && keep(&name) {
            continue;
        }
        if valid {
            discard(&entry.path())?;
            removed.push(name);
        } else {
            remove(&entry.path())?;
        }
    }
    Ok(removed)
}

/// Bytes of all files directly in a folder.
pub(crate) fn bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.filter_map(|entry| entry.metadata().ok());
    sizes.map(|metadata| metadata.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_valid_whole_and_unspent() {
        let all = tempfile::tempdir().unwrap();
        let folder = all.path().join("checkpoints/40001");
        let owner = rustix::process::getuid().as_raw();
        assert!(!is_valid(&folder));
        discard(&folder).unwrap();
        let new = begin(&folder).unwrap();
        fs::write(new.join("pages-1.img"), "memory").unwrap();
        assert!(!is_valid(&folder));
        assert_eq!(bytes(&new), 6);
        finish(&new, &folder, owner).unwrap();
        assert!(is_valid(&folder) && !new.exists());
        // A second one takes its place.
        let new = begin(&folder).unwrap();
        finish(&new, &folder, owner).unwrap();
        assert!(is_valid(&folder) && bytes(&folder) == 0);
        fs::write(folder.join(SPENT), "").unwrap();
        assert!(!is_valid(&folder));
        discard(&folder).unwrap();
        assert_eq!(
            fs::read_dir(all.path().join("checkpoints"))
                .unwrap()
                .count(),
            0
        );
    }

    #[test]
    fn a_sweep_leaves_what_can_be_woken() {
        let all = tempfile::tempdir().unwrap();
        for name in ["40001", "40002", "40003", "40003.new", "40002.gone"] {
            fs::create_dir(all.path().join(name)).unwrap();
        }
        fs::write(all.path().join("40003").join(SPENT), "").unwrap();
        let removed = sweep(all.path(), |name| name != "40002").unwrap();
        assert_eq!(removed, ["40002"]);
        let left = fs::read_dir(all.path()).unwrap().flatten();
        let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
        assert_eq!(left, ["40001"]);
        assert!(
            sweep(&all.path().join("none"), |_| true)
                .unwrap()
                .is_empty()
        );
    }
}
