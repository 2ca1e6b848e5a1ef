//! The node's other networks: whether a range of VEs' addresses collides with one, and making a
//! VE's address known on one.
//!
//! A VE may have an address of the network that the node itself is in ("192.0.2.50, like any other
//! server here"). Other hosts there ask for its hardware address by ARP or neighbour discovery, and
//! the node answers for it ([`announce`]). No setting makes it answer for anything else.

use std::fs;
use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType,
};
use rustix::io::Errno;

use crate::identity::{LOOPBACK_INDEX, ve_of_index};
use crate::message;
use crate::netlink::{Batch, Netlink, NetlinkError, Step};

/// A network that the node reaches through one of its own interfaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostNetwork {
    /// The network.
    pub network: IpNet,
    /// Index of the interface.
    pub index: u32,
    /// Whether its hosts are on the link itself, not behind a gateway.
    pub on_link: bool,
}

/// An address could not be made known, or the node's networks could not be listed.
#[derive(Debug, thiserror::Error)]
pub enum UplinkError {
    /// Netlink itself failed.
    #[error("cannot look at the node's networks")]
    Netlink(#[from] NetlinkError),
    /// The kernel would not answer for an address.
    #[error("cannot make address {address} known on the node's network")]
    Announce {
        /// The address in question.
        address: IpAddr,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
}

/// Lists the networks that the node reaches by routes other than its default ones and VEs'.
///
/// # Errors
/// Fails when the kernel does not answer.
pub fn networks(netlink: &mut Netlink) -> Result<Vec<HostNetwork>, NetlinkError> {
    let message = RouteNetlinkMessage::GetRoute(RouteMessage::default());
    netlink.dump("routes", &message, |answer| match answer {
        RouteNetlinkMessage::NewRoute(route) => host_network(&route),
        _ => None,
    })
}

/// Finds the node's networks that have addresses in common with a range.
///
/// None means that the range is free here. For `init`, before it takes a range for VEs.
///
/// # Errors
/// Fails when the kernel does not answer.
pub fn overlaps(netlink: &mut Netlink, range: IpNet) -> Result<Vec<IpNet>, NetlinkError> {
    let mut found: Vec<IpNet> = networks(netlink)?
        .into_iter()
        .map(|found| found.network)
        .filter(|network| network.contains(&range) || range.contains(network))
        .collect();
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// The largest packet that leaves the node whole, in bytes: the smallest MTU of the interfaces that
/// its default routes go by. `None` where there is no default route.
///
/// A VE whose own link took larger packets would have each first one answered by "fragmentation
/// needed" (RFC 1191), which is lost wherever somebody filters ICMP.
///
/// # Errors
/// Fails when the kernel does not answer.
pub fn mtu(netlink: &mut Netlink) -> Result<Option<u32>, NetlinkError> {
    let message = RouteNetlinkMessage::GetRoute(RouteMessage::default());
    let uplinks = netlink.dump("routes", &message, |answer| match answer {
        RouteNetlinkMessage::NewRoute(route) => default_route(&route),
        _ => None,
    })?;
    if uplinks.is_empty() {
        return Ok(None);
    }
    let message = RouteNetlinkMessage::GetLink(LinkMessage::default());
    let found = netlink.dump("links", &message, |answer| {
        let RouteNetlinkMessage::NewLink(link) = answer else {
            return None;
        };
        let mtu = link
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                LinkAttribute::Mtu(mtu) => Some(*mtu),
                _ => None,
            });
        mtu.filter(|_| uplinks.contains(&link.header.index))
    })?;
    Ok(found.into_iter().min())
}

/// The interface that a default route goes by.
fn default_route(route: &RouteMessage) -> Option<u32> {
    let header = &route.header;
    let usable = header.table == RouteHeader::RT_TABLE_MAIN
        && header.kind == RouteType::Unicast
        && header.destination_prefix_length == 0;
    route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) if usable && *index != LOOPBACK_INDEX => Some(*index),
            _ => None,
        })
}

/// Makes the node answer for those addresses that lie in a network on one of its own links, and
/// returns them. Addresses of other networks need a route to the node from elsewhere.
///
/// # Errors
/// Fails when the kernel refuses an address.
pub fn announce(netlink: &mut Netlink, addresses: &[IpAddr]) -> Result<Vec<IpAddr>, UplinkError> {
    let networks = networks(netlink)?;
    let mut announced = Vec::new();
    let mut batch = Batch::default();
    for &address in addresses {
        let Some(index) = link_of(&networks, address) else {
            continue;
        };
        if address.is_ipv6() {
            answer_for_neighbours(netlink, index)
                .map_err(|source| UplinkError::Announce { address, source })?;
        }
        let message = RouteNetlinkMessage::NewNeighbour(message::proxy(index, address));
        batch.push(
            Step::Neighbour(address),
            NLM_F_CREATE | NLM_F_REPLACE,
            message,
        );
        announced.push(address);
    }
    succeed(netlink, batch, &[])?;
    Ok(announced)
}

