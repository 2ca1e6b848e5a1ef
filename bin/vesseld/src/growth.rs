//! Gives VEs memory beyond their limit when they are about to need it, and takes it back: as
//! `policy::growth` decides, on what the kernel tells (`cgroup::MemoryStrain`).
//!
//! ```text
//! kernel --event--> look --decision--> operation `grow` in the VE's lane --limits_apply--> note
//!                    ^--------------------- when the next look is due -----------------------+
//! ```
//!
//! A look reads one VE. Nobody is looked at who did not call, but for a VE whose settings are new, one that was
//! found running, one that may have to give back, and one that has all that it may have. So what a VE came to
//! need while no daemon ran is seen by the next one, and a node on which nothing grows costs nothing.
//!
//! What was given is in the VE's record, and not here. Where the kernel slows a VE down so that it is heard
//! (cgroup2), it does so while no daemon runs, too: the VE is not killed then, and waits.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cgroup::{MemoryStrain, Told, VeGroup};
use engine::{Fault, Request, VeRequest};
use policy::{GrowthRules, GrowthStep, Hindrance, Strain};
use registry::Event;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use ve::{Bytes, Limits, VeId};

use crate::daemon::Up;

/// Page cache that comes and goes calls all the time. Between two looks a VE can take no more than so much a
/// second of what it has left.
const TAKEN_PER_SECOND: u64 = 2 << 30;
/// Bounds of the time between two looks.
const SPACING_MIN: Duration = Duration::from_millis(5);
const SPACING_MAX: Duration = Duration::from_millis(200);
/// How long a step can take until it is made, and so far ahead the pace of who grows is looked.
const AHEAD: Duration = Duration::from_millis(100);
/// An older look says nothing about the pace.
const PACE_AGE_MAX: Duration = Duration::from_secs(1);
/// Who comes to use more than this from look to look is followed.
const RISE_MIN: u64 = 256 << 10;
/// How soon an operation is looked after that has not ended.
const ASKED_SPACING: Duration = Duration::from_millis(50);
/// How soon one that failed is asked for again.
const FAILED_SPACING: Duration = Duration::from_secs(5);
/// How often one is looked at that has all that it may have, until it was told that it needs more.
const CEILING_SPACING: Duration = Duration::from_secs(5);
/// Longest wait when nothing is due.
const IDLE: Duration = Duration::from_secs(60);

/// The VEs whose memory grows.
#[derive(Debug)]
pub(crate) struct Growth {
    ves: Mutex<BTreeMap<VeId, Watched>>,
    /// Written to when there is something new to look at.
    wake: OwnedFd,
}

#[derive(Debug)]
struct Watched {
    rules: GrowthRules,
    given: u64,
    /// Which life of the VE's group it is.
    life: Option<u64>,
    /// What tells of it; nothing until it was set up.
    strain: Option<Arc<MemoryStrain>>,
    stepped_at: Option<Instant>,
    needed_at: Instant,
    looked_at: Instant,
    /// What it used then that could not be taken back, and all that it used.
    in_use: u64,
    all: u64,
    /// From where the kernel was told to slow it down.
    slowed_from: Option<u64>,
    /// Least time between looks, by what it has left.
    spacing: Duration,
    stalls: bool,
    /// When it is to be looked at.
    due: Option<Instant>,
    /// The operation that was asked for last.
    asked: Option<i64>,
    /// Why it could not be given more, if that was told.
    told: Option<&'static str>,
}

impl Watched {
    fn new(rules: GrowthRules, given: u64, life: Option<u64>) -> Self {
        let now = Instant::now();
        Self {
            rules,
            given,
            life,
            strain: None,
            stepped_at: None,
            needed_at: now,
            looked_at: now,
            in_use: u64::MAX,
            all: 0,
            slowed_from: None,
            spacing: SPACING_MIN,
            stalls: false,
            due: Some(now),
            asked: None,
            told: None,
        }
    }

    /// From which use on the kernel slows it down on cgroup2, and tells, as long as it can be given more. That is
    /// the threshold, until more is used: either a step follows, or some of it is page cache, which may have
    /// half of what is left. While nobody can give it more it is not slowed.
    fn slow_from(&self) -> Option<u64> {
        let has = self.rules.limit + self.given;
        if has >= self.rules.ceiling || self.told.is_some() {
            return None;
        }
        let threshold = self.rules.threshold.of(has);
        // Taking page cache back leaves it a little below the mark.
        match self.all > threshold.saturating_sub(has / 64) {
            true => Some(u64::midpoint(threshold, has)),
            false => Some(threshold),
        }
    }

