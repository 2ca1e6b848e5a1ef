//! Attempts to reach the node itself: its kernel, clock, disks, keys, logs and processes.
//!
//! Each row names the class of attack and a CVE where one is known for it. An attempt that the
//! kernel of this machine would refuse anyway is tried all the same: the next kernel may not.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use anyhow::{Result, ensure};

use super::arsenal::{attacker, must_be_refused};
use crate::harness::{Node, tests};

tests! {
    Hostile [] =>
        calls_into_the_nodes_kernel_are_refused,
        files_of_the_nodes_kernel_are_refused,
        device_nodes_and_raw_disks_are_refused,
        processes_and_namespaces_of_the_node_are_out_of_reach,
        the_clock_and_the_machine_go_on,
        a_ve_with_every_wall_shows_it;
}

/// An attempt: its name with the class, and the attack.
type Attempt = (&'static str, &'static str);

fn all_refused(node: &Node, attempts: &[Attempt]) -> Result<()> {
    for (name, script) in attempts {
        must_be_refused(node, name, script)?;
    }
    Ok(())
}

/// System calls that a VE has no use for.
const CALLS: &[Attempt] = &[
    (
        "io_uring (CVE-2022-29582, CVE-2023-2598)",
        r#"must_fail("io_uring_setup", call(425, 8, "\0" x 120))"#,
    ),
    (
        "userfaultfd (helped to exploit CVE-2021-26708 and many others)",
        r#"must_fail("userfaultfd", call(323, 1))"#,
    ),
    (
        "bpf (CVE-2021-3490, CVE-2017-16995)",
        r#"must_fail("bpf", call(321, 0, pack("LLLL", 2, 4, 4, 1), 16))"#,
    ),
    (
        "perf (CVE-2013-2094)",
        r#"must_fail("perf_event_open", call(298, pack("LLQ", 1, 112, 0) . "\0" x 96, 0, -1, -1, 0))"#,
    ),
    (
        "module loading",
        r#"must_fail("init_module", call(175, "x" x 64, 64, ""))"#,
    ),
    (
        "module loading from a file",
        r#"open my $f, "<", "/bin/busybox"; must_fail("finit_module", call(313, fileno $f, "", 0))"#,
    ),
    (
        "module unloading",
        r#"must_fail("delete_module", call(176, "overlay", 0))"#,
    ),
    ("kexec", r#"must_fail("kexec_load", call(246, 0, 0, 0, 0))"#),
    (
        "keyrings (CVE-2016-0728)",
        r#"must_fail("keyctl", call(250, 1, "session"))"#,
    ),
    (
        "swapon",
        r#"open my $f, ">", "/root/swap"; print $f "\0" x (1 << 20); close $f;
        system "mkswap /root/swap >/dev/null 2>&1"; must_fail("swapon", call(167, "/root/swap", 0))"#,
    ),
    ("swapoff", r#"must_fail("swapoff", call(168, "/dev/vda"))"#),
    (
        "files by handle (CVE-2014-3519)",
        r#"open my $d, "<", "/";
        must_fail("open_by_handle_at", call(304, fileno $d, pack("LlQ", 8, 1, 2), 0))"#,
    ),
    (
        "nested user namespace (CVE-2022-0185, CVE-2023-32233 begin so)",
        r#"must_fail("unshare", call(272, 0x10000000))"#,
    ),
    (
        "nested pid namespace",
        r#"must_fail("unshare", call(272, 0x20000000))"#,
    ),
    (
        "nested user namespace by clone",
        r#"must_fail("clone", call(56, 0x10000000 | 17, 0, 0, 0, 0))"#,
    ),
    (
        "namespaces by clone3",
        r#"must_fail("clone3", call(435, pack("Q8", 0x10000000, 0, 0, 0, 17, 0, 0, 0), 64))"#,
    ),
    (
        "x32 calls (CVE-2014-0038)",
        r#"must_fail("x32 unshare", call(0x40000000 | 272, 0x10000000))"#,
    ),
    (
        "TIOCSTI (CVE-2016-2568, CVE-2017-5226)",
        r#"open my $t, "+<", "/dev/ptmx"; my $c = "x"; must_fail("TIOCSTI", call(16, fileno $t, 0x5412, $c))"#,
    ),
    (
        "TIOCSTI by the high half (CVE-2019-10063)",
        r#"open my $t, "+<", "/dev/ptmx"; my $c = "x"; must_fail("TIOCSTI", call(16, fileno $t, 0x100005412, $c))"#,
    ),
    (
        "TIOCLINUX (CVE-2023-28100)",
        r#"my $c = "\3"; must_fail("TIOCLINUX", call(16, 0, 0x541c, $c))"#,
    ),
    (
        "vsock to the hypervisor (CVE-2021-26708)",
        r#"must_fail("AF_VSOCK", call(41, 40, 1, 0))"#,
    ),
    (
        "the kernel's log",
        r#"must_fail("syslog", call(103, 3, "\0" x 4096, 4096))"#,
    ),
    (
        "accounting of processes",
        r#"must_fail("acct", call(163, "/root/acct"))"#,
    ),
    (
        "quotas of the node",
        r#"must_fail("quotactl", call(179, 0x80000700, "/", 0, "\0" x 256))"#,
    ),
    (
        "ports of the hardware",
        r#"must_fail("iopl", call(172, 3))"#,
    ),
    (
        "no address randomization",
        r#"must_fail("personality", call(135, 0x0040000))"#,
    ),
];

/// See [`CALLS`] for the classes.
fn calls_into_the_nodes_kernel_are_refused(node: &mut Node) -> Result<()> {
    attacker(node)?;
    all_refused(node, CALLS)
}

/// Files through which the node's kernel is told what to do. Covers are taken away first: they are
/// not the wall.
const FILES: &[Attempt] = &[
    (
        "core_pattern (CVE-2022-0811)",
        r#"open my $f, ">", "/proc/sys/kernel/core_pattern" or refused("open"); must_fail("write", (syswrite($f, "|/bin/evil") // -1))"#,
    ),
    (
        "modprobe's path",
        r#"open my $f, ">", "/proc/sys/kernel/modprobe" or refused("open"); must_fail("write", (syswrite($f, "/bin/evil") // -1))"#,
    ),
    (
        "uevent_helper",
        r#"open my $f, ">", "/sys/kernel/uevent_helper" or refused("open"); must_fail("write", (syswrite($f, "/bin/evil") // -1))"#,
    ),
    (
        "sysrq",
        r#"call(166, "/proc/sysrq-trigger", 2); open my $f, ">", "/proc/sysrq-trigger" or refused("open"); must_fail("write", (syswrite($f, "h") // -1))"#,
    ),
    (
        "the node's memory",
        r#"call(166, "/proc/kcore", 2); open my $f, "<", "/proc/kcore" or refused("open"); my $b; (sysread($f, $b, 64) // -1) > 0 ? succeeded("read") : refused("read")"#,
    ),
    (
        "panic on demand",
        r#"open my $f, ">", "/proc/sys/kernel/panic" or refused("open"); must_fail("write", (syswrite($f, "1") // -1))"#,
    ),
    (
        "limits of the node's processes",
        r#"open my $f, ">", "/proc/sys/kernel/threads-max" or refused("open"); must_fail("write", (syswrite($f, "400") // -1))"#,
    ),
    (
        "the node's neighbour table",
        r#"open my $f, ">", "/proc/sys/net/ipv4/neigh/default/gc_thresh3" or refused("open"); must_fail("write", (syswrite($f, "1") // -1))"#,
    ),
    (
        "sysfs made writable",
        r#"call(165, "none", "/sys", "none", 0x20, 0); open my $f, ">", "/sys/kernel/mm/transparent_hugepage/enabled" or refused("open"); must_fail("write", (syswrite($f, "never") // -1))"#,
    ),
    (
        "debugfs",
        r#"mkdir "/root/d"; must_fail("mount", call(165, "none", "/root/d", "debugfs", 0, 0))"#,
    ),
    (
        "tracefs",
        r#"mkdir "/root/d"; must_fail("mount", call(165, "none", "/root/d", "tracefs", 0, 0))"#,
    ),
    (
        "securityfs",
        r#"mkdir "/root/d"; must_fail("mount", call(165, "none", "/root/d", "securityfs", 0, 0))"#,
    ),
    (
        "a profile of the node's boot",
        r#"open my $f, ">", "/proc/profile" or refused("open"); must_fail("write", (syswrite($f, "1") // -1))"#,
    ),
    (
        "its own filter, ended by strict mode's opposite",
        r#"must_fail("PR_SET_SECCOMP", call(157, 22, 0, 0, 0, 0))"#,
    ),
    (
        "protection from the killer of memory",
        r#"open my $f, ">", "/proc/self/oom_score_adj" or refused("open"); must_fail("write", (syswrite($f, "-1000") // -1))"#,
    ),
    (
        "control groups of version 1, with release_agent (CVE-2022-0492)",
        r#"
        mkdir "/root/cg"; my $won = "";
        for my $kind (qw(cpu cpuacct cpuset memory devices freezer blkio pids net_cls perf_event rdma misc), "none,name=systemd", "none,name=evil") {
            next if call(165, "none", "/root/cg", "cgroup", 0, $kind) < 0;
            for my $file (qw(release_agent notify_on_release cgroup.procs tasks memory.limit_in_bytes pids.max devices.allow)) {
                for my $folder (glob("/root/cg"), grep { -d } glob("/root/cg/*")) {
                    my $text = $file eq "release_agent" ? "/bin/evil" : $file eq "devices.allow" ? "a" : "1";
                    open my $f, ">", "$folder/$file" or next;
                    my $done = syswrite $f, $text;
                    $won .= " $kind:$file" if defined $done && $done > 0;
                }
            }
            call(166, "/root/cg", 2);
        }
        $won ? succeeded($won) : refused("release_agent");"#,
    ),
    (
        "its own limits on version 2",
        r#"
        my $won = "";
        for my $file (qw(memory.max pids.max cpu.max io.max cgroup.max.descendants cgroup.max.depth cgroup.freeze cgroup.kill)) {
            open my $f, ">", "/sys/fs/cgroup/$file" or next;
            my $done = syswrite $f, "100000"; $won .= " $file" if defined $done && $done > 0;
        }
        $won ? succeeded($won) : refused("limits");"#,
    ),
];

/// See [`FILES`] for the classes.
fn files_of_the_nodes_kernel_are_refused(node: &mut Node) -> Result<()> {
    attacker(node)?;
    let before = fs::read_to_string("/proc/sys/kernel/core_pattern")?;
    all_refused(node, FILES)?;
    ensure!(fs::read_to_string("/proc/sys/kernel/core_pattern")? == before);
    Ok(())
}

/// Nodes of devices, by every way to make one, for every disk that this machine has (CVE-2019-10147:
/// the device group of containers).
fn device_nodes_and_raw_disks_are_refused(node: &mut Node) -> Result<()> {
    attacker(node)?;
    let mut devices = vec![
        ("memory", 'c', 1, 1),
        ("ports", 'c', 1, 4),
        ("the kernel's log", 'c', 1, 11),
        ("the node's console", 'c', 5, 1),
        ("loop control", 'c', 10, 237),
        ("kvm", 'c', 10, 232),
        ("userfaultfd", 'c', 10, 126),
    ];
    let mut disks = Vec::new();
    for entry in fs::read_dir("/dev")?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_block_device()) {
            let number = entry.metadata()?.rdev();
            disks.push((rustix::fs::major(number), rustix::fs::minor(number)));
        }
    }
    devices.extend(
        disks
            .iter()
            .map(|(major, minor)| ("a disk", 'b', *major, *minor)),
    );
    ensure!(!disks.is_empty(), "this machine shows no disk to try");
    for (what, kind, major, minor) in devices {
        let mode = if kind == 'b' { 0o60_666 } else { 0o20_666 };
        // In the root, in a tmpfs, in /dev, and in a file system mounted without `nodev`.
        let script = format!(
            r#"
            mkdir "/root/own"; call(165, "none", "/root/own", "tmpfs", 0, 0);
            call(165, "none", "/dev", "none", 0x20, 0);
            my $device = ({minor} & 0xff) | ({major} << 8) | (({minor} & ~0xff) << 12);
            for my $path ("/root/node", "/root/own/node", "/dev/node", "/run/node") {{
                next if call(133, $path, {mode}, $device) < 0;
                open my $f, "+<", $path or open $f, "<", $path or next;
                succeeded("opened $path");
            }}
            refused("mknod");"#
        );
        must_be_refused(node, &format!("{what} ({major}:{minor})"), &script)?;
    }
    Ok(())
}

