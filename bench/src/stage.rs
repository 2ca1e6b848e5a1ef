//! The place where everything happens: a folder, a network namespace for servers, one for clients,
//! and a mount namespace. All of them end with the bench's processes, whatever ends them.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use bench::users;
use rustix::fs::{FlockOperation, flock};

use crate::command;
use crate::node;
use crate::peers;
use crate::web;

/// First number of the node's VEs; above it, those of other containers. Far from the numbers that
/// nodes have unless told otherwise, and those of the system tests.
pub(crate) const FIRST_ID: u32 = 61_000;

/// Number whose ids the containers of other runtimes have, `id * 65536` as a VE's.
pub(crate) const PEER_ID: u32 = 65_100;

/// The addresses of VEs.
pub(crate) const NETWORK: &str = "10.120.0.0/16";

/// The address of other containers.
pub(crate) const PEER_ADDRESS: &str = "10.121.0.2";

/// The stage, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Stage {
    folder: PathBuf,
    programs: PathBuf,
    /// The user ids of other containers.
    users: OwnedFd,
    client: File,
    host: File,
    _lock: File,
}

impl Stage {
    /// Sets the stage and takes away what a bench left that was killed.
    pub(crate) fn enter() -> Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "the bench needs root: namespaces, mounts, control groups"
        );
        let folder = std::env::temp_dir().join("vessel-bench");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let lock = File::create(folder.join("lock")).context("cannot make a lock")?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .context("another bench runs on this machine")?;
        let program = std::env::current_exe().context("which program is this?")?;
        let programs = program
            .parent()
            .context("no folder of programs")?
            .to_owned();
        node::sweep(&programs, &folder);
        peers::sweep();
        clear(&folder)?;
        let users = users::namespace(PEER_ID * users::COUNT)?;
        kernel::namespace::leave_mount_namespace().context("no mount namespace")?;
        let client = new_network()?;
        let host = new_network()?;
        kernel::netns::unshare().context("no network namespace")?;
        command::output(&mut command::words(&["ip", "link", "set", "lo", "up"]))?;
        Ok(Self {
            folder,
            programs,
            users,
            client,
            host,
            _lock: lock,
        })
    }

    /// A folder for everything that is made.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// One of our programs, built like the bench itself.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// The network namespace of clients, as a path.
    pub(crate) fn client_network(&self) -> String {
        web::path_of(&self.client)
    }

    /// A network namespace without a node, as a path.
    pub(crate) fn host_network(&self) -> String {
        web::path_of(&self.host)
    }

    /// The user namespace of other containers.
    pub(crate) fn users(&self) -> &OwnedFd {
        &self.users
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        peers::sweep();
        let _ = clear(&self.folder);
        let _ = fs::remove_file(self.folder.join("lock"));
        let _ = fs::remove_dir(&self.folder);
    }
}

/// A network namespace that lives as long as somebody has it open. The caller is left in it.
fn new_network() -> Result<File> {
    kernel::netns::unshare().context("no network namespace")?;
    File::open("/proc/thread-self/ns/net").context("no network namespace")
}

/// Removes everything but the lock.
fn clear(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).context("cannot list the folder")? {
        let path = entry.context("cannot list the folder")?.path();
        if path.ends_with("lock") {
            continue;
        }
        let removed = if path.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        removed.with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}
