//! Work that takes time, and what is told about it.

use serde::{Deserialize, Serialize};

use super::error::ApiError;
use super::update::UpdateReport;
use crate::time::Timestamp;
use crate::words::words;

words! {
    /// How far an operation is.
    pub enum OperationState {
        /// It waits for its turn.
        Queued = "queued",
        /// It is being done.
        Running = "running",
        /// It is done.
        Done = "done",
        /// It failed; what it had done was undone, and `error` says why.
        Failed = "failed",
        /// Somebody cancelled it; what it had done was undone.
        Cancelled = "cancelled",
        /// It was cut off by an end of the daemon and undone at the next start.
        Undone = "undone",
    }
}

impl OperationState {
    /// Whether nothing will change any more.
    #[must_use]
    pub const fn is_ended(self) -> bool {
        matches!(
            self,
            Self::Done | Self::Failed | Self::Cancelled | Self::Undone
        )
    }
}

words! {
    /// What kind of thing an operation is about.
    pub enum SubjectKind {
        /// A VE.
        Ve = "ve",
        /// A template.
        Template = "template",
        /// The node itself.
        Node = "node",
    }
}

/// A thing that an operation is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// What kind of thing.
    pub kind: SubjectKind,
    /// Its name.
    pub name: String,
    /// Its number, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u32>,
}

/// How much of an operation is done.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// 0 to 1; absent when it cannot be said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fraction: Option<f64>,
    /// What is being done: `unpacking nginx-common`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// A journalled piece of work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Operation {
    /// Its number, never used again.
    pub id: u64,
    /// What it does: `start`, `create`, `template-build`, ...
    pub kind: String,
    /// What it is about.
    pub subjects: Vec<Subject>,
    /// How far it is.
    pub state: OperationState,
    /// How much is done.
    #[serde(default)]
    pub progress: Progress,
    /// Why it failed, was cancelled or undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ApiError>,
    /// When it was asked for.
    pub created: Timestamp,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// Whether it can be cancelled now.
    #[serde(default)]
    pub cancellable: bool,
    /// Of an update that ended since the daemon began: how it went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<UpdateReport>,
}

/// Something that happened on the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its number, rising by the node's life; gaps are possible.
    pub id: u64,
    /// When it happened.
    pub time: Timestamp,
    /// What happened: `ve-started`, `ve-ready`, `ve-exited`, `template-made`, ...
    pub kind: String,
    /// To what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Subject>,
    /// Within which operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<u64>,
    /// In words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}
