//! What travels on the launcher's socket.
//!
//! The socket is `SOCK_SEQPACKET`: one packet is one message, a JSON record with the descriptors
//! that belong to it. A request carries a number that its reply repeats; replies may come in
//! another order than their requests, and events come between them.

use serde::{Deserialize, Serialize};
use ve::{Exit, VeId};

use crate::restore::RestoreSpec;
use crate::spec::{ExecSpec, LaunchSpec, RootSpec, WindowSize};

/// Version of the protocol; both sides name it first and part when it differs.
pub const VERSION: u32 = 2;

/// A numbered request.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) number: u64,
    pub(crate) call: Call,
}

/// What can be asked. Descriptors are named in the order in which they are sent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Call {
    /// Must be first. Answered by [`Answer::Hello`].
    Hello { version: u32 },
    /// Answered by [`Answer::Ves`].
    List,
    /// Descriptors: cgroup entry. Answered by [`Answer::Launched`] once init was executed.
    Launch {
        spec: Box<LaunchSpec>,
        cgroup: CgroupShape,
    },
    /// Answered by [`Answer::Launched`] once all processes of the VE run again.
    Restore { spec: Box<RestoreSpec> },
    /// Connects a VE whose processes CRIU has made, and not yet let go on: the last step before.
    ConnectWoken {
        #[serde(with = "crate::wire::ve_number")]
        id: VeId,
        pid: u32,
    },
    /// Whether CRIU is waking any VE. Answered by [`Answer::Waking`].
    Waking,
    /// Sends a signal to a VE's init.
    Signal {
        #[serde(with = "crate::wire::ve_number")]
        id: VeId,
        signal: i32,
    },
    /// Takes over a VE that a dead launcher left.
    Adopt {
        #[serde(with = "crate::wire::ve_number")]
        id: VeId,
        pid: u32,
        start_time: u64,
    },
    /// The end of this init was written down; the launcher may forget it.
    Acknowledge {
        #[serde(with = "crate::wire::ve_number")]
        id: VeId,
        pid: u32,
    },
    /// Descriptors: cgroup entry, then three streams unless a terminal is wanted. The request's
    /// number becomes the task's.
    Exec {
        #[serde(with = "crate::wire::ve_number")]
        id: VeId,
        spec: Box<ExecSpec>,
        cgroup: CgroupShape,
    },
    /// Sends a signal to a task of this connection.
    SignalTask { task: u64, signal: i32 },
    /// Descriptor: a stream socket that becomes the console's other end.
    ConsoleAttach {
        #[serde(with = "crate::wire::ve_number")]
        id: VeId,
    },
    /// Tells the console how large its terminal is.
    ConsoleResize {
        #[serde(with = "crate::wire::ve_number")]
        id: VeId,
        size: WindowSize,
    },
    /// Descriptors: cgroup entry (running VEs), then the stream. A task.
    Files {
        #[serde(with = "crate::wire::ve_number")]
        id: VeId,
        /// Layers of a stopped VE; nothing for a running one.
        stopped: Option<RootSpec>,
        work: FileWork,
        cgroup: CgroupShape,
    },
    /// Descriptor: something that the daemon wants back after a restart (a lock), or nothing.
    Hold,
    /// Descriptor: the program that serves the VEs' own `/proc`. `first_id` is that of the node.
    View {
        #[serde(with = "crate::wire::ve_number")]
        first_id: VeId,
    },
    /// Ends the launcher, if it holds no VE.
    Shutdown,
}

/// How many of a message's first descriptors are a cgroup entry.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct CgroupShape {
    pub(crate) v1: usize,
    pub(crate) v2: bool,
}

/// A transfer between a VE's files and a tar stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum FileWork {
    /// Writes what is at `path` to the stream; the archive's top entry is the path's last name.
    Pack { path: String },
    /// Reads a stream and unpacks it beneath the directory `path`, which is made if need be.
    Unpack { path: String },
    /// Writes the whole tree of a stopped VE to the stream, as its template would need it.
    Tree,
}

/// A message from the launcher.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Message {
    Reply {
        number: u64,
        outcome: Result<Answer, Failure>,
    },
    Event(Event),
}

/// A reply's content.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// The launcher's own process number and every VE that it holds; the message's descriptor is
    /// what a daemon gave by [`Call::Hold`].
    Hello {
        version: u32,
        pid: u32,
        ves: Vec<VeStatus>,
    },
    Ves(Vec<VeStatus>),
    Launched(Launched),
    Waking(bool),
    /// A task began; with a terminal, its master is the message's one descriptor.
    Started {
        pid: u32,
    },
    Done,
}

