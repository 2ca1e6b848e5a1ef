//! Building a template from a distribution's own packages, by the program `mmdebstrap`.
//!
//! The program writes a tar stream, which is read as every other import: nothing is unpacked twice.
//! It runs as root in namespaces of its own for mounts and processes, in the catalogue's staging
//! folder, with an environment of ours. When it is killed, or this process dies, everything that it
//! started dies with it, daemons included, because they all live in that process namespace.
//!
//! What comes out is the unmodified distribution with the packages of a small server. What a VE needs
//! besides is laid over at its start, not built in.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::catalogue::{Catalogue, CatalogueError, Staging};
use crate::error::ImportError;
use crate::ingest::Ingest;
use crate::manifest::{Manifest, Source};
use crate::scrub;
use crate::session::{Progress, Session, Stage};
use crate::source::archive;
use crate::source::tar::End;

mod request;
mod suite;

pub use request::{BuildRequest, InvalidRequest};
use suite::Suite;

/// What every template has besides the distribution's required packages: what an administrator
/// expects of a server that he logs in to. `minbase` and this list instead of `important`, because that
/// brings a DHCP client, network scripts and udev, which fight over the VE's interface.
const SERVER: [&str; 18] = [
    "apt-utils",
    "ca-certificates",
    "cron",
    "curl",
    "dbus",
    "iproute2",
    "iputils-ping",
    "less",
    "libnss-systemd",
    "libpam-systemd",
    "logrotate",
    "nano",
    "netbase",
    "openssh-server",
    "procps",
    "systemd-sysv",
    "tzdata",
    "vim-tiny",
];

/// Programs that a build runs, and Debian's packages that have them.
const PROGRAMS: [(&str, &str); 3] = [
    ("mmdebstrap", "mmdebstrap"),
    ("unshare", "util-linux"),
    ("setpriv", "util-linux"),
];

/// Where they are looked for.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Lines of the log that a failure shows.
const LAST_LINES: usize = 12;

/// Bytes of one line of the log. What is longer is cut.
const LINE_BYTES_MAX: u64 = 16 << 10;

/// What programs say of `ENOSPC` and `EDQUOT`.
const FULL: [&str; 2] = ["No space left on device", "Disk quota exceeded"];

/// How often a running build looks whether it was cancelled.
const POLL: Duration = Duration::from_millis(100);

/// Where apt inside is told its servers.
const SOURCES: &str = "/etc/apt/sources.list";

const DAY_SECONDS: u64 = 86_400;

