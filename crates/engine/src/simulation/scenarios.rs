//! What can happen to a VE, each as one act: what every test of faults and deaths goes through.

use ve::{Exit, Setting, State};

use super::{PATIENT, Sim, Views, addresses, ask, create, disk, memory, set, updates, world};
use crate::{Failure, StopManner, VeRequest};

/// Something that happens to the VE `web`, which stands beside a VE `db` that runs all the time.
pub(super) struct Scenario {
    pub(super) name: &'static str,
    /// What `web` is before: `None` where there is none.
    pub(super) before: Option<State>,
    pub(super) act: fn(&Sim) -> Result<(), Failure>,
    /// Whether `web` may be as before when it was interrupted. An init that ended is gone.
    pub(super) undoable: bool,
}

impl Scenario {
    /// Whether the processes of `web` are the same behind it.
    pub(super) fn keeps_processes(&self) -> bool {
        let keeps = ["pause", "resume", "suspend", "wake", "set", "compact"];
        keeps.iter().any(|word| self.name.starts_with(word))
    }
}

const fn scenario(
    name: &'static str,
    before: Option<State>,
    act: fn(&Sim) -> Result<(), Failure>,
) -> Scenario {
    Scenario {
        name,
        before,
        act,
        undoable: true,
    }
}

pub(super) const STOPPED: Option<State> = Some(State::Stopped);
pub(super) const RUNNING: Option<State> = Some(State::Running);
const PAUSED: Option<State> = Some(State::Paused);
const ASLEEP: Option<State> = Some(State::Checkpointed);

fn dies(sim: &Sim, exit: Exit) -> Result<(), Failure> {
    sim.die("web", exit);
    sim.hear();
    Ok(())
}

