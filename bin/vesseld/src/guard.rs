//! Keeps the memory of VEs as it was promised: holds back who has more than its guarantee when it gets
//! short, and ends bursts; lets go when there is room again. `policy::divide_memory` decides.
//!
//! It is driven by the kernel where that tells (cgroup v1), and looks every second otherwise; ten times
//! a second while less than half is free. A node whose VEs have neither guarantees that the kernel
//! does not keep by itself nor bursts costs nothing.
//!
//! What it wrote stays while no daemon runs: a new one begins where the old one ended.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cgroup::{NodeGroup, Protection, Refusal, VeGroup};
use engine::Fault;
use policy::{Before, MemoryClaim, MemoryDivision, Reach, Room, divide_memory};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::process::setpriority_process;
use rustix::thread::gettid;
use ve::{Bytes, Limits, VeId};

/// Between two looks while growth is watched: a VE fills some hundred megabytes meanwhile.
const INTERVAL_WATCHED: Duration = Duration::from_millis(100);
/// The same when some grew beyond what they were to have.
const INTERVAL_BEHIND: Duration = Duration::from_millis(10);
/// Between two looks otherwise. Reading what 100 VEs use takes a millisecond.
const INTERVAL: Duration = Duration::from_secs(1);
/// Between two looks at a node that needs none.
const INTERVAL_IDLE: Duration = Duration::from_secs(60);
/// Smaller changes than this part of a cap are not worth a write.
const CHANGE_PARTS: u64 = 256;
/// A VE gives back so much, and such a part, at a time: it cannot be let go meanwhile.
const SHRINK_MIN: u64 = 4 << 20;
const SHRINK_PARTS: u64 = 32;
/// The kernel tells of every such part that VEs come to use.
const WATCHED_PARTS: u64 = 16;
/// How often a VE is caught up with that grows while it is held, and by how much in the first attempt;
/// each doubles it.
const ATTEMPTS: u32 = 8;
const CATCH_UP: u64 = 256 << 10;

/// The guard of one node.
#[derive(Debug)]
pub(crate) struct Guard {
    ves: Mutex<BTreeMap<VeId, Arc<Mutex<Watched>>>>,
    state: Mutex<State>,
    /// Written to when there is something new to look at.
    wake: OwnedFd,
    /// Whether somebody takes memory back from VEs.
    shrinks: AtomicBool,
}

/// A VE that has groups.
#[derive(Debug)]
struct Watched {
    limits: Limits,
    /// What bounds its memory now: unknown in a VE that an earlier daemon started.
    cap: Option<Option<u64>>,
}

