//! What a VE sees of itself: its own memory, processors, load and time, whatever happens to those who
//! tell it.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Need, Node, node, slowness, tests, until};

tests! {
    Node [] =>
        a_change_shows_inside_at_once,
        a_lifted_limit_shows_the_machine,
        what_runtimes_read_tells_its_limits_or_that_there_are_none,
        a_view_ends_at_its_ve,
        nobody_notices_a_server_that_is_killed,
        a_server_that_hangs_is_replaced,
        nobody_notices_that_managers_are_killed_or_replaced,
        a_stopped_reader_holds_up_nobody,
        a_ve_that_wakes_has_its_view_and_its_clocks;
    Debian [Need::Packages] =>
        the_programs_of_a_debian_tell_its_own_numbers,
        a_debian_wakes_with_open_files_of_its_view;
}

const PATIENCE: Duration = Duration::from_secs(30);

/// How soon a change of a limit shows.
const AT_ONCE: Duration = Duration::from_millis(100);

/// A file as a VE sees it, without the time that it takes to enter the VE.
fn seen(pid: u64, path: &str) -> Result<String> {
    let path = format!("/proc/{pid}/root{path}");
    fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
}

/// A number in kB of a VE's `meminfo`.
fn memory(pid: u64, name: &str) -> Result<u64> {
    let text = seen(pid, "/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.trim_start_matches(':').split_whitespace().next());
    let number = number.with_context(|| format!("no {name} in {text}"))?;
    Ok(number.parse()?)
}

/// Numbers of the processes that serve the node's views.
fn servers(node: &Node) -> Vec<i32> {
    node.running("vessel-procview")
}

fn server(node: &Node) -> Result<i32> {
    let one = || Ok(servers(node));
    let found = until("one server runs", PATIENCE, one, |all| all.len() == 1)?;
    found.first().copied().context("no server")
}

fn signal(pid: i32, signal: Signal) -> Result<()> {
    kill_process(Pid::from_raw(pid).context("no process")?, signal).context("cannot signal it")
}

/// A loop in a VE that reads its view all the time.
struct Reader(Child);

impl Reader {
    fn begin(node: &Node, name: &str) -> Result<Self> {
        let script = "while [ ! -e /run/stop ]; do\n\
               for f in /proc/meminfo /proc/stat /proc/uptime /sys/devices/system/cpu/online; do\n\
                 cat $f > /run/seen || echo failed: $f\n\
                 [ -s /run/seen ] || echo empty: $f\n\
               done\n\
               n=$((n+1))\n\
             done\n\
             echo rounds $n";
        let mut command = node.command(&["exec", name, "--", "sh", "-c", script]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        Ok(Self(command.stderr(Stdio::piped()).spawn()?))
    }

    /// Ends it; nothing must have failed. Returns how often it read everything.
    fn end(self, node: &Node, name: &str) -> Result<u64> {
        node.sh(name, "touch /run/stop")?;
        let output = self.0.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        let rounds = said.trim().strip_prefix("rounds ");
        rounds
            .and_then(|rounds| rounds.parse().ok())
            .with_context(|| format!("a reader failed: {said}"))
    }
}

fn a_change_shows_inside_at_once(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    let pid = node.init_pid("web")?;
    for (setting, kibibytes) in [("memory.limit=96M", 98_304), ("memory.limit=200M", 204_800)] {
        node.ok(&["set", "web", setting])?;
        let set = Instant::now();
        while memory(pid, "MemTotal")? != kibibytes {
            ensure!(
                set.elapsed() < AT_ONCE * slowness(),
                "{setting} does not show after {:?}",
                set.elapsed()
            );
        }
    }
    node.ok(&["set", "web", "cpu.limit=1"])?;
    let set = Instant::now();
    let shown =
        |name: &str| Ok::<_, anyhow::Error>(seen(pid, name)?.matches("processor\t").count());
    while shown("/proc/cpuinfo")? != 1 || seen(pid, "/sys/devices/system/cpu/online")? != "0\n" {
        ensure!(
            set.elapsed() < AT_ONCE * slowness(),
            "one processor does not show after {:?}",
            set.elapsed()
        );
    }
    ensure!(seen(pid, "/proc/stat")?.matches("\ncpu").count() == 1);
    // And by the VE's own programs.
    let total = node.sh("web", "grep MemTotal /proc/meminfo")?;
    ensure!(total.ends_with(" 204800 kB"), "{total}");
    node.ok(&["set", "web", "cpu.set=0"])?;
    ensure!(node.sh("web", "nproc")? == "1");
    Ok(())
}

fn a_lifted_limit_shows_the_machine(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    let pid = node.init_pid("web")?;
    node.ok(&["set", "web", "memory.limit=96M", "cpu.limit=0.5"])?;
    node.ok(&["set", "web", "memory.limit=none", "cpu.limit=none"])?;
    let host = fs::read_to_string("/proc/meminfo")?;
    let total = host.lines().next().unwrap_or_default().to_owned();
    let shown = || {
        Ok(seen(pid, "/proc/meminfo")?
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned())
    };
    until("all memory shows", PATIENCE, shown, |line| *line == total)?;
    let online = fs::read_to_string("/sys/devices/system/cpu/online")?;
    ensure!(seen(pid, "/sys/devices/system/cpu/online")? == online);
    // What it uses is its own all the same.
    ensure!(memory(pid, "AnonPages")? < 20_000);
    Ok(())
}

/// How many processors have a folder, in a VE's view.
fn processor_folders(pid: u64) -> Result<usize> {
    let entries = fs::read_dir(format!("/proc/{pid}/root/sys/devices/system/cpu"))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let number = |name: &String| name.strip_prefix("cpu").map(str::parse::<u32>);
    let numbers = names.filter(|name| matches!(number(name), Some(Ok(_))));
    Ok(numbers.count())
}

/// What programs read that take a part of what they find for themselves:
/// - JVMs, from JDK 17.0.21 on (`cgroupSubsystem_linux.cpp`): whether /sys/fs/cgroup is cgroup2 (statfs(2)), the names
///   in `cgroup.controllers`, then `memory.max` and `cpu.max` of their group and, from JDK 24 on, of those above. Where one
///   is missing, sysinfo(2) and sched_getaffinity(2).
/// - Go from 1.25 on (`internal/runtime/cgroup`): `cpu.max`; before, sched_getaffinity(2) alone.
/// - Node (libuv's `uv_get_constrained_memory`): `memory.max`, then `MemTotal` of /proc/meminfo.
/// - htop: `cpu0`, `cpu1`, ... in /sys/devices/system/cpu, /proc/stat, /proc/meminfo, /proc/loadavg, /proc/uptime.
fn what_runtimes_read_tells_its_limits_or_that_there_are_none(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    let pid = node.init_pid("web")?;
    let mut report = node.json(&["doctor"])?;
    let rows = report["rows"].as_array_mut().context("no rows")?;
    let row = rows.iter().find(|row| row["check"] == "runtimes in VEs");
    let told = row.context("the doctor says nothing of it")?["diagnosis"] == "ok";
    let controllers = seen(pid, "/sys/fs/cgroup/cgroup.controllers")?;
    for (memory_limit, cpu_limit, shown) in [("96M", "1", 1), ("128M", "0.5", 1), ("96M", "2", 2)] {
        let (memory_set, cpu_set) = (
            format!("memory.limit={memory_limit}"),
            format!("cpu.limit={cpu_limit}"),
        );
        node.ok(&["set", "web", &memory_set, &cpu_set])?;
        let kibibytes = memory_limit.trim_end_matches('M').parse::<u64>()? << 10;
        let total = || memory(pid, "MemTotal");
        until(&memory_set, AT_ONCE, total, |total| *total == kibibytes)?;
        let folders = || processor_folders(pid);
        let wanted = shown.min(std::thread::available_parallelism()?.get());
        until(&cpu_set, AT_ONCE, folders, |count| *count == wanted)?;
        let own = |name: &str| seen(pid, &format!("/sys/fs/cgroup/{name}"));
        if told {
            ensure!(
                own("memory.max")?.trim().parse::<u64>()? == kibibytes << 10,
                "{memory_set}"
            );
            let quota = (cpu_limit.parse::<f64>()? * 100_000.0).round();
            ensure!(own("cpu.max")? == format!("{quota} 100000\n"), "{cpu_set}");
            let has = |name| controllers.split_whitespace().any(|one| one == name);
            ensure!(has("memory") && has("cpu"), "{controllers}");
        } else {
            // On cgroup v1 nothing there may say anything else.
            ensure!(own("memory.max").is_err() && own("cpu.max").is_err());
            ensure!(controllers.trim().is_empty(), "{controllers}");
        }
    }
    Ok(())
}

fn a_view_ends_at_its_ve(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    node.start_tiny("other")?;
    node.ok(&["set", "other", "memory.limit=77M"])?;
    // Nothing of the tree of all VEs is left in one, nor of its place.
    let mounts = node.sh("web", "cat /proc/self/mountinfo")?;
    let own = node.show("web")?["id"].to_string();
    for line in mounts.lines().filter(|line| line.contains("vessel-view")) {
        let root = line.split(' ').nth(3).unwrap_or_default();
        ensure!(root.starts_with(&format!("/{own}/")), "{line}");
    }
    ensure!(mounts.matches("vessel-view").count() > 5, "{mounts}");
    let leads = "cd /sys/devices/system/cpu && ls ../../.. && cat ../../../meminfo";
    let seen = node.vessel(&["exec", "web", "--", "sh", "-c", leads])?;
    ensure!(!seen.stdout.contains("MemTotal"), "{seen}");
    // Its root may look as it likes, and change nothing.
    let written = node.vessel(&["exec", "web", "--", "sh", "-c", "echo 1 > /proc/uptime"])?;
    ensure!(written.code != 0, "{written}");
    // Nor end what all VEs have together.
    let ended = node.vessel(&["exec", "web", "--", "umount", "-f", "/proc/stat"])?;
    ensure!(ended.code != 0, "{ended}");
    ensure!(memory(node.init_pid("other")?, "MemTotal")? == 78_848);
    // Processes are as old as the VE at most.
    let uptime = node.sh("web", "cut -d. -f1 /proc/uptime")?;
    ensure!(uptime.parse::<u64>()? < 600, "{uptime}");
    let begun = node.sh("web", "cut -d' ' -f22 /proc/1/stat")?;
    ensure!(
        begun.parse::<u64>()? < 100,
        "the init began at tick {begun}"
    );
    Ok(())
}

fn nobody_notices_a_server_that_is_killed(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    node.start_tiny("other")?;
    node.ok(&["set", "web", "memory.limit=96M"])?;
    let readers = [Reader::begin(node, "web")?, Reader::begin(node, "other")?];
    let open = fs::File::open(format!("/proc/{}/root/proc/stat", node.init_pid("web")?))?;
    let mut text = [0; 4];
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(100));
        let before = server(node)?;
        signal(before, Signal::KILL)?;
        let now = || Ok(servers(node));
        until("another serves", PATIENCE, now, |all| {
            all.len() == 1 && all[0] != before
        })?;
        ensure!(memory(node.init_pid("web")?, "MemTotal")? == 98_304);
        // What was opened long before is still open.
        ensure!(open.read_at(&mut text, 0)? == 4 && text == *b"cpu ");
    }
    for (reader, name) in readers.into_iter().zip(["web", "other"]) {
        ensure!(reader.end(node, name)? > 0);
    }
    // New VEs get a view of the new one.
    node.start_tiny("third")?;
    ensure!(memory(node.init_pid("third")?, "AnonPages")? < 20_000);
    Ok(())
}

