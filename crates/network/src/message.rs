//! The requests that this crate sends, one function each.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use ipnet::IpNet;
use netlink_packet_core::DefaultNla;
use netlink_packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
    RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

/// Marks our routes in `ip route` (`proto 86`), so that they can be told from others. The numbers
/// from 5 up are for programs (`linux/rtnetlink.h`); 86 is taken by none of them.
const PROTOCOL: RouteProtocol = RouteProtocol::Other(86);

/// Where the VE's end of a new link goes.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// The network namespace of this process.
    Pid(u32),
    /// The network namespace behind this descriptor.
    Fd(BorrowedFd<'a>),
}

/// One end of a new link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End<'a> {
    pub(crate) name: &'a str,
    pub(crate) index: u32,
    pub(crate) mac: [u8; 6],
}

/// Makes a veth pair; `far` appears in `target` at once, `near` here, both down.
pub(crate) fn new_veth(
    near: End<'_>,
    far: End<'_>,
    target: Target<'_>,
    mtu: Option<u32>,
) -> RouteNetlinkMessage {
    let mut peer = end(far, mtu);
    peer.attributes.push(match target {
        Target::Pid(pid) => LinkAttribute::NetNsPid(pid),
        Target::Fd(descriptor) => LinkAttribute::NetNsFd(descriptor.as_raw_fd()),
    });
    let mut message = end(near, mtu);
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    RouteNetlinkMessage::NewLink(message)
}

fn end(end: End<'_>, mtu: Option<u32>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = end.index;
    message.attributes = vec![
        LinkAttribute::IfName(end.name.to_owned()),
        LinkAttribute::Address(end.mac.to_vec()),
        // The kernel would make as many as there are processors. Without XDP or a queueing
        // discipline they do nothing but cost memory.
        LinkAttribute::NumTxQueues(1),
        LinkAttribute::NumRxQueues(1),
    ];
    message.attributes.extend(mtu.map(LinkAttribute::Mtu));
    message
}

/// Makes a device that gives back what it is given, and brings it up.
pub(crate) fn new_ifb(name: &str) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Ifb)]),
    ];
    RouteNetlinkMessage::NewLink(message)
}

/// Asks for a link, to learn whether it is there.
pub(crate) fn get_link(index: u32) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    RouteNetlinkMessage::GetLink(message)
}

/// Removes the link of this name.
pub(crate) fn delete_link(name: &str) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::IfName(name.to_owned())];
    RouteNetlinkMessage::DelLink(message)
}

/// Brings a link up.
pub(crate) fn up(index: u32) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    RouteNetlinkMessage::SetLink(message)
}

/// Sets a link's IPv4 switches (pairs of `IPV4_DEVCONF_*` and value) and, with `ipv6`, keeps the
/// kernel from giving it link-local addresses of its own choice.
///
/// The same switches through `/proc/sys` would be an open, a write and a close each.
pub(crate) fn parameters(index: u32, switches: &[(u16, u32)], ipv6: bool) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    let mut families = vec![inet_switches(switches)];
    if ipv6 {
        families.push(AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(
            In6AddrGenMode::None,
        )]));
    }
    message.attributes = vec![LinkAttribute::AfSpecUnspec(families)];
    RouteNetlinkMessage::SetLink(message)
}

/// `AF_INET { IFLA_INET_CONF { switch: u32 ... } }`, as `inet_set_link_af` in `net/ipv4/devinet.c`
/// reads it. The library's type for it has the layout of answers, which is another.
fn inet_switches(switches: &[(u16, u32)]) -> AfSpecUnspec {
    const IFLA_INET_CONF: u16 = 1;
    const HEADER_BYTES: u16 = 4;
    const SWITCH_BYTES: u16 = 8;
    let mut bytes = Vec::new();
    let length = HEADER_BYTES
        + u16::try_from(switches.len()).map_or(0, |count| count.saturating_mul(SWITCH_BYTES));
    bytes.extend(length.to_ne_bytes());
    bytes.extend(IFLA_INET_CONF.to_ne_bytes());
    for (switch, value) in switches {
        bytes.extend(SWITCH_BYTES.to_ne_bytes());
        bytes.extend(switch.to_ne_bytes());
        bytes.extend(value.to_ne_bytes());
    }
    AfSpecUnspec::Other(DefaultNla::new(u8::from(AddressFamily::Inet).into(), bytes))
}

/// An address of an interface, without duplicate address detection: whoever gives out addresses
/// has made sure of that already, and a second of waiting at each start is worth avoiding.
pub(crate) fn address(index: u32, address: IpAddr, scope: AddressScope) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address);
    message.header.prefix_len = full_length(address);
    message.header.scope = scope;
    message.header.index = index;
    message.attributes = vec![
        AddressAttribute::Address(address),
        AddressAttribute::Local(address),
    ];
    if address.is_ipv6() {
        message.header.flags = AddressHeaderFlags::Nodad;
    }
    message
}

/// A permanent neighbour entry: never resolved, never aged, not counted against the one table of
/// 1,024 entries that all network namespaces share.
pub(crate) fn neighbour(index: u32, address: IpAddr, mac: [u8; 6]) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.attributes = vec![
        NeighbourAttribute::Destination(match address {
            IpAddr::V4(address) => NeighbourAddress::Inet(address),
            IpAddr::V6(address) => NeighbourAddress::Inet6(address),
        }),
        NeighbourAttribute::LinkLayerAddress(mac.to_vec()),
    ];
    message
}

/// "Answer for this address on this interface."
pub(crate) fn proxy(index: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = neighbour(index, address, [0; 6]);
    message.attributes.truncate(1);
    message.header.flags = NeighbourFlags::Proxy;
    message
}

/// The route to one address through a link; the node speaks over it from `source`.
pub(crate) fn host_route(index: u32, address: IpAddr, source: Option<Ipv4Addr>) -> RouteMessage {
    let mut message = route(IpNet::from(address), RouteType::Unicast);
    if address.is_ipv4() {
        message.header.scope = RouteScope::Link;
    }
    message.attributes.push(RouteAttribute::Oif(index));
    message
        .attributes
        .extend(source.map(|source| RouteAttribute::PrefSource(RouteAddress::Inet(source))));
    message
}

/// The default route through a gateway that is on the link although no prefix says so.
pub(crate) fn default_route(index: u32, gateway: IpAddr) -> RouteMessage {
    let everything = match gateway {
        IpAddr::V4(_) => IpNet::V4(ipnet::Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(ipnet::Ipv6Net::default()),
    };
    let mut message = route(everything, RouteType::Unicast);
    message.header.flags = RouteFlags::Onlink;
    message.attributes.extend([
        RouteAttribute::Gateway(gateway.into()),
        RouteAttribute::Oif(index),
    ]);
    message
}

/// A route that answers "unreachable", chosen only when no better one exists.
pub(crate) fn unreachable_route(range: IpNet, metric: u32) -> RouteMessage {
    let mut message = route(range, RouteType::Unreachable);
    message.attributes.push(RouteAttribute::Priority(metric));
    if range.addr().is_ipv6() {
        // IPv6 keeps such routes on the loopback interface.
        message
            .attributes
            .push(RouteAttribute::Oif(crate::identity::LOOPBACK_INDEX));
    }
    message
}

fn route(destination: IpNet, kind: RouteType) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(destination.addr());
    message.header.destination_prefix_length = destination.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = PROTOCOL;
    message.header.scope = RouteScope::Universe;
    message.header.kind = kind;
    if destination.prefix_len() > 0 {
        message
            .attributes
            .push(RouteAttribute::Destination(destination.network().into()));
    }
    message
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn full_length(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}
