//! Bringing VEs to other revisions of their templates.

use serde::{Deserialize, Serialize};

use crate::words::words;

/// Brings a VE to another revision of its template.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateRequest {
    /// The revision; absent for the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u32>,
    /// A command for the VE's `/bin/sh` that has to succeed behind it; else the VE is brought back to what it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<String>,
    /// How long the check is tried, in milliseconds; absent for the node's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check_timeout_ms: Option<u64>,
    /// How long its init may take before it is killed, in milliseconds; absent for the node's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_timeout_ms: Option<u64>,
    /// How long its init may take to be ready, in milliseconds; absent for the node's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_timeout_ms: Option<u64>,
}

words! {
    /// How a VE comes to another revision.
    pub enum UpdateWay {
        /// It is there already.
        None = "none",
        /// What it did not change comes from the other revision, what it changed stays its own.
        Template = "template",
        /// Its own package manager brings it there, then what became equal to the other revision is given back.
        Inside = "inside",
    }
}

/// What an update would do to a VE.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdatePlan {
    /// Number of the VE.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// The template that it has, with revision and applications.
    pub from: String,
    /// The one that it would have.
    pub to: String,
    /// How.
    pub way: UpdateWay,
    /// Why its package manager has to do it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
    /// Whether it would be stopped and started.
    pub restarts: bool,
    /// Some of the files that it changed and that differ between the two: they stay its own.
    pub conflicts: Vec<String>,
    /// How many there are.
    pub conflicts_count: u64,
}

/// How an update went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateReport {
    /// The template that the VE had, with revision and applications.
    pub from: String,
    /// The one that it was to have.
    pub to: String,
    /// How it was done.
    pub way: UpdateWay,
    /// Why its package manager had to do it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
    /// From the moment at which its init was told to end until the next was ready; absent for one that did not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downtime_ms: Option<u64>,
    /// Some of the files that it changed and that differ between the two: they stayed its own.
    pub conflicts: Vec<String>,
    /// How many there are.
    pub conflicts_count: u64,
    /// Whether it failed and the VE was brought back to what it was.
    pub rolled_back: bool,
}
