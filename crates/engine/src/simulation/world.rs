//! A node that is made up: what outlives the daemon, and mechanisms over it that can be told to
//! fail at any call, and of which an image can be taken at any moment.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use registry::Run;
use ve::{Bytes, Exit, Limits, VeId};

use crate::mechanisms::Fault;

mod lower;
mod node;
mod updates;

/// What outlives the daemon.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct World {
    pub(super) areas: BTreeMap<VeId, Area>,
    pub(super) groups: BTreeMap<VeId, Option<Limits>>,
    pub(super) templates: Templates,
    /// Whether the next update of a template finds anything.
    pub(super) packages_are_newer: bool,
    /// Weights of processor time, of VEs that have groups.
    pub(super) weights: BTreeMap<VeId, u32>,
    pub(super) links: BTreeMap<VeId, BTreeSet<IpAddr>>,
    pub(super) inits: BTreeMap<VeId, Init>,
    /// What lies on disk of VEs' processes.
    pub(super) sleepers: BTreeMap<VeId, Sleeper>,
    /// Suspensions under way: they go on when the daemon is gone.
    pub(super) dumps: BTreeMap<VeId, Dump>,
    /// Ends of inits that the launcher keeps until they are dealt with.
    pub(super) exits: BTreeMap<VeId, (Run, Exit)>,
    /// Ends of inits that the daemon has not been told yet.
    pub(super) news: Vec<(VeId, u32, Exit)>,
    pub(super) pids: u32,
    /// Seconds of the node's clock, behind those at which it began.
    pub(super) seconds: u64,
    /// Whether checks in VEs on another revision than the first fail.
    pub(super) unhealthy: bool,
    /// What no engine must ever do, and was done.
    pub(super) violations: Vec<String>,
}

/// Templates, with applications and without: one from the beginning.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Templates(pub(super) BTreeSet<String>);

impl Default for Templates {
    fn default() -> Self {
        Self(BTreeSet::from(["debian".to_owned()]))
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Area {
    pub(super) disk: Option<Bytes>,
    /// The stack that its files are made for, once that is known, and how it was before that changed.
    pub(super) below: Option<String>,
    pub(super) before: Option<(String, Box<Area>)>,
    /// Whether its database of packages is its own, and what its package manager made of it.
    pub(super) own_packages: bool,
    pub(super) packages: Option<String>,
    /// Names of VEs whose inits ran on it.
    pub(super) files: BTreeSet<String>,
    /// Copies in it that are equal to the template's.
    pub(super) copies: u32,
}

/// Processes on disk.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sleeper {
    pub(super) memory: u32,
    /// Whether they were woken: what is on disk is of no use then.
    pub(super) spent: bool,
}

/// How a suspension ends that goes on by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dump {
    Completes,
    Fails,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Init {
    pub(super) run: Run,
    /// What its processes hold: told apart by who launched them, and kept through sleep.
    pub(super) memory: u32,
    pub(super) ready: bool,
    pub(super) frozen: bool,
    /// Whether the launcher knows it: one that an earlier launcher started has to be adopted.
    pub(super) held: bool,
}

/// When a call fails: before it did anything, half-way, or when all was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    Before,
    Middle,
    After,
}

/// Which calls fail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Failing {
    #[default]
    Nothing,
    /// The call with this number.
    Once(usize, When),
    /// This call, and from then on every one of the same method.
    FromThen(usize, When),
    /// Every call of this method.
    Always(&'static str),
}

/// All that is left of a node when its daemon is killed at this moment.
#[derive(Clone, Debug)]
pub(super) struct Image {
    pub(super) label: String,
    pub(super) world: World,
    pub(super) database: Vec<u8>,
    pub(super) log: Vec<u8>,
}

#[derive(Default)]
struct Script {
    failing: Failing,
    broken: Option<&'static str>,
    calls: usize,
    images: Option<Vec<Image>>,
    busy: BTreeSet<VeId>,
}

