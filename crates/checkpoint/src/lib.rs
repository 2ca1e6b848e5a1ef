//! Putting a running VE on disk and waking it: all its processes with their memory, open files
//! and connections.
//!
//! The work is done by CRIU, a program of the host that we call and never link. Here is what it
//! must be told about a VE, what it leaves out, and what must hold before and after:
//!
//! ```text
//! running -- suspend --> FOLDER.new -- gate --> FOLDER -- resume -- gate --> running
//!              |  walk, freeze, look,             |   groups,
//!              |  criu dump                       |   criu restore
//!              `- any failure: runs on            `- any failure: FOLDER stays
//! ```
//!
//! - [`criu`]: finding a CRIU that fits this kernel; [`suspend`], [`resume`]: the two ways;
//!   [`settle`]: the end of a way that was left halfway.
//! - [`manifest`]: what CRIU leaves out, kept beside its images.
//! - `gate`: where CRIU waits until it may complete its work ([`runtime::gate`] is its side).
//!
//! # Invariants
//! - A VE is in exactly one place: its processes live, or a complete folder lies on disk. CRIU ends
//!   the processes once the folder is complete, and lets none go on before the folder is marked as
//!   spent.
//! - A failed dump leaves the VE running as if nothing had been.
//! - A folder is woken from once: a VE that ran has changed its files, and they fit no more.
#![forbid(unsafe_code)]

mod console;
pub mod criu;
mod folder;
mod gate;
mod groups;
mod inspect;
pub mod manifest;
pub mod resume;
pub mod settle;
pub mod suspend;
mod walk;
mod watches;
mod words;

pub use criu::{Criu, CriuError};
pub use resume::{ResumeError, ResumeRequest};
pub use settle::Settled;
pub use suspend::{Follower, SuspendError, SuspendRequest, Suspended};
