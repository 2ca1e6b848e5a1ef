//! How long after `vessel set` was sent each key acts, and shows inside.
//!
//! Measured from outside, from just before the command is begun: its own start, the request, the journal and
//! the kernel are in it. What is read is what the kernel acts by, or the VE's own files.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::harness::{Node, slowness, tests};

tests! {
    Node [] =>
        every_set_takes_effect_within_a_tenth_of_a_second;
}

/// What is promised.
const PROMISED: Duration = Duration::from_millis(100);
/// Each value is set so often; the median counts, as others use this machine, too.
const ROUNDS: usize = 3;
/// Who waits longer waits for nothing.
const PATIENCE: Duration = Duration::from_secs(10);

/// A key with two values, where it shows, and what shows then.
struct Live {
    key: &'static str,
    values: [(&'static str, &'static str); 2],
    shows: Shows,
}

/// Where a value shows.
#[derive(Clone, Copy)]
enum Shows {
    /// In a control file of the VE: controller, name on v1, name on cgroup2.
    Control(&'static str, &'static str, &'static str),
    /// In a file that the VE's init sees.
    Inside(&'static str),
    /// In a file about the VE's init.
    OfInit(&'static str),
    /// On the host end of its link.
    Link,
    /// Nowhere: it holds when the command returns, as this line of the VE's own shows.
    AtReturn(&'static str),
}

const fn live(key: &'static str, values: [(&'static str, &'static str); 2], shows: Shows) -> Live {
    Live { key, values, shows }
}

/// The keys that act while a VE runs. Not here: `files.limit`, which hosts without `CAP_SYS_RESOURCE` can only
/// lower, and what is divided among VEs, which their own tests measure. Texts of v1 and cgroup2 both contain what is expected, or either stands
/// with a bar.
const KEYS: &[Live] = &[
    live(
        "cpu.limit",
        [("0.4", "40000"), ("0.6", "60000")],
        Shows::Control("cpu", "cpu.cfs_quota_us", "cpu.max"),
    ),
    live(
        "cpu.burst",
        [("0.2", "20000"), ("0.3", "30000")],
        Shows::Control("cpu", "cpu.cfs_burst_us", "cpu.max.burst"),
    ),
    live(
        "cpu.share",
        [("300", "3072|300"), ("500", "5120|500")],
        Shows::Control("cpu", "cpu.shares", "cpu.weight"),
    ),
    live(
        "cpu.set",
        [
            ("0", "Cpus_allowed_list:\t0\n"),
            ("0-1", "Cpus_allowed_list:\t0-1\n"),
        ],
        Shows::OfInit("status"),
    ),
    live(
        "memory.limit",
        [
            ("96M", "MemTotal:          98304 kB"),
            ("200M", "MemTotal:         204800 kB"),
        ],
        Shows::Inside("proc/meminfo"),
    ),
    live(
        "memory.burst",
        [("16M", "226492416"), ("32M", "243269632")],
        Shows::Control("memory", "memory.limit_in_bytes", "memory.max"),
    ),
    live(
        "memory.guarantee",
        [("16M", "16777216"), ("32M", "33554432")],
        Shows::Control("memory", "memory.soft_limit_in_bytes", "memory.min"),
    ),
    live(
        "processes.limit",
        [("77", "77"), ("88", "88")],
        Shows::Control("pids", "pids.max", "pids.max"),
    ),
    live(
        "io.read.limit",
        [("10M", "10485760"), ("20M", "20971520")],
        Shows::Control("blkio", "blkio.throttle.read_bps_device", "io.max"),
    ),
    live(
        "io.write.ops",
        [("111iops", "111"), ("222iops", "222")],
        Shows::Control("blkio", "blkio.throttle.write_iops_device", "io.max"),
    ),
    live(
        "network.limit",
        [("11Mbit", "11Mbit"), ("22Mbit", "22Mbit")],
        Shows::Link,
    ),
    live(
        "address",
        [("10.200.0.7", "10.200.0.7"), ("10.200.0.8", "10.200.0.8")],
        Shows::OfInit("net/fib_trie"),
    ),
    live(
        "disk.limit",
        [
            (
                "32M",
                "! dd if=/dev/urandom of=/root/big bs=1M count=48 conv=fsync 2>/dev/null",
            ),
            (
                "200M",
                "dd if=/dev/urandom of=/root/big bs=1M count=48 conv=fsync 2>/dev/null",
            ),
        ],
        Shows::AtReturn("rm -f /root/big; sync; sleep 1"),
    ),
];

/// A VE that is looked at from outside, without the time that it takes to enter it.
struct Watched<'a> {
    node: &'a Node,
    id: u64,
    pid: u64,
}

impl Watched<'_> {
    fn read(&self, shows: Shows) -> Result<String> {
        let read = |path: PathBuf| {
            let text = fs::read_to_string(&path);
            text.with_context(|| format!("cannot read {}", path.display()))
        };
        let proc = PathBuf::from(format!("/proc/{}", self.pid));
        match shows {
            Shows::Control(controller, v1, v2) => self.node.control(self.id, controller, v1, v2),
            Shows::Inside(path) => read(proc.join("root").join(path)),
            Shows::OfInit(path) => read(proc.join(path)),
            Shows::Link => {
                let link = format!("ve{}", self.id);
                self.node
                    .inside(&["tc", "qdisc", "show", "dev", &link])?
                    .success()
            }
            Shows::AtReturn(_) => Ok(String::new()),
        }
    }

    fn begin(&self, key: &str, value: &str) -> Result<(Instant, Child)> {
        let setting = format!("{key}={value}");
        Ok((Instant::now(), self.node.begin(&["set", "web", &setting])?))
    }

    /// How long a value takes to show.
    fn took(&self, live: &Live, value: &str, expected: &str) -> Result<Duration> {
        let there = || -> Result<bool> {
            let text = self.read(live.shows)?;
            Ok(expected.split('|').any(|expected| text.contains(expected)))
        };
        if let Shows::AtReturn(reset) = live.shows {
            let (begun, mut command) = self.begin(live.key, value)?;
            ensure!(command.wait()?.success(), "{}={value} failed", live.key);
            let took = begun.elapsed();
            self.node.sh("web", expected)?;
            self.node.sh("web", reset)?;
            return Ok(took);
        }
        ensure!(!there()?, "{} shows {value} already", live.key);
        let (begun, mut command) = self.begin(live.key, value)?;
        while !there()? {
            let last = || self.read(live.shows).unwrap_or_default();
            ensure!(
                begun.elapsed() < PATIENCE * slowness(),
                "{}={value} never shows: {}",
                live.key,
                last()
            );
        }
        let took = begun.elapsed();
        ensure!(command.wait()?.success(), "{}={value} failed", live.key);
        Ok(took)
    }
}

fn every_set_takes_effect_within_a_tenth_of_a_second(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    let watched = Watched {
        node,
        id: node.show("web")?["id"].as_u64().context("no id")?,
        pid: node.init_pid("web")?,
    };
    let mut late = Vec::new();
    let mut table = String::new();
    for live in KEYS {
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            for (value, expected) in live.values {
                let took = watched.took(live, value, expected);
                times.push(took.with_context(|| format!("{}={value}", live.key))?);
            }
        }
        times.sort_unstable();
        let median = times[times.len() / 2];
        writeln!(
            table,
            "  {:<18} {median:>9.1?}, at most {:.1?}",
            live.key,
            times[times.len() - 1]
        )?;
        if median > PROMISED * slowness() {
            late.push(live.key);
        }
    }
    ensure!(
        late.is_empty(),
        "later than {PROMISED:?}: {late:?}\n{table}"
    );
    Ok(())
}
