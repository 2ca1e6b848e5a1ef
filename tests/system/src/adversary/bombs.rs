//! Bombs that use up processes, memory, caches and disk.
//!
//! The class of all is CWE-770, allocation without limits, or CWE-400. Each must end at a limit of
//! the VE, with the neighbour's answers as quick as before and the daemon answering.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::arsenal::{attacker, memory_within_limit, reported};
use super::neighbour::{bomb, settle};
use crate::harness::{Node, tests, until};

tests! {
    Hostile [] =>
        a_fork_bomb_ends_at_its_limit,
        a_fork_bomb_on_all_processors_costs_the_neighbour_nothing,
        without_a_limit_processes_are_bounded,
        a_memory_bomb_kills_its_own_processes_only,
        page_cache_is_the_ves_own,
        filling_tmpfs_ends_at_the_ves_memory,
        filling_the_disk_ends_at_its_limit,
        metadata_and_attributes_count_as_disk,
        a_flood_of_names_stays_in_the_ves_memory,
        a_reboot_storm_disturbs_nobody;
}

fn prepared(node: &Node) -> Result<()> {
    attacker(node)?;
    settle(node)
}

/// Forks and forks, and so does every child.
const FORKS: &str = r#"
    my $end = time + 3;
    while (time < $end) { defined fork or select undef, undef, undef, 0.002 }
    exit 1;
"#;

/// Every process forks for ever (CWE-770).
fn a_fork_bomb_ends_at_its_limit(node: &mut Node) -> Result<()> {
    prepared(node)?;
    bomb(node, FORKS, 8)?;
    let id = node.show("bad")?["id"].as_u64().context("no id")?;
    // The kernel counts forks that the limit refused.
    let events = node.control(id, "pids", "pids.events", "pids.events")?;
    let refused = events.split_whitespace().nth(1);
    ensure!(
        refused.is_some_and(|count| count != "0"),
        "the bomb met no limit: {events}"
    );
    let now: u64 = node
        .control(id, "pids", "pids.current", "pids.current")?
        .parse()?;
    ensure!(now <= 256, "{now} processes");
    // Its last processes end a moment after their time.
    let alive = || node.sh("bad", "echo alive");
    until(
        "there is room again",
        Duration::from_secs(15),
        alive,
        |said| said == "alive",
    )?;
    Ok(())
}

/// Without `cpu.limit` a VE may use all that nobody else wants. Its neighbour has its share of the
/// processors then, and when it wakes its turn, as it used less (CWE-400).
fn a_fork_bomb_on_all_processors_costs_the_neighbour_nothing(node: &mut Node) -> Result<()> {
    prepared(node)?;
    node.ok(&["set", "bad", "cpu.limit=none"])?;
    bomb(node, FORKS, 8)?;
    Ok(())
}

/// A VE that nobody gave a limit still cannot take every process number of the machine (CWE-770).
fn without_a_limit_processes_are_bounded(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    let id = node.show("web")?["id"].as_u64().context("no id")?;
    let most: u64 = node.control(id, "pids", "pids.max", "pids.max")?.parse()?;
    let machine: u64 = std::fs::read_to_string("/proc/sys/kernel/pid_max")?
        .trim()
        .parse()?;
    ensure!(most <= machine / 4 || most <= 512, "{most} of {machine}");
    Ok(())
}

/// Memory is taken and touched, again and again, also what the kernel keeps for others: semaphores
/// (CWE-770; CVE-2021-3759: they were charged to nobody).
fn a_memory_bomb_kills_its_own_processes_only(node: &mut Node) -> Result<()> {
    prepared(node)?;
    let script = r#"
        my $end = time + 3; my $killed = 0;
        while (time < $end) {
            my $child = fork // next;
            if (!$child) {
                call(64, 0, 32000, 0x380) for 1 .. 20; # semget(IPC_PRIVATE)
                my @all; push @all, "x" x (4 << 20) while 1;
            }
            waitpid $child, 0;
            $killed++ if ($? & 127) == 9 || $? != 0;
        }
        print "refused killed=$killed\n"; exit 1;
    "#;
    let output = bomb(node, script, 8)?;
    // The killer may choose the attack's first process too, which then says nothing.
    ensure!(output.code != 0, "the bomb met no limit: {output}");
    memory_within_limit(node, "bad")?;
    let stats = node.json(&["stats", "bad"])?;
    ensure!(
        stats["memory_oom_kills"].as_u64().unwrap_or(0) > 0,
        "nothing was killed: {stats}"
    );
    ensure!(node.state("good")? == "running" && node.state("bad")? == "running");
    Ok(())
}

