//! Floods of the network's shared tables, of packets, and of logs.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::arsenal::{attacker, reported};
use super::neighbour::{bomb, settle};
use crate::harness::{Need, Node, tests, until};

tests! {
    Hostile [] =>
        a_full_neighbour_table_cuts_nobody_off,
        permanent_neighbours_cut_nobody_off_and_go_with_their_ve,
        a_flood_of_packets_leaves_the_neighbour_its_answers,
        connections_without_end_leave_room_for_others,
        a_flooded_console_costs_two_files;
    Debian [Need::Packages] =>
        a_flooded_journal_is_the_ves_own;
}

fn prepared(node: &Node) -> Result<()> {
    attacker(node)?;
    settle(node)
}

/// Perl that speaks to the kernel's routing socket: `neighbours(STATE, SECONDS)` adds as many as it
/// can, and returns how many the kernel took.
const NEIGHBOURS: &str = r#"
    sub neighbours {
        my ($state, $seconds) = @_;
        my $socket = call(41, 16, 3 | 0x800, 0); # socket(AF_NETLINK, SOCK_RAW | NONBLOCK)
        open my $file, "<", "/sys/class/net/eth0/ifindex"; my $index = <$file> + 0;
        my ($end, $n, $taken) = (time + $seconds, 0, 0);
        while (time < $end) {
            my $batch = "";
            for (1 .. 50) {
                $n++;
                my $body = pack("CCSlSCC", 2, 0, 0, $index, $state, 0, 0)
                    . pack("SSN", 8, 1, 0x0b000000 + $n) . pack("SSNnx2", 10, 2, 0x02000000, $n & 0xffff);
                # RTM_NEWNEIGH with NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE
                $batch .= pack("LSSLL", 16 + length $body, 28, 0x405, $n, 0) . $body;
            }
            my $to = pack("SSLL", 16, 0, 0, 0);
            my $sent = call(44, $socket, $batch, length $batch, 0, $to, 12);
            return $taken if $sent < 0 && $! + 0 == 1;
            my $answer = "\0" x 65536;
            while ((my $length = syscall(45, $socket, $answer, 65536, 0, 0, 0)) > 0) {
                for (my $at = 0; $at + 20 <= $length; ) {
                    my ($size, $kind, $flags, $number, $port, $error) = unpack "LSSLLl", substr $answer, $at, 20;
                    $taken++ if $kind == 2 && $error == 0;
                    last if $size < 16;
                    $at += ($size + 3) & ~3;
                }
            }
        }
        return $taken;
    }
"#;

/// Dynamic entries, all just confirmed so that none may be thrown out: the table is one for the
/// machine (CWE-770; `gc_thresh3`). VEs are reached by entries that do not count there.
fn a_full_neighbour_table_cuts_nobody_off(node: &mut Node) -> Result<()> {
    prepared(node)?;
    let script = format!(
        "{NEIGHBOURS} my $n = neighbours(2, 4); print \"refused taken=$n\\n\"; exit 1;" // NUD_REACHABLE
    );
    let output = bomb(node, &script, 8)?;
    ensure!(reported(&output.stdout, "taken")? > 500, "{output}");
    // A VE that comes now is reached too.
    node.ok(&["create", "late", "--template", "hostile", "--start"])?;
    node.expect_page(&node.v4("late")?, "late")
}

/// Permanent entries count towards no limit of the kernel and are charged to nobody (CWE-770). What
/// holds: they are nobody else's trouble but for the memory, and go with the VE. What does not: their
/// number is not bounded (see the table of [`super`]).
fn permanent_neighbours_cut_nobody_off_and_go_with_their_ve(node: &mut Node) -> Result<()> {
    prepared(node)?;
    let before = neighbours_of_the_machine(node)?;
    let script = format!(
        "{NEIGHBOURS} my $n = neighbours(128, 3); print \"refused taken=$n\\n\"; exit 1;" // NUD_PERMANENT
    );
    let output = bomb(node, &script, 8)?;
    let taken = reported(&output.stdout, "taken")?;
    ensure!(taken > 2_000, "the attack did not get going: {output}");
    let during = neighbours_of_the_machine(node)?;
    ensure!(
        during >= before + taken / 2,
        "{taken} neighbours were taken, and the table grew from {before} to {during}"
    );
    // A VE that comes now is reached too.
    node.ok(&["create", "late", "--template", "hostile", "--start"])?;
    node.expect_page(&node.v4("late")?, "late")?;
    node.ok(&["delete", "bad", "--force"])?;
    until(
        "the table is as it was, but for what others add",
        Duration::from_secs(15),
        || neighbours_of_the_machine(node),
        |now| *now < before + 1_000,
    )?;
    Ok(())
}

/// Entries in the kernel's table of IPv4 neighbours, which all network namespaces share.
fn neighbours_of_the_machine(node: &Node) -> Result<u64> {
    let shown = node
        .inside(&["ip", "-s", "ntable", "show", "name", "arp_cache"])?
        .success()?;
    let after = shown.split(" entries ").nth(1);
    let number = after.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    number.with_context(|| format!("no number of entries: {shown}"))
}

