//! What is in VEs and templates: packages, and what differs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::operation::Operation;
use super::ve::VeState;
use crate::words::words;

words! {
    /// Whose packages an entry of the inventory lists.
    pub enum InventoryKind {
        /// A VE's.
        Ve = "ve",
        /// A template's.
        Template = "template",
    }
}

/// A VE or template, and the packages in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InventoryEntry {
    /// Whose it is.
    pub kind: InventoryKind,
    /// Number of the VE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u32>,
    /// Its name.
    pub name: String,
    /// What the VE is doing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<VeState>,
    /// Name of the template that the VE was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// Who it belongs to, in words of its administrator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// What it is for, in words of its administrator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// `Debian GNU/Linux 12 (bookworm)`, as its os-release says; empty where there is none.
    pub system: String,
    /// Whose database was read: `dpkg`, `apk`, `pacman`, `rpm`; empty where there is none.
    pub manager: String,
    /// Number of packages installed.
    pub packages_count: u32,
    /// The packages that were asked for, by name.
    pub packages: Vec<InstalledPackage>,
    /// Why the packages are not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// A package that is installed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstalledPackage {
    /// Its name.
    pub name: String,
    /// Its version, as its package manager writes it.
    pub version: String,
    /// Its architecture; empty where the database has none.
    #[serde(default)]
    pub architecture: String,
    /// The source that it was built from, where that has another name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

words! {
    /// What a VE did to a place of its template.
    pub enum ChangeKind {
        /// The template has nothing there.
        Added = "added",
        /// The VE has nothing there any more.
        Deleted = "deleted",
        /// A file or link with another content.
        Changed = "changed",
        /// Something of another kind: a file that became a link.
        Type = "type",
        /// Only its mode, owner, time or attributes differ.
        Metadata = "metadata",
        /// A copy that is as the template's; `compact` gives it back.
        Equal = "equal",
    }
}

words! {
    /// What is at a place.
    pub enum FileType {
        /// A directory.
        Directory = "directory",
        /// A file.
        File = "file",
        /// A symbolic link.
        Symlink = "symlink",
        /// A device, a pipe or a socket.
        Special = "special",
    }
}

/// A place that a VE changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Its path in the VE. Bytes that are no UTF-8 are replaced, control characters escaped.
    pub path: String,
    /// What became of it.
    pub change: ChangeKind,
    /// What it is now; of something deleted, what it was.
    #[serde(rename = "type")]
    pub kind: FileType,
    /// Length of the file now; 0 for all else.
    pub size_bytes: u64,
    /// Length of what the template has there; of a deleted directory, of everything in it.
    pub template_bytes: u64,
    /// Space of the VE's own copy.
    pub disk_bytes: u64,
    /// Where a directory of the template was before the VE renamed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_from: Option<String>,
    /// What of the metadata differs: `mode`, `owner`, `time`, `attributes`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differs: Vec<String>,
}

/// What a VE changed against its template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Number of the VE.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Its template.
    pub template: String,
    /// How many places changed, by kind of change.
    pub counts: BTreeMap<String, u64>,
    /// Length of all files added and changed.
    pub size_bytes: u64,
    /// The places, by path; no more than the node lists at most.
    pub changes: Vec<Change>,
    /// Whether there are more than were listed or looked at.
    pub truncated: bool,
}

/// What a compaction gave back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CompactReply {
    /// Number of the VE.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// The operation that did it; it ended.
    pub operation: Operation,
    /// Whether the files are the template's again (a stopped VE). Of a running one only the disk's blocks are.
    pub whole: bool,
    /// Files that were given back.
    pub files: u64,
    /// Their length.
    pub size_bytes: u64,
    /// Space that the pool got back, as its quotas count.
    pub disk_bytes: u64,
    /// Equal files that stay, because of other names that they have or directories that hide the template's.
    pub kept_files: u64,
}
