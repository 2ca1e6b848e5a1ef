//! The connection to the node's launcher: making it, keeping it, and hearing of ends of inits.
//!
//! The launcher outlives the daemon. At start the daemon looks for one that runs; without one it
//! starts one, and hands it the VEs that an earlier launcher left behind.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use runtime::{Client, Event, Events};
use ve::{Exit, VeId};

/// Ends of inits, by VE and process.
type Exits = BTreeMap<(VeId, u32), Exit>;

/// A running launcher, and the ends of inits that were not dealt with yet.
#[derive(Debug)]
pub(crate) struct Launcher {
    client: Mutex<Arc<Client>>,
    exits: Mutex<Exits>,
    /// The init of each VE that got ready last.
    ready: Mutex<BTreeMap<VeId, u32>>,
    /// Told of ends of inits, and of those that got ready.
    ended: Condvar,
}

/// What came of waiting for an init.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// It is ready.
    Ready,
    /// It ended.
    Ended(Exit),
    /// Neither yet.
    Waiting,
}

/// What the daemon is told of VEs.
pub(crate) enum News {
    /// An init is ready.
    Ready(VeId, u32),
    /// An init ended.
    Exited(VeId, u32, Exit),
    /// The launcher is gone; VEs live on, unwatched.
    Gone,
}

/// The program that launches: it lies beside the daemon.
pub(crate) fn program() -> Result<PathBuf> {
    beside("vessel-launcher")
}

/// The program that serves the VEs' own `/proc`: it lies there, too.
pub(crate) fn view_program() -> Result<PathBuf> {
    beside("vessel-procview")
}

fn beside(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot tell where vesseld itself is")?;
    Ok(own.with_file_name(name))
}

/// Lets the launcher give VEs a view of their own. Without one they start all the same, and see the
/// machine's numbers.
pub(crate) fn give_view(client: &Client, first_id: VeId) {
    let given = view_program().and_then(|program| Ok(client.view(&program, first_id)?));
    if let Err(error) = given {
        tracing::warn!("VEs see the machine's numbers in /proc: {error:#}; see `vessel doctor`");
    }
}

/// Connects to the launcher of the node at `root`, starting one if none runs.
pub(crate) fn connect(root: &Path) -> Result<(Client, Events)> {
    if let Ok(connected) = Client::connect(root) {
        return Ok(connected);
    }
    let program = program()?;
    runtime::launcher::spawn(&program, root)
        .with_context(|| format!("cannot start {}", program.display()))?;
    Client::connect(root).context("the launcher was started and does not answer")
}

impl Launcher {
    pub(crate) fn new(client: Client) -> Arc<Self> {
        Arc::new(Self {
            client: Mutex::new(Arc::new(client)),
            exits: Mutex::default(),
            ready: Mutex::default(),
            ended: Condvar::new(),
        })
    }

    /// The connection that is in force.
    pub(crate) fn client(&self) -> Arc<Client> {
        Arc::clone(&self.client.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts the connection to another launcher in force.
    pub(crate) fn replace(&self, client: Client) {
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(client);
    }

    /// Passes events on until the launcher is gone. Ends of inits are noted first, for those who
    /// wait in [`Launcher::wait_exit`].
    pub(crate) fn listen(&self, events: &Events, tell: impl Fn(News)) {
        while let Some(event) = events.next() {
            match event {
                Event::Ready { id, pid } => {
                    self.note_ready(id, pid);
                    tell(News::Ready(id, pid));
                }
                Event::Exited { id, pid, exit } => {
                    self.note_exit(id, pid, exit);
                    tell(News::Exited(id, pid, exit));
                }
                Event::TaskEnded { .. } => {}
            }
        }
        tell(News::Gone);
    }

    pub(crate) fn note_exit(&self, id: VeId, pid: u32, exit: Exit) {
        self.exits().insert((id, pid), exit);
        self.ended.notify_all();
    }

    fn note_ready(&self, id: VeId, pid: u32) {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        ready.insert(id, pid);
        drop(ready);
        // Who waits looks at both with this locked, so that nobody sleeps through it.
        drop(self.exits());
        self.ended.notify_all();
    }

    fn is_ready(&self, id: VeId, pid: u32) -> bool {
        let ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        ready.get(&id) == Some(&pid)
    }

    /// Waits until an init is ready; looks at `cancelled` twice a second.
    pub(crate) fn wait_ready(
        &self,
        id: VeId,
        pid: u32,
        patience: Duration,
        cancelled: &dyn Fn() -> bool,
    ) -> Readiness {
        let known = |exits: &Exits| match exits.get(&(id, pid)) {
            Some(exit) => Some(Readiness::Ended(*exit)),
            None => self.is_ready(id, pid).then_some(Readiness::Ready),
        };
        self.wait(patience, cancelled, known)
            .unwrap_or(Readiness::Waiting)
    }

    /// Waits until an answer is known; looks at `cancelled` twice a second.
    fn wait<T>(
        &self,
        patience: Duration,
        cancelled: &dyn Fn() -> bool,
        known: impl Fn(&Exits) -> Option<T>,
    ) -> Option<T> {
        let until = Instant::now() + patience;
        let mut exits = self.exits();
        loop {
            if let Some(answer) = known(&exits) {
                return Some(answer);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || cancelled() {
                return None;
            }
            let wait = left.min(Duration::from_millis(500));
            exits = self
                .ended
                .wait_timeout(exits, wait)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Ends of inits that were not dealt with yet.
    pub(crate) fn exits(&self) -> MutexGuard<'_, Exits> {
        self.exits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the end of an init; looks at `cancelled` twice a second.
    pub(crate) fn wait_exit(
        &self,
        id: VeId,
        pid: u32,
        patience: Duration,
        cancelled: &dyn Fn() -> bool,
    ) -> Option<Exit> {
        self.wait(patience, cancelled, |exits| exits.get(&(id, pid)).copied())
    }

    /// Lets the launcher forget the ends of a VE's inits. Who waits for one here still gets it.
    pub(crate) fn acknowledge(&self, id: VeId) {
        let ended: Vec<_> = self
            .exits()
            .keys()
            .filter(|(ve, _)| *ve == id)
            .copied()
            .collect();
        for (id, pid) in ended {
            // A launcher that is gone has nothing left to forget.
            let _ = self.client().acknowledge(id, pid);
        }
    }

    /// Forgets an end that was dealt with, here and in the launcher.
    pub(crate) fn settle_exit(&self, id: VeId, pid: u32) {
        self.exits().remove(&(id, pid));
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if ready.get(&id) == Some(&pid) {
            ready.remove(&id);
        }
        drop(ready);
        // A launcher that is gone has nothing left to forget.
        let _ = self.client().acknowledge(id, pid);
    }
}
