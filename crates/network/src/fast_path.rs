//! The fast path: packets of VEs past the node's IP stack.
//!
//! ```text
//!   outside --> eth0 --[program]------------------> eth0 of the VE
//!   VE's eth0 --> ve101 --[program]--> neighbour --> outside
//!   VE's eth0 --> ve101 --[program]---------------> eth0 of another VE
//! ```
//!
//! A routed packet goes through the node's stack: the filter, connection tracking, routing, a second queue. That costs
//! a web server in a VE a quarter of its speed. A program at the ingress of the node's own interfaces and of VEs'
//! links hands TCP packets over directly instead, under the same rules: see `program` for what it asks.
//! Whatever it is not sure of goes on through the stack, so that nothing works only with it.
//!
//! Others who decide about forwarded packets are not passed by: while any other firewall, IPsec policy or traffic
//! control is there ([`Obstacle`]), no program is. [`Watch`] tells when to [`FastPath::refresh`].
//!
//! Programs stay attached when the daemon ends, and the next one takes their maps over: flows that are open notice
//! nothing, and no counter begins anew.

mod layout;
mod obstacles;
mod program;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::RangeInclusive;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kernel::bpf::{self, Map, MapKind, Program, ProgramKind};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkLayerType, LinkMessage};
use netlink_packet_route::tc::{TcAttribute, TcMessage};
use rustix::io::Errno;
use ve::VeId;

use crate::identity::{INDICES, interface_index, interface_indices, ve_of_index};
use crate::netlink::{Netlink, NetlinkError};
use crate::node::NodeNetwork;
use crate::node::traffic::{Flow, Traffic};

use layout::field;
pub use obstacles::Obstacle;
use program::{From, Parts};
pub use watch::Watch;

/// Flows that are known at a time, over all VEs; of more the ones that were silent for the longest time take the slow
/// path until the next packet from outside. Takes some 10 MiB of the kernel's memory.
const FLOWS_MAX: u32 = 1 << 16;

const FLOWS_NAME: &str = "ve_flows";
const TRAFFIC_NAME: &str = "ve_traffic";