/// Processes and namespaces.
const PROCESSES: &[Attempt] = &[
    (
        "namespaces above its own (NS_GET_PARENT)",
        r#"
        my $won = "";
        for my $kind (qw(user pid)) {
            open my $f, "<", "/proc/self/ns/$kind"; my $up = call(16, fileno $f, 0xb702, 0);
            $won .= " $kind" if $up >= 0;
        }
        $won ? succeeded($won) : refused("parent");"#,
    ),
    (
        "setns to what /proc shows of others (CWE-668)",
        r#"
        my %own = map { readlink("/proc/self/ns/$_") => 1 } qw(user mnt pid net ipc uts cgroup);
        for my $path (glob "/proc/[0-9]*/ns/*") {
            next if $path =~ /time|pid_for/; my $to = readlink $path; next if !$to || $own{$to};
            open my $f, "<", $path or next; succeeded($path) if call(308, fileno $f, 0) >= 0;
        }
        refused("setns");"#,
    ),
    (
        "tracing what is not its own (CVE-2016-9962)",
        r#"
        for my $pid (2 .. 32768) {
            next if -e "/proc/$pid"; # of the VE itself
            succeeded("pid $pid") if call(101, 16, $pid, 0, 0) >= 0; # PTRACE_ATTACH
            succeeded("signal $pid") if kill 0, $pid;
        }
        refused("ptrace");"#,
    ),
    (
        "memory of other processes",
        r#"
        my ($local, $remote) = (pack("QQ", 0x1000, 8), pack("QQ", 0x400000, 8));
        for my $pid (2 .. 5000) { next if -e "/proc/$pid"; succeeded("pid $pid") if call(310, $pid, $local, 1, $remote, 1, 0) >= 0 }
        refused("process_vm_readv");"#,
    ),
    (
        "pidfd of what is not its own",
        r#"
        for my $pid (2 .. 32768) { next if -e "/proc/$pid"; succeeded("pid $pid") if call(434, $pid, 0) >= 0 }
        refused("pidfd_open");"#,
    ),
    (
        "abstract sockets and links of the node",
        r#"
        open my $f, "<", "/proc/net/unix"; my @names = grep { /vessel|systemd|dbus/ } <$f>;
        open $f, "<", "/proc/net/dev"; my @links = grep { /ve\d|docker|ens/ } <$f>;
        @names || @links ? succeeded("@names @links") : refused("nothing is seen");"#,
    ),
    (
        "mounts of the node",
        r#"
        open my $f, "<", "/proc/self/mountinfo"; my @seen = grep { m{/private/|/templates/|pool\.img|/vessel-test} } <$f>;
        @seen ? succeeded("@seen") : refused("nothing is seen");"#,
    ),
    (
        "chroot out of the root (CWE-243)",
        r#"
        mkdir "/root/jail"; open my $root, "<", "/"; chroot "/root/jail"; call(81, fileno $root);
        chdir ".." for 1 .. 100; chroot ".";
        -e "/sbin/init" && readlink("/sbin/init") eq "/bin/busybox" ? refused("still at home") : succeeded("out")"#,
    ),
    (
        "the old root under the new (pivot_root)",
        r#"
        open my $f, "<", "/proc/1/mountinfo"; my @roots = grep { (split)[4] eq "/" } <$f>;
        @roots == 1 ? refused("one root") : succeeded("@roots");"#,
    ),
];

