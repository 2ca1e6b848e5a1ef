//! Random histories of three VEs: requests, ends of inits, faults and deaths of the daemon, held
//! against a model that knows no mechanisms.

use std::collections::BTreeMap;

use policy::Action;
use proptest::prelude::*;
use ve::{Bytes, Exit, Setting, State};

use super::world::{Failing, When};
use super::{PATIENT, Sim, Views, ask, create, disk, memory, set};
use crate::{StopManner, VeRequest};

const NAMES: [&str; 3] = ["a", "b", "c"];

#[derive(Clone, Copy, Debug)]
enum Deed {
    Create,
    Start,
    Stop,
    Kill,
    Restart,
    Pause,
    Suspend,
    Resume,
    Compact,
    Delete(bool),
    Set(u32),
    /// So many mebibytes beyond the limit, by itself.
    Grow(u32),
    Protect(bool),
    Dies,
    Reboots,
}

#[derive(Clone, Copy, Debug)]
enum Mishap {
    None,
    /// The daemon dies at some moment of it.
    Death(usize),
    /// A call fails, for good or once.
    Fault(usize, When, bool),
}

/// What the memory of every VE may grow to, in mebibytes.
const CEILING: u32 = 600;

/// A VE as the model has it: state, memory limit and what was given beyond it in mebibytes, protection.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Modelled {
    state: State,
    memory: Option<u32>,
    given: u32,
    protected: bool,
}

type Model = BTreeMap<&'static str, Modelled>;

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        3 => Just(Deed::Create),
        3 => Just(Deed::Start),
        1 => Just(Deed::Stop),
        1 => Just(Deed::Kill),
        1 => Just(Deed::Restart),
        2 => Just(Deed::Pause),
        2 => Just(Deed::Suspend),
        2 => Just(Deed::Resume),
        1 => Just(Deed::Compact),
        1 => any::<bool>().prop_map(Deed::Delete),
        2 => (50_u32..500).prop_map(Deed::Set),
        2 => (0_u32..500).prop_map(Deed::Grow),
        1 => any::<bool>().prop_map(Deed::Protect),
        1 => Just(Deed::Dies),
        1 => Just(Deed::Reboots),
    ]
}

fn mishap() -> impl Strategy<Value = Mishap> {
    let when = prop_oneof![Just(When::Before), Just(When::Middle), Just(When::After)];
    prop_oneof![
        3 => Just(Mishap::None),
        2 => (0_usize..60).prop_map(Mishap::Death),
        1 => (0_usize..6, when, any::<bool>()).prop_map(|(call, when, good)| Mishap::Fault(call, when, good)),
    ]
}

/// What the deed makes of the model; `None` where it has to be refused.
fn expected(model: &Model, name: &'static str, deed: Deed) -> Option<Model> {
    let mut after = model.clone();
    let Some(ve) = model.get(name).copied() else {
        let new = Modelled {
            state: State::Stopped,
            memory: None,
            given: 0,
            protected: false,
        };
        after.insert(name, new);
        return matches!(deed, Deed::Create).then_some(after);
    };
    let action = match deed {
        Deed::Create => return None,
        Deed::Start => Action::Start,
        Deed::Kill if ve.state == State::Checkpointed => Action::Discard,
        Deed::Stop | Deed::Kill => Action::Stop,
        Deed::Restart => Action::Restart,
        Deed::Pause => Action::Pause,
        Deed::Suspend => Action::Suspend,
        Deed::Resume => Action::Resume,
        Deed::Compact => Action::Compact,
        Deed::Delete(force) => Action::Delete { force },
        Deed::Grow(_) if !ve.state.has_processes() => return None,
        Deed::Grow(given) if ve.memory? + given > CEILING => return None,
        Deed::Set(_) | Deed::Protect(_) | Deed::Grow(_) => Action::Set,
        Deed::Dies | Deed::Reboots if !ve.state.has_processes() => return None,
        Deed::Dies | Deed::Reboots => Action::Enter,
    };
    if action != Action::Enter {
        policy::permit(action, ve.state, ve.protected).ok()?;
    }
    let slot = after.get_mut(name)?;
    match deed {
        Deed::Start | Deed::Restart | Deed::Resume | Deed::Reboots => slot.state = State::Running,
        Deed::Stop | Deed::Kill | Deed::Dies => slot.state = State::Stopped,
        Deed::Pause => slot.state = State::Paused,
        Deed::Suspend => slot.state = State::Checkpointed,
        Deed::Set(mebibytes) => {
            let before = slot.memory.unwrap_or(CEILING);
            let kept = (before + slot.given).saturating_sub(mebibytes);
            slot.given = if mebibytes < before || slot.given == 0 {
                0
            } else {
                kept
            };
            slot.memory = Some(mebibytes);
        }
        Deed::Grow(given) => slot.given = given,
        Deed::Protect(protected) => slot.protected = protected,
        Deed::Delete(_) => drop(after.remove(name)),
        Deed::Create | Deed::Compact => {}
    }
    let ends = matches!(slot_state(&after, name), Some(State::Stopped));
    if let (Some(ve), true) = (
        after.get_mut(name),
        ends || matches!(deed, Deed::Restart | Deed::Reboots),
    ) {
        ve.given = 0;
    }
    Some(after)
}

