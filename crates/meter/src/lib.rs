//! What VEs use, over time.
//!
//! ```text
//!                     every 10 s                      rates and amounts
//! control groups --\                  /-> [`rate`] ---------------------> history (a year), alert rules
//! filter's counters -> [`Reading`] --+
//! quotas ----------/                  \-> [`account`] ------------------> totals of the month, for billing
//!                                      \> [`exposition`] ---------------> text for Prometheus
//! ```
//!
//! [`metric`] is the one list of what has a name: columns of the history, words of alert rules and of
//! `--metric` are its rows.
//!
//! The kernel's counters begin anew with each start of a VE. [`account`] adds differences and is told when
//! counters began anew, so its totals are exact across restarts of a VE, the daemon and the node. The
//! [`history`] is for looking at: each value within 0.1 %, in one file whose size has a bound.
//!
//! It starts no thread and reads no clock: `vesseld` says when, and stores the totals in the registry.
#![forbid(unsafe_code)]

pub mod account;
pub mod exposition;
pub mod history;
pub mod metric;
pub mod month;
pub mod rate;
pub mod reading;

pub use account::{Account, Baseline, Totals};
pub use history::{History, Level};
pub use metric::{Metric, Unit, Values};
pub use month::Month;
pub use reading::{Bounds, Counter, Counters, Reading};
