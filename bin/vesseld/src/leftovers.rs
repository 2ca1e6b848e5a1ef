//! What is found on the machine when the node comes up: VEs that run, and what belongs to none.

use std::collections::BTreeMap;
use std::time::Duration;

use engine::{Fault, Running, Sweep};
use registry::Run;
use runtime::VeState;
use runtime::protocol::Launched;
use ve::VeId;

use crate::mechanisms::NodeMechanisms;
use crate::sleep;

/// How often the launcher is asked whether it still wakes VEs for a daemon that died. CRIU ends by
/// itself when it finds that daemon gone.
const WAKING_POLL: Duration = Duration::from_millis(50);

fn fault(error: &(dyn std::error::Error + 'static)) -> Fault {
    Fault::from_error(error)
}

/// The inits that run, those of VEs that nobody knows, too. Those of `known` VEs that the launcher
/// does not hold are handed to it: the recorded one, or one that was made and not recorded.
pub(crate) fn running(
    mechanisms: &NodeMechanisms,
    known: &BTreeMap<VeId, Option<Run>>,
) -> Result<BTreeMap<VeId, Running>, Fault> {
    let host = &mechanisms.0;
    let client = host.launcher.client();
    while known.values().any(Option::is_none) && client.is_waking().map_err(|e| fault(&e))? {
        std::thread::sleep(WAKING_POLL);
    }
    let listed = client.list().map_err(|error| fault(&error))?;
    let held: Vec<_> = listed.iter().map(|status| status.id).collect();
    for (id, run) in known.iter().filter(|(id, _)| !held.contains(id)) {
        let init = match run {
            Some(run) if run.boot_id == host.boot_id => Some(Launched {
                pid: run.pid,
                start_time: run.start_time_ticks,
            }),
            Some(_) => None,
            None => find_init(mechanisms, *id),
        };
        if let Some(init) = init {
            // Refused when it ended meanwhile: then it is not among those that run.
            let _ = client.adopt(*id, init);
        }
    }
    // Whom neither launcher nor registry knows.
    let groups = host.groups.list().map_err(|error| fault(&error))?;
    let unknown = groups
        .into_iter()
        .filter(|id| !known.contains_key(id) && !held.contains(id));
    let strangers = unknown.filter_map(|id| {
        let run = mechanisms.run(find_init(mechanisms, id)?);
        Some((id, Running { run, ready: true }))
    });
    let strangers: Vec<_> = strangers.collect();
    let listed = client.list().map_err(|error| fault(&error))?;
    let living = listed
        .into_iter()
        .filter(|status| !matches!(status.state, VeState::Exited(_)));
    Ok(living
        .map(|status| {
            let ready = status.state == VeState::Ready;
            let run = mechanisms.run(status.init);
            (status.id, Running { run, ready })
        })
        .chain(strangers)
        .collect())
}

/// The init among the processes in a VE's groups, if there are any.
fn find_init(mechanisms: &NodeMechanisms, id: VeId) -> Option<Launched> {
    let processes = mechanisms.0.groups.ve(id).processes().unwrap_or_default();
    let numbers = |pid: &u32| kernel::proc::numbers_in_namespaces(*pid).unwrap_or_default();
    let inits = processes.into_iter().filter_map(|pid| {
        let numbers = numbers(&pid);
        (numbers.len() > 1 && numbers.last() == Some(&1)).then_some((numbers.len(), pid))
    });
    // A container inside has an init of its own, in a namespace further in.
    let (_, pid) = inits.min()?;
    let start_time = kernel::proc::start_time(pid).ok()?.ticks();
    Some(Launched { pid, start_time })
}

/// Removes what lies about of VEs other than these, but for files that they wrote.
pub(crate) fn sweep(mechanisms: &NodeMechanisms, keep: &[VeId]) -> Result<Sweep, Fault> {
    let host = &mechanisms.0;
    let mut findings = Vec::new();
    let swept = host.pool.private_sweep(keep).map_err(|e| fault(&e))?;
    let removed = swept.removed.iter();
    findings.extend(removed.map(|found| format!("removed from the pool: {found:?}")));
    let failed = swept.failed.iter();
    findings.extend(failed.map(|(id, error)| format!("the area of {id} stays: {error}")));
    // What lies on disk of their processes fits their files.
    let with_files = [keep, &swept.strangers].concat();
    let slept = sleep::sweep(host, &with_files)?.into_iter();
    findings.extend(slept.map(|id| format!("removed processes of {id} on disk, which is no VE")));
    let groups = host.groups.list().map_err(|error| fault(&error))?;
    for id in groups.into_iter().filter(|id| !keep.contains(id)) {
        mechanisms.kill_stray(id)?;
        host.groups.remove(id).map_err(|error| fault(&error))?;
        let found = format!("removed the control groups of {id}, which is no VE");
        findings.push(found);
    }
    let mut netlink = host.netlink();
    let network = crate::host::node_network(&host.config);
    let ids = network.map_err(|error| Fault::new(error.to_string()))?.ids;
    let links = network::link::list(&mut netlink, ids).map_err(|error| fault(&error))?;
    let stray: Vec<_> = links.into_iter().filter(|id| !keep.contains(id)).collect();
    network::link::remove_if_present(&mut netlink, &stray).map_err(|error| fault(&error))?;
    let removed = stray.iter();
    findings.extend(removed.map(|id| format!("removed the link of {id}, which is no VE")));
    Ok(Sweep {
        found: findings,
        strangers: swept.strangers.into_iter().collect(),
    })
}
