//! When a VE's memory grows by itself, by how much, and when that goes back.
//!
//! What counts is what the VE uses and the kernel cannot take back: page cache fills any limit, and is no
//! reason for more. Beside that, a VE whose processes keep waiting for memory gets more: what it runs
//! from files does not fit then.
//!
//! A step goes back only when the VE would do without it with room to spare, so that giving and taking never
//! alternate.

use std::time::Duration;

use ve::{Bytes, Limits, MemoryGrowth, Percent};

/// How far below the threshold the use has to be of what is left, for a step to go back, in points.
const MARGIN_POINTS: u8 = 10;
/// Into so many steps the way to the ceiling is divided where nobody says how large they are.
const STEPS_DEFAULT: u64 = 8;
/// The kernel counts in pages.
const PAGE: u64 = 64 << 10;

/// What the administrator decided. All sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrowthRules {
    /// `memory.limit`.
    pub limit: u64,
    /// What there may be with what is given; no less than the limit.
    pub ceiling: u64,
    /// How much is given at a time; not 0.
    pub step: u64,
    /// The part whose use calls for more.
    pub threshold: Percent,
    /// Shortest time between two steps.
    pub cooldown: Duration,
    /// After how long without need a step goes back.
    pub give_back: Option<Duration>,
}

/// How it stands with a VE. All sizes in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Strain {
    /// What it was given so far.
    pub given: u64,
    /// What it uses that cannot be taken back.
    pub in_use: u64,
    /// What it will come to use beside that before it can be given more, at its present pace.
    pub ahead: u64,
    /// Whether its processes waited for memory for a good part of the last seconds.
    pub stalls: bool,
    /// How long ago the last step was, either way.
    pub since_step: Duration,
    /// How long ago it needed its last step.
    pub since_need: Duration,
    /// What the node has left: used by no VE, and guaranteed to none.
    pub free: u64,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrowthStep {
    /// Nothing.
    Keep,
    /// Let it have so much beyond its limit, which is more than now.
    Give(u64),
    /// Let it have so much beyond its limit, which is less than now.
    TakeBack(u64),
    /// It needs more and cannot have it.
    Refuse(Hindrance),
}

/// Why a VE cannot have more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hindrance {
    /// It has what its administrator lets it have.
    Ceiling,
    /// The node has too little left, so much.
    Node {
        /// In bytes.
        free: u64,
    },
}

/// A decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrowthDecision {
    /// What is to be done.
    pub step: GrowthStep,
    /// Whether it needs what it was given last.
    pub needs: bool,
    /// When to look again, if nothing happens before.
    pub look_after: Option<Duration>,
}

impl GrowthRules {
    /// Those of a VE's settings, if its memory grows.
    #[must_use]
    pub fn of(limits: &Limits) -> Option<Self> {
        let (growth, limit) = (&limits.memory_growth, limits.memory?.get());
        let ceiling = growth.ceiling?.get().max(limit);
        let step = growth.step.map_or_else(
            || {
                ((ceiling - limit) / STEPS_DEFAULT)
                    .max(1 << 20)
                    .next_multiple_of(PAGE)
            },
            Bytes::get,
        );
        Some(Self {
            limit,
            ceiling,
            step: step.max(PAGE),
            threshold: growth.threshold.unwrap_or(MemoryGrowth::THRESHOLD_DEFAULT),
            cooldown: Duration::from_secs(growth.cooldown.map_or(0, ve::Seconds::get)),
            give_back: growth.give_back.map(|span| Duration::from_secs(span.get())),
        })
    }

    /// The uses at which there may be something to do: the threshold of what it has now and after each step.
    #[must_use]
    pub fn marks(&self) -> Vec<u64> {
        let steps = (self.ceiling - self.limit).div_ceil(self.step);
        (0..=steps.min(MemoryGrowth::STEPS_MAX))
            .map(|step| (self.limit + step * self.step).min(self.ceiling))
            .map(|has| self.threshold.of(has))
            .collect()
    }

