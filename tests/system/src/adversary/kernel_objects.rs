//! Kernel objects of which the machine has one supply, or whose memory no group is charged for.
//!
//! The class of all is CWE-770. What is asked after each: can the neighbour still have some?

use anyhow::{Result, ensure};

use super::arsenal::{Outcome, attack, attacker, judge, memory_within_limit, reported};
use super::neighbour::{bomb, settle};
use crate::harness::{Node, tests};

tests! {
    Hostile [] =>
        terminals_are_left_for_the_neighbour,
        inotify_is_each_ves_own,
        keyrings_are_out_of_reach,
        namespaces_end_at_the_limits_of_the_ve,
        limits_of_namespaces_cannot_be_raised_inside,
        mounts_are_the_ves_own_memory,
        control_groups_end_at_their_limit;
}

fn prepared(node: &Node) -> Result<()> {
    attacker(node)?;
    settle(node)
}

/// `kernel.pty.max` is one number for the machine: a VE that takes all terminals keeps everybody
/// from logging in (CWE-770).
fn terminals_are_left_for_the_neighbour(node: &mut Node) -> Result<()> {
    prepared(node)?;
    let script = r#"
        my (@held, $n);
        for (1 .. 5000) { open my $end, "+<", "/dev/ptmx" or last; push @held, $end; $n++ }
        my $errno = $! + 0;
        select undef, undef, undef, 3;
        print "refused terminals=$n errno=$errno\n"; exit 1;
    "#;
    let output = bomb(node, script, 8)?;
    ensure!(reported(&output.stdout, "terminals")? <= 256, "{output}");
    ensure!(reported(&output.stdout, "errno")? == 28, "{output}");
    Ok(())
}

/// Instances and watches of inotify are counted by user; each VE's count is its own (CWE-770: with
/// one range of users, 18 of 40 VEs booted).
fn inotify_is_each_ves_own(node: &mut Node) -> Result<()> {
    prepared(node)?;
    let script = r#"
        my ($instances, $watches) = (0, 0);
        my $fd = call(294, 0);
        for my $n (1 .. 20000) {
            mkdir "/dev/shm/$n" or last;
            last if call(254, $fd, "/dev/shm/$n", 0x100) < 0;
            $watches++;
        }
        while (call(294, 0) >= 0) { $instances++ }
        my $errno = $! + 0;
        select undef, undef, undef, 3;
        print "refused instances=$instances watches=$watches errno=$errno\n"; exit 1;
    "#;
    let output = bomb(node, script, 9)?;
    ensure!(reported(&output.stdout, "instances")? < 2_000, "{output}");
    ensure!(reported(&output.stdout, "errno")? == 24, "{output}");
    let fine = r#"call(294, 0) < 0 ? refused("inotify") : succeeded("inotify")"#;
    ensure!(
        matches!(attack(node, "good", fine)?, Outcome::Succeeded(_)),
        "the neighbour has no inotify"
    );
    memory_within_limit(node, "bad")
}

/// Keys are counted by user and seen across namespaces (CVE-2016-0728, CVE-2014-9529): there are
/// none in a VE.
fn keyrings_are_out_of_reach(node: &mut Node) -> Result<()> {
    attacker(node)?;
    let script = r#"
        my $made = 0;
        for my $n (1 .. 1000) { $made++ if call(248, "user", "key$n", "x" x 100, 100, -2) >= 0 }
        $made++ if call(250, 0, -2, 1) >= 0;             # keyctl(GET_KEYRING_ID)
        $made++ if call(249, "user", "key1", 0, -2) >= 0; # request_key
        $made ? succeeded("$made keys") : refused("keys");
    "#;
    let outcome = attack(node, "bad", script)?;
    ensure!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    Ok(())
}

