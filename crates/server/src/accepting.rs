//! Taking connections from a listener, some at a time, until the door closes.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::limits::ACCEPT_PAUSE;

/// Serves each connection that `accept` brings, at most `connections_max` at once, until `shutdown` is
/// ready. Comes back with those that are still being served.
pub(crate) async fn until<S, W>(
    shutdown: impl Future<Output = ()> + Send,
    connections_max: usize,
    accept: impl AsyncFn() -> io::Result<S>,
    serve: impl Fn(S) -> W,
) -> JoinSet<()>
where
    W: Future<Output = ()> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(connections_max));
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = async {
            let permit = Arc::clone(&permits).acquire_owned().await;
            (permit, accept().await)
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
