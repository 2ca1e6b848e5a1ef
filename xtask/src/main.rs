//! The project's own checks and chores: `cargo xtask help` lists them.
//!
//! Whatever would be a shell script elsewhere is a module here, so that it is checked like the
//! rest. Rules are data at the top of the module that applies them.
#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "these are command-line chores"
)]

mod bench;
mod check;
mod completion;
mod criu;
mod dependencies;
mod down;
mod install;
mod layers;
mod machine;
mod process;
mod suite;
mod tidy;
mod up;
mod workspace;

use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::dependencies::Need;
use crate::workspace::Workspace;

const HELP: &str = "\
usage: cargo xtask COMMAND

  up              install what is missing, build, prepare a node, run a Debian VE on it
  down            take all of that away again
  test [FILTER]   build everything and run all tests (a filter runs system tests only)
  bench [SECTION] measure everything beside other runtimes; `bench --help` tells more
  machine [FILTER] run tests on an emulated Debian 13; filters select system tests
  install [DIR]   build, and put programs, units and pages below / or DIR
  uninstall [DIR] take those away again
  check           what CI checks besides the tests; reports every failure
  tidy            only the checks of text: documents, module heads, banned words
  layers          only the checks of dependencies between crates
  dependencies    install the Debian packages that building, a node and the tests need
  completion      write shell completions and man pages to target/share
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let workspace = Workspace::of_this_build()?;
    let (command, rest) = match arguments {
        [] => ("help", &[][..]),
        [command, rest @ ..] => (command.as_str(), rest),
    };
    match command {
        "up" => up::run(&workspace),
        "down" => down::run(&workspace),
        "test" => suite::run(&workspace, rest),
        "bench" => bench::run(&workspace, rest),
        "machine" => machine::run(&workspace, rest),
        "install" => install::run(&workspace, rest),
        "uninstall" => install::remove(rest),
        "check" => check::run(&workspace),
        "tidy" => report(&tidy::check(&workspace)?),
        "layers" => report(&layers::check(&workspace)?),
        "dependencies" => dependencies::install(&[Need::Build, Need::Node, Need::Tests]),
        "completion" => completion::run(&workspace),
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            Ok(())
        }
        other => bail!("there is no chore `{other}`\n\n{HELP}"),
    }
}

/// Prints every finding; any finding is a failure.
fn report(findings: &[String]) -> Result<()> {
    for finding in findings {
        eprintln!("{finding}");
    }
    match findings.len() {
        0 => Ok(()),
        count => bail!("{count} findings"),
    }
}
