//! Isolation: everything that stands between a VE and the rest, in one place.
//!
//! | wall | data | stops |
//! |---|---|---|
//! | namespaces | [`namespaces`] | naming what is not the VE's |
//! | users | `ve::UidBase` | owning what is not the VE's |
//! | filter | [`seccomp`] | kernel code that has no use in a VE |
//! | capabilities | [`capabilities`] | rights that mean the node |
//! | devices | `cgroup::ALLOWED` | hardware |
//! | paths | [`paths`] | reading about the node |
//! | limits | [`kernel_limits`], control groups | using up what all share |
//!
//! The tables are what the launch itself works with; [`report()`] lays them beside what the kernel
//! says of a running VE, so a wall that was forgotten, or that the VE took away, shows.
//!
//! What it does *not* do: nothing here can prove that the kernel has no hole. The report says which
//! walls stand, and the tests of `tests/system/src/adversary` throw themselves against them.

pub mod capabilities;
pub mod kernel_limits;
pub mod namespaces;
pub mod observed;
pub mod paths;
pub mod report;
pub mod seccomp;

pub use observed::{ObserveError, Observed};
pub use report::{Entry, Plan, Verdict, Wall, report};
