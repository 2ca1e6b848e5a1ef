//! Clients that ask at once: order, refusals in exact words, cancelling, and lanes that never
//! stay blocked.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use registry::OperationState;
use ve::{Exit, Setting, State};

use super::world::{Failing, World};
use super::{PATIENT, SCENARIOS, Sim, addresses, ask, create, disk, memory, scratch, set};
use crate::lanes::LANE_LENGTH_MAX;
use crate::{Failure, FailureKind, Request, StopManner, Submitted, VeRequest};

type Work = Box<dyn FnOnce() + Send>;

/// Lanes that run when they are told to.
#[derive(Clone, Default)]
struct Held(Arc<Mutex<Vec<Work>>>);

impl Held {
    fn sim(&self) -> Sim {
        let held = Arc::clone(&self.0);
        let run_lane = Box::new(move |work| held.lock().unwrap().push(work));
        let sim = Sim::with_lanes(scratch(), World::default(), run_lane);
        sim.engine.recover().unwrap();
        sim
    }

    fn run(&self) {
        loop {
            let Some(work) = self.0.lock().unwrap().pop() else {
                return;
            };
            work();
        }
    }
}

fn submit(sim: &Sim, request: Request) -> Submitted {
    sim.engine.submit(request).unwrap()
}

fn end_of(sim: &Sim, submitted: &Submitted) -> (OperationState, String) {
    let operation = sim.operation(submitted.operation);
    (operation.state, operation.message.unwrap_or_default())
}

fn refusal(failure: &Failure) -> (FailureKind, &str, &str) {
    let hint = failure.hint.as_deref().unwrap_or_default();
    (failure.kind, &failure.message, hint)
}

#[test]
fn what_is_asked_of_one_ve_is_done_in_order() {
    let held = Held::default();
    let sim = held.sim();
    submit(&sim, create("web", &[]));
    held.run();
    let asked = [
        VeRequest::Start,
        VeRequest::Pause,
        VeRequest::Start,
        VeRequest::Delete { force: false },
        VeRequest::Resume,
        VeRequest::Stop(PATIENT),
        VeRequest::Delete { force: false },
        VeRequest::Start,
        VeRequest::Delete { force: true },
    ];
    let submitted = asked.map(|request| submit(&sim, ask("web", request)));
    held.run();
    let ends = submitted.each_ref().map(|s| end_of(&sim, s));
    let done = (OperationState::Done, String::new());
    let failed = |text: &str| (OperationState::Failed, text.to_owned());
    let gone = "there is no VE `web`\n`vessel list` shows the VEs of this node";
    assert_eq!(
        ends,
        [
            done.clone(),
            done.clone(),
            failed(
                "VE `web`: it is paused, and start needs it to be stopped\n\
                 `vessel restart NAME` starts it anew; `vessel resume NAME` lets a paused one go on"
            ),
            failed(
                "VE `web`: it is paused, and delete needs it to be stopped\n\
                 stop it first: `vessel stop NAME`"
            ),
            done.clone(),
            done.clone(),
            done,
            failed(gone),
            failed(gone),
        ]
    );
    let failure = sim.engine.submit(ask("web", VeRequest::Start)).unwrap_err();
    assert_eq!(
        refusal(&failure),
        (
            FailureKind::NotFound,
            "there is no VE `web`",
            "`vessel list` shows the VEs of this node"
        )
    );
}

