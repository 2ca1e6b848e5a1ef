//! How many servers one machine holds: 300 Debians with systemd, sshd and nginx, then 1,000 light ones, all
//! running and answering at once.
//!
//! No kernel setting is touched for them, but what the node sets itself.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::context::Context;
use crate::debian;
use crate::interrupt;
use crate::light;
use crate::memory::{self, Memory};
use crate::node::{Node, ipv4_of};
use crate::process;
use crate::report::{Bound, Results, Unit, median};

const SECTION: &str = "density";

/// What was promised of the daemon: percent of a processor while nobody asks it anything, and milliseconds for
/// `vessel list`.
const IDLE_PERCENT_MAX: f64 = 1.0;
const LIST_MAX: f64 = 100.0;

/// How long the daemon is watched, in seconds: whole sweeps of the meter.
const WATCHED_SECONDS: usize = 60;
/// How long the daemon may still be at work after it was asked.
const SETTLE: Duration = Duration::from_secs(3);
/// VEs whose processes are looked at one by one; of all of them it would take longer than the rest.
const LOOKED_AT: usize = 10;
/// How often `vessel list` is timed.
const LISTS: usize = 9;

/// How long one server may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// How long after their start all of them may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A kind of VE, and how many of it.
struct Kind {
    name: &'static str,
    template: &'static str,
    count: usize,
    /// Ports that answer, and what their answers begin with.
    ports: &'static [(u16, &'static str)],
}

const HTTP: (u16, &str) = (80, "HTTP/1.");
const SSH: (u16, &str) = (22, "SSH-2.0");

const KINDS: [Kind; 2] = [
    Kind {
        name: "Debian",
        template: debian::NAME,
        count: 300,
        ports: &[HTTP, SSH],
    },
    Kind {
        name: "light",
        template: "light",
        count: 1_000,
        ports: &[HTTP],
    },
];

pub(crate) fn measure(context: &mut Context, results: &mut Results) -> Result<()> {
    context.debian()?;
    let tree = context.stage.folder().join("light");
    light::write(&tree)?;
    let from = tree.display().to_string();
    context
        .node
        .vessel(&["template", "import", &from, "--name", "light"])?;
    for kind in &KINDS {
        interrupt::check()?;
        hold(&context.node, kind, results)?;
        context.node.vessel(&["delete", "--all", "--force"])?;
    }
    Ok(())
}

/// Makes and starts them all, and looks at what that costs.
fn hold(node: &Node, kind: &Kind, results: &mut Results) -> Result<()> {
    let count = kind.count.to_string();
    let subject = format!("{count} {}", kind.name);
    let free = memory::available()?;
    let begun = process::now_ns();
    let words = ["--template", kind.template, "--count", &count, "--start"];
    // One that does not get ready is one that does not run, below.
    let made = node.vessel(&[&["create", "many"], &words[..]].concat());
    let seconds = process::milliseconds(begun, process::now_ns()) / 1_000.0;
    if let Err(error) = made {
        results.note(format!("{SECTION}: {subject}: {error:#}"));
    }
    let title = "created and running by one command";
    results.add(SECTION, &subject, title, Unit::Seconds, vec![seconds]);
    let running = node.running()?;
    let answering = answering(node, kind)?;
    let machine = (free - memory::available()?) / running.max(1.0);
    let counts = [("VEs that run", running), ("VEs that answer", answering)];
    let wanted = f64::from(u16::try_from(kind.count)?);
    for (title, measured) in counts {
        results.add(SECTION, &subject, title, Unit::Count, vec![measured]);
        let title = format!("{subject}: {title}");
        let bound = (Bound::AtLeast, wanted);
        results.promise(SECTION, &title, Unit::Count, measured, bound);
    }
    let (title, unit) = ("whole machine, each VE", Unit::Mebibytes);
    results.add(SECTION, &subject, title, unit, vec![machine]);
    memories(node, &subject, results)?;
    managers(node, &subject, results)
}

/// How many VEs answer on all of their ports; asked again until all do, or patience ends.
fn answering(node: &Node, kind: &Kind) -> Result<f64> {
    let list = node.json(&["list"])?;
    let list = list.as_array().context("`list` is no list")?;
    let mut silent = Vec::new();
    for ve in list {
        silent.push(ipv4_of(ve)?.to_owned());
    }
    let all = silent.len();
    let deadline = Instant::now() + PATIENCE;
    while !silent.is_empty() && Instant::now() < deadline {
        interrupt::check()?;
        silent.retain(|address| {
            let answers = |(port, wanted): &(u16, &str)| answers(address, *port, wanted);
            !kind.ports.iter().all(answers)
        });
    }
    Ok(f64::from(u32::try_from(all - silent.len())?))
}

