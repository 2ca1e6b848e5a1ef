//! What a client asks of what is in VEs and templates.

use api::latest::{CompactReply, Difference, InventoryEntry};

use crate::transport::{Method, Request};
use crate::{Client, Filter, Result};

/// What of the inventory is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InventoryQuery {
    /// Which VEs; with templates and without a choice of VEs, none.
    pub ves: Filter,
    /// Templates by name.
    pub templates: Vec<String>,
    /// All templates.
    pub all_templates: bool,
    /// Packages by name or that of their source; `*` stands for anything.
    pub packages: Vec<String>,
    /// Only versions before this one.
    pub older_than: Option<String>,
    /// Only counts, no packages.
    pub brief: bool,
}

impl Client {
    /// Packages of VEs, by number, and of templates, by name.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn inventory(&self, query: &InventoryQuery) -> Result<Vec<InventoryEntry>> {
        let request = query.ves.apply(Request::new(Method::GET, "/inventory"));
        let templates = query.templates.iter();
        let request = templates.fold(request, |r, name| r.query("template", name));
        let packages = query.packages.iter();
        let mut request = packages.fold(request, |r, name| r.query("package", name));
        if let Some(version) = &query.older_than {
            request = request.query("older_than", version);
        }
        for (key, set) in [("templates", query.all_templates), ("brief", query.brief)] {
            if set {
                request = request.query(key, "true");
            }
        }
        self.ask(request).await
    }

    /// What a VE changed; with `equal`, also the copies that are as the template's.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn difference(&self, ve: &str, equal: bool) -> Result<Difference> {
        let request = Request::new(Method::GET, "/ves").below(ve);
        let request = request.below("difference");
        self.ask(match equal {
            true => request.query("equal", "true"),
            false => request,
        })
        .await
    }

    /// Gives back what is equal to the template's, and comes back when that is done.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn compact(&self, ve: &str) -> Result<CompactReply> {
        let request = Request::new(Method::POST, "/ves").below(ve);
        self.ask(request.below("compact")).await
    }
}
