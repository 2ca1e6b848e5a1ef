//! What a client asks about configuration samples.

use api::latest::Sample;

use crate::transport::{Method, Request};
use crate::{Client, Result};

impl Client {
    /// Samples, by name.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn samples(&self) -> Result<Vec<Sample>> {
        self.ask(Request::new(Method::GET, "/samples")).await
    }

    /// Makes a sample.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn create_sample(&self, sample: &Sample) -> Result<Sample> {
        self.ask(Request::new(Method::POST, "/samples").json(sample))
            .await
    }

    /// Removes a sample. VEs made by it stay as they are.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn delete_sample(&self, name: &str) -> Result<()> {
        self.tell(Request::new(Method::DELETE, "/samples").below(name))
            .await
    }
}
