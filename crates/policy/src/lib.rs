//! Pure decisions: what may be asked of a VE in its state, which number and address a new one
//! gets, which limits can be granted, what a node may sell and how it is divided, in which order
//! VEs start, which stacks are needed, and what alerts tell when.
//!
//! Nothing here does I/O, reads a clock or takes a lock: every function maps what is known to what
//! should be, so that it can be tested with every input. The `engine` carries decisions out.
#![forbid(unsafe_code)]

pub mod admission;
pub mod alert;
pub mod allocation;
pub mod disk;
pub mod growth;
pub mod limits;
pub mod memory;
pub mod order;
pub mod stacks;
#[cfg(test)]
mod testing;
pub mod transition;
pub mod weights;

pub use admission::{AdmissionDenied, Capacity, NodeCapacity};
pub use allocation::{first_free_address, first_free_id};
pub use disk::{DiskClaim, DiskDivision, divide_disk};
pub use growth::{GrowthDecision, GrowthRules, GrowthStep, Hindrance, Strain};
pub use limits::{InUse, LimitDenied};
pub use memory::{Before, MemoryClaim, MemoryDivision, Reach, Room, divide_memory};
pub use order::{start_waves, stop_waves};
pub use transition::{
    Action, ActionDenied, AfterExit, RESTARTS_MAX, RESTARTS_SECONDS, after_exit, permit,
};
pub use weights::{Claim, cpu_weights};
