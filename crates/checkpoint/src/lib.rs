//! Putting a running VE on disk and waking it: all its processes with their memory, open files
//! and connections.
//!
//! The work is done by CRIU, a program of the host that we call and never link. Here is what it
//! must be told about a VE, what it leaves out, and what must hold before and after:
//!
//! ```text
//! running --- suspend ---> FOLDER.new --- rename ---> FOLDER --- resume ---> running
//!               |  walk, freeze, look, criu dump        |   groups, criu restore
//!               `- any failure: thawed, runs on         `- any failure: FOLDER stays
//! ```
//!
//! - [`criu`]: finding a CRIU that fits this kernel; [`suspend`], [`resume`]: the two ways.
//! - [`manifest`]: what CRIU leaves out, kept beside its images.
//!
//! # Invariants
//! - A VE is in exactly one place: its processes live, or a complete folder lies on disk. CRIU ends
//!   the processes itself, after its last image is written; [`suspend::settle`] decides for a
//!   daemon that died in between.
//! - A failed dump leaves the VE running as if nothing had been.
//! - A folder is not changed by waking from it; who woke discards it once that is written down.
#![forbid(unsafe_code)]

pub mod criu;
mod folder;
mod groups;
mod inspect;
pub mod manifest;
pub mod resume;
pub mod suspend;
mod words;

pub use criu::{Criu, CriuError};
pub use resume::{ResumeError, ResumeRequest};
pub use suspend::{Settled, SuspendError, SuspendRequest, Suspended};
