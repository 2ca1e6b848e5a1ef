//! nginx with a page of 4 KiB: one and a hundred, on the host and in VEs.
//!
//! The client is in a network namespace of its own, on a processor of its own; all servers share
//! another. Saturated, the servers' processor is the limit, and answers per second of their time on
//! it are compared.
//! At a fixed load below that, processor time per request is: the servers', and that of everybody,
//! since a part of what the network costs is done in the context of whoever sends.

use anyhow::{Context as _, Result, ensure};

use crate::context::Context;
use crate::debian;
use crate::interrupt;
use crate::node::ipv4_of;
use crate::report::{Bound, Results, Unit, median};
use crate::web::{self, HostServers, Load, Overlay, Server};

const SECTION: &str = "web";

/// VEs with a server, and servers on the host.
const MANY: usize = 100;

/// Seconds of one look.
const SECONDS: f64 = 2.0;

/// The fixed load, as a part of what one server on the host answers when it is saturated.
const FIXED_PART: f64 = 0.3;

/// What was promised.
const SATURATED_MIN: f64 = 0.85;
const COST_MAX: f64 = 1.10;

/// Who is compared: name, whose reference is its second part.
const PAIRS: [(&str, &str); 2] = [("1 VE", "1 on the host"), ("100 VEs", "100 on the host")];

/// One on the host with its files in an overlay: what sharing files takes by itself.
const STACKED: &str = "1 on an overlay";

pub(crate) fn measure(context: &mut Context, results: &mut Results) -> Result<()> {
    ensure!(
        std::thread::available_parallelism().map_or(1, usize::from) >= 2,
        "servers and client need a processor each, and this machine has one"
    );
    let tree = context.debian()?;
    web::connect(&context.stage)?;
    let count = MANY.to_string();
    let create = ["create", "web", "--template", debian::NAME, "--start"];
    context
        .node
        .vessel(&[&create[..], &["--count", &count]].concat())?;
    let ports = web::FIRST_PORT..web::FIRST_PORT + MANY;
    let host = HostServers::start(&context.stage, &tree, ports)?;
    let on_host = host.servers()?;
    let overlay = Overlay::mount(&context.stage, &tree)?;
    let ports = web::STACKED_PORT..web::STACKED_PORT + 1;
    let stacked = HostServers::start(&context.stage, overlay.root(), ports)?;
    let on_overlay = stacked.servers()?;
    let in_ves = servers_in_ves(context)?;
    let subjects: Subjects<'_> = [
        (PAIRS[0].1, &on_host[..1]),
        (PAIRS[0].0, &in_ves[..1]),
        (PAIRS[1].1, &on_host),
        (PAIRS[1].0, &in_ves),
        (STACKED, &on_overlay),
    ];
    let saturated = rounds(context, &subjects, None)?;
    let fastest: Vec<f64> = saturated
        .iter()
        .map(|round| per_second(&round[0]))
        .collect();
    let rate = (median(&fastest).context("nothing was measured")? * FIXED_PART).round();
    let fixed = rounds(context, &subjects, Some(rate))?;
    results.note(format!(
        "{SECTION}: the fixed load is {rate} requests a second over all servers"
    ));
    for (at, (subject, _)) in subjects.iter().enumerate() {
        tell_saturated(results, subject, &saturated, at);
        tell_fixed(results, subject, &fixed, at);
    }
    promises(results, &saturated, &fixed);
    context
        .node
        .vessel(&["delete", "--all", "--force"])
        .map(drop)
}

/// Who is looked at, by name.
type Subjects<'a> = [(&'a str, &'a [Server]); 5];

/// One look at each subject, in the order of the subjects.
type Round = [Load; 5];

fn servers_in_ves(context: &Context) -> Result<Vec<Server>> {
    let list = context.node.json(&["list"])?;
    let list = list.as_array().context("`list` is no list")?;
    let mut servers = Vec::new();
    for ve in list {
        let name = ve["name"].as_str().context("a VE has no name")?;
        let address = ipv4_of(ve)?;
        let init = context.node.init_pid(name)?;
        servers.push(Server {
            address: format!("{address}:80"),
            processes: web::await_workers(init).with_context(|| format!("VE `{name}`"))?,
        });
    }
    ensure!(
        servers.len() == MANY,
        "{} of {MANY} VEs are there",
        servers.len()
    );
    Ok(servers)
}

