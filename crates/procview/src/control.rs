//! What the launcher and the server say to each other, one packet a message.
//!
//! ```text
//! launcher                                   server
//!   Serve + device, mount ----------------->
//!   Ve, Gone, ... ------------------------->
//!   <------------------------------- Alive   every second
//!
//! next launcher, on the server's socket
//!   HandOver ------------------------------>
//!   <-------------- Handed + device, mount   and the server ends
//! ```

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How often a server says that it works.
pub const ALIVE_INTERVAL: Duration = Duration::from_secs(1);

/// From a launcher.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Must be first. Descriptors: the connection to the kernel, and a detached mount to keep for the
    /// launcher that comes after this one.
    Serve {
        /// First number of the node's VEs, which names its control groups.
        first_id: u32,
        /// What the server before knew, as it told in [`Notice::Alive`].
        history: String,
    },
    /// A VE has this init.
    Ve(Init),
    /// A VE has ended.
    Gone {
        /// The VE.
        id: u32,
    },
    /// Give everything to me, and end.
    HandOver,
}

/// From a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Notice {
    /// It answers the kernel.
    Alive {
        /// What it knows that no file holds, when that changed.
        history: Option<String>,
    },
    /// The answer to [`Order::HandOver`]. Descriptors: as in [`Order::Serve`].
    Handed {
        /// As in [`Order::Serve`].
        first_id: u32,
        /// As in [`Order::Serve`].
        history: String,
    },
}

/// The init of a VE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Init {
    /// The VE.
    pub id: u32,
    /// Process number as the node sees it.
    pub pid: u32,
    /// When it was made, in clock ticks since boot.
    pub start_time: u64,
}

/// Where the server of the node at `root` listens for the launcher that comes next.
#[must_use]
pub fn socket_path(root: &Path) -> PathBuf {
    root.join("run/view.sock")
}

/// Where the tree is mounted, in the node's own mount namespace.
#[must_use]
pub fn mount_path(root: &Path) -> PathBuf {
    root.join("run/view")
}