/// The fast path could not be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum FastPathError {
    /// Netlink itself failed.
    #[error("cannot look at the node's interfaces")]
    Netlink(#[from] NetlinkError),
    /// The programs could not be made.
    #[error("the kernel refuses the programs of the fast path")]
    Program(#[source] io::Error),
    /// A map could not be made, read or written.
    #[error("the kernel refuses a table of the fast path")]
    Map(#[source] io::Error),
    /// A program could not be attached or detached.
    #[error("cannot change which programs interface {index} asks")]
    Hook {
        /// Number of the interface.
        index: u32,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// The fast path of one node.
#[derive(Debug)]
pub struct FastPath {
    network: NodeNetwork,
    traffic: Map,
    from_ve: Program,
    from_outside: Program,
    inner: Mutex<Inner>,
    fresh: bool,
}

#[derive(Debug)]
struct Inner {
    obstacles: Vec<Obstacle>,
    /// The node's own interfaces that have the program.
    outside: BTreeSet<u32>,
}

/// What a VE exchanged by the fast path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// By direction and class, as [`crate::node::traffic`] has it for all else.
    pub traffic: Traffic,
    /// Received since its link was made: the node's end of the link has not seen it.
    pub receive_of_link: Flow,
}

impl FastPath {
    /// Makes the programs of a node, with the tables of those that are still attached from before. Nothing is
    /// attached yet: [`FastPath::refresh`] does that.
    ///
    /// # Errors
    /// Fails where the kernel has no `tcx` hooks (Linux 6.6) or refuses the programs.
    pub fn open(netlink: &mut Netlink, network: &NodeNetwork) -> Result<Self, FastPathError> {
        let (mut links, ves) = links(netlink, &interface_indices(&network.ids))?;
        links.extend(ves);
        let (mut flows, mut traffic) = (None, None);
        for old in attached(network, &links)? {
            for map in old.maps {
                let flow = (FLOWS_NAME, layout::FLOW_KEY_BYTES, layout::FLOW_VALUE_BYTES);
                let count = (
                    TRAFFIC_NAME,
                    layout::TRAFFIC_KEY_BYTES,
                    layout::TRAFFIC_VALUE_BYTES,
                );
                let open = |(name, key, value)| {
                    Map::by_id(map, name, key, value).map_err(FastPathError::Map)
                };
                flows = open(flow)?.or(flows);
                traffic = open(count)?.or(traffic);
            }
        }
        let fresh = traffic.is_none();
        let flows = flows
            .map_or_else(new_flows, Ok)
            .map_err(FastPathError::Map)?;
        let traffic = traffic
            .map_or_else(|| new_traffic(network), Ok)
            .map_err(FastPathError::Map)?;
        let ranges = network.ranges4();
        let parts = Parts {
            flows: &flows,
            traffic: &traffic,
            ranges: &ranges,
            indices: interface_indices(&network.ids),
        };
        let from_ve = load(network, &parts, From::Ve)?;
        let from_outside = load(network, &parts, From::Outside)?;
        Ok(Self {
            network: network.clone(),
            traffic,
            from_ve,
            from_outside,
            inner: Mutex::new(Inner {
                obstacles: obstacles::find(),
                outside: BTreeSet::new(),
            }),
            fresh,
        })
    }

    /// Whether its counters began at 0 now, and not with an earlier daemon.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who else decides about packets of VEs; while anybody does, there is no fast path.
    #[must_use]
    pub fn obstacles(&self) -> Vec<Obstacle> {
        self.inner().obstacles.clone()
    }

    /// Looks who else decides about packets of VEs, and attaches the programs to the links of VEs and to the node's
    /// interfaces, or takes them all away. Programs of an earlier daemon are replaced. Running it again changes nothing.
    ///
    /// # Errors
    /// What was done before a failure stays; run it again.
    pub fn refresh(&self, netlink: &mut Netlink) -> Result<(), FastPathError> {
        let mut inner = self.inner();
        inner.obstacles = obstacles::find();
        let (mut own, ves) = links(netlink, &interface_indices(&self.network.ids))?;
        if !inner.obstacles.is_empty() {
            own.extend(&ves);
            own.extend(&inner.outside);
            inner.outside.clear();
            return detach(&self.network, &own, &[]);
        }
        let controlled = controlled(netlink)?;
        own.retain(|index| !controlled.contains(index));
        let (wanted, gone) = (own, std::mem::take(&mut inner.outside));
        let gone: BTreeSet<u32> = gone.difference(&wanted).copied().collect();
        detach(&self.network, &gone, &[])?;
        for (links, program) in [(&ves, &self.from_ve), (&wanted, &self.from_outside)] {
            for index in links {
                attach(*index, program)?;
            }
        }
        let all: BTreeSet<u32> = ves.union(&wanted).copied().collect();
        inner.outside = wanted;
        let kept = [id_of(&self.from_ve)?, id_of(&self.from_outside)?];
        detach(&self.network, &all, &kept)
    }

    /// Lets a VE use the fast path, or not: one that is held to a rate is counted and delayed in the stack. `new_link` says
    /// that its link was just made.
    ///
    /// # Errors
    /// Fails when the kernel refuses.
    pub fn allow(&self, id: VeId, allowed: bool, new_link: bool) -> Result<(), FastPathError> {
        let key = interface_index(id).to_ne_bytes();
        let mut numbers = self.numbers(&key)?.unwrap_or_default();
        if let Some(mark) = numbers.get_mut(field::ALLOWED) {
            *mark = u64::from(allowed);
        }
        if new_link && let Some(counters) = numbers.get_mut(field::RECEIVE_OF_LINK..field::ALLOWED)
        {
            counters.fill(0);
        }
        let value: Vec<u8> = numbers.iter().flat_map(|one| one.to_ne_bytes()).collect();
        self.traffic.set(&key, &value).map_err(FastPathError::Map)?;
        // Held meanwhile, so that no obstacle comes between.
        let inner = self.inner();
        if new_link && inner.obstacles.is_empty() {
            attach(interface_index(id), &self.from_ve)?;
        }
        Ok(())
    }

    /// What VEs exchanged by the fast path, since the counters began.
    ///
    /// # Errors
    /// Fails when the kernel refuses.
    pub fn passed(&self) -> Result<BTreeMap<VeId, Passed>, FastPathError> {
        let mut found = BTreeMap::new();
        for key in self.traffic.keys().map_err(FastPathError::Map)? {
            let index = key.as_slice().try_into().map(u32::from_ne_bytes);
            let Some(id) = index.ok().and_then(ve_of_index) else {
                continue;
            };
            found.insert(id, self.passed_of(id)?);
        }
        Ok(found)
    }

    /// What one VE exchanged by the fast path.
    ///
    /// # Errors
    /// Fails when the kernel refuses.
    pub fn passed_of(&self, id: VeId) -> Result<Passed, FastPathError> {
        let numbers = self.numbers(&interface_index(id).to_ne_bytes())?;
        Ok(numbers.map_or_else(Passed::default, |numbers| Passed::of(&numbers)))
    }

    fn numbers(&self, key: &[u8]) -> Result<Option<Numbers>, FastPathError> {
        let value = self.traffic.get(key).map_err(FastPathError::Map)?;
        Ok(value.map(|bytes| {
            let mut numbers = Numbers::default();
            for (number, eight) in numbers.iter_mut().zip(bytes.chunks_exact(8)) {
                *number = eight.try_into().map_or(0, u64::from_ne_bytes);
            }
            numbers
        }))
    }
}

/// A value of traffic.
type Numbers = [u64; layout::TRAFFIC_VALUE_BYTES as usize / 8];

impl Passed {
    fn of(numbers: &Numbers) -> Self {
        let flow = |at: usize| Flow {
            packets: numbers.get(at).copied().unwrap_or_default(),
            bytes: numbers.get(at + 1).copied().unwrap_or_default(),
        };
        Self {
            traffic: Traffic {
                receive_inside: flow(field::RECEIVE_INSIDE),
                receive_outside: flow(field::RECEIVE_OUTSIDE),
                transmit_inside: flow(field::TRANSMIT_INSIDE),
                transmit_outside: flow(field::TRANSMIT_OUTSIDE),
            },
            receive_of_link: flow(field::RECEIVE_OF_LINK),
        }
    }
}

/// Takes away what a node has of the fast path, whoever attached it. Running it again changes nothing.
///
/// # Errors
/// Fails when interfaces cannot be listed or the kernel refuses.
pub fn remove(netlink: &mut Netlink, network: &NodeNetwork) -> Result<(), FastPathError> {
    let (mut links, ves) = links(netlink, &interface_indices(&network.ids))?;
    links.extend(ves);
    detach(network, &links, &[])
}

fn new_flows() -> io::Result<Map> {
    Map::create(
        MapKind::LeastRecentlyUsed,
        FLOWS_NAME,
        layout::FLOW_KEY_BYTES,
        layout::FLOW_VALUE_BYTES,
        FLOWS_MAX,
    )
}

/// With a place for every VE that the node can have; room is taken by those that there are.
fn new_traffic(network: &NodeNetwork) -> io::Result<Map> {
    let indices = interface_indices(&network.ids);
    Map::create(
        MapKind::Hash,
        TRAFFIC_NAME,
        layout::TRAFFIC_KEY_BYTES,
        layout::TRAFFIC_VALUE_BYTES,
        indices.end() - indices.start() + 1,
    )
}

fn load(network: &NodeNetwork, parts: &Parts<'_>, from: From) -> Result<Program, FastPathError> {
    let unwritable = || FastPathError::Program(io::ErrorKind::InvalidData.into());
    let text = program::assemble(parts, from).ok_or_else(unwritable)?;
    let name = name(network);
    Program::load(ProgramKind::Packet, &name, layout::LICENSE, &text)
        .map_err(FastPathError::Program)
}

/// What the programs of a node are called.
fn name(network: &NodeNetwork) -> String {
    format!("vessel_{}", network.ids.start())
}

/// The node's own interfaces that packets of VEs can come in by: Ethernet with an IPv4 address, and part of no
/// bridge or bond, which have the packets after them. And those of VEs with these indices.
///
/// In one dump: for each link the kernel looks through all network namespaces for that of its other end.
fn links(
    netlink: &mut Netlink,
    of_ves: &RangeInclusive<u32>,
) -> Result<(BTreeSet<u32>, BTreeSet<u32>), NetlinkError> {
    let addresses = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let with_address = netlink.dump("addresses", &addresses, |answer| match answer {
        RouteNetlinkMessage::NewAddress(found) => {
            let v4 = found.header.family == netlink_packet_route::AddressFamily::Inet;
            v4.then_some(found.header.index)
        }
        _ => None,
    })?;
    let mut links = LinkMessage::default();
    links.attributes = vec![LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])];
    let links = RouteNetlinkMessage::GetLink(links);
    let found = netlink.dump("links", &links, |answer| {
        let RouteNetlinkMessage::NewLink(link) = answer else {
            return None;
        };
        let index = link.header.index;
        if let Some(id) = ve_of_index(index).filter(|_| of_ves.contains(&index)) {
            let name = id.interface_name();
            let named = |attribute: &LinkAttribute| matches!(attribute, LinkAttribute::IfName(found) if *found == name);
            return link.attributes.iter().any(named).then_some(index);
        }
        let bound = |attribute: &LinkAttribute| matches!(attribute, LinkAttribute::Controller(_));
        let usable = link.header.link_layer_type == LinkLayerType::Ether
            && !INDICES.contains(&index)
            && with_address.contains(&index)
            && !link.attributes.iter().any(bound);
        usable.then_some(index)
    })?;
    let (ves, outside) = found.into_iter().partition(|index| of_ves.contains(index));
    Ok((outside, ves))
}

/// Interfaces with traffic control at their ingress, which packets of the fast path would not come to.
fn controlled(netlink: &mut Netlink) -> Result<BTreeSet<u32>, NetlinkError> {
    let message = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default());
    let found = netlink.dump("queues", &message, |answer| match answer {
        RouteNetlinkMessage::NewQueueDiscipline(queue) => {
            let at_ingress = |attribute: &TcAttribute| matches!(attribute, TcAttribute::Kind(kind) if kind == "ingress" || kind == "clsact");
            let found = queue.attributes.iter().any(at_ingress);
            found.then(|| queue.header.index.cast_unsigned())
        }
        _ => None,
    })?;
    Ok(found.into_iter().collect())
}

