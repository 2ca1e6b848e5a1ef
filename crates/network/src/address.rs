//! Which addresses a VE may have, and which networks a node makes for itself. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};

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
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
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
}
