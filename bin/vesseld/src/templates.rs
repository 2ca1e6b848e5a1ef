//! Templates as the engine's mechanisms need them, and what they say of their inits.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use engine::{FailureKind, Fault, Progress, ProgressSink, TemplateRequest};
use runtime::InitKind as LaunchKind;
use template::manifest::InitKind;
use template::{
    BuildError, BuildRequest, Cancel, CatalogueError, ImportError, ImportRequest, ImportSource,
    Session, Stage, StoreError,
};
use ve::{Name, Stack};

use crate::host::Host;

/// `SIGTERM`: what a program that is no init takes as a request to end.
pub(crate) const SIGNAL_TERMINATE: i32 = 15;
/// `SIGRTMIN+4` of glibc: systemd starts `poweroff.target` (systemd(1), "Signals").
const SIGNAL_SYSTEMD_POWER_OFF: i32 = 38;
/// `SIGUSR2`: busybox's init powers off (init/init.c, `halt_reboot_pwoff`).
const SIGNAL_BUSYBOX_POWER_OFF: i32 = 12;
/// `SIGPWR`: sysvinit runs its `powerfail` action, which containers' inittabs make a shutdown.
const SIGNAL_POWER: i32 = 30;

/// How often work that says nothing looks whether it was cancelled.
const CANCEL_POLL: Duration = Duration::from_millis(100);

pub(crate) fn version(host: &Host, name: &Stack) -> Result<Option<String>, Fault> {
    if !host.catalogue.contains(name) {
        return Ok(None);
    }
    match host.catalogue.get(name) {
        Ok(manifest) => Ok(Some(manifest.version)),
        Err(error) => Err(Fault::from_error(&error).with_hint(format!(
            "remove it with `vessel template remove {name}` and make it anew"
        ))),
    }
}

/// Removes a template; with the last revision also the archives of packages that were kept for it.
pub(crate) fn remove(host: &Host, name: &Stack) -> Result<(), Fault> {
    let failed = |error: CatalogueError| Fault::from_error(&error);
    host.catalogue.remove(name).map_err(failed)?;
    let all = host.catalogue.names().map_err(failed)?;
    if all.iter().all(|other| other.template() != name.template()) {
        let forgotten = host.catalogue.archives(name.template()).forget();
        forgotten.map_err(|error| {
            Fault::new(format!(
                "archives of packages that were kept for `{name}` could not be removed: {error}"
            ))
        })?;
    }
    Ok(())
}

/// The kind of init in a template.
pub(crate) fn init(host: &Host, name: &Stack) -> Result<InitKind, Fault> {
    let manifest = host
        .catalogue
        .get(name)
        .map_err(|error| Fault::from_error(&error))?;
    Ok(manifest.init.map_or(InitKind::Other, |init| init.kind))
}

/// The signal on which an init ends everything.
pub(crate) fn stop_signal(init: &InitKind) -> i32 {
    match init {
        InitKind::Systemd { .. } => SIGNAL_SYSTEMD_POWER_OFF,
        InitKind::Busybox | InitKind::OpenRc => SIGNAL_BUSYBOX_POWER_OFF,
        InitKind::Sysvinit => SIGNAL_POWER,
        InitKind::Other => SIGNAL_TERMINATE,
    }
}

/// How the launcher should treat an init.
pub(crate) fn launch_kind(init: &InitKind) -> LaunchKind {
    match init {
        InitKind::Systemd { .. } => LaunchKind::Systemd,
        _ => LaunchKind::Other,
    }
}

/// Builds, imports or verifies.
pub(crate) fn work(
    host: &Host,
    request: &TemplateRequest,
    sink: &dyn ProgressSink,
) -> Result<(), Fault> {
    let result = with_session(sink, |session| match request {
        TemplateRequest::Build {
            name,
            suite,
            packages,
            mirror,
        } => build(host, name, suite, packages, mirror.as_deref(), session),
        TemplateRequest::Import { name, source } => import(host, name, source, session),
        TemplateRequest::Verify { name } => verify(host, name, session),
        // The engine chooses what to remove, and makes a sandbox to build in.
        TemplateRequest::Remove { .. }
        | TemplateRequest::Application(_)
        | TemplateRequest::Update { .. } => {
            let subject = request.subject();
            Err(Fault::new(format!("`{subject}` is the engine's work")))
        }
    });
    result.map_err(|fault| match sink.cancelled() {
        true => fault.of_kind(FailureKind::Cancelled),
        false => fault,
    })
}