/// See [`PROCESSES`] for the classes.
fn processes_and_namespaces_of_the_node_are_out_of_reach(node: &mut Node) -> Result<()> {
    attacker(node)?;
    all_refused(node, PROCESSES)
}

/// The clock of all, and the machine's power.
const CLOCK: &[Attempt] = &[
    (
        "clock_settime",
        r#"must_fail("clock_settime", call(227, 0, pack("qq", 86400, 0)))"#,
    ),
    (
        "settimeofday",
        r#"must_fail("settimeofday", call(164, pack("qq", 86400, 0), 0))"#,
    ),
    (
        "adjtimex",
        r#"must_fail("adjtimex", call(159, pack("Lx4q", 0x4000, 10001) . "\0" x 200))"#,
    ),
    (
        "clock_adjtime",
        r#"must_fail("clock_adjtime", call(305, 0, pack("Lx4q", 0x4000, 10001) . "\0" x 200))"#,
    ),
    (
        "Ctrl-Alt-Del",
        r#"must_fail("reboot(CAD_ON)", call(169, 0xfee1dead, 672274793, 0x89abcdef, 0))"#,
    ),
    (
        "hibernation",
        r#"must_fail("reboot(SW_SUSPEND)", call(169, 0xfee1dead, 672274793, 0xd000fce2, 0))"#,
    ),
    (
        "kexec by reboot",
        r#"must_fail("reboot(KEXEC)", call(169, 0xfee1dead, 672274793, 0x45584543, 0))"#,
    ),
];

