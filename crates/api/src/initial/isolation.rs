//! What stands between a VE and the rest.

use serde::{Deserialize, Serialize};

use super::ve::VeState;
use crate::words::words;

/// The walls of a VE: what was planned, and what the kernel says of it while it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Isolation {
    /// Number of the VE.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// What it is doing.
    pub state: VeState,
    /// Its init, that was looked at; absent when it does not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// How many parts differ from the plan.
    pub differing: u32,
    /// The walls.
    pub walls: Vec<IsolationWall>,
}

/// One kind of wall.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IsolationWall {
    /// Its name.
    pub name: String,
    /// What it stops.
    pub stops: String,
    /// Its parts.
    pub entries: Vec<IsolationEntry>,
}

/// A part of a wall.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IsolationEntry {
    /// Its name.
    pub name: String,
    /// How it should be.
    pub planned: String,
    /// How it is, where that can be seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    /// Whether it is as planned.
    pub verdict: IsolationVerdict,
    /// What it stops, or why it is as it is.
    pub reason: String,
}

words! {
    /// Whether a part of a wall is as planned.
    pub enum IsolationVerdict {
        /// It is.
        Holds = "holds",
        /// It is not.
        Differs = "differs",
        /// It cannot be seen: the VE does not run, or the kernel does not say.
        Unseen = "unseen",
    }
}
