//! The host's end of a VE's link: making it, its addresses, removing it, listing all.
//!
//! Made by the launcher once the VE's network namespace exists, with one batch: pair, parameters,
//! up, gateway address, and for each address of the VE a route and a permanent neighbour entry.
//! When the VE's network namespace ends, the pair goes with it; [`remove_if_present`] is for when
//! it must be gone now, or when a stray process keeps the namespace alive.
//!
//! Invariants: an address is routed to one link only (a second one is refused, never taken over),
//! and a failed [`create`] leaves no link.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::thread;
use std::time::{Duration, Instant};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressScope;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use rustix::io::Errno;
use ve::VeId;

use crate::identity::{
    GATEWAY_V4, GATEWAY_V6, HOST_MAC, INSIDE_INDEX, INSIDE_NAME, inside_mac, interface_index,
    ve_of_index,
};
use crate::message::{self, End};
use crate::netlink::{Batch, Netlink, NetlinkError, Refusal, Step, ipv6_available};

pub use crate::message::Target;

/// Numbers of the IPv4 switches below (`IPV4_DEVCONF_*` in `linux/ip.h`; they are ABI).
mod switch {
    pub(super) const FORWARDING: u16 = 1;
    pub(super) const PROXY_ARP: u16 = 3;
    pub(super) const ACCEPT_REDIRECTS: u16 = 4;
    pub(super) const SEND_REDIRECTS: u16 = 6;
    pub(super) const RP_FILTER: u16 = 8;
    pub(super) const ACCEPT_SOURCE_ROUTE: u16 = 9;
    pub(super) const ARP_IGNORE: u16 = 19;
    pub(super) const ARP_ACCEPT: u16 = 21;
    pub(super) const ACCEPT_LOCAL: u16 = 23;
    pub(super) const ROUTE_LOCALNET: u16 = 26;
    pub(super) const BC_FORWARDING: u16 = 32;
}

/// IPv4 switches of each host end. New interfaces copy `net.ipv4.conf.default`, which the
/// administrator may have changed for reasons of his own, so each one that matters is set.
const HOST_SWITCHES: &[(u16, u32)] = &[
    (switch::FORWARDING, 1),
    // The node is the gateway by a permanent neighbour entry; it answers for nobody else.
    (switch::PROXY_ARP, 0),
    (switch::ACCEPT_REDIRECTS, 0),
    (switch::SEND_REDIRECTS, 0),
    // Strict: drops forged sources a second time, and makes the kernel ignore ARP requests from
    // addresses that are not the VE's, which would fill the neighbour table.
    (switch::RP_FILTER, 1),
    (switch::ACCEPT_SOURCE_ROUTE, 0),
    // A VE that has lost its permanent entry may ask for the gateway, which is on `lo`.
    (switch::ARP_IGNORE, 0),
    (switch::ARP_ACCEPT, 0),
    (switch::ACCEPT_LOCAL, 0),
    (switch::ROUTE_LOCALNET, 0),
    (switch::BC_FORWARDING, 0),
];

/// How often [`wait_gone`] looks. The kernel tears namespaces down in batches of tens of
/// milliseconds.
const GONE_POLL: Duration = Duration::from_millis(2);

/// Whether the host's end starts to carry traffic at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostEnd {
    /// Up with all routes.
    Up,
    /// Down and without routes until [`activate`]. For a restored VE: a packet that reached its
    /// namespace before its sockets exist would be answered with a reset.
    Down,
}

/// A link to be made.
#[derive(Clone, Copy, Debug)]
pub struct LinkSpec<'a> {
    /// Whose link; decides names, indices and hardware addresses.
    pub id: VeId,
    /// The VE's addresses, in the order in which it prefers them as source.
    pub addresses: &'a [IpAddr],
    /// Network namespace of the VE's end.
    pub target: Target<'a>,
    /// Largest packet in bytes, if not the kernel's default (1,500).
    pub mtu: Option<u32>,
    /// Whether the host's end starts to carry traffic at once.
    pub host_end: HostEnd,
}