fn a_server_that_hangs_is_replaced(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    node.ok(&["set", "web", "memory.limit=96M"])?;
    let before = server(node)?;
    let reader = Reader::begin(node, "web")?;
    signal(before, Signal::STOP)?;
    // It waits, and gets its answer.
    let begun = Instant::now();
    ensure!(memory(node.init_pid("web")?, "MemTotal")? == 98_304);
    ensure!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    ensure!(server(node)? != before);
    ensure!(reader.end(node, "web")? > 0);
    Ok(())
}

fn nobody_notices_that_managers_are_killed_or_replaced(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    node.ok(&["set", "web", "memory.limit=96M"])?;
    let pid = node.init_pid("web")?;
    let script = "exec 3</proc/meminfo; while :; do cat /proc/meminfo > /run/seen || \
                  echo failed >> /run/failed; [ -s /run/seen ] || echo empty >> /run/failed; done";
    node.sh("web", &format!("({script}) > /dev/null 2>&1 &"))?;
    let served = server(node)?;
    node.kill_daemon()?;
    ensure!(memory(pid, "MemTotal")? == 98_304);
    node.start_daemon()?;
    ensure!(server(node)? == served, "a daemon's end ended the server");
    // Another file is another program, and takes the place of the one that runs.
    let program = node::program("vessel-procview");
    fs::set_permissions(&program, fs::metadata(&program)?.permissions())?;
    node.stop_daemon()?;
    node.start_daemon()?;
    let now = || Ok(servers(node));
    until("the new program serves", PATIENCE, now, |all| {
        all.len() == 1 && all[0] != served
    })?;
    // The next launcher takes the file system from the server, which ends then.
    let served = server(node)?;
    signal(node.launcher_pid()?, Signal::KILL)?;
    ensure!(memory(pid, "MemTotal")? == 98_304);
    until("the next launcher's server serves", PATIENCE, now, |all| {
        all.len() == 1 && all[0] != served
    })?;
    ensure!(memory(pid, "MemTotal")? == 98_304);
    // Both at once, and the server serves on alone.
    node.kill_daemon()?;
    signal(node.launcher_pid()?, Signal::KILL)?;
    ensure!(memory(pid, "MemTotal")? == 98_304);
    node.start_daemon()?;
    ensure!(memory(pid, "MemTotal")? == 98_304);
    node.start_tiny("new")?;
    node.ok(&["set", "new", "memory.limit=64M"])?;
    let new = node.init_pid("new")?;
    until(
        "the new VE has its own",
        PATIENCE,
        || memory(new, "MemTotal"),
        |n| *n == 65_536,
    )?;
    let failed = node.sh("web", "cat /run/failed 2>/dev/null; true")?;
    ensure!(failed.is_empty(), "a reader noticed: {failed}");
    Ok(())
}

