//! The node as the door sees it: requests to the engine, and everything that only looks.
//!
//! Each method turns the wire's words into the engine's and back; what blocks runs on a thread
//! that may.

mod alerts;
mod contents;
mod files;
mod isolation;
mod logs;
mod meters;
mod resources;
pub(crate) mod samples;
mod sessions;
mod statistics;
mod status;
mod streams;
mod templates;
mod updates;
mod versions;
mod ves;

pub(crate) use status::init_error;

use std::sync::Arc;
use std::time::Duration;

use api::latest::{
    ApiError, ApplicationsRequest, BuildRequest, ConsoleRequest, CreateRequest, DeleteRequest,
    DestroyRequest, DoctorReport, ErrorCode, Event, ExecRequest, ImportRequest, InitReply,
    InitRequest, Isolation, NodeSetRequest, NodeStatus, Operation, PoolStatus, SetReply,
    SetRequest, ShutdownRequest, StartRequest, Stats, StopRequest, Template, TemplateDetails, Ve,
    VeDetails, VeState,
};
use engine::{StopManner, VeRequest};
use server::node::{
    ByteSource, EventFilter, LogFilter, Node, OperationFilter, Peer, PutFiles, Reply, Session,
    VeFilter, VeKey,
};
use tokio::sync::mpsc;

use crate::daemon::{Daemon, Up};

/// How long an init is waited for when a client names no time. systemd gives its services 90 s;
/// a healthy server ends well within 30.
const STOP_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// Longest wait that a client may ask for.
const STOP_TIMEOUT_MAX: Duration = Duration::from_secs(3_600);

/// [`Node`] over a [`Daemon`].
#[derive(Clone, Debug)]
pub(crate) struct NodeDoor(pub(crate) Arc<Daemon>);

impl NodeDoor {
    /// Runs what blocks on a thread that may, with the node, if it is up.
    async fn with_up<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Up>) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let up = self.0.up()?;
        blocking(move || work(&up)).await
    }
}

/// Runs what blocks on a thread that may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(ApiError::new(ErrorCode::Failed, "the daemon failed inside")))
}

fn manner(request: &StopRequest) -> StopManner {
    if request.kill {
        return StopManner::Kill;
    }
    let timeout = request
        .timeout_ms
        .map_or(STOP_TIMEOUT_DEFAULT, Duration::from_millis);
    StopManner::Ask {
        timeout: timeout.min(STOP_TIMEOUT_MAX),
    }
}

