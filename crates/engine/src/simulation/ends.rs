//! What VEs do by themselves, and what is told of it.

use policy::{RESTARTS_MAX, RESTARTS_SECONDS};
use ve::{Exit, State};

use super::world::{Failing, When};
use super::{Sim, ask, create};
use crate::VeRequest;

fn running() -> Sim {
    let sim = Sim::new();
    sim.done(create("web", &[])).unwrap();
    sim.done(ask("web", VeRequest::Start)).unwrap();
    sim
}

fn reboots(sim: &Sim) {
    sim.die("web", Exit::Reboot);
    sim.hear();
}

#[test]
fn one_that_restarts_without_end_is_left_stopped_and_can_be_started() {
    let sim = running();
    for _ in 0..RESTARTS_MAX {
        reboots(&sim);
        assert_eq!(sim.engine.find("web").unwrap().state, State::Running);
    }
    reboots(&sim);
    let record = sim.engine.find("web").unwrap();
    assert_eq!(record.state, State::Stopped);
    let fault = record.fault.unwrap();
    assert!(
        fault.starts_with("it asked for a restart 10 times within 60 s"),
        "{fault}"
    );
    let told = sim.events().pop().unwrap();
    assert_eq!(
        (told.kind.as_str(), told.message),
        ("ve-given-up", Some(fault))
    );
    sim.check_whole("given up");

    // Whoever starts it again begins anew.
    sim.done(ask("web", VeRequest::Start)).unwrap();
    assert_eq!(sim.engine.find("web").unwrap().fault, None);
    reboots(&sim);
    assert_eq!(sim.engine.find("web").unwrap().state, State::Running);
    sim.check_whole("started again");
}

#[test]
fn restarts_count_for_a_while_only() {
    let sim = running();
    for _ in 0..RESTARTS_MAX * 3 {
        sim.node.world().seconds += RESTARTS_SECONDS / 10;
        reboots(&sim);
        assert_eq!(sim.engine.find("web").unwrap().state, State::Running);
    }
    // A clock that goes back gives nobody up.
    sim.node.world().seconds = 0;
    reboots(&sim);
    assert_eq!(sim.engine.find("web").unwrap().state, State::Running);
    sim.check_whole("restarts now and then");
}

#[test]
fn a_sleeper_that_is_lost_says_so() {
    let sim = running();
    sim.done(ask("web", VeRequest::Suspend)).unwrap();
    sim.node.fail(Failing::Always("wake"));
    let failure = sim.done(ask("web", VeRequest::Resume)).unwrap_err();
    assert_eq!(failure.message, "VE `web`: wake broke (Before)");
    assert_eq!(sim.engine.find("web").unwrap().state, State::Checkpointed);

    // Clear, groups, wake: behind it, its processes have run.
    sim.node.fail(Failing::Once(2, When::After));
    let failure = sim.done(ask("web", VeRequest::Resume)).unwrap_err();
    let lost = "what was on disk of its processes is of no use any more";
    assert_eq!(
        failure.message,
        format!("VE `web`: wake broke (After); {lost}")
    );
    let record = sim.engine.find("web").unwrap();
    assert_eq!(record.state, State::Stopped);
    assert_eq!(record.fault.as_deref(), Some(lost));
    sim.hear();
    sim.check_whole("lost");
}

#[test]
fn a_sleeper_sleeps_on_when_others_start_with_the_node() {
    let sim = running();
    let autostart = ve::Setting::Autostart(ve::Autostart::Order(1));
    sim.done(ask("web", super::set(&[autostart]))).unwrap();
    sim.done(ask("web", VeRequest::Suspend)).unwrap();
    let memory = sim.memory("web");
    let sim = sim.restarted();
    sim.engine.autostart(|_| panic!("it was woken"));
    assert_eq!(sim.engine.find("web").unwrap().state, State::Checkpointed);
    sim.done(ask("web", VeRequest::Resume)).unwrap();
    assert_eq!(sim.memory("web"), memory);
}

#[test]
fn a_clock_that_goes_back_is_in_nobodys_way() {
    let sim = Sim::new();
    sim.node.world().seconds = 1_000_000;
    sim.done(create("web", &[])).unwrap();
    sim.done(ask("web", VeRequest::Start)).unwrap();
    // Back by days: what happens now seems to happen before the VE was made.
    sim.node.world().seconds = 0;
    reboots(&sim);
    for request in [
        super::set(&[super::memory(64)]),
        VeRequest::Pause,
        VeRequest::Resume,
        VeRequest::Suspend,
    ] {
        sim.done(ask("web", request)).unwrap();
    }
    let memory = sim.memory("web");
    let sim = sim.restarted();
    sim.done(ask("web", VeRequest::Resume)).unwrap();
    assert_eq!(sim.memory("web"), memory);
    sim.check_whole("behind its time");
    // Forth again, and back while the daemon was away.
    sim.node.world().seconds = 2_000_000;
    sim.done(ask("web", VeRequest::Restart(super::PATIENT)))
        .unwrap();
    sim.node.world().seconds = 5;
    let sim = sim.restarted();
    assert_eq!(sim.engine.find("web").unwrap().state, State::Running);
    sim.check_whole("back once more");
    // What happened is told in the order in which it did.
    let kinds: Vec<_> = sim.events().into_iter().map(|event| event.kind).collect();
    let expected = [
        "ve-created",
        "ve-started",
        "ve-rebooted",
        "ve-changed",
        "ve-paused",
        "ve-resumed",
        "ve-suspended",
        "ve-resumed",
        "ve-restarted",
    ];
    assert_eq!(kinds, expected);
    sim.done(ask("web", VeRequest::Delete { force: true }))
        .unwrap();
    sim.check_whole("deleted");
}