fn a_stopped_reader_holds_up_nobody(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    node.start_tiny("other")?;
    // Twenty that stop in the middle of a file, and twenty that stop wherever they are.
    let stop = "for i in $(seq 20); do\n\
                  (exec 3</proc/stat; read -r line <&3; exec sleep 1000) &\n\
                  (while :; do cat /proc/stat; done) &\n\
                done > /dev/null 2>&1\n\
                sleep 0.3\n\
                kill -STOP -1";
    let _ = node.vessel(&[
        "exec",
        "web",
        "--",
        "sh",
        "-c",
        &format!("({stop}) > /dev/null 2>&1 &"),
    ])?;
    std::thread::sleep(Duration::from_millis(600));
    let pid = node.init_pid("other")?;
    let mut longest = Duration::ZERO;
    for _ in 0..200 {
        let begun = Instant::now();
        ensure!(memory(pid, "MemTotal")? > 0);
        longest = longest.max(begun.elapsed());
    }
    ensure!(
        longest < Duration::from_secs(1) * slowness(),
        "a read took {longest:?}"
    );
    // Not even other readers in the same VE.
    ensure!(memory(node.init_pid("web")?, "MemTotal")? > 0);
    node.ok(&["stop", "--kill", "web"])?;
    Ok(())
}

fn a_ve_that_wakes_has_its_view_and_its_clocks(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    node.ok(&["set", "web", "memory.limit=96M"])?;
    // One that keeps files of the view open, whose texts are not as long as they were when it wakes.
    let keep = "(exec 3</proc/uptime 4</proc/stat 5</proc/loadavg 6</sys/devices/system/cpu/online; \
                read -r up idle <&3; while :; do sleep 0.05; echo $$ > /run/beat; done) \
                > /dev/null 2>&1 &";
    node.sh("web", keep)?;
    std::thread::sleep(Duration::from_secs(2));
    let uptime = |node: &Node| -> Result<f64> {
        let text = node.sh("web", "cut -d' ' -f1 /proc/uptime")?;
        text.parse().with_context(|| format!("uptime {text}"))
    };
    let before = uptime(node)?;
    node.ok(&["suspend", "web"])?;
    std::thread::sleep(Duration::from_secs(3));
    node.ok(&["resume", "web"])?;
    let after = uptime(node)?;
    // It went on where it was: the sleep does not count.
    ensure!(after >= before, "{before} s before, {after} s after");
    let pid = node.init_pid("web")?;
    ensure!(memory(pid, "MemTotal")? == 98_304);
    ensure!(
        node.sh("web", "grep -c vessel-view /proc/self/mountinfo")?
            .parse::<u32>()?
            > 5
    );
    node.sh("web", "rm /run/beat")?;
    let beats = || node.sh("web", "cat /run/beat");
    until("its processes go on", PATIENCE, beats, |beat| {
        !beat.is_empty()
    })?;
    node.ok(&["set", "web", "memory.limit=128M"])?;
    until(
        "a change shows",
        PATIENCE,
        || memory(pid, "MemTotal"),
        |n| *n == 131_072,
    )?;
    signal(server(node)?, Signal::KILL)?;
    ensure!(memory(pid, "MemTotal")? == 131_072);
    Ok(())
}

