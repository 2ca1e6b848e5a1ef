//! The daemon's end of the launcher's socket: blocking calls from any thread.
//!
//! One thread of the client reads the socket and hands each message to whoever waits for it:
//! replies to their callers, ends of tasks to their [`Task`], events of VEs to [`Events`]. When
//! the launcher dies, every waiter gets [`CallError::Gone`] and [`Events`] ends; VEs live on, and
//! a new launcher adopts them ([`Client::adopt`]).

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::io::Errno;
use ve::VeId;

use crate::exchange::{CallError, Exchange, open_socket};
use crate::protocol::{
    Answer, Call, CgroupShape, Event, Failure, FailureKind, FileWork, Launched, VERSION, VeStatus,
};
use crate::restore::RestoreSpec;
use crate::spec::{CgroupEntry, ExecSpec, ExecStreams, LaunchSpec, RootSpec, WindowSize};
use crate::task::Task;

pub use crate::task::{TaskEnd, resize_terminal};

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

/// A connection to the node's launcher.
#[derive(Debug)]
pub struct Client {
    shared: Arc<Exchange>,
    launcher_pid: u32,
    ves: Vec<VeStatus>,
    held: Option<OwnedFd>,
}

/// What happens to VEs, in order.
#[derive(Debug)]
pub struct Events(Receiver<Event>);

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
        let shared = Arc::new(Exchange::new(socket));
        let (sender, events) = channel();
        let reader = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("launcher-events".to_owned())
            .spawn(move || reader.read_messages(&sender))
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
    /// An earlier end of this VE counts as acknowledged. Readiness comes later as [`Event::Ready`]. After an error nothing of the VE is left but
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

    /// Wakes a VE that CRIU wrote to disk; returns when all its processes run again. Its control
    /// groups must be there as they were.
    ///
    /// # Errors
    /// As [`Client::launch`]; `Node` when CRIU fails, whose log beside the images says why. Nothing
    /// of the VE is left then but processes that a dying CRIU lost in the VE's control group.
    pub fn restore(&self, spec: &RestoreSpec) -> Result<Launched, CallError> {
        let spec = Box::new(spec.clone());
        match self.call(Call::Restore { spec }, &[])? {
            Answer::Launched(launched) => Ok(launched),
            _ => Err(CallError::Protocol),
        }
    }

    /// Connects a VE that [`Client::restore`] is waking to the network. Called when CRIU asks before
    /// it lets the VE's processes go on, `pid` being their init.
    ///
    /// # Errors
    /// `NotFound` when it is not being woken; `Node` when the node refuses a step.
    pub fn connect_woken(&self, id: VeId, pid: u32) -> Result<(), CallError> {
        self.done(Call::ConnectWoken { id, pid }, &[])
    }

    /// Whether any VE is being woken: by a daemon that is gone, too. Such a restore ends by itself.
    ///
    /// # Errors
    /// [`CallError::Gone`] when the launcher died.
    pub fn is_waking(&self) -> Result<bool, CallError> {
        match self.call(Call::Waking, &[])? {
            Answer::Waking(waking) => Ok(waking),
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

    /// Gives VEs that are started or woken from here on a view of their own: files of `/proc` and
    /// `/sys` that tell their own numbers, served by the program `binary`. `first_id` is the node's.
    /// A server that runs from another program is replaced, which nobody in a VE notices.
    ///
    /// # Errors
    /// `Node` when the kernel has no FUSE or the program cannot be opened: VEs then start without.
    pub fn view(&self, binary: &Path, first_id: VeId) -> Result<(), CallError> {
        let program = crate::launcher::read_only_view(binary).map_err(|error| {
            CallError::Failed(Failure {
                kind: FailureKind::Node,
                message: format!("cannot open {}: {error}", binary.display()),
            })
        })?;
        self.done(Call::View { first_id }, &[program.as_fd()])
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
    /// unknown user; `NotFound` when the VE does not run; `Busy` until [`Client::launch`] has
    /// returned.
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

    /// Writes the whole tree of a VE that does not run as a tar stream to `to`: with hard links, file
    /// capabilities and pipes, as a template is made of.
    ///
    /// # Errors
    /// As [`Client::pack`].
    pub fn pack_tree(
        &self,
        id: VeId,
        stopped: &RootSpec,
        to: BorrowedFd<'_>,
        cgroup: &CgroupEntry<'_>,
    ) -> Result<Task, CallError> {
        self.files(id, Some(stopped), FileWork::Tree, to, cgroup)
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
        let number = self.shared.fresh();
        let end = self.shared.expect_task(number);
        match self.shared.exchange(number, call, descriptors) {
            Ok((Answer::Started { pid }, given)) => {
                let master = given.into_iter().next();
                Ok(Task::new(
                    Arc::clone(&self.shared),
                    number,
                    pid,
                    master,
                    end,
                ))
            }
            outcome => {
                self.shared.forget_task(number);
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
        self.shared.exchange(self.shared.fresh(), call, descriptors)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Wakes the reading thread, which holds the other reference to the socket.
        self.shared.close();
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

fn shape(entry: &CgroupEntry<'_>) -> CgroupShape {
    CgroupShape {
        v1: entry.v1_tasks.len(),
        v2: entry.v2.is_some(),
    }
}

fn entry_descriptors<'a>(entry: &CgroupEntry<'a>) -> Vec<BorrowedFd<'a>> {
    entry.v1_tasks.iter().copied().chain(entry.v2).collect()
}