    /// Decides what is to be done for a VE in this strain.
    #[must_use]
    pub fn decide(&self, strain: &Strain) -> GrowthDecision {
        let has = self.limit.saturating_add(strain.given);
        let full = strain.in_use > self.threshold.of(has);
        // Who leaves more than half to page cache waits for the disk.
        let stalls = strain.stalls && strain.in_use > has / 2;
        let needs = full || strain.stalls || strain.in_use > self.spared_below(strain.given);
        let decided = |step, look_after| GrowthDecision {
            step,
            needs,
            look_after,
        };
        if full || (stalls && has < self.ceiling) {
            let wait = self.cooldown.saturating_sub(strain.since_step);
            if !wait.is_zero() && has < self.ceiling {
                return decided(GrowthStep::Keep, Some(wait));
            }
            return decided(self.more(strain, has), self.give_back);
        }
        let Some(patience) = self.give_back.filter(|_| strain.given > 0) else {
            return decided(GrowthStep::Keep, None);
        };
        let calm = match needs {
            true => Duration::ZERO,
            false => strain.since_step.min(strain.since_need),
        };
        if calm < patience {
            return decided(GrowthStep::Keep, Some(patience - calm));
        }
        let rest = strain.given.saturating_sub(self.step);
        let again = (rest > 0).then_some(patience);
        decided(GrowthStep::TakeBack(rest), again)
    }

    /// As many steps as bring the use that is to come below the threshold, at least one, as far as there is
    /// room.
    fn more(&self, strain: &Strain, has: u64) -> GrowthStep {
        if has >= self.ceiling {
            return GrowthStep::Refuse(Hindrance::Ceiling);
        }
        let mut target = has + self.step;
        let in_use = strain.in_use.saturating_add(strain.ahead);
        while target < self.ceiling && in_use > self.threshold.of(target) {
            target += self.step;
        }
        let target = target.min(self.ceiling);
        let steps = (target - has).min(strain.free) / self.step * self.step;
        let given = match target - has <= strain.free {
            true => target - has,
            false => steps,
        };
        if given == 0 {
            return GrowthStep::Refuse(Hindrance::Node { free: strain.free });
        }
        GrowthStep::Give(strain.given + given)
    }

    /// The use below which the last step can be spared.
    fn spared_below(&self, given: u64) -> u64 {
        let without = self.limit + given.saturating_sub(self.step);
        Percent::new(self.threshold.get() - MARGIN_POINTS).of(without)
    }
}

