//! Why a node could not be asked, or said no.

use std::io;
use std::path::PathBuf;

use api::latest::{ApiError, ErrorCode};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The node refuses.
    #[error(transparent)]
    Refused(#[from] ApiError),
    /// Nobody answers on the socket.
    #[error("no daemon answers on `{}`", socket.display())]
    NoDaemon {
        /// The socket.
        socket: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The caller may not connect.
    #[error("`{}` may be used by root only", .0.display())]
    Forbidden(PathBuf),
    /// The connection broke in the middle of a request or of an answer.
    #[error("the daemon behind `{}` ended the connection", socket.display())]
    Broken {
        /// The socket.
        socket: PathBuf,
        /// Why.
        #[source]
        source: hyper::Error,
    },
    /// The connection broke in the middle of a stream.
    #[error("the daemon behind `{}` cut the stream off", socket.display())]
    Cut {
        /// The socket.
        socket: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The answer is none of this API.
    #[error("the daemon behind `{}` gave an answer that this version does not understand", socket.display())]
    Malformed {
        /// The socket.
        socket: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The request cannot be written down as HTTP.
    #[error("the request cannot be sent")]
    Unsendable(#[source] hyper::http::Error),
}

impl ClientError {
    /// The same as a refusal with code, cause and next step, for those who show it.
    #[must_use]
    pub fn into_api_error(self) -> ApiError {
        let code = match &self {
            Self::Refused(error) => return error.clone(),
            Self::Forbidden(_) => ErrorCode::Permission,
            Self::NoDaemon { .. } | Self::Broken { .. } | Self::Cut { .. } => {
                ErrorCode::Unreachable
            }
            Self::Malformed { .. } | Self::Unsendable(_) => ErrorCode::Failed,
        };
        let mut message = self.to_string();
        let mut cause = std::error::Error::source(&self);
        while let Some(error) = cause {
            message = format!("{message}: {error}");
            cause = error.source();
        }
        let error = ApiError::new(code, message);
        match self {
            Self::NoDaemon { socket, .. } => {
                let root = socket.parent().map(|root| root.display().to_string());
                let root = root.unwrap_or_default();
                error.with_hint(format!(
                    "start it with `systemctl start vesseld` or `vesseld --root {root}`; `--root` or VESSEL_ROOT names another node"
                ))
            }
            Self::Forbidden(_) => error.with_hint("run the command as root"),
            Self::Broken { .. } | Self::Cut { .. } => error.with_hint(
                "its log says why; VEs run on without it, and begun work is resumed when it starts",
            ),
            Self::Malformed { .. } => {
                error.with_hint("compare `vessel --version` with `vesseld --version`")
            }
            Self::Refused(_) | Self::Unsendable(_) => error,
        }
    }
}