#[test]
fn a_request_for_a_deleted_ve_never_reaches_another_of_its_number() {
    let held = Held::default();
    let sim = held.sim();
    submit(&sim, create("old", &[]));
    held.run();
    let id = sim.id("old");
    let delete = submit(&sim, ask("old", VeRequest::Delete { force: false }));
    // The number is free as soon as the deletion is recorded, and somebody takes it before the
    // late requests for the old VE have their turn.
    let late = [
        ask("old", VeRequest::Start),
        ask("old", VeRequest::Delete { force: true }),
    ];
    let late = late.map(|request| submit(&sim, request));
    let (engine, new) = (sim.engine.clone(), Mutex::new(None));
    let new = Arc::new(new);
    let taken = Arc::clone(&new);
    let publish = move || {
        let mut taken = taken.lock().unwrap();
        if taken.is_none() && engine.registry().ve(id).unwrap().is_none() {
            *taken = Some(engine.submit(create("new", &[])).unwrap());
        }
    };
    sim.node.on_moment(Box::new(publish));
    held.run();
    assert_eq!(end_of(&sim, &delete).0, OperationState::Done);
    for late in &late {
        let (state, message) = end_of(&sim, late);
        assert_eq!(state, OperationState::Failed);
        assert_eq!(message.lines().next(), Some("there is no VE `old`"));
    }
    let new = new.lock().unwrap().clone().unwrap();
    assert_eq!(new.ve, Some(id));
    assert_eq!(end_of(&sim, &new).0, OperationState::Done);
    assert!(!sim.node.world().inits.contains_key(&id));
    sim.check_whole("a number used again");
}

#[test]
fn refusals_name_the_thing_the_cause_and_the_next_step() {
    let sim = Sim::new();
    sim.done(create("web", &[addresses(&["10.0.0.50"])]))
        .unwrap();
    let refused = |request| sim.engine.submit(request).unwrap_err();
    let failure = refused(create("web", &[]));
    assert_eq!(
        refusal(&failure),
        (
            FailureKind::Conflict,
            "the name `web` is taken by VE 100",
            "choose another name, or delete that VE first"
        )
    );
    let failure = refused(create("api", &[addresses(&["10.0.0.50"])]));
    let taken = "the address 10.0.0.50 is taken by VE 100";
    let other = "choose another address, or `address=auto` for one that is free";
    assert_eq!(refusal(&failure), (FailureKind::Conflict, taken, other));
    sim.done(create("api", &[])).unwrap();
    let failure = sim
        .done(ask("api", set(&[addresses(&["10.0.0.50"])])))
        .unwrap_err();
    let message = format!("VE `api`: {taken}");
    assert_eq!(
        refusal(&failure),
        (FailureKind::Conflict, message.as_str(), other)
    );

    sim.done(ask("web", set(&[Setting::Protected(true)])))
        .unwrap();
    for force in [false, true] {
        let failure = refused(ask("web", VeRequest::Delete { force }));
        assert_eq!(
            refusal(&failure),
            (
                FailureKind::Permission,
                "VE `web`: it is protected",
                "take the protection away: `vessel set NAME protected=no`"
            )
        );
    }
    let failure = refused(ask("100", VeRequest::Resume));
    assert_eq!(
        refusal(&failure),
        (
            FailureKind::State,
            "VE `web`: it is stopped, and resume needs it to be paused or checkpointed",
            "only a paused or checkpointed VE can be resumed"
        )
    );
    for number in 102..=120 {
        sim.done(create(&format!("ve-{number}"), &[])).unwrap();
    }
    let failure = refused(create("more", &[]));
    assert_eq!(
        refusal(&failure),
        (
            FailureKind::Resources,
            "every number from 100 to 120 has a VE",
            "delete VEs that are not needed any more"
        )
    );
    sim.check_whole("refusals");
}

#[test]
fn a_lane_takes_only_so_much() {
    let held = Held::default();
    let sim = held.sim();
    submit(&sim, create("web", &[]));
    held.run();
    for _ in 0..LANE_LENGTH_MAX - 1 {
        submit(&sim, ask("web", set(&[memory(100)])));
    }
    let failure = sim.engine.submit(ask("web", VeRequest::Start)).unwrap_err();
    assert_eq!(
        refusal(&failure),
        (
            FailureKind::Conflict,
            "VE `web`: 32 operations wait for it already",
            "`vessel operation list` shows them; try again when they are done"
        )
    );
    held.run();
    submit(&sim, ask("web", VeRequest::Start));
    held.run();
    sim.check_whole("a full lane");
}

