//! Which addresses a VE may have, and in what order they are given out.
//!
//! Pure. That an address has one owner is the registry's promise; it is asked through `taken`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};

/// How many addresses [`first_free`] looks at before it calls a range full: as many as VEs can
/// have numbers, with room for several addresses each. An IPv6 range never ends otherwise.
const LOOKS_MAX: u128 = 1 << 20;

/// An address that no VE can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("address {address} cannot be a VE's: {reason}; choose one that is a single host's")]
pub struct AddressError {
    /// The address in question.
    pub address: IpAddr,
    /// Why not.
    pub reason: Unusable,
}

/// Why an address cannot be a VE's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// `0.0.0.0/8` or `::`.
    #[error("it means \"this host\" or none")]
    Unspecified,
    /// `127.0.0.0/8` or `::1`.
    #[error("it is a loopback address")]
    Loopback,
    /// `169.254.0.0/16` or `fe80::/10`: the gateways live there, and nothing there is routed.
    #[error("it is link-local, where the node's gateways are")]
    LinkLocal,
    /// `224.0.0.0/4` or `ff00::/8`.
    #[error("it is a group's (multicast)")]
    Multicast,
    /// `240.0.0.0/4`, the broadcast address among them.
    #[error("it is reserved or a broadcast address")]
    Reserved,
    /// `::ffff:0:0/96`.
    #[error("it is an IPv4 address written as IPv6")]
    Mapped,
}

/// Checks that an address can be a VE's.
///
/// # Errors
/// Refuses addresses that are not one host's, with the reason.
pub fn check(address: IpAddr) -> Result<(), AddressError> {
    let reason = match address {
        IpAddr::V4(v4) => unusable_v4(v4),
        IpAddr::V6(v6) => unusable_v6(v6),
    };
    reason.map_or(Ok(()), |reason| Err(AddressError { address, reason }))
}

fn unusable_v4(address: Ipv4Addr) -> Option<Unusable> {
    match address.octets()[0] {
        0 => Some(Unusable::Unspecified),
        127 => Some(Unusable::Loopback),
        224..=239 => Some(Unusable::Multicast),
        240..=255 => Some(Unusable::Reserved),
        _ if address.is_link_local() => Some(Unusable::LinkLocal),
        _ => None,
    }
}

fn unusable_v6(address: Ipv6Addr) -> Option<Unusable> {
    match address {
        _ if address.is_unspecified() => Some(Unusable::Unspecified),
        _ if address.is_loopback() => Some(Unusable::Loopback),
        _ if address.is_multicast() => Some(Unusable::Multicast),
        _ if address.is_unicast_link_local() => Some(Unusable::LinkLocal),
        _ if address.to_ipv4_mapped().is_some() => Some(Unusable::Mapped),
        _ => None,
    }
}

/// Finds the next free address of a range, looking from the one behind `after` and around.
///
/// Pass the address given out last: then one that was just freed is not given out again at once,
/// while peers still hold connections or name records for it. Skipped are the network's own and
/// the broadcast address, the first host (by custom a gateway; the node itself takes it in a
/// private IPv6 range), and in IPv4 those ending in 0 or 255, which old programs refuse.
#[must_use]
pub fn first_free(
    range: IpNet,
    after: Option<IpAddr>,
    taken: impl Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    let (first, last) = bounds(range);
    let size = (last - first).saturating_add(1);
    let start = after
        .filter(|after| range.contains(after))
        .map_or(first, |after| {
            number(after)
                .saturating_add(1)
                .clamp(first, last.saturating_add(1))
        });
    let offset = (start - first) % size;
    (0..size.min(LOOKS_MAX))
        .map(|step| address(range, first + (offset + step) % size))
        .find(|&candidate| usual(range, candidate) && check(candidate).is_ok() && !taken(candidate))
}

/// The first and last address of a range that may be given out, as numbers.
fn bounds(range: IpNet) -> (u128, u128) {
    let (network, broadcast) = (number(range.network()), number(range.broadcast()));
    match range {
        // A range of one or two has neither network nor broadcast address (RFC 3021, RFC 6164).
        _ if broadcast - network <= 1 => (network, broadcast),
        IpNet::V4(_) => (network + 2, broadcast - 1),
        IpNet::V6(_) => (network + 2, broadcast),
    }
}

/// Whether programs take the address for a host's, whatever they believe about classes.
fn usual(range: IpNet, address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) if range.prefix_len() <= 24 => !matches!(v4.octets()[3], 0 | 255),
        _ => true,
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn address(range: IpNet, number: u128) -> IpAddr {
    match range {
        IpNet::V4(_) => Ipv4Addr::from_bits(u32::try_from(number).unwrap_or(u32::MAX)).into(),
        IpNet::V6(_) => Ipv6Addr::from_bits(number).into(),
    }
}

/// The address that the node itself takes in one of its ranges, so that VEs can be spoken to and
/// can answer over IPv6 on a machine without any: the first host of a private (ULA) range.
pub(crate) fn node_address(range: IpNet) -> Option<Ipv6Addr> {
    match range {
        IpNet::V6(v6) if v6.addr().is_unique_local() && v6.prefix_len() <= 126 => {
            Some(Ipv6Addr::from_bits(v6.network().to_bits() + 1))
        }
        _ => None,
    }
}

