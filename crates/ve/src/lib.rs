//! The nouns of Vessel: identifiers, names, units, settings, specifications, states.
//!
//! Everything here is a value. Text from people is parsed into these types once, at the edge, and
//! whoever holds one may rely on it: a [`Name`] is a DNS label, an [`VeId`] has its own range of
//! user ids, a [`Limits`] contradicts nothing that can be seen without looking at a node.
//!
//! This crate does no I/O, reads no clock and knows no kernel; it depends on nothing of ours.
//! Domain types are not serializable on purpose: `api` and `registry` each have their own records.
#![forbid(unsafe_code)]

pub mod growth;
pub mod id;
pub mod limits;
pub mod name;
pub mod revision;
pub mod settings;
pub mod spec;
pub mod stack;
pub mod state;
pub mod units;

pub use growth::MemoryGrowth;
pub use id::{InvalidVeId, UidBase, VeId};
pub use limits::{CpuSet, Limits};
pub use name::{InvalidName, Name};
pub use revision::{InvalidRevision, Revision};
pub use settings::{InvalidSetting, Key, NodeKey, NodeResources, NodeSetting, Setting};
pub use spec::{Autostart, Spec};
pub use stack::{InvalidStack, Options, Stack, StackReference};
pub use state::{Exit, State};
pub use units::{Bits, Bytes, Cores, Factor, InvalidUnit, Operations, Percent, Seconds};