    /// Whether it uses more than when it was looked at last; of one that was not looked at of late nobody
    /// knows.
    fn rises(&self, in_use: u64, now: Instant) -> bool {
        let age = now.saturating_duration_since(self.looked_at);
        age > PACE_AGE_MAX || in_use > self.in_use.saturating_add(RISE_MIN)
    }

    /// What it will come to use beside this, at its present pace, before a step is made.
    fn ahead(&self, in_use: u64, now: Instant) -> u64 {
        let age = now.saturating_duration_since(self.looked_at);
        if age > PACE_AGE_MAX {
            return 0;
        }
        let more = u128::from(in_use.saturating_sub(self.in_use));
        let ahead = more * AHEAD.as_micros() / age.as_micros().max(1_000);
        u64::try_from(ahead).unwrap_or(u64::MAX)
    }

    fn look_soon(&mut self) {
        let soon = self.looked_at + self.spacing;
        self.due = Some(self.due.map_or(soon, |due| due.min(soon)));
    }
}

impl Growth {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self {
            ves: Mutex::default(),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    /// Takes note of the limits that a VE which runs has now.
    pub(crate) fn note(self: &Arc<Self>, group: &VeGroup, limits: &Limits) {
        let id = group.ve();
        let Some(rules) = GrowthRules::of(limits) else {
            if self.locked().remove(&id).is_some() {
                tell(id, group.slow_memory(None));
            }
            return;
        };
        let given = limits.memory_growth.given.map_or(0, Bytes::get);
        let life = group.identity();
        let mut ves = self.locked();
        let known = ves
            .get(&id)
            .is_some_and(|ve| ve.rules == rules && ve.life == life);
        if !known {
            ves.insert(id, Watched::new(rules, given, life));
        }
        let Some(ve) = ves.get_mut(&id) else { return };
        if ve.given != given {
            ve.given = given;
            ve.stepped_at = Some(Instant::now());
            ve.told = None;
        }
        // What was asked for last is made, if not yet recorded.
        ve.asked = None;
        ve.look_soon();
        let slow_from = ve.slow_from();
        ve.slowed_from = slow_from;
        drop(ves);
        tell(id, group.slow_memory(slow_from));
        if !known {
            self.listen(group.clone(), rules, life);
        }
        self.wake();
    }

    /// Forgets a VE whose groups are gone.
    pub(crate) fn forget(&self, id: VeId) {
        if self.locked().remove(&id).is_some() {
            self.wake();
        }
    }

    /// Sets up what tells of a VE: beside everything else, as it can last a second.
    fn listen(self: &Arc<Self>, group: VeGroup, rules: GrowthRules, life: Option<u64>) {
        let growth = Arc::clone(self);
        let work = move || {
            let strain = match group.memory_strain(&rules.marks()) {
                Ok(strain) => Arc::new(strain),
                Err(error) => return tell(group.ve(), Err(error)),
            };
            let mut ves = growth.locked();
            let same = |ve: &&mut Watched| ve.rules == rules && ve.life == life;
            if let Some(ve) = ves.get_mut(&group.ve()).filter(same) {
                ve.strain = Some(strain);
                // It may have passed a mark before that was told of.
                ve.due = Some(Instant::now());
            }
            drop(ves);
            growth.wake();
        };
        let spawned = std::thread::Builder::new()
            .name("listen".to_owned())
            .spawn(work);
        if let Err(error) = spawned {
            tracing::warn!("the memory of a VE does not grow: no thread: {error}");
        }
    }

