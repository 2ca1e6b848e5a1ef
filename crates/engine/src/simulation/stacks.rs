//! Templates with applications: made once, kept as long as somebody uses them, whole whatever fails.

use std::time::Duration;

use super::world::{Failing, World};
use super::{PATIENT, Sim, applications, ask, build, create_on, remove, scratch};
use crate::{FailureKind, VeRequest};

fn node_with(applications: &[&str]) -> Sim {
    let sim = Sim::new();
    for application in applications {
        sim.done(build(&format!("debian+{application}"))).unwrap();
    }
    sim
}

/// All but the template that is there from the beginning.
fn stacks(sim: &Sim) -> Vec<String> {
    let templates = sim.node.world().templates.clone().0.into_iter();
    templates.filter(|name| name != "debian").collect()
}

#[test]
fn a_stack_of_several_is_made_once_and_goes_with_its_last_ve() {
    let sim = node_with(&["nginx", "redis", "git"]);
    sim.done(create_on("a", "debian+redis+nginx+git")).unwrap();
    let all = [
        "debian+git",
        "debian+git+nginx",
        "debian+git+nginx+redis",
        "debian+nginx",
        "debian+redis",
    ];
    assert_eq!(stacks(&sim), all);
    sim.node.fail(Failing::Always("stack_install"));
    sim.done(create_on("b", "debian+git+nginx+redis")).unwrap();
    sim.done(ask("a", VeRequest::Delete { force: false }))
        .unwrap();
    assert_eq!(stacks(&sim), all);
    sim.done(ask("b", VeRequest::Delete { force: false }))
        .unwrap();
    assert_eq!(stacks(&sim), ["debian+git", "debian+nginx", "debian+redis"]);
    sim.check_whole("when both are deleted");
}

#[test]
fn what_is_not_there_is_refused_with_the_next_step() {
    let sim = node_with(&["nginx"]);
    let failure = sim.done(create_on("a", "debian+nginx+redis")).unwrap_err();
    assert_eq!(failure.kind, FailureKind::NotFound);
    assert_eq!(failure.message, "there is no template `debian+redis`");
    assert_eq!(
        failure.hint.unwrap(),
        "`vessel template build redis --on debian` makes it"
    );
    let failure = sim.done(build("other+nginx")).unwrap_err();
    assert_eq!(failure.message, "there is no template `other`");
    assert_eq!(
        sim.done(build("debian+nginx")).unwrap_err().kind,
        FailureKind::Conflict
    );
}

#[test]
fn what_is_used_is_not_removed() {
    let sim = node_with(&["nginx", "redis"]);
    sim.done(create_on("a", "debian+nginx+redis")).unwrap();
    let used = sim.done(remove("debian+redis")).unwrap_err();
    assert_eq!(used.message, "template `debian+redis` is used by 1 VEs: a");
    sim.done(ask("a", VeRequest::Delete { force: false }))
        .unwrap();
    let used = sim.done(remove("debian")).unwrap_err();
    assert!(
        used.message
            .contains("2 applications: debian+nginx, debian+redis"),
        "{used}"
    );
    sim.done(remove("debian+redis")).unwrap();
    sim.done(remove("debian+nginx")).unwrap();
    sim.done(remove("debian")).unwrap();
}

#[test]
fn applications_come_and_go_while_a_ve_is_stopped() {
    let sim = node_with(&["nginx", "redis"]);
    sim.done(create_on("a", "debian+nginx")).unwrap();
    sim.done(ask("a", VeRequest::Start)).unwrap();
    let failure = sim
        .done(ask("a", applications(&["redis"], &[])))
        .unwrap_err();
    assert_eq!(failure.kind, FailureKind::State);
    sim.done(ask("a", VeRequest::Stop(PATIENT))).unwrap();
    sim.hear();
    sim.done(ask("a", applications(&["redis"], &[]))).unwrap();
    assert_eq!(
        sim.engine.find("a").unwrap().spec.stack().to_string(),
        "debian+nginx+redis"
    );
    sim.done(ask("a", VeRequest::Start)).unwrap();
    sim.done(ask("a", VeRequest::Stop(PATIENT))).unwrap();
    sim.hear();
    let failure = sim.done(ask("a", applications(&[], &["git"]))).unwrap_err();
    assert_eq!(failure.message, "VE `a`: it has no application `git`");
    sim.done(ask("a", applications(&[], &["nginx", "redis"])))
        .unwrap();
    assert_eq!(stacks(&sim), ["debian+nginx", "debian+redis"]);
    sim.check_whole("without");
}

#[test]
fn many_that_want_one_stack_wait_for_one_build() {
    let run_lane = Box::new(|work: Box<dyn FnOnce() + Send>| drop(std::thread::spawn(work)));
    let sim = Sim::with_lanes(scratch(), World::default(), run_lane);
    sim.engine.recover().unwrap();
    let applications = ["debian+nginx", "debian+redis"].map(str::to_owned);
    sim.node.world().templates.0.extend(applications);
    let asked: Vec<_> = (0..8)
        .map(|n| create_on(&format!("web-{n}"), "debian+nginx+redis"))
        .map(|request| sim.engine.submit(request).unwrap().operation)
        .collect();
    for operation in asked {
        while sim.operation(operation).ended.is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(sim.operation(operation).error_code, None);
    }
    let built = sim
        .events()
        .into_iter()
        .filter(|event| event.kind == "stack-made");
    let built: Vec<_> = built.filter_map(|event| event.message).collect();
    assert_eq!(built, ["debian+nginx+redis"]);
    sim.check_whole("with eight");
}
