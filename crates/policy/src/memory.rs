//! Which VEs are held back when memory gets short, so that guarantees and bursts hold.
//!
//! As long as there is room, everybody has what their settings say, bursts included. Where the kernel knows
//! no guarantee (cgroup v1), growth is rationed from the moment on at which less than half is free:
//! each VE may have what it uses and a part of what is left, and all parts together never reach what somebody
//! is guaranteed and does not use yet. So between two looks nobody can take another's guarantee, however fast
//! they grow; a VE that meets its ration loses its own page cache first, and then its own processes.
//!
//! When hardly anything is left, whoever uses more than it is guaranteed gives back: what nobody is guaranteed
//! is divided evenly among those who use it, those who use little keep what they have, and bursts end.
//!
//! On cgroup2 the kernel protects what is guaranteed by itself, and only bursts are ended here.

use std::collections::BTreeMap;
use std::time::Duration;

use ve::VeId;

/// A running VE, as this division sees it. All in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryClaim {
    /// What it uses, page cache included.
    pub used: u64,
    /// What it keeps whatever others do.
    pub guarantee: u64,
    /// What it gets at most while memory is short; `None` is no limit.
    pub limit: Option<u64>,
    /// What it may use beyond the limit otherwise.
    pub burst: u64,
}

/// Who has to be held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All: the kernel knows no guarantee.
    All,
    /// Those that burst: the kernel protects what is guaranteed.
    Bursts,
}

/// How much memory is left for VEs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    /// Enough for anybody.
    #[default]
    Ample,
    /// So much that growth has to be watched.
    Watched,
    /// Hardly any.
    Short,
}

/// How the memory is divided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryDivision {
    /// How much is left.
    pub room: Room,
    /// Whether growth has to be watched now and for a while.
    pub is_tight: bool,
    /// What each VE may use until the next look; `None` is no bound.
    pub caps: BTreeMap<VeId, Option<u64>>,
}

/// What went before a division.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Before {
    /// What the last division found.
    pub room: Room,
    /// How long [`MemoryDivision::is_tight`] has not been so.
    pub calm: Duration,
}

/// What is left when it is short: a sixteenth of all, within bounds. Twice as much for it to be over.
const SHORT_PARTS: u64 = 16;
const SHORT_MIN: u64 = 32 << 20;
const SHORT_MAX: u64 = 2 << 30;
/// Growth is watched below a half. Until somebody looks, VEs can take some gigabytes a second, for some
/// hundredths of a second.
const WATCHED_PARTS: u64 = 2;
/// So many VEs may grow at once as if they were alone, while it is only watched.
const WATCHED_GROWING: u64 = 8;
/// So long growth is watched at least: who lost everything at their ration begins anew at once.
const CALM_MIN: Duration = Duration::from_secs(10);
/// Below this no VE is ever held: its init would be killed.
const CAP_MIN: u64 = 4 << 20;
/// The kernel counts in pages, the largest of which are of this size.
const PAGE_MAX: u64 = 64 << 10;

/// Divides the memory that there is `for_ves`. What went before keeps small changes from turning things on
/// and off.
#[must_use]
pub fn divide_memory(
    for_ves: u64,
    before: Before,
    reach: Reach,
    claims: &BTreeMap<VeId, MemoryClaim>,
) -> MemoryDivision {
    let state = Sums::of(for_ves, claims);
    let room = state.room(before);
    let most = |claim: &MemoryClaim| {
        let burst = if room == Room::Short { 0 } else { claim.burst };
        Some(claim.limit?.saturating_add(burst))
    };
    let rations = (reach == Reach::All && room > Room::Ample).then(|| state.rations(room, claims));
    let cap = |id: &VeId, claim: &MemoryClaim| {
        let most = most(claim);
        match rations.as_ref().and_then(|rations| rations.get(id)) {
            None => most,
            Some(ration) => Some(most.unwrap_or(*ration).min(*ration)),
        }
    };
    MemoryDivision {
        room,
        is_tight: state.free() < state.watched(),
        caps: claims
            .iter()
            .map(|(id, claim)| (*id, cap(id, claim)))
            .collect(),
    }
}

/// What all VEs use and are owed together.
struct Sums {
    for_ves: u64,
    used: u64,
    /// What is guaranteed and not used yet, which is as good as used.
    owed: u64,
    guaranteed: u64,
}

impl Sums {
    fn of(for_ves: u64, claims: &BTreeMap<VeId, MemoryClaim>) -> Self {
        let sum =
            |of: &dyn Fn(&MemoryClaim) -> u64| claims.values().map(of).fold(0, u64::saturating_add);
        Self {
            for_ves,
            used: sum(&|claim| claim.used),
            owed: sum(&|claim| claim.guarantee.saturating_sub(claim.used)),
            guaranteed: sum(&|claim| claim.guarantee),
        }
    }

    fn free(&self) -> u64 {
        self.for_ves
            .saturating_sub(self.used)
            .saturating_sub(self.owed)
    }

    fn short(&self) -> u64 {
        (self.for_ves / SHORT_PARTS)
            .clamp(SHORT_MIN, SHORT_MAX)
            .min(self.for_ves)
    }

