//! An unmodified distribution with systemd: boots to `running`, restarts and powers off by itself.
//!
//! Needs the unpacked tree of one (packages `systemd-sysv` and `dbus` at least) named by
//! `VESSEL_TEST_DISTRIBUTION`; says so and passes without.
#![allow(
    clippy::unwrap_used,
    clippy::tests_outside_test_module,
    reason = "tests"
)]

mod common;

use std::path::PathBuf;
use std::time::Instant;

use cgroup::{Layout, NodeGroup};
use common::Node;
use runtime::{CgroupEntry, InitKind};
use std::os::fd::AsFd as _;
use ve::{Exit, VeId};

#[test]
fn boots_restarts_and_powers_off() {
    let Some(tree) = std::env::var_os("VESSEL_TEST_DISTRIBUTION").map(PathBuf::from) else {
        println!("skipped: VESSEL_TEST_DISTRIBUTION names no unpacked distribution");
        return;
    };
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
    let own = group.create(id).unwrap();

    for expected in [Exit::Reboot, Exit::PowerOff] {
        let entry = own.entry().unwrap();
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
        let command = if expected == Exit::Reboot {
            "reboot"
        } else {
            "poweroff"
        };
        node.shell(id, command);
        assert_eq!(node.wait_exit(id), expected, "{}", node.console(id));
    }
    group.remove(id).unwrap();
    group.close_and_remove().unwrap();
}