/// Files are written and read without end (CWE-400): their pages are the VE's, and go first.
fn page_cache_is_the_ves_own(node: &mut Node) -> Result<()> {
    prepared(node)?;
    let script = r#"
        my $end = time + 3; my ($n, $data) = (0, "x" x (1 << 20));
        while (time < $end) {
            my $name = "/root/cache" . ($n++ % 2);
            open my $to, ">", $name or refused("write after $n");
            print $to $data for 1 .. 64; close $to;
            open my $from, "<", $name; 1 while read $from, my $piece, 1 << 20; close $from;
        }
        print "refused files=$n\n"; exit 1;
    "#;
    let output = bomb(node, script, 9)?;
    ensure!(reported(&output.stdout, "files")? >= 2, "{output}");
    memory_within_limit(node, "bad")
}

/// Memory file systems are filled: those that every VE has, and one more (CWE-770).
fn filling_tmpfs_ends_at_the_ves_memory(node: &mut Node) -> Result<()> {
    prepared(node)?;
    let script = r#"
        mkdir "/root/more"; system "mount", "-t", "tmpfs", "-o", "size=100%", "none", "/root/more";
        my ($end, $written, $full, $data) = (time + 3, 0, 0, "x" x (1 << 20));
        for my $folder ("/run", "/dev", "/dev/shm", "/root/more") {
            open my $to, ">", "$folder/fill" or next;
            while (time < $end) {
                my $done = syswrite $to, $data;
                if (!$done) { $full++; last }
                $written += $done;
            }
        }
        print "refused full=$full written=$written\n"; exit 1;
    "#;
    let output = bomb(node, script, 8)?;
    // Either a file system was full, or the killer ended the attack; both are the VE's limit.
    ensure!(
        output.code == 137 || reported(&output.stdout, "full")? > 0,
        "{output}"
    );
    memory_within_limit(node, "bad")?;
    // Memory that only files of memory hold is given back by a restart, which must be possible.
    node.ok(&["restart", "bad", "--timeout", "5s"])?;
    node.expect_state("bad", "running")?;
    ensure!(node.sh("bad", "echo alive")? == "alive");
    Ok(())
}

/// The pool is shared; a VE's part of it ends at `disk.limit` (CWE-770).
fn filling_the_disk_ends_at_its_limit(node: &mut Node) -> Result<()> {
    prepared(node)?;
    let script = r#"
        open my $random, "<", "/dev/urandom"; read $random, my $data, 1 << 20;
        my ($end, $n, $limit) = (time + 6, 0, "");
        open my $to, ">", "/root/fill" or refused("create");
        while (time < $end) {
            if (!syswrite $to, $data) { $limit = $! + 0; last }
            call(74, fileno $to) if ++$n % 32 == 0; # fsync: what was promised is written
        }
        print "refused errno=$limit megabytes=$n\n"; exit 1;
    "#;
    let output = bomb(node, script, 10)?;
    let errno = reported(&output.stdout, "errno")?;
    ensure!(errno == 122 || errno == 28, "no quota was met: {output}");
    ensure!(reported(&output.stdout, "megabytes")? <= 257, "{output}");
    node.sh(
        "good",
        "dd if=/dev/zero of=/root/mine bs=1M count=8 conv=fsync 2>&1",
    )?;
    node.sh("bad", "rm /root/fill")?;
    Ok(())
}

