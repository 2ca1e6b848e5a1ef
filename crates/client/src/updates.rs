//! What a client asks about updates of VEs.

use api::latest::{Operation, UpdatePlan, UpdateRequest};

use crate::transport::{Method, Request};
use crate::{Client, Result};

impl Client {
    /// Begins to bring a VE to another revision of its template. When the operation has ended, its `update` says how
    /// it went, also where it failed.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn update(&self, ve: &str, request: &UpdateRequest) -> Result<Operation> {
        let words = Request::new(Method::POST, "/ves").below(ve);
        self.ask(words.below("update").json(request)).await
    }

    /// What an update of a VE would do; to the newest revision, or to this one.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn update_plan(&self, ve: &str, revision: Option<u32>) -> Result<UpdatePlan> {
        let request = Request::new(Method::GET, "/ves").below(ve).below("update");
        self.ask(match revision {
            Some(revision) => request.query("revision", &revision.to_string()),
            None => request,
        })
        .await
    }
}
