//! What happens to VEs: admit, journal, drive, undo, publish.
//!
//! ```text
//! request -> admission (policy) -> journal (registry) -> lane of the VE -> plan of steps
//!                                                              |  each step: do, or undo backwards
//!                                       events, operation <- outcome, in one transaction
//! ```
//!
//! One lane per VE and per template: whatever is asked of one is carried out one after the other,
//! by one driver; different ones go side by side. The engine sees the node through
//! [`Mechanisms`], so that a test can put a fake node below it and crash it at every step.
//!
//! Invariants:
//! - An operation is journalled before its first step and ends in the transaction that records
//!   what it left. Between the two a crash may come at any point.
//! - Every step can be done again, and every undo, also when there is nothing to undo.
//! - What cannot be taken back makes the record unclean, and is tried again before the next
//!   operation on the VE and at the next start of the node; it is never forgotten.
//! - The registry's record of a VE changes in its lane only, so no two writers race.
//! - What runs is decided by the kernel, not by the record: [`Engine::recover`] compares both.
//!
//! It does no I/O of its own beyond the registry, knows no HTTP, no clock but the one it is
//! given, and starts no threads: it is given a way to run a lane.
#![forbid(unsafe_code)]

mod admission;
mod change;
mod driver;
mod error;
mod exits;
mod inner;
mod lanes;
mod ledger;
mod mechanisms;
mod plan;
mod recovery;
mod request;
mod restarts;
#[cfg(test)]
mod simulation;
mod sleep;
mod stacks;
mod strangers;
mod templates;
mod update;
mod updating;

pub use error::{Failure, FailureKind};
pub use inner::Ticket;
pub use lanes::{Engine, EngineParts, Notice, RunLane, Submitted};
pub use ledger::Holding;
pub use mechanisms::{
    Division, Fault, Mechanisms, Patience, Progress, ProgressSink, Running, Support, Sweep,
};
pub use plan::Step;
pub use request::{
    BuildWork, CreateRequest, NodeFacts, Request, StackBuild, StopManner, TemplateRequest,
    VeRequest,
};
pub use update::{Update, Updated};
pub use updating::{Before, Check, Foreseen, Kept, UpdateStep, Updating, Way};
