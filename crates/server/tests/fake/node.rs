//! What the fake node does.

use std::process::Stdio;
use std::time::Duration;

use api::latest::{
    ApiError, ApplicationsRequest, BuildRequest, ConsoleRequest, CreateRequest, DeleteRequest,
    DestroyRequest, DoctorReport, ErrorCode, Event, ExecRequest, ImportRequest, InitReply,
    InitRequest, Isolation, NodeSetRequest, NodeStatus, Operation, OperationState, PoolStatus,
    SetReply, SetRequest, ShutdownRequest, StartRequest, Stats, StopRequest, Subject, SubjectKind,
    Template, TemplateDetails, Ve, VeDetails, VeState,
};
use server::{
    ByteSource, EventFilter, LogFilter, Node, OperationFilter, Peer, PutFiles, Reply, Session,
    VeFilter, VeKey,
};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::mpsc;

use super::sessions::{command, echo};
use super::{Fake, values};

pub(super) fn refuse<T>(
    code: ErrorCode,
    message: impl Into<String>,
    hint: &str,
) -> Result<T, ApiError> {
    Err(ApiError::new(code, message).with_hint(hint))
}

impl Node for Fake {
    fn list(&self, filter: VeFilter) -> Reply<'_, Vec<Ve>> {
        Box::pin(async move { Ok(self.matching(&filter).iter().map(values::in_list).collect()) })
    }

    fn create(&self, request: CreateRequest) -> Reply<'_, Operation> {
        Box::pin(async move {
            self.called(format!("{request:?}"));
            if self.find(&VeKey::parse(&request.name)).is_ok() {
                let message = format!("VE `{}`: the name is taken", request.name);
                return refuse(ErrorCode::Conflict, message, "take another name");
            }
            if request.template != "debian-12" {
                let message = format!("template `{}`: there is none", request.template);
                return refuse(
                    ErrorCode::NotFound,
                    message,
                    "`vessel template list` shows all",
                );
            }
            if request
                .settings
                .iter()
                .any(|setting| setting.starts_with("memry"))
            {
                let message = "unknown key `memry.limit`";
                return refuse(ErrorCode::Usage, message, "did you mean `memory.limit`?");
            }
            let id = {
                let mut inner = self.lock();
                let id = inner.ves.keys().last().map_or(100, |last| last + 1);
                let mut ve = values::details(id, &request.name, VeState::Stopped);
                ve.labels = request.labels;
                inner.ves.insert(id, ve);
                id
            };
            Ok(self.done("create", &request.name, Some(id), None))
        })
    }

    fn show(&self, ve: VeKey) -> Reply<'_, VeDetails> {
        Box::pin(async move { self.find(&ve) })
    }

    fn wait(&self, ve: VeKey, state: VeState, timeout: Duration) -> Reply<'_, VeDetails> {
        Box::pin(async move {
            let seen = self.find(&ve)?;
            if seen.state == VeState::Starting && state == VeState::Running {
                tokio::time::sleep(timeout).await;
            }
            Ok(seen)
        })
    }

    fn set(&self, ve: VeKey, request: SetRequest) -> Reply<'_, SetReply> {
        Box::pin(async move { self.settings_change(&ve, &request) })
    }

    fn delete(&self, ve: VeKey, request: DeleteRequest) -> Reply<'_, Operation> {
        Box::pin(async move {
            let ve = self.find(&ve)?;
            if ve.state != VeState::Stopped && !request.force {
                let message = format!("VE `{}` is {}", ve.name, ve.state);
                return refuse(
                    ErrorCode::WrongState,
                    message,
                    "stop it first, or give --force",
                );
            }
            self.lock().ves.remove(&ve.id);
            Ok(self.done("delete", &ve.name, Some(ve.id), None))
        })
    }

    fn start(&self, ve: VeKey, _: StartRequest) -> Reply<'_, Operation> {
        Box::pin(async move {
            let found = self.find(&ve)?;
            let to = if found.name.starts_with("lazy") {
                VeState::Starting
            } else {
                VeState::Running
            };
            let operation = self.change(&ve, "start", &[VeState::Stopped], to)?;
            if found.name.starts_with("dead") {
                let mut dead = values::details(found.id, &found.name, VeState::Stopped);
                dead.reason = Some("init ended with code 1".to_owned());
                self.add(dead);
            }
            Ok(operation)
        })
    }

    fn stop(&self, ve: VeKey, request: StopRequest) -> Reply<'_, Operation> {
        Box::pin(async move {
            self.called(format!("{request:?}"));
            let from = [VeState::Running, VeState::Paused, VeState::Starting];
            self.change(&ve, "stop", &from, VeState::Stopped)
        })
    }

    fn restart(&self, ve: VeKey, _: StopRequest) -> Reply<'_, Operation> {
        Box::pin(async move { self.change(&ve, "restart", &[VeState::Running], VeState::Running) })
    }

    fn pause(&self, ve: VeKey) -> Reply<'_, Operation> {
        Box::pin(async move { self.change(&ve, "pause", &[VeState::Running], VeState::Paused) })
    }

    fn change_applications(&self, ve: VeKey, _: ApplicationsRequest) -> Reply<'_, Operation> {
        let stopped = VeState::Stopped;
        Box::pin(async move { self.change(&ve, "applications", &[stopped], stopped) })
    }

    fn suspend(&self, ve: VeKey) -> Reply<'_, Operation> {
        Box::pin(
            async move { self.change(&ve, "suspend", &[VeState::Running], VeState::Checkpointed) },
        )
    }

    fn resume(&self, ve: VeKey) -> Reply<'_, Operation> {
        Box::pin(async move {
            let from = [VeState::Paused, VeState::Checkpointed];
            self.change(&ve, "resume", &from, VeState::Running)
        })
    }

    fn exec(&self, ve: VeKey, request: ExecRequest) -> Reply<'_, Session> {
        Box::pin(async move {
            let ve = self.find(&ve)?;
            if ve.state != VeState::Running {
                let message = format!("VE `{}` is {}", ve.name, ve.state);
                return refuse(ErrorCode::WrongState, message, "start it first");
            }
            match request.terminal {
                None => command(&request),
                Some(size) => {
                    let term = request.environment.first().cloned().unwrap_or_default();
                    Ok(echo(format!("{}x{} {term}\r\n", size.columns, size.rows)))
                }
            }
        })
    }

    fn console(&self, ve: VeKey, request: ConsoleRequest) -> Reply<'_, Session> {
        Box::pin(async move {
            let ve = self.find(&ve)?;
            let size = request.terminal;
            Ok(echo(format!(
                "{} {}x{} login: ",
                ve.name, size.columns, size.rows
            )))
        })
    }

    fn logs(&self, ve: VeKey, filter: LogFilter) -> Reply<'_, ByteSource> {
        Box::pin(async move {
            self.find(&ve)?;
            let all = ["first", "\x1b[32msecond\x1b[0m", "third"];
            let skipped = all.len() - filter.lines.unwrap_or(all.len()).min(all.len());
            let text: String = all[skipped..]
                .iter()
                .map(|line| format!("{line}\n"))
                .collect();
            if !filter.follow {
                return Ok(Box::new(std::io::Cursor::new(text.into_bytes())) as ByteSource);
            }
            let (ours, mut theirs) = tokio::io::duplex(4_096);
            tokio::spawn(async move {
                theirs.write_all(text.as_bytes()).await.unwrap();
                std::future::pending::<()>().await;
            });
            Ok(Box::new(ours) as ByteSource)
        })
    }

    fn get_files(&self, ve: VeKey, path: String) -> Reply<'_, ByteSource> {
        Box::pin(async move {
            self.find(&ve)?;
            let full = self.path(&path);
            if full.symlink_metadata().is_err() {
                return refuse(
                    ErrorCode::NotFound,
                    format!("`{path}`: there is none"),
                    "look with `vessel exec`",
                );
            }
            let mut tar = Command::new("tar");
            tar.arg("-C")
                .arg(full.parent().unwrap())
                .arg("-c")
                .arg(full.file_name().unwrap());
            let mut child = tar.stdout(Stdio::piped()).spawn().unwrap();
            let output = child.stdout.take().unwrap();
            tokio::spawn(async move { child.wait().await });
            Ok(Box::new(output) as ByteSource)
        })
    }

    fn put_files(&self, ve: VeKey, put: PutFiles, archive: ByteSource) -> Reply<'_, ()> {
        Box::pin(async move {
            self.find(&ve)?;
            let folder = self.path(&put.folder);
            if !folder.is_dir() {
                return refuse(
                    ErrorCode::NotFound,
                    format!("folder `{}`: there is none", put.folder),
                    "make it",
                );
            }
            let mut tar = Command::new("tar");
            tar.arg("-C")
                .arg(folder)
                .args(["--no-same-owner", "-x"])
                .stdin(Stdio::piped());
            let mut child = tar.stderr(Stdio::null()).spawn().unwrap();
            let (mut archive, mut input) = (archive, child.stdin.take().unwrap());
            let copied = tokio::io::copy(&mut archive, &mut input).await;
            drop(input);
            let status = child.wait().await.unwrap();
            match copied {
                Ok(_) if status.success() => Ok(()),
                Ok(_) => refuse(
                    ErrorCode::Failed,
                    "the archive cannot be unpacked",
                    "look at it",
                ),
                Err(error) => refuse(
                    ErrorCode::Failed,
                    format!("the archive was cut off: {error}"),
                    "try again",
                ),
            }
        })
    }

    fn is_folder(&self, ve: VeKey, path: String) -> Reply<'_, bool> {
        Box::pin(async move {
            self.find(&ve)?;
            match self.path(&path).metadata() {
                Ok(found) => Ok(found.is_dir()),
                Err(_) => refuse(
                    ErrorCode::NotFound,
                    format!("`{path}`: there is none"),
                    "make it",
                ),
            }
        })
    }

    fn isolation(&self, ve: VeKey) -> Reply<'_, Isolation> {
        Box::pin(async move { self.find(&ve).map(|ve| values::isolation(&ve)) })
    }

    fn stats(&self, ve: VeKey) -> Reply<'_, Stats> {
        Box::pin(async move { self.find(&ve).map(|ve| values::stats(&ve)) })
    }

    fn stats_of(&self, filter: VeFilter) -> Reply<'_, Vec<Stats>> {
        Box::pin(async move { Ok(self.matching(&filter).iter().map(values::stats).collect()) })
    }

    fn operations(&self, filter: OperationFilter) -> Reply<'_, Vec<Operation>> {
        Box::pin(async move {
            let inner = self.lock();
            let newest = inner.operations.iter().rev();
            let shown = newest.filter(|operation| filter.ended || !operation.state.is_ended());
            Ok(shown.take(filter.count_max).cloned().collect())
        })
    }

    fn operation(&self, id: u64) -> Reply<'_, Operation> {
        Box::pin(async move {
            let found = self
                .lock()
                .operations
                .iter()
                .find(|operation| operation.id == id)
                .cloned();
            match found {
                Some(operation) => Ok(operation),
                None => refuse(
                    ErrorCode::NotFound,
                    format!("operation {id}: there is none"),
                    "`vessel operation list` shows all",
                ),
            }
        })
    }

    fn cancel_operation(&self, id: u64) -> Reply<'_, Operation> {
        Box::pin(async move {
            if let Some(operation) = self.lock().operations.iter_mut().find(|one| one.id == id)
                && !operation.state.is_ended()
            {
                operation.state = OperationState::Cancelled;
                operation.ended = Some(values::moment());
            }
            Node::operation(self, id).await
        })
    }

    fn wait_operation(&self, id: u64, timeout: Duration) -> Reply<'_, Operation> {
        Box::pin(async move {
            let deadline = tokio::time::Instant::now() + timeout;
            loop {
                let operation = Node::operation(self, id).await?;
                if operation.state.is_ended() || tokio::time::Instant::now() >= deadline {
                    return Ok(operation);
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
    }

    fn events(&self, filter: EventFilter) -> Reply<'_, mpsc::Receiver<Event>> {
        Box::pin(async move {
            let (sender, receiver) = mpsc::channel(8);
            let event = |id, kind: &str, message: &str| Event {
                id,
                time: values::moment(),
                kind: kind.to_owned(),
                subject: Some(Subject {
                    kind: SubjectKind::Ve,
                    name: "web".to_owned(),
                    id: Some(100),
                }),
                operation: Some(7),
                message: message.to_owned(),
            };
            let events = [
                event(1, "ve-started", ""),
                event(2, "ve-stopped", "init ended with code 0"),
            ];
            tokio::spawn(async move {
                for event in events
                    .into_iter()
                    .filter(|e| filter.after.is_none_or(|after| e.id > after))
                {
                    sender.send(event).await.unwrap();
                }
                if filter.follow {
                    sender.closed().await;
                }
            });
            Ok(receiver)
        })
    }

    fn templates(&self) -> Reply<'_, Vec<Template>> {
        Box::pin(async { Ok(vec![values::template()]) })
    }

    fn template(&self, name: String, packages: bool) -> Reply<'_, TemplateDetails> {
        Box::pin(async move {
            if name == "debian-12" {
                let revision = if self.lock().updated { 2 } else { 1 };
                return Ok(values::template_details(packages, revision));
            }
            refuse(
                ErrorCode::NotFound,
                format!("template `{name}`: there is none"),
                "`vessel template list` shows all",
            )
        })
    }

    fn build_template(&self, request: BuildRequest) -> Reply<'_, Operation> {
        Box::pin(async move {
            self.called(format!("{request:?}"));
            let name = request.name.unwrap_or(request.recipe);
            let error = (name == "debian-0").then(|| {
                ApiError::new(ErrorCode::Failed, "template `debian-0`: no suite `0`")
                    .with_hint("take 12 or 13")
            });
            Ok(self.done("template-build", &name, None, error))
        })
    }

    fn import_template(&self, peer: Peer, request: ImportRequest) -> Reply<'_, Operation> {
        Box::pin(async move {
            assert!(peer.pid.is_some());
            self.called(format!("{request:?}"));
            Ok(self.done("template-import", &request.name, None, None))
        })
    }

    fn remove_template(&self, name: String) -> Reply<'_, Operation> {
        Box::pin(async move {
            let message = format!("template `{name}`: 2 VEs are made from it");
            refuse(ErrorCode::Conflict, message, "delete them first")
        })
    }

    fn verify_template(&self, name: String) -> Reply<'_, Operation> {
        Box::pin(async move { Ok(self.begin("template-verify", &name, None)) })
    }

    fn pool(&self) -> Reply<'_, PoolStatus> {
        Box::pin(async { Ok(values::pool()) })
    }

    fn node(&self) -> Reply<'_, NodeStatus> {
        Box::pin(async {
            let count = self.lock().ves.len();
            Ok(values::node(
                "/var/lib/vessel",
                u32::try_from(count).unwrap(),
            ))
        })
    }

    fn set_node(&self, request: NodeSetRequest) -> Reply<'_, NodeStatus> {
        Box::pin(async move {
            self.called(format!("{request:?}"));
            if request.settings.iter().any(|s| s == "cpu.reserve=2") {
                return refuse(
                    ErrorCode::NoResources,
                    "cpu.guarantee: 1 processors is asked for, and 0 processors is left",
                    "`vessel node show` tells what is sold",
                );
            }
            Ok(values::node("/var/lib/vessel", 3))
        })
    }

    fn init(&self, request: InitRequest) -> Reply<'_, InitReply> {
        Box::pin(async move {
            self.called(format!("{request:?}"));
            Ok(InitReply {
                changed: true,
                node: values::node("/var/lib/vessel", 0),
            })
        })
    }

    fn shutdown(&self, _: ShutdownRequest) -> Reply<'_, ()> {
        Box::pin(async {
            self.stop();
            Ok(())
        })
    }

    fn destroy(&self, request: DestroyRequest) -> Reply<'_, ()> {
        Box::pin(async move {
            if request.force {
                self.stop();
                return Ok(());
            }
            refuse(
                ErrorCode::WrongState,
                "the node has 2 VEs",
                "delete them, or give --force",
            )
        })
    }

    fn doctor(&self) -> Reply<'_, DoctorReport> {
        Box::pin(async { Ok(values::doctor()) })
    }
}
