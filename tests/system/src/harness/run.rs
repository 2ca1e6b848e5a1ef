//! Turning declared tests into results that are told in `cargo test`'s own format.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError, RwLock};

use anyhow::{Result, anyhow, bail};
use libtest_mimic::{Arguments, Failed, Trial};

use crate::adversary::arsenal;
use crate::harness::{Fixture, Need, Node, machine, tree};

/// One test.
#[derive(Debug)]
pub(crate) struct Test {
    /// The module it is in.
    pub(crate) topic: &'static str,
    /// Its function's name: what is true when it passes.
    pub(crate) name: &'static str,
    /// What it finds.
    pub(crate) fixture: Fixture,
    /// What it needs besides root.
    pub(crate) needs: &'static [Need],
    /// The test itself.
    pub(crate) function: fn(&mut Node) -> Result<()>,
}

/// The node that tests with [`Fixture::Debian`] share, because making its template takes a minute.
/// Once making it failed, the reason is kept, and every later test fails with it at once.
static DEBIAN: Shared = Mutex::new(None);

/// The node that tests with [`Fixture::Hostile`] share: what they measure must not be disturbed by
/// each other's preparations.
static HOSTILE: Shared = Mutex::new(None);

type Shared = Mutex<Option<Result<Node, String>>>;

/// A machine has one installed node.
static INSTALLED: Mutex<()> = Mutex::new(());

/// The machine: a test has a part of it, or all.
static MACHINE: RwLock<()> = RwLock::new(());

/// Runs the tests that the arguments select.
pub(crate) fn all(topics: &[&'static [Test]], arguments: &Arguments) -> Result<ExitCode> {
    if !arguments.list {
        machine::sweep_abandoned()?;
    }
    let mut skipped = Vec::new();
    let mut trials = Vec::new();
    for test in topics.iter().copied().flatten() {
        let name = format!(
            "{}::{}",
            test.topic.split_once("::").unwrap_or_default().1,
            test.name
        );
        match verdict(test) {
            Verdict::Run => trials.push(Trial::test(name, move || finish(one(test)))),
            Verdict::Skip(reason) => {
                skipped.push(format!("{name}: {reason}"));
                trials.push(Trial::test(name, || Ok(())).with_ignored_flag(true));
            }
            Verdict::Fail(reason) => {
                trials.push(Trial::test(name, move || Err(Failed::from(reason))));
            }
        }
    }
    let conclusion = libtest_mimic::run(arguments, trials);
    let mut failed = conclusion.has_failed();
    for (name, shared) in [("Debian", &DEBIAN), ("hostile", &HOSTILE)] {
        if let Some(Ok(node)) = lock(shared).take()
            && let Err(error) = node.finish()
        {
            eprintln!("error: the {name} node left something behind: {error:#}");
            failed = true;
        }
    }
    tree::clean();
    for skip in skipped.iter().filter(|_| !arguments.list) {
        eprintln!("skipped {skip}");
    }
    Ok(if failed {
        ExitCode::from(101)
    } else {
        ExitCode::SUCCESS
    })
}

enum Verdict {
    Run,
    Skip(String),
    Fail(String),
}

fn verdict(test: &Test) -> Verdict {
    let strict = std::env::var_os("VESSEL_REQUIRE").is_some();
    for need in [Need::Root].iter().chain(test.needs) {
        match need.unmet() {
            Some(reason) if strict && need.is_required() => {
                return Verdict::Fail(format!("required, and cannot run: {reason}"));
            }
            Some(reason) => return Verdict::Skip(reason),
            None => {}
        }
    }
    Verdict::Run
}

fn finish(result: Result<()>) -> Result<(), Failed> {
    result.map_err(|error| Failed::from(format!("{error:#}")))
}

fn one(test: &Test) -> Result<()> {
    let alone = test.fixture == Fixture::Alone;
    let _whole = alone.then(|| MACHINE.write().unwrap_or_else(PoisonError::into_inner));
    let _part = (!alone).then(|| MACHINE.read().unwrap_or_else(PoisonError::into_inner));
    match test.fixture {
        Fixture::Daemon => with_own(Node::with_daemon()?, test),
        Fixture::Node | Fixture::Alone => with_prepared(Node::with_daemon()?, test),
        Fixture::Installed => {
            let _alone = lock(&INSTALLED);
            with_prepared(Node::installed()?, test)
        }
        Fixture::Debian => with_shared(&DEBIAN, debian, test),
        Fixture::Hostile => with_shared(&HOSTILE, hostile, test),
    }
}

/// Runs a test on a node that others get after it, without the VEs of this one.
fn with_shared(shared: &Shared, make: fn() -> Result<Node>, test: &Test) -> Result<()> {
    let mut shared = lock(shared);
    let made = shared.get_or_insert_with(|| make().map_err(|error| format!("{error:#}")));
    let node = made
        .as_mut()
        .map_err(|error| anyhow!("no node to share: {error}"))?;
    let result = guarded(|| (test.function)(node));
    let result = result.map_err(|error| anyhow!("{error:#}\n{}", node.story()));
    if result.is_err() {
        let _ = node.vessel(&["set", "--all", "protected=no"]);
    }
    let _ = node.vessel(&["delete", "--all", "--force"]);
    result
}

/// Prepares a node, then runs a test on it.
fn with_prepared(mut node: Node, test: &Test) -> Result<()> {
    match prepare(&mut node) {
        Ok(()) => with_own(node, test),
        Err(error) => Err(close(node, Err(error))),
    }
}

/// Runs a test on its own node, takes the node away, and compares what is left.
fn with_own(mut node: Node, test: &Test) -> Result<()> {
    let result = guarded(|| (test.function)(&mut node));
    match result {
        Ok(()) => node.finish(),
        Err(error) => Err(close(node, Err(error))),
    }
}

/// Takes away the node of a failed test without hiding why it failed.
fn close(node: Node, result: Result<()>) -> anyhow::Error {
    let error = match result {
        Err(error) => anyhow!("{error:#}\n{}", node.story()),
        Ok(()) => anyhow!("nothing failed"),
    };
    if std::env::var_os("VESSEL_KEEP").is_some() {
        return error.context(format!("kept: {}", node.keep()));
    }
    drop(node);
    error
}

fn prepare(node: &mut Node) -> Result<()> {
    node.init()?;
    node.import_tiny()
}

fn debian() -> Result<Node> {
    let mut node = Node::with_uplink()?;
    node.init_with_pool("8G")?;
    // Where building takes too long, one that was built elsewhere is brought along.
    if let Some(archive) = std::env::var_os("VESSEL_TEST_DEBIAN") {
        let archive = archive.to_string_lossy();
        node.ok(&["template", "import", &archive, "--name", "debian-12"])?;
        return Ok(node);
    }
    let mut words = vec!["template", "build", "debian-12"];
    for package in ["nginx-light", "openssh-server", "redis-server"] {
        words.extend(["--package", package]);
    }
    node.ok(&words)?;
    Ok(node)
}

fn hostile() -> Result<Node> {
    let mut node = Node::with_daemon()?;
    prepare(&mut node)?;
    arsenal::import(&node)?;
    Ok(node)
}

/// A panic in a test is a failure of that test, and its node is still taken away.
fn guarded(test: impl FnOnce() -> Result<()>) -> Result<()> {
    match catch_unwind(AssertUnwindSafe(test)) {
        Ok(result) => result,
        Err(panic) => bail!("panicked: {}", panic_text(&*panic)),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