#[test]
fn a_cancelled_operation_that_waits_never_begins() {
    let held = Held::default();
    let sim = held.sim();
    submit(&sim, create("web", &[]));
    held.run();
    let views = sim.views();
    let asked = [
        ask("web", VeRequest::Start),
        ask("web", set(&[disk(70), Setting::Protected(true)])),
        ask("web", VeRequest::Delete { force: true }),
        create("other", &[]),
    ];
    for request in asked {
        let submitted = submit(&sim, request);
        sim.engine.cancel(submitted.operation).unwrap();
        held.run();
        let (state, message) = end_of(&sim, &submitted);
        assert_eq!(state, OperationState::Cancelled);
        assert!(message.ends_with("`: it was cancelled"), "{message}");
        let again = sim.engine.cancel(submitted.operation).unwrap_err();
        assert_eq!(
            again.message,
            format!("operation {} has ended", submitted.operation)
        );
    }
    assert_eq!(sim.views(), views);
    sim.check_whole("cancelled");
    let failure = sim.engine.cancel(9_999).unwrap_err();
    assert_eq!(failure.message, "there is no operation 9999");
}

#[test]
fn a_cancelled_operation_that_runs_is_undone_or_done() {
    for scenario in SCENARIOS.iter().filter(|scenario| scenario.undoable) {
        let sim = scenario.prepare();
        let before = sim.views();
        (scenario.act)(&sim).unwrap();
        let calls = sim.node.fail(Failing::Nothing);
        let after = sim.views();
        for call in 0..calls {
            let sim = scenario.prepare();
            let engine = sim.engine.clone();
            let count = Mutex::new(0);
            sim.node.hook(Box::new(move |_| {
                let mut count = count.lock().unwrap();
                *count += 1;
                if *count == call + 1 {
                    let open = engine.registry().operations_open().unwrap();
                    // Behind its end it is set right what the operation kept.
                    if let Some(open) = open.last() {
                        engine.cancel(open.id).unwrap();
                    }
                }
            }));
            let context = format!("{}, cancelled at call {call}", scenario.name);
            match (scenario.act)(&sim) {
                Ok(()) => assert_eq!(sim.views(), after, "{context}"),
                Err(failure) => {
                    assert_eq!(failure.kind, FailureKind::Cancelled, "{context}: {failure}");
                    assert_eq!(sim.views(), before, "{context}");
                }
            }
            sim.check_whole(&context);
        }
    }
}

#[test]
fn news_that_comes_before_the_node_is_set_right_waits() {
    let sim = Sim::new();
    sim.done(create("web", &[])).unwrap();
    sim.done(ask("web", VeRequest::Start)).unwrap();
    let (id, pid) = (
        sim.id("web"),
        sim.engine.find("web").unwrap().run.unwrap().pid,
    );
    sim.die("web", Exit::Reboot);
    let world = World {
        news: Vec::new(),
        ..sim.node.world().clone()
    };
    let sim = Sim::inline(sim.folder, world);
    sim.engine.exited(id, pid, Exit::Reboot);
    assert_eq!(sim.node.fail(Failing::Nothing), 0);
    sim.engine.recover().unwrap();
    sim.check_whole("early news");
    assert_eq!(sim.engine.find("web").unwrap().state, State::Running);
    let reboots = sim
        .events()
        .iter()
        .filter(|e| e.kind == "ve-rebooted")
        .count();
    assert_eq!(reboots, 1);
}

#[test]
fn a_lane_that_gets_no_thread_says_so_and_is_free_again() {
    let dropping = Arc::new(Mutex::new(false));
    let no_thread = Arc::clone(&dropping);
    let run_lane = Box::new(move |work: Work| {
        if !*no_thread.lock().unwrap() {
            work();
        }
    });
    let sim = Sim::with_lanes(scratch(), World::default(), run_lane);
    sim.engine.recover().unwrap();
    sim.done(create("web", &[])).unwrap();
    *dropping.lock().unwrap() = true;
    for request in [create("api", &[]), ask("web", VeRequest::Start)] {
        let failure = sim.done(request).unwrap_err();
        assert_eq!(failure.message, "the node has no thread to carry it out");
    }
    *dropping.lock().unwrap() = false;
    sim.done(ask("web", VeRequest::Start)).unwrap();
    sim.done(create("api", &[])).unwrap();
    sim.check_whole("threads are back");
}

