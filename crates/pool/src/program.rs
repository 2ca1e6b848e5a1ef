//! Running the two programs that are better at their work than we would be: `mkfs.btrfs` makes a file
//! system, `wipefs` knows the signatures of all others.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::superblock::LABEL;

/// Where programs for administrators lie, for a daemon whose `PATH` lacks them.
const SYSTEM_DIRECTORIES: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Most of a program's complaint that is passed on.
const COMPLAINT_CHARS_MAX: usize = 500;

/// A program could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It is not installed.
    #[error("the program `{program}` is missing; install it (`apt install {package}`)")]
    Missing {
        /// Its name.
        program: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// It could not be started.
    #[error("cannot run `{program}`")]
    Run {
        /// Its path.
        program: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It ran and failed.
    #[error("`{program}` failed on `{target}`: {complaint}")]
    Failed {
        /// Its path.
        program: PathBuf,
        /// What it worked on.
        target: PathBuf,
        /// What it wrote to its standard error, shortened.
        complaint: String,
    },
}

/// Makes a btrfs on `target`, which must hold nothing.
///
/// Metadata is kept twice, for two reasons: a bad sector then costs nothing, and mkfs sets a proper first
/// chunk aside for it. With one copy it sets 8 MiB aside, data takes all the rest of a pool that
/// fills up, and then not even directories can be made.
pub(crate) fn make_file_system(target: &Path) -> Result<(), ProgramError> {
    let options = [
        "--quiet",
        "--label",
        LABEL,
        "--data",
        "single",
        "--metadata",
        "dup",
    ];
    run("mkfs.btrfs", "btrfs-progs", &options, target).map(drop)
}

/// Names the signatures of file systems, partition tables, volume managers and swap on `target`.
pub(crate) fn signatures(target: &Path) -> Result<Vec<String>, ProgramError> {
    let options = ["--no-act", "--noheadings", "--output", "TYPE"];
    let output = run("wipefs", "util-linux", &options, target)?;
    let mut found: Vec<_> = output.lines().map(|line| line.trim().to_owned()).collect();
    found.retain(|name| !name.is_empty());
    found.dedup();
    Ok(found)
}

fn run(
    program: &'static str,
    package: &'static str,
    options: &[&str],
    target: &Path,
) -> Result<String, ProgramError> {
    let path = find(program).ok_or(ProgramError::Missing { program, package })?;
    let output = Command::new(&path)
        .args(options)
        .arg("--")
        .arg(target)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output();
    let output = output.map_err(|source| ProgramError::Run {
        program: path.clone(),
        source,
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let complaint = match complaint.trim() {
        "" => output.status.to_string(),
        text => text
            .chars()
            .take(COMPLAINT_CHARS_MAX)
            .collect::<String>()
            .replace('\n', "; "),
    };
    Err(ProgramError::Failed {
        program: path,
        target: target.to_owned(),
        complaint,
    })
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let ordinary = std::env::split_paths(&path);
    let system = SYSTEM_DIRECTORIES
        .iter()
        .map(|d| PathBuf::from(OsStr::new(d)));
    ordinary
        .chain(system)
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_program_is_named_with_its_package() {
        let error = run("no-such-program", "some-package", &[], Path::new("/")).unwrap_err();
        assert!(
            error.to_string().contains("apt install some-package"),
            "{error}"
        );
    }

    #[test]
    fn a_file_without_signature_has_none() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 20).unwrap();
        assert_eq!(signatures(file.path()).unwrap(), [""; 0]);
    }
}
