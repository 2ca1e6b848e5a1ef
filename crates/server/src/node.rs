//! What a node must be able to do for the door to serve it.
//!
//! One method per endpoint, in terms of wire types and plain streams, so the daemon implements it with
//! no HTTP in sight and tests stand in for it with a fake.

use std::future::Future;
use std::pin::Pin;

use api::latest::{
    ApiError, ApplicationsRequest, BuildRequest, ConsoleRequest, CreateRequest, DeleteRequest,
    DestroyRequest, DoctorReport, Event, ExecRequest, ImportRequest, InitReply, InitRequest,
    Isolation, NodeSetRequest, NodeStatus, Operation, PoolStatus, SetReply, SetRequest,
    ShutdownRequest, StartRequest, Stats, StopRequest, Template, TemplateDetails, TerminalSize, Ve,
    VeDetails, VeState,
};
use api::stream::Ended;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};

use crate::alerts::Alerts;
use crate::contents::Contents;
use crate::meters::Meters;
use crate::samples::Samples;
use crate::updates::Updates;
use crate::versions::Versions;

/// The answer of a [`Node`], to be awaited. Implementations write `Box::pin(async move { ... })`.
///
/// Dropping it means that the caller is gone. Work that was begun goes on: a mutation must hand its
/// work to the engine rather than do it inside of this future.
pub type Reply<'a, T> = Pin<Box<dyn Future<Output = Result<T, ApiError>> + Send + 'a>>;

/// Bytes to be read by the other side.
pub type ByteSource = Box<dyn AsyncRead + Send + Unpin>;

/// Bytes to be written by the other side. Shutting it down means the end of the input.
pub type ByteSink = Box<dyn AsyncWrite + Send + Unpin>;

/// Which VE a caller means: its number or its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum VeKey {
    /// By number. It need not be in the range of numbers of VEs.
    Id(u32),
    /// By name. It need not be a valid name.
    Name(String),
}

impl VeKey {
    /// Takes digits as a number and everything else as a name.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        text.parse()
            .map_or_else(|_| Self::Name(text.to_owned()), Self::Id)
    }
}

impl std::fmt::Display for VeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// Which VEs a list shows: those that meet all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VeFilter {
    /// Labels that a VE has, with this value if one is given.
    pub labels: Vec<(String, Option<String>)>,
    /// VEs by number or name; empty for all. One that does not exist is simply not in the answer.
    pub keys: Vec<VeKey>,
    /// States of which a VE is in one; empty for all.
    pub states: Vec<VeState>,
}

/// Which operations a list shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OperationFilter {
    /// Whether ended ones are shown too.
    pub ended: bool,
    /// Only those about this VE.
    pub ve: Option<VeKey>,
    /// At most so many, the newest.
    pub count_max: usize,
}

/// Which events a stream gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Whether it goes on with new events after the kept ones.
    pub follow: bool,
    /// Only events with a greater number; absent gives all that are kept when not following, and
    /// none of them when following.
    pub after: Option<u64>,
}

/// What of a VE's log is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogFilter {
    /// Whether it goes on with new output, across restarts of the VE, until the VE is deleted.
    pub follow: bool,
    /// Only so many of the last lines; absent for all that are kept.
    pub lines: Option<usize>,
}

/// How files are put into a VE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutFiles {
    /// Absolute path of a folder inside the VE, below which the archive is unpacked.
    pub folder: String,
}

/// Who calls, as the kernel says (`SO_PEERCRED`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Process id in the daemon's pid namespace, when it has one there. While the caller waits,
    /// `/proc/PID/root` is its view of files.
    pub pid: Option<u32>,
    /// User id in the daemon's user namespace.
    pub uid: u32,
}

/// What a caller tells a session besides its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// The caller's terminal has this size now.
    Resize(TerminalSize),
    /// Send the command's foreground process group this signal.
    Signal(u8),
}

