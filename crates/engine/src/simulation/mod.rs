//! The engine over a made-up node, with a real registry: a fault at every call of a mechanism, a
//! death of the daemon at every moment, random histories, and clients that get in each other's way.
//!
//! The daemon dies by being left behind: an image of the node and of the registry's files is taken
//! at the moment of death, and another engine is put on that image.

mod crashes;
mod ends;
mod faults;
mod histories;
mod lanes;
mod promises;
mod scenarios;
mod stacks;
mod updates;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use policy::limits::Machine;
use registry::{Event, FirstBoot, Operation, Registry, Stage};
use tempfile::TempDir;
use ve::{Bytes, Exit, Limits, Name, Options, Setting, Spec, StackReference, State, VeId};

use crate::lanes::{Engine, EngineParts, RunLane};
use crate::{
    BuildWork, CreateRequest, Failure, NodeFacts, Request, StackBuild, StopManner, TemplateRequest,
    VeRequest,
};
use scenarios::{RUNNING, SCENARIOS, STOPPED, Scenario, stopped};
use world::{FakeNode, Image, World};

/// A node with its daemon.
struct Sim {
    engine: Engine,
    node: FakeNode,
    folder: TempDir,
}

/// A VE as its administrator sees it: what must be as before an operation or as after it.
#[derive(Clone, Debug, PartialEq)]
struct View {
    spec: Spec,
    state: State,
    /// Whether its first start is still to come.
    new: bool,
    runs: bool,
    asleep: bool,
    frozen: bool,
    limits: Option<Limits>,
    disk: Option<Bytes>,
    /// Whether its area holds what is not its own, or a part of what is.
    spoilt: bool,
    /// What its package manager made of it.
    packages: Option<String>,
    addresses: BTreeSet<IpAddr>,
}

type Views = BTreeMap<VeId, View>;

fn facts() -> NodeFacts {
    NodeFacts {
        first_id: VeId::new(100).unwrap(),
        last_id: VeId::new(120).unwrap(),
        ranges: vec!["10.0.0.0/24".parse().unwrap()],
        machine: Machine {
            processors: 4,
            open_files: 20_000,
        },
    }
}

fn capacity() -> policy::NodeCapacity {
    policy::NodeCapacity {
        has: policy::Capacity {
            cpu: ve::Cores::from_thousandths(4_000),
            memory: Bytes::from_mebibytes(16_384),
            disk: Bytes::from_mebibytes(65_536),
        },
        resources: ve::NodeResources::default(),
    }
}

/// In memory where there is such a folder: a disk would be asked to sync thousands of times.
fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn create(text: &str, settings: &[Setting]) -> Request {
    Request::Create(CreateRequest {
        name: name(text),
        template: name("debian"),
        revision: None,
        applications: BTreeMap::new(),
        settings: settings.to_vec(),
        labels: BTreeMap::new(),
        first_boot: FirstBoot::default(),
    })
}

/// On a template with applications.
fn create_on(text: &str, stack: &str) -> Request {
    let stack: StackReference = stack.parse().unwrap();
    let applications = stack.applications().cloned();
    Request::Create(CreateRequest {
        name: name(text),
        template: stack.template().clone(),
        revision: stack.revision(),
        applications: applications.map(|name| (name, Options::new())).collect(),
        settings: Vec::new(),
        labels: BTreeMap::new(),
        first_boot: FirstBoot::default(),
    })
}

/// Adds applications to a VE, and takes others away.
fn applications(add: &[&str], remove: &[&str]) -> VeRequest {
    VeRequest::Applications {
        add: add
            .iter()
            .map(|text| (name(text), Options::new()))
            .collect(),
        remove: remove.iter().map(|text| name(text)).collect(),
    }
}

/// Builds the last application of a stack.
fn build(stack: &str) -> Request {
    Request::Template(TemplateRequest::Application(StackBuild {
        stack: stack.parse().unwrap(),
        work: BuildWork::Application {
            recipe: Some(String::new()),
        },
        mirror: None,
    }))
}

/// Makes the next revision of a template.
fn update(template: &str) -> Request {
    let (name, mirror) = (name(template), None);
    Request::Template(TemplateRequest::Update { name, mirror })
}

fn remove(stack: &str) -> Request {
    let name = stack.parse().unwrap();
    Request::Template(TemplateRequest::Remove { name })
}

fn ask(reference: &str, request: VeRequest) -> Request {
    Request::Ve {
        reference: reference.to_owned(),
        request,
    }
}

fn set(settings: &[Setting]) -> VeRequest {
    VeRequest::Set {
        settings: settings.to_vec(),
        labels: BTreeMap::new(),
    }
}

fn memory(mebibytes: u32) -> Setting {
    Setting::MemoryLimit(Some(Bytes::from_mebibytes(mebibytes)))
}

fn disk(mebibytes: u32) -> Setting {
    Setting::DiskLimit(Some(Bytes::from_mebibytes(mebibytes)))
}

fn addresses(texts: &[&str]) -> Setting {
    Setting::Addresses(texts.iter().map(|text| text.parse().unwrap()).collect())
}