/// What a VE keeps of what it was given when its administrator changes its settings: a higher limit swallows
/// it, a lower one takes it all back, and nothing stays above the ceiling.
#[must_use]
pub fn kept(old: &Limits, new: &Limits) -> Option<Bytes> {
    let (limit, ceiling) = (new.memory?, new.memory_growth.ceiling?);
    if old.memory.is_some_and(|old| limit < old) {
        return None;
    }
    let beyond = old.memory_now()?.min(ceiling).get();
    let kept = beyond.saturating_sub(limit.get());
    (kept > 0 && old.memory_growth.given.is_some()).then_some(Bytes::new(kept))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::limits;
    use proptest::prelude::*;

    const MEBIBYTE: u64 = 1 << 20;

    fn rules(texts: &[&str]) -> GrowthRules {
        GrowthRules::of(&limits(texts)).unwrap()
    }

    fn strain(given: u64, in_use: u64) -> Strain {
        Strain {
            given: given * MEBIBYTE,
            in_use: in_use * MEBIBYTE,
            since_step: Duration::from_secs(3_600),
            since_need: Duration::from_secs(3_600),
            free: 1 << 40,
            ..Strain::default()
        }
    }

    fn step(rules: &GrowthRules, strain: &Strain) -> GrowthStep {
        rules.decide(strain).step
    }

    #[test]
    fn without_a_ceiling_or_a_limit_nothing_grows() {
        assert_eq!(GrowthRules::of(&limits(&["memory.limit=1G"])), None);
        assert_eq!(GrowthRules::of(&limits(&["memory.grow.ceiling=1G"])), None);
        let rules = rules(&["memory.limit=512M", "memory.grow.ceiling=1G"]);
        assert_eq!(rules.step, 64 * MEBIBYTE);
        assert_eq!(rules.threshold.get(), 80);
        assert_eq!(rules.marks().len(), 9);
    }

    #[test]
    fn it_grows_at_the_threshold_by_steps_to_the_ceiling() {
        let rules = rules(&[
            "memory.limit=100M",
            "memory.grow.ceiling=250M",
            "memory.grow.step=100M",
        ]);
        let marks = [80, 160, 200].map(|mark| mark * MEBIBYTE);
        assert_eq!(rules.marks(), marks);
        for (given, in_use, wanted) in [
            (0, 80, GrowthStep::Keep),
            (0, 81, GrowthStep::Give(100 * MEBIBYTE)),
            (0, 200, GrowthStep::Give(150 * MEBIBYTE)),
            (100, 160, GrowthStep::Keep),
            (100, 161, GrowthStep::Give(150 * MEBIBYTE)),
            (150, 240, GrowthStep::Refuse(Hindrance::Ceiling)),
        ] {
            assert_eq!(
                step(&rules, &strain(given, in_use)),
                wanted,
                "{given} {in_use}"
            );
        }
    }

    #[test]
    fn who_grows_fast_is_given_several_steps_at_once() {
        let rules = rules(&[
            "memory.limit=100M",
            "memory.grow.ceiling=800M",
            "memory.grow.step=50M",
        ]);
        let fast = |in_use| Strain {
            ahead: 100 * MEBIBYTE,
            ..strain(0, in_use)
        };
        assert_eq!(step(&rules, &fast(80)), GrowthStep::Keep);
        assert_eq!(step(&rules, &fast(90)), GrowthStep::Give(150 * MEBIBYTE));
    }

    #[test]
    fn a_wait_for_memory_is_a_reason_and_a_cooldown_a_delay() {
        let rules = rules(&[
            "memory.limit=100M",
            "memory.grow.ceiling=200M",
            "memory.grow.step=50M",
            "memory.grow.cooldown=10s",
        ]);
        let stalls = Strain {
            stalls: true,
            ..strain(0, 60)
        };
        assert_eq!(step(&rules, &stalls), GrowthStep::Give(50 * MEBIBYTE));
        let soon = Strain {
            since_step: Duration::from_secs(4),
            ..stalls
        };
        let decision = rules.decide(&soon);
        assert_eq!(decision.step, GrowthStep::Keep);
        assert_eq!(decision.look_after, Some(Duration::from_secs(6)));
        for (given, in_use) in [(100, 110), (0, 50)] {
            let strain = Strain {
                stalls: true,
                ..strain(given, in_use)
            };
            // There is no more, or it would only fill with page cache.
            assert_eq!(step(&rules, &strain), GrowthStep::Keep);
        }
    }

    #[test]
    fn who_waits_for_memory_gives_none_back() {
        let rules = rules(&[
            "memory.limit=100M",
            "memory.grow.ceiling=300M",
            "memory.grow.step=100M",
            "memory.grow.give-back=1s",
        ]);
        // With less it would use more than half of what it has, and be given it again.
        for (stalls, wanted) in [(true, GrowthStep::Keep), (false, GrowthStep::TakeBack(0))] {
            let strain = Strain {
                stalls,
                ..strain(100, 60)
            };
            assert_eq!(step(&rules, &strain), wanted);
        }
    }

    #[test]
    fn a_node_gives_what_it_has_left() {
        let rules = rules(&[
            "memory.limit=100M",
            "memory.grow.ceiling=400M",
            "memory.grow.step=100M",
        ]);
        let short = |free| Strain {
            free: free * MEBIBYTE,
            ..strain(0, 300)
        };
        assert_eq!(step(&rules, &short(250)), GrowthStep::Give(200 * MEBIBYTE));
        let free = 99 * MEBIBYTE;
        assert_eq!(
            step(&rules, &short(99)),
            GrowthStep::Refuse(Hindrance::Node { free })
        );
    }

    #[test]
    fn settings_swallow_what_was_given() {
        let grown = |texts: &[&str], given: u32| {
            let mut limits = limits(texts);
            limits.memory_growth.given = Some(Bytes::from_mebibytes(given));
            limits
        };
        let old = grown(&["memory.limit=100M", "memory.grow.ceiling=300M"], 100);
        for (texts, left) in [
            (&["memory.limit=100M", "memory.grow.ceiling=300M"][..], 100),
            (&["memory.limit=150M", "memory.grow.ceiling=300M"], 50),
            (&["memory.limit=250M", "memory.grow.ceiling=300M"], 0),
            (&["memory.limit=100M", "memory.grow.ceiling=150M"], 50),
            (&["memory.limit=90M", "memory.grow.ceiling=300M"], 0),
            (&["memory.limit=100M"], 0),
            (&[], 0),
        ] {
            let kept = kept(&old, &limits(texts)).map_or(0, Bytes::get);
            assert_eq!(kept, left * MEBIBYTE, "{texts:?}");
        }
        let fresh = limits(&["memory.limit=100M"]);
        let policy = limits(&["memory.limit=100M", "memory.grow.ceiling=300M"]);
        assert_eq!(kept(&fresh, &policy), None);
    }

    fn any_rules() -> impl Strategy<Value = GrowthRules> {
        let sizes = (4_u64..4_096, 0_u64..8_192, 1_u64..1_024);
        let spans = (0_u64..20, prop::option::of(1_u64..60));
        (sizes, 50_u8..=95, spans).prop_map(|((limit, more, step), threshold, spans)| GrowthRules {
            limit: limit * MEBIBYTE,
            ceiling: (limit + more) * MEBIBYTE,
            step: step.max(more.div_ceil(MemoryGrowth::STEPS_MAX)) * MEBIBYTE,
            threshold: Percent::new(threshold),
            cooldown: Duration::from_secs(spans.0),
            give_back: spans.1.map(Duration::from_secs),
        })
    }

    fn any_strain() -> impl Strategy<Value = Strain> {
        let sizes = (0_u64..8_192, 0_u64..16_384, 0_u64..4_096);
        (sizes, any::<bool>(), 0_u64..90, 0_u64..90).prop_map(|(sizes, stalls, step, need)| {
            Strain {
                given: sizes.0 * MEBIBYTE,
                in_use: sizes.1 * MEBIBYTE,
                ahead: sizes.2 * MEBIBYTE / 2,
                free: sizes.2 * MEBIBYTE,
                stalls,
                since_step: Duration::from_secs(step),
                since_need: Duration::from_secs(need),
            }
        })
    }

    proptest! {
        /// Never above the ceiling, below the limit, into what others have, or within the cool-down; and
        /// nothing is taken back that is in use, or given again at once.
        #[test]
        fn what_is_decided_keeps_the_rules(rules in any_rules(), strain in any_strain()) {
            let strain = Strain { given: strain.given.min(rules.ceiling - rules.limit), ..strain };
            let has = rules.limit + strain.given;
            let decision = rules.decide(&strain);
            match decision.step {
                GrowthStep::Keep => {}
                GrowthStep::Give(given) => {
                    prop_assert!(given > strain.given);
                    prop_assert!(rules.limit + given <= rules.ceiling);
                    prop_assert!(given - strain.given <= strain.free);
                    prop_assert!(strain.since_step >= rules.cooldown);
                    prop_assert!(strain.stalls || strain.in_use > rules.threshold.of(has));
                    // It is not taken back before it was calm for a while.
                    let next = Strain { given, since_step: Duration::ZERO, stalls: false, ..strain };
                    prop_assert!(!matches!(rules.decide(&next).step, GrowthStep::TakeBack(_)));
                }
                GrowthStep::TakeBack(given) => {
                    prop_assert!(given < strain.given);
                    let next = Strain { given, ..strain };
                    let kept = rules.threshold.of(rules.limit + given);
                    prop_assert!(strain.in_use <= kept && !strain.stalls);
                    prop_assert!(!matches!(rules.decide(&next).step, GrowthStep::Give(_)));
                    let calm = strain.since_step.min(strain.since_need);
                    prop_assert!(rules.give_back.is_some_and(|patience| calm >= patience));
                }
                GrowthStep::Refuse(Hindrance::Ceiling) => prop_assert!(has >= rules.ceiling),
                GrowthStep::Refuse(Hindrance::Node { .. }) => {
                    prop_assert!(strain.free < rules.step.min(rules.ceiling - has).max(1));
                }
            }
        }

        /// With room, growth ends with a use below the threshold or at the ceiling; and every threshold is
        /// one of the marks that are told of.
        #[test]
        fn growth_comes_to_an_end(rules in any_rules(), in_use in 0_u64..16_384) {
            let in_use = in_use * MEBIBYTE;
            let mut given = 0;
            for _ in 0..2 {
                let strain = Strain { given, in_use, free: 1 << 50, since_step: rules.cooldown, ..Strain::default() };
                if let GrowthStep::Give(more) = rules.decide(&strain).step {
                    let has = rules.limit + given;
                    prop_assert!(rules.marks().contains(&rules.threshold.of(has)));
                    given = more;
                }
            }
            let has = rules.limit + given;
            prop_assert!(in_use <= rules.threshold.of(has) || has == rules.ceiling);
        }
    }
}
