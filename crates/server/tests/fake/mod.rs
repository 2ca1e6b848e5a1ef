//! A node made of memory, for tests of the door, the client and the command line.
//!
//! Its VEs do what their names say: `dead-*` end at once, `lazy-*` never get ready, `broken-*` cannot be
//! started. Commands of `exec` run on this host, and files are those of a temporary folder. Times are fixed.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "shared by test programs that each use a part"
)]

mod alerts;
mod contents;
mod meters;
mod node;
mod samples;
mod sessions;
mod updates;
mod values;
mod versions;
mod ves;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use api::latest::{
    AlertRule, ApiError, ErrorCode, Operation, OperationState, Subject, SubjectKind, VeDetails,
};
use server::VeKey;
use tokio::sync::oneshot;

pub use values::{details, moment};

/// What the node holds.
#[derive(Debug, Default)]
pub struct Inner {
    pub ves: BTreeMap<u32, VeDetails>,
    pub operations: Vec<Operation>,
    pub calls: Vec<String>,
    pub rules: Vec<AlertRule>,
    pub updated: bool,
    pub stop: Option<oneshot::Sender<()>>,
}

/// The node.
#[derive(Debug)]
pub struct Fake {
    pub inner: Mutex<Inner>,
    pub files: tempfile::TempDir,
}

/// A fake node that answers on a socket in a folder of its own, on a thread of its own.
#[derive(Debug)]
pub struct Served {
    pub node: Arc<Fake>,
    root: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Fake {
    pub fn new() -> Arc<Self> {
        let files = tempfile::tempdir().unwrap();
        Arc::new(Self {
            inner: Mutex::default(),
            files,
        })
    }

    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// Adds a VE in a state that follows from nothing.
    pub fn add(&self, ve: VeDetails) {
        self.lock().ves.insert(ve.id, ve);
    }

    fn find(&self, key: &VeKey) -> Result<VeDetails, ApiError> {
        let inner = self.lock();
        let found = inner.ves.values().find(|ve| match key {
            VeKey::Id(id) => ve.id == *id,
            VeKey::Name(name) => ve.name == *name,
        });
        found.cloned().ok_or_else(|| {
            ApiError::new(ErrorCode::NotFound, format!("VE `{key}`: there is none"))
                .with_hint("`vessel list` shows all")
        })
    }

    fn begin(&self, kind: &str, name: &str, id: Option<u32>) -> Operation {
        let mut inner = self.lock();
        let operation = Operation {
            id: inner.operations.len() as u64 + 1,
            kind: kind.to_owned(),
            subjects: vec![Subject {
                kind: if id.is_some() {
                    SubjectKind::Ve
                } else {
                    SubjectKind::Template
                },
                name: name.to_owned(),
                id,
            }],
            state: OperationState::Running,
            progress: api::latest::Progress::default(),
            error: None,
            created: moment(),
            ended: None,
            cancellable: true,
            update: None,
        };
        inner.operations.push(operation.clone());
        operation
    }

    /// Begins an operation and ends it: the answer is as it was begun, waiting shows it ended.
    fn done(&self, kind: &str, name: &str, id: Option<u32>, error: Option<ApiError>) -> Operation {
        let begun = self.begin(kind, name, id);
        let mut inner = self.lock();
        // Another may have begun meanwhile.
        let ended = inner
            .operations
            .iter_mut()
            .find(|o| o.id == begun.id)
            .unwrap();
        ended.state = if error.is_some() {
            OperationState::Failed
        } else {
            OperationState::Done
        };
        ended.error = error;
        ended.ended = Some(moment());
        ended.cancellable = false;
        ended.update = (kind == "update").then(updates::report);
        begun
    }

    /// Lets the daemon end.
    fn stop(&self) {
        if let Some(stop) = self.lock().stop.take() {
            let _ = stop.send(());
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.files.path().join(path.trim_start_matches('/'))
    }
}

impl Served {
    pub fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        let (node, socket) = (Fake::new(), root.path().join("vessel.sock"));
        let (stop, stopped) = oneshot::channel();
        let (own_stop, own_stopped) = oneshot::channel();
        node.lock().stop = Some(own_stop);
        let (ready, is_ready) = std::sync::mpsc::channel();
        let served = Arc::clone(&node);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = server::bind(&socket).unwrap();
                ready.send(()).unwrap();
                let mut told = false;
                let shutdown = async {
                    tokio::select! {
                        _ = stopped => {}
                        Ok(()) = own_stopped => told = true,
                    }
                };
                server::serve(listener, served, shutdown).await;
                if told {
                    // As the daemon does. One that is killed leaves its socket.
                    std::fs::remove_file(&socket).unwrap();
                    let _ = std::fs::remove_dir(socket.parent().unwrap());
                }
            });
            runtime.shutdown_background();
        });
        is_ready.recv().unwrap();
        Self {
            node,
            root,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// Ends the daemon and waits for it.
    pub fn end(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.end();
    }
}