/// A link could not be made, changed or removed.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Netlink itself failed.
    #[error("cannot configure the link of VE {id}")]
    Netlink {
        /// Whose link.
        id: VeId,
        /// What failed.
        #[source]
        source: NetlinkError,
    },
    /// The index that belongs to the VE is another interface's.
    #[error(
        "interface index {index} of VE {id}'s link is taken by another interface; \
         find it with `ip link show` and remove it"
    )]
    IndexTaken {
        /// Whose link.
        id: VeId,
        /// Index that the link needs.
        index: u32,
    },
    /// The address is routed elsewhere.
    #[error(
        "address {address} of VE {id} is already routed elsewhere on this node; \
         see `ip route show {address}`, or give the VE another address"
    )]
    AddressTaken {
        /// Whose link.
        id: VeId,
        /// The address in question.
        address: IpAddr,
    },
    /// The gateway's address is not on the node's loopback interface.
    #[error(
        "the node's network is not set up, so VE {id} would have no gateway ({GATEWAY_V4} is \
         missing on `lo`); start the node's daemon again"
    )]
    NodeUnprepared {
        /// Whose link.
        id: VeId,
    },
    /// The VE has no link.
    #[error("VE {id} has no link; is it running?")]
    Missing {
        /// Whose link.
        id: VeId,
    },
    /// The kernel refused a step.
    #[error("the kernel refuses {step}, of VE {id}")]
    Refused {
        /// Whose link.
        id: VeId,
        /// Which step.
        step: Step,
        /// The kernel's reason.
        #[source]
        source: std::io::Error,
    },
    /// Links could not be listed.
    #[error("cannot list links")]
    List(#[source] NetlinkError),
}

/// Makes a VE's link, both ends, and with [`HostEnd::Up`] everything that the host's end needs.
///
/// The VE's end stays down until [`crate::inside::configure`]. A link of the same name, left by a
/// launch that died, is removed first: the caller makes sure that the VE is not running.
///
/// # Errors
/// Refuses an address that is routed to another link. On any failure nothing is left.
pub fn create(netlink: &mut Netlink, spec: &LinkSpec<'_>) -> Result<(), LinkError> {
    make_pair(netlink, spec)?;
    let index = interface_index(spec.id);
    let mut batch = Batch::default();
    batch.push(
        Step::Parameters,
        0,
        message::parameters(index, HOST_SWITCHES, ipv6_available()),
    );
    if spec.host_end == HostEnd::Up {
        push_activation(&mut batch, spec.id, spec.addresses);
    }
    let done = run(netlink, spec.id, batch).and_then(|refusals| succeed(spec.id, refusals));
    if done.is_err() {
        // The cause is worth more than a failure to clean up, which the next sweep repeats.
        let _ = remove_if_present(netlink, &[spec.id]);
    }
    done
}

/// Makes the pair alone: if its index is another interface's, what follows must not reach that.
fn make_pair(netlink: &mut Netlink, spec: &LinkSpec<'_>) -> Result<(), LinkError> {
    let id = spec.id;
    let name = id.interface_name();
    let near = End {
        name: &name,
        index: interface_index(id),
        mac: HOST_MAC,
    };
    let far = End {
        name: INSIDE_NAME,
        index: INSIDE_INDEX,
        mac: inside_mac(id),
    };
    let attempt = |netlink: &mut Netlink| {
        let mut batch = Batch::default();
        let message = message::new_veth(near, far, spec.target, spec.mtu);
        batch.push(Step::Link, NLM_F_CREATE | NLM_F_EXCL, message);
        run(netlink, id, batch)
    };
    let refusals = attempt(netlink)?;
    if !refusals.iter().any(|refusal| refusal.is(Errno::EXIST)) {
        return succeed(id, refusals);
    }
    // The kernel says the same of a name and of an index that is taken.
    if remove_if_present(netlink, &[id])? == 0 {
        return Err(LinkError::IndexTaken {
            id,
            index: near.index,
        });
    }
    succeed(id, attempt(netlink)?)
}