/// Ways to write to the registry.
const WRITES: [(&str, &str); 5] = [
    ("operations", "INSERT"),
    ("operations", "UPDATE"),
    ("events", "INSERT"),
    ("ves", "UPDATE"),
    ("ves", "DELETE"),
];

const PATIENT: StopManner = StopManner::Ask {
    timeout: std::time::Duration::from_secs(30),
};

impl Sim {
    /// An empty node.
    fn new() -> Self {
        let sim = Self::inline(scratch(), World::default());
        sim.engine.recover().unwrap();
        sim
    }

    /// A node that is as the image, before its new daemon set anything right.
    fn after_crash(image: &Image) -> Self {
        let folder = scratch();
        let registry = folder.path().join("registry.db");
        std::fs::write(&registry, &image.database).unwrap();
        std::fs::write(world::log_of(&registry), &image.log).unwrap();
        Self::inline(folder, image.world.clone())
    }

    /// The same node with a new daemon: the old one is killed.
    fn restarted(self) -> Self {
        let mut world = self.node.world().clone();
        world.news.clear();
        let Self { engine, folder, .. } = self;
        drop(engine);
        let sim = Self::inline(folder, world);
        sim.engine.recover().unwrap();
        sim
    }

    /// The same, while every call of this number and its like still fails.
    fn restarted_failing(self, call: usize) -> Self {
        let mut world = self.node.world().clone();
        world.news.clear();
        let sim = Self::inline(self.folder, world);
        let when = world::When::Before;
        sim.node.fail(world::Failing::FromThen(call + 1, when));
        sim.engine.recover().unwrap();
        sim
    }

    /// Lets every write of the registry fail once `more` operations and events were written.
    fn break_registry(&self, more: i64) {
        let count = "(SELECT count(*) FROM operations) + (SELECT count(*) FROM events)";
        let connection = self.database();
        let now: i64 = connection
            .query_row(&format!("SELECT {count}"), [], |row| row.get(0))
            .unwrap();
        for (table, verb) in WRITES {
            let trigger = format!(
                "CREATE TRIGGER broken_{table}_{verb} BEFORE {verb} ON {table}
                 WHEN {count} >= {} BEGIN SELECT RAISE(ABORT, 'broken'); END",
                now + more
            );
            connection.execute_batch(&trigger).unwrap();
        }
    }

    fn mend_registry(&self) {
        for (table, verb) in WRITES {
            let trigger = format!("DROP TRIGGER broken_{table}_{verb}");
            self.database().execute_batch(&trigger).unwrap();
        }
    }

