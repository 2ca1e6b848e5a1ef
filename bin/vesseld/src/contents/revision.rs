//! Putting another revision of its template below a VE's files.
//!
//! Unlike with an application, what the VE changed may differ between the two: a file of its own stays, as a
//! distribution keeps configuration files, and is told. What would be inconsistent is left to the VE's own package
//! manager: a database of packages that is not the template's, users that both sides added, directories that were
//! moved.

use std::os::fd::AsFd as _;

use difference::{Conflict, Merged, conflicts, forget_lower, shown};
use engine::{Before, FailureKind, Fault, Foreseen, Kept, Way};
use registry::VeRecord;
use ve::Stack;

use super::Layers;
use crate::host::Host;
use crate::mechanisms::pool_fault;

/// Places that are looked at, and those that are told by name.
const CONFLICTS_MAX: usize = 100_000;
const PATHS_MAX: usize = 50;

/// How a VE would come to another revision.
pub(crate) fn foresee(host: &Host, record: &VeRecord, new: &Stack) -> Result<Foreseen, Fault> {
    let layers = Layers::of_ve(host, record)?;
    let other = Layers::of_template(host, new)?;
    Ok(weigh(&found(&layers, &other)?))
}

/// What the VE changed where the two differ.
fn found(layers: &Layers, other: &Layers) -> Result<Vec<Conflict>, Fault> {
    let Some((upper, _)) = &layers.private else {
        return Ok(Vec::new());
    };
    let found = conflicts(upper.as_fd(), &layers.tree, &other.tree, CONFLICTS_MAX);
    let mut found = found.map_err(|error| unreadable(&error))?;
    found.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(found)
}

fn unreadable(error: &std::io::Error) -> Fault {
    Fault::new(format!("its private area cannot be read: {error}"))
}

fn weigh(found: &[Conflict]) -> Foreseen {
    let first = |is: fn(&Conflict) -> bool| found.iter().find(|conflict| is(conflict));
    let because = if let Some(own) = first(is_packages) {
        Some(format!("it has packages of its own ({})", told(own)))
    } else if let Some(users) = first(|conflict| difference::is_account_database(&conflict.path)) {
        Some(format!("both have users of their own ({})", told(users)))
    } else {
        first(|conflict| !conflict.stays).map(|moved| format!("it moved {}", told(moved)))
    };
    let way = match because {
        None => Way::Below,
        Some(because) => Way::Inside { because },
    };
    let kept = match way {
        Way::Below => kept(found.iter()),
        // What its package manager will keep it alone knows.
        Way::Inside { .. } => Kept::default(),
    };
    Foreseen { way, kept }
}

fn is_packages(conflict: &Conflict) -> bool {
    difference::is_package_database(&conflict.path) && !difference::is_lock(&conflict.path)
}

fn told(conflict: &Conflict) -> String {
    format!("/{}", shown(&conflict.path))
}

fn kept<'a>(found: impl Iterator<Item = &'a Conflict>) -> Kept {
    let mut kept = Kept::default();
    for conflict in found.filter(|conflict| !difference::is_lock(&conflict.path)) {
        kept.count += 1;
        if kept.paths.len() < PATHS_MAX {
            kept.paths.push(told(conflict));
        }
    }
    kept
}

/// Keeps how the files of a VE are, until its record says what became of it.
pub(crate) fn keep(host: &Host, record: &VeRecord, new: &Stack) -> Result<(), Fault> {
    match before(host, record)? {
        Before::None => {}
        Before::Done => super::lower_settle(host, record)?,
        Before::Pending => {
            return Err(
                Fault::new("how its files were is kept from an earlier change")
                    .of_kind(FailureKind::Conflict)
                    .with_hint("stop and start the node's daemon, which brings them back"),
            );
        }
    }
    host.pool
        .private_before_keep(record.spec.id, &new.to_string())
        .map_err(|error| pool_fault(&error))
}

/// What is kept of how the files of a VE were.
pub(crate) fn before(host: &Host, record: &VeRecord) -> Result<Before, Fault> {
    let kept = host.pool.private_before(record.spec.id);
    let kept = kept.map_err(|error| pool_fault(&error))?;
    Ok(match kept {
        None => Before::None,
        Some(label) if label == record.spec.stack().to_string() => Before::Done,
        Some(_) => Before::Pending,
    })
}

/// Puts another revision below the files of a stopped VE; says what stays its own.
pub(crate) fn exchange(
    host: &Host,
    record: &VeRecord,
    new: &Stack,
    way: &Way,
) -> Result<Kept, Fault> {
    let id = record.spec.id;
    let _alone = host.contents.areas().alone(id)?;
    let layers = Layers::of_ve(host, record)?;
    let other = Layers::of_template(host, new)?;
    let Some((upper, _)) = &layers.private else {
        return Err(Fault::new("it has no private area"));
    };
    let failed = |error: std::io::Error| {
        Fault::new(format!(
            "its private area cannot be made ready for `{new}`: {error}"
        ))
    };
    let mut stays = Kept::default();
    if *way == Way::Below {
        let found = weigh(&found(&layers, &other)?);
        if let Way::Inside { because } = found.way {
            let message = format!("it changed while it was looked at: {because}");
            return Err(Fault::new(message)
                .of_kind(FailureKind::Conflict)
                .with_hint("ask again"));
        }
        stays = found.kept;
    } else {
        let objects = other.objects.as_fd();
        difference::preserve(upper.as_fd(), &layers.tree, &other.tree, objects).map_err(failed)?;
    }
    forget_lower(upper.as_fd(), &other.tree).map_err(failed)?;
    host.pool
        .private_work_reset(id)
        .map_err(|error| pool_fault(&error))?;
    if *way != Way::Below {
        stays = give_back(host, record, &other)?;
    }
    Ok(stays)
}

/// Gives back what has become equal to the new revision; what is left of its configuration is the VE's own.
fn give_back(host: &Host, record: &VeRecord, other: &Layers) -> Result<Kept, Fault> {
    // The work directory is another one now.
    let fresh = Layers::of_ve(host, record)?;
    let Some((upper, work)) = &fresh.private else {
        return Err(Fault::new("it has no private area"));
    };
    let merged = Merged {
        upper: Some(upper.as_fd()),
        lower: &other.tree,
        objects: other.objects.as_fd(),
    };
    difference::give_back(&merged, work.as_fd(), other.image.as_fd(), &|| false)
        .map_err(|error| unreadable(&error))?;
    let left = found(&fresh, other)?;
    Ok(kept(left.iter().filter(|c| c.path.starts_with(b"etc/"))))
}
