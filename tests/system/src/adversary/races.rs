//! What the node does in a VE, while the VE's root swaps files, programs and processes under it.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::arsenal::{Outcome, attack_command, attacker, canary, canary_lives, judge, text};
use crate::harness::node::program;
use crate::harness::{Node, command, tests};

tests! {
    Hostile [] =>
        commands_from_outside_leak_nothing,
        no_directory_leads_out,
        the_launchers_program_cannot_be_overwritten,
        lying_account_files_hurt_only_the_ve,
        copies_do_not_follow_swapped_links,
        mount_points_that_are_links_are_refused,
        the_console_and_its_log_stay_where_they_are;
}

/// How often a race is run: each round gives the attacker one more chance.
const ROUNDS: u32 = 25;

/// Watches every new process of the VE and looks for what leads out: descriptors, directories,
/// programs (CVE-2024-21626, CVE-2019-5736, CVE-2016-9962).
const WATCHER: &str = r#"
    use strict; no strict "refs";
    my ($end, %seen, @found, $looked) = (time + 4);
    my %own = map { $_ => 1 } grep { defined } map { readlink "/proc/1/ns/$_" } qw(mnt user);
    while (time < $end) {
        opendir my $all, "/proc" or die; my @pids = grep { /^\d+$/ && $_ > 1 } readdir $all; closedir $all;
        for my $pid (@pids) {
            next if $pid == $$;
            $looked++ if !$seen{$pid}++;
            for my $link (glob("/proc/$pid/fd/*"), map { "/proc/$pid/$_" } qw(cwd root exe)) {
                my $to = readlink $link; next if !defined $to;
                push @found, "$link -> $to" if $to =~ m{vessel|/private/|/templates/|/run/netns|canary|\.sock};
                # A folder outside has the host's files beneath it.
                push @found, "$link leads out" if -e "$link/CANARY/canary" || -e "$link/..CANARY/canary";
            }
            # What is not one of the VE's own programs (yet) is the launcher's: may it be changed, or traced?
            my $program = readlink "/proc/$pid/exe";
            next if defined $program && $program =~ m{^/(usr/)?s?bin/};
            my $fd = call(2, "/proc/$pid/exe", 1, 0); # open(O_WRONLY)
            push @found, "$pid may be overwritten" if $fd >= 0;
            # By a child, whose end lets go of what it traced: a traced process waits at each signal.
            my $tracer = fork // next;
            if (!$tracer) {
                exit 0 if call(101, 0x4206, $pid + 0, 0, 0) < 0; # PTRACE_SEIZE
                # By now it may be the VE's own program, or nothing any more.
                open my $f, "<", "/proc/$pid/maps" or exit 0; local $/; my $maps = <$f> // "";
                exit($maps =~ /vessel/ ? 3 : 0);
            }
            waitpid $tracer, 0;
            push @found, "traced $pid" if $? >> 8 == 3;
        }
    }
    @found ? succeeded("@found[0 .. ($#found > 4 ? 4 : $#found)]") : refused("looked=$looked");
"#;

/// Commands run from outside again and again while the VE looks for what they brought along.
fn commands_from_outside_leak_nothing(node: &mut Node) -> Result<()> {
    attacker(node)?;
    let canary = canary(node)?;
    let script = WATCHER.replace("CANARY", &text(&node.folder()));
    let mut watching = attack_command(node, "bad", &script, 12);
    watching.stdin(Stdio::null());
    let node = &*node;
    let output = std::thread::scope(|scope| {
        let watcher = scope.spawn(move || command::run(&mut watching));
        std::thread::sleep(Duration::from_millis(500));
        for _ in 0..ROUNDS {
            // The attacker may stop or end what it sees: that is its own VE's affair.
            node.vessel(&["exec", "bad", "--", "timeout", "1", "sleep", "0.05"])?;
        }
        watcher
            .join()
            .map_err(|_| anyhow::anyhow!("the watching thread panicked"))?
    })?;
    let Outcome::Refused(said) = judge(&output)? else {
        anyhow::bail!("{output}");
    };
    let looked = super::arsenal::reported(&said, "looked")?;
    ensure!(looked > 10, "the watcher saw {looked} processes only");
    canary_lives(&canary)
}

