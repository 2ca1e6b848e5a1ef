//! The daemon dies at every moment of every operation, and again while it sets the node right.

use super::world::{Dump, Image};
use super::{RUNNING, SCENARIOS, Scenario, Sim, Views, ask, create, disk, stopped};
use crate::VeRequest;
use std::collections::BTreeSet;

use registry::OperationState;
use ve::VeId;

/// What a scenario may lead to, and every moment on the way.
struct Played {
    allowed: Vec<Views>,
    images: Vec<Image>,
    /// The processes of `web`, if they must be the same ever after.
    memory: Option<u32>,
    /// Whether it is an update, which others may take back and start the VE again.
    updates: bool,
}

fn play(scenario: &Scenario) -> Played {
    let sim = scenario.prepare();
    let before = sim.views();
    let memory = sim.memory("web").filter(|_| scenario.keeps_processes());
    sim.node.record();
    (scenario.act)(&sim).unwrap();
    let mut images = sim.node.images();
    // A suspension goes on without the daemon, and ends well or not.
    for at in (0..images.len()).rev() {
        let mut image = images[at].clone();
        if !image.world.dumps.is_empty() {
            image.label.push_str(", which fails");
            let dumps = image.world.dumps.values_mut();
            dumps.for_each(|dump| *dump = Dump::Fails);
            images.insert(at, image);
        }
    }
    sim.check_whole(scenario.name);
    let mut allowed = vec![sim.views()];
    if scenario.undoable {
        allowed.push(before);
    }
    Played {
        allowed,
        images,
        memory,
        updates: scenario.name.starts_with("update"),
    }
}

/// Sets a node right that is as the image, and checks that it is whole.
fn recover(image: &Image, played: &Played, context: &str) -> Sim {
    let sim = Sim::after_crash(image);
    let before: BTreeSet<_> = sim.node.world().inits.values().map(|i| i.run.pid).collect();
    let open = sim.engine.registry().operations_open().unwrap();
    sim.node.record();
    let findings = sim.engine.recover().unwrap();
    sim.hear();
    let context = format!("{context}, {}", image.label);
    sim.check_whole(&context);
    let views = sim.views();
    let legal = |allowed: &Views| {
        // The VE beside it was never touched; the number of a VE that is gone is free.
        *allowed == views
    };
    assert!(
        played.allowed.iter().any(legal),
        "{context}: neither as before nor as after:\n{:?}\nfound: {findings:?}\nallowed: {:?}",
        web(&views),
        played.allowed.iter().map(web).collect::<Vec<_>>()
    );
    if played.memory.is_some() {
        assert_eq!(sim.memory("web"), played.memory, "{context}: processes");
    }
    let bystander = sim.engine.find("db").unwrap().run.unwrap().pid;
    assert!(
        before.contains(&bystander),
        "{context}: another VE was started again"
    );
    let events = sim.events();
    for operation in open {
        let ended = sim.operation(operation.id);
        assert!(ended.ended.is_some(), "{context}");
        let told = |e: &registry::Event| e.ve == ended.ve && e.subject == ended.subject;
        assert!(
            events.iter().any(told),
            "{context}: no event tells of {ended:?}"
        );
        let own = !played.updates || ended.kind == "update";
        if ended.state == OperationState::Done && own {
            assert_eq!(views, played.allowed[0], "{context}: {ended:?} is not done");
        }
    }
    sim
}

#[test]
fn a_death_of_the_daemon_at_any_moment_leaves_each_ve_as_before_or_as_after() {
    let mut moments = 0;
    for scenario in &SCENARIOS {
        let played = play(scenario);
        moments += played.images.len();
        for image in &played.images {
            let sim = recover(image, &played, scenario.name);
            sim.node.images();
            // Nothing is left to be set right.
            let views = sim.views();
            let sim = sim.restarted();
            assert_eq!(sim.views(), views, "{}, {}", scenario.name, image.label);
        }
    }
    assert!(moments > 200, "only {moments} moments");
}

