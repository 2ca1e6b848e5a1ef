//! Who reaches whom.

use std::time::Duration;

use network::{Netlink, counters, counters_all, uplink};

use crate::support::{Namespace, Node, id, ip, ips, outside, runnable, talk};

const RANGES: &[&str] = &["10.99.0.0/16", "fd00:99::/64"];

#[test]
fn ves_and_their_node_reach_each_other() {
    if !runnable() {
        return;
    }
    let node = Node::new(RANGES, false);
    let one = node.ve(101, &["10.99.0.2", "fd00:99::2"]);
    let two = node.ve(102, &["10.99.0.3", "fd00:99::3"]);
    assert_eq!(talk(&one, &two, "10.99.0.3").unwrap(), ip("10.99.0.2"));
    assert_eq!(talk(&two, &one, "fd00:99::2").unwrap(), ip("fd00:99::3"));
    assert_eq!(
        talk(&one, &node.namespace, "169.254.1.1").unwrap(),
        ip("10.99.0.2")
    );
    assert_eq!(
        talk(&one, &node.namespace, "fd00:99::1").unwrap(),
        ip("fd00:99::2")
    );
    assert_eq!(
        talk(&node.namespace, &one, "10.99.0.2").unwrap(),
        ip("169.254.1.1")
    );
    assert_eq!(
        talk(&node.namespace, &one, "fd00:99::2").unwrap(),
        ip("fd00:99::1")
    );
}

#[test]
fn an_address_that_no_ve_has_is_refused_at_once() {
    if !runnable() {
        return;
    }
    let node = Node::new(RANGES, false);
    let one = node.ve(101, &["10.99.0.2", "fd00:99::2"]);
    for address in ["10.99.0.77", "fd00:99::77"] {
        let error = talk(&one, &node.namespace, address).unwrap_err();
        let kinds = [
            std::io::ErrorKind::HostUnreachable,
            std::io::ErrorKind::NetworkUnreachable,
        ];
        assert!(kinds.contains(&error.kind()), "{address}: {error}");
    }
}

#[test]
fn counts_what_the_ve_sees() {
    if !runnable() {
        return;
    }
    let node = Node::new(RANGES, false);
    let one = node.ve(101, &["10.99.0.2"]);
    talk(&node.namespace, &one, "10.99.0.2").unwrap();
    let before = all(&node, 101);
    // A hundred datagrams of 1,000 bytes from the VE to the node, where nobody listens.
    one.run(|| {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        for _ in 0..100 {
            let _ = socket.send_to(&[0; 1_000], "169.254.1.1:9");
            std::thread::sleep(Duration::from_micros(50));
        }
    });
    let after = all(&node, 101);
    let sent = after.transmit_bytes - before.transmit_bytes;
    assert!((100_000..120_000).contains(&sent), "{sent}");
    assert!(after.transmit_packets - before.transmit_packets >= 100);
    assert!(after.receive_bytes - before.receive_bytes < 100_000);
}

fn all(node: &Node, number: u32) -> network::Counters {
    let ids = node.network().ids;
    node.namespace.run(move || {
        let mut netlink = Netlink::open().unwrap();
        let all = counters_all(&mut netlink, ids).unwrap();
        let one = counters(&mut netlink, id(number)).unwrap().unwrap();
        assert!(one.transmit_bytes >= all[&id(number)].transmit_bytes);
        one
    })
}

#[test]
fn ves_reach_the_outside_under_the_nodes_address() {
    if !runnable() {
        return;
    }
    let node = Node::new(RANGES, true);
    let outside = outside(&node);
    let one = node.ve(101, &["10.99.0.2", "fd00:99::2"]);
    let two = node.ve(102, &["10.99.0.3", "fd00:99::3"]);
    assert_eq!(
        talk(&one, &outside, "203.0.113.2").unwrap(),
        ip("203.0.113.1")
    );
    assert_eq!(
        talk(&one, &outside, "2001:db8::2").unwrap(),
        ip("2001:db8::1")
    );
    // Between VEs and to the node nothing is translated.
    assert_eq!(talk(&one, &two, "10.99.0.3").unwrap(), ip("10.99.0.2"));
    assert_eq!(
        talk(&one, &node.namespace, "203.0.113.1").unwrap(),
        ip("10.99.0.2")
    );
    assert_eq!(talk(&two, &one, "fd00:99::2").unwrap(), ip("fd00:99::3"));
    // An outside host that has a route sees the VEs themselves.
    outside.program("ip route add 10.99.0.0/16 via 203.0.113.1");
    assert_eq!(
        talk(&outside, &one, "10.99.0.2").unwrap(),
        ip("203.0.113.2")
    );
}

