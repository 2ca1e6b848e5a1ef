//! Vessel as it is installed: the daemon a service of systemd, its VEs in the machine's own network,
//! beside everything else that a stock machine runs and that no other test here meets: systemd's
//! hold on control groups, udev, networkd.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::harness::service::{self, property, systemctl};
use crate::harness::{Need, Node, command, tests, until};

tests! {
    Installed [Need::Installed] =>
        ves_outlive_the_service_and_come_back_to_it,
        a_node_without_running_ves_is_restarted,
        ves_lie_in_the_groups_of_the_service,
        ves_are_stopped_before_the_host_goes_down,
        forged_sources_reach_nobody_beside_udev,
        the_hosts_own_network_may_be_restarted,
        reloading_systemd_changes_no_ve,
        a_debian_runs_sleeps_and_wakes;
}

const UNIT: &str = "vesseld.service";
const PATIENCE: Duration = Duration::from_secs(60);

fn ves_outlive_the_service_and_come_back_to_it(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    let (pid, address) = (node.init_pid("web")?, node.v4("web")?);
    let expect_same = |node: &Node| {
        node.expect_page(&address, "web")?;
        ensure!(node.state("web")? == "running" && node.init_pid("web")? == pid);
        ensure!(node.sh("web", "hostname")? == "web");
        Ok(())
    };
    systemctl(&["restart", UNIT])?;
    expect_same(node).context("after a restart")?;
    node.stop_daemon()?;
    node.expect_page(&address, "web")?;
    ensure!(
        node.vessel(&["list"])?.code == 8,
        "a stopped daemon answers"
    );
    node.start_daemon()?;
    expect_same(node).context("after a stop and a start")?;
    node.kill_daemon()?;
    expect_same(node).context("after a crash")?;
    node.ok(&["pause", "web"])?;
    systemctl(&["restart", UNIT])?;
    ensure!(node.state("web")? == "paused");
    node.ok(&["resume", "web"])?;
    expect_same(node).context("after a pause")
}

/// While nothing runs in a service's groups, systemd removes them.
fn a_node_without_running_ves_is_restarted(node: &mut Node) -> Result<()> {
    node.ok(&["create", "web", "--template", "tiny"])?;
    systemctl(&["restart", UNIT])?;
    node.ok(&["start", "web"])?;
    node.ok(&["stop", "web"])?;
    node.stop_daemon()?;
    node.start_daemon()?;
    node.ok(&["start", "web"])?;
    node.expect_page(&node.v4("web")?, "web")?;
    // A limit is there: the group has its controllers again.
    node.control(100, "pids", "pids.max", "pids.max")?
        .parse::<u32>()?;
    // The same with nobody left to hold anything open.
    node.ok(&["stop", "web"])?;
    node.stop_daemon()?;
    let launcher = rustix::process::Pid::from_raw(node.launcher_pid()?).context("no launcher")?;
    rustix::process::kill_process(launcher, rustix::process::Signal::TERM)?;
    let gone = || Ok(node.launcher_pid().is_err());
    until("the launcher is gone", PATIENCE, gone, |gone| *gone)?;
    node.start_daemon()?;
    node.ok(&["start", "web"])?;
    node.expect_page(&node.v4("web")?, "web")
}

fn ves_lie_in_the_groups_of_the_service(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    let own = |pid: i32| {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        Ok::<_, anyhow::Error>(text.trim().to_owned())
    };
    let init = i32::try_from(node.init_pid("web")?)?;
    ensure!(own(init)? == "0::/vesseld.service/vessel-100/100");
    for pid in [node.daemon_pid()?, node.launcher_pid()?] {
        ensure!(own(pid)? == "0::/vesseld.service/daemon", "{}", own(pid)?);
    }
    // What systemd sets for a service must not bind all VEs together.
    let group = Path::new("/sys/fs/cgroup/vesseld.service");
    for (file, wanted) in [
        ("pids.max", "max"),
        ("memory.max", "max"),
        ("cpu.max", "max 100000"),
        ("cpu.weight", "1000"),
    ] {
        let found = fs::read_to_string(group.join(file))?;
        ensure!(found.trim() == wanted, "{file} is {found}");
    }
    // One process that the kernel kills for memory takes nobody with it, and no service.
    let daemon = node.daemon_pid()?;
    node.ok(&["set", "web", "memory.limit=32M", "memory.swap=0"])?;
    let hog = "head -c 200000000 /dev/zero | tail -c 150000000 | wc -c";
    node.vessel(&["exec", "web", "--", "sh", "-c", hog])?;
    let killed = fs::read_to_string(group.join("vessel-100/100/memory.events"))?;
    ensure!(
        !killed.contains("oom_kill 0"),
        "nothing was killed: {killed}"
    );
    ensure!(node.state("web")? == "running");
    ensure!(node.init_pid("web")? == u64::try_from(init)?);
    ensure!(property(UNIT, "ActiveState")? == "active" && node.daemon_pid()? == daemon);
    Ok(())
}

