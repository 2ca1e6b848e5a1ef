//! VEs on disk: suspending and waking them.

use std::path::PathBuf;

use checkpoint::Criu;
use checkpoint::resume::{self, ResumeRequest};
use checkpoint::settle::settle;
use checkpoint::suspend::{self, SuspendRequest};
use checkpoint::{Follower, ResumeError, Settled, SuspendError};
use engine::{FailureKind, Fault, Progress, ProgressSink, Running};
use registry::VeRecord;
use runtime::protocol::Launched;
use ve::VeId;

use crate::host::{Host, pool_mount};
use crate::launcher;
use crate::mechanisms::{KILL_TIMEOUT, NodeMechanisms};

fn fault(error: &(dyn std::error::Error + 'static)) -> Fault {
    Fault::from_error(error)
}

/// Where VEs sleep: on the pool, where there is room for their memory.
fn folders(host: &Host) -> PathBuf {
    pool_mount(&host.root).join("checkpoints")
}

fn folder(host: &Host, id: VeId) -> PathBuf {
    folders(host).join(id.to_string())
}

/// Where CRIU asks before it completes its work.
fn gate(host: &Host, id: VeId) -> PathBuf {
    host.root.join("run").join(format!("gate-{id}.sock"))
}

/// Where CRIU says what it does while it wakes a VE.
fn work(host: &Host, id: VeId) -> PathBuf {
    host.root.join("run").join(format!("wake-{id}"))
}

/// The engine's sink for one who follows CRIU.
struct Watch<'a> {
    sink: &'a dyn ProgressSink,
    /// Bytes that are to be written, as far as one can tell.
    expected: u64,
}

impl std::fmt::Debug for Watch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

impl Follower for Watch<'_> {
    #[expect(clippy::cast_precision_loss, reason = "a fraction for people")]
    fn wrote(&self, bytes: u64) {
        let fraction = (self.expected > 0).then(|| bytes as f32 / self.expected as f32);
        self.sink.report(Progress {
            fraction: fraction.map(|fraction| fraction.min(1.0)),
            message: format!("{} MB are on disk", bytes >> 20),
        });
    }

    fn cancelled(&self) -> bool {
        self.sink.cancelled()
    }
}

fn criu(host: &Host) -> Result<Criu, Fault> {
    let unavailable = |message: String| Fault::new(message).of_kind(FailureKind::Resources);
    let program = launcher::program().map_err(|error| unavailable(error.to_string()))?;
    let programs = program.parent().unwrap_or(&program);
    Criu::find(programs, &host.root.join("run")).map_err(|error| fault(&error))
}

/// The init that a record names, if it can still live.
fn init(host: &Host, record: &VeRecord) -> Option<Launched> {
    let run = record
        .run
        .as_ref()
        .filter(|run| run.boot_id == host.boot_id)?;
    Some(Launched {
        pid: run.pid,
        start_time: run.start_time_ticks,
    })
}

pub(crate) fn suspend(
    mechanisms: &NodeMechanisms,
    record: &VeRecord,
    sink: &dyn ProgressSink,
) -> Result<(), Fault> {
    let host = &mechanisms.0;
    let id = record.spec.id;
    if record.spec.nesting {
        return Err(
            Fault::new("it may make namespaces of its own, which cannot be put on disk")
                .with_hint("set `nesting=no` and restart it"),
        );
    }
    let Some(init) = init(host, record) else {
        return Err(Fault::new("it has no init"));
    };
    let criu = criu(host)?;
    let link =
        network::counters::counters(&mut host.netlink(), id).map_err(|error| fault(&error))?;
    let group = host.groups.ve(id);
    let usage = group.usage().map_err(|error| fault(&error))?;
    suspend::suspend(&SuspendRequest {
        id,
        init,
        group: &group,
        linked: link.is_some(),
        addresses: &record.spec.addresses,
        folder: &folder(host, id),
        gate: &gate(host, id),
        criu: &criu,
        follower: &Watch {
            sink,
            expected: usage.memory_bytes,
        },
    })
    .map(|done| {
        let (bytes, took, frozen) = (done.bytes, done.took, done.frozen);
        tracing::info!("VE {id} is on disk: {bytes} bytes, {took:?}, of which still {frozen:?}");
    })
    .map_err(|error| suspend_fault(&error))?;
    // Its root must be free when it wakes.
    host.launcher
        .wait_exit(id, init.pid, KILL_TIMEOUT, &|| false);
    Ok(())
}