/// A working directory that is a descriptor of whoever changes to it (CVE-2024-21626), or a link
/// through `/proc`.
fn no_directory_leads_out(node: &mut Node) -> Result<()> {
    attacker(node)?;
    canary(node)?;
    let marker = text(&node.folder().join("canary"));
    for number in 0..24 {
        node.sh(
            "bad",
            &format!("rm -f /root/d; ln -s /proc/self/fd/{number} /root/d"),
        )?;
        for place in [format!("/proc/self/fd/{number}"), "/root/d".to_owned()] {
            let look = format!(
                "for up in . .. ../.. ../../../../../..; do test -e $up{marker} && echo out; done; pwd"
            );
            let words = [
                "exec",
                "bad",
                "--directory",
                &place,
                "--",
                "sh",
                "-c",
                &look,
            ];
            let output = node.vessel(&words)?;
            ensure!(!output.stdout.contains("out\n"), "{place}: {output}");
            ensure!(!output.stdout.contains("unreachable"), "{place}: {output}");
        }
    }
    Ok(())
}

/// Programs that lead back to whatever executes them (CVE-2019-5736): as the command, as its
/// interpreter, as its library.
fn the_launchers_program_cannot_be_overwritten(node: &mut Node) -> Result<()> {
    attacker(node)?;
    let launcher = program("vessel-launcher");
    let before = fs::read(&launcher).context("cannot read the launcher's program")?;
    node.sh(
        "bad",
        "printf '#!/proc/self/exe\\n' > /bin/trap; chmod 755 /bin/trap; \
         ln -s /proc/self/exe /bin/direct",
    )?;
    for trap in ["/bin/trap", "/bin/direct", "/proc/self/exe"] {
        node.vessel(&["exec", "bad", "--", "timeout", "2", trap])?;
        node.vessel(&["exec", "bad", "--", trap])?;
    }
    let script = r#"
        my ($end, $won) = (time + 3, "");
        while (time < $end && !$won) {
            for my $exe (glob "/proc/[0-9]*/exe") {
                my $to = readlink $exe; next if !defined $to || $to =~ m{^/(usr/)?s?bin/};
                my $fd = call(2, $exe, 0, 0); next if $fd < 0;
                for (1 .. 200) { my $again = call(2, "/proc/self/fd/$fd", 0x201, 0); $won = $to if $again >= 0; last if $won }
                call(3, $fd);
            }
        }
        $won ? succeeded($won) : refused("program");
    "#;
    let mut attack = attack_command(node, "bad", script, 10);
    attack.stdin(Stdio::null());
    let node = &*node;
    let output = std::thread::scope(|scope| {
        let attacking = scope.spawn(move || command::run(&mut attack));
        for _ in 0..ROUNDS {
            node.vessel(&["exec", "bad", "--", "true"])?;
        }
        attacking
            .join()
            .map_err(|_| anyhow::anyhow!("the attacking thread panicked"))?
    })?;
    ensure!(matches!(judge(&output)?, Outcome::Refused(_)), "{output}");
    ensure!(
        fs::read(&launcher)? == before,
        "the launcher's program was changed"
    );
    ensure!(node.sh("bad", "echo alive")? == "alive");
    Ok(())
}

/// `/etc/passwd` and the like, which `exec` reads: a pipe that nobody writes, endless, a folder, a
/// link to nowhere (CWE-59, CWE-400).
fn lying_account_files_hurt_only_the_ve(node: &mut Node) -> Result<()> {
    attacker(node)?;
    for lie in [
        "mkfifo /etc/passwd",
        "ln -s /dev/zero /etc/passwd",
        "mkdir /etc/passwd",
        "ln -s /proc/1/fd/0 /etc/passwd",
        "ln -s passwd /etc/passwd",
        "yes x:x | head -c 50000000 > /etc/passwd",
    ] {
        node.sh("bad", &format!("rm -rf /etc/passwd /etc/group; {lie}; cp -a /etc/passwd /etc/group 2>/dev/null || true"))
            .with_context(|| lie.to_owned())?;
        let begun = std::time::Instant::now();
        let output = node.vessel(&["exec", "bad", "--user", "nobody-here", "--", "true"])?;
        ensure!(output.code != 0, "{lie}: {output}");
        let took = begun.elapsed();
        ensure!(took < Duration::from_secs(40), "{lie}: it took {took:?}");
        node.ok(&["list"])?;
    }
    Ok(())
}

