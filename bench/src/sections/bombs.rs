//! What a neighbour feels of a VE whose root does its worst: how long its nginx takes to answer, before a bomb and
//! while it runs.
//!
//! Who asks is a process of the host's, and VEs come before those: it would measure how long it waits for its own turn.
//! So it has the greatest weight that there is, as users are elsewhere and wait for nothing here.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use rustix::process::setpriority_process;

use crate::context::Context;
use crate::debian;
use crate::interrupt;
use crate::node::ipv4_of;
use crate::report::{Bound, Results, Unit, median};

const SECTION: &str = "bombs";
const GOOD: &str = "good";
const BAD: &str = "bad";

/// What the VE that goes off may have: what an administrator gives a stranger.
const LIMITS: [&str; 4] = [
    "cpu.limit=1",
    "memory.limit=256M",
    "processes.limit=256",
    "disk.limit=1G",
];

/// Bombs in Perl, which every Debian has. `$end` is when they end.
const BOMBS: [(&str, &str); 7] = [
    (
        "forks",
        "while (time < $end) { defined fork or select undef, undef, undef, 0.002 }",
    ),
    (
        "memory",
        "while (time < $end) { my $child = fork // next; \
         if (!$child) { my @all; push @all, 'x' x (4 << 20) while 1; } waitpid $child, 0; }",
    ),
    (
        "page cache",
        "my $data = 'x' x (1 << 20); my $n = 0; while (time < $end) { \
         open my $to, '>', '/root/cache' . ($n++ % 2); print $to $data for 1 .. 64; close $to; }",
    ),
    (
        "disk",
        "while (time < $end) { system 'dd if=/dev/zero of=/root/sync bs=64k count=64 conv=fsync 2>/dev/null'; }",
    ),
    (
        "names",
        "my $n = 0; while (time < $end) { mkdir '/root/names' . ($n++) for 1 .. 500; \
         system 'rm -rf /root/names*'; }",
    ),
    (
        "packets",
        "use Socket; socket my $to, PF_INET, SOCK_DGRAM, 0; \
         my $there = sockaddr_in(9, inet_aton('ADDRESS')); \
         while (time < $end) { send $to, 'x' x 64, 0, $there for 1 .. 1000; }",
    ),
    (
        "console",
        "open my $to, '>', '/dev/console'; while (time < $end) { syswrite $to, 'x' x 120 . \"\\n\" for 1 .. 1000; }",
    ),
];

/// Those that also run without a limit of processors.
const UNLIMITED: [&str; 3] = ["forks", "memory", "page cache"];

/// The niceness of whoever asks.
const GREATEST_WEIGHT: i32 = -20;

/// How long the neighbour is asked before, and while a bomb runs.
const QUIET: Duration = Duration::from_secs(1);
const DISTURBED: Duration = Duration::from_secs(2);
/// A bomb gets going before the neighbour is asked; it runs longer than both.
const FUSE: Duration = Duration::from_millis(500);
const SECONDS: u32 = 4;
const PAUSE: Duration = Duration::from_millis(5);
/// An answer that takes longer is none.
const TIMEOUT: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(20);

/// By how much the median may exceed twice its quiet value: a clock's tick, by which any wake-up may be late.
const BEYOND_TWICE_MAX: f64 = 1.0;

const BEFORE: &str = "quiet";
const MEANWHILE: &str = "meanwhile";
const SLOWEST: &str = "99 of 100 meanwhile, below";

pub(crate) fn measure(context: &mut Context, results: &mut Results) -> Result<()> {
    context.debian()?;
    let node = &context.node;
    for name in [GOOD, BAD] {
        node.vessel(&["create", name, "--template", debian::NAME, "--start"])?;
    }
    node.vessel(&[&["set", BAD], &LIMITS[..]].concat())?;
    let address = address(context)?;
    await_answer(address)?;
    for (name, script) in BOMBS {
        several(context, results, address, (name, script))?;
    }
    node.vessel(&["set", BAD, "cpu.limit=none"])?;
    for (name, script) in BOMBS.iter().filter(|(name, _)| UNLIMITED.contains(name)) {
        let name = format!("{name}, all processors");
        several(context, results, address, (&name, script))?;
    }
    node.vessel(&["delete", GOOD, BAD, "--force"]).map(drop)
}

