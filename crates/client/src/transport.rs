//! HTTP over a Unix socket, one connection a request.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper::{Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::UnixStream;

use crate::error::ClientError;

pub(crate) use hyper::Method;

/// Largest answer that is held in memory: a list of all VEs of the largest node is some 40 MB.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Bytes read at once from a source that is sent.
const READ_BYTES: usize = 64 * 1024;

type RequestBody = UnsyncBoxBody<Bytes, io::Error>;

/// A request in the making.
pub(crate) struct Request {
    method: Method,
    path: String,
    query: String,
    body: RequestBody,
    is_json: bool,
    broken: Option<serde_json::Error>,
}

impl Request {
    pub(crate) fn new(method: Method, path: &str) -> Self {
        let path = format!("{}{path}", api::PATH_PREFIX);
        let body = full(Bytes::new());
        Self {
            method,
            path,
            query: String::new(),
            body,
            is_json: false,
            broken: None,
        }
    }

    /// Adds a segment to the path.
    pub(crate) fn below(mut self, segment: &str) -> Self {
        self.path.push('/');
        escape(segment, &mut self.path);
        self
    }

    /// Adds a pair to the query.
    pub(crate) fn query(mut self, key: &str, value: &str) -> Self {
        self.query
            .push(if self.query.is_empty() { '?' } else { '&' });
        escape(key, &mut self.query);
        self.query.push('=');
        escape(value, &mut self.query);
        self
    }

    /// Sends a value as JSON.
    pub(crate) fn json<T: Serialize>(mut self, value: &T) -> Self {
        match serde_json::to_vec(value) {
            Ok(bytes) => self.body = full(bytes.into()),
            Err(error) => self.broken = Some(error),
        }
        self.is_json = true;
        self
    }

    /// Sends what a source gives.
    pub(crate) fn source(mut self, source: impl AsyncRead + Send + Unpin + 'static) -> Self {
        self.body = SourceBody {
            source,
            buffer: vec![0; READ_BYTES],
        }
        .boxed_unsync();
        self
    }
}

fn full(bytes: Bytes) -> RequestBody {
    Full::new(bytes)
        .map_err(|never: Infallible| match never {})
        .boxed_unsync()
}

/// Writes text as part of a URI: letters, digits and `-._~` as they are (RFC 3986, section 2.3), the rest escaped.
fn escape(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// Sends a request and gives its whole answer.
pub(crate) async fn collect(socket: &Path, request: Request) -> Result<Bytes, ClientError> {
    let response = send(socket, request, false).await?;
    whole(socket, response).await
}

/// Sends a request and gives its answer as it comes.
pub(crate) async fn stream(socket: &Path, request: Request) -> Result<ByteStream, ClientError> {
    let response = send(socket, request, false).await?;
    Ok(ByteStream {
        body: response.into_body(),
        chunk: Bytes::new(),
    })
}

/// Sends a request that changes the protocol and gives the connection.
pub(crate) async fn upgrade(socket: &Path, request: Request) -> Result<Upgraded, ClientError> {
    let response = send(socket, request, true).await?;
    hyper::upgrade::on(response)
        .await
        .map_err(|source| ClientError::Broken {
            socket: socket.to_owned(),
            source,
        })
}

async fn send(
    socket: &Path,
    request: Request,
    upgrade: bool,
) -> Result<Response<Incoming>, ClientError> {
    if let Some(source) = request.broken {
        return Err(ClientError::Malformed {
            socket: socket.to_owned(),
            source,
        });
    }
    let broken = |source| ClientError::Broken {
        socket: socket.to_owned(),
        source,
    };
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|source| match source.kind() {
            io::ErrorKind::PermissionDenied => ClientError::Forbidden(socket.to_owned()),
            _ => ClientError::NoDaemon {
                socket: socket.to_owned(),
                source,
            },
        })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    // Its errors come back through the sender or the body too.
    tokio::spawn(async move { drop(connection.with_upgrades().await) });
    let mut builder = hyper::Request::builder()
        .method(request.method)
        .uri(format!("{}{}", request.path, request.query))
        .header(header::HOST, "localhost");
    if request.is_json {
        builder = builder.header(header::CONTENT_TYPE, "application/json");
    }
    if upgrade {
        builder = builder
            .header(header::CONNECTION, "upgrade")
            .header(header::UPGRADE, api::UPGRADE_PROTOCOL);
    }
    let request = builder
        .body(request.body)
        .map_err(ClientError::Unsendable)?;
    let response = sender.send_request(request).await.map_err(broken)?;
    match response.status() {
        StatusCode::SWITCHING_PROTOCOLS if upgrade => Ok(response),
        status if status.is_success() && !upgrade => Ok(response),
        _ => Err(refusal(socket, response).await),
    }
}

async fn refusal(socket: &Path, response: Response<Incoming>) -> ClientError {
    match whole(socket, response).await {
        Ok(bytes) => match serde_json::from_slice(&bytes) {
            Ok(error) => ClientError::Refused(error),
            Err(source) => ClientError::Malformed {
                socket: socket.to_owned(),
                source,
            },
        },
        Err(error) => error,
    }
}

async fn whole(socket: &Path, response: Response<Incoming>) -> Result<Bytes, ClientError> {
    let cut = |source| ClientError::Cut {
        socket: socket.to_owned(),
        source,
    };
    let collected = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
        .collect()
        .await;
    Ok(collected
        .map_err(|error| cut(io::Error::other(error)))?
        .to_bytes())
}

/// An answer that is read as it comes. A node that dies in the middle of it makes reading fail.
#[derive(Debug)]
pub struct ByteStream {
    body: Incoming,
    chunk: Bytes,
}

impl AsyncRead for ByteStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.chunk.is_empty() {
            match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                None => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                Some(Ok(frame)) => this.chunk = frame.into_data().unwrap_or_default(),
            }
        }
        let length = this.chunk.len().min(buffer.remaining());
        buffer.put_slice(&this.chunk.split_to(length));
        Poll::Ready(Ok(()))
    }
}

struct SourceBody<R> {
    source: R,
    buffer: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Body for SourceBody<R> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        let mut buffer = ReadBuf::new(&mut this.buffer);
        match ready!(Pin::new(&mut this.source).poll_read(context, &mut buffer)) {
            Ok(()) if buffer.filled().is_empty() => Poll::Ready(None),
            Ok(()) => Poll::Ready(Some(Ok(Frame::data(Bytes::copy_from_slice(
                buffer.filled(),
            ))))),
            Err(error) => Poll::Ready(Some(Err(error))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_name_leaks_into_the_structure_of_a_uri() {
        let request = Request::new(Method::GET, "/ves")
            .below("a/../b?c#d e")
            .query("k&", "v=1&%");
        assert_eq!(request.path, "/v1/ves/a%2F..%2Fb%3Fc%23d%20e");
        assert_eq!(request.query, "?k%26=v%3D1%26%25");
    }
}
