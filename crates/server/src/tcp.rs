//! Metrics over TCP, for a Prometheus that does not run as root.
//!
//! Nothing else is answered there, and only where the administrator said so: whoever can connect reads the
//! names of VEs and what they use.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::accepting;
use crate::door::{Closing, Door, talk};
use crate::limits::METRICS_CONNECTIONS_MAX;
use crate::node::Node;
use crate::routes;

/// Why metrics are not answered at an address.
#[derive(Debug, thiserror::Error)]
#[error("metrics cannot be answered at {address}; choose another address with `--metrics-listen`")]
pub struct ListenError {
    address: SocketAddr,
    #[source]
    source: std::io::Error,
}

/// Listens at an address. At port 0 the kernel chooses.
///
/// # Errors
/// When the kernel refuses: most often the port is taken.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ListenError { address, source })
}

/// Answers `/metrics` of `node` on `listener` until `shutdown` is ready.
pub async fn serve_metrics(
    listener: TcpListener,
    node: Arc<dyn Node>,
    shutdown: impl Future<Output = ()> + Send,
) {
    let (close, closing) = watch::channel(false);
    let closing = Closing::new(closing);
    let router = routes::metrics_router(Door {
        node,
        closing: closing.clone(),
        sessions: Arc::new(Semaphore::new(0)),
    });
    let answer = |stream| talk(stream, router.clone(), closing.clone());
    let mut connections =
        accepting::until(shutdown, METRICS_CONNECTIONS_MAX, &listener, answer).await;
    close.send_replace(true);
    // A scrape that was begun is cut off: the next one finds what it wanted.
    connections.shutdown().await;
}
