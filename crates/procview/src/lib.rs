//! The VE's own view: files of `/proc` and `/sys` that tell a VE's numbers and not the machine's.
//!
//! `free`, `top`, `uptime`, `vmstat` and the runtimes of languages ask the kernel about the machine by
//! reading files, and the kernel answers about the machine. Here the same files are written from a
//! VE's control groups and served by FUSE; the launcher binds them over the VE's own.
//!
//! ```text
//! VE 101: /proc/meminfo --bind--> view:/101/meminfo
//!                                       |
//!                  kernel: one connection, one file system for all VEs
//!                                       |                     kept open by the launcher, too
//!                              vessel-procview (one for a node, one thread)
//!                                       |
//!                            control groups of VE 101
//! ```
//!
//! The usual way (lxcfs) has one server that must not die: with it dies the connection, and every
//! file in every VE with that, until the VE is restarted. Here the connection outlives servers. It is
//! held by the launcher, which starts another server when one dies, hangs or is to be replaced;
//! requests that the dead one had read are asked for again (`FUSE_NOTIFY_RESEND`, Linux 6.9), so a
//! reader notices a pause of some milliseconds. That works because a server keeps nothing that the
//! next one needs: numbers of files mean the same to all (`node`), and a VE is known by the path.
//!
//! It is a program of its own since neither of the others can serve: the daemon may be away for long,
//! and the launcher must not wait for anything.
//!
//! - `render`: the texts; [`facts`]: what they are made from; `source`: reading that from groups.
//! - [`history`], `tasks`: load averages and idle time, which no counter has.
//! - `node`, `tree`, `view`: what there is to be read; `wire`, `queue`, [`server`]: serving it.
//! - [`mount`], [`control`], [`PLACES`]: for the launcher.
//!
//! # Invariants
//! - Nothing waits for a VE: only files of the node are read, and one VE's readers are served in
//!   turns with others', however many they are.
//! - What is kept for a VE is bounded, whatever it opens and never reads.
//! - The server can be killed at any moment.
//!
//! Not here: what sysinfo(2) says, which is a system call and tells the machine's memory and load
//! (busybox' `free` and `uptime` use it); and sched_getaffinity(2), by which `nproc` counts: it
//! follows `cpu.set`, and not `cpu.limit`.
#![forbid(unsafe_code)]

pub mod control;
pub mod facts;
pub mod history;
mod host;
pub mod mount;
mod node;
mod queue;
pub mod render;
pub mod server;
mod source;
mod tasks;
mod tree;
mod view;
mod wire;

/// A thing of the tree and where it belongs in a VE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its name in the VE's folder; also in a checkpoint, so names stay.
    pub name: &'static str,
    /// What it covers in the VE.
    pub target: &'static str,
}

const fn place(name: &'static str, target: &'static str) -> Place {
    Place { name, target }
}

/// Everything that is bound into a VE. What its kernel does not have is left out.
pub const PLACES: [Place; 10] = [
    place("meminfo", "/proc/meminfo"),
    place("cpuinfo", "/proc/cpuinfo"),
    place("stat", "/proc/stat"),
    place("loadavg", "/proc/loadavg"),
    place("uptime", "/proc/uptime"),
    place("swaps", "/proc/swaps"),
    place("diskstats", "/proc/diskstats"),
    place("vmstat", "/proc/vmstat"),
    place(node::PRESSURE_FOLDER, "/proc/pressure"),
    place(node::CPU_FOLDER, "/sys/devices/system/cpu"),
];
