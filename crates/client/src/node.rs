//! What a client asks of the node itself, its pool and its templates.

use api::latest::{
    Account, BuildRequest, DestroyRequest, DoctorReport, History, ImportRequest, InitReply,
    InitRequest, NodeSetRequest, NodeStatus, Operation, PoolStatus, ShutdownRequest, Template,
    TemplateDetails,
};

use crate::transport::{Method, Request};
use crate::{Client, Result};

impl Client {
    /// The past of a VE so many seconds back: the metrics that are named, or all.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn history(&self, ve: &str, seconds: u64, metrics: &[String]) -> Result<History> {
        let request = Request::new(Method::GET, "/ves").below(ve).below("history");
        let request = request.query("since_seconds", &seconds.to_string());
        let request = metrics
            .iter()
            .fold(request, |r, metric| r.query("metric", metric));
        self.ask(request).await
    }

    /// What VEs used in a month (`2026-11`), or in all months that are kept.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn accounts(&self, month: Option<&str>) -> Result<Vec<Account>> {
        let request = Request::new(Method::GET, "/accounts");
        self.ask(match month {
            Some(month) => request.query("month", month),
            None => request,
        })
        .await
    }

    /// Templates, by name.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn templates(&self) -> Result<Vec<Template>> {
        self.ask(Request::new(Method::GET, "/templates")).await
    }

    /// Everything about a template, with its packages if asked for.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn template(&self, name: &str, packages: bool) -> Result<TemplateDetails> {
        let request = Request::new(Method::GET, "/templates").below(name);
        self.ask(request.query("packages", if packages { "true" } else { "false" }))
            .await
    }

    /// Begins to build a template from packages.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn build_template(&self, request: &BuildRequest) -> Result<Operation> {
        self.ask(Request::new(Method::POST, "/templates/build").json(request))
            .await
    }

    /// Begins to import a template.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn import_template(&self, request: &ImportRequest) -> Result<Operation> {
        self.ask(Request::new(Method::POST, "/templates/import").json(request))
            .await
    }

    /// Begins to remove a template.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn remove_template(&self, name: &str) -> Result<Operation> {
        self.ask(Request::new(Method::DELETE, "/templates").below(name))
            .await
    }

    /// Begins to read and compare every file of a template.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn verify_template(&self, name: &str) -> Result<Operation> {
        self.ask(
            Request::new(Method::POST, "/templates")
                .below(name)
                .below("verify"),
        )
        .await
    }

    /// The pool.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn pool(&self) -> Result<PoolStatus> {
        self.ask(Request::new(Method::GET, "/pool")).await
    }

    /// The node.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn node(&self) -> Result<NodeStatus> {
        self.ask(Request::new(Method::GET, "/node")).await
    }

    /// Changes what the node keeps for itself and how much it sells; gives the node as it is then.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn set_node(&self, request: &NodeSetRequest) -> Result<NodeStatus> {
        self.ask(Request::new(Method::PATCH, "/node").json(request))
            .await
    }

    /// Prepares the node.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn init(&self, request: &InitRequest) -> Result<InitReply> {
        self.ask(Request::new(Method::POST, "/node/init").json(request))
            .await
    }

    /// Stops every VE and ends the node's programs.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn shutdown(&self, request: &ShutdownRequest) -> Result<()> {
        self.tell(Request::new(Method::POST, "/node/shutdown").json(request))
            .await
    }

    /// Takes the node away.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn destroy(&self, request: &DestroyRequest) -> Result<()> {
        self.tell(Request::new(Method::POST, "/node/destroy").json(request))
            .await
    }

    /// What the host has and lacks.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn doctor(&self) -> Result<DoctorReport> {
        self.ask(Request::new(Method::GET, "/doctor")).await
    }
}
