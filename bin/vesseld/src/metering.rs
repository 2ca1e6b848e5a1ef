//! Reading what VEs use, every ten seconds, and keeping it.
//!
//! One thread reads all VEs in one sweep ([`look`]). The kernel keeps counting when the daemon is killed, and the
//! totals go on from the stored baseline; a VE's group is read once more before it is removed
//! ([`Metering::group_ends`]). So a sweep that is late or left out costs the history a point and the totals
//! nothing.
//!
//! Lock order: the lock of [`Metering`], then the registry's. Nobody waits for this lock from within the
//! registry.

mod look;
mod stored;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use meter::{Account, Bounds, History, Reading, Values};
use network::fast_path::FastPath;
use network::node::NodeNetwork;
use network::node::traffic::{self, TrafficTable};
use registry::{AccountEntry, VeRecord};
use ve::{State, VeId};

use crate::daemon::Up;

/// Time between two sweeps: the finest step of the history.
pub(crate) const INTERVAL: Duration = Duration::from_secs(10);
/// Sweeps from one storing of totals to the next. A power cut loses what was not stored; nothing else
/// does.
const SWEEPS_PER_STORING: u32 = 6;
/// A reading that is younger is recent enough for whoever asks: asking often costs no more.
const FRESH: Duration = Duration::from_secs(1);
/// How often the thread looks whether the node went down.
const LOOK: Duration = Duration::from_millis(500);
/// Name of the history's file below the node's root.
pub(crate) const HISTORY_FILE: &str = "history";

/// What is known of VEs and kept of it.
#[derive(Debug)]
pub(crate) struct Metering {
    inner: Mutex<Inner>,
    network: NodeNetwork,
    fast_path: Option<Arc<FastPath>>,
    boot_id: String,
    /// The node that this is a part of; set once it is up.
    up: OnceLock<Weak<Up>>,
}

#[derive(Debug)]
struct Inner {
    history: Option<History>,
    accounts: BTreeMap<VeId, Kept>,
    current: BTreeMap<VeId, Arc<Current>>,
    sweeps: u32,
    swept_ms: u64,
    /// How long VEs together had waited for disks when the last sweep began.
    waited: Option<u64>,
    /// Failures that were told, so that each is told once and not every ten seconds.
    told: BTreeMap<&'static str, String>,
}

/// The account of a VE and whose it is.
#[derive(Clone, Debug)]
struct Kept {
    created: u64,
    name: String,
    account: Account,
}

/// What a VE does now.
#[derive(Clone, Debug)]
pub(crate) struct Current {
    pub(crate) record: Arc<VeRecord>,
    pub(crate) reading: Reading,
    looked: look::Looked,
}

/// Milliseconds since boot, time asleep included. Goes on across daemons.
pub(crate) fn boot_milliseconds() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = now.tv_sec.unsigned_abs().saturating_mul(1_000);
    seconds.saturating_add(now.tv_nsec.unsigned_abs() / 1_000_000)
}

pub(crate) fn seconds_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}

/// When the init of a VE started, in milliseconds since boot: the kernel counts them in hundredths of a second.
fn started_ms(record: &VeRecord) -> Option<u64> {
    let run = record.run.as_ref()?;
    Some(run.start_time_ticks.saturating_mul(10))
}

impl Metering {
    /// Begins to meter the node at `root`. What cannot be had is told and done without.
    pub(crate) fn new(
        root: &Path,
        network: NodeNetwork,
        fast_path: Option<Arc<FastPath>>,
        boot_id: &str,
    ) -> Self {
        // Both count on together or begin at 0 together, so that a sum of them is never less than it was.
        let begun = match &fast_path {
            Some(path) if path.is_fresh() => traffic::begin(&network),
            _ => traffic::prepare(&network),
        };
        if let Err(error) = begun {
            let error = anyhow::Error::from(error);
            tracing::warn!("traffic of VEs is not counted by class: {error:#}");
        }
        let (first, last) = (*network.ids.start(), *network.ids.end());
        let history = match History::open(&root.join(HISTORY_FILE), first, last) {
            Ok((history, damaged)) => {
                if let Some(beside) = damaged {
                    let beside = beside.display();
                    tracing::warn!(
                        "the history of VEs was damaged; it was put aside as {beside}, and a new one begins"
                    );
                }
                Some(history)
            }
            Err(error) => {
                let error = anyhow::Error::from(error);
                tracing::warn!("there is no history of VEs: {error:#}");
                None
            }
        };
        Self {
            inner: Mutex::new(Inner {
                history,
                accounts: BTreeMap::new(),
                current: BTreeMap::new(),
                sweeps: 0,
                swept_ms: 0,
                waited: None,
                told: BTreeMap::new(),
            }),
            network,
            fast_path,
            boot_id: boot_id.to_owned(),
            up: OnceLock::new(),
        }
    }

