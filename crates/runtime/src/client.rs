//! The daemon's end of the launcher's socket: blocking calls from any thread.
//!
//! One thread of the client reads the socket and hands each message to whoever waits for it:
//! replies to their callers, ends of tasks to their [`Task`], events of VEs to [`Events`]. When
//! the launcher dies, every waiter gets [`CallError::Gone`] and [`Events`] ends; VEs live on, and
//! a new launcher adopts them ([`Client::adopt`]).

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType};
use ve::VeId;

use crate::packet;
use crate::protocol::{
    Answer, Call, CgroupShape, Event, Failure, FileWork, Launched, Message, Request, VERSION,
    VeStatus,
};
use crate::spec::{CgroupEntry, ExecSpec, ExecStreams, LaunchSpec, RootSpec, WindowSize};

/// Why there is no connection to the launcher.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No launcher answers at this path.
    #[error("no launcher answers at {path}")]
    Absent {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: Errno,
    },
    /// The launcher speaks another version of the protocol.
    #[error(
        "the running launcher speaks protocol {theirs}, this program {VERSION}: stop the VEs and \
         end the launcher, or install the version that matches"
    )]
    Version {
        /// The launcher's version.
        theirs: u32,
    },
    /// The first exchange failed.
    #[error("the launcher did not say hello")]
    Hello(#[source] CallError),
}

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

/// A connection to the node's launcher.
#[derive(Debug)]
pub struct Client {
    shared: Arc<Shared>,
    launcher_pid: u32,
    ves: Vec<VeStatus>,
    held: Option<OwnedFd>,
}

/// What happens to VEs, in order.
#[derive(Debug)]
pub struct Events(Receiver<Event>);

/// A command or transfer in a VE.
#[derive(Debug)]
pub struct Task {
    shared: Arc<Shared>,
    number: u64,
    pid: u32,
    master: Option<OwnedFd>,
    /// Behind a lock so that one thread can wait while another sends signals.
    end: Mutex<Receiver<TaskEnd>>,
}

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskEnd {
    /// Exit code; 128 and the signal's number when a signal ended it.
    pub code: i32,
    /// Why a transfer failed.
    pub message: Option<String>,
}

type Reply = (Result<Answer, Failure>, Vec<OwnedFd>);

#[derive(Debug)]
struct Shared {
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

/// Path of the launcher's socket beneath a node's root.
#[must_use]
pub fn socket_path(root: &Path) -> PathBuf {
    root.join("run/launcher.sock")
}

impl Client {
    /// Connects to the launcher of the node at `root` and says hello.
    ///
    /// # Errors
    /// [`ConnectError::Absent`] when there is no launcher: start one with
    /// [`crate::launcher::spawn`].
    pub fn connect(root: &Path) -> Result<(Self, Events), ConnectError> {
        let path = socket_path(root);
        let socket = open_socket(&path).map_err(|source| ConnectError::Absent {
            path: path.clone(),
            source,
        })?;
        let shared = Arc::new(Shared {
            socket,
            next: AtomicU64::new(1),
            waiting: Mutex::new(Waiting::default()),
        });
        let (sender, events) = channel();
        let reader = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("launcher-events".to_owned())
            .spawn(move || read_messages(&reader, &sender))
            .map_err(|_| ConnectError::Hello(CallError::Gone))?;
        let mut client = Self {
            shared,
            launcher_pid: 0,
            ves: Vec::new(),
            held: None,
        };
        match client.exchange_new(Call::Hello { version: VERSION }, &[]) {
            Ok((
                Answer::Hello {
                    version: VERSION,
                    pid,
                    ves,
                },
                held,
            )) => {
                client.held = held.into_iter().next();
                client.launcher_pid = pid;
                client.ves = ves;
                Ok((client, Events(events)))
            }
            Ok((Answer::Hello { version, .. }, _)) => {
                Err(ConnectError::Version { theirs: version })
            }
            Ok(_) => Err(ConnectError::Hello(CallError::Protocol)),
            Err(error) => Err(ConnectError::Hello(error)),
        }
    }

