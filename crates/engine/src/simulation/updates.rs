//! Updates: forward or back, and never in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ve::State;

use super::world::Failing;
use super::{PATIENT, Sim, ask, create, name};
use crate::update::Update;
use crate::updating::{Check, Way};
use crate::{FailureKind, Request, VeRequest};

/// How an update of `web` ends whose check fails.
pub(super) const IN_VAIN: &str = "VE `web`: rolled back: `true` ended with code 1";

/// The update of a VE to the other template, with a check.
pub(super) fn to_2(text: &str) -> Request {
    to(text, "debian@2")
}

fn to(text: &str, template: &str) -> Request {
    let update = Update {
        to: template.parse().unwrap(),
        check: Some(Check {
            command: "true".to_owned(),
            timeout: Duration::from_secs(5),
        }),
        stop_timeout: Duration::from_secs(30),
        start_timeout: Duration::from_secs(30),
    };
    ask(text, VeRequest::Update(update))
}

/// Gives a VE packages of its own.
pub(super) fn install_inside(sim: &Sim, text: &str) {
    let id = sim.id(text);
    if let Some(area) = sim.node.world().areas.get_mut(&id) {
        area.own_packages = true;
    }
}

fn node_with_web() -> Sim {
    let sim = Sim::new();
    sim.done(create("web", &[])).unwrap();
    sim.node.world().templates.0.insert("debian@2".to_owned());
    sim.done(ask("web", VeRequest::Start)).unwrap();
    sim
}

/// The template of `web`, and whether it runs.
fn web(sim: &Sim) -> (String, bool) {
    let record = sim.engine.find("web").unwrap();
    (record.spec.stack().to_string(), record.run.is_some())
}

#[test]
fn moves_a_ve_and_reports_how() {
    let sim = node_with_web();
    let operation = sim.engine.submit(to_2("web")).unwrap().operation;
    sim.hear();
    assert_eq!(web(&sim), ("debian@2".to_owned(), true));
    let report = sim.engine.update_report(operation).unwrap();
    assert_eq!(report.from.to_string(), "debian");
    assert_eq!(report.to.to_string(), "debian@2");
    assert_eq!((report.way, report.rolled_back), (Some(Way::Below), false));
    sim.check_whole("updated");

    // There already.
    let memory = sim.memory("web");
    let operation = sim.engine.submit(to_2("web")).unwrap().operation;
    assert_eq!(sim.engine.update_report(operation).unwrap().way, None);
    assert_eq!(sim.memory("web"), memory, "it was not started again");
    assert!(sim.events().iter().any(|event| event.kind == "ve-updated"));
}

#[test]
fn one_with_packages_of_its_own_is_upgraded_inside_first() {
    let sim = node_with_web();
    install_inside(&sim, "web");
    sim.done(to_2("web")).unwrap();
    let id = sim.id("web");
    assert_eq!(
        sim.node.world().areas[&id].packages.as_deref(),
        Some("debian@2")
    );
    assert_eq!(web(&sim), ("debian@2".to_owned(), true));
    sim.check_whole("upgraded");
}

#[test]
fn a_check_that_fails_brings_everything_back() {
    let sim = node_with_web();
    install_inside(&sim, "web");
    sim.node.world().unhealthy = true;
    let operation = sim.engine.submit(to_2("web")).unwrap().operation;
    sim.hear();
    assert_eq!(sim.operation(operation).message.unwrap(), IN_VAIN);
    assert!(sim.engine.update_report(operation).unwrap().rolled_back);
    assert_eq!(web(&sim), ("debian".to_owned(), true));
    let id = sim.id("web");
    assert_eq!(sim.node.world().areas[&id].packages, None);
    sim.check_whole("rolled back");
}

#[test]
fn what_fails_before_anything_changed_leaves_the_same_processes() {
    for method in ["update_foresee", "end"] {
        let sim = node_with_web();
        let memory = sim.memory("web");
        sim.node.fail(Failing::Always(method));
        sim.done(to_2("web")).unwrap_err();
        sim.node.fail(Failing::Nothing);
        assert_eq!(sim.memory("web"), memory, "{method}");
        sim.check_whole(method);
    }
}

#[test]
fn a_cancelled_update_is_rolled_back() {
    for method in [
        "lower_keep",
        "lower_move",
        "launch",
        "ready_wait",
        "check",
        "files_sync",
    ] {
        let sim = node_with_web();
        let engine = sim.engine.clone();
        let done = Arc::new(AtomicBool::new(false));
        sim.node.hook(Box::new(move |called| {
            if called == method && !done.swap(true, Ordering::SeqCst) {
                let open = engine.registry().operations_open().unwrap();
                for operation in open {
                    engine.cancel(operation.id).unwrap();
                }
            }
        }));
        let result = sim.done(to_2("web"));
        sim.check_whole(method);
        match method {
            // The last step: it is done.
            "files_sync" => result.unwrap(),
            _ => {
                assert_eq!(result.unwrap_err().kind, FailureKind::Cancelled, "{method}");
                assert_eq!(web(&sim), ("debian".to_owned(), true), "{method}");
            }
        }
    }
}

#[test]
fn refuses_what_cannot_be() {
    let sim = node_with_web();
    let failure = sim.done(to("web", "other")).unwrap_err();
    assert_eq!(failure.kind, FailureKind::NotFound, "{failure}");
    sim.done(ask("web", VeRequest::Pause)).unwrap();
    let failure = sim.done(to_2("web")).unwrap_err();
    assert_eq!(
        failure.message,
        "VE `web`: it is paused, and update needs it to be running or stopped"
    );
    sim.done(ask("web", VeRequest::Resume)).unwrap();
    sim.done(ask("web", VeRequest::Stop(PATIENT))).unwrap();
    sim.hear();
    sim.done(to_2("web")).unwrap();
    assert_eq!(web(&sim), ("debian@2".to_owned(), false));
    assert_eq!(sim.engine.find("web").unwrap().state, State::Stopped);
    assert_eq!(
        sim.engine
            .update_foresee(&sim.engine.find("web").unwrap(), &name("other").into())
            .unwrap_err()
            .kind,
        FailureKind::NotFound
    );
    sim.check_whole("updated while stopped");
}
