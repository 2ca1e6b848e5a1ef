//! What a VE's root can send, and that nobody else notices.

use std::time::{Duration, Instant};

use crate::frames::{advertisement, arp, router_advertisement, send, solicitation, udp4, udp6};
use crate::support::{Namespace, Node, ip, received, runnable, talk, udp};

const RANGES: &[&str] = &["10.99.0.0/16", "fd00:99::/64"];

struct Scene {
    node: Node,
    forger: Namespace,
    victim: Namespace,
    third: Namespace,
}

fn scene() -> Scene {
    let node = Node::new(RANGES, true);
    let forger = node.ve(101, &["10.99.0.2", "fd00:99::2"]);
    let victim = node.ve(102, &["10.99.0.3", "fd00:99::3"]);
    let third = node.ve(103, &["10.99.0.4", "fd00:99::4"]);
    // Links carry packets a moment after they come up; what follows expects silence to mean drop.
    talk(&forger, &third, "10.99.0.4").unwrap();
    talk(&victim, &third, "fd00:99::4").unwrap();
    talk(&victim, &node.namespace, "169.254.1.1").unwrap();
    Scene {
        node,
        forger,
        victim,
        third,
    }
}

#[test]
fn a_forged_source_reaches_nobody() {
    if !runnable() {
        return;
    }
    let scene = scene();
    let third = udp(&scene.third, "0.0.0.0:9000");
    let node = udp(&scene.node.namespace, "0.0.0.0:9000");
    let ports = (9_000, 9_000);
    for (socket, target) in [(&third, "10.99.0.4"), (&node, "169.254.1.1")] {
        for source in [
            "10.99.0.3",
            "10.99.0.4",
            "10.99.0.99",
            "169.254.1.1",
            "127.0.0.1",
            "203.0.113.9",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
        ] {
            send(&scene.forger, vec![udp4(source, target, ports, source)]);
        }
        assert_eq!(received(socket), None, "{target}");
        send(
            &scene.forger,
            vec![udp4("10.99.0.2", target, ports, "honest")],
        );
        assert_eq!(
            received(socket),
            Some(("honest".to_owned(), ip("10.99.0.2")))
        );
    }
    let rules = scene.node.rules();
    assert!(
        !rules.contains("counter forged_source {\n\t\tpackets 0"),
        "{rules}"
    );
}

#[test]
fn a_forged_ipv6_source_reaches_nobody() {
    if !runnable() {
        return;
    }
    let scene = scene();
    let third = udp(&scene.third, "[::]:9000");
    let node = udp(&scene.node.namespace, "[::]:9000");
    let ports = (9_000, 9_000);
    for (socket, target) in [
        (&third, "fd00:99::4"),
        (&node, "fd00:99::1"),
        (&node, "fe80::1"),
    ] {
        for source in [
            "fd00:99::3",
            "fd00:99::4",
            "fd00:99::77",
            "fd00:99::1",
            "::1",
            "::",
            "2001:db8::9",
            "fe80::1",
            "fe80::66",
            "::ffff:10.99.0.2",
            "ff02::1",
        ] {
            send(&scene.forger, vec![udp6(source, target, ports, source)]);
        }
        assert_eq!(received(socket), None, "{target}");
        send(
            &scene.forger,
            vec![udp6("fd00:99::2", target, ports, "honest")],
        );
        assert_eq!(
            received(socket),
            Some(("honest".to_owned(), ip("fd00:99::2"))),
            "{target}"
        );
    }
    // The frames are good: without the filter, they arrive.
    scene.node.namespace.program("nft flush ruleset");
    send(
        &scene.forger,
        vec![udp6("fd00:99::3", "fd00:99::4", ports, "forged")],
    );
    assert_eq!(
        received(&third),
        Some(("forged".to_owned(), ip("fd00:99::3")))
    );
}

