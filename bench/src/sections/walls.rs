//! What the walls around a VE cost who works behind them: its system call filter, and its own view of `/proc`.
//!
//! The same program and the same files on the host and in a VE, in turns.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::command;
use crate::context::Context;
use crate::debian;
use crate::interrupt;
use crate::process;
use crate::report::{Bound, Results, Unit};

const SECTION: &str = "walls";
const VE: &str = "walls";
const HOST: &str = "host";

/// Source of the program that makes system calls.
const CALLS: &str = include_str!("../../init/calls.c");
/// Where it lies in a VE.
const CALLS_INSIDE: &str = "/root/calls";
const CALL: &str = "getppid";
/// The least call of a filtered process, over one that has no filter. A filter in the kernel's bitmap of
/// allowed calls (since Linux 5.11) costs some 50 ns, a third of such a call.
const CALL_RATIO_MAX: f64 = 1.5;

/// Programs that read `/proc`, as they are run.
const PROGRAMS: [(&str, &str); 4] = [
    ("free", "free"),
    ("top", "top -b -n 1"),
    ("uptime", "uptime"),
    ("vmstat", "vmstat"),
];
/// Runs of a program in one round.
const RUNS: usize = 40;

pub(crate) fn measure(context: &mut Context, results: &mut Results) -> Result<()> {
    let tree = context.debian()?;
    let node = &context.node;
    node.vessel(&["create", VE, "--template", debian::NAME, "--start"])?;
    calls(context, results)?;
    view(context, &tree, results)?;
    node.vessel(&["delete", VE, "--force"]).map(drop)
}

/// Nanoseconds of a system call, with the VE's filter and without any.
fn calls(context: &Context, results: &mut Results) -> Result<()> {
    let program = compiled(context)?;
    let target = format!("{VE}:{CALLS_INSIDE}");
    context
        .node
        .vessel(&["cp", &program.display().to_string(), &target])?;
    let (mut host, mut inside) = (Vec::new(), Vec::new());
    for _ in 0..context.rounds(1, 5) {
        interrupt::check()?;
        host.extend(numbers(&command::output(&mut Command::new(&program))?)?);
        let said = context.node.vessel(&["exec", VE, "--", CALLS_INSIDE])?;
        inside.extend(numbers(&said)?);
    }
    for (subject, samples) in [(HOST, host), ("vessel", inside)] {
        let microseconds = samples.into_iter().map(|nanoseconds| nanoseconds / 1e3);
        let samples = microseconds.collect();
        results.add(SECTION, subject, CALL, Unit::Microseconds, samples);
    }
    let found = [HOST, "vessel"].map(|subject| results.median(SECTION, subject, CALL));
    if let [Some(host), Some(inside)] = found {
        let what = format!("{CALL}, VE over host");
        let bound = (Bound::AtMost, CALL_RATIO_MAX);
        results.promise(SECTION, &what, Unit::Ratio, inside / host, bound);
        let added = (inside - host) * 1e3;
        results.note(format!(
            "{SECTION}: the filter adds {added:.0} ns to a call"
        ));
    }
    Ok(())
}

fn compiled(context: &Context) -> Result<PathBuf> {
    let program = context.stage.folder().join("calls");
    let source = program.with_extension("c");
    std::fs::write(&source, CALLS).context("cannot write the source")?;
    let mut compile = Command::new("gcc");
    compile.args(["-O2", "-static", "-o"]);
    command::output(compile.arg(&program).arg(&source))?;
    Ok(program)
}

fn numbers(text: &str) -> Result<Vec<f64>> {
    let numbers = text.split_whitespace().map(str::parse);
    numbers
        .collect::<Result<_, _>>()
        .context("it wrote no numbers")
}

/// Milliseconds of a run of programs that read `/proc`: in the VE, and on the host from the same files, in a
/// pid namespace with as many processes.
fn view(context: &Context, tree: &Path, results: &mut Results) -> Result<()> {
    let family = process::family(context.node.init_pid(VE)?).len();
    let mut samples = vec![(Vec::new(), Vec::new()); PROGRAMS.len()];
    for _ in 0..context.rounds(1, 7) {
        for ((_, line), (host, inside)) in PROGRAMS.iter().zip(&mut samples) {
            interrupt::check()?;
            let script = timed(line);
            host.extend(numbers(&on_host(tree, family, &script)?)?);
            let said = context
                .node
                .vessel(&["exec", VE, "--", "sh", "-c", &script])?;
            inside.extend(numbers(&said)?);
        }
    }
    for ((name, _), (host, inside)) in PROGRAMS.into_iter().zip(samples) {
        let each = |nanoseconds: Vec<f64>| -> Vec<f64> {
            let runs = f64::from(u16::try_from(RUNS).unwrap_or(u16::MAX));
            nanoseconds
                .into_iter()
                .map(|all| all / runs / 1e6)
                .collect()
        };
        results.add(SECTION, HOST, name, Unit::Milliseconds, each(host));
        results.add(SECTION, "vessel", name, Unit::Milliseconds, each(inside));
        let found = [HOST, "vessel"].map(|subject| results.median(SECTION, subject, name));
        if let [Some(host), Some(inside)] = found {
            results.add(
                SECTION,
                "VE over host",
                name,
                Unit::Ratio,
                vec![inside / host],
            );
        }
    }
    Ok(())
}

/// A script that runs a line again and again and writes the nanoseconds of all runs.
fn timed(line: &str) -> String {
    format!(
        "export TERM=dumb; begun=$(date +%s%N); i=0; \
         while [ $i -lt {RUNS} ]; do {line} >/dev/null; i=$((i+1)); done; \
         echo $(($(date +%s%N) - begun))"
    )
}

fn on_host(tree: &Path, processes: usize, script: &str) -> Result<String> {
    let tree = tree.display();
    let line = format!(
        "mount -t proc proc {tree}/proc && exec chroot {tree} sh -c '\
         n=2; while [ $n -lt {processes} ]; do sleep 1000 & n=$((n+1)); done; {script}'"
    );
    let words = [
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "sh",
        "-c",
        &line,
    ];
    command::output(&mut command::words(&words))
}
