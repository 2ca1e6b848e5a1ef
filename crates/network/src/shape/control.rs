//! The kernel's traffic control, by the program `tc`: many changes in one run of it.

use std::io;

use super::ShapeError;
use crate::program;

/// Makes changes, one a line, in their order. What comes before one that is refused stays.
pub(super) fn change(lines: &str) -> Result<(), ShapeError> {
    if lines.is_empty() {
        return Ok(());
    }
    run(&["-batch", "-"], lines).map(drop)
}

/// The same for taking away what may be gone already: every line is tried, and a refusal is none.
pub(super) fn change_leniently(lines: &str) -> Result<(), ShapeError> {
    if lines.is_empty() {
        return Ok(());
    }
    match run(&["-force", "-batch", "-"], lines) {
        // Without the program nothing was ever set.
        Err(ShapeError::Refused { .. } | ShapeError::Run(_)) => Ok(()),
        other => other.map(drop),
    }
}

/// What the program shows.
pub(super) fn show(arguments: &[&str]) -> Result<String, ShapeError> {
    run(arguments, "")
}

/// Why nothing can be shaped here, if the program is missing.
pub(super) fn missing() -> Option<&'static str> {
    let found = program::find("tc").is_some();
    (!found).then_some("the program `tc` is not installed; install the package `iproute2`")
}

fn run(arguments: &[&str], input: &str) -> Result<String, ShapeError> {
    let program = program::find("tc");
    let program = program.ok_or_else(|| ShapeError::Run(io::ErrorKind::NotFound.into()))?;
    let output = program::run(&program, arguments, input).map_err(ShapeError::Run)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(ShapeError::Refused {
        command: refused(input, &words).unwrap_or_else(|| arguments.join(" ")),
        words,
    })
}

/// The line of a batch that a refusal is about: `Command failed -:3`.
fn refused(input: &str, words: &str) -> Option<String> {
    let number = words.rsplit_once("Command failed -:")?.1;
    let number: usize = number.split_whitespace().next()?.parse().ok()?;
    input.lines().nth(number.checked_sub(1)?).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_its_line() {
        let said = "RTNETLINK answers: No such device\nCommand failed -:2\n";
        assert_eq!(
            refused("qdisc a\nclass b\n", said).as_deref(),
            Some("class b")
        );
        assert_eq!(refused("qdisc a\n", said), None);
        assert_eq!(refused("qdisc a\n", "Killed"), None);
    }
}
