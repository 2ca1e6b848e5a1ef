//! Numbers and addresses for new VEs: the first that nobody has.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use ve::VeId;

/// The smallest number from `first` to `last` that no VE has.
///
/// A number is not given out again before its VE is wholly gone, since user ids, interface and
/// groups follow from it; `used` therefore holds those that are on their way out, too.
#[must_use]
pub fn first_free_id(first: VeId, last: VeId, used: &BTreeSet<VeId>) -> Option<VeId> {
    (first.get()..=last.get())
        .filter_map(|number| VeId::new(number).ok())
        .find(|id| !used.contains(id))
}

/// The first address of `range` that a VE may have and none has.
///
/// Left out are the network's own address (the "any host" of old stacks, and the subnet-router
/// anycast address of RFC 4291, section 2.6.1), the IPv4 broadcast address, the first host
/// address, which administrators expect a gateway to have, and in IPv4 ranges of more than 256 those
/// that end in 0 or 255, which old programs take for a network's or for broadcast.
#[must_use]
pub fn first_free_address(range: IpNet, used: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    match range {
        IpNet::V4(net) => {
            let first = u32::from(net.network()).checked_add(2)?;
            let last = u32::from(net.broadcast()).checked_sub(1)?;
            let usual = |n: &u32| net.prefix_len() > 24 || !matches!(n & 0xff, 0 | 255);
            (first..=last)
                .filter(usual)
                .map(|n| IpAddr::V4(n.into()))
                .find(|address| !used.contains(address))
        }
        IpNet::V6(net) => {
            let first = u128::from(net.network()).checked_add(2)?;
            let last = u128::from(net.broadcast());
            (first..=last)
                .map(|n| IpAddr::V6(n.into()))
                .find(|address| !used.contains(address))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn skips_what_no_host_should_have() {
        let range: IpNet = "10.9.0.0/29".parse().unwrap();
        let mut used = BTreeSet::new();
        let mut given = Vec::new();
        while let Some(address) = first_free_address(range, &used) {
            given.push(address.to_string());
            used.insert(address);
        }
        assert_eq!(
            given,
            ["10.9.0.2", "10.9.0.3", "10.9.0.4", "10.9.0.5", "10.9.0.6"]
        );
    }

    #[test]
    fn skips_what_old_programs_take_for_a_network() {
        let range: IpNet = "10.9.0.0/16".parse().unwrap();
        let used = (2..=254).map(|n| IpAddr::from([10, 9, 0, n])).collect();
        let address = first_free_address(range, &used).unwrap();
        assert_eq!(address.to_string(), "10.9.1.1");
    }

    #[test]
    fn a_range_without_room_gives_none() {
        for range in [
            "10.0.0.0/31",
            "10.0.0.0/32",
            "255.255.255.255/32",
            "fd00::/127",
        ] {
            let range: IpNet = range.parse().unwrap();
            assert_eq!(first_free_address(range, &BTreeSet::new()), None, "{range}");
        }
    }

    proptest! {
        #[test]
        fn what_is_given_is_free_and_in_range(taken in proptest::collection::btree_set(2_u32..200, 0..100)) {
            let range: IpNet = "10.8.0.0/24".parse().unwrap();
            let base = u32::from_be_bytes([10, 8, 0, 0]);
            let used: BTreeSet<IpAddr> = taken.iter().map(|n| IpAddr::V4((base + n).into())).collect();
            let address = first_free_address(range, &used).unwrap();
            prop_assert!(!used.contains(&address));
            prop_assert!(range.contains(&address));

            let ids: BTreeSet<VeId> = taken.iter().filter_map(|n| VeId::new(n + 100).ok()).collect();
            let id = first_free_id(VeId::new(100).unwrap(), VeId::new(400).unwrap(), &ids).unwrap();
            prop_assert!(!ids.contains(&id));
        }
    }
}
