//! What CRIU leaves out of a checkpoint, kept beside its images as `vessel.json`.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use runtime::DevEntry;
use serde::{Deserialize, Serialize};

/// Version of the file. Another one is refused, as its VE cannot be woken as it was.
pub const VERSION: u32 = 1;

const NAME: &str = "vessel.json";

/// The file's content.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// [`VERSION`].
    pub version: u32,
    /// Number of the VE; its user ids and its control groups' names follow from it.
    pub id: u32,
    /// Version of the CRIU that wrote the images.
    pub criu: String,
    /// The console's terminal as the images name it: `tty[RDEV:DEV]`.
    pub console: String,
    /// Addresses that it has inside; the woken one gets those that the node then has for it.
    pub addresses: Vec<IpAddr>,
    /// Bytes of memory that its processes held and need again.
    pub memory_bytes: u64,
    /// How many processes and threads it had.
    pub processes: u64,
    /// What the VE had put into its own `/dev`.
    pub dev: Vec<DevEntry>,
    /// Names of what it had of the node's view (`procview::PLACES`); none in checkpoints of versions
    /// without one.
    #[serde(default)]
    pub views: Vec<String>,
    /// The VE's control groups, parents first; the first is the VE's own. CRIU knows only those
    /// with processes.
    pub groups: Vec<Group>,
}

/// A control group that the VE made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Path beneath the VE's own group; empty for that itself.
    pub path: String,
    /// Owner and group as the node's numbers.
    pub owner: (u32, u32),
    /// Files with settings, and their content.
    pub settings: Vec<(String, String)>,
}

/// A checkpoint cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file cannot be read.
    #[error("cannot read {NAME} of the checkpoint")]
    Read(#[source] io::Error),
    /// It is damaged.
    #[error("{NAME} of the checkpoint is damaged")]
    Damaged(#[source] serde_json::Error),
    /// It is of another version.
    #[error(
        "the checkpoint has version {found}, this program reads {VERSION}: wake the VE with \
             the version that wrote it, or start it afresh"
    )]
    Version {
        /// Its version.
        found: u32,
    },
    /// It is another VE's.
    #[error("the checkpoint is of VE {found}")]
    Stranger {
        /// Whose it is.
        found: u32,
    },
}

impl Manifest {
    /// Writes the file into a folder.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        let text = serde_json::to_vec(self).map_err(io::Error::other)?;
        fs::write(folder.join(NAME), text)
    }

    /// Reads the file of the checkpoint of VE `id`.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn read(folder: &Path, id: ve::VeId) -> Result<Self, ManifestError> {
        let bytes = fs::read(folder.join(NAME)).map_err(ManifestError::Read)?;
        let manifest: Self = serde_json::from_slice(&bytes).map_err(ManifestError::Damaged)?;
        if manifest.version != VERSION {
            let found = manifest.version;
            return Err(ManifestError::Version { found });
        }
        if manifest.id != id.get() {
            let found = manifest.id;
            return Err(ManifestError::Stranger { found });
        }
        Ok(manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_it_does_not_know() {
        let folder = tempfile::tempdir().unwrap();
        let id = ve::VeId::new(9_001).unwrap();
        let mut manifest = Manifest {
            version: VERSION,
            id: 9_001,
            criu: "4.2.1".to_owned(),
            console: "tty[8801:1a]".to_owned(),
            addresses: Vec::new(),
            memory_bytes: 1 << 20,
            processes: 3,
            dev: Vec::new(),
            views: Vec::new(),
            groups: Vec::new(),
        };
        manifest.write(folder.path()).unwrap();
        assert_eq!(
            Manifest::read(folder.path(), id).unwrap().console,
            "tty[8801:1a]"
        );
        let other = ve::VeId::new(9_002).unwrap();
        let refused = Manifest::read(folder.path(), other).unwrap_err();
        assert!(matches!(refused, ManifestError::Stranger { found: 9_001 }));
        manifest.version = 2;
        manifest.write(folder.path()).unwrap();
        let refused = Manifest::read(folder.path(), id).unwrap_err();
        assert!(matches!(refused, ManifestError::Version { found: 2 }));
    }
}
