//! The bench: what Vessel costs, beside the least program that does the same and beside others.
//!
//! ```text
//! cargo xtask bench                  everything
//! cargo xtask bench life web         some sections
//! cargo xtask bench --quick          few rounds and no Debian, to see that it works
//! ```
//!
//! All that is compared is measured in one run, in turns, so that a busy machine disturbs all of
//! it alike. Everything happens in network namespaces and a mount namespace of the bench's own, on
//! a node of its own; at its end, also after a failure or Ctrl-C, nothing is left but the results.
//! `README.md` beside this crate says what each figure means and how it is taken.
#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "results are printed"
)]

mod command;
mod context;
mod debian;
mod interrupt;
mod light;
mod memory;
mod node;
mod peers;
mod process;
mod report;
mod sections;
mod stage;
mod trivial;
mod web;

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use crate::context::{Context, Effort};
use crate::report::Results;
use crate::sections::{SECTIONS, Section};

const HELP: &str = "\
usage: cargo xtask bench [--quick] [SECTION...]

  --quick   few rounds, no Debian: to see that it works, not to learn figures

sections:
";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().any(|word| word == "--help" || word == "help") {
        print!("{}", help());
        return Ok(());
    }
    let effort = if words.iter().any(|word| word == "--quick") {
        Effort::Quick
    } else {
        Effort::Full
    };
    let chosen: Vec<&str> = words
        .iter()
        .map(String::as_str)
        .filter(|word| *word != "--quick")
        .collect();
    for word in &chosen {
        if !SECTIONS.iter().any(|section| section.name == *word) {
            bail!("there is no section `{word}`\n\n{}", help());
        }
    }
    let runs = |section: &&Section| {
        let wanted = chosen.is_empty() || chosen.contains(&section.name);
        wanted && !(effort == Effort::Quick && section.needs_debian)
    };
    let sections: Vec<&Section> = SECTIONS.iter().filter(runs).collect();
    // Fetched from the network that the bench is about to leave.
    let debian = if sections.iter().any(|section| section.needs_debian) {
        Some(debian::archive()?)
    } else {
        None
    };
    let mut context = Context::enter(effort, debian)?;
    let mut results = Results::begin(effort);
    let outcome = measure(&mut context, &mut results, &sections);
    drop(context);
    results.print();
    let file = results.save()?;
    println!("all of it: {}", file.display());
    outcome
}

/// Runs the sections; what was measured before a failure stays in the results.
fn measure(context: &mut Context, results: &mut Results, sections: &[&Section]) -> Result<()> {
    for section in sections {
        eprintln!("== {}: {}", section.name, section.title);
        (section.measure)(context, results).with_context(|| format!("section {}", section.name))?;
    }
    Ok(())
}

fn help() -> String {
    let mut help = HELP.to_owned();
    for section in SECTIONS {
        help += &format!("  {:<10}{}\n", section.name, section.title);
    }
    help
}
