//! Durable records of a node: its VEs, and the journal of operations on them. SQLite embedded.
//!
//! The registry is the truth about which VEs exist and what they were asked to be. It is told
//! before something is done and after it was done, so that whoever opens it after a crash knows
//! what was under way: an operation is journalled in the same transaction that reserves what it
//! needs (a name, a number, addresses), and ends in the same transaction that records its outcome.
//!
//! Every change is on disk before the call returns (`synchronous=FULL`): what a client was told
//! survives a power cut. One connection, behind one lock: statements here take well below a
//! millisecond, and nothing else is done while it is held.
//!
//! It does not decide anything, and does not know what steps an operation has.
#![forbid(unsafe_code)]

mod operations;
mod record;
mod schema;
mod stored;
#[cfg(test)]
mod tests;
mod ves;

pub use operations::{Event, NewOperation, Operation, OperationId, OperationState, Outcome};
pub use record::{FirstBoot, Run, Stage, VeRecord};
pub use schema::{OpenError, Registry, RegistryError};
pub use ves::CreateConflict;
