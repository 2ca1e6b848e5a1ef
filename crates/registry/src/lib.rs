//! Durable records of a node: its VEs, and the journal of operations on them. SQLite embedded.
//!
//! The registry is the truth about which VEs exist and what they were asked to be. It is told
//! before something is done and after it was done, so that whoever opens it after a crash knows
//! what was under way: an operation is journalled in the same transaction that reserves what it
//! needs (a name, a number, addresses), and ends in the same transaction that records its outcome.
//!
//! What a call did is on disk before it returns, and survives a power cut; but for the begin of an
//! operation, which survives the daemon at once and a power cut from the next such call (or
//! [`Registry::sync`]) on: a power cut before that leaves no trace of it. One connection, behind
//! one lock: statements here take well below a millisecond, nothing else is done while it is
//! held, and the disk is waited for outside of it, by many at once.
//!
//! It does not decide anything, and does not know what steps an operation has.
#![forbid(unsafe_code)]

mod accounts;
mod copy;
mod documents;
mod durability;
mod operations;
mod record;
mod schema;
mod shared;
mod stored;
#[cfg(test)]
mod tests;
mod ves;

pub use accounts::{AccountBaseline, AccountEntry, AccountMonth};
pub use copy::CopyError;
pub use documents::{DocumentChange, Message};
pub use operations::{Event, NewOperation, Operation, OperationId, OperationState, Outcome};
pub use record::{FirstBoot, Run, Stage, VeRecord};
pub use schema::{OpenError, Registry, RegistryError};
pub use ves::CreateConflict;