    /// Process number of the launcher.
    #[must_use]
    pub fn launcher_pid(&self) -> u32 {
        self.launcher_pid
    }

    /// The VEs that the launcher held when this connection was made, ended ones included.
    #[must_use]
    pub fn ves_at_connect(&self) -> &[VeStatus] {
        &self.ves
    }

    /// The VEs that the launcher holds now.
    ///
    /// # Errors
    /// [`CallError::Gone`] when the launcher died.
    pub fn list(&self) -> Result<Vec<VeStatus>, CallError> {
        match self.call(Call::List, &[])? {
            Answer::Ves(ves) => Ok(ves),
            _ => Err(CallError::Protocol),
        }
    }

    /// Starts a VE; returns when its init was executed.
    ///
    /// Readiness comes later as [`Event::Ready`]. After an error nothing of the VE is left but
    /// what its private area may have got of [`LaunchSpec::facts`].
    ///
    /// # Errors
    /// [`crate::FailureKind::Busy`] when it runs already; `Guest` when its files hold no init or a
    /// damaged tree; `Node` when the node refuses a step, which the message names.
    pub fn launch(
        &self,
        spec: &LaunchSpec,
        cgroup: &CgroupEntry<'_>,
    ) -> Result<Launched, CallError> {
        let call = Call::Launch {
            spec: Box::new(spec.clone()),
            cgroup: shape(cgroup),
        };
        match self.call(call, &entry_descriptors(cgroup))? {
            Answer::Launched(launched) => Ok(launched),
            _ => Err(CallError::Protocol),
        }
    }

    /// Sends a signal to a VE's init.
    ///
    /// # Errors
    /// `NotFound` when the VE has no init (any more).
    pub fn signal(&self, id: VeId, signal: i32) -> Result<(), CallError> {
        self.done(Call::Signal { id, signal }, &[])
    }

    /// Kills a VE's init and with it every process of the VE. Its end comes as
    /// [`Event::Exited`].
    ///
    /// # Errors
    /// `NotFound` when the VE has no init (any more).
    pub fn kill(&self, id: VeId) -> Result<(), CallError> {
        self.signal(id, rustix::process::Signal::KILL.as_raw())
    }

    /// Lets the launcher watch a VE that an earlier launcher started.
    ///
    /// Its console stays hung up, and commands in it get the strict filter, also in a VE that may
    /// nest. Its exit is known where the kernel keeps it (6.15 and later), else told as [`ve::Exit::Unknown`].
    ///
    /// # Errors
    /// `NotFound` when no process with this number and start time exists: it ended.
    pub fn adopt(&self, id: VeId, init: Launched) -> Result<(), CallError> {
        let Launched { pid, start_time } = init;
        self.done(
            Call::Adopt {
                id,
                pid,
                start_time,
            },
            &[],
        )
    }

    /// Gives the launcher a descriptor to keep for the next daemon (a lock that must outlive this
    /// one); it replaces an earlier one.
    ///
    /// # Errors
    /// [`CallError::Gone`] when the launcher died.
    pub fn hold(&self, descriptor: BorrowedFd<'_>) -> Result<(), CallError> {
        self.done(Call::Hold, &[descriptor])
    }

    /// Takes what an earlier daemon gave to [`Client::hold`], as it was at this connection.
    pub fn take_held(&mut self) -> Option<OwnedFd> {
        self.held.take()
    }

    /// Says that the end of this init was written down, so that it is not told again.
    ///
    /// # Errors
    /// [`CallError::Gone`] when the launcher died.
    pub fn acknowledge(&self, id: VeId, pid: u32) -> Result<(), CallError> {
        self.done(Call::Acknowledge { id, pid }, &[])
    }

