//! Mechanisms fail: every call of every operation, before it did anything, half-way and when all
//! was done; once, or from then on.

use super::world::{Failing, When};
use super::{RUNNING, SCENARIOS, STOPPED, Scenario, Sim, Views, ask, create, disk, memory, set};
use crate::{FailureKind, VeRequest};
use registry::Stage;
use ve::{Exit, State};

const WHENS: [When; 3] = [When::Before, When::Middle, When::After];

/// What a scenario may lead to when something fails in it: as after, as before, or, where an init
/// ended and the rest failed, stopped.
fn allowed(scenario: &Scenario) -> (Vec<Views>, usize) {
    let sim = scenario.prepare();
    let before = sim.views();
    (scenario.act)(&sim).unwrap();
    let calls = sim.node.fail(Failing::Nothing);
    let mut allowed = vec![sim.views()];
    if scenario.before != STOPPED && scenario.before.is_some() {
        allowed.push(super::stopped(&before));
    }
    if scenario.undoable {
        allowed.push(before);
    }
    (allowed, calls)
}

fn web(views: &Views) -> Option<&super::View> {
    views.values().find(|view| view.spec.name.as_str() == "web")
}

#[test]
fn a_call_that_fails_once_is_undone_at_once() {
    for scenario in &SCENARIOS {
        let (allowed, calls) = allowed(scenario);
        for call in 0..calls {
            for when in WHENS {
                let context = format!("{}, call {call} fails {when:?}", scenario.name);
                let sim = scenario.prepare();
                let memory = sim.memory("web");
                sim.node.fail(Failing::Once(call, when));
                let result = (scenario.act)(&sim);
                sim.node.fail(Failing::Nothing);
                let open = sim.engine.registry().operations_open().unwrap();
                assert!(open.is_empty(), "{context}: {open:?}");
                let views = sim.views();
                if result.is_ok() && scenario.undoable {
                    // A failure that is not reported must not have been one.
                    assert_eq!(web(&views), web(&allowed[0]), "{context}");
                }
                let half = sim.engine.find("web").ok();
                let half = half.filter(|record| record.stage == Stage::Removing);
                match half {
                    Some(record) => {
                        assert!(scenario.name.starts_with("delete"), "{context}");
                        assert_eq!(record.state, State::Broken, "{context}");
                    }
                    None => {
                        sim.check_whole(&context);
                        let legal = allowed.iter().any(|allowed| web(allowed) == web(&views));
                        assert!(legal, "{context}: {:?}\n{result:?}", web(&views));
                    }
                }
                let sim = sim.restarted();
                sim.check_whole(&context);
                if scenario.keeps_processes() && sim.memory("web").is_some() {
                    assert_eq!(sim.memory("web"), memory, "{context}: processes");
                }
                let views = sim.views();
                let legal = allowed.contains(&views);
                assert!(legal, "{context}, restarted: {:?}\n{result:?}", web(&views));
            }
        }
    }
}

#[test]
fn what_cannot_be_undone_is_recorded_and_made_good_later() {
    for scenario in &SCENARIOS {
        let (allowed, calls) = allowed(scenario);
        for call in 0..calls {
            for when in WHENS {
                let context = format!("{}, from call {call} on {when:?}", scenario.name);
                let failed = || {
                    let sim = scenario.prepare();
                    sim.node.fail(Failing::FromThen(call, when));
                    let result = (scenario.act)(&sim);
                    (sim, result)
                };
                let (sim, _) = failed();
                sim.node.fail(Failing::Nothing);
                let sim = sim.restarted();
                sim.check_whole(&context);
                let legal = allowed.contains(&sim.views());
                assert!(legal, "{context}: {:?}", web(&sim.views()));

                // The next operation makes it good, too, with no start of the node between.
                let (sim, _) = failed();
                sim.node.fail(Failing::Nothing);
                sim.node.world().news.clear();
                let record = sim.engine.find("web");
                if record.is_ok_and(|record| record.stage == Stage::Removing) {
                    sim.done(ask("web", VeRequest::Delete { force: true }))
                        .unwrap();
                } else if sim.engine.find("web").is_ok() {
                    sim.hear();
                    sim.done(ask("web", set(&[]))).unwrap();
                }
                // A sandbox that could not be removed is shown, to be deleted.
                for left in sim.engine.list().unwrap() {
                    if left.spec.name.as_str().starts_with("build-") {
                        let delete = VeRequest::Delete { force: true };
                        sim.done(ask(left.spec.name.as_str(), delete)).unwrap();
                    }
                }
                sim.hear();
                sim.check_whole(&context);

                // And a node on which it still fails comes up all the same.
                let (sim, _) = failed();
                let folder = sim.folder.path().to_owned();
                assert!(folder.exists());
                let sim = sim.restarted_failing(call);
                assert!(sim.engine.find("db").is_ok(), "{context}");
            }
        }
    }
}

#[test]
fn a_new_ve_never_sees_the_files_of_an_earlier_one_of_its_number() {
    let sim = Sim::new();
    sim.done(create("old", &[])).unwrap();
    sim.done(ask("old", VeRequest::Start)).unwrap();
    let id = sim.id("old");
    let area = sim.node.world().areas[&id].clone();
    sim.done(ask("old", VeRequest::Delete { force: true }))
        .unwrap();
    sim.node.world().areas.insert(id, area);
    sim.done(create("new", &[])).unwrap();
    assert_eq!(sim.id("new"), id);
    assert!(sim.node.world().areas[&id].files.is_empty());
}

