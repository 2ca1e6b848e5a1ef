//! What a node's network needs once, whatever the number of VEs: the gateway's address, forwarding,
//! and the packet filter.
//!
//! Several nodes can share one network namespace. What is each one's own carries its first VE
//! number (the filter's table, the metric of its routes); what they share (forwarding, the
//! gateway's address) is put back by the last one that leaves.
//!
//! Invariant: the filter is in force before the node forwards anything.

mod forwarding;
mod ruleset;
pub mod traffic;

use std::io;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::{IpNet, Ipv4Net};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;
use ve::VeId;

use crate::address::node_address;
use crate::fast_path;
use crate::identity::{GATEWAY_V4, LOOPBACK_INDEX};
use crate::link::{self, LinkError};
use crate::message;
use crate::netlink::{Batch, Netlink, NetlinkError, Refusal, Step, ipv6_available};
use crate::nft;
use crate::shape;

pub use crate::nft::NftError;
use forwarding::Previous;
pub(crate) use ruleset::{ranges4, ranges6};

/// Metric of the routes that answer "unreachable" for unused addresses of a range, less the
/// node's first VE number: worse than any route that somebody made on purpose.
const UNREACHABLE_METRIC: u32 = 0x7fff_0000;

/// A node's network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeNetwork {
    /// Numbers that the node's VEs can have. Disjoint between nodes of one machine.
    pub ids: RangeInclusive<VeId>,
    /// Networks that the node's VEs get their addresses from.
    pub ranges: Vec<IpNet>,
    /// Whether VEs reach other networks under the node's own address. IPv6 ranges are translated
    /// only if they are private (ULA): a public one is the VE's way to be reachable.
    pub nat: bool,
}

impl NodeNetwork {
    /// The IPv4 ranges, without those that lie in others.
    pub(crate) fn ranges4(&self) -> Vec<Ipv4Net> {
        let v4 = self.ranges.iter().filter_map(|range| match range {
            IpNet::V4(v4) => Some(*v4),
            IpNet::V6(_) => None,
        });
        Ipv4Net::aggregate(&v4.collect())
    }
}

