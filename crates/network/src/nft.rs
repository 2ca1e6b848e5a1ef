//! Running the `nft` program, which turns the text of a ruleset into one transaction.
//!
//! Once when a node is prepared and once when it is removed; never while a VE starts. The program
//! runs in the calling thread's network namespace. What is read again and again is asked of the kernel ([`sets`]).

pub(crate) mod sets;

use std::io;

use crate::program;

/// The packet filter could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The program is not installed.
    #[error("the program `nft` is not installed; install the package `nftables`")]
    Missing,
    /// The program could not be run.
    #[error("cannot run {program}")]
    Run {
        /// Which one.
        program: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The kernel did not answer.
    #[error("the packet filter does not let itself be read: cannot {action}")]
    Kernel {
        /// What was to be done.
        action: &'static str,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// The program, or the kernel through it, refused.
    #[error("nft refuses to {action}: {words}")]
    Refused {
        /// What was to be done.
        action: &'static str,
        /// The first lines of what it said.
        words: String,
    },
}

/// How many lines of a refusal are kept; `nft` repeats each rule that it complains about.
const WORDS_LINES_MAX: usize = 6;

/// Finds the program.
pub(crate) fn program() -> Result<String, NftError> {
    program::find("nft").ok_or(NftError::Missing)
}

/// Puts a ruleset in force as one transaction: all of it or nothing.
pub(crate) fn apply(action: &'static str, ruleset: &str) -> Result<(), NftError> {
    run(action, &["-f", "-"], ruleset).map(|_| ())
}

/// Lets the kernel check a ruleset without putting it in force.
pub(crate) fn check(ruleset: &str) -> Result<(), NftError> {
    run("check the filter's rules", &["--check", "-f", "-"], ruleset).map(|_| ())
}

/// Lists something, with interface indices as numbers.
pub(crate) fn list(action: &'static str, what: &[&str]) -> Result<String, NftError> {
    let mut arguments = vec!["--terse", "list"];
    arguments.extend(what);
    run(action, &arguments, "")
}

fn run(action: &'static str, arguments: &[&str], input: &str) -> Result<String, NftError> {
    let program = program()?;
    let output = program::run(&program, arguments, input)
        .map_err(|source| NftError::Run { program, source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let words: Vec<&str> = said.lines().map(str::trim).take(WORDS_LINES_MAX).collect();
    Err(NftError::Refused {
        action,
        words: words.join("; "),
    })
}
