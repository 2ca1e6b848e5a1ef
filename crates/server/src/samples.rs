//! What a node must be able to do about configuration samples.

use api::latest::Sample;

use crate::node::Reply;

/// The part of a [`crate::Node`] that keeps samples.
pub trait Samples: Send + Sync + 'static {
    /// `GET /v1/samples`: by name.
    fn samples(&self) -> Reply<'_, Vec<Sample>>;
    /// `POST /v1/samples`: makes one; `conflict` when there is one of this name.
    fn create_sample(&self, sample: Sample) -> Reply<'_, Sample>;
    /// `DELETE /v1/samples/NAME`: VEs made by it stay as they are.
    fn delete_sample(&self, name: String) -> Reply<'_, ()>;
}
