//! What a node must be able to do about revisions of templates.

use api::latest::{Operation, TemplateDifference, TemplateUpdateRequest};

use crate::node::Reply;

/// The part of a [`crate::Node`] that makes revisions of templates.
pub trait Versions: Send + Sync + 'static {
    /// `POST /v1/templates/NAME/update`: makes the next revision of it, if any of its packages is to be had in a newer
    /// version; the newest revision stays the newest if there is none.
    fn update_template(&self, name: String, request: TemplateUpdateRequest)
    -> Reply<'_, Operation>;
    /// `GET /v1/templates/NAME/difference?from=OTHER`: what is another package in the one than in the other.
    fn template_difference(&self, name: String, from: String) -> Reply<'_, TemplateDifference>;
}
