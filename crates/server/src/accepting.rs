//! Taking connections from a listener, some at a time, until the door closes.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::limits::ACCEPT_PAUSE;

/// What connections come by.
pub(crate) trait Listener: Sync {
    /// A connection.
    type Stream: Send;

    /// Waits for the next connection.
    fn accept_next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn accept_next(&self) -> io::Result<TcpStream> {
        Ok(self.accept().await?.0)
    }
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    async fn accept_next(&self) -> io::Result<UnixStream> {
        Ok(self.accept().await?.0)
    }
}

/// Serves each connection that `listener` brings, at most `connections_max` at once, until `shutdown` is
/// ready. Comes back with those that are still being served.
pub(crate) async fn until<L, W>(
    shutdown: impl Future<Output = ()> + Send,
    connections_max: usize,
    listener: &L,
    serve: impl Fn(L::Stream) -> W,
) -> JoinSet<()>
where
    L: Listener,
    W: Future<Output = ()> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(connections_max));
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = async {
            let permit = Arc::clone(&permits).acquire_owned().await;
            (permit, listener.accept_next().await)
        };
        tokio::select! {
            biased;
            () = &mut shutdown => return connections,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            (permit, accepted) = accepted => match accepted {
                Ok(stream) => {
                    let work = serve(stream);
                    connections.spawn(async move {
                        work.await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "no connection could be taken");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}