/// A node's network could not be set up or taken away.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Netlink itself failed.
    #[error("cannot configure the node's network")]
    Netlink(#[from] NetlinkError),
    /// The packet filter.
    #[error("cannot set up the node's packet filter")]
    Filter(#[from] NftError),
    /// A kernel setting could not be read or written.
    #[error("cannot set `{key}` to `{value}`; VEs would reach nothing without it")]
    Setting {
        /// Path of the setting below `/proc/sys`.
        key: String,
        /// Wanted value.
        value: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The kernel refused an address or a route.
    #[error("the kernel refuses {step} of the node's network")]
    Refused {
        /// Which step.
        step: Step,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// A range is too small, or not one of hosts.
    #[error("network {range} cannot be a node's: {reason}; choose another, such as 10.99.0.0/16")]
    Range {
        /// The range in question.
        range: IpNet,
        /// Why not.
        reason: crate::address::Unusable,
    },
    /// The shaping of what VEs send could not be removed.
    #[error("cannot remove the shaping of what VEs send")]
    Shape(#[from] shape::ShapeError),
    /// The fast path could not be removed.
    #[error("cannot remove the fast path of VEs' packets")]
    FastPath(#[from] fast_path::FastPathError),
    /// The node's links could not be removed.
    #[error("cannot remove the links of the node's VEs")]
    Links(#[source] LinkError),
}

/// Sets up a node's network in the calling thread's network namespace, or brings it to what
/// `network` says. Running it again changes nothing that is right already and interrupts nothing.
///
/// # Errors
/// Refuses ranges that no host can be in. What was done before a failure stays; run it again, or
/// [`remove`] it.
pub fn prepare(netlink: &mut Netlink, network: &NodeNetwork) -> Result<(), NodeError> {
    for &range in &network.ranges {
        crate::address::check(range.addr()).map_err(|error| NodeError::Range {
            range,
            reason: error.reason,
        })?;
    }
    let previous = remembered(network)?.map_or_else(|| Previous::read(ipv6_available()), Ok)?;
    nft::apply(
        "install the node's filter",
        &ruleset::ruleset(network, &previous),
    )?;
    forwarding::enable(ipv6_available(), &previous)?;
    let mut batch = Batch::default();
    batch.push(Step::Up, 0, message::up(LOOPBACK_INDEX));
    push_node_addresses(&mut batch, network, ipv6_available());
    push_unreachable(&mut batch, network, ipv6_available());
    let there = |refusal: &Refusal| refusal.is(Errno::EXIST);
    succeed(netlink.run(batch)?, there)
}

/// Whether everything that [`prepare`] set up is still there. If not, call that again.
///
/// Others may remove it: reloading the system's firewall begins with `flush ruleset` on Debian,
/// `ifdown lo` takes the gateway's address, and a new `sysctl.d` file turns forwarding off.
///
/// # Errors
/// Fails when the packet filter, the addresses or the settings cannot be read.
pub fn intact(netlink: &mut Netlink, network: &NodeNetwork) -> Result<bool, NodeError> {
    let gateway = has_gateway(netlink)?;
    let forwards = forwarding::enabled(ipv6_available())?;
    Ok(gateway && forwards && tables()?.contains(&ruleset::table_name(network)))
}

fn has_gateway(netlink: &mut Netlink) -> Result<bool, NodeError> {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    let found = netlink.dump(
        "addresses",
        &RouteNetlinkMessage::GetAddress(message),
        |answer| match answer {
            RouteNetlinkMessage::NewAddress(found) => {
                let gateway = AddressAttribute::Local(GATEWAY_V4.into());
                found.attributes.contains(&gateway).then_some(())
            }
            _ => None,
        },
    )?;
    Ok(!found.is_empty())
}

/// Takes a node's network away: its VEs' links, filter, routes and addresses, and, if it was the
/// last node here, the forwarding that it turned on. Running it again changes nothing.
///
/// # Errors
/// Fails at the first part that the kernel refuses to give up; run it again.
pub fn remove(netlink: &mut Netlink, network: &NodeNetwork) -> Result<(), NodeError> {
    let left = link::list(netlink, network.ids.clone()).map_err(NodeError::Links)?;
    link::remove_if_present(netlink, &left).map_err(NodeError::Links)?;
    let own = ruleset::table_name(network);
    let tables = tables()?;
    let last = tables.iter().all(|table| *table == own);
    let previous = if last { remembered(network)? } else { None };

    let mut batch = Batch::default();
    let metric = metric(network);
    for &range in reachable_ranges(network, ipv6_available()) {
        let route = message::unreachable_route(range, metric);
        batch.push(
            Step::Route(range.addr()),
            0,
            RouteNetlinkMessage::DelRoute(route),
        );
        if let Some(address) = node_address(range) {
            push_loopback_removal(&mut batch, address.into(), AddressScope::Universe);
        }
    }
    if last {
        push_loopback_removal(&mut batch, GATEWAY_V4.into(), AddressScope::Link);
    }
    let gone = |refusal: &Refusal| {
        [Errno::SRCH, Errno::NOENT, Errno::ADDRNOTAVAIL]
            .into_iter()
            .any(|errno| refusal.is(errno))
    };
    succeed(netlink.run(batch)?, gone)?;
    if let Some(previous) = previous {
        forwarding::restore(&previous)?;
    }
    traffic::remove(network)?;
    shape::remove(netlink, network)?;
    fast_path::remove(netlink, network)?;
    // Last, because it holds what was remembered: an interrupted removal can be repeated.
    if tables.contains(&own) {
        nft::apply("remove the node's filter", &ruleset::removal(network))?;
    }
    Ok(())
}

/// Reads what was there before the first node came, as the nodes that are here remember it.
fn remembered(network: &NodeNetwork) -> Result<Option<Previous>, NodeError> {
    let own = ruleset::table_name(network);
    let mut tables = tables()?;
    tables.sort_by_key(|table| *table != own);
    for table in tables {
        let text = nft::list("list a node's filter", &["table", "inet", &table])?;
        if let Some(previous) = ruleset::comment(&text).and_then(Previous::parse) {
            return Ok(Some(previous));
        }
    }
    Ok(None)
}

/// Whether a table of the packet filter is one that some node has made.
pub(crate) fn is_table_of_a_node(name: &str) -> bool {
    let of = |prefix| {
        let number = name.strip_prefix(prefix);
        number.is_some_and(|number| number.parse::<u32>().is_ok())
    };
    [
        ruleset::TABLE_PREFIX,
        traffic::TABLE_PREFIX,
        shape::TABLE_PREFIX,
    ]
    .into_iter()
    .any(of)
}

/// Names of the filter tables of all nodes in this network namespace.
fn tables() -> Result<Vec<String>, NodeError> {
    let text = nft::list("list the filters of nodes", &["tables", "inet"])?;
    Ok(ruleset::node_tables(&text))
}

fn push_node_addresses(batch: &mut Batch, network: &NodeNetwork, ipv6: bool) {
    let gateway = (IpAddr::from(GATEWAY_V4), AddressScope::Link);
    let own = reachable_ranges(network, ipv6)
        .filter_map(|range| node_address(*range))
        .map(|address| (IpAddr::from(address), AddressScope::Universe));
    for (address, scope) in [gateway].into_iter().chain(own) {
        // The gateway's scope is the link, so that the node never speaks from it to others.
        let message = message::address(LOOPBACK_INDEX, address, scope);
        batch.push(
            Step::Address(address),
            NLM_F_CREATE | NLM_F_REPLACE,
            RouteNetlinkMessage::NewAddress(message),
        );
    }
}

/// Without these routes a packet for an address that no VE has would leave by the node's default
/// route, and what VEs say to one that just stopped would be seen outside.
fn push_unreachable(batch: &mut Batch, network: &NodeNetwork, ipv6: bool) {
    for &range in reachable_ranges(network, ipv6) {
        let route = message::unreachable_route(range, metric(network));
        batch.push(
            Step::Route(range.addr()),
            NLM_F_CREATE | NLM_F_EXCL,
            RouteNetlinkMessage::NewRoute(route),
        );
    }
}

fn push_loopback_removal(batch: &mut Batch, address: IpAddr, scope: AddressScope) {
    let message = message::address(LOOPBACK_INDEX, address, scope);
    batch.push(
        Step::Address(address),
        0,
        RouteNetlinkMessage::DelAddress(message),
    );
}

fn reachable_ranges(network: &NodeNetwork, ipv6: bool) -> impl Iterator<Item = &IpNet> {
    network
        .ranges
        .iter()
        .filter(move |range| ipv6 || matches!(range, IpNet::V4(_)))
}

fn metric(network: &NodeNetwork) -> u32 {
    UNREACHABLE_METRIC + network.ids.start().get()
}

fn succeed(refusals: Vec<Refusal>, harmless: impl Fn(&Refusal) -> bool) -> Result<(), NodeError> {
    match refusals.into_iter().find(|refusal| !harmless(refusal)) {
        None => Ok(()),
        Some(first) => Err(NodeError::Refused {
            step: first.step,
            source: first.source,
        }),
    }
}

/// A ruleset like any node's, for finding out whether this host understands it.
pub(crate) fn example_ruleset(nat: bool) -> String {
    let id = VeId::new(VeId::MIN).ok();
    let ranges = ["10.99.0.0/16", "fd00::/64"]
        .iter()
        .filter_map(|range| range.parse().ok());
    id.map_or_else(String::new, |id| {
        let network = NodeNetwork {
            ids: id..=id,
            ranges: ranges.collect(),
            nat,
        };
        // Checked, never put in force, so the number of a node that is here does no harm.
        ruleset::ruleset(&network, &Previous::none())
    })
}
