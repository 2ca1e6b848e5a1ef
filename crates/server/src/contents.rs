//! What a node must be able to tell of what is in its VEs and templates.

use api::latest::{CompactReply, Difference, InventoryEntry};

use crate::node::{Reply, VeFilter, VeKey};

/// What of the inventory is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InventoryFilter {
    /// Which VEs.
    pub ves: VeFilter,
    /// Templates by name.
    pub templates: Vec<String>,
    /// All templates.
    pub all_templates: bool,
    /// Packages by name, or by that of their source; `*` stands for anything. Whoever has none is left out.
    pub packages: Vec<String>,
    /// Only versions before this one, as the package manager of each orders them.
    pub older_than: Option<String>,
    /// Only counts, no packages.
    pub brief: bool,
}

/// The part of a [`crate::Node`] that looks into VEs from outside.
pub trait Contents: Send + Sync + 'static {
    /// `GET /v1/inventory`: VEs by number, then templates by name. Whatever cannot be read is there with its
    /// `problem`, whether it has the packages or not: nobody shall be taken for up to date who is not known.
    fn inventory(&self, filter: InventoryFilter) -> Reply<'_, Vec<InventoryEntry>>;
    /// `GET /v1/ves/KEY/difference`: what a VE changed; copies that are as the template's, too, when `equal`.
    fn difference(&self, ve: VeKey, equal: bool) -> Reply<'_, Difference>;
    /// `POST /v1/ves/KEY/compact`: gives back what is equal to the template's, and comes back when it is done.
    fn compact(&self, ve: VeKey) -> Reply<'_, CompactReply>;
}
