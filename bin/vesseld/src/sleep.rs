//! VEs on disk: suspending and waking them.

use std::path::PathBuf;

use checkpoint::Criu;
use checkpoint::resume::{self, ResumeRequest};
use checkpoint::suspend::{self, Settled, SuspendRequest};
use engine::{FailureKind, Fault, Running};
use registry::VeRecord;
use runtime::protocol::Launched;
use ve::VeId;

use crate::host::{Host, pool_mount};
use crate::launcher;
use crate::mechanisms::{KILL_TIMEOUT, NodeMechanisms};

fn fault(error: &(dyn std::error::Error + 'static)) -> Fault {
    Fault::from_error(error)
}

/// Where a VE sleeps: on the pool, where there is room for its memory.
fn folder(host: &Host, id: VeId) -> PathBuf {
    pool_mount(&host.root)
        .join("checkpoints")
        .join(id.to_string())
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

pub(crate) fn suspend(mechanisms: &NodeMechanisms, record: &VeRecord) -> Result<(), Fault> {
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
    suspend::suspend(&SuspendRequest {
        id,
        init,
        group: &host.groups.ve(id),
        linked: link.is_some(),
        addresses: &record.spec.addresses,
        folder: &folder(host, id),
        criu: &criu,
    })
    .map(|done| {
        let (bytes, took, frozen) = (done.bytes, done.took, done.frozen);
        tracing::info!("VE {id} is on disk: {bytes} bytes, {took:?}, of which still {frozen:?}");
    })
    .map_err(|error| fault(&error))?;
    // Its root must be free when it wakes.
    host.launcher
        .wait_exit(id, init.pid, KILL_TIMEOUT, &|| false);
    Ok(())
}

pub(crate) fn asleep(host: &Host, record: &VeRecord) -> Result<bool, Fault> {
    let id = record.spec.id;
    let settled = suspend::settle(
        id,
        init(host, record),
        &host.groups.ve(id),
        &folder(host, id),
    );
    settled
        .map(|settled| settled == Settled::Asleep)
        .map_err(|error| fault(&error))
}

pub(crate) fn wake(mechanisms: &NodeMechanisms, record: &VeRecord) -> Result<Running, Fault> {
    let host = &mechanisms.0;
    let id = record.spec.id;
    let launch = mechanisms.launch_spec(record)?;
    let criu = criu(host)?;
    host.launcher.acknowledge(id);
    let woken = resume::resume(&ResumeRequest {
        launch,
        group: &host.groups.ve(id),
        folder: &folder(host, id),
        criu: &criu,
        launcher: &host.launcher.client(),
    });
    let woken = woken.map_err(|error| fault(&error))?;
    // Of no use from here on, as the VE writes to its files. One that stays is replaced by the next.
    if let Err(error) = resume::discard(&folder(host, id)) {
        tracing::warn!("{error}");
    }
    mechanisms.announce(&record.spec.addresses)?;
    Ok(Running {
        run: mechanisms.run(woken),
        ready: true,
    })
}

pub(crate) fn discard(host: &Host, id: VeId) -> Result<(), Fault> {
    resume::discard(&folder(host, id)).map_err(|error| fault(&error))
}
