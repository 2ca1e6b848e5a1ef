//! What a node must be able to do about updates of VEs.

use api::latest::{Operation, UpdatePlan, UpdateRequest};

use crate::node::{Reply, VeKey};

/// The part of a [`crate::Node`] that brings VEs to other revisions of their templates.
pub trait Updates: Send + Sync + 'static {
    /// `POST /v1/ves/KEY/update`: brings a VE to another revision, or leaves it as it was.
    fn update(&self, ve: VeKey, request: UpdateRequest) -> Reply<'_, Operation>;
    /// `GET /v1/ves/KEY/update`: what that would do; to the newest revision, or to `revision`.
    fn update_plan(&self, ve: VeKey, revision: Option<u32>) -> Reply<'_, UpdatePlan>;
}