/// An init that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launched {
    /// Process number as the node sees it.
    pub pid: u32,
    /// When it was made, in clock ticks since boot (field 22 of `/proc/PID/stat`): with the
    /// number, it names a process for good.
    pub start_time: u64,
}

/// A VE as the launcher knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VeStatus {
    /// The VE.
    #[serde(with = "crate::wire::ve_number")]
    pub id: VeId,
    /// Its init.
    pub init: Launched,
    /// What the init does.
    pub state: VeState,
    /// Whether the launcher holds its console (a VE that was adopted has none).
    pub console: bool,
}

/// What a VE's init does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VeState {
    /// It is made and has not executed the VE's program yet.
    Launching,
    /// It runs and has not said that it is ready.
    Booting,
    /// It is ready.
    Ready,
    /// It ended, and this was not acknowledged yet.
    Exited(#[serde(with = "crate::wire::ExitRecord")] Exit),
}

/// Something that happened to a VE.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// Its init said that it is ready.
    Ready {
        /// The VE.
        #[serde(with = "crate::wire::ve_number")]
        id: VeId,
        /// Its init.
        pid: u32,
    },
    /// Its init ended, and its root file system is free. Told again at each connection until
    /// [`crate::Client::acknowledge`].
    Exited {
        /// The VE.
        #[serde(with = "crate::wire::ve_number")]
        id: VeId,
        /// The init that ended.
        pid: u32,
        /// How.
        #[serde(with = "crate::wire::ExitRecord")]
        exit: Exit,
    },
    /// A task of this connection ended. [`crate::Task::wait`] takes these; they are not in
    /// [`crate::Events`].
    TaskEnded {
        /// Number of the request that began it.
        task: u64,
        /// The command's exit code; 128 and the signal's number when a signal ended it.
        code: i32,
        /// Why a transfer failed.
        message: Option<String>,
    },
}

/// A refusal or a failed step, in words for the node's administrator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// For programs.
    pub kind: FailureKind,
    /// For people: what, why, and the next step where there is one.
    pub message: String,
}

/// Kinds of failure that callers tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// The launcher holds no such VE or task, or it has ended.
    NotFound,
    /// The VE runs already, or its root is still in use.
    Busy,
    /// The request contradicts itself or the protocol.
    Invalid,
    /// What the VE's own files hold makes it impossible (no init, a damaged tree).
    Guest,
    /// The command does not exist in the VE (exit code 127).
    CommandNotFound,
    /// The command cannot be executed (exit code 126).
    CommandNotExecutable,
    /// The node refused a step.
    Node,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    use crate::spec::{ConsoleLog, Lower};

    fn launch(number: u64, id: u32, text: &str, stopped: bool) -> Request {
        let root = RootSpec {
            lower: if stopped {
                Lower::Directory(text.into())
            } else {
                Lower::Composefs {
                    image: text.into(),
                    objects: text.into(),
                }
            },
            private: text.into(),
        };
        let console = ConsoleLog {
            path: text.into(),
            bytes_max: number,
        };
        let mut spec = LaunchSpec::new(VeId::new(id).unwrap(), text, root, console);
        spec.environment = vec![(text.to_owned(), text.to_owned())];
        spec.facts.authorized_keys = Some(vec![text.to_owned()]);
        let cgroup = CgroupShape { v1: 8, v2: stopped };
        Request {
            number,
            call: Call::Launch {
                spec: Box::new(spec),
                cgroup,
            },
        }
    }

    proptest! {
        #[test]
        fn requests_survive_the_socket(
            number: u64,
            id in VeId::MIN..=VeId::MAX,
            text in "\\PC{0,200}",
            stopped: bool,
        ) {
            let request = launch(number, id, &text, stopped);
            let bytes = serde_json::to_vec(&request).unwrap();
            let back: Request = serde_json::from_slice(&bytes).unwrap();
            prop_assert_eq!(format!("{request:?}"), format!("{back:?}"));
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = serde_json::from_slice::<Request>(&bytes);
            let _ = serde_json::from_slice::<Message>(&bytes);
        }
    }

    #[test]
    fn what_is_no_number_of_a_ve_is_no_request() {
        let text = br#"{"number":1,"call":{"Signal":{"id":7,"signal":9}}}"#;
        assert!(serde_json::from_slice::<Request>(text).is_err());
    }
}