    /// Runs a command in a VE, confined as everything of the VE is. `cgroup` should be a group of
    /// its own below the VE's: in the VE's own, `su` waits for logind until a timeout.
    ///
    /// `streams` is needed unless the specification wants a terminal.
    ///
    /// # Errors
    /// `CommandNotFound` and `CommandNotExecutable` as a shell's 127 and 126; `Guest` for an
    /// unknown user; `NotFound` when the VE does not run.
    pub fn exec(
        &self,
        id: VeId,
        spec: &ExecSpec,
        streams: Option<ExecStreams<'_>>,
        cgroup: &CgroupEntry<'_>,
    ) -> Result<Task, CallError> {
        let mut descriptors = entry_descriptors(cgroup);
        if let Some(streams) = streams {
            descriptors.extend([streams.input, streams.output, streams.error]);
        }
        let call = Call::Exec {
            id,
            spec: Box::new(spec.clone()),
            cgroup: shape(cgroup),
        };
        self.task(call, &descriptors)
    }

    /// Connects a stream socket to a VE's console: its output goes to all connected sockets and
    /// to the log, input comes from any. Closing the socket ends it.
    ///
    /// # Errors
    /// `NotFound` when the launcher does not hold this VE's console.
    pub fn console_attach(&self, id: VeId, socket: BorrowedFd<'_>) -> Result<(), CallError> {
        self.done(Call::ConsoleAttach { id }, &[socket])
    }

    /// Tells a VE's console how large its terminal is.
    ///
    /// # Errors
    /// `NotFound` when the launcher does not hold this VE's console.
    pub fn console_resize(&self, id: VeId, size: WindowSize) -> Result<(), CallError> {
        self.done(Call::ConsoleResize { id, size }, &[])
    }

    /// Writes what is at `path` in a VE as a tar stream to `to`. `stopped` gives the layers of a
    /// VE that does not run.
    ///
    /// # Errors
    /// As [`Client::exec`]; what happens underway is in [`Task::wait`].
    pub fn pack(
        &self,
        id: VeId,
        stopped: Option<&RootSpec>,
        path: &str,
        to: BorrowedFd<'_>,
        cgroup: &CgroupEntry<'_>,
    ) -> Result<Task, CallError> {
        self.files(
            id,
            stopped,
            FileWork::Pack {
                path: path.to_owned(),
            },
            to,
            cgroup,
        )
    }

    /// Unpacks the tar stream `from` beneath the directory `path` in a VE, which is made if need
    /// be. Owners are kept as the VE's ids.
    ///
    /// # Errors
    /// As [`Client::pack`].
    pub fn unpack(
        &self,
        id: VeId,
        stopped: Option<&RootSpec>,
        path: &str,
        from: BorrowedFd<'_>,
        cgroup: &CgroupEntry<'_>,
    ) -> Result<Task, CallError> {
        self.files(
            id,
            stopped,
            FileWork::Unpack {
                path: path.to_owned(),
            },
            from,
            cgroup,
        )
    }

    /// Ends the launcher.
    ///
    /// # Errors
    /// `Busy` while it holds a VE or an end that was not acknowledged.
    pub fn shutdown(&self) -> Result<(), CallError> {
        self.done(Call::Shutdown, &[])
    }

    fn files(
        &self,
        id: VeId,
        stopped: Option<&RootSpec>,
        work: FileWork,
        stream: BorrowedFd<'_>,
        cgroup: &CgroupEntry<'_>,
    ) -> Result<Task, CallError> {
        let mut descriptors = entry_descriptors(cgroup);
        descriptors.push(stream);
        let call = Call::Files {
            id,
            stopped: stopped.cloned(),
            work,
            cgroup: shape(cgroup),
        };
        self.task(call, &descriptors)
    }