fn slot_state(model: &Model, name: &str) -> Option<State> {
    Some(model.get(name)?.state)
}

fn modelled(views: &Views) -> Model {
    let one = |view: &super::View| {
        let name = NAMES.into_iter().find(|n| *n == view.spec.name.as_str());
        let memory = view.spec.limits.memory.map(|bytes| bytes.get() >> 20);
        let given = view.spec.limits.memory_growth.given;
        let given = given.map_or(0, |bytes| u32::try_from(bytes.get() >> 20).unwrap());
        let ve = Modelled {
            given,
            state: view.state,
            memory: memory.map(|mebibytes| u32::try_from(mebibytes).unwrap()),
            protected: view.spec.protected,
        };
        (name.unwrap(), ve)
    };
    views.values().map(one).collect()
}

fn act(sim: &Sim, name: &str, deed: Deed) -> bool {
    let request = match deed {
        Deed::Create => return sim.done(create(name, &[])).is_ok(),
        Deed::Start => VeRequest::Start,
        Deed::Stop => VeRequest::Stop(PATIENT),
        Deed::Kill => VeRequest::Stop(StopManner::Kill),
        Deed::Restart => VeRequest::Restart(PATIENT),
        Deed::Pause => VeRequest::Pause,
        Deed::Suspend => VeRequest::Suspend,
        Deed::Resume => VeRequest::Resume,
        Deed::Compact => VeRequest::Compact,
        Deed::Delete(force) => VeRequest::Delete { force },
        Deed::Set(mebibytes) => set(&[
            memory(mebibytes),
            Setting::MemoryGrowCeiling(Some(Bytes::from_mebibytes(CEILING))),
            disk(mebibytes),
            Setting::AddressAuto,
        ]),
        Deed::Grow(mebibytes) => VeRequest::Grow {
            given: Bytes::from_mebibytes(mebibytes),
            cause: "it needs it".to_owned(),
        },
        Deed::Protect(protected) => set(&[Setting::Protected(protected)]),
        Deed::Dies | Deed::Reboots => {
            let Ok(record) = sim.engine.find(name) else {
                return false;
            };
            let exit = match deed {
                Deed::Reboots => Exit::Reboot,
                _ => Exit::Code(1),
            };
            sim.node.die(record.spec.id, exit);
            sim.hear();
            return record.run.is_some();
        }
    };
    sim.done(ask(name, request)).is_ok()
}

/// A step, and whether the processes are the same behind it where they must be.
fn step(sim: Sim, name: &'static str, deed: Deed, mishap: Mishap) -> Sim {
    let memory = sim.memory(name);
    let sim = step_with(sim, name, deed, mishap);
    let keeps = !matches!(deed, Deed::Start | Deed::Restart | Deed::Reboots);
    if let (true, Some(now)) = (keeps, sim.memory(name)) {
        assert_eq!(Some(now), memory, "{deed:?} of {name} with {mishap:?}");
    }
    sim
}

fn step_with(sim: Sim, name: &'static str, deed: Deed, mishap: Mishap) -> Sim {
    let before = modelled(&sim.views());
    let after = expected(&before, name, deed);
    let context = format!("{deed:?} of {name} with {mishap:?} on {before:?}");
    match mishap {
        Mishap::None => {
            let granted = act(&sim, name, deed);
            assert_eq!(granted, after.is_some(), "{context}");
            assert_eq!(modelled(&sim.views()), after.unwrap_or(before), "{context}");
            sim.check_whole(&context);
            sim
        }
        Mishap::Death(moment) => {
            sim.node.record();
            act(&sim, name, deed);
            let images = sim.node.images();
            let Some(image) = images.get(moment % images.len().max(1)) else {
                return sim;
            };
            let sim = Sim::after_crash(image);
            sim.engine.recover().unwrap();
            sim.hear();
            sim.check_whole(&context);
            let now = modelled(&sim.views());
            assert!(
                now == before || Some(&now) == after.as_ref(),
                "{context}: {now:?}"
            );
            sim
        }
        Mishap::Fault(call, when, for_good) => {
            sim.node.fail(if for_good {
                Failing::FromThen(call, when)
            } else {
                Failing::Once(call, when)
            });
            act(&sim, name, deed);
            sim.node.fail(Failing::Nothing);
            let sim = sim.restarted();
            sim.check_whole(&context);
            let now = modelled(&sim.views());
            // An init that ended cannot be revived.
            let mut stopped = before.clone();
            if let Some(ve) = stopped.get_mut(name) {
                ve.state = State::Stopped;
                ve.given = 0;
            }
            let legal = now == before || now == stopped || Some(&now) == after.as_ref();
            assert!(legal, "{context}: {now:?}");
            sim
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 60,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    #[test]
    fn every_history_leaves_what_the_model_says(
        steps in proptest::collection::vec((0..NAMES.len(), deed(), mishap()), 1..40)
    ) {
        let mut sim = Sim::new();
        for (ve, deed, mishap) in steps {
            sim = step(sim, NAMES[ve], deed, mishap);
        }
        let views = sim.views();
        let sim = sim.restarted();
        prop_assert_eq!(sim.views(), views);
        let times = sim.events();
        prop_assert!(times.windows(2).all(|pair| pair[0].id < pair[1].id));
    }
}