/// Stops answering for addresses. Those that were never announced are fine.
///
/// # Errors
/// Fails when the kernel refuses for another reason than that it knows nothing of them.
pub fn withdraw(netlink: &mut Netlink, addresses: &[IpAddr]) -> Result<(), UplinkError> {
    let networks = networks(netlink)?;
    let mut batch = Batch::default();
    for &address in addresses {
        let Some(index) = link_of(&networks, address) else {
            continue;
        };
        let message = RouteNetlinkMessage::DelNeighbour(message::proxy(index, address));
        batch.push(Step::Neighbour(address), 0, message);
    }
    succeed(netlink, batch, &[Errno::NOENT, Errno::NODEV])
}

fn succeed(netlink: &mut Netlink, batch: Batch, harmless: &[Errno]) -> Result<(), UplinkError> {
    let refusals = netlink.run(batch)?;
    let first = refusals
        .into_iter()
        .find(|one| !harmless.iter().any(|errno| one.is(*errno)));
    match first.map(|refusal| (refusal.step, refusal.source)) {
        Some((Step::Neighbour(address), source)) => Err(UplinkError::Announce { address, source }),
        _ => Ok(()),
    }
}

/// The interface whose link an address is on, by the longest match.
fn link_of(networks: &[HostNetwork], address: IpAddr) -> Option<u32> {
    networks
        .iter()
        .filter(|found| found.on_link && found.network.contains(&address))
        .max_by_key(|found| found.network.prefix_len())
        .map(|found| found.index)
}

fn host_network(route: &RouteMessage) -> Option<HostNetwork> {
    let header = &route.header;
    if header.table != RouteHeader::RT_TABLE_MAIN || header.kind != RouteType::Unicast {
        return None;
    }
    let mut destination = None;
    let mut index = None;
    let mut on_link = true;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(v4)) => destination = Some((*v4).into()),
            RouteAttribute::Destination(RouteAddress::Inet6(v6)) => {
                destination = Some((*v6).into());
            }
            RouteAttribute::Oif(found) => index = Some(*found),
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => on_link = false,
            _ => {}
        }
    }
    let network = IpNet::new(destination?, header.destination_prefix_length).ok()?;
    let index = index.filter(|&index| index != LOOPBACK_INDEX && ve_of_index(index).is_none())?;
    let local = crate::address::check(network.addr()).is_err();
    (!local).then_some(HostNetwork {
        network,
        index,
        on_link,
    })
}

/// Lets the kernel answer neighbour solicitations for the addresses that it is told to.
fn answer_for_neighbours(netlink: &mut Netlink, index: u32) -> Result<(), io::Error> {
    let Some(name) = interface_name(netlink, index).map_err(io::Error::other)? else {
        return Err(Errno::NODEV.into());
    };
    fs::write(format!("/proc/sys/net/ipv6/conf/{name}/proxy_ndp"), "1")
}

fn interface_name(netlink: &mut Netlink, index: u32) -> Result<Option<String>, NetlinkError> {
    let message = RouteNetlinkMessage::GetLink(LinkMessage::default());
    let found = netlink.dump("links", &message, |answer| {
        let RouteNetlinkMessage::NewLink(link) = answer else {
            return None;
        };
        let mut names = link
            .attributes
            .into_iter()
            .filter_map(|attribute| match attribute {
                LinkAttribute::IfName(name) => Some(name),
                _ => None,
            });
        (link.header.index == index).then(|| names.next()).flatten()
    })?;
    Ok(found.into_iter().next())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str, index: u32, on_link: bool) -> HostNetwork {
        HostNetwork {
            network: text.parse().unwrap(),
            index,
            on_link,
        }
    }

    #[test]
    fn an_address_is_on_the_link_of_its_narrowest_network() {
        let networks = [
            network("192.0.2.0/24", 2, true),
            network("192.0.2.128/25", 3, true),
            network("198.51.100.0/24", 2, false),
        ];
        assert_eq!(link_of(&networks, "192.0.2.5".parse().unwrap()), Some(2));
        assert_eq!(link_of(&networks, "192.0.2.200".parse().unwrap()), Some(3));
        assert_eq!(link_of(&networks, "198.51.100.5".parse().unwrap()), None);
        assert_eq!(link_of(&networks, "2001:db8::1".parse().unwrap()), None);
    }
}