/// See [`CLOCK`]; a reboot itself ends the VE and nothing else.
fn the_clock_and_the_machine_go_on(node: &mut Node) -> Result<()> {
    attacker(node)?;
    node.start_tiny("web")?;
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    all_refused(node, CLOCK)?;
    node.vessel(&["exec", "bad", "--", "poweroff", "-f"])?;
    node.expect_state("bad", "stopped")?;
    ensure!(node.state("web")? == "running");
    ensure!(fs::read_to_string("/proc/sys/kernel/random/boot_id")? == boot);
    Ok(())
}

/// The report says what holds, and says so when the VE's root took a cover away.
fn a_ve_with_every_wall_shows_it(node: &mut Node) -> Result<()> {
    attacker(node)?;
    let report = node.json(&["isolation", "bad"])?;
    ensure!(report["differing"] == 0, "{report}");
    ensure!(
        report["walls"]
            .as_array()
            .is_some_and(|walls| walls.len() >= 8),
        "{report}"
    );
    node.sh("bad", "umount /proc/irq")?;
    let output = node.vessel(&["isolation", "bad", "--differing"])?;
    ensure!(
        output.code == 1 && output.stdout.contains("/proc/irq"),
        "a wall fell and nothing showed: {output}"
    );
    node.ok(&["stop", "bad", "--kill"])?;
    let output = node.ok(&["isolation", "bad"])?;
    ensure!(
        output.contains("it is stopped, so this is the plan"),
        "{output}"
    );
    Ok(())
}
