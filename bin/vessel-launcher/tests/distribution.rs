//! An unmodified distribution with systemd: boots to `running`, restarts and powers off by itself.
//!
//! Needs the unpacked tree of one (packages `systemd-sysv` and `dbus` at least) named by
//! `VESSEL_TEST_DISTRIBUTION`; says so and passes without.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::tests_outside_test_module,
    reason = "tests"
)]

mod common;

use std::path::PathBuf;
use std::time::Instant;

use cgroup::{Layout, NodeGroup};
use common::Node;
use runtime::{CgroupEntry, Event, InitKind};
use std::os::fd::AsFd as _;
use ve::{Exit, VeId};

/// The tree to start, or why there is none.
fn tree() -> Option<PathBuf> {
    let tree = std::env::var_os("VESSEL_TEST_DISTRIBUTION").map(PathBuf::from);
    if tree.is_none() {
        println!("skipped: VESSEL_TEST_DISTRIBUTION names no unpacked distribution");
    }
    tree
}

/// As many VEs as `VESSEL_TEST_COUNT` says (10 without it), all at once: none may be in another's
/// way (inotify instances, keys, terminals), and all are ready without any setting of the node.
#[test]
fn many_boot_at_once() {
    let Some(tree) = tree() else { return };
    let Some(node) = Node::start() else { return };
    let count = std::env::var("VESSEL_TEST_COUNT").map_or(10, |text| text.parse().unwrap());
    let layout = Layout::detect().unwrap();
    let group = NodeGroup::open(&layout, VeId::new(42_000).unwrap(), None).unwrap();
    let begun = Instant::now();
    let ids: Vec<VeId> = (1..=count)
        .map(|number| VeId::new(42_000 + number).unwrap())
        .collect();
    for id in &ids {
        let mut spec = node.spec(id.get(), &tree);
        spec.kind = InitKind::Systemd;
        spec.facts.ssh_host_keys = true;
        spec.facts.machine_id = Some(format!("{:032x}", id.get()));
        let entry = group.create(*id).unwrap().entry().unwrap();
        let groups = CgroupEntry {
            v1_tasks: entry.v1_tasks.iter().map(|file| file.as_fd()).collect(),
            v2: entry.v2_directory.as_ref().map(|file| file.as_fd()),
        };
        node.client.launch(&spec, &groups).unwrap();
    }
    println!("{count} VEs launched in {:?}", begun.elapsed());
    let mut left = ids.clone();
    while !left.is_empty() {
        match node.events.next_within(common::PATIENCE) {
            Some(Event::Ready { id, .. }) => left.retain(|waiting| *waiting != id),
            Some(event) => panic!("{event:?}"),
            None => panic!("not ready: {left:?}; console:\n{}", node.console(left[0])),
        }
    }
    println!("all ready in {:?}", begun.elapsed());
    for id in &ids {
        let (_, state) = node.shell(
            *id,
            "systemctl is-system-running --wait; systemctl --failed --no-legend",
        );
        assert_eq!(state, "running\n", "{id}: {}", node.console(*id));
    }
    let pid = node.client.launcher_pid();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    println!(
        "{}",
        status
            .lines()
            .filter(|l| l.starts_with("VmRSS") || l.starts_with("RssAnon"))
            .collect::<Vec<_>>()
            .join(", ")
    );
    // SIGRTMIN+4: systemd's order to power off.
    let begun = Instant::now();
    for id in &ids {
        node.client.signal(*id, 38).unwrap();
    }
    let mut left = ids.len();
    while left > 0 {
        if let Some(Event::Exited { id, pid, exit }) = node.events.next_within(common::PATIENCE) {
            assert_eq!(exit, Exit::PowerOff);
            node.client.acknowledge(id, pid).unwrap();
            left -= 1;
        }
    }
    println!("all off in {:?}", begun.elapsed());
    for id in &ids {
        group.remove(*id).unwrap();
    }
    group.close_and_remove().unwrap();
}

#[test]
fn boots_restarts_and_powers_off() {
    let Some(tree) = tree() else { return };
    let Some(node) = Node::start() else { return };
    let mut spec = node.spec(40_200, &tree);
    let id = spec.id;
    spec.kind = InitKind::Systemd;
    spec.facts.machine_id = Some("0123456789abcdef0123456789abcdef".to_owned());
    spec.facts.hostname = Some("guest".to_owned());
    spec.facts.ssh_host_keys = true;
    spec.facts.root_password_hash = Some("!".to_owned());
    spec.facts.authorized_keys = Some(vec!["ssh-ed25519 AAAA test".to_owned()]);

    let layout = Layout::detect().unwrap();
    let group = NodeGroup::open(&layout, VeId::new(40_199).unwrap(), None).unwrap();

    for expected in [Exit::Reboot, Exit::PowerOff] {
        // Fresh for each life: controllers that an earlier systemd handed on to groups of its own
        // would make this one's groups invalid.
        let entry = group.create(id).unwrap().entry().unwrap();
        let groups = CgroupEntry {
            v1_tasks: entry.v1_tasks.iter().map(|file| file.as_fd()).collect(),
            v2: entry.v2_directory.as_ref().map(|file| file.as_fd()),
        };
        let begun = Instant::now();
        node.client.launch(&spec, &groups).unwrap();
        println!("launched in {:?}", begun.elapsed());
        node.wait_ready(id);
        println!("ready in {:?}", begun.elapsed());
        let (_, state) = node.shell(
            id,
            "systemctl is-system-running --wait; systemctl --failed --no-legend; \
             ls /etc/ssh/*_key 2>/dev/null; cat /proc/1/cgroup | tail -1; systemd-detect-virt; \
             systemctl list-units --no-legend --no-pager | wc -l; systemctl list-jobs; id",
        );
        println!("{state}");
        assert!(
            state.starts_with("running\n"),
            "{state}\n{}",
            node.console(id)
        );
        let asked = (0..500).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            node.console(id).contains("guest login:")
        });
        assert!(asked, "no login at the console:\n{}", node.console(id));
        let command = if expected == Exit::Reboot {
            "reboot"
        } else {
            "poweroff"
        };
        node.shell(id, command);
        assert_eq!(node.wait_exit(id), expected, "{}", node.console(id));
        group.remove(id).unwrap();
    }
    group.close_and_remove().unwrap();
}