#[test]
fn a_creation_that_cannot_be_undone_is_shown_as_broken_and_retried() {
    let sim = Sim::new();
    sim.node.fail(Failing::FromThen(1, When::After));
    sim.node.hook(Box::new(|_| ()));
    // Making the area fails when it is made, and so does removing it.
    sim.node.fail(Failing::Always("area_remove"));
    let failure = sim.done(create("web", &[disk(20)])).unwrap_err();
    assert_eq!(
        failure.message,
        "VE `web`: area_remove broke (Before); and then: area_remove broke (Before)"
    );
    let record = sim.engine.find("web").unwrap();
    assert_eq!(record.state, State::Broken);
    assert_eq!(
        record.fault.unwrap(),
        "it could not be removed wholly: VE `web`: area_remove broke (Before); and then: \
         area_remove broke (Before)"
    );
    let refused = sim.done(ask("web", VeRequest::Start)).unwrap_err();
    assert_eq!(refused.kind, FailureKind::State);
    assert_eq!(
        refused.message,
        "VE `web`: it is broken, and start needs it to be stopped"
    );
    sim.node.fail(Failing::Nothing);
    let sim = sim.restarted();
    assert!(sim.engine.find("web").is_err());
    sim.check_whole("creation retried");
    sim.done(create("web", &[])).unwrap();
}

#[test]
fn a_removal_that_fails_is_carried_on_at_the_next_start() {
    let sim = Sim::new();
    sim.done(create("web", &[])).unwrap();
    sim.node.fail(Failing::Always("area_remove"));
    let delete = || ask("web", VeRequest::Delete { force: false });
    let failure = sim.done(delete()).unwrap_err();
    assert_eq!(failure.message, "VE `web`: area_remove broke (Before)");
    assert_eq!(sim.engine.find("web").unwrap().state, State::Broken);
    assert_eq!(sim.done(delete()).unwrap_err(), failure);
    let world = sim.node.world().clone();
    let sim = Sim::inline(sim.folder, world);
    sim.node.fail(Failing::Always("area_remove"));
    let findings = sim.engine.recover().unwrap();
    assert_eq!(
        findings,
        ["VE `web` could not be removed wholly: area_remove broke (Before)"]
    );
    sim.node.fail(Failing::Nothing);
    let sim = sim.restarted();
    sim.check_whole("removed at last");
    assert!(sim.engine.find("web").is_err());
}

#[test]
fn a_registry_that_cannot_be_written_loses_no_ve() {
    for scenario in SCENARIOS.iter().filter(|s| s.before.is_some()) {
        let (mut allowed, _) = allowed(scenario);
        if scenario.name == "reboot" {
            allowed.push(super::stopped(&allowed[0]));
        }
        for writes in 0..4 {
            let context = format!("{}, after {writes} writes", scenario.name);
            let sim = scenario.prepare();
            sim.break_registry(writes);
            // What comes of it is not told, or told as a failure; it may not panic or be lost.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (scenario.act)(&sim)));
            sim.mend_registry();
            let id = sim.id("db");
            sim.done(ask("db", set(&[memory(64)]))).unwrap();
            assert!(sim.node.world().inits.contains_key(&id), "{context}");
            let news = std::mem::take(&mut sim.node.world().news);
            assert!(news.is_empty(), "{context}");
            sim.check_whole(&context);
            let legal = allowed
                .iter()
                .any(|allowed| web(allowed) == web(&sim.views()));
            assert!(legal, "{context}: {:?}", web(&sim.views()));
        }
    }
}

#[test]
fn an_init_that_dies_amid_an_operation_leaves_a_whole_ve() {
    for scenario in SCENARIOS.iter().filter(|s| s.before.is_some()) {
        let (_, calls) = allowed(scenario);
        for call in 0..calls {
            for exit in [Exit::Signal(9), Exit::Reboot] {
                let sim = scenario.prepare();
                let id = sim.id("web");
                let (node, engine) = (sim.node.clone(), sim.engine.clone());
                let count = std::sync::atomic::AtomicUsize::new(0);
                sim.node.hook(Box::new(move |_| {
                    if count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == call {
                        node.die(id, exit);
                        // Let go of before the engine looks at the world again.
                        let news = std::mem::take(&mut node.world().news);
                        for (id, pid, exit) in news {
                            engine.exited(id, pid, exit);
                        }
                    }
                }));
                let _ = (scenario.act)(&sim);
                sim.hear();
                let context = format!("{}, init dies at call {call}: {exit}", scenario.name);
                sim.check_whole(&context);
            }
        }
    }
}

#[test]
fn an_autostart_waits_for_nobody_who_ended() {
    let scenario = SCENARIOS.iter().find(|s| s.before == RUNNING).unwrap();
    let sim = scenario.prepare();
    let autostart = ve::Setting::Autostart(ve::Autostart::Order(1));
    sim.done(ask("web", set(&[autostart]))).unwrap();
    sim.node.world().inits.clear();
    sim.node.world().groups.clear();
    sim.node.world().links.clear();
    let sim = sim.restarted();
    // Its end was settled before the first look at what is to be started.
    let engine = &sim.engine;
    engine.autostart(|operation| assert!(engine.ticket(operation).is_none()));
    assert_eq!(sim.engine.find("web").unwrap().state, State::Running);
    assert_eq!(sim.engine.find("db").unwrap().state, State::Stopped);
    sim.check_whole("after a start of the node");
}