/// Whether a server says what it should.
fn answers(address: &str, port: u16, wanted: &str) -> bool {
    let ask = || -> Result<String> {
        let target: SocketAddr = format!("{address}:{port}").parse()?;
        let mut stream = TcpStream::connect_timeout(&target, ANSWER)?;
        stream.set_read_timeout(Some(ANSWER))?;
        if port == HTTP.0 {
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        }
        let mut bytes = vec![0; wanted.len()];
        stream.read_exact(&mut bytes)?;
        Ok(String::from_utf8(bytes)?)
    };
    ask().is_ok_and(|said| said == wanted)
}

/// The memory of VEs: what their groups are charged, in parts, and what their processes share.
fn memories(node: &Node, subject: &str, results: &mut Results) -> Result<()> {
    let unit = Unit::Mebibytes;
    let stats = node.json(&["stats", "--all"])?;
    let stats = stats.as_array().context("`stats --all` is no list")?;
    let field = |name: &str| -> Vec<f64> {
        let values = stats.iter().filter_map(|one| one[name].as_u64());
        values.map(memory::mebibytes).collect()
    };
    let (all, own) = (field("memory_bytes"), field("memory_anonymous_bytes"));
    let files = field("memory_file_bytes");
    ensure!(
        all.len() == own.len() && all.len() == files.len(),
        "`stats` leaves parts of the memory out"
    );
    let kernel = all.iter().zip(&own).zip(&files);
    let kernel = kernel.map(|((all, own), files)| (all - own - files).max(0.0));
    let kernel = kernel.collect();
    let rows = [
        ("charged to its group, each VE", all),
        ("- its own (anonymous)", own),
        ("- files", files),
        ("- the kernel's", kernel),
    ];
    for (title, samples) in rows {
        results.add(SECTION, subject, title, unit, samples);
    }
    let (mut processes, mut shared) = (Vec::new(), Vec::new());
    for n in 1..=LOOKED_AT {
        let family = process::family(node.init_pid(&format!("many-{n}"))?);
        let memories = family.into_iter().filter_map(|pid| Memory::of(pid).ok());
        let memories: Vec<Memory> = memories.collect();
        let sum = |part: fn(&Memory) -> f64| memories.iter().map(part).sum::<f64>();
        let proportional = sum(|memory| memory.proportional);
        processes.push(proportional);
        shared.push(sum(|memory| memory.resident) - proportional);
    }
    results.add(SECTION, subject, "its processes, each VE", unit, processes);
    let title = "more if nothing were shared";
    results.add(SECTION, subject, title, unit, shared);
    Ok(())
}

/// What the node's own processes cost with so many VEs.
fn managers(node: &Node, subject: &str, results: &mut Results) -> Result<()> {
    let resident = Memory::of(node.daemon_pid())?.resident;
    let (title, unit) = ("daemon resident", Unit::Mebibytes);
    results.add(SECTION, subject, title, unit, vec![resident]);
    let mut lists = Vec::new();
    for _ in 0..LISTS {
        let begun = process::now_ns();
        node.vessel(&["list"])?;
        lists.push(process::milliseconds(begun, process::now_ns()));
    }
    let took = median(&lists).context("`list` was not timed")?;
    let (title, unit) = ("vessel list", Unit::Milliseconds);
    results.add(SECTION, subject, title, unit, lists);
    let bound = (Bound::AtMost, LIST_MAX);
    results.promise(SECTION, &format!("{subject}: {title}"), unit, took, bound);
    std::thread::sleep(SETTLE);
    let percent = process::busy_percent(node.daemon_pid(), WATCHED_SECONDS)?;
    let (title, unit) = ("daemon, while VEs idle", Unit::Percent);
    results.add(SECTION, subject, title, unit, vec![percent]);
    let bound = (Bound::AtMost, IDLE_PERCENT_MAX);
    let title = format!("{subject}: {title}");
    results.promise(SECTION, &title, unit, percent, bound);
    Ok(())
}