fn ves_are_stopped_before_the_host_goes_down(node: &mut Node) -> Result<()> {
    let shutdown = "vessel-shutdown.service";
    node.start_tiny("web")?;
    node.ok(&["set", "web", "autostart=yes"])?;
    systemctl(&["start", shutdown])?;
    // A restart of the daemon, as an upgrade does it, is no end of the host.
    systemctl(&["restart", UNIT])?;
    ensure!(node.state("web")? == "running");
    ensure!(property(shutdown, "ActiveState")? == "active");
    // What systemd does with both units when the host goes down, in its order.
    let init = node.init_pid("web")?;
    systemctl(&["stop", shutdown, UNIT])?;
    ensure!(!Path::new(&format!("/proc/{init}")).exists());
    ensure!(property(shutdown, "Result")? == "success");
    service::expect_ended()?;
    let groups = node.control_groups();
    ensure!(groups.is_empty(), "left: {groups:?}");
    node.start_daemon()?;
    node.expect_state("web", "running")?;
    ensure!(node.sh("web", "cat /var/ends")? == "ended", "it was killed");
    Ok(())
}

/// udev sets switches of links that come up, `rp_filter` among them.
fn forged_sources_reach_nobody_beside_udev(node: &mut Node) -> Result<()> {
    node.start_tiny("bad")?;
    node.start_tiny("good")?;
    systemctl(&["start", "systemd-udevd"])?;
    command::run(Command::new("udevadm").arg("settle"))?.success()?;
    let echoes = || {
        let line = "awk '$1 == \"Icmp6InEchos\" { s += $2 } END { print s }' /proc/net/snmp6; \
                    awk '/^Icmp:/ { if (n) print $n; else for (i = 1; i <= NF; i++) \
                    if ($i == \"InEchos\") n = i }' /proc/net/snmp";
        node.sh("good", line)
    };
    for (target, forged) in [
        (node.v4("good")?, "10.99.200.200"),
        (node.v4("good")?, "192.0.2.7"),
        (node.v6("good")?, "fd99:1:2:3::7"),
    ] {
        let length = if forged.contains(':') { 128 } else { 32 };
        node.sh("bad", &format!("ping -c 1 -W 2 {target}"))?;
        let before = echoes()?;
        let add = format!("ip addr add {forged}/{length} dev eth0");
        node.sh("bad", &add)?;
        let usable = || {
            let line = format!("ip addr show dev eth0 | grep -F {forged} | grep -c tentative");
            Ok(node
                .vessel(&["exec", "bad", "--", "sh", "-c", &line])?
                .stdout)
        };
        until("the address is usable", PATIENCE, usable, |n| {
            n.trim() == "0"
        })?;
        let ping = ["ping", "-c", "2", "-W", "1", "-I", forged, &target];
        let sent = node.vessel(&[&["exec", "bad", "--"][..], &ping].concat())?;
        ensure!(
            sent.code != 0 && sent.stdout.contains("2 packets"),
            "{sent}"
        );
        ensure!(
            echoes()? == before,
            "packets from {forged} reached {target}"
        );
    }
    Ok(())
}

fn the_hosts_own_network_may_be_restarted(node: &mut Node) -> Result<()> {
    node.start_tiny("one")?;
    node.start_tiny("two")?;
    let before = links(node)?;
    systemctl(&["restart", "systemd-networkd"])?;
    systemctl(&["start", "systemd-networkd-wait-online"])?;
    for address in [node.v4("two")?, node.v6("two")?] {
        node.expect_page(&address, "two")?;
        node.sh("one", &format!("ping -c 1 -W 2 {address}"))?;
    }
    node.sh("one", "ping -c 1 -W 2 169.254.1.1")?;
    ensure!(
        links(node)? == before,
        "{:?} became {:?}",
        before,
        links(node)?
    );
    Ok(())
}

