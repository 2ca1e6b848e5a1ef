//! Limits: set while a VE runs, seen in its control groups, kept, and felt inside.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::harness::{Node, tests, until};

tests! {
    Node [] =>
        limits_take_effect_at_once_and_survive_a_restart,
        a_lifted_limit_is_gone,
        memory_is_limited_and_the_ve_lives_on,
        processes_are_limited_and_the_ve_lives_on,
        open_files_of_a_process_are_limited,
        disk_ends_at_its_limit_and_heals,
        a_processor_limit_slows_and_a_set_confines,
        reading_and_writing_keep_to_their_rates,
        what_is_sent_and_received_keeps_to_its_limit,
        a_ve_sees_its_own_limits_only;
}

fn limits_take_effect_at_once_and_survive_a_restart(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    let id = node.show("web")?["id"].as_u64().context("no id")?;
    node.ok(&[
        "set",
        "web",
        "memory.limit=96M",
        "processes.limit=77",
        "cpu.limit=0.5",
        "cpu.share=250",
    ])?;
    for round in ["live", "after a restart"] {
        let memory = node.control(id, "memory", "memory.limit_in_bytes", "memory.max")?;
        ensure!(memory == (96 << 20).to_string(), "{round}: memory {memory}");
        let processes = node.control(id, "pids", "pids.max", "pids.max")?;
        ensure!(processes == "77", "{round}: processes {processes}");
        let cpu = node.control(id, "cpu", "cpu.cfs_quota_us", "cpu.max")?;
        let quota: f64 = cpu.split(' ').next().unwrap_or_default().parse()?;
        let period = match cpu.split(' ').nth(1) {
            Some(period) => period.parse::<f64>()?,
            None => node
                .control(id, "cpu", "cpu.cfs_period_us", "cpu.max")?
                .parse::<f64>()?,
        };
        ensure!((quota / period - 0.5).abs() < 0.001, "{round}: cpu {cpu}");
        let share: u64 = node
            .control(id, "cpu", "cpu.shares", "cpu.weight")?
            .parse()?;
        // Version 1 counts in 1,024ths of what version 2 calls 100.
        ensure!(share == 250 || share == 2_560, "{round}: share {share}");
        let shown = node.show("web")?;
        ensure!(
            shown["limits"]["memory.limit"] == 96 << 20,
            "{round}: {shown}"
        );
        ensure!(shown["limits"]["processes.limit"] == 77, "{round}: {shown}");
        node.ok(&["restart", "web"])?;
        node.expect_state("web", "running")?;
    }
    Ok(())
}

fn a_lifted_limit_is_gone(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    let id = node.show("web")?["id"].as_u64().context("no id")?;
    let free = node.control(id, "pids", "pids.max", "pids.max")?;
    node.ok(&["set", "web", "processes.limit=50", "memory.limit=64M"])?;
    node.ok(&["set", "web", "processes.limit=none", "memory.limit=none"])?;
    ensure!(node.control(id, "pids", "pids.max", "pids.max")? == free);
    let memory = node.control(id, "memory", "memory.limit_in_bytes", "memory.max")?;
    ensure!(memory == "max" || memory.len() > 15, "memory {memory}");
    ensure!(node.show("web")?["limits"]["memory.limit"].is_null());
    Ok(())
}

fn memory_is_limited_and_the_ve_lives_on(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    node.ok(&["set", "web", "memory.limit=32M", "memory.swap=0"])?;
    // `tail` keeps everything of an endless line.
    let hog = node.vessel(&[
        "exec",
        "web",
        "--",
        "sh",
        "-c",
        "head -c 200000000 /dev/zero | tail -c 150000000 | wc -c",
    ])?;
    ensure!(
        !hog.stdout.contains("150000000"),
        "150 MB fitted into 32 MB: {hog}"
    );
    ensure!(node.state("web")? == "running");
    node.expect_page(&node.v4("web")?, "web")
}

fn processes_are_limited_and_the_ve_lives_on(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    node.start_tiny("neighbour")?;
    node.ok(&["set", "web", "processes.limit=40"])?;
    let bomb = "i=0; while [ $i -lt 100 ]; do sleep 20 & i=$((i+1)); done; wait";
    let output = node.vessel(&["exec", "web", "--", "timeout", "2", "sh", "-c", bomb])?;
    ensure!(
        output.stderr.contains("fork"),
        "100 processes fitted into 40: {output}"
    );
    ensure!(node.sh("neighbour", "echo fine")? == "fine");
    ensure!(node.state("web")? == "running");
    node.ok(&["stop", "web"])?;
    Ok(())
}

