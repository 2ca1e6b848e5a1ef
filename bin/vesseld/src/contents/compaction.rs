//! Giving back files of a VE that are equal to its template's.

use std::os::fd::AsFd as _;

use difference::Compaction;
use engine::{FailureKind, Fault, ProgressSink};
use registry::VeRecord;
use ve::VeId;

use super::{Layers, locked};
use crate::host::Host;
use crate::mechanisms::pool_fault;

/// What a compaction did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Compacted {
    /// Whether the files are the template's again, and not only their blocks.
    pub(crate) whole: bool,
    pub(crate) done: Compaction,
    /// Space that the pool got back.
    pub(crate) disk_bytes: u64,
}

/// Compacts a VE; what it did is kept until it is told.
pub(crate) fn compact(
    host: &Host,
    record: &VeRecord,
    sink: &dyn ProgressSink,
) -> Result<(), Fault> {
    let id = record.spec.id;
    let whole = record.run.is_none();
    let alone = whole.then(|| host.contents.areas().alone(id)).transpose()?;
    let layers = Layers::of_ve(host, record)?;
    let before = used(host, id)?;
    let cancelled = || sink.cancelled();
    let result = match &layers.private {
        Some((_, work)) if whole => difference::give_back(
            &layers.merged(),
            work.as_fd(),
            layers.image.as_fd(),
            &cancelled,
        ),
        _ => difference::share(&layers.merged(), &cancelled),
    };
    let done = result.map_err(|error| {
        Fault::new(format!("its private area cannot be compacted: {error}"))
            .with_hint("what was given back stays so; `vessel pool show` tells how the pool is")
    })?;
    drop(alone);
    if sink.cancelled() {
        let fault = Fault::new("it was cancelled; what was given back stays so");
        return Err(fault.of_kind(FailureKind::Cancelled));
    }
    let compacted = Compacted {
        whole,
        done,
        disk_bytes: before.saturating_sub(used(host, id)?),
    };
    locked(&host.contents.compactions).insert(id, compacted);
    Ok(())
}

/// What a VE's private area takes, as quotas count it; nothing where the pool counts nothing.
fn used(host: &Host, id: VeId) -> Result<u64, Fault> {
    // What was freed is counted when it is written.
    host.pool_sync()?;
    host.pool
        .private_usage(id)
        .map_err(|error| pool_fault(&error))
}
