//! Templates with applications: installing them in a sandbox, and keeping what comes out.
//!
//! The sandbox is a VE that the engine made for this, with all its walls. What it writes is read as every import is,
//! and what it says goes into the log of the build.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use engine::{FailureKind, Fault, ProgressSink, StackBuild};
use registry::VeRecord;
use runtime::{ExecSpec, ExecStreams, Task};
use template::manifest::Manifest;
use template::{Applied, BuildError, InvalidOption, KeepRequest, Recipe, Session};
use ve::{Name, Options, Stack, VeId};

use crate::host::Host;
use crate::mechanisms::{NodeMechanisms, cgroup_entry};
use crate::templates::{self, fault_of_import};

/// How often a running build looks whether it was cancelled.
const POLL: Duration = Duration::from_millis(200);

/// Where a sandbox finds what it is to do: in a file system that is not kept.
const SCRIPT: &str = "/run/vessel-build";

/// What the init of a sandbox does: nothing, and it collects the processes that others left.
pub(crate) const IDLE: [&str; 3] = ["/bin/sh", "-c", "while :; do sleep 3600; done"];

fn fault(error: &(dyn std::error::Error + 'static)) -> Fault {
    Fault::from_error(error)
}

pub(crate) fn options_check(host: &Host, stack: &Stack, options: &Options) -> Result<(), Fault> {
    let applied = host.catalogue.application(stack).map_err(|e| fault(&e))?;
    let checked: Result<Options, InvalidOption> = applied.recipe.options(options);
    checked.map(drop).map_err(|error| {
        let hint = format!("`vessel template show {stack}` tells what it offers");
        fault(&error).of_kind(FailureKind::Usage).with_hint(hint)
    })
}

/// The recipe of a build, and the template below it, if both fit.
fn recipe(host: &Host, build: &StackBuild) -> Result<(Recipe, Manifest), Fault> {
    let usage = |error: &(dyn std::error::Error + 'static)| {
        let hint = "see the recipes that come with the node for examples";
        fault(error).of_kind(FailureKind::Usage).with_hint(hint)
    };
    let (below, top) = build
        .stack
        .parts()
        .ok_or_else(|| Fault::new(format!("`{}` has no application", build.stack)))?;
    let recipe = match &build.recipe {
        Some(text) => Recipe::parse(text).map_err(|error| usage(&error))?,
        None => application(host, &build.stack.of_one(&top))?.recipe,
    };
    let base = host.catalogue.get(&below).map_err(|e| fault(&e))?;
    recipe
        .fits(&base.distribution)
        .map_err(|error| usage(&error))?;
    Ok((recipe, base))
}

/// An application as its own template keeps it, be it that of another revision.
pub(crate) fn application(host: &Host, own: &Stack) -> Result<Applied, Fault> {
    let all = host.catalogue.names().map_err(|error| fault(&error))?;
    let recipe = policy::stacks::recipe_of(&all, own).unwrap_or_else(|| own.clone());
    let applied = host.catalogue.application(&recipe);
    applied.map_err(|error| fault(&error))
}

pub(crate) fn recipe_check(host: &Host, build: &StackBuild) -> Result<(), Fault> {
    let (recipe, _) = recipe(host, build)?;
    let Some(mirror) = build.mirror.as_deref().filter(|mirror| !is_mirror(mirror)) else {
        tracing::debug!("the recipe `{}` can be carried out", recipe.name);
        return Ok(());
    };
    let message = format!("`{mirror}` is no mirror that a sandbox can reach");
    Err(Fault::new(message)
        .of_kind(FailureKind::Usage)
        .with_hint("give a URL like `http://deb.debian.org/debian`"))
}

fn is_mirror(text: &str) -> bool {
    let known = ["http://", "https://"];
    let begins = known
        .iter()
        .any(|scheme| text.len() > scheme.len() && text.starts_with(scheme));
    let plain = |c: char| c.is_ascii_alphanumeric() || ":/.-_~%+@[]".contains(c);
    begins && text.len() <= 500 && text.chars().all(plain)
}

/// Carries a recipe out in a sandbox that runs. Nothing of it runs any more after this.
pub(crate) fn install(
    mechanisms: &NodeMechanisms,
    sandbox: &VeRecord,
    build: &StackBuild,
    sink: &dyn ProgressSink,
) -> Result<(), Fault> {
    let host = &mechanisms.0;
    let (recipe, base) = recipe(host, build)?;
    let (distribution, manager) = (&base.distribution, base.packages.manager);
    let script = recipe.script(distribution, manager, build.mirror.as_deref());
    let id = sandbox.spec.id;
    hand_over(host, id, &script)?;
    let log = log_file(host, &build.stack);
    let cannot_write = |source| BuildError::Log {
        path: log.clone(),
        source,
    };
    let mut file = File::create(&log).map_err(|error| fault(&cannot_write(error)))?;
    let io = |error: io::Error| Fault::new(format!("no pipe to the sandbox: {error}"));
    let (words, theirs) = pipe().map_err(io)?;
    let nothing = File::open("/dev/null").map_err(io)?;
    let task = execute(
        host,
        id,
        &["/bin/sh", SCRIPT],
        &ExecStreams {
            input: nothing.as_fd(),
            output: theirs.as_fd(),
            error: theirs.as_fd(),
        },
    )?;
    drop(theirs);
    let (ended, words) = templates::with_session(sink, |session| {
        std::thread::scope(|scope| {
            let words = scope.spawn(|| template::follow(File::from(words), &mut file, session));
            let ended = wait(&task, session);
            // What it left running holds the pipe, and would go on changing the files.
            let killed = mechanisms.kill_stray(id);
            let words = words.join().unwrap_or_default();
            (ended.and_then(|code| killed.map(|()| code)), words)
        })
    });
    match ended? {
        Some(0) => Ok(()),
        None => Err(Fault::new("it was cancelled").of_kind(FailureKind::Cancelled)),
        Some(code) => Err(fault(&BuildError::Failed {
            suite: build.stack.to_string(),
            reason: words
                .reason
                .unwrap_or_else(|| format!("it ended with code {code}")),
            log,
            last_lines: Vec::from(words.last_lines).join("\n"),
        })),
    }
}

/// Waits for a task; nothing when the work was cancelled first.
fn wait(task: &Task, session: Session<'_>) -> Result<Option<i32>, Fault> {
    loop {
        if let Some(end) = task.wait_within(POLL).map_err(|error| fault(&error))? {
            return Ok(Some(end.code));
        }
        if session.is_cancelled() {
            return Ok(None);
        }
    }
}

/// Puts the script into the sandbox.
fn hand_over(host: &Host, id: VeId, script: &str) -> Result<(), Fault> {
    let io = |error: io::Error| Fault::new(format!("cannot tell the sandbox what to do: {error}"));
    let (theirs, ours) = pipe().map_err(io)?;
    let nothing = File::options().write(true).open("/dev/null").map_err(io)?;
    let task = execute(
        host,
        id,
        &["/bin/sh", "-c", &format!("cat >{SCRIPT}")],
        &ExecStreams {
            input: theirs.as_fd(),
            output: nothing.as_fd(),
            error: nothing.as_fd(),
        },
    )?;
    drop(theirs);
    let written = File::from(ours).write_all(script.as_bytes());
    let end = task.wait().map_err(|error| fault(&error))?;
    match (end.code, written) {
        (0, Ok(())) => Ok(()),
        (_, Err(error)) => Err(io(error)),
        (code, Ok(())) => Err(Fault::new(format!(
            "cannot tell the sandbox what to do: its shell ended with code {code}"
        ))),
    }
}

fn execute(
    host: &Host,
    id: VeId,
    command: &[&str],
    streams: &ExecStreams<'_>,
) -> Result<Task, Fault> {
    let entry = host
        .groups
        .ve(id)
        .exec_entry()
        .map_err(|error| fault(&error))?;
    let spec = ExecSpec {
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        user: "root".to_owned(),
        environment: template::proxies()
            .filter_map(|(name, value)| Some((name.to_owned(), value.into_string().ok()?)))
            .collect(),
        directory: Some("/".to_owned()),
        login: false,
        terminal: None,
        open_files: runtime::open_files(None),
    };
    let client = host.launcher.client();
    let task = client.exec(id, &spec, Some(*streams), &cgroup_entry(&entry));
    task.map_err(|error| fault(&error))
}

/// Keeps the files of a sandbox that has ended.
pub(crate) fn keep(
    host: &Host,
    sandbox: &VeRecord,
    build: &StackBuild,
    sink: &dyn ProgressSink,
) -> Result<(), Fault> {
    let (recipe, _) = recipe(host, build)?;
    let id = sandbox.spec.id;
    let root = host.root_spec(id, &sandbox.spec.stack())?;
    let io = |error: io::Error| Fault::new(format!("no pipe to the sandbox: {error}"));
    let (stream, theirs) = pipe().map_err(io)?;
    let client = host.launcher.client();
    let task = client
        .pack_tree(id, &root, theirs.as_fd(), &runtime::CgroupEntry::default())
        .map_err(|error| fault(&error))?;
    drop(theirs);
    let request = KeepRequest {
        stack: build.stack.clone(),
        recipe,
    };
    let kept = templates::with_session(sink, |session| {
        host.catalogue.keep(&request, File::from(stream), session)
    });
    // The reader has let go of the stream, so its writer ends.
    let end = task.wait().map_err(|error| fault(&error))?;
    match (kept, end.message) {
        (Ok(_), _) => Ok(()),
        (Err(_), Some(message)) if end.code != 0 && !sink.cancelled() => {
            Err(Fault::new(format!("cannot read what was built: {message}")))
        }
        (Err(error), _) => Err(fault_of_import(&error)),
    }
}

/// A pipe: its reading and its writing end.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}

pub(crate) fn log_file(host: &Host, stack: &Stack) -> PathBuf {
    host.root.join("log").join(format!("template-{stack}.log"))
}

/// The text of a recipe by its name: of the node's own, then of those that came with the program.
pub(crate) fn find_recipe(host: &Host, name: &Name) -> Result<Option<String>, Fault> {
    let program = std::env::current_exe().ok();
    let folder = program.as_deref().and_then(Path::parent);
    // As installed, and as built in a clone.
    let beside = ["../../share/vessel/recipes", "../../recipes"];
    let shipped = beside
        .into_iter()
        .filter_map(|path| Some(folder?.join(path)));
    for folder in std::iter::once(host.root.join("recipes")).chain(shipped) {
        let path = folder.join(format!("{name}.toml"));
        match std::fs::read_to_string(&path) {
            Ok(text) => return Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let message = format!("the recipe {} cannot be read: {error}", path.display());
                return Err(Fault::new(message));
            }
        }
    }
    Ok(None)
}