/// A folder of the VE becomes a link to a folder of the host, and back, while files are copied in
/// and out (CVE-2018-15664, CVE-2019-14271: `docker cp`).
fn copies_do_not_follow_swapped_links(node: &mut Node) -> Result<()> {
    attacker(node)?;
    let canary = canary(node)?;
    let target = text(&node.folder());
    let script = format!(
        r#"
        my ($end, $swaps) = (time + 4, 0);
        mkdir "/root/real"; symlink "{target}", "/root/link";
        open my $f, ">", "/root/real/canary"; print $f "of the VE\n"; close $f;
        rename "/root/real", "/root/spot";
        while (time < $end) {{
            call(316, -100, "/root/spot", -100, "/root/link", 2); # renameat2(RENAME_EXCHANGE)
            $swaps++;
        }}
        print "refused swaps=$swaps\n"; exit 1;
    "#
    );
    let mut attack = attack_command(node, "bad", &script, 10);
    attack.stdin(Stdio::null());
    let outside = node.folder().join("outside");
    fs::write(&outside, "from outside\n")?;
    let node = &*node;
    let output = std::thread::scope(|scope| {
        let attacking = scope.spawn(move || command::run(&mut attack));
        std::thread::sleep(Duration::from_millis(400));
        for round in 0..ROUNDS {
            let inside = format!("bad:/root/spot/evil{round}");
            node.vessel(&["cp", &text(&outside), &inside])?;
            let copy = node.folder().join(format!("copy{round}"));
            node.vessel(&["cp", "bad:/root/spot/canary", &text(&copy)])?;
            let content = fs::read_to_string(&copy).unwrap_or_default();
            ensure!(content != "alive\n", "a file of the host was copied out");
            ensure!(
                !node.folder().join(format!("evil{round}")).exists(),
                "a file was copied onto the host"
            );
        }
        attacking
            .join()
            .map_err(|_| anyhow::anyhow!("the attacking thread panicked"))?
    })?;
    ensure!(
        super::arsenal::reported(&output.stdout, "swaps")? > 1_000,
        "{output}"
    );
    canary_lives(&canary)
}

/// Where the node mounts something at a start, the VE leaves a link (CVE-2019-16884,
/// CVE-2021-30465, CVE-2023-27561).
fn mount_points_that_are_links_are_refused(node: &mut Node) -> Result<()> {
    attacker(node)?;
    let canary = canary(node)?;
    let target = text(&node.folder());
    for place in ["sys", "run", "dev", "proc"] {
        // In a mount namespace of its own, where nothing lies on it.
        let line = format!(
            "unshare -m sh -c 'umount -l -r /{place} 2>/dev/null; umount -l /{place} 2>/dev/null; \
             /bin/busybox mv /{place} /{place}.was && /bin/busybox ln -s {target} /{place}'"
        );
        node.sh("bad", &line).with_context(|| place.to_owned())?;
        node.ok(&["stop", "bad", "--kill"])?;
        let output = node.vessel(&["start", "bad"])?;
        ensure!(
            output.code != 0 && output.stderr.contains(place),
            "/{place} is a link, and: {output}"
        );
        ensure!(node.state("bad")? == "stopped");
        // Its owner can repair it: files of a stopped VE can be replaced.
        node.ok(&["delete", "bad", "--force"])?;
        node.ok(&["create", "bad", "--template", "hostile", "--start"])?;
        node.expect_state("bad", "running")?;
    }
    canary_lives(&canary)
}

/// The console's end inside is replaced by links, and its log is looked for (CWE-59).
fn the_console_and_its_log_stay_where_they_are(node: &mut Node) -> Result<()> {
    attacker(node)?;
    let canary = canary(node)?;
    let target = text(&canary);
    node.sh(
        "bad",
        &format!(
            "umount -l /dev/console; rm -f /dev/console /dev/ptmx; ln -s {target} /dev/console"
        ),
    )?;
    node.vessel(&["logs", "bad"])?;
    node.ok(&["restart", "bad", "--kill"])?;
    node.expect_state("bad", "running")?;
    node.sh("bad", "echo 'said after all' > /dev/console")?;
    let id = node.show("bad")?["id"].to_string();
    let log = node.root().join("log");
    let owned = find(&log, "console.log", &id)?;
    let metadata = fs::symlink_metadata(&owned)?;
    ensure!(
        metadata.is_file() && std::os::unix::fs::MetadataExt::uid(&metadata) == 0,
        "{}",
        owned.display()
    );
    canary_lives(&canary)
}

fn find(folder: &Path, name: &str, part: &str) -> Result<std::path::PathBuf> {
    let output = command::run(Command::new("find").arg(folder).args(["-name", name]))?.success()?;
    let line = output.lines().find(|line| line.contains(part));
    Ok(line
        .with_context(|| format!("no {name} in {output}"))?
        .into())
}