/// A network namespace costs 160 kB of the node's memory and milliseconds of work at its end
/// (CWE-770; cleaning is one kernel thread for all).
fn namespaces_end_at_the_limits_of_the_ve(node: &mut Node) -> Result<()> {
    prepared(node)?;
    let script = r#"
        my (@held, $n, $errno) = ();
        call(160, 7, pack("QQ", 8192, 8192)); # setrlimit(RLIMIT_NOFILE)
        for (1 .. 2000) {
            if (call(272, 0x40000000) < 0) { $errno = $! + 0; last } # unshare(CLONE_NEWNET)
            open my $keep, "<", "/proc/self/ns/net"; push @held, $keep; $n++;
        }
        my ($mounts) = (0);
        for (1 .. 5000) {
            last if call(272, 0x00020000) < 0; # unshare(CLONE_NEWNS)
            open my $keep, "<", "/proc/self/ns/mnt" or refused("held"); push @held, $keep; $mounts++;
        }
        select undef, undef, undef, 1;
        print "refused networks=$n errno=$errno mounts=$mounts\n"; exit 1;
    "#;
    let output = bomb(node, script, 10)?;
    ensure!(reported(&output.stdout, "networks")? <= 128, "{output}");
    ensure!(reported(&output.stdout, "errno")? == 28, "{output}");
    ensure!(reported(&output.stdout, "mounts")? <= 1_024, "{output}");
    memory_within_limit(node, "bad")
}

/// The limits lie in the VE's own user namespace, where its root has every right that is left
/// (CWE-269).
fn limits_of_namespaces_cannot_be_raised_inside(node: &mut Node) -> Result<()> {
    attacker(node)?;
    let script = r#"
        my $raised = 0;
        for my $file (glob "/proc/sys/user/max_*_namespaces") {
            open my $limit, "<", $file; my $was = <$limit>;
            if (open my $new, ">", $file) { $raised++ if syswrite $new, "1000000" }
            open $limit, "<", $file; $raised++ if <$limit> != $was;
            $raised += 100 if $was > 1024;
        }
        $raised ? succeeded("raised=$raised") : refused("raised");
    "#;
    let outcome = attack(node, "bad", script)?;
    ensure!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    Ok(())
}

/// Mounts multiply by binding a tree onto itself (CWE-770; CVE-2016-6213: two doublings of a shared
/// mount took a host down).
fn mounts_are_the_ves_own_memory(node: &mut Node) -> Result<()> {
    prepared(node)?;
    let script = r#"
        mkdir "/root/tree"; my ($n, $errno, $end) = (0, 0, time + 3);
        call(165, "none", "/root/tree", "tmpfs", 0, 0);
        call(165, "none", "/root/tree", "none", 0x100000 | 0x4000, 0); # shared, so that it doubles
        while (time < $end) {
            mkdir "/root/tree/$n";
            if (call(165, "/root/tree", "/root/tree/$n", "none", 0x1000 | 0x4000, 0) < 0) {
                $errno = $! + 0; last; # MS_BIND | MS_REC
            }
            $n++;
        }
        print "refused doublings=$n errno=$errno\n"; exit 1;
    "#;
    let output = bomb(node, script, 9)?;
    ensure!(
        output.code == 137 || reported(&output.stdout, "errno")? > 0,
        "mounts met no limit: {output}"
    );
    memory_within_limit(node, "bad")?;
    node.ok(&["restart", "bad", "--kill"])?;
    node.expect_state("bad", "running")
}

/// A VE may make control groups of its own, whose memory is not charged in full (CWE-770).
fn control_groups_end_at_their_limit(node: &mut Node) -> Result<()> {
    prepared(node)?;
    let script = r#"
        my ($n, $errno) = (0, 0);
        for (1 .. 5000) {
            if (!mkdir "/sys/fs/cgroup/g$_") { $errno = $! + 0; last }
            $n++;
        }
        my ($depth, $path) = (0, "/sys/fs/cgroup/g1");
        for (1 .. 200) { $path .= "/d"; mkdir $path or last; $depth++ }
        select undef, undef, undef, 2;
        print "refused groups=$n depth=$depth errno=$errno\n"; exit 1;
    "#;
    let output = bomb(node, script, 9)?;
    judge(&output)?;
    ensure!(reported(&output.stdout, "groups")? <= 1_024, "{output}");
    ensure!(reported(&output.stdout, "errno")? > 0, "{output}");
    ensure!(reported(&output.stdout, "depth")? <= 32, "{output}");
    Ok(())
}