pub(super) const SCENARIOS: [Scenario; 41] = [
    scenario("add an application", STOPPED, |sim| {
        sim.done(ask("web", super::applications(&["nginx"], &[])))
    }),
    scenario("add applications", STOPPED, |sim| {
        sim.done(ask("web", super::applications(&["nginx", "redis"], &[])))
    }),
    scenario("build an application", None, |sim| {
        sim.done(super::build("debian+mail"))
    }),
    scenario("update a template", None, |sim| {
        sim.node.world().packages_are_newer = true;
        sim.done(super::update("debian"))
    }),
    scenario("create with applications", None, |sim| {
        sim.done(super::create_on("web", "debian+nginx+redis"))
    }),
    scenario("create", None, |sim| sim.done(create("web", &[disk(100)]))),
    scenario("start", STOPPED, |sim| {
        sim.done(ask("web", VeRequest::Start))
    }),
    scenario("stop", RUNNING, |sim| {
        sim.done(ask("web", VeRequest::Stop(PATIENT)))
    }),
    scenario("kill", RUNNING, |sim| {
        sim.done(ask("web", VeRequest::Stop(StopManner::Kill)))
    }),
    scenario("stop paused", PAUSED, |sim| {
        sim.done(ask("web", VeRequest::Stop(PATIENT)))
    }),
    scenario("restart", RUNNING, |sim| {
        sim.done(ask("web", VeRequest::Restart(PATIENT)))
    }),
    scenario("restart paused", PAUSED, |sim| {
        sim.done(ask("web", VeRequest::Restart(PATIENT)))
    }),
    scenario("restart stopped", STOPPED, |sim| {
        sim.done(ask("web", VeRequest::Restart(PATIENT)))
    }),
    scenario("pause", RUNNING, |sim| {
        sim.done(ask("web", VeRequest::Pause))
    }),
    scenario("resume", PAUSED, |sim| {
        sim.done(ask("web", VeRequest::Resume))
    }),
    scenario("suspend", RUNNING, |sim| {
        sim.done(ask("web", VeRequest::Suspend))
    }),
    scenario("wake", ASLEEP, |sim| {
        sim.done(ask("web", VeRequest::Resume))
    }),
    scenario("drop", ASLEEP, |sim| {
        sim.done(ask("web", VeRequest::Stop(StopManner::Kill)))
    }),
    scenario("delete asleep", ASLEEP, |sim| {
        sim.done(ask("web", VeRequest::Delete { force: true }))
    }),
    scenario("set limits asleep", ASLEEP, |sim| {
        sim.done(ask("web", set(&[memory(300), disk(300)])))
    }),
    scenario("set addresses asleep", ASLEEP, |sim| {
        sim.done(ask("web", set(&[addresses(&["10.0.0.77"])])))
    }),
    scenario("delete", STOPPED, |sim| {
        sim.done(ask("web", VeRequest::Delete { force: false }))
    }),
    scenario("delete running", RUNNING, |sim| {
        sim.done(ask("web", VeRequest::Delete { force: true }))
    }),
    scenario("delete paused", PAUSED, |sim| {
        sim.done(ask("web", VeRequest::Delete { force: true }))
    }),
    scenario("set limits", RUNNING, |sim| {
        sim.done(ask("web", set(&[memory(300), disk(300)])))
    }),
    scenario("set limits paused", PAUSED, |sim| {
        sim.done(ask("web", set(&[memory(300), disk(300)])))
    }),
    scenario("set limits stopped", STOPPED, |sim| {
        sim.done(ask("web", set(&[memory(300), disk(300)])))
    }),
    scenario("set addresses", RUNNING, |sim| {
        sim.done(ask("web", set(&[addresses(&["10.0.0.77", "10.0.0.78"])])))
    }),
    scenario("set all", RUNNING, |sim| {
        let settings = [
            memory(300),
            Setting::AddressAuto,
            disk(200),
            addresses(&["10.0.0.9"]),
        ];
        sim.done(ask("web", set(&settings)))
    }),
    scenario("compact", STOPPED, |sim| {
        sim.done(ask("web", VeRequest::Compact))
    }),
    scenario("compact running", RUNNING, |sim| {
        sim.done(ask("web", VeRequest::Compact))
    }),
    scenario("compact paused", PAUSED, |sim| {
        sim.done(ask("web", VeRequest::Compact))
    }),
    scenario("set addresses stopped", STOPPED, |sim| {
        sim.done(ask("web", set(&[addresses(&["10.0.0.77"])])))
    }),
    scenario("update", RUNNING, |sim| sim.done(updates::to_2("web"))),
    scenario("update stopped", STOPPED, |sim| {
        sim.done(updates::to_2("web"))
    }),
    scenario("update inside", RUNNING, |sim| {
        updates::install_inside(sim, "web");
        sim.done(updates::to_2("web"))
    }),
    scenario("update inside stopped", STOPPED, |sim| {
        updates::install_inside(sim, "web");
        sim.done(updates::to_2("web"))
    }),
    scenario("update in vain", RUNNING, |sim| {
        sim.node.world().unhealthy = true;
        match sim.done(updates::to_2("web")) {
            Err(failure) if failure.message == updates::IN_VAIN => Ok(()),
            otherwise => otherwise,
        }
    }),
    Scenario {
        undoable: false,
        ..scenario("power off", RUNNING, |sim| dies(sim, Exit::PowerOff))
    },
    Scenario {
        undoable: false,
        ..scenario("power off paused", PAUSED, |sim| dies(sim, Exit::Signal(9)))
    },
    Scenario {
        undoable: false,
        ..scenario("reboot", RUNNING, |sim| dies(sim, Exit::Reboot))
    },
];

impl Scenario {
    pub(super) fn prepare(&self) -> Sim {
        let sim = Sim::new();
        let applications = ["debian+nginx", "debian+redis"].map(str::to_owned);
        sim.node.world().templates.0.extend(applications);

        sim.done(create("db", &[memory(64)])).unwrap();
        sim.done(ask("db", VeRequest::Start)).unwrap();
        if let Some(state) = self.before {
            sim.done(create("web", &[memory(100), disk(100)])).unwrap();
            if state != State::Stopped {
                sim.done(ask("web", VeRequest::Start)).unwrap();
            }
            if state == State::Paused {
                sim.done(ask("web", VeRequest::Pause)).unwrap();
            }
            if state == State::Checkpointed {
                sim.done(ask("web", VeRequest::Suspend)).unwrap();
            }
        }
        if self.name.starts_with("update") {
            // Whoever is made from here on would have this one.
            sim.node.world().templates.0.insert("debian@2".to_owned());
        }
        sim.check_whole(self.name);
        sim.node.fail(world::Failing::Nothing);
        sim
    }
}

/// The same with `web` stopped.
pub(super) fn stopped(views: &Views) -> Views {
    let mut views = views.clone();
    for view in views
        .values_mut()
        .filter(|view| view.spec.name.as_str() == "web")
    {
        view.state = State::Stopped;
        view.runs = false;
        view.asleep = false;
        view.frozen = false;
        view.limits = None;
        view.addresses.clear();
    }
    views
}
