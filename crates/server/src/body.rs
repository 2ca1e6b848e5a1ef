//! Bodies of answers and requests as streams.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use api::latest::Event;
use axum::body::{Body, Bytes, HttpBody};
use hyper::body::Frame;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::mpsc;

use crate::door::Closing;
use crate::limits::READ_BYTES;
use crate::node::ByteSource;

/// A body that is what a source gives until it ends. One that never ends by itself (`endless`) is cut
/// off when the door closes; others may use the time in which answers are let end.
///
/// Being cut off is an error of the body, which ends the connection: to the caller, half an archive must
/// never look like a whole one.
pub(crate) fn from_source(source: ByteSource, endless: Option<Closing>) -> Body {
    let closed = endless.map_or_else(never, |closing| closing.closed());
    Body::new(SourceBody {
        source,
        closed,
        buffer: vec![0; READ_BYTES],
    })
}

fn never() -> Closed {
    Box::pin(std::future::pending())
}

fn cut_off() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the door closes")
}

/// A body of one line of JSON per event, until the channel closes; cut off when the door does.
pub(crate) fn from_events(events: mpsc::Receiver<Event>, closing: Closing) -> Body {
    Body::new(EventBody {
        events,
        closed: closing.closed(),
    })
}

/// The body of a request as a source.
pub(crate) fn into_source(body: Body) -> ByteSource {
    Box::new(BodySource {
        body,
        chunk: Bytes::new(),
    })
}

type Closed = Pin<Box<dyn Future<Output = ()> + Send>>;

struct SourceBody {
    source: ByteSource,
    closed: Closed,
    buffer: Vec<u8>,
}

impl HttpBody for SourceBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        let mut buffer = ReadBuf::new(&mut this.buffer);
        match Pin::new(&mut this.source).poll_read(context, &mut buffer) {
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => Poll::Ready(None),
            Poll::Ready(Ok(())) => {
                let bytes = Bytes::copy_from_slice(buffer.filled());
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Some(Err(error))),
            Poll::Pending => this
                .closed
                .as_mut()
                .poll(context)
                .map(|()| Some(Err(cut_off()))),
        }
    }
}

struct EventBody {
    events: mpsc::Receiver<Event>,
    closed: Closed,
}

impl HttpBody for EventBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        match this.events.poll_recv(context) {
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Ready(Some(event)) => Poll::Ready(Some(
                serde_json::to_vec(&event)
                    .map_err(io::Error::other)
                    .map(|mut line| {
                        line.push(b'\n');
                        Frame::data(line.into())
                    }),
            )),
            Poll::Pending => this
                .closed
                .as_mut()
                .poll(context)
                .map(|()| Some(Err(cut_off()))),
        }
    }
}

struct BodySource {
    body: Body,
    chunk: Bytes,
}

impl AsyncRead for BodySource {
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