/// A command inside of a VE, or its console, as the node hands it to the door.
///
/// The door reads and writes the streams and drops all of it when the caller is gone: a closed
/// `control` tells the node to hang up on the command (`SIGHUP`), and a console to be left as it is.
pub struct Session {
    /// Input. The door shuts it down at the caller's end of input; with a terminal the node then
    /// passes on the terminal's end-of-file character.
    pub input: ByteSink,
    /// Output; with a terminal, everything.
    pub output: ByteSource,
    /// Error output, when there is no terminal.
    pub errors: Option<ByteSource>,
    /// The caller's wishes.
    pub control: mpsc::Sender<Control>,
    /// How the command ended; for a console, when its VE ended. A dropped sender is a failure.
    pub ended: oneshot::Receiver<Ended>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

/// A node, as the door sees it.
///
/// Refusals come as [`ApiError`] with the code that DESIGN.md maps to an exit code, a message that
/// names the thing and the cause, and a hint with the next step. Mutations come back as soon as their
/// work is journalled, with the [`Operation`] that does it; a caller that wants to wait asks
/// [`Node::wait_operation`].
pub trait Node: Meters + Alerts + Contents + Samples + Updates + Versions {
    /// `GET /v1/ves`: VEs in the order of their numbers.
    fn list(&self, filter: VeFilter) -> Reply<'_, Vec<Ve>>;
    /// `POST /v1/ves`: makes a VE.
    fn create(&self, request: CreateRequest) -> Reply<'_, Operation>;
    /// `GET /v1/ves/KEY`: everything about a VE.
    fn show(&self, ve: VeKey) -> Reply<'_, VeDetails>;
    /// `GET /v1/ves/KEY?wait=STATE`: waits until the VE is in `state`, or can no longer get there by
    /// itself (waiting for `running`, its init ended), or `timeout` is over, and then shows it as it is.
    fn wait(&self, ve: VeKey, state: VeState, timeout: Duration) -> Reply<'_, VeDetails>;
    /// `PATCH /v1/ves/KEY`: changes settings, all or none, and comes back when they act.
    fn set(&self, ve: VeKey, request: SetRequest) -> Reply<'_, SetReply>;
    /// `DELETE /v1/ves/KEY`: deletes a VE and its private area.
    fn delete(&self, ve: VeKey, request: DeleteRequest) -> Reply<'_, Operation>;
    /// `POST /v1/ves/KEY/start`: starts its init. The operation is done when the init runs, not when it is ready.
    fn start(&self, ve: VeKey, request: StartRequest) -> Reply<'_, Operation>;
    /// `POST /v1/ves/KEY/stop`: asks its init to end, and kills it when it takes too long.
    fn stop(&self, ve: VeKey, request: StopRequest) -> Reply<'_, Operation>;
    /// `POST /v1/ves/KEY/restart`: stops and starts it.
    fn restart(&self, ve: VeKey, request: StopRequest) -> Reply<'_, Operation>;
    /// `POST /v1/ves/KEY/pause`: freezes its processes.
    fn pause(&self, ve: VeKey) -> Reply<'_, Operation>;
    /// `POST /v1/ves/KEY/applications`: puts applications below its files, and takes others away.
    fn change_applications(&self, ve: VeKey, request: ApplicationsRequest) -> Reply<'_, Operation>;
    /// `POST /v1/ves/KEY/suspend`: puts its processes on disk.
    fn suspend(&self, ve: VeKey) -> Reply<'_, Operation>;
    /// `POST /v1/ves/KEY/resume`: thaws its processes, or wakes those on disk.
    fn resume(&self, ve: VeKey) -> Reply<'_, Operation>;
    /// `POST /v1/ves/KEY/exec`: runs a command inside. A command that is missing or cannot be executed is
    /// refused with `command_not_found` or `command_not_executable`.
    fn exec(&self, ve: VeKey, request: ExecRequest) -> Reply<'_, Session>;
    /// `POST /v1/ves/KEY/console`: attaches to its console.
    fn console(&self, ve: VeKey, request: ConsoleRequest) -> Reply<'_, Session>;
    /// `GET /v1/ves/KEY/logs`: what its console said.
    fn logs(&self, ve: VeKey, filter: LogFilter) -> Reply<'_, ByteSource>;
    /// `GET /v1/ves/KEY/files?path=P`: a tar archive whose only top entry is P's last component.
    /// Links are not followed at the last component; ownership is numeric as seen inside.
    fn get_files(&self, ve: VeKey, path: String) -> Reply<'_, ByteSource>;
    /// `PUT /v1/ves/KEY/files?path=FOLDER`: unpacks a tar archive below a folder of the VE. The answer comes when
    /// all of `archive` was read and written. What the archive names must never be reached outside of the VE.
    fn put_files(&self, ve: VeKey, put: PutFiles, archive: ByteSource) -> Reply<'_, ()>;
    /// `GET /v1/ves/KEY/files/kind?path=P`: whether P is a folder inside the VE, links followed;
    /// `not_found` if nothing is there.
    fn is_folder(&self, ve: VeKey, path: String) -> Reply<'_, bool>;
    /// `GET /v1/ves/KEY/isolation`: what stands between a VE and the rest, as planned and as it is.
    fn isolation(&self, ve: VeKey) -> Reply<'_, Isolation>;
    /// `GET /v1/ves/KEY/stats`: the counters of a VE.
    fn stats(&self, ve: VeKey) -> Reply<'_, Stats>;
    /// `GET /v1/stats`: the counters of several VEs in one sweep, in the order of their numbers.
    fn stats_of(&self, filter: VeFilter) -> Reply<'_, Vec<Stats>>;

