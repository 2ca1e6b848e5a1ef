//! The registry's files: making them, refusing what is left of lost ones, and a copy for that day.
//!
//! A node that comes up with an empty registry would know none of its VEs. So a registry is made
//! together with the node and never after, and what is damaged, empty or gone is refused: VEs run on
//! meanwhile, and a copy that is never older than [`COPY_INTERVAL`] lies beside it.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use registry::Registry;

use crate::daemon::{Daemon, Up};

/// The registry, below the node's root. SQLite names its other files after it.
pub(crate) const FILE: &str = "registry.db";
/// Its copy.
pub(crate) const COPY: &str = "registry.copy";
/// Where an administrator is told to put a damaged one.
pub(crate) const ASIDE: &str = "registry.damaged";

/// How old the copy may be. Writing one of a hundred VEs takes a few milliseconds.
const COPY_INTERVAL: Duration = Duration::from_secs(20);

/// Makes the registry of a new node, that root alone can read: it holds hashes of passwords. SQLite
/// gives its other files the mode of the first.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn make(root: &Path) -> Result<Registry> {
    let path = root.join(FILE);
    let file = std::fs::File::options()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&path);
    file.with_context(|| format!("cannot open {}", path.display()))?;
    Ok(Registry::open(&path)?)
}

/// Opens the registry of a prepared node.
///
/// # Errors
/// When it is damaged, empty or gone; says what can take its place.
pub(crate) fn open(root: &Path) -> Result<Registry> {
    let path = root.join(FILE);
    let lost = |what: &str| {
        let path = path.display();
        anyhow::anyhow!("the registry {path} is {what}; {}", advice(root))
    };
    match std::fs::metadata(&path) {
        Ok(metadata) if metadata.len() == 0 => return Err(lost("empty")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(lost("gone")),
        _ => {}
    }
    match Registry::open(&path) {
        Err(registry::OpenError::Damaged { finding, .. }) => {
            Err(lost(&format!("damaged ({finding})")))
        }
        opened => Ok(opened?),
    }
}

/// What to do without a registry.
fn advice(root: &Path) -> String {
    let written = std::fs::metadata(root.join(COPY)).and_then(|metadata| metadata.modified());
    let Ok(written) = written else {
        return "bring back an undamaged one; VEs run on meanwhile".to_owned();
    };
    let age = written.elapsed().unwrap_or_default().as_secs();
    format!(
        "{COPY} is its copy of {age} s ago: `cd {} && mkdir -p {ASIDE} && mv -f {FILE}* {ASIDE}; cp {COPY} {FILE}` \
         puts that in its place, and `vesseld` goes on from there; VEs run on meanwhile",
        root.display()
    )
}

/// Copies the registry whenever it has changed, until the daemon ends or the node is taken down.
pub(crate) fn keep_copy(daemon: &Daemon) {
    let mut copied = None;
    while let Some(up) = daemon.up_if_prepared() {
        let changes = up.engine.registry().changes();
        if copied != Some(changes) && copy(&daemon.root, &up) {
            copied = Some(changes);
        }
        drop(up);
        std::thread::sleep(COPY_INTERVAL);
    }
}

/// Copies the registry; whether it could be. What stands in the way is told.
pub(crate) fn copy(root: &Path, up: &Up) -> bool {
    let copy = root.join(COPY);
    let copied = up.engine.registry().copy_to(&copy);
    if let Err(error) = copied.map_err(anyhow::Error::from) {
        tracing::warn!("{} is not up to date: {error:#}", copy.display());
        return false;
    }
    true
}