#[test]
fn without_translation_the_outside_sees_the_ve() {
    if !runnable() {
        return;
    }
    let node = Node::new(RANGES, false);
    let outside = outside(&node);
    let one = node.ve(101, &["10.99.0.2", "fd00:99::2"]);
    outside.program("ip route add 10.99.0.0/16 via 203.0.113.1");
    outside.program("ip route add fd00:99::/64 via 2001:db8::1");
    assert_eq!(
        talk(&one, &outside, "203.0.113.2").unwrap(),
        ip("10.99.0.2")
    );
    assert_eq!(
        talk(&outside, &one, "fd00:99::2").unwrap(),
        ip("2001:db8::2")
    );
}

#[test]
fn an_address_of_the_nodes_own_network_is_answered_for() {
    if !runnable() {
        return;
    }
    let node = Node::new(RANGES, true);
    let outside = outside(&node);
    let addresses = ips(&["203.0.113.50", "2001:db8::50", "198.51.100.7"]);
    let one = node.ve(101, &["203.0.113.50", "2001:db8::50", "198.51.100.7"]);
    let announced = node.namespace.run({
        let addresses = addresses.clone();
        move || uplink::announce(&mut Netlink::open().unwrap(), &addresses).unwrap()
    });
    assert_eq!(announced, addresses[..2]);
    for (address, seen, target) in [
        ("203.0.113.50", "203.0.113.2", "203.0.113.2"),
        ("2001:db8::50", "2001:db8::2", "2001:db8::2"),
    ] {
        assert_eq!(talk(&outside, &one, address).unwrap(), ip(seen));
        assert_eq!(talk(&one, &outside, target).unwrap(), ip(address));
    }
    node.namespace.run({
        let addresses = addresses.clone();
        move || {
            let mut netlink = Netlink::open().unwrap();
            uplink::withdraw(&mut netlink, &addresses).unwrap();
            uplink::withdraw(&mut netlink, &addresses).unwrap();
        }
    });
    assert_eq!(node.namespace.program("ip neigh show proxy"), "");
    assert_eq!(node.namespace.program("ip -6 neigh show proxy"), "");
}

#[test]
fn the_smallest_packet_of_the_ways_out_is_found() {
    if !runnable() {
        return;
    }
    let node = Node::new(RANGES, true);
    let mtu = || {
        let found = || uplink::mtu(&mut Netlink::open().unwrap()).unwrap();
        node.namespace.run(found)
    };
    assert_eq!(mtu(), None);
    for (link, bytes, default) in [
        ("one", 9000, "ip route add default dev one metric 9"),
        ("two", 1380, "ip -6 route add default dev two"),
        ("three", 1300, "ip route add 198.51.100.0/24 dev three"),
    ] {
        node.namespace
            .program(&format!("ip link add {link} mtu {bytes} type veth"));
        node.namespace.program(&format!("ip link set {link} up"));
        node.namespace.program(default);
    }
    assert_eq!(mtu(), Some(1380));
    node.namespace.program("ip link set two mtu 1420");
    assert_eq!(mtu(), Some(1420));
}

#[test]
fn a_range_that_the_node_uses_already_is_found() {
    if !runnable() {
        return;
    }
    let node = Node::new(RANGES, true);
    let _outside = outside(&node);
    let _one = node.ve(101, &["10.99.0.2", "fd00:99::2"]);
    let overlaps = |range: &str| {
        let range = range.parse().unwrap();
        node.namespace
            .run(move || uplink::overlaps(&mut Netlink::open().unwrap(), range).unwrap())
    };
    assert_eq!(overlaps("10.99.0.0/16"), []);
    assert_eq!(
        overlaps("203.0.0.0/16"),
        ["203.0.113.0/24".parse().unwrap()]
    );
    assert_eq!(
        overlaps("203.0.113.128/25"),
        ["203.0.113.0/24".parse().unwrap()]
    );
    assert_eq!(
        overlaps("2001:db8::/32"),
        ["2001:db8::/64".parse().unwrap()]
    );
}

#[test]
fn ves_of_two_nodes_in_one_namespace_see_each_other_untranslated() {
    if !runnable() {
        return;
    }
    let first = Node::in_namespace(Namespace::new(), 100..=199, RANGES, true);
    let _outside = outside(&first);
    let one = first.ve(101, &["10.99.0.2"]);
    let second = first.beside(200..=299, &["10.98.0.0/16"], true);
    let two = second.ve(201, &["10.98.0.2"]);
    assert_eq!(talk(&one, &two, "10.98.0.2").unwrap(), ip("10.99.0.2"));
    assert_eq!(talk(&two, &one, "10.99.0.2").unwrap(), ip("10.98.0.2"));
}
