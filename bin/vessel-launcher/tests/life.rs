//! A VE's life: start, work inside, ends of each kind, and a daemon that was away.
#![allow(missing_docs, reason = "tests")]

mod common;

use common::{IDLE, Node, busybox_tree};
use runtime::{CallError, CgroupEntry, Event, FailureKind, InitKind, VeState};
use ve::Exit;

#[test]
fn starts_works_and_ends_in_every_way() {
    let Some(node) = Node::start() else { return };
    let Some(tree) = busybox_tree(node.root(), IDLE) else {
        return;
    };
    let mut spec = node.spec(40_100, &tree);
    spec.facts.hostname = Some("guest".to_owned());
    spec.facts.root_password_hash = Some("!".to_owned());
    let id = spec.id;
    let groups = CgroupEntry::default();
    let begun = std::time::Instant::now();
    node.client.launch(&spec, &groups).unwrap();
    println!("launch: {:?}", begun.elapsed());
    node.wait_ready(id);
    let (code, text) = node.shell(
        id,
        "id -u; hostname; cat /etc/hostname; ps | head -3; exit 3",
    );
    assert_eq!(code, 3, "{text}");
    assert!(text.starts_with("0\nguest\nguest\n"), "{text}");

    node.client.signal(id, 15).unwrap();
    assert_eq!(
        node.wait_exit(id),
        Exit::Reboot,
        "busybox restarts at SIGTERM"
    );
    node.client.launch(&spec, &groups).unwrap();
    node.shell(id, "echo kept >/etc/kept; poweroff -f");
    assert_eq!(node.wait_exit(id), Exit::PowerOff);
    node.client.launch(&spec, &groups).unwrap();
    assert_eq!(node.shell(id, "cat /etc/kept").1, "kept\n");
    node.client.kill(id).unwrap();
    assert_eq!(node.wait_exit(id), Exit::Signal(9));
    assert!(node.console(id).contains("booted"), "{}", node.console(id));
}