/// The hard limit of open files of the VE's init.
fn open_files_of_init(node: &Node, name: &str) -> Result<u64> {
    let pid = node.show(name)?["pid"].as_u64().context("no pid")?;
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let hard = line.and_then(|line| line.split_whitespace().nth(4));
    Ok(hard
        .with_context(|| format!("no limit in {limits}"))?
        .parse()?)
}

fn open_files_of_a_process_are_limited(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    let many =
        |count: u32| format!("BEGIN {{ for (i = 0; i < {count}; i++) print i > (\"/tmp/f\" i)");
    node.sh("web", &format!("awk '{} }}'", many(300)))?;
    let usual = open_files_of_init(node, "web")?;
    // At once where the daemon may change other processes, else from the next start.
    let set = |limit: &str| -> Result<()> {
        let reply = node.json(&["set", "web", limit])?;
        if reply.to_string().contains("pending") {
            ensure!(reply.to_string().contains("CAP_SYS_RESOURCE"), "{reply}");
            node.ok(&["restart", "web", "--kill"])?;
        }
        Ok(())
    };
    set("files.limit=200")?;
    ensure!(open_files_of_init(node, "web")? == 200);
    ensure!(node.sh("web", "ulimit -Hn; ulimit -Sn")? == "200\n200");
    let refused = node.vessel(&["exec", "web", "--", "awk", &format!("{} }}", many(300))])?;
    ensure!(
        refused.code != 0 && refused.stderr.contains("open"),
        "300 files fitted into 200: {refused}"
    );
    let raised = node.vessel(&["exec", "web", "--", "sh", "-c", "ulimit -Hn 201"])?;
    ensure!(raised.code != 0, "the VE's root raised its limit: {raised}");
    let hold = format!(
        "awk '{}; system(\"sleep 1000\") }}' >/dev/null 2>&1 </dev/null &",
        many(150)
    );
    node.sh("web", &hold)?;
    let refused = || node.vessel(&["set", "web", "files.limit=100"]);
    let below = "files.limit: 100 is below the 15";
    until("it is held", Duration::from_secs(5), refused, |output| {
        output.code == 6 && output.stderr.contains(below)
    })?;
    ensure!(node.show("web")?["limits"]["files.limit"] == 200);
    set("files.limit=none")?;
    ensure!(open_files_of_init(node, "web")? == usual);
    Ok(())
}

fn disk_ends_at_its_limit_and_heals(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    node.ok(&["set", "web", "disk.limit=64M"])?;
    // Data that does not compress, and reaches the disk while the limit is watched.
    let fill = "dd if=/dev/urandom of=/root/big bs=1M count=200 conv=fsync 2>&1";
    let output = node.vessel(&["exec", "web", "--", "sh", "-c", fill])?;
    ensure!(output.code != 0, "200 MB fitted into 64 MB");
    ensure!(
        output.stdout.contains("quota") || output.stdout.contains("space"),
        "{output}"
    );
    let size: u64 = node.sh("web", "stat -c %s /root/big")?.parse()?;
    ensure!(
        ((40 << 20)..=(64 << 20)).contains(&size),
        "{size} bytes fitted into 64 MB"
    );
    ensure!(node.state("web")? == "running");
    node.sh("web", "rm /root/big")?;
    let again = || {
        node.sh(
            "web",
            "dd if=/dev/urandom of=/root/small bs=1M count=20 conv=fsync 2>&1",
        )
    };
    until(
        "there is space again",
        Duration::from_secs(30),
        again,
        |_| true,
    )?;
    // More is given at once, too.
    node.ok(&["set", "web", "disk.limit=200M"])?;
    node.sh(
        "web",
        "dd if=/dev/urandom of=/root/more bs=1M count=80 conv=fsync 2>&1",
    )?;
    Ok(())
}

fn a_processor_limit_slows_and_a_set_confines(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    node.ok(&["set", "web", "cpu.limit=20%", "cpu.set=0"])?;
    let allowed = node.sh("web", "grep Cpus_allowed_list /proc/self/status")?;
    ensure!(allowed.ends_with("\t0"), "{allowed}");
    // One second of the clock holds a fifth of a second of work.
    let spent = node.sh(
        "web",
        "sh -c 'timeout 1 sh -c \"while :; do :; done\"; times' | tail -n 1",
    )?;
    let seconds: f64 = spent
        .split(['m', 's', ' '])
        .nth(1)
        .and_then(|text| text.parse().ok())
        .with_context(|| format!("`times` said {spent}"))?;
    ensure!(seconds < 0.5, "{seconds} s of work in 1 s at 20%");
    Ok(())
}

