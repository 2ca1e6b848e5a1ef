//! Weights of processor time, so that guarantees hold and shares divide the rest.
//!
//! When every VE wants everything, a VE is to get its guarantee and, of what nobody is guaranteed,
//! its part by share: `guarantee + spare * share / shares`. The scheduler knows one number for each
//! group, its weight, and divides in proportion; so the weight is that sum, in units in which a share
//! counts as itself: `share + guarantee * shares / spare`. A VE without a guarantee thereby weighs what
//! its share says, whoever comes and goes, and only those with one have to be weighed anew.
//!
//! When some VEs want less, the scheduler gives what they leave to the others in the same proportions,
//! so that nobody gets less than in the worst case.

use std::collections::BTreeMap;

use ve::{Cores, Limits, VeId};

/// The share of a VE that was given none.
pub const SHARE_DEFAULT: u32 = 100;
/// The kernel's bounds for `cpu.weight` (cgroup-v2.rst).
const WEIGHT_MIN: u128 = 1;
const WEIGHT_MAX: u128 = 10_000;
/// Where (nearly) all is guaranteed, the rest is taken for this part of all: VEs without a guarantee
/// keep a hundredth, and those with one have still 99 of 100 parts of theirs.
const SPARE_PARTS_MIN: u64 = 100;

/// What a running VE may claim of the processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// What it gets whatever others do.
    pub guarantee: Cores,
    /// Its weight for the rest.
    pub share: u32,
}

impl Claim {
    /// What these settings let a VE claim.
    #[must_use]
    pub fn of(limits: &Limits) -> Self {
        Self {
            guarantee: limits.cpu_guarantee.unwrap_or(Cores::from_thousandths(0)),
            share: limits.cpu_share.unwrap_or(SHARE_DEFAULT),
        }
    }
}

/// The weight of each running VE on a node that has `for_ves` processors for them, from 1 to 10,000.
#[must_use]
pub fn cpu_weights(for_ves: Cores, claims: &BTreeMap<VeId, Claim>) -> BTreeMap<VeId, u32> {
    let all = u64::from(for_ves.thousandths()).max(1);
    let guaranteed = claims
        .values()
        .map(|claim| u64::from(claim.guarantee.thousandths()));
    let spare = all
        .saturating_sub(guaranteed.sum())
        .max(all.div_ceil(SPARE_PARTS_MIN));
    let shares: u64 = claims.values().map(|claim| u64::from(claim.share)).sum();
    // In parts of `spare`, so that nothing is lost before the last division.
    let exact = |claim: &Claim| {
        u128::from(claim.share) * u128::from(spare)
            + u128::from(claim.guarantee.thousandths()) * u128::from(shares)
    };
    let heaviest = claims.values().map(exact).max().unwrap_or(0);
    let one = u128::from(spare).max(heaviest.div_ceil(WEIGHT_MAX));
    claims
        .iter()
        .map(|(id, claim)| {
            let weight = (exact(claim) + one / 2) / one;
            let weight = weight.clamp(WEIGHT_MIN, WEIGHT_MAX);
            (*id, u32::try_from(weight).unwrap_or(SHARE_DEFAULT))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn claims(list: &[(u32, u32)]) -> BTreeMap<VeId, Claim> {
        let claim = |(number, (guarantee, share)): (u32, &(u32, u32))| {
            let guarantee = Cores::from_thousandths(*guarantee);
            (
                VeId::new(number).unwrap(),
                Claim {
                    guarantee,
                    share: *share,
                },
            )
        };
        (100..).zip(list).map(claim).collect()
    }

    fn weigh(for_ves: u32, list: &[(u32, u32)]) -> Vec<u32> {
        let weights = cpu_weights(Cores::from_thousandths(for_ves), &claims(list));
        weights.into_values().collect()
    }

    #[test]
    fn without_guarantees_a_share_is_the_weight() {
        assert_eq!(
            weigh(2_000, &[(0, 100), (0, 300), (0, 1), (0, 10_000)]),
            [100, 300, 1, 10_000]
        );
        assert_eq!(weigh(2_000, &[]), [0; 0]);
    }

    #[test]
    fn a_guarantee_is_weighed_against_all_shares() {
        // Half of all is guaranteed to one, the other half is divided evenly among three.
        assert_eq!(
            weigh(2_000, &[(1_000, 100), (0, 100), (0, 100)]),
            [400, 100, 100]
        );
    }

    proptest! {
        /// With everybody wanting everything, a VE gets 98 hundredths of its guarantee, and what is not
        /// guaranteed goes by share.
        #[test]
        fn guarantees_hold_and_shares_divide_the_rest(
            for_ves in 500_u32..256_000,
            parts in prop::collection::vec((0_u32..1_000, 10_u32..1_000), 1..200),
        ) {
            let wanted: u64 = parts.iter().map(|(part, _)| u64::from(*part)).sum::<u64>().max(1);
            let list: Vec<_> = parts
                .iter()
                .map(|(part, share)| {
                    // Together at most nine tenths.
                    let guarantee = u64::from(*part) * u64::from(for_ves) * 9 / 10 / wanted;
                    (u32::try_from(guarantee).unwrap(), *share)
                })
                .collect();
            let weights = weigh(for_ves, &list);
            prop_assert!(weights.iter().all(|weight| (1..=10_000).contains(weight)));
            let sum: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
            let shares: f64 = list.iter().map(|(_, share)| f64::from(*share)).sum();
            let guaranteed: f64 = list.iter().map(|(guarantee, _)| f64::from(*guarantee)).sum();
            let spare = f64::from(for_ves) - guaranteed;
            for ((guarantee, share), weight) in list.iter().zip(&weights) {
                let got = f64::from(for_ves) * f64::from(*weight) / sum;
                let due = f64::from(*guarantee) + spare * f64::from(*share) / shares;
                // Weights are whole numbers: a small one is rounded by up to a half.
                let slack = 0.02 + 1.0 / f64::from(*weight);
                prop_assert!(got >= due * (1.0 - slack), "{got} of {due}");
                prop_assert!(got >= f64::from(*guarantee) * (0.98 - 0.6 / f64::from(*weight)), "{got} of {guarantee}");
            }
        }
    }
}
