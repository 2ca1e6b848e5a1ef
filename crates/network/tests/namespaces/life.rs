//! Links come, change and go, and nothing stays.

use std::time::{Duration, Instant};

use network::link::{self, HostEnd, LinkError, LinkSpec, Target};
use network::node::{self, NodeNetwork};
use network::{Netlink, inside};

use crate::support::{Namespace, Node, id, ip, ips, runnable, talk};

const RANGES: &[&str] = &["10.99.0.0/16", "fd00:99::/64"];

fn listed(node: &Node) -> Vec<u32> {
    let ids = node.network().ids;
    node.namespace.run(move || {
        let found = link::list(&mut Netlink::open().unwrap(), ids).unwrap();
        found.into_iter().map(ve::VeId::get).collect()
    })
}

#[test]
fn a_leftover_of_the_same_name_is_replaced() {
    if !runnable() {
        return;
    }
    let node = Node::new(RANGES, false);
    let died = node.ve(101, &["10.99.0.2", "fd00:99::2"]);
    let one = node.ve(101, &["10.99.0.2", "fd00:99::2"]);
    assert_eq!(
        talk(&node.namespace, &one, "10.99.0.2").unwrap(),
        ip("169.254.1.1")
    );
    assert_eq!(listed(&node), [101]);
    assert!(!died.program("ip -o link show").contains("eth0"));
}

#[test]
fn an_address_has_one_owner_and_a_failed_link_leaves_nothing() {
    if !runnable() {
        return;
    }
    let node = Node::new(RANGES, false);
    let one = node.ve(101, &["10.99.0.2", "fd00:99::2"]);
    for taken in ["10.99.0.2", "fd00:99::2"] {
        let namespace = Namespace::new();
        let addresses = ips(&["10.99.0.3", taken]);
        let error = node
            .link(102, &addresses, &namespace, HostEnd::Up)
            .unwrap_err();
        assert!(
            matches!(error, LinkError::AddressTaken { address, .. } if address == ip(taken)),
            "{error}"
        );
        assert!(error.to_string().contains(taken), "{error}");
        assert_eq!(listed(&node), [101]);
        assert!(!namespace.program("ip -o link show").contains("eth0"));
    }
    assert_eq!(
        talk(&node.namespace, &one, "10.99.0.2").unwrap(),
        ip("169.254.1.1")
    );
}

#[test]
fn an_index_that_is_taken_is_named() {
    if !runnable() {
        return;
    }
    let node = Node::new(RANGES, false);
    let index = network::identity::interface_index(id(101));
    node.namespace
        .program(&format!("ip link add foreign index {index} type bridge"));
    let error = node
        .link(101, &[], &Namespace::new(), HostEnd::Up)
        .unwrap_err();
    assert!(matches!(error, LinkError::IndexTaken { .. }), "{error}");
    assert!(
        node.namespace
            .program("ip -o link show")
            .contains("foreign")
    );
    assert_eq!(listed(&node), [] as [u32; 0]);
}

#[test]
fn addresses_change_live_and_connections_on_the_others_stay() {
    if !runnable() {
        return;
    }
    let node = Node::new(RANGES, false);
    let one = node.ve(101, &["10.99.0.2"]);
    let two = node.ve(102, &["10.99.0.9"]);
    let steps = [
        vec!["10.99.0.2"],
        vec!["10.99.0.3", "fd00:99::3"],
        vec!["10.99.0.3", "10.99.0.4"],
        vec!["fd00:99::5"],
        vec![],
        vec!["10.99.0.2", "fd00:99::2"],
    ];
    for change in steps.windows(2) {
        let (old, new) = (ips(&change[0]), ips(&change[1]));
        change_addresses(&node, &old, &new).unwrap();
        one.run({
            let (old, new) = (old.clone(), new.clone());
            move || inside::set_addresses(&old, &new).unwrap()
        });
        for address in &change[1] {
            talk(&node.namespace, &one, address).unwrap_or_else(|e| panic!("{address}: {e}"));
            talk(&one, &node.namespace, "169.254.1.1").map_or_else(
                |error| {
                    assert!(
                        !change[1].iter().any(|a| a.contains('.')),
                        "{address}: {error}"
                    )
                },
                |peer| assert!(change[1].contains(&peer.to_string().as_str())),
            );
        }
        let routes = node.namespace.program("ip -4 route show dev ve101")
            + &node.namespace.program("ip -6 route show dev ve101");
        for address in old.iter().filter(|one| !new.contains(one)) {
            assert!(!routes.contains(&format!("{address} ")), "{routes}");
        }
    }
    // Another VE's address is refused, and the rest of that change is undone.
    let (old, new) = (
        ips(&["10.99.0.2", "fd00:99::2"]),
        ips(&["10.99.0.7", "10.99.0.9"]),
    );
    let error = change_addresses(&node, &old, &new).unwrap_err();
    assert!(matches!(error, LinkError::AddressTaken { .. }), "{error}");
    talk(&node.namespace, &one, "10.99.0.2").unwrap();
    talk(&node.namespace, &two, "10.99.0.9").unwrap();
    assert!(
        !node
            .namespace
            .program("ip route show")
            .contains("10.99.0.7 ")
    );
}

