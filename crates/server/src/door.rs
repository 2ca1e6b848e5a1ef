//! The socket: who may come in, how many, and for how long.

use std::future::Future;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::Arc;

use api::latest::{ApiError, ErrorCode};
use axum::Router;
use axum::extract::Request;
use axum::response::IntoResponse;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};

use crate::accepting;
use crate::answer::Refusal;
use crate::limits::{CONNECTIONS_MAX, DRAIN_TIMEOUT, HEAD_BYTES_MAX, HEAD_TIMEOUT, SESSIONS_MAX};
use crate::node::{Node, Peer};
use crate::routes;

/// What every handler shares.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) node: Arc<dyn Node>,
    pub(crate) closing: Closing,
    pub(crate) sessions: Arc<Semaphore>,
}

/// Tells those who wait or follow that the door closes.
#[derive(Clone, Debug)]
pub(crate) struct Closing(watch::Receiver<bool>);

impl Closing {
    pub(crate) fn new(closing: watch::Receiver<bool>) -> Self {
        Self(closing)
    }

    /// Ready when the door closes.
    pub(crate) fn closed(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let mut receiver = self.0.clone();
        // An error is a sender that is gone, which is a closed door too.
        Box::pin(async move { drop(receiver.wait_for(|closing| *closing).await) })
    }

    /// What `work` comes to, or a refusal when the door closes before it.
    pub(crate) async fn or_closed<T>(
        &self,
        work: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, ApiError> {
        tokio::select! {
            biased;
            done = work => done,
            () = self.closed() => Err(ApiError::new(
                ErrorCode::Unreachable,
                "the node's daemon ends; VEs and begun work are not lost",
            )
            .with_hint("ask again when `vesseld` runs")),
        }
    }
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another daemon answers there.
    #[error("socket `{}`: another daemon answers on it", .0.display())]
    InUse(PathBuf),
    /// A path for a socket is at most 107 bytes long (unix(7), `sun_path`).
    #[error("socket `{}`: the path is longer than the 107 bytes that a socket can have", .0.display())]
    TooLong(PathBuf),
    /// The kernel refused.
    #[error("socket `{}` cannot be made", path.display())]
    Make {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Makes the socket at `path`, readable and writable for its owner only.
///
/// A socket that nobody answers on is replaced. The new one appears under its name with its final mode, by
/// rename, so there is no moment at which others may connect.
///
/// # Errors
/// Refuses a path that another daemon answers on, one that is too long, and passes on what the kernel says.
pub fn bind(path: &Path) -> Result<UnixListener, BindError> {
    const SUN_PATH_BYTES_MAX: usize = 107;
    let staged = path.with_extension("new");
    if path.as_os_str().len().max(staged.as_os_str().len()) > SUN_PATH_BYTES_MAX {
        return Err(BindError::TooLong(path.to_owned()));
    }
    if StdUnixStream::connect(path).is_ok() {
        return Err(BindError::InUse(path.to_owned()));
    }
    let make = |source| BindError::Make {
        path: path.to_owned(),
        source,
    };
    match std::fs::remove_file(&staged) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(make(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&staged).map_err(make)?;
    let mode = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&staged, mode).map_err(make)?;
    std::fs::rename(&staged, path).map_err(make)?;
    Ok(listener)
}

/// Answers on `listener` for `node` until `shutdown` is ready; then takes no new connection, ends those
/// who follow or wait, lets other answers end within [`DRAIN_TIMEOUT`], and comes back.
pub async fn serve(
    listener: UnixListener,
    node: Arc<dyn Node>,
    shutdown: impl Future<Output = ()> + Send,
) {
    let (close, closing) = watch::channel(false);
    let closing = Closing(closing);
    let router = routes::router(Door {
        node,
        closing: closing.clone(),
        sessions: Arc::new(Semaphore::new(SESSIONS_MAX)),
    });
    let answer = |stream| connection(stream, router.clone(), closing.clone());
    let mut connections = accepting::until(shutdown, CONNECTIONS_MAX, &listener, answer).await;
    drop(listener);
    close.send_replace(true);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_TIMEOUT, drained).await.is_err() {
        tracing::warn!("answers that did not end in time are cut off");
    }
}

/// Answers the requests of one connection.
async fn connection(stream: UnixStream, router: Router, closing: Closing) {
    let peer = stream.peer_cred().ok();
    let router = match peer {
        Some(credentials) if may_speak(credentials.uid()) => {
            let pid = credentials.pid().and_then(|pid| u32::try_from(pid).ok());
            let peer = Peer {
                pid,
                uid: credentials.uid(),
            };
            router.layer(axum::Extension(peer))
        }
        other => refuse_all(other.map(|credentials| credentials.uid())),
    };
    talk(stream, router, closing).await;
}

/// Answers requests on a connection by `router` until its other side leaves or the door closes.
pub(crate) async fn talk(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    router: Router,
    closing: Closing,
) {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .half_close(false);
    let service = TowerToHyperService::new(router);
    let mut served = pin!(
        builder
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
    );
    let mut closed = closing.closed();
    let result = tokio::select! {
        result = &mut served => result,
        () = &mut closed => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = result {
        // A caller that went away in the middle of an answer is everyday life.
        tracing::debug!(%error, "a connection broke");
    }
}

fn may_speak(uid: u32) -> bool {
    uid == 0
        || std::fs::metadata("/proc/self").is_ok_and(|own| {
            use std::os::unix::fs::MetadataExt;
            own.uid() == uid
        })
}

fn refuse_all(uid: Option<u32>) -> Router {
    let who = uid.map_or_else(|| "an unknown user".to_owned(), |uid| format!("user {uid}"));
    Router::new().fallback(move |_: Request| {
        let error = ApiError::new(
            ErrorCode::Permission,
            format!("{who} may not speak to this node: only root may"),
        );
        async move { Refusal(error.with_hint("run the command as root")).into_response() }
    })
}