/// Brings up a host's end that was made [`HostEnd::Down`], with its routes.
///
/// # Errors
/// Refuses an address that is routed to another link, and a VE without a link.
pub fn activate(netlink: &mut Netlink, id: VeId, addresses: &[IpAddr]) -> Result<(), LinkError> {
    let mut batch = Batch::default();
    push_activation(&mut batch, id, addresses);
    succeed(id, run(netlink, id, batch)?)
}

fn push_activation(batch: &mut Batch, id: VeId, addresses: &[IpAddr]) {
    batch.push(Step::Up, 0, message::up(interface_index(id)));
    push_addresses(batch, id, addresses);
}

/// Routes and neighbour entries of addresses, and the IPv6 gateway if one of them needs it.
fn push_addresses(batch: &mut Batch, id: VeId, addresses: &[IpAddr]) {
    let index = interface_index(id);
    if addresses.iter().any(IpAddr::is_ipv6) {
        // Alone on its network: the usual /64 would add two routes for each VE to tables that the
        // kernel walks whenever a link comes up, and nothing is ever sent to `fe80::` of a VE.
        let gateway = message::address(index, GATEWAY_V6.into(), AddressScope::Link);
        batch.push(
            Step::Address(GATEWAY_V6.into()),
            NLM_F_CREATE | NLM_F_REPLACE,
            RouteNetlinkMessage::NewAddress(gateway),
        );
    }
    for &address in addresses {
        let route = message::host_route(index, address, address.is_ipv4().then_some(GATEWAY_V4));
        batch.push(
            Step::Route(address),
            NLM_F_CREATE | NLM_F_EXCL,
            RouteNetlinkMessage::NewRoute(route),
        );
        let neighbour = message::neighbour(index, address, inside_mac(id));
        batch.push(
            Step::Neighbour(address),
            NLM_F_CREATE | NLM_F_REPLACE,
            RouteNetlinkMessage::NewNeighbour(neighbour),
        );
    }
}

/// Changes the addresses of a live link, on the host's side. Addresses in both lists keep their
/// connections. The VE's side is [`crate::inside::set_addresses`].
///
/// # Errors
/// Refuses an address that is routed to another link; then the old ones stay as they were.
pub fn set_addresses(
    netlink: &mut Netlink,
    id: VeId,
    old: &[IpAddr],
    new: &[IpAddr],
) -> Result<(), LinkError> {
    let added: Vec<IpAddr> = new
        .iter()
        .copied()
        .filter(|one| !old.contains(one))
        .collect();
    let mut batch = Batch::default();
    push_addresses(&mut batch, id, &added);
    let refusals = run(netlink, id, batch)?;
    if !refusals.is_empty() {
        let refused: Vec<IpAddr> = refusals.iter().filter_map(refused_route).collect();
        let made: Vec<IpAddr> = added
            .into_iter()
            .filter(|one| !refused.contains(one))
            .collect();
        // The cause is worth more than a failure to undo: the link ends with the VE anyway.
        let _ = withdraw(netlink, id, &made);
        return succeed(id, refusals);
    }
    let removed: Vec<IpAddr> = old
        .iter()
        .copied()
        .filter(|one| !new.contains(one))
        .collect();
    withdraw(netlink, id, &removed)
}

fn refused_route(refusal: &Refusal) -> Option<IpAddr> {
    match refusal.step {
        Step::Route(address) => Some(address),
        _ => None,
    }
}

/// Takes routes and neighbour entries away; what is gone already is fine.
fn withdraw(netlink: &mut Netlink, id: VeId, addresses: &[IpAddr]) -> Result<(), LinkError> {
    let index = interface_index(id);
    let mut batch = Batch::default();
    for &address in addresses {
        let route = message::host_route(index, address, None);
        batch.push(
            Step::Route(address),
            0,
            RouteNetlinkMessage::DelRoute(route),
        );
        let neighbour = message::neighbour(index, address, inside_mac(id));
        batch.push(
            Step::Neighbour(address),
            0,
            RouteNetlinkMessage::DelNeighbour(neighbour),
        );
    }
    let gone = |refusal: &Refusal| {
        [Errno::SRCH, Errno::NOENT, Errno::NODEV]
            .into_iter()
            .any(|errno| refusal.is(errno))
    };
    let refusals = run(netlink, id, batch)?;
    succeed(
        id,
        refusals
            .into_iter()
            .filter(|refusal| !gone(refusal))
            .collect(),
    )
}