/// Small packets to the neighbour and to the node, as fast as four processes send them (CWE-400).
fn a_flood_of_packets_leaves_the_neighbour_its_answers(node: &mut Node) -> Result<()> {
    prepared(node)?;
    let target = packed(&node.v4("good")?)?;
    let script = format!(
        r#"
        my ($end, $sent) = (time + 3, 0);
        fork for 1 .. 2;
        my $socket = call(41, 2, 2, 0); # socket(AF_INET, SOCK_DGRAM)
        my @to = map {{ pack("SnNx8", 2, 9, $_) }} {target}, 0xa9fe0101;
        while (time < $end) {{
            for (1 .. 200) {{ for my $to (@to) {{ $sent++ if call(44, $socket, "x", 1, 0, $to, 16) >= 0 }} }}
        }}
        print "refused sent=$sent\n"; exit 1;
    "#
    );
    let output = bomb(node, &script, 8)?;
    ensure!(reported(&output.stdout, "sent")? > 1_000, "{output}");
    Ok(())
}

/// Connections that a VE may have begun; the node's table usually has places for 262,144.
const CONNECTIONS_MAX: u64 = 16_384;

/// Each new pair of ports is an entry in the node's table of connections, which all VEs' traffic
/// needs (CWE-770; CWE-400).
fn connections_without_end_leave_room_for_others(node: &mut Node) -> Result<()> {
    prepared(node)?;
    let before = connections(node)?;
    let target = packed(&node.v4("good")?)?;
    let script = format!(
        r#"
        my ($soonest, $latest, $sent) = (time + 3, time + 9, 0);
        while (time < $soonest || $sent < 40_000 && time < $latest) {{
            my $socket = call(41, 2, 2, 0);
            for my $port (1 .. 2000) {{
                $sent++ if call(44, $socket, "x", 1, 0, pack("SnNx8", 2, 1024 + int rand 64000, {target}), 16) >= 0;
            }}
            call(3, $socket);
        }}
        print "refused sent=$sent\n"; exit 1;
    "#
    );
    let output = bomb(node, &script, 12)?;
    let sent = reported(&output.stdout, "sent")?;
    ensure!(sent > CONNECTIONS_MAX * 5 / 4, "too slow: {output}");
    let after = connections(node)?;
    // Those of whoever asked the neighbour before are still there, for two minutes; during this bomb
    // they are few.
    ensure!(
        after > 1_000 && after < before + CONNECTIONS_MAX + 2_000,
        "{after} connections are followed after {sent} packets, and {before} were before"
    );
    Ok(())
}

/// How many connections the node follows, of everybody.
fn connections(node: &Node) -> Result<u64> {
    let count = "/proc/sys/net/netfilter/nf_conntrack_count";
    let text = node.inside(&["cat", count])?.success()?;
    text.trim().parse().context("no number")
}

/// An address as a number that Perl packs.
fn packed(address: &str) -> Result<String> {
    let address: std::net::Ipv4Addr = address.parse().context("no IPv4 address")?;
    Ok(u32::from(address).to_string())
}

/// The console's log lies on the node (CWE-779, excessive logging): it is two files of a fixed size,
/// and its reader, which serves all VEs, reads each console only so fast.
fn a_flooded_console_costs_two_files(node: &mut Node) -> Result<()> {
    prepared(node)?;
    let script = r#"
        my ($end, $bytes) = (time + 3, 0);
        open my $console, ">", "/dev/console" or refused("console");
        fork for 1 .. 2;
        my $line = ("flood " x 100) . "\n";
        while (time < $end) { $bytes += syswrite $console, $line }
        print "refused bytes=$bytes\n"; exit 1;
    "#;
    let output = bomb(node, script, 8)?;
    ensure!(
        output.code == 137 || reported(&output.stdout, "bytes")? > 0,
        "{output}"
    );
    let mut bytes = 0;
    for entry in fs::read_dir(node.root().join("log"))?.flatten() {
        bytes += size_below(&entry.path())?;
    }
    ensure!(bytes < 16 << 20, "the logs hold {bytes} bytes");
    ensure!(node.ok(&["logs", "bad", "--lines", "5"])?.contains("flood"));
    Ok(())
}

fn size_below(path: &std::path::Path) -> Result<u64> {
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_dir() {
        return Ok(metadata.len());
    }
    let mut bytes = 0;
    for entry in fs::read_dir(path)?.flatten() {
        bytes += size_below(&entry.path())?;
    }
    Ok(bytes)
}

/// A VE's journal is a file of the VE, bounded by itself and by `disk.limit`; the node's own journal
/// hears nothing (CWE-779).
fn a_flooded_journal_is_the_ves_own(node: &mut Node) -> Result<()> {
    node.ok(&[
        "create",
        "writer",
        "--template",
        "debian-12",
        "--set",
        "memory.limit=512M",
        "--set",
        "disk.limit=512M",
        "--start",
    ])?;
    node.ok(&[
        "exec",
        "writer",
        "--",
        "timeout",
        "5",
        "sh",
        "-c",
        "while :; do head -c 20000 /dev/zero | tr '\\0' 'x' | fold -w 200 | logger; done; true",
    ])
    .ok();
    let size = node.sh(
        "writer",
        "du -sm /run/log/journal /var/log/journal 2>/dev/null | awk '{s+=$1} END {print s+0}'",
    )?;
    let megabytes: u64 = size.parse().context("no number")?;
    ensure!(megabytes <= 64, "the journal holds {megabytes} MB");
    ensure!(node.sh("writer", "journalctl -n 50 --no-pager | grep -c xxxx")? != "0");
    node.ok(&["delete", "writer", "--force"])?;
    Ok(())
}