type Hook = Box<dyn Fn(&'static str) + Send + Sync>;

/// The made-up node. Clones are one.
#[derive(Clone)]
pub(super) struct FakeNode(Arc<Shared>);

struct Shared {
    world: Mutex<World>,
    script: Mutex<Script>,
    registry: PathBuf,
    hook: Mutex<Option<Arc<Hook>>>,
    on_moment: Mutex<Option<Arc<dyn Fn() + Send + Sync>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn log_of(registry: &Path) -> PathBuf {
    registry.with_extension("db-wal")
}

impl FakeNode {
    pub(super) fn new(world: World, registry: &Path) -> Self {
        Self(Arc::new(Shared {
            world: Mutex::new(world),
            script: Mutex::default(),
            registry: registry.to_owned(),
            hook: Mutex::default(),
            on_moment: Mutex::default(),
        }))
    }

    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        locked(&self.0.world)
    }

    /// Sets what fails from here on; returns how many calls there were since the last time.
    pub(super) fn fail(&self, failing: Failing) -> usize {
        let mut script = locked(&self.0.script);
        script.failing = failing;
        script.broken = None;
        std::mem::take(&mut script.calls)
    }

    /// Calls this at the begin of each call of a mechanism.
    pub(super) fn hook(&self, hook: Hook) {
        *locked(&self.0.hook) = Some(Arc::new(hook));
    }

    /// Calls this at every moment.
    pub(super) fn on_moment(&self, on_moment: Box<dyn Fn() + Send + Sync>) {
        *locked(&self.0.on_moment) = Some(Arc::from(on_moment));
    }

    /// Takes an image at every moment from here on.
    pub(super) fn record(&self) {
        locked(&self.0.script).images = Some(Vec::new());
    }

    pub(super) fn images(&self) -> Vec<Image> {
        locked(&self.0.script).images.take().unwrap_or_default()
    }

    /// A moment at which the daemon may die.
    pub(super) fn moment(&self, label: &str) {
        // Taken out meanwhile: what it does has moments, too.
        let on_moment = locked(&self.0.on_moment).take();
        if let Some(on_moment) = on_moment {
            on_moment();
            *locked(&self.0.on_moment) = Some(on_moment);
        }
        let mut script = locked(&self.0.script);
        let calls = script.calls;
        let Some(images) = script.images.as_mut() else {
            return;
        };
        images.push(Image {
            label: format!("{label} (call {calls})"),
            world: World {
                news: Vec::new(),
                ..self.world().clone()
            },
            database: std::fs::read(&self.0.registry).unwrap(),
            log: std::fs::read(log_of(&self.0.registry)).unwrap_or_default(),
        });
    }

    /// The end of an init, by itself or by others.
    pub(super) fn die(&self, id: VeId, exit: Exit) {
        self.world().die(id, exit);
    }

    /// The launcher dies, and another takes its place, which knows nothing.
    pub(super) fn launcher_dies(&self) {
        let mut world = self.world();
        world.exits.clear();
        world.inits.values_mut().for_each(|init| init.held = false);
    }

    /// Begins a call; it may fail before it does anything.
    fn begin(&self, id: Option<VeId>, name: &'static str) -> Result<Call<'_>, Fault> {
        let hook = locked(&self.0.hook).clone();
        if let Some(hook) = hook {
            hook(name);
        }
        self.moment(&format!("before {name}"));
        let mut script = locked(&self.0.script);
        let number = script.calls;
        script.calls += 1;
        let fails = match script.failing {
            Failing::Nothing => None,
            Failing::Once(at, when) => (at == number).then_some(when),
            Failing::FromThen(at, when) => {
                if at == number {
                    script.broken = Some(name);
                }
                (script.broken == Some(name)).then_some(when)
            }
            Failing::Always(method) => (method == name).then_some(When::Before),
        };
        let alone = id.is_none_or(|id| script.busy.insert(id));
        drop(script);
        if let (Some(id), false) = (id, alone) {
            self.world()
                .violations
                .push(format!("two calls at once for VE {id}"));
        }
        let call = Call {
            node: self,
            id,
            name,
            fails,
        };
        call.check(When::Before).map(|()| call)
    }
}

struct Call<'a> {
    node: &'a FakeNode,
    id: Option<VeId>,
    name: &'static str,
    fails: Option<When>,
}

impl Call<'_> {
    fn check(&self, when: When) -> Result<(), Fault> {
        if self.fails == Some(when) {
            return Err(Fault::new(format!("{} broke ({when:?})", self.name)));
        }
        Ok(())
    }

    /// Between two parts of a call.
    fn middle(&self) -> Result<(), Fault> {
        self.node.moment(&format!("amid {}", self.name));
        self.check(When::Middle)
    }

    fn end<T>(self, value: T) -> Result<T, Fault> {
        self.node.moment(&format!("after {}", self.name));
        self.check(When::After)?;
        Ok(value)
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            locked(&self.node.0.script).busy.remove(&id);
        }
    }
}

impl World {
    fn die(&mut self, id: VeId, exit: Exit) {
        if let Some(init) = self.inits.remove(&id)
            && init.held
        {
            self.news.push((id, init.run.pid, exit));
            self.exits.insert(id, (init.run, exit));
        }
    }

    /// The end of a suspension whose last image is written.
    fn fall_asleep(&mut self, id: VeId) {
        if let Some(init) = self.inits.get(&id) {
            let (memory, spent) = (init.memory, false);
            self.sleepers.insert(id, Sleeper { memory, spent });
            self.dumps.remove(&id);
            self.die(id, Exit::Signal(9));
        }
    }

    /// The end of one that failed.
    fn stay_awake(&mut self, id: VeId) {
        self.dumps.remove(&id);
        if let Some(init) = self.inits.get_mut(&id) {
            init.frozen = false;
        }
    }

    /// The processes that are on disk and can be woken.
    pub(super) fn asleep(&self, id: VeId) -> Option<u32> {
        let sleeper = self.sleepers.get(&id).filter(|sleeper| !sleeper.spent);
        sleeper.map(|sleeper| sleeper.memory)
    }

    /// The end of the node: what was not on disk is gone.
    pub(super) fn power_cut(&mut self) {
        self.inits.clear();
        self.exits.clear();
        self.groups.clear();
        self.links.clear();
        self.dumps.clear();
    }

    fn violation(&mut self, text: String) {
        self.violations.push(text);
    }
}