fn rounds(context: &Context, subjects: &Subjects<'_>, rate: Option<f64>) -> Result<Vec<Round>> {
    let mut rounds = Vec::new();
    for _ in 0..context.rounds(2, 8) {
        let mut round = Vec::new();
        for (subject, servers) in subjects {
            interrupt::check()?;
            let load = web::load(&context.stage, servers, SECONDS, rate);
            round.push(load.with_context(|| (*subject).to_owned())?);
        }
        rounds.push(round.try_into().ok().context("a round has five parts")?);
    }
    Ok(rounds)
}

fn per_second(load: &Load) -> f64 {
    load.answered / load.seconds
}

/// Answers for each second of the servers' processor time. On a machine that does nothing else this
/// is what saturated servers answer; on any other it leaves out what others took of the processor.
fn per_busy_second(load: &Load) -> f64 {
    load.answered / load.server_ns * 1e9
}

/// Percent of a processor.
fn busy(nanoseconds: f64, load: &Load) -> f64 {
    nanoseconds / load.seconds / 1e7
}

/// Microseconds of the servers' time for each request.
fn server_cost(load: &Load) -> f64 {
    load.server_ns / load.answered / 1e3
}

/// Microseconds of everybody's time for each request.
fn whole_cost(load: &Load) -> f64 {
    (load.server_ns + load.client_ns + load.kernel_ns) / load.answered / 1e3
}

fn tell_saturated(results: &mut Results, subject: &str, rounds: &[Round], at: usize) {
    let all = |field: fn(&Load) -> f64| rounds.iter().map(|round| field(&round[at])).collect();
    let samples = all(per_second);
    let unit = Unit::PerSecond;
    results.add(SECTION, subject, "saturated", unit, samples);
    let samples = all(per_busy_second);
    results.add(SECTION, subject, "in a busy second", unit, samples);
    let samples = all(|load| busy(load.server_ns, load));
    results.add(SECTION, subject, "servers busy", Unit::Percent, samples);
    let samples = all(|load| busy(load.client_ns, load));
    results.add(SECTION, subject, "client busy", Unit::Percent, samples);
}

fn tell_fixed(results: &mut Results, subject: &str, rounds: &[Round], at: usize) {
    let all = |field: fn(&Load) -> f64| rounds.iter().map(|round| field(&round[at])).collect();
    let unit = Unit::Microseconds;
    let samples = all(server_cost);
    results.add(SECTION, subject, "servers' time a request", unit, samples);
    results.add(
        SECTION,
        subject,
        "all time a request",
        unit,
        all(whole_cost),
    );
    let late: f64 = rounds.iter().map(|round| round[at].late).sum();
    if late > 0.0 {
        let text = format!("{SECTION}: {subject}: {late} requests of the fixed load came late");
        results.note(text);
    }
}

/// Ratios within each round, so that what else the machine did then matters least; then their
/// medians.
fn promises(results: &mut Results, saturated: &[Round], fixed: &[Round]) {
    let ratios = |rounds: &[Round], at: usize, to: usize, of: fn(&Load) -> f64| -> Vec<f64> {
        let ratios = rounds.iter().map(|round| of(&round[at]) / of(&round[to]));
        ratios.collect()
    };
    let ratio = |rounds: &[Round], at: usize, to: usize, of: fn(&Load) -> f64| {
        median(&ratios(rounds, at, to, of)).unwrap_or(f64::NAN)
    };
    let unit = Unit::Ratio;
    let what = "servers' time a request over 1 on the host";
    results.add(
        SECTION,
        STACKED,
        what,
        unit,
        ratios(fixed, 4, 0, server_cost),
    );
    for (at, (ve, host)) in [0, 2].into_iter().zip(PAIRS) {
        let title = format!("servers' time a request at a fixed load, {ve} over {host}");
        let measured = ratio(fixed, at + 1, at, server_cost);
        results.promise(SECTION, &title, unit, measured, (Bound::AtMost, COST_MAX));
    }
    let (ve, host) = PAIRS[1];
    let title = format!("answers in a busy second when saturated, {ve} over {host}");
    let measured = ratio(saturated, 3, 2, per_busy_second);
    results.promise(
        SECTION,
        &title,
        unit,
        measured,
        (Bound::AtLeast, SATURATED_MIN),
    );
}
