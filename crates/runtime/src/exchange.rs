//! Requests, replies and events on one connection, for many threads.

use std::collections::HashMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType};

use crate::protocol::{Answer, Call, Event, Failure, Message, Request};
use crate::task::TaskEnd;
use kernel::packet;

/// Why a call to the launcher brought no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The launcher refused, or a step failed.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The connection ended: the launcher died or was ended.
    #[error("the connection to the launcher is gone")]
    Gone,
    /// The request could not be sent.
    #[error("cannot send to the launcher")]
    Send(#[source] Errno),
    /// The launcher answered something that does not belong to the question.
    #[error("the launcher answered out of protocol")]
    Protocol,
}

type Reply = (Result<Answer, Failure>, Vec<OwnedFd>);

/// A connection that many threads use.
#[derive(Debug)]
pub(crate) struct Exchange {
    socket: OwnedFd,
    next: AtomicU64,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    gone: bool,
    replies: HashMap<u64, Sender<Reply>>,
    tasks: HashMap<u64, Sender<TaskEnd>>,
}

impl Exchange {
    /// An exchange over a connected socket; somebody must run [`Exchange::read_messages`].
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            next: AtomicU64::new(1),
            waiting: Mutex::new(Waiting::default()),
        }
    }

    /// A number for a request.
    pub(crate) fn fresh(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Ends the connection, which wakes the reading thread.
    pub(crate) fn close(&self) {
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Both);
    }

    /// Lets the end of the task with this number be told to the receiver.
    pub(crate) fn expect_task(&self, number: u64) -> Receiver<TaskEnd> {
        let (sender, end) = channel();
        self.lock().tasks.insert(number, sender);
        end
    }

    /// The task with this number did not begin.
    pub(crate) fn forget_task(&self, number: u64) {
        self.lock().tasks.remove(&number);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // The maps are whole after every statement, so a panic elsewhere left nothing half done.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request and waits for its reply.
    pub(crate) fn exchange(
        &self,
        number: u64,
        call: Call,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(Answer, Vec<OwnedFd>), CallError> {
        let (sender, reply) = channel();
        {
            let mut waiting = self.lock();
            if waiting.gone {
                return Err(CallError::Gone);
            }
            waiting.replies.insert(number, sender);
        }
        let bytes = serde_json::to_vec(&Request { number, call });
        let sent = bytes
            .map_err(|_| CallError::Protocol)
            .and_then(|b| packet::send(&self.socket, &b, descriptors).map_err(CallError::Send));
        if let Err(error) = sent {
            self.lock().replies.remove(&number);
            return Err(error);
        }
        let (outcome, given) = reply.recv().map_err(|_| CallError::Gone)?;
        Ok((outcome?, given))
    }

    /// Reads until the launcher is gone, then wakes everybody who waits.
    pub(crate) fn read_messages(&self, events: &Sender<Event>) {
        while let Ok(Some(packet)) = packet::receive(&self.socket) {
            match serde_json::from_slice::<Message>(&packet.bytes) {
                Ok(Message::Reply { number, outcome }) => {
                    if let Some(waiter) = self.lock().replies.remove(&number) {
                        let _ = waiter.send((outcome, packet.descriptors));
                    }
                }
                Ok(Message::Event(Event::TaskEnded {
                    task,
                    code,
                    message,
                })) => {
                    if let Some(waiter) = self.lock().tasks.remove(&task) {
                        let _ = waiter.send(TaskEnd { code, message });
                    }
                }
                Ok(Message::Event(event)) => {
                    let _ = events.send(event);
                }
                // Another version of the launcher: hello found that out already.
                Err(_) => break,
            }
        }
        let mut waiting = self.lock();
        waiting.gone = true;
        waiting.replies.clear();
        waiting.tasks.clear();
    }
}

/// Connects to a launcher's socket.
pub(crate) fn open_socket(path: &Path) -> Result<OwnedFd, Errno> {
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}