    fn task(&self, call: Call, descriptors: &[BorrowedFd<'_>]) -> Result<Task, CallError> {
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let (sender, end) = channel();
        self.shared.lock().tasks.insert(number, sender);
        match self.exchange(number, call, descriptors) {
            Ok((Answer::Started { pid }, given)) => Ok(Task {
                shared: Arc::clone(&self.shared),
                number,
                pid,
                master: given.into_iter().next(),
                end: Mutex::new(end),
            }),
            outcome => {
                self.shared.lock().tasks.remove(&number);
                Err(outcome.err().unwrap_or(CallError::Protocol))
            }
        }
    }

    fn done(&self, call: Call, descriptors: &[BorrowedFd<'_>]) -> Result<(), CallError> {
        match self.call(call, descriptors)? {
            Answer::Done => Ok(()),
            _ => Err(CallError::Protocol),
        }
    }

    fn call(&self, call: Call, descriptors: &[BorrowedFd<'_>]) -> Result<Answer, CallError> {
        Ok(self.exchange_new(call, descriptors)?.0)
    }

    fn exchange_new(
        &self,
        call: Call,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(Answer, Vec<OwnedFd>), CallError> {
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
        self.exchange(number, call, descriptors)
    }

    fn exchange(
        &self,
        number: u64,
        call: Call,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(Answer, Vec<OwnedFd>), CallError> {
        self.shared.exchange(number, call, descriptors)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Wakes the reading thread, which holds the other reference to the socket.
        let _ = rustix::net::shutdown(&self.shared.socket, Shutdown::Both);
    }
}

impl Events {
    /// Waits for the next event; nothing when the launcher is gone.
    #[must_use]
    pub fn next(&self) -> Option<Event> {
        self.0.recv().ok()
    }

    /// Waits at most `timeout` for the next event; nothing when none came or the launcher is gone.
    #[must_use]
    pub fn next_within(&self, timeout: Duration) -> Option<Event> {
        self.0.recv_timeout(timeout).ok()
    }
}

impl Task {
    /// Process number of the task as the node sees it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    fn end(&self) -> MutexGuard<'_, Receiver<TaskEnd>> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the master of the command's terminal, if it has one.
    pub fn take_terminal(&mut self) -> Option<OwnedFd> {
        self.master.take()
    }

    /// Sends a signal to the task's process.
    ///
    /// # Errors
    /// `NotFound` when it has ended.
    pub fn signal(&self, signal: i32) -> Result<(), CallError> {
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let call = Call::SignalTask {
            task: self.number,
            signal,
        };
        self.shared.exchange(number, call, &[]).map(|_| ())
    }

    /// Waits until the task has ended.
    ///
    /// # Errors
    /// [`CallError::Gone`] when the launcher died first.
    pub fn wait(&self) -> Result<TaskEnd, CallError> {
        self.end().recv().map_err(|_| CallError::Gone)
    }

    /// Waits at most `timeout`; nothing when the task still runs.
    ///
    /// # Errors
    /// [`CallError::Gone`] when the launcher died first.
    pub fn wait_within(&self, timeout: Duration) -> Result<Option<TaskEnd>, CallError> {
        match self.end().recv_timeout(timeout) {
            Ok(end) => Ok(Some(end)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(CallError::Gone),
        }
    }
}

/// Tells the process behind a terminal's master how large the terminal is.
///
/// # Errors
/// `EIO` or `ENOTTY` when the terminal is gone or none.
pub fn resize_terminal(master: impl AsFd, size: WindowSize) -> Result<(), Errno> {
    let size = rustix::termios::Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(master, size)
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // The maps are whole after every statement, so a panic elsewhere left nothing half done.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn exchange(
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
}

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

/// Reads until the launcher is gone, then wakes everybody who waits.
fn read_messages(shared: &Shared, events: &Sender<Event>) {
    while let Ok(Some(packet)) = packet::receive(&shared.socket) {
        match serde_json::from_slice::<Message>(&packet.bytes) {
            Ok(Message::Reply { number, outcome }) => {
                if let Some(waiter) = shared.lock().replies.remove(&number) {
                    let _ = waiter.send((outcome, packet.descriptors));
                }
            }
            Ok(Message::Event(Event::TaskEnded {
                task,
                code,
                message,
            })) => {
                if let Some(waiter) = shared.lock().tasks.remove(&task) {
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
    let mut waiting = shared.lock();
    waiting.gone = true;
    waiting.replies.clear();
    waiting.tasks.clear();
}

fn shape(entry: &CgroupEntry<'_>) -> CgroupShape {
    CgroupShape {
        v1: entry.v1_tasks.len(),
        v2: entry.v2.is_some(),
    }
}

fn entry_descriptors<'a>(entry: &CgroupEntry<'a>) -> Vec<BorrowedFd<'a>> {
    entry.v1_tasks.iter().copied().chain(entry.v2).collect()
}
