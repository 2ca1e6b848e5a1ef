//! A VE from its parts: the launcher's protocol, its client, and the launch itself.
//!
//! A node has **one** launcher: a small single-threaded program that outlives the daemon. It is
//! the parent of every VE's init, so it alone learns how an init ended; it holds the consoles and
//! the readiness sockets, and it is the only program of the node that forks into a VE. The daemon
//! speaks to it through a [`Client`]:
//!
//! ```text
//! vesseld (threads) -- Client --> ROOT/run/launcher.sock --> vessel-launcher (one thread)
//!                                                              |-- init of VE 101
//!                                                              |-- init of VE 102
//!                                                              `-- exec in VE 101 ...
//! ```
//!
//! What is decided where: this crate decides nothing. Which VE may start, what it may use and
//! what is written down about it belongs to the engine; here is only how it is done.
//!
//! # Invariants
//! - No code of a VE ever runs with a descriptor, a working directory or a mount of the node.
//! - The launcher's mount table does not grow with the number of VEs: every mount of a VE is built
//!   detached and handed to the VE's init as a descriptor.
//! - No helper process stays behind: the init is the only process that a VE costs.
//! - An init's end is told until it was acknowledged, also to a daemon that was away.
#![forbid(unsafe_code)]

pub mod client;
mod exchange;
pub mod gate;
pub mod isolation;
pub mod launcher;
pub mod masks;
pub mod protocol;
pub mod restore;
pub mod spec;
mod task;
mod wire;

pub use client::{Client, ConnectError, Events};
pub use exchange::CallError;
pub use isolation::{capabilities, seccomp};
pub use protocol::{Event, Failure, FailureKind, VeState, VeStatus};
pub use restore::{CriuProgram, DevEntry, DevKind, RestoreSpec};
pub use spec::open_files;
pub use spec::{
    CgroupEntry, ConsoleLog, ExecSpec, ExecStreams, Facts, InitKind, LaunchSpec, Lower,
    NetworkSpec, RootSpec, WindowSize,
};
pub use task::{Task, TaskEnd, resize_terminal};