#[test]
fn a_mechanism_that_panics_blocks_nobody() {
    let sim = Sim::new();
    sim.done(create("web", &[])).unwrap();
    let panics = Arc::new(Mutex::new(true));
    let once = Arc::clone(&panics);
    sim.node.hook(Box::new(move |method| {
        let panic = method == "launch" && std::mem::take(&mut *once.lock().unwrap());
        assert!(!panic, "a mechanism panics");
    }));
    let submitted = submit(&sim, ask("web", VeRequest::Start));
    assert!(sim.engine.ticket(submitted.operation).is_none());
    sim.done(ask("web", VeRequest::Start)).unwrap();
    sim.check_whole("a panic");
    assert_eq!(end_of(&sim, &submitted).0, OperationState::Failed);
}

#[test]
fn clients_on_threads_get_an_orderly_answer() {
    let run_lane = Box::new(|work: Work| drop(std::thread::spawn(work)));
    let sim = Sim::with_lanes(scratch(), World::default(), run_lane);
    sim.engine.recover().unwrap();
    sim.node
        .hook(Box::new(|_| std::thread::sleep(Duration::from_micros(200))));
    let names = ["a", "b"];
    std::thread::scope(|scope| {
        for client in 0..4_usize {
            let sim = &sim;
            scope.spawn(move || {
                for turn in 0..12_usize {
                    let name = names[(client + turn) % 2];
                    let request = match (client * 5 + turn) % 6 {
                        0 => create(name, &[]),
                        1 => ask(name, VeRequest::Start),
                        2 => ask(name, set(&[memory(100), Setting::AddressAuto])),
                        3 => ask(name, VeRequest::Restart(PATIENT)),
                        4 => ask(name, VeRequest::Stop(StopManner::Kill)),
                        _ => ask(name, VeRequest::Delete { force: true }),
                    };
                    // Whatever the answer: it is the operation's own, and it comes.
                    if let Ok(submitted) = sim.engine.submit(request) {
                        while sim.engine.ticket(submitted.operation).is_some() {
                            std::thread::sleep(Duration::from_micros(100));
                        }
                        let ended = sim.operation(submitted.operation);
                        assert!(ended.ended.is_some(), "{ended:?}");
                    }
                }
            });
        }
    });
    while !sim.node.world().news.is_empty() || sim.engine.inner.is_busy() {
        sim.hear();
        std::thread::sleep(Duration::from_millis(1));
    }
    sim.check_whole("four clients");
}

#[test]
fn a_compaction_gives_back_the_copies_of_a_stopped_ve_and_asks_nothing_of_a_sleeper() {
    let sim = Sim::new();
    sim.done(create("web", &[])).unwrap();
    sim.done(ask("web", VeRequest::Start)).unwrap();
    let copies = |sim: &Sim| sim.node.world().areas[&sim.id("web")].copies;
    sim.done(ask("web", VeRequest::Compact)).unwrap();
    assert_eq!(copies(&sim), 2);
    sim.done(ask("web", VeRequest::Suspend)).unwrap();
    let refused = sim.done(ask("web", VeRequest::Compact)).unwrap_err();
    assert_eq!(refused.kind, FailureKind::State);
    sim.done(ask("web", VeRequest::Stop(StopManner::Kill)))
        .unwrap();
    sim.done(ask("web", VeRequest::Compact)).unwrap();
    assert_eq!(copies(&sim), 0);
    assert!(sim.events().iter().any(|e| e.kind == "ve-compacted"));
    sim.check_whole("compacted");
}
