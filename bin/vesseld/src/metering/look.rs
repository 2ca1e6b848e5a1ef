//! Reading what one VE uses.
//!
//! A dozen files tell what a VE uses, 100 us in all; a thousand VEs, nearly all of which sleep, would take more than one
//! percent of a processor. So a VE in which nothing went on since it was last looked at ([`cgroup::Motion`]) is not looked
//! at again, and its counters, which have not moved, count on from where they are. What can change without it is its
//! memory, when the node takes page cache back: so everybody's is read once in [`LOOK_SLOTS`] sweeps, that of a part
//! of them in each.

use std::collections::BTreeMap;

use anyhow::Result;
use cgroup::{Motion, Usage, VeGroup};
use meter::{Bounds, Reading};
use network::node::traffic::{self, Traffic, TrafficTable};
use registry::VeRecord;
use ve::VeId;

use super::{Current, INTERVAL, Metering, boot_milliseconds, seconds_now, started_ms};
use crate::daemon::Up;

/// Sweeps in which each VE is looked at at least once: a minute.
const LOOK_SLOTS: u64 = 6;

/// What is read for all VEs at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known<'a> {
    pub(super) traffic: Option<&'a TrafficTable>,
    pub(super) disk: &'a BTreeMap<VeId, u64>,
    pub(super) waiting: Waiting,
}

/// Whether processes of VEs waited for a disk since the sweep before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiting {
    /// Of some, or that is not known.
    Somebody,
    /// Of none.
    Nobody,
}

impl Waiting {
    /// By what all VEs waited together, then and now.
    pub(super) fn between(before: Option<u64>, now: Option<u64>) -> Self {
        match (before, now) {
            (Some(before), Some(now)) if before == now => Self::Nobody,
            _ => Self::Somebody,
        }
    }
}

/// When and in what motion a VE was looked at last.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Looked {
    /// Read before everything else, so that what went on meanwhile is seen the next time.
    motion: Option<Motion>,
    at_ms: u64,
}

impl Looked {
    /// Whether the memory of a VE has to be read again that is at rest.
    fn is_old(self, id: VeId, now_ms: u64) -> bool {
        let slot_ms = u64::try_from(INTERVAL.as_millis()).unwrap_or(u64::MAX);
        let (then, now) = (self.at_ms / slot_ms, now_ms / slot_ms);
        let turn = then != now && now % LOOK_SLOTS == u64::from(id.get()) % LOOK_SLOTS;
        turn || now.saturating_sub(then) >= LOOK_SLOTS
    }
}

impl Metering {
    /// What VEs exchanged, by the slow path and the fast one.
    pub(super) fn traffic(&self) -> Result<Option<TrafficTable>> {
        let mut table = traffic::read(&self.network)?;
        if let (Some(table), Some(fast_path)) = (&mut table, &self.fast_path) {
            for (id, passed) in fast_path.passed()? {
                table.ves.entry(id).or_default().add(&passed.traffic);
            }
        }
        Ok(table)
    }

    /// Reads what a VE uses, of which `before` is what the last sweep knows.
    pub(super) fn read(
        &self,
        up: &Up,
        record: &VeRecord,
        known: &Known<'_>,
        before: Option<&Current>,
    ) -> (Reading, Looked) {
        let id = record.spec.id;
        let (usage, looked) = match record.state.has_processes() {
            true => self.look(&up.host.groups.ve(id), known.waiting, before),
            false => (None, Looked::default()),
        };
        let table = known.traffic;
        let disk_bytes = known.disk.get(&id).copied();
        let filter = table.map(|table| {
            let traffic: Traffic = table.ves.get(&id).copied().unwrap_or_default();
            (table.epoch.as_str(), traffic)
        });
        let bounds = Bounds::of(&record.spec.limits);
        let now = (boot_milliseconds(), seconds_now());
        let reading = Reading::new(now.0, now.1, usage, filter, disk_bytes, bounds);
        (reading.since(started_ms(record)), looked)
    }

    /// What a VE's group counts: what it did before, if nothing went on in it since.
    fn look(
        &self,
        group: &VeGroup,
        waiting: Waiting,
        before: Option<&Current>,
    ) -> (Option<(String, Usage)>, Looked) {
        let motion_before = before.and_then(|before| before.looked.motion);
        let motion = match (waiting, motion_before) {
            (Waiting::Nobody, Some(motion)) => group.motion_without_waiting(motion),
            _ => group.motion(),
        };
        let now = Looked {
            motion: motion.ok(),
            at_ms: boot_milliseconds(),
        };
        if let Some(before) = before
            && let (Some(run), Some(usage)) = (&before.reading.run, before.reading.usage)
            && now.motion.is_some()
            && now.motion == motion_before
            && self.run(group).as_ref() == Some(run)
        {
            if !before.looked.is_old(group.ve(), now.at_ms) {
                return (Some((run.clone(), usage)), before.looked);
            }
            if let Ok(usage) = group.usage_at_rest(usage) {
                return (Some((run.clone(), usage)), now);
            }
        }
        (self.usage(group), now)
    }

    /// What a VE's group counts, and which life of the group it is; nothing when that changed meanwhile.
    pub(super) fn usage(&self, group: &VeGroup) -> Option<(String, Usage)> {
        let run = self.run(group)?;
        let usage = group.usage().ok()?;
        (self.run(group).as_ref() == Some(&run)).then_some((run, usage))
    }

    /// The word for this life of a VE's group, in this boot.
    fn run(&self, group: &VeGroup) -> Option<String> {
        Some(format!("{}:{}", self.boot_id, group.identity()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_looked_at_once_a_minute_and_not_all_at_once() {
        let slot_ms = 10_000;
        for start in 0..LOOK_SLOTS {
            let mut looks = [0; 12];
            for number in 100..112_u32 {
                let id = VeId::new(number).unwrap();
                let mut looked = Looked {
                    motion: None,
                    at_ms: start * slot_ms,
                };
                let mut last = start;
                for sweep in start + 1..=start + 4 * LOOK_SLOTS {
                    let now_ms = sweep * slot_ms + 37;
                    if looked.is_old(id, now_ms) {
                        looked.at_ms = now_ms;
                        assert!(sweep - last <= LOOK_SLOTS);
                        last = sweep;
                        looks[usize::try_from(number - 100).unwrap()] += 1;
                    }
                    assert!(!looked.is_old(id, now_ms + 9), "twice in one sweep");
                }
            }
            assert!(
                looks.iter().all(|looks| (4..=5).contains(looks)),
                "{looks:?}"
            );
        }
    }

    #[test]
    fn nobody_waits_only_where_that_is_told() {
        assert_eq!(Waiting::between(Some(5), Some(5)), Waiting::Nobody);
        for (before, now) in [(Some(5), Some(6)), (None, Some(5)), (None, None)] {
            assert_eq!(Waiting::between(before, now), Waiting::Somebody);
        }
    }

    #[test]
    fn a_turn_that_was_missed_is_made_up_for() {
        let looked = Looked {
            motion: None,
            at_ms: 5,
        };
        assert!(looked.is_old(VeId::new(101).unwrap(), 60_000));
        assert!(looked.is_old(VeId::new(103).unwrap(), 80_000));
    }
}