fn change_addresses(
    node: &Node,
    old: &[std::net::IpAddr],
    new: &[std::net::IpAddr],
) -> Result<(), LinkError> {
    let (old, new) = (old.to_vec(), new.to_vec());
    node.namespace
        .run(move || link::set_addresses(&mut Netlink::open().unwrap(), id(101), &old, &new))
}

#[test]
fn a_link_made_down_carries_nothing_until_activated() {
    if !runnable() {
        return;
    }
    let node = Node::new(RANGES, false);
    let one = Namespace::new();
    let addresses = ips(&["10.99.0.2", "fd00:99::2"]);
    node.link(101, &addresses, &one, HostEnd::Down).unwrap();
    one.run({
        let addresses = addresses.clone();
        move || inside::configure(&addresses).unwrap()
    });
    assert!(
        !node
            .namespace
            .program("ip route show")
            .contains("10.99.0.2")
    );
    node.namespace.run(move || {
        link::activate(&mut Netlink::open().unwrap(), id(101), &addresses).unwrap();
    });
    talk(&one, &node.namespace, "169.254.1.1").unwrap();
    talk(&node.namespace, &one, "fd00:99::2").unwrap();
}

#[test]
fn a_link_goes_with_its_namespace_or_when_told() {
    if !runnable() {
        return;
    }
    let node = Node::new(RANGES, false);
    let one = node.ve(101, &["10.99.0.2"]);
    let _two = node.ve(102, &["10.99.0.3"]);
    let three = node.ve(103, &["10.99.0.4"]);
    assert_eq!(listed(&node), [101, 102, 103]);
    drop(one);
    let start = Instant::now();
    node.namespace.run(|| {
        let mut netlink = Netlink::open().unwrap();
        assert!(link::wait_gone(&mut netlink, id(101), Duration::from_secs(10)).unwrap());
        assert!(!link::wait_gone(&mut netlink, id(102), Duration::from_millis(10)).unwrap());
    });
    println!("gone with its namespace after {:?}", start.elapsed());
    let start = Instant::now();
    let removed = node.namespace.run(|| {
        let ids = [id(101), id(102), id(103)];
        link::remove_if_present(&mut Netlink::open().unwrap(), &ids).unwrap()
    });
    println!("two of three removed in {:?}", start.elapsed());
    assert_eq!(removed, 2);
    assert_eq!(listed(&node), [] as [u32; 0]);
    assert!(!three.program("ip -o link show").contains("eth0"));
}

#[test]
fn a_namespace_is_named_by_a_process_too() {
    if !runnable() {
        return;
    }
    let node = Node::new(RANGES, false);
    let one = Namespace::new();
    // A thread's number does for a process's: the kernel looks for a task.
    let task = one.run(|| {
        rustix::thread::gettid()
            .as_raw_nonzero()
            .get()
            .unsigned_abs()
    });
    node.namespace.run(move || {
        let addresses = ips(&["10.99.0.2"]);
        let spec = LinkSpec {
            id: id(101),
            addresses: &addresses,
            target: Target::Pid(task),
            mtu: Some(1_400),
            host_end: HostEnd::Up,
        };
        link::create(&mut Netlink::open().unwrap(), &spec).unwrap();
    });
    one.run(|| inside::configure(&ips(&["10.99.0.2"])).unwrap());
    talk(&node.namespace, &one, "10.99.0.2").unwrap();
    assert!(one.program("ip -o link show eth0").contains("mtu 1400"));
    assert!(
        node.namespace
            .program("ip -o link show ve101")
            .contains("mtu 1400")
    );
}