impl Node for NodeDoor {
    fn list(&self, filter: VeFilter) -> Reply<'_, Vec<Ve>> {
        Box::pin(self.with_up(move |up| ves::list(up, &filter)))
    }

    fn create(&self, request: CreateRequest) -> Reply<'_, Operation> {
        Box::pin(self.with_up(move |up| ves::create(up, request)))
    }

    fn show(&self, ve: VeKey) -> Reply<'_, VeDetails> {
        Box::pin(self.with_up(move |up| ves::show(up, &ve)))
    }

    fn wait(&self, ve: VeKey, state: VeState, timeout: Duration) -> Reply<'_, VeDetails> {
        Box::pin(ves::wait(self, ve, state, timeout))
    }

    fn set(&self, ve: VeKey, request: SetRequest) -> Reply<'_, SetReply> {
        Box::pin(ves::set(self, ve, request))
    }

    fn delete(&self, ve: VeKey, request: DeleteRequest) -> Reply<'_, Operation> {
        let request = VeRequest::Delete {
            force: request.force,
        };
        Box::pin(self.with_up(move |up| ves::submit(up, &ve, request)))
    }

    fn start(&self, ve: VeKey, _request: StartRequest) -> Reply<'_, Operation> {
        Box::pin(self.with_up(move |up| ves::submit(up, &ve, VeRequest::Start)))
    }

    fn stop(&self, ve: VeKey, request: StopRequest) -> Reply<'_, Operation> {
        let request = VeRequest::Stop(manner(&request));
        Box::pin(self.with_up(move |up| ves::submit(up, &ve, request)))
    }

    fn restart(&self, ve: VeKey, request: StopRequest) -> Reply<'_, Operation> {
        let request = VeRequest::Restart(manner(&request));
        Box::pin(self.with_up(move |up| ves::submit(up, &ve, request)))
    }

    fn pause(&self, ve: VeKey) -> Reply<'_, Operation> {
        Box::pin(self.with_up(move |up| ves::submit(up, &ve, VeRequest::Pause)))
    }

    fn change_applications(&self, ve: VeKey, request: ApplicationsRequest) -> Reply<'_, Operation> {
        Box::pin(self.with_up(move |up| ves::change_applications(up, &ve, &request)))
    }

    fn suspend(&self, ve: VeKey) -> Reply<'_, Operation> {
        Box::pin(self.with_up(move |up| ves::submit(up, &ve, VeRequest::Suspend)))
    }

    fn resume(&self, ve: VeKey) -> Reply<'_, Operation> {
        Box::pin(self.with_up(move |up| ves::submit(up, &ve, VeRequest::Resume)))
    }

    fn exec(&self, ve: VeKey, request: ExecRequest) -> Reply<'_, Session> {
        Box::pin(sessions::exec(self, ve, request))
    }

    fn console(&self, ve: VeKey, request: ConsoleRequest) -> Reply<'_, Session> {
        Box::pin(sessions::console(self, ve, request))
    }

    fn logs(&self, ve: VeKey, filter: LogFilter) -> Reply<'_, ByteSource> {
        Box::pin(logs::read(self, ve, filter))
    }

    fn get_files(&self, ve: VeKey, path: String) -> Reply<'_, ByteSource> {
        Box::pin(files::get(self, ve, path))
    }

    fn put_files(&self, ve: VeKey, put: PutFiles, archive: ByteSource) -> Reply<'_, ()> {
        Box::pin(files::put(self, ve, put.folder, archive))
    }

    fn is_folder(&self, ve: VeKey, path: String) -> Reply<'_, bool> {
        Box::pin(files::is_folder(self, ve, path))
    }

    fn isolation(&self, ve: VeKey) -> Reply<'_, Isolation> {
        Box::pin(self.with_up(move |up| isolation::of_one(up, &ve)))
    }

    fn stats(&self, ve: VeKey) -> Reply<'_, Stats> {
        Box::pin(self.with_up(move |up| statistics::of_one(up, &ve)))
    }

    fn stats_of(&self, filter: VeFilter) -> Reply<'_, Vec<Stats>> {
        Box::pin(self.with_up(move |up| statistics::of_many(up, &filter)))
    }

    fn operations(&self, filter: OperationFilter) -> Reply<'_, Vec<Operation>> {
        Box::pin(self.with_up(move |up| status::operations(up, &filter)))
    }

    fn operation(&self, id: u64) -> Reply<'_, Operation> {
        Box::pin(self.with_up(move |up| status::operation(up, id)))
    }

    fn cancel_operation(&self, id: u64) -> Reply<'_, Operation> {
        Box::pin(self.with_up(move |up| status::cancel(up, id)))
    }

    fn wait_operation(&self, id: u64, timeout: Duration) -> Reply<'_, Operation> {
        Box::pin(status::wait_operation(self, id, timeout))
    }

    fn events(&self, filter: EventFilter) -> Reply<'_, mpsc::Receiver<Event>> {
        Box::pin(status::events(self, filter))
    }

    fn templates(&self) -> Reply<'_, Vec<Template>> {
        Box::pin(self.with_up(templates::list))
    }

    fn template(&self, name: String, packages: bool) -> Reply<'_, TemplateDetails> {
        Box::pin(self.with_up(move |up| templates::show(up, &name, packages)))
    }

    fn build_template(&self, request: BuildRequest) -> Reply<'_, Operation> {
        Box::pin(self.with_up(move |up| templates::build(up, request)))
    }

    fn import_template(&self, peer: Peer, request: ImportRequest) -> Reply<'_, Operation> {
        Box::pin(self.with_up(move |up| templates::import(up, peer, &request)))
    }

    fn remove_template(&self, name: String) -> Reply<'_, Operation> {
        Box::pin(self.with_up(move |up| templates::remove(up, &name)))
    }

    fn verify_template(&self, name: String) -> Reply<'_, Operation> {
        Box::pin(self.with_up(move |up| templates::verify(up, &name)))
    }

    fn pool(&self) -> Reply<'_, PoolStatus> {
        Box::pin(self.with_up(status::pool))
    }

    fn node(&self) -> Reply<'_, NodeStatus> {
        let door = self.clone();
        Box::pin(blocking(move || status::node(&door.0)))
    }

    fn set_node(&self, request: NodeSetRequest) -> Reply<'_, NodeStatus> {
        let door = self.clone();
        Box::pin(self.with_up(move |up| {
            resources::set(up, &request)?;
            status::node(&door.0)
        }))
    }

    fn init(&self, request: InitRequest) -> Reply<'_, InitReply> {
        let door = self.clone();
        Box::pin(blocking(move || status::init(&door.0, request)))
    }

    fn shutdown(&self, request: ShutdownRequest) -> Reply<'_, ()> {
        let door = self.clone();
        Box::pin(blocking(move || {
            crate::teardown::shut_down(&door.0, &request)
        }))
    }

    fn destroy(&self, request: DestroyRequest) -> Reply<'_, ()> {
        let door = self.clone();
        Box::pin(blocking(move || {
            crate::teardown::destroy(&door.0, &request)
        }))
    }

    fn doctor(&self) -> Reply<'_, DoctorReport> {
        let root = self.0.root.clone();
        let up = self.0.up_if_prepared();
        Box::pin(blocking(move || {
            let host = up.as_ref().map(|up| up.host.as_ref());
            Ok(crate::doctor::report(&root, host))
        }))
    }
}