#[derive(Debug, Default)]
struct State {
    for_ves: u64,
    guaranteed: u64,
    room: Room,
    /// When growth had to be watched last.
    tight_at: Option<Instant>,
    /// What tells when VEs together use more than another part of so much.
    watch: Option<(u64, OwnedFd)>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a VE may use at most, whatever is free.
pub(crate) fn most(limits: &Limits) -> Option<u64> {
    let burst = limits.memory_burst.map_or(0, Bytes::get);
    Some(limits.memory_now()?.get().saturating_add(burst))
}

/// Lets the calling thread go before others: it is most needed when everybody wants the processors.
/// In the kernel priorities are each thread's own (setpriority(2), "C library/kernel differences").
pub(crate) fn hurry() {
    const NICE: i32 = -10;
    if let Err(errno) = setpriority_process(Some(gettid()), NICE) {
        tracing::debug!("the guard of memory waits its turn as others do: {errno}");
    }
}

impl Guard {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self {
            ves: Mutex::default(),
            state: Mutex::default(),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            shrinks: AtomicBool::new(false),
        })
    }

    /// Puts limits on a VE's groups with `write`, while nobody else changes its memory.
    pub(crate) fn apply(
        &self,
        id: VeId,
        limits: &Limits,
        write: impl FnOnce() -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let watched = self.watched(id, limits);
        let mut watched = locked(&watched);
        // Whether it is written or not, what bounds it is not what it was.
        watched.cap = None;
        write()?;
        watched.limits = limits.clone();
        watched.cap = Some(most(limits));
        drop(watched);
        self.wake();
        Ok(())
    }

    /// Takes a VE over that an earlier daemon started.
    pub(crate) fn adopt(&self, id: VeId, limits: &Limits) {
        self.watched(id, limits);
        self.wake();
    }

    /// What is known of a VE; with these limits and an unknown bound, if that is nothing yet.
    fn watched(&self, id: VeId, limits: &Limits) -> Arc<Mutex<Watched>> {
        let new = || {
            Arc::new(Mutex::new(Watched {
                limits: limits.clone(),
                cap: None,
            }))
        };
        Arc::clone(locked(&self.ves).entry(id).or_insert_with(new))
    }

    /// Forgets a VE whose groups are gone.
    pub(crate) fn forget(&self, id: VeId) {
        locked(&self.ves).remove(&id);
        self.wake();
    }

    /// What bounds a VE's memory now, as far as it is known.
    pub(crate) fn cap(&self, id: VeId) -> Option<Option<u64>> {
        let watched = locked(&self.ves).get(&id).map(Arc::clone)?;
        locked(&watched).cap
    }

    /// Bounds what all VEs use together, and has it protected as far as the kernel can.
    pub(crate) fn divide(
        &self,
        groups: &NodeGroup,
        for_ves: u64,
        guaranteed: u64,
    ) -> Result<(), Refusal> {
        let mut state = locked(&self.state);
        if (state.for_ves, state.guaranteed) == (for_ves, guaranteed) {
            return Ok(());
        }
        groups.divide_memory(for_ves, guaranteed)?;
        (state.for_ves, state.guaranteed) = (for_ves, guaranteed);
        drop(state);
        self.wake();
        Ok(())
    }

    /// Looks once, and says how long it may be until the next look.
    pub(crate) fn look(self: &Arc<Self>, groups: &NodeGroup) -> Duration {
        let all: Vec<_> = locked(&self.ves)
            .iter()
            .map(|(id, ve)| (*id, Arc::clone(ve)))
            .collect();
        let reach = match groups.memory_protection() {
            Protection::Nobody => Reach::All,
            Protection::Kernel | Protection::KernelExcept(_) => Reach::Bursts,
            Protection::Missing => return INTERVAL_IDLE,
        };
        let mut claims = BTreeMap::new();
        let mut needed = false;
        for (id, watched) in &all {
            let limits = locked(watched).limits.clone();
            needed |= limits.memory_burst.is_some();
            needed |= reach == Reach::All && limits.memory_guarantee.is_some();
            // One without groups has just ended.
            let Ok(used) = groups.ve(*id).memory_usage() else {
                continue;
            };
            let claim = MemoryClaim {
                used,
                guarantee: limits.memory_guarantee.map_or(0, Bytes::get),
                limit: limits.memory_now().map(Bytes::get),
                burst: limits.memory_burst.map_or(0, Bytes::get),
            };
            claims.insert(*id, claim);
        }
        let mut state = locked(&self.state);
        let ample = state.room == Room::Ample;
        if state.for_ves == 0 || (!needed && ample) {
            state.watch = None;
            return INTERVAL_IDLE;
        }
        watch(&mut state, groups);
        // Where nobody is promised anything any more, nobody is held back.
        let for_ves = if needed { state.for_ves } else { u64::MAX };
        let now = Instant::now();
        let calm = |tight_at| now.saturating_duration_since(tight_at);
        let before = Before {
            room: state.room,
            calm: state.tight_at.map_or(Duration::MAX, calm),
        };
        let division = divide_memory(for_ves, before, reach, &claims);
        if division.is_tight {
            state.tight_at = Some(now);
        }
        if (division.room == Room::Short) != (state.room == Room::Short) {
            let word = match division.room {
                Room::Short => "is short",
                _ => "is there again",
            };
            tracing::info!(
                "memory for VEs {word}: {} of {} are free",
                free(&state, &claims),
                state.for_ves
            );
        }
        state.room = division.room;
        drop(state);
        let capped = cap(groups, &all, &claims, &division);
        self.shrink(groups, capped.to_shrink);
        match division.room {
            Room::Ample => INTERVAL,
            _ if capped.ran_ahead => INTERVAL_BEHIND,
            _ => INTERVAL_WATCHED,
        }
    }

    /// Takes memory back, beside everything else: writing page cache to a busy disk can last seconds.
    fn shrink(self: &Arc<Self>, groups: &NodeGroup, list: Vec<Shrinking>) {
        if list.is_empty() || self.shrinks.swap(true, Ordering::Acquire) {
            return;
        }
        let (guard, groups) = (Arc::clone(self), groups.clone());
        let work = move || {
            for ve in list {
                let mut watched = locked(&ve.watched);
                // What cannot be taken back now can perhaps be later; it is kept from growing.
                if groups.ve(ve.id).cap_memory(ve.cap).is_ok() {
                    watched.cap = Some(ve.cap);
                }
            }
            guard.shrinks.store(false, Ordering::Release);
        };
        let spawned = std::thread::Builder::new()
            .name("shrink".to_owned())
            .spawn(work);
        if spawned.is_err() {
            self.shrinks.store(false, Ordering::Release);
        }
    }

    /// Waits until it is time for the next look.
    pub(crate) fn wait(&self, longest: Duration) {
        let watch = {
            let state = locked(&self.state);
            let told = state.watch.as_ref();
            told.and_then(|(_, event)| event.try_clone().ok())
        };
        let mut events = vec![PollFd::new(&self.wake, PollFlags::IN)];
        events.extend(
            watch
                .as_ref()
                .map(|watch| PollFd::new(watch, PollFlags::IN)),
        );
        let timeout = Timespec {
            tv_sec: i64::try_from(longest.as_secs()).unwrap_or(60),
            tv_nsec: i64::from(longest.subsec_nanos()),
        };
        // Interrupted or not: a look too many does no harm.
        let _ = poll(&mut events, Some(&timeout));
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.wake, &mut count);
        if let Some(watch) = &watch {
            let _ = rustix::io::read(watch, &mut count);
        }
    }

    /// Ends a wait.
    pub(crate) fn wake(&self) {
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

fn free(state: &State, claims: &BTreeMap<VeId, MemoryClaim>) -> u64 {
    let taken = claims
        .values()
        .map(|claim| claim.used.max(claim.guarantee))
        .sum();
    state.for_ves.saturating_sub(taken)
}

/// Has the kernel tell when VEs come to use another part of all, where it does.
///
/// All parts are named beforehand: naming one takes a grace period of RCU, ten milliseconds, and more than
/// a second when every processor is busy taking memory.
fn watch(state: &mut State, groups: &NodeGroup) {
    let all = state.for_ves;
    if state
        .watch
        .as_ref()
        .is_some_and(|(watched, _)| *watched == all)
    {
        return;
    }
    let parts: Vec<u64> = (1..=WATCHED_PARTS)
        .map(|part| all / WATCHED_PARTS * part)
        .collect();
    let watch = groups.memory_watch(&parts).unwrap_or_else(|error| {
        tracing::warn!(
            "memory is only looked at every now and then: {}",
            Fault::from_error(&error).message
        );
        None
    });
    state.watch = watch.map(|event| (all, event));
}

/// A VE that has to give back.
struct Shrinking {
    id: VeId,
    watched: Arc<Mutex<Watched>>,
    cap: Option<u64>,
}

/// What holding VEs back came to.
struct Capped {
    /// Those that have to give back, and are kept from growing so far.
    to_shrink: Vec<Shrinking>,
    /// Whether some grew beyond what they were to have meanwhile.
    ran_ahead: bool,
}

/// Holds VEs back, or lets them go: first those that lose something, and the others only if that could be
/// done, so that all of them together are always bounded.
fn cap(
    groups: &NodeGroup,
    all: &[(VeId, Arc<Mutex<Watched>>)],
    claims: &BTreeMap<VeId, MemoryClaim>,
    division: &MemoryDivision,
) -> Capped {
    let mut capped = Capped {
        to_shrink: Vec::new(),
        ran_ahead: false,
    };
    let mut to_raise = Vec::new();
    for (id, watched) in all {
        let (Some(wanted), Some(claim)) = (division.caps.get(id), claims.get(id)) else {
            continue;
        };
        // Whoever has it writes to its groups, as it gives back or its settings change.
        let Ok(mut watched_now) = watched.try_lock() else {
            continue;
        };
        // Its settings changed since it was looked at: the next look is on its way.
        if watched_now.differs(claim) || watched_now.fits(*wanted, division.room) {
            continue;
        }
        if watched_now.cap.is_some_and(|cap| is_more(*wanted, cap)) {
            to_raise.push((id, watched, *wanted));
            continue;
        }
        let held = brake(&groups.ve(*id), &mut watched_now, *wanted);
        let beyond = wanted.map_or(0, |wanted| held.unwrap_or(u64::MAX).saturating_sub(wanted));
        if beyond > 0 {
            let step = claim.used / SHRINK_PARTS + SHRINK_MIN;
            capped.ran_ahead |= beyond > step;
            capped.to_shrink.push(Shrinking {
                id: *id,
                watched: Arc::clone(watched),
                cap: wanted.map(|wanted| wanted.max(claim.used.saturating_sub(step))),
            });
        }
    }
    for (id, watched, wanted) in to_raise {
        let guaranteed = claims.get(id).map_or(0, |claim| claim.guarantee);
        let Ok(mut watched) = watched.try_lock() else {
            continue;
        };
        let owed = watched.cap.flatten().is_some_and(|cap| cap < guaranteed);
        if owed || !capped.ran_ahead {
            watched.cap = groups.ve(*id).cap_memory(wanted).ok().map(|()| wanted);
        }
    }
    capped
}

/// Keeps a VE from growing beyond `wanted`, or beyond what it has, if that is more; it gives nothing back
/// yet. Returns its bound.
fn brake(group: &VeGroup, watched: &mut Watched, wanted: Option<u64>) -> Option<u64> {
    let most = most(&watched.limits);
    for attempt in 0..ATTEMPTS {
        let Ok(used) = group.memory_usage() else {
            // Gone: the next look does not find it.
            return wanted;
        };
        // It grows until this is written.
        let held = wanted.map(|wanted| wanted.max(used + (CATCH_UP << attempt)));
        let held = held.map(|held| most.map_or(held, |most| most.min(held)));
        if group.cap_memory(held).is_ok() {
            watched.cap = Some(held);
            return held;
        }
    }
    watched.cap = None;
    None
}

impl Watched {
    fn differs(&self, claim: &MemoryClaim) -> bool {
        let guarantee = self.limits.memory_guarantee.map_or(0, Bytes::get);
        self.limits.memory_now().map(Bytes::get) != claim.limit || guarantee != claim.guarantee
    }

    /// Whether its bound is as good as another. Being let go is exact.
    fn fits(&self, wanted: Option<u64>, room: Room) -> bool {
        self.cap
            .is_some_and(|cap| cap == wanted || (room > Room::Ample && is_near(cap, wanted)))
    }
}

/// Whether a bound is looser than another.
fn is_more(bound: Option<u64>, other: Option<u64>) -> bool {
    bound.unwrap_or(u64::MAX) > other.unwrap_or(u64::MAX)
}

/// Whether a cap is as good as another.
fn is_near(cap: Option<u64>, wanted: Option<u64>) -> bool {
    match (cap, wanted) {
        (Some(cap), Some(wanted)) => cap.abs_diff(wanted) <= wanted / CHANGE_PARTS,
        (cap, wanted) => cap == wanted,
    }
}
