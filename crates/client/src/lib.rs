//! The typed client of the API over a node's Unix socket.
//!
//! [`Client`] has one method per endpoint. It opens a connection for each request: on a Unix socket that
//! costs some tens of microseconds, and there is no pool whose stale connections would have to be
//! understood. [`Session`] is the caller's side of `exec` and `console`.
#![forbid(unsafe_code)]

mod alerts;
mod contents;
mod error;
mod node;
mod samples;
mod session;
mod transport;
mod updates;
mod versions;

use std::path::{Path, PathBuf};
use std::time::Duration;

use api::latest::{
    ApplicationsRequest, ConsoleRequest, CreateRequest, DeleteRequest, Event, ExecRequest,
    FileKind, Isolation, Operation, SetReply, SetRequest, StartRequest, Stats, StopRequest, Ve,
    VeDetails, VeState,
};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

pub use contents::InventoryQuery;
pub use error::ClientError;
pub use session::{Session, SessionReceiver, SessionSender};
pub use transport::ByteStream;
use transport::{Method, Request};

/// What every method comes back with.
pub type Result<T> = std::result::Result<T, ClientError>;

/// Longest wait of one request; the node bounds it as well.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Largest line of an event stream.
const EVENT_BYTES_MAX: usize = 1024 * 1024;

/// Speaks to one node.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

/// Which VEs a list shows: those that meet all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Labels as `KEY=VALUE`, or `KEY` for any value.
    pub labels: Vec<String>,
    /// Names or numbers; empty for all.
    pub ves: Vec<String>,
    /// States of which a VE is in one; empty for all.
    pub states: Vec<VeState>,
}

impl Filter {
    fn apply(&self, request: Request) -> Request {
        let states = self.states.iter().map(|state| state.as_str());
        let request = self
            .labels
            .iter()
            .fold(request, |r, label| r.query("label", label));
        let request = self.ves.iter().fold(request, |r, ve| r.query("ve", ve));
        states.fold(request, |r, state| r.query("state", state))
    }
}

impl Client {
    /// A client of the node whose root folder is `root`. Nothing is opened yet.
    #[must_use]
    pub fn of_root(root: &Path) -> Self {
        Self {
            socket: root.join("vessel.sock"),
        }
    }

    /// Where it connects.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// VEs, by number.
    ///
    /// # Errors
    /// As every method: [`ClientError::Refused`] when the node refuses, the others when it cannot be asked.
    pub async fn list(&self, filter: &Filter) -> Result<Vec<Ve>> {
        self.ask(filter.apply(Request::new(Method::GET, "/ves")))
            .await
    }