    /// Goes on with the accounts that the registry has. Before anything of a VE ends.
    pub(crate) fn attach(&self, up: Weak<Up>) -> Result<()> {
        if let Some(up) = up.upgrade() {
            let mut inner = self.lock();
            for row in up.engine.registry().account_baselines()? {
                let Ok(id) = VeId::new(row.ve) else { continue };
                let account = match stored::baseline(&row.baseline) {
                    Ok(baseline) => Account::from_baseline(baseline),
                    Err(error) => {
                        tracing::warn!("the account of VE {id} begins anew: {error:#}");
                        Account::default()
                    }
                };
                let kept = Kept {
                    created: row.created,
                    name: row.name,
                    account,
                };
                inner.accounts.insert(id, kept);
            }
        }
        // Only the first call counts, and there is only one.
        let _ = self.up.set(up);
        Ok(())
    }

    /// Reads all VEs, adds to totals and history, and answers what each does now; nothing when it cannot be
    /// said which VEs there are.
    pub(crate) fn sweep(&self, up: &Up) -> Option<Vec<Arc<Current>>> {
        let mut inner = self.lock();
        let records = match up.engine.registry().ves_shared() {
            Ok(records) => records,
            Err(error) => {
                inner.tell("VEs cannot be read", Some(error.to_string()));
                return None;
            }
        };
        let table = self.traffic_told(&mut inner);
        let disk: BTreeMap<VeId, u64> = up
            .host
            .pool
            .private_usages()
            .unwrap_or_default()
            .into_iter()
            .collect();
        // Before any VE's own: what happens amid the sweep is seen by the next.
        let waited = up.host.groups.io_pressure_microseconds();
        let known = look::Known {
            traffic: table.as_ref(),
            disk: &disk,
            waiting: look::Waiting::between(inner.waited, waited),
        };
        let whole = records.iter().filter(|record| !record.stage.is_hidden());
        let mut seen = BTreeMap::new();
        for record in whole {
            let id = record.spec.id;
            let before = inner.current.get(&id).map(Arc::clone);
            let before = before.as_deref();
            let (reading, looked) = self.read(up, record, &known, before);
            inner.take(record, &reading);
            let values = meter::rate::between(before.map(|current| &current.reading), &reading);
            inner.remember(record, reading.time, &values);
            let current = Current {
                record: Arc::clone(record),
                reading,
                looked,
            };
            seen.insert(id, Arc::new(current));
        }
        let gone = inner.close(&seen, table.as_ref());
        inner.current = seen;
        inner.waited = waited;
        inner.swept_ms = boot_milliseconds();
        inner.sweeps = inner.sweeps.wrapping_add(1);
        if !gone.is_empty() || inner.sweeps.is_multiple_of(SWEEPS_PER_STORING) {
            inner.store(up, &gone);
        }
        Some(inner.current.values().cloned().collect())
    }

    /// What VEs do now, read anew if that was a while ago.
    pub(crate) fn current(&self, up: &Up) -> Vec<Arc<Current>> {
        let inner = self.lock();
        let age = boot_milliseconds().saturating_sub(inner.swept_ms);
        if u128::from(age) < FRESH.as_millis() {
            return inner.current.values().cloned().collect();
        }
        drop(inner);
        self.sweep(up).unwrap_or_default()
    }

    /// Adds what the group of a VE counted, and stores it: the group is about to be removed.
    pub(crate) fn group_ends(&self, groups: &cgroup::NodeGroup, id: VeId) {
        let Some(up) = self.up.get().and_then(Weak::upgrade) else {
            return;
        };
        // No sweep may read between this reading and its adding: what is older would count as anew.
        let mut inner = self.lock();
        let Some(usage) = self.usage(&groups.ve(id)) else {
            return;
        };
        let Ok(Some(record)) = up.engine.registry().ve(id) else {
            return;
        };
        let reading = Reading::new(
            boot_milliseconds(),
            seconds_now(),
            Some(usage),
            None,
            None,
            Bounds::of(&record.spec.limits),
        )
        .since(started_ms(&record));
        inner.take(&record, &reading);
        inner.store(&up, &[]);
    }

    /// Says that the group of a VE is gone.
    pub(crate) fn group_ended(&self, id: VeId) {
        if let Some(kept) = self.lock().accounts.get_mut(&id) {
            kept.account.end_of_group();
        }
    }

    /// Puts what was added on disk.
    pub(crate) fn store(&self, up: &Up) {
        self.lock().store(up, &[]);
    }

    /// Looks into the history of VEs, where there is one.
    pub(crate) fn with_history<T>(&self, look: impl FnOnce(&mut History) -> T) -> Option<T> {
        self.lock().history.as_mut().map(look)
    }