fn the_programs_of_a_debian_tell_its_own_numbers(node: &mut Node) -> Result<()> {
    let words = ["create", "web", "--template", "debian-12", "--start"];
    node.ok(&[
        &words[..],
        &["--set", "memory.limit=300M", "--set", "cpu.limit=1"],
    ]
    .concat())?;
    let state = || node.sh("web", "systemctl is-system-running --wait");
    until("systemd is running", PATIENCE, state, |state| {
        state == "running"
    })?;
    let free = node.sh("web", "free -k | sed -n 2p")?;
    let numbers: Vec<u64> = free
        .split_whitespace()
        .skip(1)
        .flat_map(str::parse)
        .collect();
    ensure!(numbers.first() == Some(&307_200), "{free}");
    ensure!(numbers[1] < 150_000 && numbers[2] <= 307_200, "{free}");
    let top = node.sh("web", "top -b -n 1 | head -5")?;
    ensure!(
        top.contains("300.0 total") && top.contains("load average: 0."),
        "{top}"
    );
    let vmstat = node.sh("web", "vmstat --unit k 1 1 | tail -n 1")?;
    let columns: Vec<u64> = vmstat.split_whitespace().flat_map(str::parse).collect();
    // vmstat(8): the fourth is what is free.
    ensure!(columns.len() >= 16 && columns[3] <= 314_572, "{vmstat}");
    let vmstat = node.sh("web", "vmstat -s --unit k | head -n 2")?;
    // Thousands of bytes, of 300 MiB.
    ensure!(
        vmstat.trim().starts_with("314572 k total memory"),
        "{vmstat}"
    );
    let lscpu = node.sh("web", "lscpu | grep '^On-line'")?;
    ensure!(lscpu.ends_with(" 0"), "{lscpu}");
    ensure!(
        node.sh("web", "uptime -p")?.starts_with("up 0 min"),
        "{}",
        node.sh("web", "uptime")?
    );
    // Nobody is older than the VE, and nobody is to be born.
    let ages = node.sh("web", "ps -eo etimes= | sort -n | sed -n '1p;$p'")?;
    let ages: Vec<u64> = ages.split_whitespace().flat_map(str::parse).collect();
    ensure!(ages.len() == 2 && ages[1] < 600, "{ages:?}");
    let boot: i64 = node.sh("web", "date +%s -d \"$(uptime -s)\"")?.parse()?;
    let btime: i64 = node
        .sh("web", "sed -n 's/^btime //p' /proc/stat")?
        .parse()?;
    ensure!((boot - btime).abs() <= 1, "booted at {boot} and at {btime}");
    node.ok(&["set", "web", "cpu.set=0"])?;
    ensure!(node.sh("web", "nproc")? == "1");
    node.ok(&["delete", "--force", "web"])?;
    Ok(())
}

