//! What is promised is there: whoever asks at once, whatever fails, and after a new daemon.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ve::{NodeSetting, Setting};

use super::world::{Failing, When, World};
use super::{PATIENT, Sim, ask, create, scratch, set};
use crate::{Failure, FailureKind, VeRequest};

fn settings(texts: &[&str]) -> Vec<Setting> {
    Setting::parse_all(texts).unwrap()
}

fn refused(result: Result<(), Failure>) -> String {
    let failure = result.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Resources, "{failure}");
    failure.message
}

/// Two VEs that can run one at a time.
fn two_halves() -> Sim {
    let sim = Sim::new();
    for name in ["a", "b"] {
        let half = settings(&["cpu.guarantee=2", "memory.guarantee=9G"]);
        sim.done(create(name, &half)).unwrap();
    }
    sim
}

#[test]
fn a_start_that_would_break_a_promise_is_refused_with_the_sum() {
    let sim = two_halves();
    sim.done(ask("a", VeRequest::Start)).unwrap();
    let message = refused(sim.done(ask("b", VeRequest::Start)));
    assert!(
        message.contains(
            "VE `b`: cpu.guarantee: 2 processors is asked for, and 1.8 processors is left"
        ),
        "{message}"
    );
    sim.check_whole("refused");
    sim.done(ask("a", VeRequest::Stop(PATIENT))).unwrap();
    sim.done(ask("b", VeRequest::Start)).unwrap();
    refused(sim.done(ask("a", VeRequest::Restart(PATIENT))));
    let sim = sim.restarted();
    refused(sim.done(ask("a", VeRequest::Start)));
    sim.check_whole("restarted");
}

#[test]
fn a_change_that_would_break_a_promise_changes_nothing() {
    let sim = two_halves();
    sim.done(ask("a", VeRequest::Start)).unwrap();
    sim.done(create("c", &[])).unwrap();
    sim.done(ask("c", VeRequest::Start)).unwrap();
    let before = sim.views();
    let change = settings(&["memory.limit=64M", "cpu.guarantee=1.9"]);
    refused(sim.done(ask("c", set(&change))));
    assert_eq!(sim.views(), before);
    let contradicting = settings(&["memory.limit=64M", "memory.guarantee=65M"]);
    let failure = sim.done(ask("c", set(&contradicting))).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Usage, "{failure}");
    assert_eq!(sim.views(), before);
    sim.done(ask("c", set(&settings(&["cpu.guarantee=1.8"]))))
        .unwrap();
    sim.check_whole("changed");
}

#[test]
fn more_than_the_node_has_is_refused_while_the_ve_stands_still() {
    let sim = Sim::new();
    refused(sim.done(create("a", &settings(&["cpu.guarantee=5"]))));
    sim.done(create("a", &[])).unwrap();
    refused(sim.done(ask("a", set(&settings(&["memory.guarantee=17G"])))));
    refused(sim.done(ask("a", set(&settings(&["network.guarantee=1Mbit"])))));
    sim.check_whole("refused");
}

#[test]
fn what_is_promised_to_an_operation_that_fails_is_free_again() {
    let sim = two_halves();
    sim.node.fail(Failing::Always("launch"));
    sim.done(ask("a", VeRequest::Start)).unwrap_err();
    sim.node.fail(Failing::Nothing);
    sim.done(ask("b", VeRequest::Start)).unwrap();
    sim.node.fail(Failing::Once(1, When::After));
    let less = set(&settings(&["cpu.guarantee=0.5"]));
    sim.done(ask("b", less)).unwrap_err();
    sim.node.fail(Failing::Nothing);
    refused(sim.done(ask("a", VeRequest::Start)));
    sim.check_whole("undone");
}

#[test]
fn starts_at_once_never_get_more_than_there_is() {
    for _ in 0..20 {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let run_lane: crate::RunLane = Box::new(move |work| {
            counted.fetch_add(1, Ordering::SeqCst);
            let counted = Arc::clone(&counted);
            std::thread::spawn(move || {
                work();
                counted.fetch_sub(1, Ordering::SeqCst);
            });
        });
        let sim = Sim::with_lanes(scratch(), World::default(), run_lane);
        sim.engine.recover().unwrap();
        let rest = || {
            while count.load(Ordering::SeqCst) > 0 || sim.engine.inner.is_busy() {
                std::thread::yield_now();
            }
        };
        let names = ["a", "b", "c", "d", "e", "f"];
        for name in names {
            sim.engine
                .submit(create(name, &settings(&["cpu.guarantee=1"])))
                .unwrap();
        }
        rest();
        for name in names {
            sim.engine.submit(ask(name, VeRequest::Start)).unwrap();
        }
        rest();
        let running = sim.engine.registry().ves().unwrap();
        let running = running.iter().filter(|record| record.run.is_some()).count();
        assert_eq!(running, 3, "3.8 processors are for sale");
        sim.check_whole("started at once");
    }
}

#[test]
fn a_reserve_cannot_take_what_is_sold() {
    let sim = two_halves();
    sim.done(ask("a", VeRequest::Start)).unwrap();
    let change = |texts: &[&str]| {
        let settings = NodeSetting::parse_all(texts).unwrap();
        let change = |resources: &mut ve::NodeResources| {
            settings.iter().for_each(|setting| resources.apply(setting));
        };
        sim.engine.set_resources(change, |_| Ok(()))
    };
    refused(change(&["cpu.reserve=2.5"]));
    refused(change(&["memory.reserve=8G"]));
    assert_eq!(sim.engine.capacity(), super::capacity());
    change(&["cpu.reserve=2"]).unwrap();
    refused(sim.done(ask("b", VeRequest::Start)));
    let unsaved = sim.engine.set_resources(
        |resources| resources.cpu_reserve = None,
        |_| Err(Failure::new(FailureKind::Failed, "the disk is full")),
    );
    assert_eq!(unsaved.unwrap_err().message, "the disk is full");
    assert_eq!(sim.engine.capacity().cpu_reserve().thousandths(), 2_000);
    // What a VE without a limit may take counts as all that there is.
    refused(change(&[
        "memory.overcommit=1",
        "cpu.overcommit=1",
        "memory.reserve=12G",
    ]));
}