pub(crate) fn asleep(host: &Host, record: &VeRecord) -> Result<bool, Fault> {
    let id = record.spec.id;
    let settled = settle(
        id,
        init(host, record),
        &host.groups.ve(id),
        &folder(host, id),
    );
    settled
        .map(|settled| settled == Settled::Asleep)
        .map_err(|error| fault(&error))
}

pub(crate) fn wake(
    mechanisms: &NodeMechanisms,
    record: &VeRecord,
    sink: &dyn ProgressSink,
) -> Result<Running, Fault> {
    let host = &mechanisms.0;
    let id = record.spec.id;
    let mut launch = mechanisms.launch_spec(record)?;
    // Whoever may nest cannot be put on disk; what was set meanwhile waits for the next start.
    launch.nesting = false;
    let criu = criu(host)?;
    // Before, so that nothing can fail once its processes run. Announced once more is well.
    mechanisms.announce(&record.spec.addresses)?;
    host.launcher.acknowledge(id);
    let woken = resume::resume(&ResumeRequest {
        launch,
        group: &host.groups.ve(id),
        folder: &folder(host, id),
        gate: &gate(host, id),
        work: &work(host, id),
        criu: &criu,
        launcher: &host.launcher.client(),
        follower: &Watch { sink, expected: 0 },
    });
    let woken = woken.map_err(|error| resume_fault(&error))?;
    // Too late to fail.
    if let Err(fault) = host.shape_new(id, &record.spec.limits) {
        tracing::error!("VE {id} runs without its limit: {}", fault.message);
    }
    // They come with the bounds that they slept with.
    if let Err(fault) = host.open_files_apply(id, &record.spec.limits) {
        tracing::error!("VE {id}: {}", fault.message);
    }
    // Of no use any more. One that stays is swept some day.
    if let Err(error) = resume::discard(&folder(host, id)) {
        tracing::warn!("{error}");
    }
    Ok(Running {
        run: mechanisms.run(woken),
        ready: true,
    })
}

pub(crate) fn discard(host: &Host, id: VeId) -> Result<(), Fault> {
    // Nothing of a VE outlives it; and what is left here is small.
    let _ = std::fs::remove_dir_all(work(host, id));
    resume::discard(&folder(host, id)).map_err(|error| fault(&error))
}

/// Removes what is on disk of VEs other than these, and whatever cannot be woken. Says whose it was.
pub(crate) fn sweep(host: &Host, keep: &[VeId]) -> Result<Vec<String>, Fault> {
    resume::sweep(&folders(host), keep).map_err(|error| fault(&error))
}

/// What a sleeper needs again when it wakes: bytes of memory, and processes.
pub(crate) fn needs(host: &Host, id: VeId) -> Option<(u64, u64)> {
    let folder = folder(host, id);
    if !resume::exists(&folder) {
        return None;
    }
    // A checkpoint that cannot be read is told when it is woken.
    resume::needs(&folder, id).ok()
}

fn suspend_fault(error: &SuspendError) -> Fault {
    match error {
        SuspendError::Cancelled { .. } => fault(error).of_kind(FailureKind::Cancelled),
        SuspendError::Stray { .. } => fault(error)
            .of_kind(FailureKind::Conflict)
            .with_hint("end it (`exec`, `enter`, a file transfer) and try again"),
        SuspendError::Console { .. } => fault(error)
            .of_kind(FailureKind::Conflict)
            .with_hint("log out at its console (`vessel console`) and try again"),
        SuspendError::DeadConsole { .. } => fault(error)
            .of_kind(FailureKind::Conflict)
            .with_hint("end that process in the VE, or restart the VE, and try again"),
        SuspendError::Write { source, .. } if is_full(source) => full(fault(error)),
        SuspendError::Criu { words, .. } if words.contains("No space left") => full(fault(error)),
        _ => fault(error),
    }
}

fn is_full(error: &std::io::Error) -> bool {
    let kinds = [
        std::io::ErrorKind::StorageFull,
        std::io::ErrorKind::QuotaExceeded,
    ];
    kinds.contains(&error.kind())
}

fn full(fault: Fault) -> Fault {
    fault.of_kind(FailureKind::Resources).with_hint(
        "its memory needs room in the pool: delete what is not needed, or make the pool larger",
    )
}

fn resume_fault(error: &ResumeError) -> Fault {
    match error {
        ResumeError::Cancelled => fault(error).of_kind(FailureKind::Cancelled),
        _ => fault(error),
    }
}
