//! Templates with applications: made once, kept as long as somebody uses them, whole whatever fails.

use std::time::Duration;

use super::world::{Failing, World};
use super::{PATIENT, Sim, applications, ask, build, create, create_on, remove, scratch, update};
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

/// All templates of a node, the one from the beginning included.
fn templates(sim: &Sim) -> Vec<String> {
    sim.node.world().templates.clone().0.into_iter().collect()
}

fn stack_of(sim: &Sim, ve: &str) -> String {
    sim.engine.find(ve).unwrap().spec.stack().to_string()
}

#[test]
fn an_update_makes_the_next_revision_and_new_ves_get_it() {
    let sim = node_with(&["nginx"]);
    sim.done(create("old", &[])).unwrap();
    sim.done(update("debian")).unwrap();
    assert_eq!(templates(&sim), ["debian", "debian+nginx"]);
    sim.node.world().packages_are_newer = true;
    sim.done(update("debian")).unwrap();
    assert_eq!(templates(&sim), ["debian", "debian+nginx", "debian@2"]);
    sim.done(create("new", &[])).unwrap();
    sim.done(create_on("asked", "debian@1")).unwrap();
    assert_eq!(stack_of(&sim, "new"), "debian@2");
    assert_eq!(stack_of(&sim, "asked"), "debian");
    // Its recipe is that of the older revision.
    sim.done(create_on("web", "debian+nginx")).unwrap();
    assert_eq!(stack_of(&sim, "web"), "debian@2+nginx");
    let missing = sim.done(create_on("x", "debian@3")).unwrap_err();
    assert_eq!(missing.message, "there is no template `debian@3`");
    sim.check_whole("with two revisions");
}

#[test]
fn a_revision_goes_with_its_last_ve_unless_it_is_the_newest() {
    let sim = node_with(&["nginx"]);
    sim.node.world().packages_are_newer = true;
    for ve in ["a", "b"] {
        sim.done(create(ve, &[])).unwrap();
    }
    sim.done(update("debian")).unwrap();
    sim.done(update("debian")).unwrap();
    // Nobody ever used the second.
    assert_eq!(templates(&sim), ["debian", "debian+nginx", "debian@3"]);
    let delete = VeRequest::Delete { force: false };
    sim.done(ask("a", delete.clone())).unwrap();
    assert_eq!(templates(&sim).len(), 3);
    sim.done(ask("b", delete)).unwrap();
    assert_eq!(templates(&sim), ["debian+nginx", "debian@3"]);
    sim.done(build("debian@3+nginx")).unwrap();
    assert_eq!(templates(&sim), ["debian@3", "debian@3+nginx"]);
    sim.check_whole("with the newest alone");
}

#[test]
fn an_update_that_fails_leaves_what_was() {
    for step in ["area_create", "launch", "stack_install", "stack_keep"] {
        let sim = node_with(&["nginx"]);
        sim.node.world().packages_are_newer = true;
        sim.node.fail(Failing::Always(step));
        sim.done(update("debian")).unwrap_err();
        sim.node.fail(Failing::Nothing);
        assert!(templates(&sim).contains(&"debian".to_owned()), "{step}");
        sim.check_whole(step);
    }
}

#[test]
fn a_template_goes_with_all_its_revisions_or_by_one_of_them() {
    let sim = node_with(&[]);
    sim.node.world().packages_are_newer = true;
    sim.done(create("a", &[])).unwrap();
    sim.done(update("debian")).unwrap();
    let used = sim.done(remove("debian")).unwrap_err();
    assert_eq!(used.message, "template `debian` is used by 1 VEs: a");
    let used = sim.done(remove("debian@1")).unwrap_err();
    assert_eq!(used.kind, FailureKind::Conflict);
    sim.done(remove("debian@2")).unwrap();
    assert_eq!(templates(&sim), ["debian"]);
    sim.done(update("debian")).unwrap();
    sim.done(ask("a", VeRequest::Delete { force: false }))
        .unwrap();
    assert_eq!(templates(&sim), ["debian@2"]);
    let missing = sim.done(remove("debian@1")).unwrap_err();
    assert_eq!(missing.kind, FailureKind::NotFound);
    sim.done(remove("debian")).unwrap();
    assert_eq!(templates(&sim), Vec::<String>::new());
    assert_eq!(
        sim.done(update("debian")).unwrap_err().kind,
        FailureKind::NotFound
    );
}
