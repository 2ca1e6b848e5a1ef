//! Putting another stack below the files of a stopped VE.
//!
//! The VE keeps what it changed; what it did not change comes from the other stack. That is right only where it
//! changed nothing of what differs, so whatever it did is refused, by name. How the files were is kept as a snapshot
//! until the VE's record says which stack it has.

use std::os::fd::AsFd as _;

use difference::{conflicts, forget_lower, is_package_database, shown};
use engine::{FailureKind, Fault};
use registry::VeRecord;
use ve::Stack;

use super::Layers;
use crate::host::Host;
use crate::mechanisms::pool_fault;
use crate::stacks;

/// Conflicts that are looked for, and those that a refusal names.
const CONFLICTS_MAX: usize = 200;
const CONFLICTS_TOLD: usize = 4;

/// Refuses a stack whose difference from the VE's own touches what the VE changed.
pub(crate) fn lower_check(host: &Host, record: &VeRecord, new: &Stack) -> Result<(), Fault> {
    let name = &record.spec.name;
    let layers = Layers::of_ve(host, record)?;
    let other = Layers::of_template(host, new)?;
    let Some((upper, _)) = &layers.private else {
        return Ok(());
    };
    let found = conflicts(upper.as_fd(), &layers.tree, &other.tree, CONFLICTS_MAX);
    let found = found.map_err(|error| {
        Fault::new(format!(
            "its private area cannot be held against `{new}`: {error}"
        ))
    })?;
    if found.is_empty() {
        return Ok(());
    }
    let told = found.iter().take(CONFLICTS_TOLD);
    let told: Vec<_> = told
        .map(|conflict| format!("/{}", shown(&conflict.path)))
        .collect();
    let told = told.join(", ");
    let message = if found
        .iter()
        .any(|conflict| is_package_database(&conflict.path))
    {
        format!("it has packages of its own, which `{new}` does not know of: it changed {told}")
    } else {
        let count = found.len();
        format!("it changed {count} files that are others in `{new}`: {told}")
    };
    let packages = packages(host, record, new).join(" ");
    let hint = match packages.is_empty() {
        true => format!(
            "do it inside: `vessel enter {name}`; `vessel diff {name}` tells what it changed"
        ),
        false => format!(
            "install it inside: `vessel exec {name} -- apt-get install {packages}` or as its system does; \
             `vessel diff {name}` tells what it changed"
        ),
    };
    Err(Fault::new(message)
        .of_kind(FailureKind::Conflict)
        .with_hint(hint))
}

/// Packages of the applications that the VE has not yet.
fn packages(host: &Host, record: &VeRecord, new: &Stack) -> Vec<String> {
    let own = record.spec.stack();
    let added = new.applications().filter(|name| !own.has(name));
    let recipes = added.filter_map(|name| stacks::application(host, &new.of_one(name)).ok());
    recipes
        .flat_map(|applied| applied.recipe.packages)
        .collect()
}

/// Makes the files ready for another stack below them, and keeps how they were.
pub(crate) fn lower_change(host: &Host, record: &VeRecord, new: &Stack) -> Result<(), Fault> {
    let id = record.spec.id;
    let _alone = host.contents.areas().alone(id)?;
    let pool = |error: pool::PrivateError| pool_fault(&error);
    lower_settle(host, record)?;
    host.pool
        .private_before_keep(id, &new.to_string())
        .map_err(pool)?;
    let layers = Layers::of_ve(host, record)?;
    let other = Layers::of_template(host, new)?;
    if let Some((upper, _)) = &layers.private {
        forget_lower(upper.as_fd(), &other.tree).map_err(|error| {
            Fault::new(format!(
                "its private area cannot be made ready for `{new}`: {error}"
            ))
        })?;
    }
    drop((layers, other));
    host.pool.private_work_reset(id).map_err(pool)?;
    // The record that follows must not be on disk before this is.
    host.pool_sync()
}

/// Ends a change: brings back how the files were, or forgets it, as the record says.
pub(crate) fn lower_settle(host: &Host, record: &VeRecord) -> Result<(), Fault> {
    let id = record.spec.id;
    let settled = match host.pool.private_before(id) {
        Ok(None) => Ok(()),
        Ok(Some(label)) if label == record.spec.stack().to_string() => {
            host.pool.private_before_forget(id)
        }
        Ok(Some(label)) => host.pool.private_before_restore(id, &label),
        Err(error) => Err(error),
    };
    settled.map_err(|error| pool_fault(&error))
}
