//! What follows from a VE's number on its link: names, indices and hardware addresses.
//!
//! All are the same on every node and known before the link exists. That is why a link can be made
//! with one batch of requests (nothing has to be asked back), why the filter needs no list of VEs,
//! and why a moved VE finds the same gateway under the same hardware address.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ve::VeId;

/// The gateway of every VE for IPv4: link-local (RFC 3927), so it is in no one's range.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// The gateway of every VE for IPv6.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// Name of the interface inside a VE.
pub const INSIDE_NAME: &str = "eth0";

/// Index of [`INSIDE_NAME`] inside a VE.
///
/// Fixed, so that it need not be looked up and a restored VE finds the one it had. Not 2: kernels
/// with tunnel modules give 2 and a few more to fallback devices (`tunl0`, `sit0`) in each new
/// namespace.
pub const INSIDE_INDEX: u32 = 64;

/// Index of `lo`, the same in every network namespace (`LOOPBACK_IFINDEX` in `net/flow.h`).
pub(crate) const LOOPBACK_INDEX: u32 = 1;

/// The hardware address of every host end: a VE moved to another node keeps its neighbour entry.
pub const HOST_MAC: [u8; 6] = [0x02, 0x56, 0x45, 0xff, 0xff, 0xfe];

/// Added to a VE's number to make the index of its host end. The kernel counts up from 1 for
/// interfaces that ask for no index, so a million is out of its way.
pub(crate) const INDEX_BASE: u32 = 0x0010_0000;

/// Indices that host ends of any VE of any node can have.
pub(crate) const INDICES: RangeInclusive<u32> = INDEX_BASE + VeId::MIN..=INDEX_BASE + VeId::MAX;

/// Index of a VE's host end.
#[must_use]
pub fn interface_index(id: VeId) -> u32 {
    INDEX_BASE + id.get()
}

/// The VE whose host end has this index, if it can be one's.
#[must_use]
pub fn ve_of_index(index: u32) -> Option<VeId> {
    index
        .checked_sub(INDEX_BASE)
        .and_then(|number| VeId::new(number).ok())
}

/// Indices of the host ends of a range of VEs.
#[must_use]
pub fn interface_indices(ids: &RangeInclusive<VeId>) -> RangeInclusive<u32> {
    interface_index(*ids.start())..=interface_index(*ids.end())
}

/// What the hardware addresses of all VEs' own ends begin with; the VE's number follows.
pub(crate) const INSIDE_MAC_PREFIX: [u8; 3] = [0x02, 0x56, 0x45];

/// Hardware address of a VE's own end: locally administered, unicast, unique on a node.
#[must_use]
pub fn inside_mac(id: VeId) -> [u8; 6] {
    let [_, high, middle, low] = id.get().to_be_bytes();
    let [first, second, third] = INSIDE_MAC_PREFIX;
    [first, second, third, high, middle, low]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_ids() -> impl Iterator<Item = VeId> {
        (VeId::MIN..=VeId::MAX).map(|number| VeId::new(number).unwrap())
    }

    #[test]
    fn indices_are_reversible_and_stay_clear_of_small_ones() {
        for id in all_ids() {
            assert_eq!(ve_of_index(interface_index(id)), Some(id));
        }
        assert_eq!(ve_of_index(1), None);
        assert_eq!(ve_of_index(INDEX_BASE + VeId::MIN - 1), None);
        assert_eq!(ve_of_index(INDEX_BASE + VeId::MAX + 1), None);
        assert_eq!(ve_of_index(u32::MAX), None);
    }

    #[test]
    fn hardware_addresses_are_unicast_local_and_never_the_hosts() {
        for id in all_ids() {
            let mac = inside_mac(id);
            assert_eq!(mac[0] & 0b11, 0b10);
            assert_ne!(mac, HOST_MAC);
        }
    }
}