#[test]
fn the_nodes_loopback_and_metadata_are_out_of_reach() {
    if !runnable() {
        return;
    }
    let scene = scene();
    let node = udp(&scene.node.namespace, "127.0.0.1:9000");
    // Worst case: somebody routes loopback addresses, as some container networks do.
    scene
        .node
        .namespace
        .program("sysctl -qw net.ipv4.conf.all.route_localnet=1");
    let loopback = udp4("10.99.0.2", "127.0.0.1", (9_000, 9_000), "to loopback");
    send(&scene.forger, vec![loopback]);
    assert_eq!(received(&node), None);
    // And a cloud's metadata service, which the node may reach and VEs may not.
    let metadata = scene.node.ve(1_999, &[]);
    scene
        .node
        .namespace
        .program("ip route add 169.254.169.254/32 dev ve1999");
    metadata.program("ip addr add 169.254.169.254/32 dev eth0");
    let service = udp(&metadata, "0.0.0.0:80");
    send(
        &scene.forger,
        vec![udp4(
            "10.99.0.2",
            "169.254.169.254",
            (9_000, 80),
            "secrets?",
        )],
    );
    assert_eq!(received(&service), None);
}

#[test]
fn forged_arp_changes_nothing() {
    if !runnable() {
        return;
    }
    let scene = scene();
    let before = neighbours(&scene.node.namespace);
    let mut frames = Vec::new();
    for claimed in ["10.99.0.3", "10.99.0.4", "169.254.1.1", "203.0.113.1"] {
        frames.push(arp(1, claimed, claimed));
        frames.push(arp(2, claimed, "169.254.1.1"));
        frames.push(arp(1, claimed, "169.254.1.1"));
    }
    // And a flood of askers that do not exist: each could be an entry in everybody's table.
    for high in 0..8_u8 {
        frames
            .extend((0..=255_u8).map(|low| arp(1, &format!("10.99.{high}.{low}"), "169.254.1.1")));
    }
    send(&scene.forger, frames.clone());
    assert_eq!(neighbours(&scene.node.namespace), before);
    assert_eq!(
        talk(&scene.third, &scene.victim, "10.99.0.3").unwrap(),
        ip("10.99.0.4")
    );
    assert_eq!(
        talk(&scene.node.namespace, &scene.victim, "10.99.0.3").unwrap(),
        ip("169.254.1.1")
    );
    // systemd loosens reverse path filtering on new links where `sysctl.d` says so for all.
    scene
        .node
        .namespace
        .program("sysctl -qw net.ipv4.conf.ve101.rp_filter=2");
    send(&scene.forger, frames);
    let after = neighbours(&scene.node.namespace).len();
    assert!(
        after <= before.len() + 64,
        "{after} entries after, {} before",
        before.len()
    );
    assert_eq!(
        talk(&scene.third, &scene.victim, "10.99.0.3").unwrap(),
        ip("10.99.0.4")
    );
}

#[test]
fn forged_neighbour_discovery_changes_nothing() {
    if !runnable() {
        return;
    }
    let scene = scene();
    let before = neighbours(&scene.node.namespace);
    let mut frames = Vec::new();
    for claimed in ["fd00:99::3", "fd00:99::4", "fd00:99::1", "fe80::1"] {
        frames.push(advertisement(claimed, "fe80::66", "ff02::1"));
        frames.push(advertisement(claimed, "fe80::66", "fe80::1"));
        frames.push(advertisement(claimed, claimed, "ff02::1"));
        frames.push(solicitation("fe80::1", claimed));
    }
    send(&scene.forger, frames);
    assert_eq!(
        talk(&scene.third, &scene.victim, "fd00:99::3").unwrap(),
        ip("fd00:99::4")
    );
    assert_eq!(
        talk(&scene.node.namespace, &scene.victim, "fd00:99::3").unwrap(),
        ip("fd00:99::1")
    );
    let changed: Vec<String> = before
        .iter()
        .filter(|line| !neighbours(&scene.node.namespace).contains(line))
        .cloned()
        .collect();
    assert_eq!(changed, Vec::<String>::new());
    // A flood of askers may leave a few entries, never enough to fill the table of 1,024.
    let flood = (0..2_000).map(|asker| solicitation("fe80::1", &format!("fe80::{asker:x}:66")));
    send(&scene.forger, flood.collect());
    let after = neighbours(&scene.node.namespace).len();
    assert!(
        after <= before.len() + 64,
        "{after} entries after, {} before",
        before.len()
    );
}

