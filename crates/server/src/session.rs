//! Carries the frames of an `exec` or a `console` between its caller and the node.
//!
//! Four flows share one connection: frames from the caller are sorted into input and control; input is
//! written by a task of its own that gives credits back; output and error output are read by one task
//! each. All frames for the caller go through one short channel to a single writer, so a caller that
//! does not read holds the command back.

use std::sync::Arc;

use api::latest::{ApiError, ErrorCode};
use api::stream::{Decoder, Ended, Frame, STDIN_WINDOW};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::door::Closing;
use crate::limits::{OUTPUT_IDLE_MAX, READ_BYTES};
use crate::node::{ByteSink, ByteSource, Control, Session};

/// Frames on their way to the writer: enough to keep it busy, little enough to hold back.
const FRAMES_QUEUED: usize = 4;

/// Serves a session until its command ended, the caller is gone, or the door closes.
pub(crate) async fn serve(upgraded: Upgraded, session: Session, closing: Closing) {
    let (reader, writer) = tokio::io::split(TokioIo::new(upgraded));
    let (frames, queued) = mpsc::channel(FRAMES_QUEUED);
    let Session {
        input,
        output,
        errors,
        control,
        mut ended,
    } = session;

    let mut write = tokio::spawn(write_frames(writer, queued));
    let mut receive = tokio::spawn(receive_frames(reader, input, control, frames.clone()));
    let mut outputs = JoinSet::new();
    let mut activity = Vec::new();
    let sources = [
        Some((output, Frame::Stdout as Wrap)),
        errors.map(|e| (e, Frame::Stderr as Wrap)),
    ];
    for (source, wrap) in sources.into_iter().flatten() {
        let (tell, active) = watch::channel(Flow::Reading);
        activity.push(active);
        outputs.spawn(send_output(source, wrap, frames.clone(), tell));
    }

    let last = tokio::select! {
        ended = &mut ended => Some(ended.map_or_else(|_| Frame::Error(lost()), exit_frame)),
        _ = &mut receive => None,
        _ = &mut write => None,
        () = closing.closed() => Some(Frame::Error(lost())),
    };
    if let Some(last) = last {
        tokio::select! {
            () = drain(&mut outputs, activity) => {}
            _ = &mut write => {}
        }
        outputs.shutdown().await;
        // No credit may follow the last frame.
        receive.abort();
        // A writer that is gone took the receiver along: nobody is left to be told.
        drop(frames.send(last).await);
    }
    drop(frames);
    receive.abort();
    outputs.shutdown().await;
    if !write.is_finished() {
        drop((&mut write).await);
    }
}

type Wrap = fn(Vec<u8>) -> Frame;

fn exit_frame(ended: Ended) -> Frame {
    Frame::Exit(ended)
}

fn lost() -> ApiError {
    ApiError::new(
        ErrorCode::Failed,
        "the session broke: the node lost its command",
    )
}

/// What the task of an output does at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    /// It waits for the command.
    Reading,
    /// It waits for the caller, for as long as the caller likes.
    Sending,
}

/// Whether an output moved since it was last looked at, or is held back by its caller.
fn is_active(flow: &watch::Receiver<Flow>) -> bool {
    // An error is an output that ended.
    flow.has_changed().unwrap_or(false) || *flow.borrow() == Flow::Sending
}

/// Waits until all output was read, or what is left has been silent for [`OUTPUT_IDLE_MAX`].
async fn drain(outputs: &mut JoinSet<()>, mut activity: Vec<watch::Receiver<Flow>>) {
    loop {
        for active in &mut activity {
            active.mark_unchanged();
        }
        match timeout(OUTPUT_IDLE_MAX, outputs.join_next()).await {
            Ok(Some(_)) => {}
            Ok(None) => return,
            Err(_) if activity.iter().any(is_active) => {}
            Err(_) => return,
        }
    }
}

async fn write_frames(mut writer: impl AsyncWrite + Unpin, mut queued: mpsc::Receiver<Frame>) {
    let mut bytes = Vec::new();
    while let Some(frame) = queued.recv().await {
        bytes.clear();
        frame.encode(&mut bytes);
        if writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err() {
            return;
        }
    }
    // The caller sees the end either way; a failure here only means that it is gone already.
    drop(writer.shutdown().await);
}

async fn send_output(
    mut source: ByteSource,
    wrap: Wrap,
    frames: mpsc::Sender<Frame>,
    tell: watch::Sender<Flow>,
) {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        // A terminal's master gives EIO instead of an end once its last slave is closed (pty(7)).
        let length = match source.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(length) => length,
        };
        tell.send_replace(Flow::Sending);
        let data = buffer.get(..length).unwrap_or_default().to_vec();
        if frames.send(wrap(data)).await.is_err() {
            return;
        }
        tell.send_replace(Flow::Reading);
    }
}

/// Sorts the caller's frames until the connection ends or says something that is no frame.
async fn receive_frames(
    mut reader: impl AsyncRead + Unpin,
    input: ByteSink,
    control: mpsc::Sender<Control>,
    frames: mpsc::Sender<Frame>,
) {
    // Unbounded in count, bounded in bytes: the window below is checked against what was not written yet.
    let (feed, fed) = mpsc::unbounded_channel();
    let window = Arc::new(Semaphore::new(STDIN_WINDOW as usize));
    let mut tasks = JoinSet::new();
    tasks.spawn(write_input(input, fed, Arc::clone(&window), frames));
    let mut feed = Some(feed);
    let mut decoder = Decoder::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let length = match reader.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(length) => length,
        };
        decoder.push(buffer.get(..length).unwrap_or_default());
        loop {
            match decoder.next_frame() {
                Ok(None) => break,
                Ok(Some(Frame::Stdin(data))) if data.is_empty() => feed = None,
                Ok(Some(Frame::Stdin(data))) => {
                    let count = u32::try_from(data.len()).unwrap_or(u32::MAX);
                    // A caller that sends more than it was allowed to is broken or hostile.
                    let Ok(permit) = window.try_acquire_many(count) else {
                        return;
                    };
                    permit.forget();
                    if let Some(feed) = &feed {
                        // A closed command input is no end of the session: `head -1` ends reading early.
                        drop(feed.send(data));
                    }
                }
                Ok(Some(Frame::Resize(size))) => tell(&control, Control::Resize(size)).await,
                Ok(Some(Frame::Signal(number))) => tell(&control, Control::Signal(number)).await,
                Ok(Some(_)) | Err(_) => return,
            }
        }
    }
}

async fn tell(control: &mpsc::Sender<Control>, wish: Control) {
    if control.send(wish).await.is_err() {
        tracing::debug!("the node listens no more to a session's wishes");
    }
}

/// Writes input as fast as the command takes it and gives credits back; after a failure it only gives
/// credits, so that the caller's input is read to its end as a closed pipe would swallow it.
async fn write_input(
    input: ByteSink,
    mut fed: mpsc::UnboundedReceiver<Vec<u8>>,
    window: Arc<Semaphore>,
    frames: mpsc::Sender<Frame>,
) {
    let mut input = Some(input);
    while let Some(data) = fed.recv().await {
        if let Some(open) = &mut input
            && (open.write_all(&data).await.is_err() || open.flush().await.is_err())
        {
            input = None;
        }
        window.add_permits(data.len());
        let credit = u32::try_from(data.len()).unwrap_or(u32::MAX);
        if frames.send(Frame::Credit(credit)).await.is_err() {
            return;
        }
    }
    if let Some(mut open) = input {
        drop(open.shutdown().await);
    }
}