/// A node's own private IPv6 network (RFC 4193) from a random seed, such as its UUID.
///
/// The same seed always gives the same network. 40 bits of the seed are used, as the RFC has it:
/// two nodes clash about once in a million million pairs.
#[must_use]
pub fn ula(seed: [u8; 16]) -> Ipv6Net {
    let mut octets = [0; 16];
    octets[0] = 0xfd;
    octets[1..6].copy_from_slice(&seed[..5]);
    Ipv6Net::new_assert(Ipv6Addr::from(octets), 64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn starts_behind_the_gateway_and_goes_on_behind_the_last() {
        assert_eq!(
            first_free(net("10.99.0.0/16"), None, |_| false),
            Some(ip("10.99.0.2"))
        );
        assert_eq!(
            first_free(net("fd00:1::/64"), None, |_| false),
            Some(ip("fd00:1::2"))
        );
        let after = Some(ip("10.99.0.2"));
        assert_eq!(
            first_free(net("10.99.0.0/16"), after, |_| false),
            Some(ip("10.99.0.3"))
        );
        let after = Some(ip("10.99.0.254"));
        assert_eq!(
            first_free(net("10.99.0.0/16"), after, |_| false),
            Some(ip("10.99.1.1"))
        );
        let after = Some(ip("10.99.255.254"));
        assert_eq!(
            first_free(net("10.99.0.0/16"), after, |_| false),
            Some(ip("10.99.0.2"))
        );
        let foreign = Some(ip("192.0.2.1"));
        assert_eq!(
            first_free(net("10.99.0.0/16"), foreign, |_| false),
            Some(ip("10.99.0.2"))
        );
    }

    #[test]
    fn small_ranges_are_used_whole() {
        assert_eq!(
            first_free(net("192.0.2.7/32"), None, |_| false),
            Some(ip("192.0.2.7"))
        );
        assert_eq!(
            first_free(net("192.0.2.0/31"), None, |_| false),
            Some(ip("192.0.2.0"))
        );
        assert_eq!(
            first_free(net("2001:db8::5/128"), None, |_| false),
            Some(ip("2001:db8::5"))
        );
        assert_eq!(
            first_free(net("192.0.2.0/30"), None, |_| false),
            Some(ip("192.0.2.2"))
        );
        assert_eq!(
            first_free(net("192.0.2.0/30"), None, |a| a == ip("192.0.2.2")),
            None
        );
    }

    #[test]
    fn the_ends_of_the_number_space_do_not_overflow() {
        for range in ["0.0.0.0/0", "::/0", "255.255.255.255/32", "ffff::/16"] {
            for after in [
                None,
                Some(net(range).broadcast()),
                Some(net(range).network()),
            ] {
                let _ = first_free(net(range), after, |_| false);
            }
        }
        assert_eq!(first_free(net("224.0.0.0/24"), None, |_| false), None);
    }

    #[test]
    fn refuses_what_is_no_hosts() {
        for text in [
            "0.0.0.0",
            "127.0.0.1",
            "169.254.1.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "ff02::1",
            "::ffff:10.0.0.1",
        ] {
            let error = check(ip(text)).unwrap_err();
            assert!(error.to_string().contains(&ip(text).to_string()), "{error}");
        }
        for text in [
            "10.99.0.2",
            "192.0.2.1",
            "8.8.8.8",
            "fd00::2",
            "2001:db8::1",
        ] {
            assert_eq!(check(ip(text)), Ok(()));
        }
    }

    #[test]
    fn a_nodes_network_is_private_stable_and_its_own() {
        let one = ula([7; 16]);
        assert_eq!(one, ula([7; 16]));
        assert_ne!(one, ula([8; 16]));
        assert_eq!(one.to_string(), "fd07:707:707::/64");
        assert_eq!(
            node_address(one.into()),
            Some("fd07:707:707::1".parse().unwrap())
        );
        assert_eq!(node_address(net("2001:db8::/64")), None);
        assert_eq!(node_address(net("10.0.0.0/8")), None);
    }

    proptest! {
        #[test]
        fn gives_each_address_once_until_the_range_is_full(
            bits in any::<u32>(), length in 24_u8..=32, start in any::<u8>(),
        ) {
            let range = IpNet::new(Ipv4Addr::from_bits(bits | 0x0a00_0000 & 0x0aff_ffff).into(), length).unwrap();
            let mut given = BTreeSet::new();
            let mut after = range.hosts().nth(start.into());
            while let Some(next) = first_free(range, after, |candidate| given.contains(&candidate)) {
                prop_assert!(range.contains(&next));
                prop_assert!(check(next).is_ok());
                prop_assert!(given.insert(next));
                after = Some(next);
            }
            let all = range.hosts().filter(|host| check(*host).is_ok());
            let skipped = all.filter(|host| !given.contains(host)).count();
            prop_assert!(skipped <= 1, "{range}: {skipped} hosts were never given out");
        }

        #[test]
        fn never_gives_what_is_taken(seed in any::<[u8; 16]>(), taken in 0_u128..2_000) {
            let range = IpNet::from(ula(seed));
            let first = number(range.network());
            let next = first_free(range, None, |candidate| number(candidate) - first < taken);
            prop_assert_eq!(next.map(|next| number(next) - first), Some(taken.max(2)));
        }
    }
}
