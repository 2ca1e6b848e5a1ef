//! What a client asks about revisions of templates.

use api::latest::{Operation, TemplateDifference, TemplateUpdateRequest};

use crate::transport::{Method, Request};
use crate::{Client, Result};

impl Client {
    /// Begins to make the next revision of a template. If none of its packages is to be had in a newer version, there is
    /// none, and the operation is done all the same.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn update_template(
        &self,
        name: &str,
        request: &TemplateUpdateRequest,
    ) -> Result<Operation> {
        let path = Request::new(Method::POST, "/templates").below(name);
        self.ask(path.below("update").json(request)).await
    }

    /// What differs between two templates: from one to the other.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn template_difference(&self, from: &str, to: &str) -> Result<TemplateDifference> {
        let path = Request::new(Method::GET, "/templates").below(to);
        self.ask(path.below("difference").query("from", from)).await
    }
}