/// Sets a bomb off some times, and tells of all together.
fn several(
    context: &Context,
    results: &mut Results,
    address: SocketAddr,
    (name, script): (&str, &str),
) -> Result<()> {
    let (mut quiet, mut disturbed) = (Vec::new(), Vec::new());
    for _ in 0..context.rounds(1, 3) {
        interrupt::check()?;
        let (before, meanwhile) =
            bomb(context, address, script).with_context(|| name.to_owned())?;
        quiet.extend(before);
        disturbed.extend(meanwhile);
    }
    tell(results, name, quiet, disturbed);
    Ok(())
}

fn tell(results: &mut Results, name: &str, quiet: Vec<f64>, disturbed: Vec<f64>) {
    let slowest = slowest(&disturbed);
    let medians = median(&quiet).zip(median(&disturbed));
    let unit = Unit::Milliseconds;
    results.add(SECTION, name, BEFORE, unit, quiet);
    results.add(SECTION, name, MEANWHILE, unit, disturbed);
    results.add(SECTION, name, SLOWEST, unit, slowest.into_iter().collect());
    if let Some((quiet, disturbed)) = medians {
        let what = format!("{name}: beyond twice the quiet answer");
        let beyond = (disturbed - 2.0 * quiet).max(0.0);
        results.promise(
            SECTION,
            &what,
            unit,
            beyond,
            (Bound::AtMost, BEYOND_TWICE_MAX),
        );
    }
}

/// The time below which 99 of 100 answers came.
fn slowest(times: &[f64]) -> Option<f64> {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() * 99 / 100).copied()
}

/// Sets a bomb off; milliseconds of the neighbour's answers before it and while it runs.
fn bomb(context: &Context, address: SocketAddr, script: &str) -> Result<(Vec<f64>, Vec<f64>)> {
    let quiet = asked(address, QUIET)?;
    let script = script.replace("ADDRESS", &address.ip().to_string());
    let script = format!("my $end = time + {SECONDS}; {script}");
    let mut running = Running(
        context
            .node
            .command(&["exec", BAD, "--", "perl", "-e", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot set it off")?,
    );
    std::thread::sleep(FUSE);
    let disturbed = asked(address, DISTURBED)?;
    ensure!(
        running.0.try_wait().context("cannot look at it")?.is_none(),
        "it ended before the neighbour was asked"
    );
    // It may be killed for what it does, or end.
    let _ = running.0.wait();
    // Its last processes end a moment later.
    std::thread::sleep(FUSE);
    Ok((quiet, disturbed))
}

/// A bomb that ends with whoever set it off.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn address(context: &Context) -> Result<SocketAddr> {
    let shown = context.node.json(&["show", GOOD])?;
    let v4 = ipv4_of(&shown)?;
    format!("{v4}:80").parse().context("not an address")
}

fn await_answer(address: SocketAddr) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = ask(address) {
        ensure!(
            Instant::now() < deadline,
            "its nginx does not come up: {error:#}"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// Asks until the time is over.
fn asked(address: SocketAddr, time: Duration) -> Result<Vec<f64>> {
    // On a thread of its own, whose weight nobody inherits.
    let ask = move || -> Result<Vec<f64>> {
        setpriority_process(None, GREATEST_WEIGHT).context("cannot take the greatest weight")?;
        let begun = Instant::now();
        let mut times = Vec::new();
        while begun.elapsed() < time {
            times.push(ask(address)?.as_secs_f64() * 1e3);
            std::thread::sleep(PAUSE);
        }
        Ok(times)
    };
    std::thread::spawn(ask)
        .join()
        .map_err(|_| anyhow!("the asking thread panicked"))?
}

/// One request over a connection of its own.
fn ask(address: SocketAddr) -> Result<Duration> {
    let begun = Instant::now();
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).context("no connection")?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(b"GET /page HTTP/1.0\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).context("no answer")?;
    ensure!(answer.starts_with(b"HTTP/1.1 200"), "not the page");
    Ok(begun.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_is_behind_99_of_100() {
        let times: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!(slowest(&times), Some(199.0));
        assert_eq!(slowest(&[]), None);
    }
}