#[test]
fn a_second_death_while_the_node_is_set_right_changes_nothing() {
    for scenario in &SCENARIOS {
        let played = play(scenario);
        // Every third, since each has as many moments again.
        for image in played.images.iter().step_by(3) {
            let sim = recover(image, &played, scenario.name);
            for again in sim.node.images() {
                let context = format!("{}, {} and then", scenario.name, image.label);
                recover(&again, &played, &context);
            }
        }
    }
}

#[test]
fn a_launcher_that_dies_with_the_daemon_loses_no_process_and_leaves_none() {
    for scenario in &SCENARIOS {
        let mut played = play(scenario);
        if scenario.name == "reboot" {
            // Only the launcher knew what the VE had asked for.
            played.allowed.push(stopped(&played.allowed[0]));
        }
        for image in &played.images {
            let sim = Sim::after_crash(image);
            sim.node.launcher_dies();
            let image = Image {
                label: format!("{} without launcher", image.label),
                world: sim.node.world().clone(),
                ..image.clone()
            };
            recover(&image, &played, scenario.name);
        }
    }
}

#[test]
fn the_end_of_the_node_itself_leaves_no_ve_half_running() {
    for scenario in &SCENARIOS {
        let played = play(scenario);
        for image in &played.images {
            let mut image = image.clone();
            image.world.power_cut();
            let sim = Sim::after_crash(&image);
            let slept = image.world.asleep(VeId::new(101).unwrap());
            sim.engine.recover().unwrap();
            let context = format!("{}, {}", scenario.name, image.label);
            sim.check_whole(&context);
            // Who was on disk is still there, but for one that was being dropped.
            if slept.is_some() && scenario.keeps_processes() {
                assert_eq!(sim.memory("web"), slept, "{context}: processes");
            }
        }
    }
}

fn web(views: &Views) -> Option<&super::View> {
    views.values().find(|view| view.spec.name.as_str() == "web")
}

#[test]
fn a_registry_older_than_what_runs_changes_nothing() {
    let scenario = SCENARIOS.iter().find(|s| s.before == RUNNING).unwrap();
    let sim = scenario.prepare();
    let old = std::fs::read(sim.folder.path().join("registry.db")).unwrap();
    let log = std::fs::read(world_log(&sim)).unwrap();
    sim.done(create("new", &[disk(30)])).unwrap();
    sim.done(ask("new", VeRequest::Start)).unwrap();
    let (id, views) = (sim.id("new"), sim.views());
    let newest = Image {
        label: String::new(),
        world: sim.node.world().clone(),
        database: std::fs::read(sim.folder.path().join("registry.db")).unwrap(),
        log: std::fs::read(world_log(&sim)).unwrap(),
    };
    let older = Image {
        database: old,
        log,
        ..newest.clone()
    };
    let sim = Sim::after_crash(&older);
    let refused = sim.engine.recover().unwrap_err();
    assert!(
        refused
            .message
            .starts_with(&format!("VE {id} runs (its init is process ")),
        "{refused}"
    );
    assert_eq!(*sim.node.world(), older.world);

    // With the newest one it is as if nothing had been.
    let sim = Sim::after_crash(&newest);
    sim.engine.recover().unwrap();
    assert_eq!(sim.views(), views);
    sim.check_whole("the newest registry");

    // Without the VE's processes the node comes up, and gives its number and its files to nobody.
    let sim = Sim::after_crash(&older);
    sim.node.world().inits.remove(&id);
    sim.engine.recover().unwrap();
    assert!(sim.engine.find("new").is_err());
    sim.done(create("other", &[])).unwrap();
    assert_ne!(sim.id("other"), id);
    let area = sim.node.world().areas[&id].clone();
    assert_eq!(area, older.world.areas[&id]);
}

fn world_log(sim: &Sim) -> std::path::PathBuf {
    super::world::log_of(&sim.folder.path().join("registry.db"))
}