    /// Begins to make a VE.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn create(&self, request: &CreateRequest) -> Result<Operation> {
        self.ask(Request::new(Method::POST, "/ves").json(request))
            .await
    }

    /// Everything about a VE.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn show(&self, ve: &str) -> Result<VeDetails> {
        self.ask(Request::new(Method::GET, "/ves").below(ve)).await
    }

    /// Waits until a VE is in a state, cannot get there by itself, or `timeout` is over.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn wait(&self, ve: &str, state: VeState, timeout: Duration) -> Result<VeDetails> {
        let request = Request::new(Method::GET, "/ves")
            .below(ve)
            .query("wait", state.as_str());
        self.ask(request.query("timeout_ms", &milliseconds(timeout)))
            .await
    }

    /// Changes settings of a VE.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn set(&self, ve: &str, request: &SetRequest) -> Result<SetReply> {
        self.ask(Request::new(Method::PATCH, "/ves").below(ve).json(request))
            .await
    }

    /// Begins to delete a VE.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn delete(&self, ve: &str, request: &DeleteRequest) -> Result<Operation> {
        self.ask(Request::new(Method::DELETE, "/ves").below(ve).json(request))
            .await
    }

    /// Begins to start a VE.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn start(&self, ve: &str, request: &StartRequest) -> Result<Operation> {
        self.ask(
            Request::new(Method::POST, "/ves")
                .below(ve)
                .below("start")
                .json(request),
        )
        .await
    }

    /// Begins to stop a VE.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn stop(&self, ve: &str, request: &StopRequest) -> Result<Operation> {
        self.ask(
            Request::new(Method::POST, "/ves")
                .below(ve)
                .below("stop")
                .json(request),
        )
        .await
    }

    /// Begins to restart a VE.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn restart(&self, ve: &str, request: &StopRequest) -> Result<Operation> {
        self.ask(
            Request::new(Method::POST, "/ves")
                .below(ve)
                .below("restart")
                .json(request),
        )
        .await
    }

    /// Begins to freeze a VE.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn pause(&self, ve: &str) -> Result<Operation> {
        self.ask(Request::new(Method::POST, "/ves").below(ve).below("pause"))
            .await
    }

    /// Begins to put a VE's processes on disk.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn suspend(&self, ve: &str) -> Result<Operation> {
        self.ask(
            Request::new(Method::POST, "/ves")
                .below(ve)
                .below("suspend"),
        )
        .await
    }

    /// Begins to put applications below the files of a stopped VE, and to take others away.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn change_applications(
        &self,
        ve: &str,
        request: &ApplicationsRequest,
    ) -> Result<Operation> {
        let words = Request::new(Method::POST, "/ves").below(ve);
        self.ask(words.below("applications").json(request)).await
    }

    /// Begins to thaw a VE, or to wake it from disk.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn resume(&self, ve: &str) -> Result<Operation> {
        self.ask(Request::new(Method::POST, "/ves").below(ve).below("resume"))
            .await
    }

    /// Runs a command inside a VE.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn exec(&self, ve: &str, request: &ExecRequest) -> Result<Session> {
        let request = Request::new(Method::POST, "/ves")
            .below(ve)
            .below("exec")
            .json(request);
        transport::upgrade(&self.socket, request)
            .await
            .map(Session::new)
    }

    /// Attaches to the console of a VE.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn console(&self, ve: &str, request: &ConsoleRequest) -> Result<Session> {
        let request = Request::new(Method::POST, "/ves")
            .below(ve)
            .below("console")
            .json(request);
        transport::upgrade(&self.socket, request)
            .await
            .map(Session::new)
    }

    /// What the console of a VE said: the last `lines`, or all that is kept.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn logs(&self, ve: &str, follow: bool, lines: Option<usize>) -> Result<ByteStream> {
        let mut request = Request::new(Method::GET, "/ves").below(ve).below("logs");
        if follow {
            request = request.query("follow", "true");
        }
        if let Some(lines) = lines {
            request = request.query("lines", &lines.to_string());
        }
        transport::stream(&self.socket, request).await
    }

    /// A tar archive of a file or folder of a VE; its only top entry is the path's last component.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn get_files(&self, ve: &str, path: &str) -> Result<ByteStream> {
        let request = Request::new(Method::GET, "/ves").below(ve).below("files");
        transport::stream(&self.socket, request.query("path", path)).await
    }

    /// Unpacks a tar archive below a folder of a VE.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn put_files(
        &self,
        ve: &str,
        folder: &str,
        archive: impl AsyncRead + Send + Unpin + 'static,
    ) -> Result<()> {
        let request = Request::new(Method::PUT, "/ves").below(ve).below("files");
        self.tell(request.query("path", folder).source(archive))
            .await
    }

    /// Whether a path of a VE is a folder.
    ///
    /// # Errors
    /// See [`Client::list`]; refused with `not_found` when nothing is there.
    pub async fn is_folder(&self, ve: &str, path: &str) -> Result<bool> {
        let request = Request::new(Method::GET, "/ves")
            .below(ve)
            .below("files")
            .below("kind");
        self.ask::<FileKind>(request.query("path", path))
            .await
            .map(|kind| kind.folder)
    }

    /// What stands between a VE and the rest, as planned and as it is.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn isolation(&self, ve: &str) -> Result<Isolation> {
        let request = Request::new(Method::GET, "/ves");
        self.ask(request.below(ve).below("isolation")).await
    }

    /// The counters of a VE.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn stats(&self, ve: &str) -> Result<Stats> {
        self.ask(Request::new(Method::GET, "/ves").below(ve).below("stats"))
            .await
    }

    /// The counters of several VEs in one sweep, by number.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn stats_of(&self, filter: &Filter) -> Result<Vec<Stats>> {
        self.ask(filter.apply(Request::new(Method::GET, "/stats")))
            .await
    }

    /// Operations, newest first: those that go on, or all.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn operations(&self, all: bool, ve: Option<&str>) -> Result<Vec<Operation>> {
        let mut request = Request::new(Method::GET, "/operations");
        if all {
            request = request.query("all", "true");
        }
        if let Some(ve) = ve {
            request = request.query("ve", ve);
        }
        self.ask(request).await
    }

    /// An operation as it is now.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn operation(&self, id: u64) -> Result<Operation> {
        self.ask(Request::new(Method::GET, "/operations").below(&id.to_string()))
            .await
    }

    /// Asks an operation to stop and undo what it did.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn cancel_operation(&self, id: u64) -> Result<Operation> {
        let request = Request::new(Method::POST, "/operations").below(&id.to_string());
        self.ask(request.below("cancel")).await
    }

    /// Waits until an operation ended, however long that takes.
    ///
    /// # Errors
    /// See [`Client::list`]. A failed operation is no error here: see its `error`.
    pub async fn wait_operation(&self, id: u64) -> Result<Operation> {
        loop {
            let request = Request::new(Method::GET, "/operations").below(&id.to_string());
            let request = request
                .below("wait")
                .query("timeout_ms", &milliseconds(WAIT_MAX));
            let operation: Operation = self.ask(request).await?;
            if operation.state.is_ended() {
                return Ok(operation);
            }
        }
    }

    /// Events of the node, given to `each` in their order until it says `false` or they end.
    ///
    /// # Errors
    /// See [`Client::list`].
    pub async fn events(
        &self,
        follow: bool,
        after: Option<u64>,
        mut each: impl FnMut(Event) -> bool,
    ) -> Result<()> {
        let mut request = Request::new(Method::GET, "/events");
        if follow {
            request = request.query("follow", "true");
        }
        if let Some(after) = after {
            request = request.query("after", &after.to_string());
        }
        let mut lines = BufReader::new(transport::stream(&self.socket, request).await?);
        let mut line = Vec::new();
        loop {
            line.clear();
            let mut bounded =
                tokio::io::AsyncReadExt::take(&mut lines, EVENT_BYTES_MAX.try_into().unwrap_or(0));
            let broken = |source| ClientError::Cut {
                socket: self.socket.clone(),
                source,
            };
            if bounded.read_until(b'\n', &mut line).await.map_err(broken)? == 0 {
                return Ok(());
            }
            let event = serde_json::from_slice(&line).map_err(|source| ClientError::Malformed {
                socket: self.socket.clone(),
                source,
            })?;
            if !each(event) {
                return Ok(());
            }
        }
    }

    async fn ask<T: serde::de::DeserializeOwned>(&self, request: Request) -> Result<T> {
        let bytes = transport::collect(&self.socket, request).await?;
        serde_json::from_slice(&bytes).map_err(|source| ClientError::Malformed {
            socket: self.socket.clone(),
            source,
        })
    }

    async fn tell(&self, request: Request) -> Result<()> {
        transport::collect(&self.socket, request).await.map(drop)
    }
}

fn milliseconds(span: Duration) -> String {
    span.as_millis().to_string()
}
