//! VEs that are there and that the registry does not know: it was lost, cut short, or is an old copy.
//!
//! Nothing of theirs is touched. Were they ended and swept away, a registry that comes back would
//! find nothing that it could be right about.

use std::collections::{BTreeMap, BTreeSet};

use registry::{Stage, VeRecord};
use ve::VeId;

use crate::error::{Failure, FailureKind};
use crate::mechanisms::Running;

/// Refuses to bring a node up whose registry is older than what runs.
///
/// # Errors
/// Names a VE that runs and is not recorded.
pub(crate) fn refuse(
    records: &[VeRecord],
    running: &BTreeMap<VeId, Running>,
) -> Result<(), Failure> {
    // A VE that is being created has not run yet.
    let made = records.iter().filter(|r| r.stage != Stage::Creating);
    let known: Vec<_> = made.map(|record| record.spec.id).collect();
    let stranger = running.iter().find(|(id, _)| !known.contains(id));
    let Some((id, alive)) = stranger else {
        return Ok(());
    };
    let message = format!(
        "VE {id} runs (its init is process {}), and the registry does not know it: the registry is an \
         old one, or was cut short",
        alive.run.pid
    );
    Err(Failure::new(FailureKind::Conflict, message).with_hint(
        "bring its newest copy back; or end that process: then the node comes up without this VE, \
         and keeps its files",
    ))
}

/// What is told of those whose files were found.
pub(crate) fn told(strangers: &BTreeSet<VeId>) -> impl Iterator<Item = String> {
    strangers
        .iter()
        .map(|id| format!("files are kept of VE {id}, which is not in the registry"))
}