    fn watched(&self) -> u64 {
        (self.for_ves / WATCHED_PARTS).max(self.short() * 2)
    }

    fn room(&self, before: Before) -> Room {
        let (free, short) = (self.free(), self.short());
        let was_short = before.room == Room::Short;
        let watched = before.room > Room::Ample && before.calm < CALM_MIN;
        if free < short || was_short && free < short * 2 {
            Room::Short
        } else if free < self.watched() || watched {
            Room::Watched
        } else {
            Room::Ample
        }
    }

    /// What each VE may use until the next look, such that all of them together cannot use more than there
    /// is, less what is owed. While it is not yet short, a few may grow faster than that: not all do so at
    /// once, and a small VE that starts something large must not be killed for it.
    fn rations(&self, room: Room, claims: &BTreeMap<VeId, MemoryClaim>) -> BTreeMap<VeId, u64> {
        let unpromised = self.for_ves.saturating_sub(self.guaranteed);
        let kept = self.short().min(unpromised / 2);
        let divided = unpromised - kept;
        let over = |claim: &MemoryClaim| claim.used.saturating_sub(claim.guarantee);
        let level = even_part(divided, claims.values().map(over).collect());
        let wanted = claims.values().map(over).fold(0, u64::saturating_add);
        // Of what is kept, half is for those who use little while others hold too much.
        let spare = divided.saturating_sub(wanted).saturating_add(kept / 2);
        let spare = spare.min(self.free().saturating_sub(kept / 4));
        let growing = || claims.values().filter(|claim| over(claim) <= level);
        let count = u64::try_from(growing().count()).unwrap_or(1).max(1);
        let size = growing().map(over).fold(0, u64::saturating_add).max(1);
        let ration = |claim: &MemoryClaim| {
            let over = over(claim);
            let extra = if over > level {
                level
            } else {
                // Half by size, as what is large grows in large steps.
                let by_size = u128::from(spare / 2) * u128::from(over) / u128::from(size);
                let grows = spare / 2 / count + u64::try_from(by_size).unwrap_or(0);
                over + match room {
                    Room::Short => grows,
                    Room::Ample | Room::Watched => grows.max(spare / WATCHED_GROWING),
                }
            };
            let ration = claim.guarantee.saturating_add(extra).max(CAP_MIN);
            ration / PAGE_MAX * PAGE_MAX
        };
        claims
            .iter()
            .map(|(id, claim)| (*id, ration(claim)))
            .collect()
    }
}