/// Small files, long names and attributes are nothing but metadata, which must count too
/// (CWE-770).
fn metadata_and_attributes_count_as_disk(node: &mut Node) -> Result<()> {
    prepared(node)?;
    node.ok(&["set", "bad", "disk.limit=32M"])?;
    let script = r#"
        my ($end, $n, $limit) = (time + 6, 0, "");
        my ($name, $value) = ("n" x 200, "v" x 2000);
        while (time < $end) {
            mkdir "/root/$n" if $n % 1000 == 0; my $folder = int($n / 1000) * 1000;
            my $path = "/root/$folder/$name$n";
            if (!open my $file, ">", $path) { $limit = $! + 0; last }
            if (call(188, $path, "user.big", $value, length $value, 0) < 0) { $limit = $! + 0; last }
            if (++$n % 2000 == 0) { open my $root, "<", "/root"; call(306, fileno $root) } # syncfs
        }
        print "refused errno=$limit files=$n\n"; exit 1;
    "#;
    let output = bomb(node, script, 10)?;
    let files = reported(&output.stdout, "files")?;
    ensure!(files > 500, "the attack did not get going: {output}");
    let stats = node.json(&["stats", "bad"])?;
    let disk = stats["disk_bytes"].as_u64().context("no `disk_bytes`")?;
    ensure!(disk <= 40 << 20, "{disk} bytes of 32 MB for {files} files");
    node.sh(
        "good",
        "dd if=/dev/zero of=/root/mine bs=1M count=4 conv=fsync 2>&1",
    )?;
    Ok(())
}

/// Names that do not exist, and empty files: dentries and inodes are the VE's memory and are taken
/// back from it alone (CWE-400, known as the negative dentry flood).
fn a_flood_of_names_stays_in_the_ves_memory(node: &mut Node) -> Result<()> {
    prepared(node)?;
    let script = r#"
        my ($end, $n) = (time + 3, 0);
        mkdir "/dev/shm/names";
        while (time < $end) {
            for (1 .. 500) { $n++; stat "/root/none$n"; stat "/tmp/$n/none" }
            for (1 .. 50) { $n++; open my $file, ">", "/dev/shm/names/$n" or last }
        }
        print "refused names=$n\n"; exit 1;
    "#;
    let before = slab_bytes()?;
    let output = bomb(node, script, 8)?;
    // The killer may end it: files of memory cannot be taken back.
    ensure!(
        output.code == 137 || reported(&output.stdout, "names")? > 10_000,
        "{output}"
    );
    memory_within_limit(node, "bad")?;
    let grown = slab_bytes()?.saturating_sub(before);
    ensure!(
        grown < 300 << 20,
        "the node's kernel memory grew by {grown}"
    );
    Ok(())
}

fn slab_bytes() -> Result<u64> {
    let info = std::fs::read_to_string("/proc/meminfo")?;
    let line = info.lines().find_map(|line| line.strip_prefix("Slab:"));
    let kilobytes: u64 = line
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .context("no `Slab` in /proc/meminfo")?;
    Ok(kilobytes << 10)
}

/// A VE reboots as soon as it runs (CWE-400): each start is work of the node's root.
fn a_reboot_storm_disturbs_nobody(node: &mut Node) -> Result<()> {
    prepared(node)?;
    node.sh(
        "bad",
        "printf '#!/bin/sh\\nreboot -f\\n' > /etc/init.d/begin; sync",
    )?;
    let script = r#"
        call(169, 0xfee1dead, 672274793, 0x1234567, 0); # reboot: ends this VE only
        sleep 5; print "refused\n"; exit 1;
    "#;
    bomb(node, script, 6)?;
    ensure!(node.state("good")? == "running");
    // The node gives it up after ten restarts in a minute.
    node.expect_state("bad", "stopped")?;
    let events = node.ok(&["events", "--json"])?;
    ensure!(events.contains("ve-given-up"), "no storm: {events}");
    Ok(())
}
