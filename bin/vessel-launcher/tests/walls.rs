//! The walls around a VE: what of the node nothing in it can see or touch.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::tests_outside_test_module,
    reason = "tests"
)]

mod common;

use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};

use common::{IDLE, Node, busybox_tree};
use runtime::{CgroupEntry, ExecSpec, ExecStreams};

fn command(words: &[&str]) -> ExecSpec {
    ExecSpec {
        command: words.iter().map(|word| (*word).to_owned()).collect(),
        user: "root".to_owned(),
        environment: Vec::new(),
        directory: None,
        login: false,
        terminal: None,
        open_files: runtime::open_files(None),
    }
}

/// What must fail inside, and what it would reach.
const REFUSED: &[(&str, &str)] = &[
    ("unshare -U true", "user namespaces"),
    ("unshare -p -f true", "pid namespaces"),
    ("mknod /tmp/disk b 254 0", "device nodes"),
    ("dmesg", "the kernel's log"),
    (
        "date -s 2000-01-01 2>&1 | grep -q permitted && false",
        "the clock",
    ),
    (
        "umount /proc/sysrq-trigger; echo b >/proc/sysrq-trigger",
        "sysrq uncovered",
    ),
    ("echo 1 >/proc/sys/kernel/panic", "sysctls of the node"),
    ("echo x >/proc/sys/kernel/core_pattern", "the core pattern"),
    (
        "umount /proc/kcore; test -n \"$(head -c 1 /proc/kcore)\"",
        "memory",
    ),
    ("mount -t ext4 /dev/vda /tmp", "disks"),
    ("nice -n -20 true && chrt -f 99 true", "real-time priority"),
];

/// What a server needs.
const GIVEN: &[(&str, &str)] = &[
    ("unshare -m true", "own mounts, as PrivateTmp has"),
    ("mount -t tmpfs none /tmp && umount /tmp", "mounts"),
    (
        "echo 1 >/proc/sys/net/ipv4/ip_forward",
        "sysctls of its own network",
    ),
    ("hostname other", "its host name"),
    ("chown 33:50 /root && chown 0:0 /root", "owners"),
    (
        "echo x >/dev/null; head -c 1 /dev/urandom >/dev/null",
        "devices",
    ),
    (
        "mkdir /sys/fs/cgroup/mine; rmdir /sys/fs/cgroup/mine",
        "groups, where delegated",
    ),
];

#[test]
fn a_ve_has_nothing_of_the_node() {
    let Some(node) = Node::start() else { return };
    let Some(tree) = busybox_tree(node.root(), IDLE) else {
        return;
    };
    let spec = node.spec(40_350, &tree);
    let id = spec.id;
    node.client.launch(&spec, &CgroupEntry::default()).unwrap();
    let say = |script: &str| node.shell(id, script).1;
    // Process 1 and what is entered: descriptors, directory, program.
    assert_eq!(
        say("ls -l /proc/1/fd | grep -v console | grep -c -- '->'").trim(),
        "0"
    );
    assert_eq!(
        say("ls /proc/self/fd | wc -l").trim(),
        "4",
        "three streams and ls's own"
    );
    assert_eq!(
        say("for f in cwd root exe; do readlink /proc/1/$f; done"),
        "/\n/\n/bin/busybox\n"
    );
    let mounts = say("cat /proc/self/mountinfo");
    assert!(!mounts.contains(node.root().to_str().unwrap()), "{mounts}");
    let count = mounts
        .lines()
        .filter(|line| !line.contains(" - tmpfs dev "))
        .count();
    assert!(count <= 10, "{mounts}");
    // The filter and the capabilities, of process 1 and of what is entered.
    for process in ["1", "self"] {
        let status = say(&format!(
            "grep -E 'Seccomp:|NoNewPrivs|CapBnd|CapEff' /proc/{process}/status"
        ));
        assert!(
            status.contains("Seccomp:\t2") && status.contains("NoNewPrivs:\t0"),
            "{status}"
        );
        let kept = format!(
            "{:016x}",
            runtime::capabilities::kept().bits() & 0x1ff_ffff_ffff
        );
        assert!(
            status.contains(&format!("CapBnd:\t{kept}")) || cfg!(not(debug_assertions)),
            "{status} {kept}"
        );
    }
    for (script, why) in REFUSED {
        let (code, text) = node.shell(id, &format!("( {script} ) 2>&1"));
        assert_ne!(code, 0, "{why}: {text}");
    }
    for (script, why) in GIVEN {
        let (code, text) = node.shell(id, &format!("( {script} ) 2>&1"));
        assert!(code == 0 || why.starts_with("groups"), "{why}: {text}");
    }
    assert_eq!(
        say("cat /proc/self/uid_map")
            .split_whitespace()
            .collect::<Vec<_>>(),
        ["0", &(40_350_u64 * 65_536).to_string(), "65536"]
    );
}

#[test]
fn the_launcher_cannot_be_inspected_from_inside() {
    let Some(node) = Node::start() else { return };
    let Some(tree) = busybox_tree(node.root(), IDLE) else {
        return;
    };
    let spec = node.spec(40_360, &tree);
    let id = spec.id;
    node.client.launch(&spec, &CgroupEntry::default()).unwrap();
    // An interpreter that leads back to whatever executes it (CVE-2019-5736).
    node.shell(
        id,
        "printf '#!/proc/self/exe\\n' >/bin/trap; chmod 755 /bin/trap",
    );
    let null: OwnedFd = fs::File::open("/dev/null").unwrap().into();
    let streams = ExecStreams {
        input: null.as_fd(),
        output: null.as_fd(),
        error: null.as_fd(),
    };
    let outcome = node.client.exec(
        id,
        &command(&["/bin/trap"]),
        Some(streams),
        &CgroupEntry::default(),
    );
    if let Ok(task) = outcome {
        let _ = task.wait_within(common::PATIENCE).unwrap().unwrap();
    }
    // Whatever ran: not even the node's root changes the program through this.
    let program = format!("/proc/{}/exe", node.client.launcher_pid());
    assert!(fs::OpenOptions::new().write(true).open(&program).is_err());
    let program = rustix::fs::statvfs(program.as_str()).unwrap();
    assert!(
        program
            .f_flag
            .contains(rustix::fs::StatVfsMountFlags::RDONLY)
    );
    assert_eq!(node.shell(id, "echo alive").1, "alive\n");
}

#[test]
fn a_ve_that_may_nest_makes_containers() {
    let Some(node) = Node::start() else { return };
    let Some(tree) = busybox_tree(node.root(), IDLE) else {
        return;
    };
    let mut spec = node.spec(40_370, &tree);
    spec.nesting = true;
    node.client.launch(&spec, &CgroupEntry::default()).unwrap();
    let inner =
        "mount -t proc proc /proc && mount -t tmpfs none /tmp && echo $$ && ls /proc | head -1";
    let script = format!("unshare -U -r -m -p -f /bin/sh -c '{inner}' 2>&1");
    assert_eq!(node.shell(spec.id, &script), (0, "1\n1\n".to_owned()));
    // Still not the node's: its own kernel memory, clock and modules.
    assert_ne!(
        node.shell(spec.id, "test -n \"$(head -c 1 /proc/kcore)\" || dmesg")
            .0,
        0
    );
}