/// A build was refused or failed. The catalogue is as it was.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The request makes no sense.
    #[error(transparent)]
    Request(#[from] InvalidRequest),
    /// Something is not installed.
    #[error("cannot build templates: {missing} is missing; install the package `{package}`")]
    Missing {
        /// What is missing.
        missing: String,
        /// Debian's package that has it.
        package: &'static str,
    },
    /// The log cannot be written.
    #[error("cannot write the build's log `{}`", path.display())]
    Log {
        /// The log.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The program cannot be started.
    #[error("cannot start `mmdebstrap`")]
    Start(#[source] io::Error),
    /// The program failed: a mirror that does not answer, an unknown suite or package.
    #[error("building `{suite}` failed: {reason}; the whole log is `{}`, it ends with:\n{last_lines}", log.display())]
    Failed {
        /// What was being built.
        suite: String,
        /// The first error that the program told.
        reason: String,
        /// The log.
        log: PathBuf,
        /// Its last lines.
        last_lines: String,
    },
    /// The tree could not be taken in.
    #[error(transparent)]
    Import(#[from] ImportError),
}

impl From<CatalogueError> for BuildError {
    fn from(error: CatalogueError) -> Self {
        Self::Import(error.into())
    }
}

impl Catalogue {
    /// Builds a template from packages. Blocks for half a minute and more: call it where that is
    /// allowed, from a thread that lives as long as the call (the programs die with that thread).
    ///
    /// # Errors
    /// Every error names what is wrong and leaves the catalogue as it was. The log stays.
    pub fn build(
        &self,
        request: &BuildRequest,
        session: Session<'_>,
    ) -> Result<Manifest, BuildError> {
        let suite = request::check(request)?;
        self.check_free(&request.name)?;
        check_programs(&suite)?;
        let log = std::fs::File::create(&request.log).map_err(|source| BuildError::Log {
            path: request.log.clone(),
            source,
        })?;
        let staging = Staging::create(self)?;
        session.stage(Stage::InstallPackages);
        let child = start(request, &suite, staging.path())?;
        let run = Run {
            child,
            log,
            session,
            request,
        };
        let built = run.finish(self, &staging, &suite);
        if built.is_err() {
            self.collect_after_failure();
        }
        built
    }
}

fn check_programs(suite: &Suite) -> Result<(), BuildError> {
    for (program, package) in PROGRAMS {
        let found = PATH
            .split(':')
            .any(|folder| Path::new(folder).join(program).is_file());
        if !found {
            return Err(BuildError::Missing {
                missing: format!("the program `{program}`"),
                package,
            });
        }
    }
    let (package, file) = suite.keyring();
    if suite.family.is_some() && !Path::new(file).is_file() {
        return Err(BuildError::Missing {
            missing: format!("the keyring `{file}`"),
            package,
        });
    }
    Ok(())
}

fn start(request: &BuildRequest, suite: &Suite, staging: &Path) -> Result<Child, BuildError> {
    let mut packages = SERVER.join(",");
    for package in &request.packages {
        packages.push(',');
        packages.push_str(package);
    }
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let mut command = Command::new("setpriv");
    command
        .args([
            "--pdeathsig",
            "KILL",
            "unshare",
            "--mount",
            "--propagation",
            "private",
        ])
        .args([
            "--pid",
            "--fork",
            "--kill-child=KILL",
            "--mount-proc",
            "mmdebstrap",
        ])
        .args(["--mode=root", "--variant=minbase", "--format=tar"])
        .arg(format!("--include={packages}"))
        // A mirror that does not answer fails in minutes, not in hours.
        .arg("--aptopt=Acquire::http::Timeout \"30\"")
        .arg("--aptopt=Acquire::https::Timeout \"30\"")
        .arg("--aptopt=Acquire::Retries \"2\"")
        // The folder is thrown away if the machine dies: nothing in it has to survive that.
        .arg("--dpkgopt=force-unsafe-io")
        .arg(&suite.codename)
        .arg("-")
        .args(&request.mirror)
        .env_clear()
        .env("PATH", PATH)
        .env("HOME", "/root")
        .env("LC_ALL", "C.UTF-8")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("TMPDIR", staging)
        // Times of files made by the build itself: equal for all builds of one day.
        .env(
            "SOURCE_DATE_EPOCH",
            (now / DAY_SECONDS * DAY_SECONDS).to_string(),
        )
        .envs(proxies())
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().map_err(BuildError::Start)
}

/// The variables of this process that a site behind a proxy sets. A build needs them to reach its mirror.
pub fn proxies() -> impl Iterator<Item = (&'static str, OsString)> {
    let names = [
        "http_proxy",
        "https_proxy",
        "no_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
    ];
    names
        .into_iter()
        .filter_map(|name| Some((name, std::env::var_os(name)?)))
}

/// A running build.
struct Run<'a> {
    child: Child,
    log: std::fs::File,
    session: Session<'a>,
    request: &'a BuildRequest,
}

impl Run<'_> {
    fn finish(
        mut self,
        catalogue: &Catalogue,
        staging: &Staging,
        suite: &Suite,
    ) -> Result<Manifest, BuildError> {
        let (Some(output), Some(words)) = (self.child.stdout.take(), self.child.stderr.take())
        else {
            return Err(BuildError::Start(io::ErrorKind::BrokenPipe.into()));
        };
        let session = self.session;
        let group = rustix::process::Pid::from_child(&self.child);
        let kill = || {
            // It may have ended just now.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        };
        let name = &self.request.name;
        let log = &mut self.log;
        let ended = AtomicBool::new(false);
        let (read, words) = std::thread::scope(|scope| {
            let words = scope.spawn(|| follow(words, log, session));
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    if session.cancel.is_cancelled() {
                        kill();
                        return;
                    }
                    std::thread::sleep(POLL);
                }
            });
            let read = read(catalogue, self.request, output, session);
            if read.is_err() {
                kill();
            }
            // Its words end when the last process that could write them has ended: from then on
            // nothing uses the staging folder.
            let words = words.join().unwrap_or_default();
            ended.store(true, Ordering::Relaxed);
            (read, words)
        });
        let status = self.child.wait().map_err(BuildError::Start)?;
        if session.cancel.is_cancelled() {
            return Err(BuildError::Import(ImportError::Cancelled {
                name: name.to_string(),
            }));
        }
        // A build that fails breaks off its archive: then its own words say why. If the reader
        // broke off, the program died of it.
        let stream_broke = matches!(read, Ok(_) | Err(ImportError::Damaged { .. }));
        if !status.success() && stream_broke {
            return Err(BuildError::Failed {
                suite: self.request.suite.clone(),
                log: self.request.log.clone(),
                reason: words.reason.unwrap_or_else(|| status.to_string()),
                last_lines: Vec::from(words.last_lines).join("\n"),
            });
        }
        let (_lock, mut ingest) = read?;
        scrub::build_leftovers(&mut ingest.tree);
        if self.request.mirror.is_some()
            && let Some(sources) = suite.sources()
        {
            write_sources(&mut ingest, &sources)?;
        }
        let source = Source::Packages {
            suite: self.request.suite.clone(),
            codename: suite.codename.clone(),
            packages: self.request.packages.clone(),
            mirror: self.request.mirror.clone(),
        };
        Ok(crate::catalogue::finish(
            catalogue, staging, name, ingest, source,
        )?)
    }
}