    /// Looks at the VEs that are due, and says how long it may be until the next look.
    pub(crate) fn look(&self, up: &Up) -> Duration {
        let now = Instant::now();
        let due: Vec<VeId> = self
            .locked()
            .iter()
            .filter(|(_, ve)| ve.due.is_some_and(|due| due <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            self.look_at(up, id);
        }
        let ves = self.locked();
        let next = ves.values().filter_map(|ve| ve.due).min();
        next.map_or(IDLE, |due| due.saturating_duration_since(Instant::now()))
    }

    fn look_at(&self, up: &Up, id: VeId) {
        let group = up.host.groups.ve(id);
        let Ok((in_use, all)) = group.memory_in_use() else {
            // It ended. Its next group is noted anew.
            self.locked().remove(&id);
            return;
        };
        let mut ves = self.locked();
        let Some(ve) = ves.get_mut(&id) else { return };
        let now = Instant::now();
        let (ahead, rises) = (ve.ahead(in_use, now), ve.rises(in_use, now));
        (ve.looked_at, ve.in_use, ve.all) = (now, in_use, all);
        if ve
            .asked
            .is_some_and(|asked| up.engine.ticket(asked).is_some())
        {
            ve.due = Some(now + ASKED_SPACING);
            return;
        }
        let has = ve.rules.limit + ve.given;
        let since = |at: Instant| now.saturating_duration_since(at);
        let mut strain = Strain {
            given: ve.given,
            in_use,
            ahead,
            // Who waits while there is room waits for another's sake.
            stalls: std::mem::take(&mut ve.stalls) && all > ve.rules.threshold.of(has),
            since_step: ve.stepped_at.map_or(Duration::MAX, since),
            since_need: since(ve.needed_at),
            free: u64::MAX,
        };
        let rules = ve.rules;
        let mut decision = rules.decide(&strain);
        if let GrowthStep::Give(given) = decision.step {
            strain.free = free(up, given - ve.given);
            decision = rules.decide(&strain);
        }
        if decision.needs {
            ve.needed_at = now;
        } else {
            ve.told = None;
        }
        let slow_from = ve.slow_from();
        let is_slowed_so = std::mem::replace(&mut ve.slowed_from, slow_from) == slow_from;
        ve.spacing = spacing(has.saturating_sub(in_use));
        ve.due = decision.look_after.map(|after| now + after);
        if rises && ve.told.is_none() {
            // A mark counts page cache, so a use that has just passed it may be below it yet.
            let left = rules.threshold.of(has).saturating_sub(in_use);
            let follow = now + spacing(left);
            ve.due = Some(ve.due.map_or(follow, |due| due.min(follow)));
        }
        if has >= rules.ceiling && ve.told.is_none() {
            // At the ceiling no mark tells on cgroup2, as who passed it would wait for what nobody gives.
            let again = now + CEILING_SPACING;
            ve.due = Some(ve.due.map_or(again, |due| due.min(again)));
        }
        let told = ve.told;
        drop(ves);
        if !is_slowed_so {
            tell(id, group.slow_memory(slow_from));
        }
        match decision.step {
            GrowthStep::Keep => {}
            GrowthStep::Give(given) | GrowthStep::TakeBack(given) => {
                self.ask(up, id, given, cause(&strain, given));
            }
            GrowthStep::Refuse(hindrance) => self.refuse(up, id, told, &strain, has, hindrance),
        }
    }

    /// Asks for a step. It is noted when it was made.
    fn ask(&self, up: &Up, id: VeId, given: u64, cause: String) {
        let request = Request::Ve {
            reference: id.to_string(),
            request: VeRequest::Grow {
                given: Bytes::new(given),
                cause,
            },
        };
        let submitted = up.engine.submit(request);
        let mut ves = self.locked();
        let Some(ve) = ves.get_mut(&id) else { return };
        let again = match submitted {
            Ok(submitted) => {
                // It may be made already.
                ve.asked = (ve.given != given).then_some(submitted.operation);
                ASKED_SPACING
            }
            Err(failure) => {
                tracing::warn!("the memory of VE {id} cannot be changed: {failure}");
                FAILED_SPACING
            }
        };
        ve.due = Some(Instant::now() + again);
    }

    /// Tells once that a VE needs more and cannot have it.
    fn refuse(
        &self,
        up: &Up,
        id: VeId,
        told: Option<&'static str>,
        strain: &Strain,
        has: u64,
        hindrance: Hindrance,
    ) {
        let (word, why) = match hindrance {
            Hindrance::Ceiling => ("ceiling", "memory.grow.ceiling is reached".to_owned()),
            Hindrance::Node { free } => (
                "node",
                format!("{} is left on the node for VEs", readable(free)),
            ),
        };
        // Nobody would end its waiting.
        tell(id, up.host.groups.ve(id).slow_memory(None));
        if let Some(ve) = self.locked().get_mut(&id) {
            ve.told = Some(word);
            ve.slowed_from = None;
            // Others may give something back.
            if word == "node" {
                let again = Instant::now() + FAILED_SPACING;
                ve.due = Some(ve.due.map_or(again, |due| due.min(again)));
            }
        }
        let record = up.engine.registry().ve(id).ok().flatten();
        let (Some(record), true) = (record, told != Some(word)) else {
            return;
        };
        let uses = readable(strain.in_use);
        let event = Event {
            id: 0,
            at: 0,
            kind: "ve-memory-not-given".to_owned(),
            ve: Some(id.get()),
            subject: record.spec.name.to_string(),
            message: Some(format!("it uses {uses} of {}, and {why}", readable(has))),
        };
        if let Err(failure) = up.engine.announce(event) {
            tracing::warn!("VE {id} uses {uses}, and {why}; this cannot be recorded: {failure}");
        }
    }

    /// Waits until the kernel tells of a VE, or it is time for the next look.
    pub(crate) fn wait(&self, longest: Duration) {
        let strains: Vec<(VeId, Arc<MemoryStrain>)> = self
            .locked()
            .iter()
            .filter_map(|(id, ve)| Some((*id, Arc::clone(ve.strain.as_ref()?))))
            .collect();
        let mut events = vec![PollFd::new(&self.wake, PollFlags::IN)];
        let mut places = Vec::new();
        for (id, strain) in &strains {
            for (place, (descriptor, flags)) in strain.descriptors().enumerate() {
                events.push(PollFd::new(descriptor, flags));
                places.push((*id, strain, place));
            }
        }
        let timeout = Timespec {
            tv_sec: i64::try_from(longest.as_secs()).unwrap_or(60),
            tv_nsec: i64::from(longest.subsec_nanos()),
        };
        // Interrupted or not: a look too many does no harm.
        let _ = poll(&mut events, Some(&timeout));
        let ready: Vec<bool> = events
            .iter()
            .map(|event| !event.revents().is_empty())
            .collect();
        if ready.first() == Some(&true) {
            let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        }
        let told = places.into_iter().zip(ready.into_iter().skip(1));
        for ((id, strain, place), _) in told.filter(|(_, ready)| *ready) {
            let told = strain.take(place);
            if let Some(ve) = self.locked().get_mut(&id) {
                ve.stalls |= told == Some(Told::Stall);
                ve.look_soon();
            }
        }
    }

    /// Ends a wait.
    pub(crate) fn wake(&self) {
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<VeId, Watched>> {
        self.ves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long what is left lasts at least.
fn spacing(left: u64) -> Duration {
    let lasts = u128::from(left) * 1_000_000 / u128::from(TAKEN_PER_SECOND);
    let lasts = Duration::from_micros(u64::try_from(lasts).unwrap_or(u64::MAX));
    lasts.clamp(SPACING_MIN, SPACING_MAX)
}

/// What of the memory for VEs nobody uses and nobody is guaranteed. Page cache of others is counted as free
/// when so much is `wanted` that there is no other: reading it takes longer.
fn free(up: &Up, wanted: u64) -> u64 {
    let for_ves = up.engine.capacity().memory_for_ves().get();
    let holdings = up.engine.holdings();
    let running: Vec<_> = holdings
        .iter()
        .filter(|(_, holding)| holding.runs)
        .collect();
    let left = |used: &dyn Fn(&VeGroup) -> u64| {
        let taken = running.iter().map(|(id, holding)| {
            let guaranteed = holding.limits.memory_guarantee.map_or(0, Bytes::get);
            used(&up.host.groups.ve(**id)).max(guaranteed)
        });
        for_ves.saturating_sub(taken.fold(0, u64::saturating_add))
    };
    match left(&|group| group.memory_usage().unwrap_or(0)) {
        free if free >= wanted => free,
        _ => left(&|group| group.memory_in_use().map_or(0, |(in_use, _)| in_use)),
    }
}

fn cause(strain: &Strain, given: u64) -> String {
    let uses = readable(strain.in_use);
    if given < strain.given {
        format!("it uses {uses}")
    } else if strain.stalls {
        format!("its processes wait for memory, of which it uses {uses}")
    } else {
        format!("it uses {uses} that cannot be taken back")
    }
}

/// A size to a mebibyte.
fn readable(bytes: u64) -> String {
    Bytes::new(bytes >> 20 << 20).to_string()
}

fn tell(id: VeId, outcome: Result<(), cgroup::UsageError>) {
    if let Err(error) = outcome {
        tracing::warn!(
            "the memory of VE {id} does not grow as it should: {}",
            Fault::from_error(&error).message
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_slowed_at_the_threshold_and_page_cache_beyond() {
        let limits = Limits {
            memory: Some(Bytes::new(64 << 20)),
            ..Limits::default()
        };
        let mut rules = Limits { ..limits };
        rules.memory_growth.ceiling = Some(Bytes::new(128 << 20));
        let rules = GrowthRules::of(&rules).unwrap();
        let mut ve = Watched::new(rules, 0, None);
        let threshold = rules.threshold.of(64 << 20);
        assert_eq!(ve.slow_from(), Some(threshold));
        // Just below it, where the kernel leaves who has page cache.
        ve.all = threshold - (512 << 10);
        let middle = u64::midpoint(threshold, 64 << 20);
        assert_eq!(ve.slow_from(), Some(middle));
        ve.told = Some("node");
        assert_eq!(ve.slow_from(), None);
        ve.told = None;
        ve.given = 64 << 20;
        assert_eq!(ve.slow_from(), None, "at the ceiling");
    }
}
