//! A Debian from its start to what systemd calls running, and what it costs in memory.
//!
//! Everybody boots the same files. When a boot was over is asked of the manager itself, afterwards:
//! it notes the time on a clock that the host can read, so nobody is disturbed by being watched.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::command;
use crate::context::Context;
use crate::interrupt;
use crate::memory::Memory;
use crate::peers::{self, Peer};
use crate::process;
use crate::report::{Bound, Results, Unit};

const SECTION: &str = "boot";

/// How long a boot may take on a machine that does other things.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two questions to a manager that has not finished.
const PAUSE: Duration = Duration::from_millis(200);

const TO_RUNNING: &str = "start to running";

pub(crate) fn measure(context: &mut Context, results: &mut Results) -> Result<()> {
    let tree = context.debian()?;
    let mut peers = peers::with_debian(context, &tree, results)?;
    for peer in &mut peers {
        let created = peer.create().with_context(|| peer.name());
        created.inspect_err(|_| peer.clear())?;
    }
    let mut rounds: Vec<Vec<Boot>> = vec![Vec::new(); peers.len()];
    let measured = boots(context, &mut peers, &mut rounds);
    for peer in &mut peers {
        if measured.is_err() || peer.delete().is_err() {
            peer.clear();
        }
    }
    measured?;
    for (peer, boots) in peers.iter().zip(rounds) {
        tell(results, &peer.name(), &boots);
    }
    promise(results);
    Ok(())
}

/// One boot: milliseconds and mebibytes.
#[derive(Clone, Debug)]
struct Boot {
    to_running: f64,
    start: f64,
    processes: f64,
    helper: Option<f64>,
    /// What `systemctl is-system-running` said.
    state: String,
}

/// The first boot of each makes keys and numbers of its own, and is not counted.
fn boots(context: &Context, peers: &mut [Box<dyn Peer>], rounds: &mut [Vec<Boot>]) -> Result<()> {
    for round in 0..=context.rounds(2, 15) {
        for (peer, boots) in peers.iter_mut().zip(rounds.iter_mut()) {
            interrupt::check()?;
            let boot = boot(peer.as_mut()).with_context(|| peer.name())?;
            if round > 0 {
                boots.push(boot);
            }
        }
    }
    Ok(())
}

fn boot(peer: &mut dyn Peer) -> Result<Boot> {
    let begun = process::now_ns();
    peer.start()?;
    let started = process::now_ns();
    let pid = peer.init_pid()?;
    let finished = await_finish(pid)?;
    let state = ask(pid, &["is-system-running"]);
    let mut processes = 0.0;
    for one in process::family(pid) {
        // It may have ended just now.
        processes += Memory::of(one).unwrap_or_default().proportional;
    }
    let helper = helper(pid)?;
    peer.stop()?;
    Ok(Boot {
        to_running: process::milliseconds(begun, finished),
        start: process::milliseconds(begun, started),
        processes,
        helper,
        state,
    })
}

/// When the manager had finished to start, in nanoseconds.
fn await_finish(pid: u32) -> Result<i64> {
    let deadline = Instant::now() + PATIENCE;
    let words = ["show", "--property=FinishTimestampMonotonic", "--value"];
    loop {
        if let Ok(microseconds @ 1..) = ask(pid, &words).parse::<i64>() {
            return Ok(process::on_host_ns(pid, microseconds * 1_000));
        }
        if Instant::now() > deadline {
            bail!("its systemd does not get ready");
        }
        std::thread::sleep(PAUSE);
    }
}

/// What `systemctl` inside says; nothing while it cannot reach its manager.
fn ask(pid: u32, words: &[&str]) -> String {
    let target = format!("--target={pid}");
    let spaces = ["--user", "--mount", "--pid", "--uts", "--ipc", "--net"];
    let mut enter = command::words(&["nsenter", &target]);
    enter.args(spaces).args(["--", "systemctl"]).args(words);
    let output = enter.output().map(|output| output.stdout);
    let text = String::from_utf8(output.unwrap_or_default()).unwrap_or_default();
    text.trim().to_owned()
}

/// Memory of the process that a runtime keeps for a container, if there is one: the init's parent,
/// unless that is ours for all.
fn helper(init: u32) -> Result<Option<f64>> {
    let parent = process::parent(init).context("the init is gone")?;
    let name = std::fs::read_to_string(format!("/proc/{parent}/comm")).unwrap_or_default();
    if parent <= 1 || name.starts_with("vessel") {
        return Ok(None);
    }
    Ok(Some(Memory::of(parent)?.proportional))
}

fn tell(results: &mut Results, subject: &str, boots: &[Boot]) {
    let all = |field: fn(&Boot) -> f64| boots.iter().map(field).collect::<Vec<f64>>();
    let unit = Unit::Milliseconds;
    results.add(
        SECTION,
        subject,
        TO_RUNNING,
        unit,
        all(|boot| boot.to_running),
    );
    results.add(
        SECTION,
        subject,
        "start returns",
        unit,
        all(|boot| boot.start),
    );
    let unit = Unit::Mebibytes;
    results.add(
        SECTION,
        subject,
        "its processes",
        unit,
        all(|boot| boot.processes),
    );
    let helpers = boots.iter().filter_map(|boot| boot.helper).collect();
    results.add(SECTION, subject, "a helper beside it", unit, helpers);
    if let Some(other) = boots.iter().find(|boot| boot.state != "running") {
        let state = &other.state;
        results.note(format!(
            "{SECTION}: systemd in {subject} calls itself {state}"
        ));
    }
}

fn promise(results: &mut Results) {
    let ours = results.median(SECTION, "vessel", TO_RUNNING);
    let lxc = results.median(SECTION, "lxc", TO_RUNNING);
    if let (Some(ours), Some(lxc)) = (ours, lxc) {
        let bound = (Bound::AtMost, 1.0);
        let title = format!("{TO_RUNNING}, vessel over lxc");
        results.promise(SECTION, &title, Unit::Ratio, ours / lxc, bound);
    }
}