    /// `GET /v1/operations`: newest first.
    fn operations(&self, filter: OperationFilter) -> Reply<'_, Vec<Operation>>;
    /// `GET /v1/operations/ID`.
    fn operation(&self, id: u64) -> Reply<'_, Operation>;
    /// `POST /v1/operations/ID/cancel`: asks it to stop and undo. The answer shows it as it is then.
    fn cancel_operation(&self, id: u64) -> Reply<'_, Operation>;
    /// `GET /v1/operations/ID/wait`: waits until it ended or `timeout` is over, and shows it as it is then.
    fn wait_operation(&self, id: u64, timeout: Duration) -> Reply<'_, Operation>;
    /// `GET /v1/events`: the channel closes after the last kept event, or never when following. The node
    /// drops a follower that does not keep up.
    fn events(&self, filter: EventFilter) -> Reply<'_, mpsc::Receiver<Event>>;

    /// `GET /v1/templates`: in the order of their names.
    fn templates(&self) -> Reply<'_, Vec<Template>>;
    /// `GET /v1/templates/NAME`, with its packages when `packages`.
    fn template(&self, name: String, packages: bool) -> Reply<'_, TemplateDetails>;
    /// `POST /v1/templates/build`: builds one from a distribution's packages.
    fn build_template(&self, request: BuildRequest) -> Reply<'_, Operation>;
    /// `POST /v1/templates/import`: imports one. The source must be open before the answer is given:
    /// `peer` may be gone afterwards.
    fn import_template(&self, peer: Peer, request: ImportRequest) -> Reply<'_, Operation>;
    /// `DELETE /v1/templates/NAME`: removes it; `conflict` while VEs are made from it.
    fn remove_template(&self, name: String) -> Reply<'_, Operation>;
    /// `POST /v1/templates/NAME/verify`: reads every file of it and compares digests. The operation fails
    /// if one differs, and says which.
    fn verify_template(&self, name: String) -> Reply<'_, Operation>;

    /// `GET /v1/pool`.
    fn pool(&self) -> Reply<'_, PoolStatus>;
    /// `GET /v1/node`.
    fn node(&self) -> Reply<'_, NodeStatus>;
    /// `PATCH /v1/node`: changes what the node keeps for itself and how much it sells, all or none.
    fn set_node(&self, request: NodeSetRequest) -> Reply<'_, NodeStatus>;
    /// `POST /v1/node/init`: prepares the node; `changed` is false when it was prepared as asked, and
    /// `conflict` when it was prepared otherwise.
    fn init(&self, request: InitRequest) -> Reply<'_, InitReply>;
    /// `POST /v1/node/shutdown`: stops all VEs. The answer comes when they are stopped; launcher and daemon end after it.
    fn shutdown(&self, request: ShutdownRequest) -> Reply<'_, ()>;
    /// `POST /v1/node/destroy`: takes the node away. The answer comes when nothing is left but the
    /// daemon, which ends after it.
    fn destroy(&self, request: DestroyRequest) -> Reply<'_, ()>;
    /// `GET /v1/doctor`: what this host has and lacks.
    fn doctor(&self) -> Reply<'_, DoctorReport>;
}