#[test]
fn a_ve_can_find_a_gateway_that_it_forgot() {
    if !runnable() {
        return;
    }
    let scene = scene();
    scene
        .victim
        .program("ip neigh flush dev eth0 nud permanent");
    assert!(
        scene
            .victim
            .program("ip neigh show dev eth0 nud permanent")
            .is_empty()
    );
    assert_eq!(
        talk(&scene.victim, &scene.third, "10.99.0.4").unwrap(),
        ip("10.99.0.3")
    );
    assert_eq!(
        talk(&scene.victim, &scene.third, "fd00:99::4").unwrap(),
        ip("fd00:99::3")
    );
}

#[test]
fn a_ve_is_nobodys_router_and_nobodys_dhcp_server() {
    if !runnable() {
        return;
    }
    let scene = scene();
    let watched = [&scene.node.namespace, &scene.third];
    let before = watched.map(routes_and_addresses);
    let client = udp(&scene.node.namespace, "0.0.0.0:68");
    let server = udp(&scene.node.namespace, "0.0.0.0:67");
    let other = udp(&scene.third, "0.0.0.0:68");
    let (asking, offering) = ((68, 67), (67, 68));
    send(
        &scene.forger,
        vec![
            udp4("10.99.0.2", "255.255.255.255", offering, "offer"),
            udp4("0.0.0.0", "255.255.255.255", asking, "discover"),
            router_advertisement("2001:db8:bad::", "fe80::66"),
            router_advertisement("2001:db8:bad::", "fe80::1"),
        ],
    );
    for socket in [&client, &server, &other] {
        assert_eq!(received(socket), None);
    }
    // Autoconfiguration would have happened at once.
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(watched.map(routes_and_addresses), before);
}

#[test]
fn a_host_outside_cannot_pose_as_a_ve() {
    if !runnable() {
        return;
    }
    let scene = scene();
    // Another node's link stands for an uplink: to this node it is any other interface.
    let outside = Namespace::new();
    scene
        .node
        .link(
            60_000,
            &[ip("203.0.113.9")],
            &outside,
            network::link::HostEnd::Up,
        )
        .unwrap();
    outside.run(|| network::inside::configure(&[ip("203.0.113.9")]).unwrap());
    scene
        .node
        .namespace
        .program("sysctl -qw net.ipv4.conf.ve60000.rp_filter=0");
    talk(&outside, &scene.third, "10.99.0.4").unwrap();
    let third = udp(&scene.third, "[::]:9000");
    send(
        &outside,
        vec![
            udp4("10.99.0.3", "10.99.0.4", (9_000, 9_000), "forged"),
            udp6("fd00:99::3", "fd00:99::4", (9_000, 9_000), "forged"),
        ],
    );
    assert_eq!(received(&third), None);
    send(
        &outside,
        vec![udp4("203.0.113.9", "10.99.0.4", (9_000, 9_000), "honest")],
    );
    assert!(received(&third).is_some());
}

/// Neighbour entries of all interfaces, in order.
fn neighbours(namespace: &Namespace) -> Vec<String> {
    let text = namespace.program("ip neigh show nud all");
    let mut lines: Vec<String> = text
        .lines()
        .filter(|line| !line.contains("NOARP"))
        .map(str::to_owned)
        .collect();
    lines.sort();
    lines
}

/// Everything that an advertisement or an offer could have added, without counters and timers.
fn routes_and_addresses(namespace: &Namespace) -> Vec<String> {
    let deadline = Instant::now() + Duration::from_secs(5);
    // Link-local addresses of the VEs' own are tentative for a second or two after the start.
    while namespace
        .program("ip -6 addr show tentative")
        .contains("inet6")
    {
        assert!(Instant::now() < deadline, "addresses stay tentative");
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut lines = Vec::new();
    for command in [
        "ip -4 route show table all",
        "ip -6 route show table all",
        "ip -o addr show",
    ] {
        let text = namespace.program(command);
        lines.extend(
            text.lines()
                .map(|line| line.split(" expires").next().unwrap_or("").to_owned()),
        );
    }
    lines.sort();
    lines
}