/// How long a line takes in a VE.
fn timed(node: &Node, name: &str, line: &str) -> Result<f64> {
    let begun = Instant::now();
    node.sh(name, line)?;
    Ok(begun.elapsed().as_secs_f64())
}

fn reading_and_writing_keep_to_their_rates(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    node.sh(
        "web",
        "dd if=/dev/urandom of=/root/file bs=1M count=8 conv=fsync",
    )?;
    // Past the page cache, as cgroup v1 does not hold what is written from there.
    let bytes = "dd if=/root/file of=/dev/null bs=256k iflag=direct";
    let reads = "dd if=/root/file of=/dev/null bs=4k count=100 iflag=direct";
    let written = "dd if=/dev/zero of=/root/other bs=64k count=64 oflag=direct";
    let writes = "dd if=/dev/zero of=/root/other bs=4k count=200 oflag=direct";
    for (setting, line, seconds) in [
        ("io.read.limit=4M", bytes, 2.0),
        ("io.read.ops=50iops", reads, 2.0),
        ("io.write.limit=2M", written, 2.0),
        ("io.write.ops=100iops", writes, 2.0),
    ] {
        node.ok(&["set", "web", setting])?;
        let took = timed(node, "web", line)?;
        // Nothing of the rate is saved up, but for what one tenth of a second gives.
        ensure!(took >= seconds * 0.85, "{setting}: {line} took {took} s");
        let key = setting.split('=').next().unwrap_or_default();
        node.ok(&["set", "web", &format!("{key}=none")])?;
        let faster = |took: &f64| *took < seconds * 0.6;
        until(
            "it is lifted",
            Duration::from_secs(15),
            || timed(node, "web", line),
            faster,
        )?;
    }
    Ok(())
}

fn what_is_sent_and_received_keeps_to_its_limit(node: &mut Node) -> Result<()> {
    for name in ["web", "neighbour"] {
        node.start_tiny(name)?;
        node.sh(name, "dd if=/dev/zero of=/srv/file bs=1M count=3")?;
    }
    // `web` sends to the node, and receives from its neighbour: 25 Mbit each.
    let (own, other) = (node.v4("web")?, node.v4("neighbour")?);
    let url = format!("http://{own}/file");
    let send = |node: &Node| -> Result<f64> {
        let begun = Instant::now();
        node.inside(&["curl", "--silent", "--fail", "--output", "/dev/null", &url])?
            .success()?;
        Ok(begun.elapsed().as_secs_f64())
    };
    let fetch = format!("wget -q -O /dev/null http://{other}/file");
    let receive = |node: &Node| timed(node, "web", &fetch);
    node.ok(&["set", "web", "network.limit=10Mbit"])?;
    for round in ["live", "after a restart"] {
        for took in [send(node)?, receive(node)?] {
            // A bucket of 128 KiB goes at once, and headers come on top.
            ensure!(
                (2.2..=4.5).contains(&took),
                "{round}: 25 Mbit took {took} s at 10"
            );
        }
        if round == "live" {
            node.ok(&["restart", "web", "--kill"])?;
            node.expect_page(&own, "web")?;
        }
    }
    // After a second of rest two megabytes go at once.
    node.ok(&["set", "web", "network.burst=16Mbit"])?;
    std::thread::sleep(Duration::from_secs(2));
    let took = send(node)?;
    ensure!(took < 1.6, "25 Mbit took {took} s with a burst of 16");
    node.ok(&["set", "web", "network.burst=none", "network.limit=none"])?;
    for took in [send(node)?, receive(node)?] {
        ensure!(took < 1.0, "lifted, and 25 Mbit took {took} s");
    }
    // The neighbour was never held.
    let took = timed(node, "neighbour", &format!("wget -q -O /dev/null {url}"))?;
    ensure!(took < 1.0, "25 Mbit took {took} s");
    Ok(())
}

fn a_ve_sees_its_own_limits_only(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    let own = node.sh("web", "cat /proc/self/cgroup")?;
    ensure!(
        !own.contains(&node.first_id().to_string()),
        "a VE sees where it is: {own}"
    );
    let written = node.vessel(&[
        "exec",
        "web",
        "--",
        "sh",
        "-c",
        "echo max > /sys/fs/cgroup/pids.max",
    ])?;
    ensure!(written.code != 0, "a VE wrote its own limit: {written}");
    Ok(())
}
