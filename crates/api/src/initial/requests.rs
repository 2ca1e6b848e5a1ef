//! What callers ask of VEs and of the node.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::operation::Operation;
use crate::words::words;

/// Makes a VE.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateRequest {
    /// Its name, a DNS label.
    pub name: String,
    /// Name of its template; empty for that of the sample.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub template: String,
    /// The sample that says whatever this request does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<String>,
    /// Applications on that template, by the names of their own templates on it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub applications: Vec<String>,
    /// `APPLICATION.SETTING=VALUE` texts: what is chosen of what those offer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// `KEY=VALUE` texts with the keys and units of `vessel set`, later ones winning.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<String>,
    /// Its labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Root's password in clear text, hashed by the node; absent leaves root without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_password: Option<String>,
    /// Public keys for root, each a line of `authorized_keys`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ssh_keys: Vec<String>,
}

/// Starts a VE.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartRequest {}

/// Stops or restarts a VE.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StopRequest {
    /// Whether to end its processes without asking its init first.
    #[serde(default)]
    pub kill: bool,
    /// How long its init may take before it is killed, in milliseconds; absent for the node's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// Deletes a VE and its private area.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeleteRequest {
    /// Whether it is killed first if it has processes.
    #[serde(default)]
    pub force: bool,
}

/// Changes settings of a VE, live and saved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetRequest {
    /// `KEY=VALUE` texts; `KEY=` takes a setting back to its default. All or none are accepted.
    #[serde(default)]
    pub settings: Vec<String>,
    /// Labels to add or change.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Labels to take away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels_removed: Vec<String>,
}

/// Puts applications below the files of a stopped VE, and takes others away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplicationsRequest {
    /// Applications to add, by the names of their own templates on the VE's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<String>,
    /// `APPLICATION.SETTING=VALUE` texts: what is chosen of what those offer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// Applications to take away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
}

/// What became of a [`SetRequest`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SetReply {
    /// The work that it was.
    pub operation: Operation,
    /// Each setting of the request, in its order.
    pub changes: Vec<SettingChange>,
}

/// What became of one setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingChange {
    /// Its key.
    pub key: String,
    /// Its value in the form that can be typed back; empty when it was taken back to its default.
    pub value: String,
    /// Whether it acts already.
    pub outcome: SetOutcome,
    /// Why it does not act already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
    /// What this host does instead, where it cannot do it wholly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

words! {
    /// When a saved setting acts.
    pub enum SetOutcome {
        /// It acts now, or the VE has no processes and it acts from its start on.
        Applied = "applied",
        /// It is saved and acts from the next start on.
        PendingRestart = "pending_restart",
        /// It was so already.
        Unchanged = "unchanged",
    }
}

/// Changes what a node keeps for itself, and how much it sells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeSetRequest {
    /// `KEY=VALUE` texts; `KEY=` takes a setting back to its default. All or none are accepted.
    #[serde(default)]
    pub settings: Vec<String>,
}

/// Stops every VE of the node, then ends its launcher and its daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShutdownRequest {
    /// How long each VE's init may take before it is killed, in milliseconds; absent for the node's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// Takes a node away: its VEs, templates, pool and registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DestroyRequest {
    /// Whether VEs that exist are killed and deleted; without it they make the node refuse.
    #[serde(default)]
    pub force: bool,
}