/// Removes the links of several VEs with one batch and says how many there were.
///
/// Costs about 20 ms in the kernel for each. Where a VE just ended, [`wait_gone`] is cheaper.
///
/// # Errors
/// Fails when the kernel refuses for another reason than that there is no such link.
pub fn remove_if_present(netlink: &mut Netlink, ids: &[VeId]) -> Result<usize, LinkError> {
    let Some(&first) = ids.first() else {
        return Ok(0);
    };
    let mut batch = Batch::default();
    for id in ids {
        batch.push(Step::Link, 0, message::delete_link(&id.interface_name()));
    }
    let refusals = run(netlink, first, batch)?;
    let absent = refusals
        .iter()
        .filter(|refusal| refusal.is(Errno::NODEV))
        .count();
    let others = refusals
        .into_iter()
        .filter(|refusal| !refusal.is(Errno::NODEV))
        .collect();
    succeed(first, others)?;
    Ok(ids.len() - absent)
}

/// Waits until a VE's link has gone with its network namespace; false when it has not in time.
///
/// # Errors
/// Fails when links cannot be listed.
pub fn wait_gone(netlink: &mut Netlink, id: VeId, timeout: Duration) -> Result<bool, LinkError> {
    let deadline = Instant::now() + timeout;
    while exists(netlink, id)? {
        if Instant::now() >= deadline {
            return Ok(false);
        }
        thread::sleep(GONE_POLL);
    }
    Ok(true)
}

fn exists(netlink: &mut Netlink, id: VeId) -> Result<bool, LinkError> {
    let mut batch = Batch::default();
    batch.push(Step::Link, 0, message::get_link(interface_index(id)));
    let refusals = run(netlink, id, batch)?;
    if refusals.iter().any(|refusal| refusal.is(Errno::NODEV)) {
        return Ok(false);
    }
    succeed(id, refusals).map(|()| true)
}

/// Lists the VEs of a range that have a link here, in order. For adoption and for leak sweeps.
///
/// # Errors
/// Fails when links cannot be listed.
pub fn list(netlink: &mut Netlink, ids: RangeInclusive<VeId>) -> Result<Vec<VeId>, LinkError> {
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])];
    let mut found = netlink
        .dump("links", &RouteNetlinkMessage::GetLink(message), |answer| {
            let RouteNetlinkMessage::NewLink(link) = answer else { return None };
            let id = ve_of_index(link.header.index).filter(|id| ids.contains(id))?;
            let name = id.interface_name();
            let ours = |attribute: &LinkAttribute| matches!(attribute, LinkAttribute::IfName(found) if *found == name);
            link.attributes.iter().any(ours).then_some(id)
        })
        .map_err(LinkError::List)?;
    found.sort_unstable();
    Ok(found)
}

fn run(netlink: &mut Netlink, id: VeId, batch: Batch) -> Result<Vec<Refusal>, LinkError> {
    netlink
        .run(batch)
        .map_err(|source| LinkError::Netlink { id, source })
}

fn succeed(id: VeId, refusals: Vec<Refusal>) -> Result<(), LinkError> {
    refusals
        .into_iter()
        .next()
        .map_or(Ok(()), |first| Err(link_error(id, first)))
}

fn link_error(id: VeId, refusal: Refusal) -> LinkError {
    match refusal.step {
        Step::Link if refusal.is(Errno::BUSY) => LinkError::IndexTaken {
            id,
            index: interface_index(id),
        },
        Step::Route(address) if refusal.is(Errno::EXIST) => LinkError::AddressTaken { id, address },
        // The kernel routes from an address only if the node has it.
        Step::Route(IpAddr::V4(_)) if refusal.is(Errno::INVAL) => LinkError::NodeUnprepared { id },
        _ if refusal.is(Errno::NODEV) => LinkError::Missing { id },
        step => LinkError::Refused {
            id,
            step,
            source: refusal.source,
        },
    }
}