/// A program of a node's at a link.
#[derive(Debug)]
struct Attached {
    link: u32,
    program: Program,
    /// Its number.
    id: u32,
    /// Numbers of its maps.
    maps: Vec<u32>,
}

/// The programs of a node that are attached to some links.
fn attached(network: &NodeNetwork, links: &BTreeSet<u32>) -> Result<Vec<Attached>, FastPathError> {
    let name = name(network);
    let mut found = Vec::new();
    for &link in links {
        // A link that went meanwhile has none.
        let ids = unless(link, bpf::ingress_programs(link), &[Errno::NODEV])?;
        for id in ids.unwrap_or_default() {
            // One that went meanwhile is nobody's.
            let Ok(program) = Program::by_id(id) else {
                continue;
            };
            let described = program.description().map_err(FastPathError::Program)?;
            if described.name == name {
                found.push(Attached {
                    link,
                    program,
                    id,
                    maps: described.maps,
                });
            }
        }
    }
    Ok(found)
}

fn id_of(program: &Program) -> Result<u32, FastPathError> {
    let described = program.description().map_err(FastPathError::Program)?;
    Ok(described.id)
}

fn attach(index: u32, program: &Program) -> Result<(), FastPathError> {
    let attached = bpf::attach_ingress(index, program);
    unless(index, attached, &[Errno::EXIST, Errno::NODEV]).map(|_| ())
}

/// Detaches all programs of a node from links but those of these numbers.
fn detach(network: &NodeNetwork, links: &BTreeSet<u32>, kept: &[u32]) -> Result<(), FastPathError> {
    let attached = attached(network, links)?;
    for one in attached.iter().filter(|one| !kept.contains(&one.id)) {
        let detached = bpf::detach_ingress(one.link, &one.program);
        unless(one.link, detached, &[Errno::NOENT, Errno::NODEV])?;
    }
    Ok(())
}

/// What the kernel answered about an interface's programs; nothing if it refused with one of these, which say that
/// it is already as it is to be.
fn unless<T>(
    index: u32,
    answer: io::Result<T>,
    harmless: &[Errno],
) -> Result<Option<T>, FastPathError> {
    let is_harmless = |error: &io::Error| {
        harmless
            .iter()
            .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
    };
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if is_harmless(&error) => Ok(None),
        Err(source) => Err(FastPathError::Hook { index, source }),
    }
}