/// Does something that tells how far it is, and stops when it is cancelled.
pub(crate) fn with_session<T>(sink: &dyn ProgressSink, work: impl FnOnce(Session<'_>) -> T) -> T {
    let cancel = Cancel::new();
    let stage = Mutex::new(String::new());
    let ended = AtomicBool::new(false);
    let report = |progress: template::Progress<'_>| {
        if sink.cancelled() {
            cancel.cancel();
        }
        sink.report(told(&progress, &stage));
    };
    std::thread::scope(|scope| {
        // A program that says nothing for minutes can be cancelled, too.
        let watch = scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) && !cancel.is_cancelled() {
                if sink.cancelled() {
                    cancel.cancel();
                }
                std::thread::park_timeout(CANCEL_POLL);
            }
        });
        let session = Session {
            progress: &report,
            cancel: &cancel,
        };
        // Also when the work panics: the watch would go on for ever.
        let done = catch_unwind(AssertUnwindSafe(|| work(session)));
        ended.store(true, Ordering::Relaxed);
        watch.thread().unpark();
        done.unwrap_or_else(|panic| resume_unwind(panic))
    })
}

fn told(progress: &template::Progress<'_>, stage: &Mutex<String>) -> Progress {
    let message = match progress {
        template::Progress::Stage(new) => {
            let words = match new {
                Stage::InstallPackages => "installing packages",
                Stage::ReadTree => "reading files",
                Stage::Inspect => "looking at the tree",
                Stage::WriteImage => "writing the image",
                Stage::Verify => "comparing files",
            };
            *stage.lock().unwrap_or_else(PoisonError::into_inner) = words.to_owned();
            words.to_owned()
        }
        template::Progress::Message(message) => (*message).to_owned(),
        template::Progress::Read {
            inodes,
            content_bytes,
        } => {
            let stage = stage.lock().unwrap_or_else(PoisonError::into_inner);
            format!("{stage}: {inodes} files, {} MiB", content_bytes >> 20)
        }
    };
    Progress {
        fraction: None,
        message,
    }
}

fn build(
    host: &Host,
    name: &Name,
    suite: &str,
    packages: &[String],
    mirror: Option<&str>,
    session: Session<'_>,
) -> Result<(), Fault> {
    let request = BuildRequest {
        name: name.clone(),
        suite: suite.to_owned(),
        packages: packages.to_vec(),
        mirror: mirror.map(str::to_owned),
        log: log_file(host, name),
    };
    host.catalogue
        .build(&request, session)
        .map(drop)
        .map_err(|error| build_fault(&error))
}

fn import(host: &Host, name: &Name, source: &str, session: Session<'_>) -> Result<(), Fault> {
    let source = ImportSource::detect(source)
        .map_err(|error| Fault::from_error(&error).of_kind(FailureKind::NotFound))?;
    let request = ImportRequest {
        name: name.clone(),
        source,
    };
    host.catalogue
        .import(&request, session)
        .map(drop)
        .map_err(|error| fault_of_import(&error))
}

/// Why a template was not imported, with the kind that a full pool has.
pub(crate) fn fault_of_import(error: &ImportError) -> Fault {
    let full = matches!(
        error,
        ImportError::Store(StoreError::Full)
            | ImportError::Catalogue(CatalogueError::Store(StoreError::Full))
    );
    let fault = Fault::from_error(error);
    if !full {
        return fault;
    }
    fault.of_kind(FailureKind::Resources).with_hint(
        "`vessel pool show` tells what is free; delete VEs or templates that nobody needs",
    )
}

/// Why a template was not built.
fn build_fault(error: &BuildError) -> Fault {
    match error {
        BuildError::Import(error) => fault_of_import(error),
        error => Fault::from_error(error),
    }
}

fn verify(host: &Host, name: &Stack, session: Session<'_>) -> Result<(), Fault> {
    let verification = host
        .catalogue
        .verify(name, session)
        .map_err(|error| Fault::from_error(&error))?;
    let damage: Vec<_> = verification
        .damage
        .iter()
        .take(5)
        .map(ToString::to_string)
        .collect();
    if damage.is_empty() {
        return Ok(());
    }
    let count = verification.damage.len();
    let message = format!(
        "template `{name}` is damaged in {count} places: {}",
        damage.join("; ")
    );
    Err(Fault::new(message).with_hint(
        "check the disk with `vessel pool show`; then make the template anew from its source",
    ))
}

fn log_file(host: &Host, name: &Name) -> PathBuf {
    host.root.join("log").join(format!("template-{name}.log"))
}
