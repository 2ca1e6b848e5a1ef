//! A VE's link: configured before its init runs, gone with it. In a network namespace of the test.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::tests_outside_test_module,
    reason = "tests"
)]

mod common;

use std::ops::RangeInclusive;
use std::os::fd::AsFd as _;

use common::{IDLE, Node, busybox_tree};
use network::Netlink;
use network::node::NodeNetwork;
use runtime::{CgroupEntry, NetworkSpec};
use ve::VeId;

/// Sets up a node's network in this thread's namespace.
fn prepare(ids: &RangeInclusive<VeId>, ranges: [&str; 2]) -> Netlink {
    let mut netlink = Netlink::open().unwrap();
    let ranges = ranges.map(|range| range.parse().unwrap()).to_vec();
    let network = NodeNetwork {
        ids: ids.clone(),
        ranges,
        nat: false,
    };
    network::node::prepare(&mut netlink, &network).unwrap();
    netlink
}

#[test]
fn a_ve_is_reachable_before_its_first_instruction() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: network namespaces need root");
        return;
    }
    // This thread, and the launcher that it starts, have a network of their own.
    kernel::netns::unshare().unwrap();
    let Some(node) = Node::start() else { return };
    let Some(tree) = busybox_tree(node.root(), IDLE) else {
        return;
    };
    let ids = VeId::new(40_500).unwrap()..=VeId::new(40_510).unwrap();
    let mut netlink = prepare(&ids, ["10.77.0.0/16", "fd77::/64"]);

    let specs = [
        (40_501, "10.77.0.11", "fd77::11"),
        (40_502, "10.77.0.12", "fd77::12"),
    ]
    .map(|(id, v4, v6)| {
        let mut spec = node.spec(id, &tree);
        let addresses = vec![v4.parse().unwrap(), v6.parse().unwrap()];
        spec.network = Some(NetworkSpec {
            addresses,
            mtu: None,
        });
        node.client.launch(&spec, &CgroupEntry::default()).unwrap();
        spec
    });
    let id = specs[0].id;
    let (_, text) = node.shell(id, "ip addr show eth0; ip link show lo");
    assert!(
        text.contains("10.77.0.11/32") && text.contains("fd77::11/128"),
        "{text}"
    );
    assert!(text.contains("LOOPBACK,UP"), "{text}");
    for target in ["169.254.1.1", "10.77.0.12", "fd77::12"] {
        let (code, text) = node.shell(id, &format!("ping -c 1 -W 5 {target}"));
        assert_eq!(code, 0, "{text}");
    }
    assert_eq!(
        network::link::list(&mut netlink, ids.clone())
            .unwrap()
            .len(),
        2
    );
    for spec in &specs {
        node.client.kill(spec.id).unwrap();
        node.wait_exit(spec.id);
        let patience = common::PATIENCE;
        assert!(network::link::wait_gone(&mut netlink, spec.id, patience).unwrap());
    }
    // At once again, on the same addresses.
    node.client
        .launch(&specs[0], &CgroupEntry::default())
        .unwrap();
    assert_eq!(node.shell(id, "ping -c 1 -W 5 169.254.1.1 >/dev/null").0, 0);
}

/// Prints how long a launch takes with all that a VE has: groups in every hierarchy, a link with
/// two addresses, filter, own users.
#[test]
fn launches_fast_with_everything() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: network namespaces need root");
        return;
    }
    kernel::netns::unshare().unwrap();
    let Some(node) = Node::start() else { return };
    let Some(tree) = busybox_tree(node.root(), IDLE) else {
        return;
    };
    let ids = VeId::new(40_599).unwrap()..=VeId::new(40_699).unwrap();
    prepare(&ids, ["10.78.0.0/16", "fd78::/64"]);
    let layout = cgroup::Layout::detect().unwrap();
    let group = cgroup::NodeGroup::open(&layout, VeId::new(40_599).unwrap(), None).unwrap();
    let mut times: Vec<_> = (1..=30)
        .map(|number| {
            let mut spec = node.spec(40_600 + number, &tree);
            let addresses = vec![
                format!("10.78.1.{number}").parse().unwrap(),
                format!("fd78::1:{number}").parse().unwrap(),
            ];
            spec.network = Some(NetworkSpec {
                addresses,
                mtu: None,
            });
            let entry = group.create(spec.id).unwrap().entry().unwrap();
            let groups = CgroupEntry {
                v1_tasks: entry.v1_tasks.iter().map(|file| file.as_fd()).collect(),
                v2: entry.v2_directory.as_ref().map(|file| file.as_fd()),
            };
            let begun = std::time::Instant::now();
            node.client.launch(&spec, &groups).unwrap();
            let elapsed = begun.elapsed();
            node.client.kill(spec.id).unwrap();
            node.wait_exit(spec.id);
            group.remove(spec.id).unwrap();
            elapsed
        })
        .collect();
    group.close_and_remove().unwrap();
    times.sort_unstable();
    println!(
        "a launch takes {:?}, at best {:?}",
        times[times.len() / 2],
        times[0]
    );
    assert!(times[times.len() / 2] < std::time::Duration::from_millis(500));
}
