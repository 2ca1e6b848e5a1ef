//! A VE's link: configured before its init runs, gone with it. In a network namespace of the test.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::tests_outside_test_module,
    reason = "tests"
)]

mod common;

use common::{IDLE, Node, busybox_tree};
use network::Netlink;
use network::node::NodeNetwork;
use runtime::{CgroupEntry, NetworkSpec};
use ve::VeId;

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
    let mut netlink = Netlink::open().unwrap();
    let ids = VeId::new(40_500).unwrap()..=VeId::new(40_510).unwrap();
    let ranges = vec![
        "10.77.0.0/16".parse().unwrap(),
        "fd77::/64".parse().unwrap(),
    ];
    let network = NodeNetwork {
        ids: ids.clone(),
        ranges,
        nat: false,
    };
    network::node::prepare(&mut netlink, &network).unwrap();

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