    fn database(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.folder.path().join("registry.db")).unwrap()
    }

    fn inline(folder: TempDir, world: World) -> Self {
        Self::with_lanes(folder, world, Box::new(|work| work()))
    }

    fn with_lanes(folder: TempDir, world: World, run_lane: RunLane) -> Self {
        let path: PathBuf = folder.path().join("registry.db");
        let node = FakeNode::new(world, &path);
        let (ticking, publishing) = (node.clone(), node.clone());
        let engine = Engine::new(EngineParts {
            registry: Registry::open(&path).unwrap(),
            mechanisms: Box::new(node.clone()),
            facts: facts(),
            capacity: capacity(),
            clock: Box::new(move || {
                ticking.moment("before the journal is written");
                1_000 + ticking.world().seconds
            }),
            run_lane,
            publish: Box::new(move |_| publishing.moment("when something is told")),
        });
        Self {
            engine,
            node,
            folder,
        }
    }

    /// Asks for something; returns how it ended.
    fn done(&self, request: Request) -> Result<(), Failure> {
        let submitted = self.engine.submit(request)?;
        self.hear();
        let operation = self.operation(submitted.operation);
        match operation.error_code {
            None => Ok(()),
            Some(code) => Err(Failure::from_journal(&code, &operation.message.unwrap())),
        }
    }

    fn operation(&self, number: i64) -> Operation {
        self.engine.registry().operation(number).unwrap().unwrap()
    }

    /// Tells the engine what the launcher has to tell.
    fn hear(&self) {
        loop {
            let news = std::mem::take(&mut self.node.world().news);
            if news.is_empty() {
                return;
            }
            for (id, pid, exit) in news {
                self.engine.exited(id, pid, exit);
            }
        }
    }

    fn id(&self, text: &str) -> VeId {
        self.engine.find(text).unwrap().spec.id
    }

    /// What tells the processes of a VE from others that it had or could have.
    fn memory(&self, text: &str) -> Option<u32> {
        let id = self.engine.find(text).ok()?.spec.id;
        let world = self.node.world();
        let awake = world.inits.get(&id).map(|init| init.memory);
        awake.or_else(|| world.asleep(id))
    }

    fn die(&self, text: &str, exit: Exit) {
        self.node.die(self.id(text), exit);
    }

    fn events(&self) -> Vec<Event> {
        self.engine.registry().events_after(0, 10_000).unwrap()
    }

    fn views(&self) -> Views {
        let records = self.engine.registry().ves().unwrap();
        let world = self.node.world();
        let view = |record: registry::VeRecord| {
            let id = record.spec.id;
            let init = world.inits.get(&id);
            let area = world.areas.get(&id).cloned().unwrap_or_default();
            let view = View {
                state: record.state,
                new: record.first_boot.is_some(),
                runs: init.is_some(),
                asleep: world.asleep(id).is_some(),
                frozen: init.is_some_and(|init| init.frozen),
                limits: world.groups.get(&id).cloned().flatten(),
                disk: area.disk,
                spoilt: area.files.iter().any(|f| f != record.spec.name.as_str()),
                packages: area.packages.clone(),
                addresses: world.links.get(&id).cloned().unwrap_or_default(),
                spec: record.spec,
            };
            (id, view)
        };
        records.into_iter().map(view).collect()
    }

    /// Holds the registry against the world: nothing leaks, and both tell the same.
    fn check_whole(&self, context: &str) {
        let registry = self.engine.registry();
        let open = registry.operations_open().unwrap();
        assert!(open.is_empty(), "{context}: open operations {open:?}");
        let records = registry.ves().unwrap();
        assert_eq!(self.engine.list().unwrap(), records, "{context}: shown");
        let world = self.node.world();
        assert_eq!(world.violations, Vec::<String>::new(), "{context}");
        assert_eq!(world.exits.len(), 0, "{context}: ends of inits are kept");
        let ids: BTreeSet<_> = records.iter().map(|record| record.spec.id).collect();
        let areas: BTreeSet<_> = world.areas.keys().copied().collect();
        assert_eq!(areas, ids, "{context}: areas and records");
        let running: BTreeSet<_> = records.iter().filter(|r| r.run.is_some()).collect_ids();
        let inits: BTreeSet<_> = world.inits.keys().copied().collect();
        assert_eq!(inits, running, "{context}: inits and records");
        let sleeping = records.iter().filter(|r| r.state == State::Checkpointed);
        let sleepers = world.sleepers.keys().copied();
        let sleepers: BTreeSet<_> = sleepers.filter(|id| world.asleep(*id).is_some()).collect();
        assert_eq!(sleepers, sleeping.collect_ids(), "{context}: sleepers");
        assert_eq!(world.dumps.len(), 0, "{context}: suspensions under way");
        let groups: BTreeSet<_> = world.groups.keys().copied().collect();
        assert_eq!(groups, running, "{context}: groups and records");
        let links: BTreeSet<_> = world.links.keys().copied().collect();
        assert_eq!(links, running, "{context}: links and records");
        let claims = records.iter().filter(|record| record.run.is_some());
        let claims = claims.map(|record| (record.spec.id, policy::Claim::of(&record.spec.limits)));
        assert_eq!(
            world.weights,
            policy::cpu_weights(capacity().cpu_for_ves(), &claims.collect()),
            "{context}: weights"
        );
        for number in 100..=120 {
            let id = VeId::new(number).unwrap();
            let held: BTreeSet<_> = registry.addresses_held(id).unwrap().into_iter().collect();
            let record = records.iter().find(|record| record.spec.id == id);
            let own = record.map(|record| record.spec.addresses.iter().copied().collect());
            assert_eq!(
                held,
                own.unwrap_or_default(),
                "{context}: addresses of {id}"
            );
        }
        check_below(&records, &world, context);
        for record in &records {
            let id = record.spec.id;
            let context = format!("{context}: VE {id}");
            assert_eq!(record.stage, Stage::Whole, "{context}");
            assert!(!record.unclean, "{context} is unclean: {:?}", record.fault);
            assert_eq!(world.areas[&id].disk, record.spec.limits.disk, "{context}");
            let Some(run) = &record.run else {
                let settled = [State::Stopped, State::Checkpointed];
                assert!(settled.contains(&record.state), "{context}");
                continue;
            };
            let init = &world.inits[&id];
            let state = if init.frozen {
                State::Paused
            } else {
                State::Running
            };
            assert_eq!(record.state, state, "{context}");
            assert_eq!(init.run, *run, "{context}");
            assert!(record.first_boot.is_none(), "{context} ran");
            assert_eq!(
                world.groups[&id],
                Some(record.spec.limits.clone()),
                "{context}"
            );
            let addresses = record.spec.addresses.iter().copied().collect();
            assert_eq!(world.links[&id], addresses, "{context}");
        }
    }
}

/// Holds what lies below VEs' files against their records.
fn check_below(records: &[registry::VeRecord], world: &World, context: &str) {
    for record in records {
        let id = record.spec.id;
        let area = &world.areas[&id];
        assert_eq!(area.before, None, "{context}: how files of VE {id} were");
        let stack = record.spec.stack().to_string();
        let fits = area.below.as_ref().is_none_or(|below| *below == stack);
        assert!(fits, "{context}: below VE {id} is {:?}", area.below);
    }
}

trait CollectIds {
    fn collect_ids(self) -> BTreeSet<VeId>;
}

impl<'a, I: Iterator<Item = &'a registry::VeRecord>> CollectIds for I {
    fn collect_ids(self) -> BTreeSet<VeId> {
        self.map(|record| record.spec.id).collect()
    }
}