/// The level up to which everybody gets what they want, such that all get no more than there is: the greatest
/// with `sum(min(want, level)) <= all`. Without bound when there is enough.
fn even_part(all: u64, mut wants: Vec<u64>) -> u64 {
    wants.sort_unstable();
    let mut left = all;
    let mut count = u64::try_from(wants.len()).unwrap_or(u64::MAX);
    for want in wants {
        let even = left / count;
        if want > even {
            return even;
        }
        left -= want;
        count -= 1;
    }
    u64::MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GIBIBYTE: u64 = 1 << 30;

    fn claims(list: &[MemoryClaim]) -> BTreeMap<VeId, MemoryClaim> {
        let ids = (100..).filter_map(|number| VeId::new(number).ok());
        ids.zip(list.iter().copied()).collect()
    }

    fn divided(reach: Reach, list: &[MemoryClaim]) -> MemoryDivision {
        divide_memory(16 * GIBIBYTE, Before::default(), reach, &claims(list))
    }

    fn caps(reach: Reach, list: &[MemoryClaim]) -> Vec<Option<u64>> {
        divided(reach, list).caps.into_values().collect()
    }

    fn uses(used: u64) -> MemoryClaim {
        MemoryClaim {
            used,
            ..MemoryClaim::default()
        }
    }

    #[test]
    fn with_room_everybody_has_their_limit_and_burst() {
        let bursting = MemoryClaim {
            limit: Some(GIBIBYTE),
            burst: GIBIBYTE,
            ..uses(3 * GIBIBYTE / 2)
        };
        assert_eq!(
            caps(Reach::All, &[bursting, uses(GIBIBYTE)]),
            [Some(2 * GIBIBYTE), None]
        );
        // The burst ends when somebody else takes the rest.
        let crowd = [bursting, uses(14 * GIBIBYTE)];
        assert_eq!(caps(Reach::Bursts, &crowd), [Some(GIBIBYTE), None]);
        assert_eq!(caps(Reach::All, &crowd)[0], Some(GIBIBYTE));
    }

    #[test]
    fn a_guarantee_that_is_not_used_is_kept_free() {
        let promised = MemoryClaim {
            guarantee: 8 * GIBIBYTE,
            ..uses(GIBIBYTE)
        };
        let greedy = [promised, uses(5 * GIBIBYTE), uses(5 * GIBIBYTE / 2)];
        let caps = caps(Reach::All, &greedy).into_iter().map(Option::unwrap);
        let caps: Vec<u64> = caps.collect();
        // 16 less 8 less a room of 1: seven are divided, and the third wants two and a half.
        assert_eq!(caps[1], 9 * GIBIBYTE / 2);
        assert!(caps[2] >= 5 * GIBIBYTE / 2 && caps[2] < 3 * GIBIBYTE);
        assert!(caps[0] >= 8 * GIBIBYTE);
    }

    #[test]
    fn being_short_is_over_when_there_is_twice_the_room() {
        let free = |free: u64| claims(&[uses(16 * GIBIBYTE - free)]);
        let found = |room, seconds, left| {
            let calm = Duration::from_secs(seconds);
            let before = Before { room, calm };
            divide_memory(16 * GIBIBYTE, before, Reach::All, &free(left)).room
        };
        for (before, calm, left, room) in [
            (Room::Ample, 60, GIBIBYTE / 2, Room::Short),
            (Room::Watched, 0, 3 * GIBIBYTE / 2, Room::Watched),
            (Room::Short, 0, 3 * GIBIBYTE / 2, Room::Short),
            (Room::Short, 0, 5 * GIBIBYTE / 2, Room::Watched),
            (Room::Ample, 60, 9 * GIBIBYTE, Room::Ample),
            (Room::Watched, 5, 9 * GIBIBYTE, Room::Watched),
            (Room::Watched, 15, 9 * GIBIBYTE, Room::Ample),
        ] {
            assert_eq!(found(before, calm, left), room, "{before:?} with {left}");
        }
    }

    #[test]
    fn who_grows_alone_may_have_most_of_what_is_left() {
        let all: Vec<_> = (0..50)
            .map(|_| uses(GIBIBYTE / 64))
            .chain([uses(12 * GIBIBYTE)])
            .collect();
        let division = divided(Reach::All, &all);
        assert_eq!(division.room, Room::Watched);
        let cap = division.caps.into_values().next_back().flatten();
        assert!(cap > Some(13 * GIBIBYTE), "{cap:?}");
    }

    fn claim() -> impl Strategy<Value = MemoryClaim> {
        let mebibytes = |most: u64| (0..most).prop_map(|mebibytes| mebibytes << 20);
        let limit = prop::option::of((4_u64..8_192).prop_map(|mebibytes| mebibytes << 20));
        (mebibytes(4_096), mebibytes(512), limit, mebibytes(1_024)).prop_map(
            |(used, guarantee, limit, burst)| MemoryClaim {
                used,
                guarantee: guarantee.min(limit.unwrap_or(u64::MAX)),
                limit,
                burst: if limit.is_some() { burst } else { 0 },
            },
        )
    }

    proptest! {
        /// Nobody is held below their guarantee or above their limit; nobody can grow into what others are
        /// owed before the next look; and whoever has to give back uses more than any other that has not.
        #[test]
        fn what_is_guaranteed_is_there(
            list in prop::collection::vec(claim(), 1..40),
            for_ves in (24_u64 << 10..64 << 10).prop_map(|mebibytes| mebibytes << 20),
            room in prop::sample::select(vec![Room::Ample, Room::Watched, Room::Short]),
            calm in (0_u64..20).prop_map(Duration::from_secs),
        ) {
            let claims = claims(&list);
            let division = divide_memory(for_ves, Before { room, calm }, Reach::All, &claims);
            let mut taken = 0;
            let mut used = 0;
            for (id, claim) in &claims {
                let cap = division.caps[id].unwrap_or(u64::MAX);
                prop_assert!(cap >= claim.guarantee / PAGE_MAX * PAGE_MAX);
                prop_assert!(cap <= claim.limit.map_or(u64::MAX, |l| l + claim.burst));
                // What cannot be taken back stays; what is owed is as good as used.
                taken += u128::from(cap.max(claim.used));
                used += claim.used.max(claim.guarantee);
            }
            let least = CAP_MIN * u64::try_from(claims.len()).unwrap();
            let all = u128::from(for_ves.max(used) + least);
            match division.room {
                Room::Ample => {}
                Room::Short => prop_assert!(taken <= all, "{taken} of {for_ves}"),
                // No one alone.
                Room::Watched => for (id, claim) in &claims {
                    let cap = division.caps[id].unwrap_or(u64::MAX);
                    let others = used - claim.used.max(claim.guarantee);
                    prop_assert!(u128::from(cap.max(claim.used) + others) <= all);
                },
            }
            let over = |claim: &MemoryClaim| claim.used.saturating_sub(claim.guarantee);
            let ordinary = |claim: &MemoryClaim| claim.used <= claim.limit.unwrap_or(u64::MAX);
            let held = claims.iter().filter(|(id, c)| {
                ordinary(c) && division.caps[*id].is_some_and(|cap| cap + PAGE_MAX < c.used)
            });
            let least_held = held.map(|(_, c)| over(c)).min();
            let free = claims.iter().filter(|(id, c)| division.caps[*id].is_none_or(|cap| cap >= c.used));
            let most_free = free.map(|(_, c)| over(c)).max();
            if let (Some(held), Some(free)) = (least_held, most_free) {
                prop_assert!(held + PAGE_MAX >= free, "{held} is held, {free} is not");
            }
        }
    }
}