/// Reads the tree from the program's output. Contents are added from its first byte on, so the lock
/// against their removal is taken only then, not for all the time of fetching packages.
fn read<'a>(
    catalogue: &Catalogue,
    request: &BuildRequest,
    output: std::process::ChildStdout,
    session: Session<'a>,
) -> Result<(impl Sized + use<>, Ingest<'a>), ImportError> {
    let origin = Path::new("the archive that mmdebstrap writes");
    let mut output = BufReader::with_capacity(128 << 10, output);
    // Nothing at all is an error that the archive's reader names.
    output.fill_buf().map_err(|source| ImportError::Read {
        path: origin.to_owned(),
        source,
    })?;
    let lock = catalogue.lock_for_adding(&request.name, session)?;
    let mut ingest = catalogue.ingest(&request.name, origin, session)?;
    session.stage(Stage::ReadTree);
    archive::read(output, End::Mark, &mut ingest, &mut archive::Plain)?;
    Ok((lock, ingest))
}

/// What is remembered of a program's words.
#[derive(Debug, Default)]
pub struct Words {
    /// The first error.
    pub reason: Option<String>,
    /// Whether a line of it says that something could not be written for want of space.
    pub full: bool,
    /// The last lines, indented.
    pub last_lines: std::collections::VecDeque<String>,
}

/// Writes what a build's program says to its log, tells lines that begin with `I: ` on, and keeps what a failure needs:
/// the first line that begins with `E: `, and the last ones. Returns when nobody can write to `words` any more.
pub fn follow(words: impl io::Read, log: &mut std::fs::File, session: Session<'_>) -> Words {
    let mut input = BufReader::new(words);
    let mut words = Words::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = io::Read::take(&mut input, LINE_BYTES_MAX).read_until(b'\n', &mut line);
        if !matches!(read, Ok(count) if count > 0) {
            return words;
        }
        // A log that cannot be written is no reason to end a build that works.
        let _ = log.write_all(&line);
        let text = String::from_utf8_lossy(&line);
        let text: String = text
            .trim_end()
            .chars()
            .filter(|c| !c.is_control())
            .collect();
        if text.is_empty() {
            continue;
        }
        if let Some(message) = text.strip_prefix("I: ") {
            (session.progress)(Progress::Message(message));
        }
        if let Some(error) = text.strip_prefix("E: ")
            && words.reason.is_none()
        {
            words.reason = Some(error.trim_end_matches('.').to_owned());
        }
        words.full |= FULL.iter().any(|words| text.contains(words));
        words.last_lines.push_back(format!("  {text}"));
        if words.last_lines.len() > LAST_LINES {
            words.last_lines.pop_front();
        }
    }
}

/// Puts the distribution's own servers into the tree, in the place of the mirror that it was built from.
fn write_sources(ingest: &mut Ingest<'_>, sources: &str) -> Result<(), ImportError> {
    let mut text = sources.as_bytes();
    let body = ingest.content(&mut text, sources.len() as u64)?;
    scrub::write(&mut ingest.tree, SOURCES, body)
        .map_err(|error| ingest.refuse(SOURCES.as_bytes(), error))
}