#[test]
fn what_somebody_removed_is_missed_and_put_back() {
    if !runnable() {
        return;
    }
    let node = Node::new(RANGES, true);
    let intact = |node: &Node| {
        let network = node.network();
        node.namespace
            .run(move || node::intact(&mut Netlink::open().unwrap(), &network).unwrap())
    };
    assert!(intact(&node));
    for harm in [
        "nft flush ruleset",
        "ip addr del 169.254.1.1/32 dev lo",
        "sysctl -qw net.ipv4.ip_forward=0",
        "sysctl -qw net.ipv6.conf.all.forwarding=0",
    ] {
        node.namespace.program(harm);
        assert!(!intact(&node), "{harm}");
        node.prepare();
        assert!(intact(&node), "{harm}");
    }
    node.namespace.program("ip addr del 169.254.1.1/32 dev lo");
    let addresses = ips(&["10.99.0.2"]);
    let error = node
        .link(101, &addresses, &Namespace::new(), HostEnd::Up)
        .unwrap_err();
    assert!(matches!(error, LinkError::NodeUnprepared { .. }), "{error}");
    assert_eq!(listed(&node), [] as [u32; 0]);
}

#[test]
fn inside_without_a_link_says_so() {
    if !runnable() {
        return;
    }
    let namespace = Namespace::new();
    let error = namespace.run(|| inside::configure(&ips(&["10.99.0.2"])).unwrap_err());
    assert!(matches!(error, inside::InsideError::NoLink), "{error}");
    namespace.run(|| inside::loopback_only().unwrap());
    assert!(namespace.program("ip -o link show lo").contains("LOWER_UP"));
}

#[test]
fn a_node_leaves_its_namespace_as_it_found_it() {
    if !runnable() {
        return;
    }
    let namespace = Namespace::new();
    namespace.program("ip link set lo up");
    namespace.program("ip link add uplink type bridge");
    namespace.program("ip link set uplink up");
    namespace.program("sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0");
    // Its own address is routed once the kernel has made sure that nobody else has it.
    let begun = Instant::now();
    let routed = || namespace.program("ip -6 route show table local dev uplink");
    while !routed().contains("local fe80:") {
        assert!(begun.elapsed() < Duration::from_secs(30), "no address");
        std::thread::sleep(Duration::from_millis(20));
    }
    let before = everything(&namespace);
    let first = Node::in_namespace(namespace, 100..=199, RANGES, true);
    let prepared = everything(&first.namespace);
    first.prepare();
    assert_eq!(
        everything(&first.namespace),
        prepared,
        "preparing again changes something"
    );
    assert!(prepared.contains("net.ipv4.ip_forward = 1"));
    assert!(prepared.contains("uplink.accept_ra = 2"), "{prepared}");

    // A second node in the same namespace, which outlives the first.
    let ranges = ["10.98.0.0/16"]
        .map(|range| range.parse().unwrap())
        .to_vec();
    let second = NodeNetwork {
        ids: id(200)..=id(299),
        ranges,
        nat: false,
    };
    first.namespace.run({
        let second = second.clone();
        move || node::prepare(&mut Netlink::open().unwrap(), &second).unwrap()
    });
    let one = first.ve(101, &["10.99.0.2"]);
    first.remove();
    first.remove();
    assert!(!one.program("ip -o link show").contains("eth0"));
    let between = everything(&first.namespace);
    assert!(
        between.contains("vessel-200") && !between.contains("vessel-100"),
        "{between}"
    );
    assert!(between.contains("net.ipv4.ip_forward = 1"), "{between}");
    assert!(between.contains("169.254.1.1"), "{between}");
    first.namespace.run(move || {
        let mut netlink = Netlink::open().unwrap();
        node::remove(&mut netlink, &second).unwrap();
        node::remove(&mut netlink, &second).unwrap();
    });
    let after = everything(&first.namespace).replace("accept_ra = 2", "accept_ra = 1");
    assert_eq!(after, before);
}

fn everything(namespace: &Namespace) -> String {
    [
        "nft list ruleset",
        "ip -o link show",
        "ip -4 route show table all",
        "ip -6 route show table all",
        "ip -4 addr show",
        "ip -6 addr show scope global",
        "sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding net.ipv6.conf.uplink.accept_ra",
    ]
    .map(|line| namespace.program(line))
    .join("\n")
}

#[test]
fn the_probe_finds_this_host_able_and_a_dropping_chain() {
    if !runnable() {
        return;
    }
    let namespace = Namespace::new();
    let probe = |namespace: &Namespace| {
        namespace.run(|| network::probe::probe(&mut Netlink::open().unwrap()).unwrap())
    };
    let found = probe(&namespace);
    assert!(found.veth && found.ipv6, "{found:?}");
    assert_eq!(found.findings(), []);
    assert!(!namespace.program("ip -o link show").contains("veth"));
    namespace.program("nft add table ip filter");
    namespace.program(
        "nft add chain ip filter FORWARD { type filter hook forward priority 0 ; policy drop ; }",
    );
    let found = probe(&namespace);
    assert_eq!(found.dropping_chains, ["ip filter FORWARD"]);
}
