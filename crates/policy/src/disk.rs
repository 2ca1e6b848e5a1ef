//! How a pool's space is dealt out among VEs while one is guaranteed some.

use std::collections::BTreeMap;

use ve::VeId;

/// What one VE has of the pool, and is guaranteed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskClaim {
    /// Bytes that it takes now.
    pub used: u64,
    /// Bytes that it is guaranteed; 0 is nothing.
    pub guarantee: u64,
    /// Bytes that it may take whatever is free.
    pub limit: Option<u64>,
}

/// What VEs may take at most, until it is dealt out again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskDivision {
    /// VEs with a guarantee, each.
    pub own: BTreeMap<VeId, u64>,
    /// All others, together.
    pub common: u64,
}

/// Deals out `for_ves` bytes: to each VE its guarantee, or what it has beyond, and half of what is free
/// then to those with a guarantee, equally. The others have the rest together.
///
/// The sum is never more than there is, unless VEs have more already; then nobody can grow beyond their
/// guarantee.
#[must_use]
pub fn divide_disk(for_ves: u64, claims: &BTreeMap<VeId, DiskClaim>) -> DiskDivision {
    let sum = |values: &mut dyn Iterator<Item = u64>| values.fold(0, u64::saturating_add);
    let guaranteed = || claims.iter().filter(|(_, claim)| claim.guarantee > 0);
    let held = |claim: &DiskClaim| claim.used.max(claim.guarantee);
    let kept = sum(&mut guaranteed().map(|(_, claim)| held(claim)));
    let others = claims.values().filter(|claim| claim.guarantee == 0);
    let others = sum(&mut others.map(|claim| claim.used));
    let free = for_ves.saturating_sub(kept).saturating_sub(others);
    let count = u64::try_from(guaranteed().count()).unwrap_or(u64::MAX);
    let part = free / 2 / count.max(1);
    let share = |claim: &DiskClaim| {
        let most = held(claim).max(claim.limit.unwrap_or(u64::MAX));
        held(claim).saturating_add(part).min(most)
    };
    let own: BTreeMap<VeId, u64> = guaranteed()
        .map(|(id, claim)| (*id, share(claim)))
        .collect();
    let given = sum(&mut own.values().copied());
    DiskDivision {
        own,
        common: for_ves.saturating_sub(given),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn claims(all: &[(u64, u64, Option<u64>)]) -> BTreeMap<VeId, DiskClaim> {
        let claim = |(at, (used, guarantee, limit)): (usize, &(u64, u64, Option<u64>))| {
            let id = VeId::new(100 + u32::try_from(at).unwrap()).unwrap();
            let claim = DiskClaim {
                used: *used,
                guarantee: *guarantee,
                limit: *limit,
            };
            (id, claim)
        };
        all.iter().enumerate().map(claim).collect()
    }

    #[test]
    fn what_is_free_is_dealt_out_and_nobody_gets_more_than_their_limit() {
        let id = |number| VeId::new(number).unwrap();
        let division = divide_disk(1_000, &claims(&[(50, 200, None), (100, 0, None)]));
        assert_eq!(division.own[&id(100)], 200 + 350);
        assert_eq!(division.common, 450);
        let limited = divide_disk(1_000, &claims(&[(50, 200, Some(300)), (100, 0, None)]));
        assert_eq!((limited.own[&id(100)], limited.common), (300, 700));
        // Others had taken nearly all before.
        let full = divide_disk(1_000, &claims(&[(50, 200, None), (900, 0, None)]));
        assert_eq!((full.own[&id(100)], full.common), (200, 800));
    }

    proptest! {
        #[test]
        fn no_more_is_dealt_out_than_there_is(
            all in prop::collection::vec((0_u64..2_000, 0_u64..500, prop::option::of(500_u64..2_000)), 0..20),
            for_ves in 0_u64..20_000,
        ) {
            let claims = claims(&all);
            let division = divide_disk(for_ves, &claims);
            let given: u64 = division.own.values().sum();
            let kept: u64 = claims.values().filter(|c| c.guarantee > 0).map(|c| c.used.max(c.guarantee)).sum();
            prop_assert!(given + division.common <= for_ves.max(kept));
            for (id, claim) in &claims {
                if claim.guarantee > 0 {
                    prop_assert!(division.own[id] >= claim.guarantee);
                    let most = claim.used.max(claim.guarantee).max(claim.limit.unwrap_or(u64::MAX));
                    prop_assert!(division.own[id] <= most);
                }
            }
        }
    }
}
