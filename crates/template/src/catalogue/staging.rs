//! Folders of unfinished work.

use std::fs::File;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::{Catalogue, CatalogueError};

/// Folder of the folders of unfinished work.
pub(super) const DIRECTORY: &str = "staging";

/// A folder that is removed when its maker lets it go, and by the next [`Catalogue::open`] if its
/// maker died.
#[derive(Debug)]
pub(crate) struct Staging {
    path: PathBuf,
    /// Its lock says that the maker lives.
    _alive: File,
}

impl Staging {
    /// Makes an empty folder.
    pub(crate) fn create(catalogue: &Catalogue) -> Result<Self, CatalogueError> {
        /// Another's sweep can only hit the instant between making and locking.
        const ATTEMPTS: usize = 8;
        for _ in 0..ATTEMPTS {
            let name = uuid::Uuid::new_v4().simple().to_string();
            let path = catalogue.path.join(DIRECTORY).join(name);
            // Package tools run as users of their own in the build's folder below.
            std::fs::DirBuilder::new()
                .mode(0o711)
                .create(&path)
                .map_err(CatalogueError::system("create", &path))?;
            if let Some(alive) = lock(&path)? {
                return Ok(Self {
                    path,
                    _alive: alive,
                });
            }
        }
        Err(CatalogueError::Busy)
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path) {
            tracing::warn!(
                path = %self.path.display(),
                %error,
                "staging folder stays until the catalogue is opened again"
            );
        }
    }
}

/// Locks a folder for its maker, or for the one who removes it: `None` if another holds it or it is
/// gone.
fn lock(path: &Path) -> Result<Option<File>, CatalogueError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(CatalogueError::system("open", path)(e)),
    };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(None),
        Err(errno) => return Err(CatalogueError::system("lock", path)(errno.into())),
    }
    let (here, held) = (path.symlink_metadata(), file.metadata());
    let same = matches!((here, held), (Ok(here), Ok(held)) if here.ino() == held.ino());
    Ok(same.then_some(file))
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = match path.symlink_metadata() {
        Ok(metadata) if !metadata.is_dir() => std::fs::remove_file(path),
        _ => std::fs::remove_dir_all(path),
    };
    match removed {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

impl Catalogue {
    /// Removes the folders of dead makers. How many there were.
    pub(super) fn sweep(&self) -> Result<usize, CatalogueError> {
        let path = self.path.join(DIRECTORY);
        let mut swept = 0;
        let entries = std::fs::read_dir(&path).map_err(CatalogueError::system("list", &path))?;
        for entry in entries {
            let entry = entry.map_err(CatalogueError::system("list", &path))?;
            let path = entry.path();
            let Some(_dead) = lock(&path)? else {
                continue;
            };
            remove(&path).map_err(CatalogueError::system("remove", &path))?;
            swept += 1;
        }
        Ok(swept)
    }
}