fn a_debian_wakes_with_open_files_of_its_view(node: &mut Node) -> Result<()> {
    let words = ["create", "web", "--template", "debian-12", "--start"];
    node.ok(&[&words[..], &["--set", "memory.limit=300M"]].concat())?;
    let state = || node.sh("web", "systemctl is-system-running --wait");
    until("systemd is running", PATIENCE, state, |state| {
        state == "running"
    })?;
    // Programs that keep what they read open, and one with mounts of its own.
    let run = "systemd-run --quiet --unit=top sh -c 'exec top -b -d 0.3 > /run/top' && \
               systemd-run --quiet --unit=vmstat sh -c 'exec vmstat 1 > /run/vmstat' && \
               systemd-run --quiet --unit=own -p PrivateTmp=yes -p ProtectSystem=strict sleep 1000";
    node.sh("web", run)?;
    std::thread::sleep(Duration::from_secs(1));
    for _ in 0..2 {
        node.ok(&["suspend", "web"])?;
        node.ok(&["resume", "web"])?;
        ensure!(node.sh("web", "systemctl is-active top vmstat own")? == "active\nactive\nactive");
        ensure!(node.sh("web", "free -k | awk 'NR==2 {print $2}'")? == "307200");
        node.sh(
            "web",
            "systemctl restart cron && systemd-run --quiet --wait true",
        )?;
        let own = "nsenter -t $(systemctl show -p MainPID --value own) -m head -n 1 /proc/meminfo";
        let seen = node.sh("web", own)?;
        ensure!(seen.ends_with(" 307200 kB"), "{seen}");
        let lines = || Ok(node.sh("web", "wc -l < /run/vmstat")?.parse::<u32>()?);
        let before = lines()?;
        until("vmstat goes on", PATIENCE, lines, |now| *now > before)?;
    }
    node.ok(&["delete", "--force", "web"])?;
    Ok(())
}
