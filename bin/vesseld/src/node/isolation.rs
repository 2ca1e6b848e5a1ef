//! What stands between a VE and the rest, as planned and as the kernel says it is.

use std::sync::Arc;

use api::latest::{
    ApiError, ErrorCode, Isolation, IsolationEntry, IsolationVerdict, IsolationWall,
};
use cgroup::DeviceControl;
use registry::VeRecord;
use runtime::isolation::{Entry, Observed, Plan, Verdict, Wall, report};
use runtime::seccomp::Profile;
use server::node::VeKey;

use super::ves;
use crate::convert;
use crate::daemon::Up;

pub(super) fn of_one(up: &Arc<Up>, ve: &VeKey) -> Result<Isolation, ApiError> {
    let record = ves::find(up, ve)?;
    let spec = &record.spec;
    let run = record.run.as_ref().filter(|_| record.state.has_processes());
    let seen = match run {
        None => None,
        Some(run) => Some(look(&record, run.pid)?),
    };
    let plan = Plan {
        id: spec.id,
        profile: Profile {
            nesting: spec.nesting,
            ..Profile::default()
        },
    };
    let mut walls = report(&plan, seen.as_ref());
    // A stopped VE has no group.
    let group = run.map(|_| up.host.groups.ve(spec.id));
    walls.push(devices(group.as_ref()));
    walls.push(limits(
        group.as_ref(),
        &record,
        up.host.guard.cap(record.spec.id),
    ));
    let differing = walls
        .iter()
        .flat_map(|wall| &wall.entries)
        .filter(|entry| entry.verdict == Verdict::Differs)
        .count();
    Ok(Isolation {
        id: spec.id.get(),
        name: spec.name.to_string(),
        state: convert::state(record.state),
        pid: run.map(|run| run.pid),
        differing: u32::try_from(differing).unwrap_or(u32::MAX),
        walls: walls.into_iter().map(wall).collect(),
    })
}

fn look(record: &VeRecord, pid: u32) -> Result<Observed, ApiError> {
    Observed::of(pid).map_err(|error| {
        let name = &record.spec.name;
        let cause = &error.source;
        ApiError::new(
            ErrorCode::Failed,
            format!("the init of VE `{name}` cannot be looked at: {error}: {cause}"),
        )
        .with_hint("it may just have ended: `vessel show` says so; try again")
    })
}

fn devices(group: Option<&cgroup::VeGroup>) -> Wall {
    let control = group.and_then(cgroup::VeGroup::device_control);
    let mut entries = Vec::new();
    let found = match &control {
        None => None,
        Some(DeviceControl::List { found, planned }) if found == planned => {
            Some("nothing else".to_owned())
        }
        Some(DeviceControl::List { found, .. }) => Some(found.join(", ")),
        Some(DeviceControl::Programs(0)) => Some("no program".to_owned()),
        Some(DeviceControl::Programs(_)) => Some("nothing else".to_owned()),
    };
    let holds = found.as_ref().map(|found| found == "nothing else");
    entries.push(Entry::compared(
        "any other device",
        "nothing else".to_owned(),
        found,
        "no disk, no memory, no port, no log of the node opens, whatever node leads to it",
    ));
    entries.extend(cgroup::ALLOWED.iter().map(|device| {
        let found = holds.map(|_| "allowed".to_owned());
        Entry::compared(device.name, "allowed".to_owned(), found, device.reason)
    }));
    Wall {
        name: "devices",
        stops: "hardware, and the node's own disks",
        entries,
    }
}

fn limits(
    group: Option<&cgroup::VeGroup>,
    record: &VeRecord,
    memory_cap: Option<Option<u64>>,
) -> Wall {
    let bounds = group.map(cgroup::VeGroup::bounds).unwrap_or_default();
    let limits = &record.spec.limits;
    let mut entries: Vec<Entry> = bounds
        .into_iter()
        .map(|bound| {
            let asked = match bound.name {
                "processes" => {
                    let limit = limits.processes.unwrap_or_else(cgroup::processes_default);
                    Some(limit.to_string())
                }
                // A burst comes on top, and is ended while memory is short.
                "memory" => memory_cap
                    .unwrap_or_else(|| crate::guard::most(limits))
                    .map(|limit| limit.to_string()),
                _ => None,
            };
            match bound.planned.or(asked) {
                Some(planned) => Entry::compared(bound.name, planned, bound.found, bound.reason),
                None => Entry {
                    name: bound.name.to_owned(),
                    planned: "the node's".to_owned(),
                    found: bound.found,
                    verdict: Verdict::Unseen,
                    reason: bound.reason.to_owned(),
                },
            }
        })
        .collect();
    let disk = limits.disk.map(|limit| limit.get().to_string());
    entries.push(Entry {
        name: "disk".to_owned(),
        planned: disk.unwrap_or_else(|| "the pool's".to_owned()),
        found: None,
        verdict: Verdict::Unseen,
        reason: "space and metadata of all that the VE changed; `vessel stats` shows the use"
            .to_owned(),
    });
    Wall {
        name: "limits",
        stops: "using up what all share",
        entries,
    }
}

fn wall(wall: Wall) -> IsolationWall {
    IsolationWall {
        name: wall.name.to_owned(),
        stops: wall.stops.to_owned(),
        entries: wall.entries.into_iter().map(entry).collect(),
    }
}

fn entry(entry: Entry) -> IsolationEntry {
    IsolationEntry {
        name: entry.name,
        planned: entry.planned,
        found: entry.found,
        verdict: match entry.verdict {
            Verdict::Holds => IsolationVerdict::Holds,
            Verdict::Differs => IsolationVerdict::Differs,
            Verdict::Unseen => IsolationVerdict::Unseen,
        },
        reason: entry.reason,
    }
}
