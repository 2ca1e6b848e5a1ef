//! Ethernet frames that no honest VE would send.

use std::net::{Ipv4Addr, Ipv6Addr};

use network::identity::HOST_MAC;

use crate::support::Namespace;

pub(crate) const BROADCAST: [u8; 6] = [0xff; 6];
pub(crate) const FORGER_MAC: [u8; 6] = [0x02, 0x66, 0x66, 0x66, 0x66, 0x66];

const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// Sends frames from a namespace's `eth0`, each as it is.
pub(crate) fn send(from: &Namespace, frames: Vec<Vec<u8>>) {
    from.run(move || {
        let socket = kernel::netns::frame_socket(network::identity::INSIDE_INDEX).unwrap();
        for frame in frames {
            rustix::net::send(&socket, &frame, rustix::net::SendFlags::empty()).unwrap();
        }
    });
}

fn ethernet(destination: [u8; 6], kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(destination);
    frame.extend(FORGER_MAC);
    frame.extend(kind.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A datagram to a port, in a frame to the node (or to all, if the address is everybody's).
pub(crate) fn udp4(source: &str, target: &str, ports: (u16, u16), text: &str) -> Vec<u8> {
    // A UDP checksum of 0 means "none" in IPv4.
    ipv4(source, target, UDP, &datagram(ports, text))
}

/// A TCP segment in the middle of a connection, with a checksum that is wrong: nobody is to get it.
pub(crate) fn tcp4(source: &str, target: &str, ports: (u16, u16)) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(ports.0.to_be_bytes());
    segment.extend(ports.1.to_be_bytes());
    segment.extend([0, 0, 0, 1, 0, 0, 0, 1]);
    segment.extend([0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend(b"forged");
    ipv4(source, target, TCP, &segment)
}

fn ipv4(source: &str, target: &str, next: u8, payload: &[u8]) -> Vec<u8> {
    let (source, target): (Ipv4Addr, Ipv4Addr) = (source.parse().unwrap(), target.parse().unwrap());
    let mut header = vec![0x45, 0];
    header.extend(u16::try_from(20 + payload.len()).unwrap().to_be_bytes());
    header.extend([0, 1, 0, 0, 64, next, 0, 0]);
    header.extend(source.octets());
    header.extend(target.octets());
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header.extend(payload);
    ethernet(
        if target.is_broadcast() {
            BROADCAST
        } else {
            HOST_MAC
        },
        IPV4,
        &header,
    )
}

pub(crate) fn udp6(source: &str, target: &str, ports: (u16, u16), text: &str) -> Vec<u8> {
    let mut datagram = datagram(ports, text);
    let (source, target) = (source.parse().unwrap(), target.parse().unwrap());
    let sum = checksum6(source, target, UDP, &datagram);
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    ipv6(HOST_MAC, source, target, UDP, &datagram)
}

fn datagram(ports: (u16, u16), text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(ports.0.to_be_bytes());
    bytes.extend(ports.1.to_be_bytes());
    bytes.extend(u16::try_from(8 + text.len()).unwrap().to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(text.bytes());
    bytes
}

/// An ARP message: operation 1 asks, 2 answers.
pub(crate) fn arp(operation: u16, sender: &str, target: &str) -> Vec<u8> {
    let (sender, target): (Ipv4Addr, Ipv4Addr) = (sender.parse().unwrap(), target.parse().unwrap());
    let mut bytes = vec![0, 1, 8, 0, 6, 4];
    bytes.extend(operation.to_be_bytes());
    bytes.extend(FORGER_MAC);
    bytes.extend(sender.octets());
    bytes.extend(if operation == 1 { [0; 6] } else { HOST_MAC });
    bytes.extend(target.octets());
    ethernet(BROADCAST, ARP, &bytes)
}

/// "This address is at my hardware address": an unasked neighbour advertisement that overrides.
pub(crate) fn advertisement(claimed: &str, source: &str, target: &str) -> Vec<u8> {
    let mut body = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
    body.extend(claimed.parse::<Ipv6Addr>().unwrap().octets());
    body.extend([2, 1]);
    body.extend(FORGER_MAC);
    icmpv6(source, target, body)
}

/// "Who has this address? I am `source` at my hardware address."
pub(crate) fn solicitation(wanted: &str, source: &str) -> Vec<u8> {
    let mut body = vec![135, 0, 0, 0, 0, 0, 0, 0];
    body.extend(wanted.parse::<Ipv6Addr>().unwrap().octets());
    body.extend([1, 1]);
    body.extend(FORGER_MAC);
    icmpv6(source, wanted, body)
}

/// "I am a router, and this network is here": lifetime 1,800 s, prefix with autoconfiguration.
pub(crate) fn router_advertisement(prefix: &str, source: &str) -> Vec<u8> {
    let mut body = vec![134, 0, 0, 0, 64, 0];
    body.extend(1_800_u16.to_be_bytes());
    body.extend([0; 8]);
    body.extend([3, 4, 64, 0xc0]);
    body.extend(86_400_u32.to_be_bytes());
    body.extend(14_400_u32.to_be_bytes());
    body.extend([0; 4]);
    body.extend(prefix.parse::<Ipv6Addr>().unwrap().octets());
    icmpv6(source, "ff02::1", body)
}

fn icmpv6(source: &str, target: &str, mut body: Vec<u8>) -> Vec<u8> {
    let (source, target): (Ipv6Addr, Ipv6Addr) = (source.parse().unwrap(), target.parse().unwrap());
    let sum = checksum6(source, target, ICMPV6, &body);
    body[2..4].copy_from_slice(&sum.to_be_bytes());
    let octets = target.octets();
    let mac = match octets {
        [0xff, ..] => [0x33, 0x33, octets[12], octets[13], octets[14], octets[15]],
        _ => HOST_MAC,
    };
    ipv6(mac, source, target, ICMPV6, &body)
}

fn ipv6(mac: [u8; 6], source: Ipv6Addr, target: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    // Neighbour discovery believes only what has not been forwarded: hop limit 255.
    packet.extend([next, 255]);
    packet.extend(source.octets());
    packet.extend(target.octets());
    packet.extend(payload);
    ethernet(mac, IPV6, &packet)
}

fn checksum6(source: Ipv6Addr, target: Ipv6Addr, next: u8, payload: &[u8]) -> u16 {
    let mut bytes = Vec::new();
    bytes.extend(source.octets());
    bytes.extend(target.octets());
    bytes.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
    bytes.extend([0, 0, 0, next]);
    bytes.extend(payload);
    checksum(&bytes)
}

fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}
