//! A veth pair with an address inside and a route outside.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kernel::clone::Child;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::net::{RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::PATIENCE;

/// Indices in a new network namespace: `lo` is always 1.
const LOOPBACK: u32 = 1;
const INSIDE: u32 = 2;

/// The gateway, as of a VE.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// First index of links outside, far from those of nodes.
const OUTSIDE: u32 = 2_000_000_000;

/// Waits until the link of an earlier container of the same name is gone: the kernel takes it away some time after
/// that container's last process, with its network.
pub(crate) fn await_gone(name: &str) -> Result<()> {
    let (family, flags) = (rustix::net::AddressFamily::INET, SocketFlags::CLOEXEC);
    let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, None)?;
    let deadline = Instant::now() + PATIENCE;
    while rustix::net::netdevice::name_to_index(&socket, name).is_ok() {
        if Instant::now() > deadline {
            bail!("the link {name} is there already, and stays");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Makes the pair, its outer end up and with a route to the address.
pub(crate) fn make(name: &str, child: &Child, address: Ipv4Addr) -> Result<()> {
    let space = kernel::pidfd::network_namespace(&child.pidfd)?;
    let index = OUTSIDE + child.pid;
    let mut peer = end("eth0", INSIDE);
    peer.attributes
        .push(LinkAttribute::NetNsFd(space.as_raw_fd()));
    let mut pair = end(name, index);
    pair.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    let mut way = route(RouteScope::Link, index);
    way.header.destination_prefix_length = 32;
    way.attributes
        .push(RouteAttribute::Destination(address.into()));
    ask(vec![
        RouteNetlinkMessage::NewLink(pair),
        up(index),
        RouteNetlinkMessage::NewRoute(way),
    ])
    .context("cannot make the link")
}

/// Sets up the inner end, from within.
pub(crate) fn configure(address: Ipv4Addr) -> Result<()> {
    let mut own = AddressMessage::default();
    own.header.family = AddressFamily::Inet;
    own.header.prefix_len = 32;
    own.header.index = INSIDE;
    own.attributes = vec![
        AddressAttribute::Address(address.into()),
        AddressAttribute::Local(address.into()),
    ];
    let mut default = route(RouteScope::Universe, INSIDE);
    default.header.flags = RouteFlags::Onlink;
    default
        .attributes
        .push(RouteAttribute::Gateway(GATEWAY.into()));
    ask(vec![
        up(LOOPBACK),
        up(INSIDE),
        RouteNetlinkMessage::NewAddress(own),
        RouteNetlinkMessage::NewRoute(default),
    ])
    .context("cannot configure the link")
}

fn end(name: &str, index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes = vec![LinkAttribute::IfName(name.to_owned())];
    message
}

fn up(index: u32) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    RouteNetlinkMessage::SetLink(message)
}

fn route(scope: RouteScope, index: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot;
    message.header.scope = scope;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![RouteAttribute::Oif(index)];
    message
}

/// Sends requests as one, and waits for the last or for the first that fails.
fn ask(requests: Vec<RouteNetlinkMessage>) -> Result<()> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let count = requests.len();
    let mut bytes = Vec::new();
    for (at, request) in requests.into_iter().enumerate() {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL;
        if at + 1 == count {
            header.flags |= NLM_F_ACK;
        }
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
        message.finalize();
        let start = bytes.len();
        bytes.resize(start + message.buffer_len(), 0);
        message.serialize(&mut bytes[start..]);
    }
    rustix::net::send(&socket, &bytes, SendFlags::empty())?;
    answer(&socket)
}

fn answer(socket: &OwnedFd) -> Result<()> {
    let mut bytes = vec![0; 8 << 10];
    let (length, _) = rustix::net::recv(socket, bytes.as_mut_slice(), RecvFlags::empty())?;
    let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&bytes[..length])?;
    match message.payload {
        NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io().into()),
        _ => Ok(()),
    }
}