    /// What VEs exchanged. That it cannot be read is told when it begins and when it is over.
    fn traffic_told(&self, inner: &mut Inner) -> Option<TrafficTable> {
        let table = self.traffic();
        inner.tell(
            "traffic of VEs cannot be read",
            table.as_ref().err().map(|error| format!("{error:#}")),
        );
        let table = table.ok().flatten();
        if table.is_none() {
            // Somebody took it away, as reloading a firewall does.
            let made = traffic::prepare(&self.network);
            inner.tell(
                "traffic of VEs is not counted by class",
                made.err().map(|error| error.to_string()),
            );
        }
        table
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Adds a reading to the account of its VE, which may be another than the last with its number.
    fn take(&mut self, record: &VeRecord, reading: &Reading) {
        let (id, created) = (record.spec.id, record.spec.created);
        let fresh = |account| Kept {
            created,
            name: record.spec.name.to_string(),
            account,
        };
        let kept = self
            .accounts
            .entry(id)
            .or_insert_with(|| fresh(Account::default()));
        if kept.created != created {
            *kept = fresh(kept.account.successor());
        }
        kept.account.add(reading);
    }

    fn remember(&mut self, record: &VeRecord, time: u64, values: &Values) {
        let (id, created) = (record.spec.id, record.spec.created);
        let Some(history) = &mut self.history else {
            return;
        };
        let written = history.append(id, created, time, values);
        let failure = written.err().map(anyhow::Error::from);
        self.tell(
            "the history of VEs is not written",
            failure.map(|error| format!("{error:#}")),
        );
    }

    /// Adds the last traffic of VEs that are no more, and forgets what they did. Their numbers stay known:
    /// the packet filter counts on by number.
    fn close(
        &mut self,
        seen: &BTreeMap<VeId, Arc<Current>>,
        table: Option<&TrafficTable>,
    ) -> Vec<VeId> {
        let was: Vec<VeId> = self.current.keys().copied().collect();
        let gone: Vec<VeId> = was
            .into_iter()
            .filter(|id| !seen.contains_key(id))
            .collect();
        for id in &gone {
            if let (Some(kept), Some(table)) = (self.accounts.get_mut(id), table) {
                let traffic = table.ves.get(id).copied().unwrap_or_default();
                let filter = Some((table.epoch.as_str(), traffic));
                let reading = Reading::new(
                    boot_milliseconds(),
                    seconds_now(),
                    None,
                    filter,
                    None,
                    Bounds::default(),
                );
                kept.account.add(&reading);
            }
            let forgotten = self.history.as_mut().map(|history| history.forget(*id));
            if let Some(Err(error)) = forgotten {
                tracing::warn!("{:#}", anyhow::Error::from(error));
            }
        }
        gone
    }

    /// Stores totals. VEs that are no more have nothing to add any longer.
    fn store(&mut self, up: &Up, gone: &[VeId]) {
        let changed = self
            .accounts
            .iter()
            .filter(|(id, kept)| !kept.account.pending().is_empty() || gone.contains(id));
        let entries: Vec<AccountEntry> = changed
            .map(|(id, kept)| stored::entry(*id, kept.created, &kept.name, &kept.account))
            .collect();
        let stored = up.engine.registry().accounts_add(&entries);
        if stored.is_ok() {
            for entry in &entries {
                if let Some(kept) = self.accounts.get_mut(&entry.ve) {
                    kept.account.stored();
                }
            }
        }
        let failure = stored.err().map(anyhow::Error::from);
        self.tell(
            "totals of VEs are not stored; they are kept in memory",
            failure.map(|error| format!("{error:#}")),
        );
    }

    /// Tells a failure when it begins or changes, and its end.
    fn tell(&mut self, what: &'static str, failure: Option<String>) {
        match (self.told.get(what), failure) {
            (Some(before), Some(now)) if *before == now => {}
            (_, Some(now)) => {
                tracing::warn!("{what}: {now}");
                self.told.insert(what, now);
            }
            (Some(_), None) => {
                tracing::info!("no more: {what}");
                self.told.remove(what);
            }
            (None, None) => {}
        }
    }
}

/// Sweeps until the node goes down; each sweep is given to `each`.
pub(crate) fn run(
    up_if_prepared: impl Fn() -> Option<std::sync::Arc<Up>>,
    each: impl Fn(&Up, &[Arc<Current>]),
) {
    let mut next = boot_milliseconds();
    while let Some(up) = up_if_prepared() {
        let now = boot_milliseconds();
        if now >= next {
            if let Some(seen) = up.host.metering.sweep(&up) {
                each(&up, &seen);
            }
            // In step with the history, also after a sweep that took long.
            let interval = u64::try_from(INTERVAL.as_millis()).unwrap_or(u64::MAX);
            next = now - now % interval + interval;
        }
        drop(up);
        let left = Duration::from_millis(next.saturating_sub(boot_milliseconds()));
        std::thread::sleep(left.min(LOOK));
    }
}

/// Whether a VE needs somebody to look after it.
pub(crate) fn is_broken(record: &VeRecord) -> bool {
    record.state == State::Broken
}
