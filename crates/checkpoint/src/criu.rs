//! Finding a CRIU that works with this kernel.
//!
//! The host's own is taken where it is new enough. Where it is not, the project's set-up puts a
//! newer one with its own libraries under [`OWN`], which is run through its own loader. Whoever wants
//! another one names it by [`CHOSEN`].

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use runtime::CriuProgram;
use runtime::restore::PLUGIN_VARIABLE;

/// Folder with a CRIU of ours: a tree of Debian packages, extracted.
pub const OWN: &str = "/usr/lib/vessel/criu";

/// Variable of the daemon with a program to take instead of either.
pub const CHOSEN: &str = "VESSEL_CRIU";

/// Oldest version that is used: Debian 12's 3.17 does not understand the vDSO of today's kernels.
const OLDEST: (u32, u32) = (4, 1);
/// From this kernel on, versions before [`OLDEST_ON_NEW`] fail on every inet socket (`Can't get
/// 1:16 opt`).
const NEW_KERNEL: (u32, u32) = (6, 16);
const OLDEST_ON_NEW: (u32, u32) = (4, 2);

/// The plugin's file, beside the daemon.
const PLUGIN: &str = "libcriu_plugin.so";
/// What CRIU runs as its script, beside the daemon.
const SCRIPT: &str = "vessel-launcher";

/// A CRIU that may be used.
#[derive(Clone, Debug)]
pub struct Criu {
    /// How it is called.
    pub program: CriuProgram,
    /// What it calls itself.
    pub version: String,
}

/// Why there is no CRIU.
#[derive(Debug, thiserror::Error)]
pub enum CriuError {
    /// None is installed.
    #[error(
        "CRIU is not installed: install the package `criu` in version 4.2 or later, or let \
             `cargo xtask dependencies` fetch it to {OWN}"
    )]
    Missing,
    /// It does not start.
    #[error("cannot run {program}")]
    Run {
        /// Its path.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It does not say its version.
    #[error("{program} does not tell its version")]
    NoVersion {
        /// Its path.
        program: String,
    },
    /// It is too old for this kernel.
    #[error(
        "CRIU {version} at {program} is too old for this kernel: {wanted} or later is needed; \
             `cargo xtask dependencies` fetches it to {OWN}"
    )]
    TooOld {
        /// Its path.
        program: String,
        /// Its version.
        version: String,
        /// What is needed.
        wanted: String,
    },
    /// The plugin cannot be put where CRIU alone looks.
    #[error("cannot put CRIU's plugin at {path}")]
    Plugin {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Criu {
    /// Finds a CRIU. The plugin is taken from `programs`, the folder of the daemon, and copied to
    /// `run`, from where CRIU loads whatever it finds.
    ///
    /// # Errors
    /// Says what is missing and what to do.
    pub fn find(programs: &Path, run: &Path) -> Result<Self, CriuError> {
        let (command, version) = Self::look()?;
        let plugins = plugins(programs, run)?;
        Ok(Self {
            program: CriuProgram {
                command,
                script: programs.join(SCRIPT),
                plugins,
            },
            version,
        })
    }

    /// How the CRIU is called that would be used, and its version. Changes nothing.
    ///
    /// # Errors
    /// As of [`Criu::find`].
    pub fn look() -> Result<(Vec<String>, String), CriuError> {
        let chosen = std::env::var_os(CHOSEN).map(|path| vec![path.to_string_lossy().into_owned()]);
        let command = chosen.or_else(own).or_else(of_host);
        let command = command.ok_or(CriuError::Missing)?;
        let program = command.last().cloned().unwrap_or_default();
        let version = version(&command, &program)?;
        let numbers = numbers(&version);
        let kernel = rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned();
        let wanted = oldest(self::numbers(&kernel));
        if numbers < wanted {
            let wanted = format!("{}.{}", wanted.0, wanted.1);
            return Err(CriuError::TooOld {
                program,
                version,
                wanted,
            });
        }
        Ok((command, version))
    }

    /// A command that runs it for a VE whose first user id is `base`.
    pub(crate) fn command(&self, base: u32) -> Command {
        let (program, arguments) = self.program.command.split_first().map_or_else(
            || (String::new(), &[][..]),
            |(program, arguments)| (program.clone(), arguments),
        );
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env(PLUGIN_VARIABLE, base.to_string());
        command
    }
}

fn oldest(kernel: (u32, u32)) -> (u32, u32) {
    if kernel >= NEW_KERNEL {
        OLDEST_ON_NEW
    } else {
        OLDEST
    }
}

/// Ours, run through the loader that came with it.
fn own() -> Option<Vec<String>> {
    let tree = Path::new(OWN);
    let program = tree.join("usr/sbin/criu");
    let libraries = tree.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH));
    let loader = [
        "usr/lib64/ld-linux-x86-64.so.2",
        "usr/lib/ld-linux-aarch64.so.1",
    ]
    .into_iter()
    .map(|path| tree.join(path))
    .find(|path| path.exists())?;
    let text = |path: &Path| path.to_string_lossy().into_owned();
    program.exists().then(|| {
        let library_path = "--library-path".to_owned();
        vec![
            text(&loader),
            library_path,
            text(&libraries),
            text(&program),
        ]
    })
}

fn of_host() -> Option<Vec<String>> {
    ["/usr/local/sbin/criu", "/usr/sbin/criu", "/usr/bin/criu"]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .map(|path| vec![path.to_owned()])
}

fn version(command: &[String], program: &str) -> Result<String, CriuError> {
    let (first, rest) = command.split_first().ok_or(CriuError::Missing)?;
    let output = Command::new(first).args(rest).arg("--version").output();
    let output = output.map_err(|source| CriuError::Run {
        program: program.to_owned(),
        source,
    })?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.lines().find_map(|line| line.strip_prefix("Version: "));
    let missing = || CriuError::NoVersion {
        program: program.to_owned(),
    };
    version
        .map(|version| version.trim().to_owned())
        .ok_or_else(missing)
}

/// First two numbers of a version.
fn numbers(version: &str) -> (u32, u32) {
    let mut parts = version
        .split(|c: char| !c.is_ascii_digit())
        .map(|n| n.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

fn plugins(programs: &Path, run: &Path) -> Result<Option<PathBuf>, CriuError> {
    let source = programs.join(PLUGIN);
    if !source.exists() {
        return Ok(None);
    }
    let folder = run.join("criu-plugins");
    let path = folder.join(PLUGIN);
    let new = folder.join("new");
    fs::create_dir_all(&folder)
        .and_then(|()| fs::copy(&source, &new))
        .and_then(|_| fs::rename(&new, &path))
        .map_err(|source| CriuError::Plugin { path, source })?;
    Ok(Some(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_versions_and_knows_which_fit() {
        assert_eq!(numbers("4.2.1"), (4, 2));
        assert_eq!(numbers("6.18.44-fc-v657"), (6, 18));
        assert_eq!(numbers("3.17.1-dirty"), (3, 17));
        assert_eq!(numbers("junk"), (0, 0));
        assert_eq!(oldest((6, 12)), (4, 1));
        assert_eq!(oldest((6, 18)), (4, 2));
        assert_eq!(oldest((7, 3)), (4, 2));
    }
}
