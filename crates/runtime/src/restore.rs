//! What the daemon asks the launcher to wake: a VE that CRIU wrote to disk.
//!
//! A checkpoint knows three things of the node by name only, and they are made anew for the VE that
//! wakes: its `/dev` (device nodes can be made by the node alone), its console, and its link. The
//! names are here because who writes a checkpoint and who wakes it must agree on them.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::spec::LaunchSpec;

/// Name of the VE's `/dev` in a checkpoint (CRIU's `mnt[...]`).
pub const DEV_NAME: &str = "vessel-dev";
/// Name of the mount on `/dev/console` in a checkpoint (CRIU's `mnt[...]`).
pub const CONSOLE_NAME: &str = "vessel-console";
/// Name of a file of the VE's view in a checkpoint (CRIU's `mnt[...]`).
#[must_use]
pub fn view_name(name: &str) -> String {
    format!("vessel-view-{name}")
}

/// CRIU's log of a restore, in [`RestoreSpec::work`].
pub const RESTORE_LOG: &str = "restore.log";
/// Variable that tells the plugin the VE's first user id: see the crate `criu-plugin`.
pub const PLUGIN_VARIABLE: &str = "VESSEL_UID_BASE";

/// Everything that the launcher needs to wake a VE.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RestoreSpec {
    /// The VE, as it would be started. Facts, init and environment are those of the sleeper and
    /// not looked at.
    pub launch: LaunchSpec,
    /// How CRIU is called.
    pub criu: CriuProgram,
    /// Folder with CRIU's images.
    pub images: PathBuf,
    /// Folder for what CRIU writes: its log, and the number of the init. Not among the images: where they
    /// lie may be full, and waking needs no room there.
    pub work: PathBuf,
    /// The console's terminal as the checkpoint names it: `tty[RDEV:DEV]`.
    pub console: String,
    /// Addresses that it had; it wakes with those of `launch`.
    pub addresses_before: Vec<IpAddr>,
    /// What the VE itself had put into its `/dev`.
    pub dev: Vec<DevEntry>,
    /// The socket at which CRIU's script asks before it lets the processes go on: see
    /// [`crate::gate`].
    pub gate: PathBuf,
    /// Names of the files of its view (`procview::PLACES`) that it had bound over its own.
    pub views: Vec<String>,
}

/// CRIU as a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CriuProgram {
    /// Its path, or a loader's with what leads to it, before CRIU's own arguments.
    pub command: Vec<String>,
    /// The launcher's program, which CRIU runs as its script: see [`crate::gate`].
    pub script: PathBuf,
    /// Folder with the plugin that lets CRIU act as the VE's maker. Without it CRIU needs
    /// `CAP_SYS_RESOURCE` for a dump, and a woken VE shares root's inotify quota.
    pub plugins: Option<PathBuf>,
}

/// Something in `/dev` that the node did not put there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DevEntry {
    /// Path beneath `/dev`; parents come first.
    pub path: String,
    /// Owner and group as the VE's own numbers.
    pub owner: (u32, u32),
    /// Permission bits.
    pub mode: u32,
    /// What it is.
    pub kind: DevKind,
}

/// Kinds of [`DevEntry`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DevKind {
    /// A directory.
    Directory,
    /// A symbolic link and where it leads.
    Link(String),
    /// A file and its content.
    File(Vec<u8>),
}

/// Options that a dump and its restore must both have: established connections, file locks, files
/// that were deleted while open, sockets whose other end is outside, the network locked by nftables
/// rules meanwhile, control groups made where missing.
pub const COMMON_OPTIONS: &[&str] = &[
    "--tcp-established",
    "--file-locks",
    "--link-remap",
    "--ext-unix-sk",
    "--network-lock",
    "nftables",
    "--manage-cgroups=soft",
];