/// Links of VEs on the machine, as `ip -brief` shows them, without their own addresses.
fn links(node: &Node) -> Result<BTreeSet<String>> {
    let text = node.inside(&["ip", "-brief", "link"])?.success()?;
    let ours = text.lines().filter(|line| line.starts_with("ve"));
    Ok(ours.map(str::to_owned).collect())
}

fn reloading_systemd_changes_no_ve(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    node.ok(&[
        "set",
        "web",
        "memory.limit=64M",
        "cpu.set=0",
        "cpu.limit=50%",
    ])?;
    systemctl(&["daemon-reload"])?;
    systemctl(&["daemon-reexec"])?;
    // A unit with needs of its own makes systemd write the groups above anew.
    let probe = [
        "--wait",
        "--quiet",
        "-p",
        "IOAccounting=yes",
        "-p",
        "CPUQuota=50%",
    ];
    let mut run = Command::new("systemd-run");
    command::run(run.args(probe).arg("true"))?.success()?;
    for (controller, file, wanted) in [
        ("memory", "memory.max", "67108864"),
        ("cpuset", "cpuset.cpus", "0"),
        ("cpu", "cpu.max", "50000 100000"),
    ] {
        let found = node.control(100, controller, file, file)?;
        ensure!(found == wanted, "{file} is {found}");
    }
    // And of a VE that comes now.
    node.start_tiny("new")?;
    node.ok(&["set", "new", "processes.limit=50", "cpu.set=1"])?;
    ensure!(node.control(101, "pids", "pids.max", "pids.max")? == "50");
    node.sh("new", "grep -q 'Cpus_allowed_list:.1$' /proc/self/status")?;
    Ok(())
}

fn a_debian_runs_sleeps_and_wakes(node: &mut Node) -> Result<()> {
    match std::env::var("VESSEL_TEST_DEBIAN") {
        Ok(archive) => node.ok(&["template", "import", &archive, "--name", "debian-12"])?,
        Err(_) => {
            let packages = ["--package", "nginx-light", "--package", "redis-server"];
            node.ok(&[&["template", "build", "debian-12"][..], &packages].concat())?
        }
    };
    node.ok(&["create", "shop", "--template", "debian-12", "--start"])?;
    expect_whole(node, "shop")?;
    // The host's own systemd is none the wiser.
    ensure!(systemctl(&["is-system-running"])?.trim() == "running");

    node.sh("shop", "redis-cli set basket full")?;
    let writer = "exec 3> /root/written; i=0; while :; do i=$((i+1)); echo $i >&3; sleep 0.2; done";
    let run = format!("systemd-run --quiet --unit=writer sh -c '{writer}'");
    node.sh("shop", &run)?;
    let written = || {
        Ok(node
            .sh("shop", "tail -n 1 /root/written")?
            .parse()
            .unwrap_or(0))
    };
    let expect_written = |least: u64| until("it writes on", PATIENCE, written, |n| *n >= least);
    expect_written(1)?;
    let servers = "systemctl show --property MainPID nginx redis-server writer";
    let before = node.sh("shop", servers)?;
    let count = expect_written(2)?;
    node.ok(&["suspend", "shop"])?;
    ensure!(node.state("shop")? == "checkpointed");
    systemctl(&["restart", UNIT])?;
    ensure!(node.state("shop")? == "checkpointed");
    node.ok(&["resume", "shop"])?;
    ensure!(node.sh("shop", servers)? == before);
    ensure!(node.sh("shop", "redis-cli get basket")? == "full");
    expect_written(count + 2)?;
    // A systemd that only looks alive would do none of this.
    node.sh("shop", "systemctl restart nginx redis-server")?;
    node.sh("shop", "systemd-run --wait --quiet true")?;
    expect_whole(node, "shop")?;
    node.ok(&["stop", "shop"])?;
    Ok(())
}

/// A Debian whose systemd says that all is well and whose nginx answers.
fn expect_whole(node: &Node, name: &str) -> Result<()> {
    let wait = [
        "exec",
        name,
        "--",
        "systemctl",
        "is-system-running",
        "--wait",
    ];
    let said = node.vessel(&wait)?;
    ensure!(said.stdout.trim() == "running", "{said}");
    node.expect_page(&node.v4(name)?, "nginx")
}
