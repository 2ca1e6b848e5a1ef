//! A VE's group from its making to its end, on the control groups of this host.

#[cfg(test)]
mod common;

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use cgroup::{Entry, KillError, Limits, NodeGroup, OpenError, RemoveError};

    use super::common::*;
    use ve::VeId;

    #[test]
    fn one_range_of_ids_has_one_node() {
        let Some(node) = Node::open(60_000) else {
            return;
        };
        let layout = node.group.layout().clone();
        let error = NodeGroup::open(&layout, id(60_000), None).unwrap_err();
        let OpenError::Held { holder, .. } = &error else {
            panic!("{error}")
        };
        assert!(holder.contains(&std::process::id().to_string()), "{error}");

        let kept = node.group.lock().try_clone_to_owned().unwrap();
        let again = NodeGroup::open(&layout, id(60_000), Some(kept)).unwrap();
        drop(again);

        let other = Node::open(60_001).unwrap();
        let wrong = other.group.lock().try_clone_to_owned().unwrap();
        let error = NodeGroup::open(&layout, id(60_000), Some(wrong)).unwrap_err();
        assert!(matches!(error, OpenError::WrongLock { .. }), "{error}");
    }

    #[test]
    fn a_group_that_the_host_removed_is_made_again() {
        let Some(node) = Node::open(61_900) else {
            return;
        };
        let layout = node.group.layout().clone();
        let kept = node.group.lock().try_clone_to_owned().unwrap();
        // As systemd does it with what is empty, while the launcher keeps the lock.
        node.group.clone().close_and_remove().unwrap();
        let again = NodeGroup::open(&layout, id(61_900), Some(kept)).unwrap();
        let second = NodeGroup::open(&layout, id(61_900), None).unwrap_err();
        assert!(matches!(second, OpenError::Held { .. }), "{second}");
        again.create(id(61_901)).unwrap();
        again.remove(id(61_901)).unwrap();
    }

    #[test]
    fn a_life_leaves_nothing() {
        Node::open(60_100).iter().for_each(life);
    }

    #[test]
    fn a_life_leaves_nothing_on_v1() {
        Node::open_v1(63_100).iter().for_each(life);
    }

    fn life(node: &Node) {
        let ve = id(60_101);
        node.group.remove(ve).unwrap();
        let group = node.group.create(ve).unwrap();
        node.group.create(ve).unwrap();
        assert_eq!(node.group.list().unwrap(), [ve]);

        let process = start(&group, "sleep 100 & sleep 100");
        wait_for("a second process", || group.processes().unwrap().len() >= 2);
        assert!(group.usage().unwrap().processes >= 2);
        if let Some(unified) = group.unified_path() {
            std::fs::create_dir_all(unified.join("system.slice/a.service/b")).unwrap();
        }
        drop(process);
        group.kill_all(5 * SECOND).unwrap();
        assert_eq!(group.processes().unwrap(), []);
        node.group.remove(ve).unwrap();
        node.group.remove(ve).unwrap();
        assert_eq!(node.group.list().unwrap(), []);
        assert!(group.entry().unwrap_err().source.is_missing());
        assert!(group.usage().unwrap_err().source.is_missing());
        group.kill_all(SECOND).unwrap();
    }

    #[test]
    fn a_group_with_processes_is_not_removed() {
        let Some(node) = Node::open(60_200) else {
            return;
        };
        let group = node.group.create(id(60_201)).unwrap();
        let _process = start(&group, "sleep 100");
        let error = node.group.remove(id(60_201)).unwrap_err();
        assert!(matches!(error, RemoveError::Busy { .. }), "{error}");
    }

    #[test]
    fn a_frozen_ve_stands_still_and_can_be_killed() {
        Node::open(60_800).iter().for_each(frozen);
    }

    #[test]
    fn a_frozen_ve_stands_still_and_can_be_killed_on_v1() {
        Node::open_v1(63_800).iter().for_each(frozen);
    }

    fn frozen(node: &Node) {
        let group = node.group.create(id(60_801)).unwrap();
        let _process = start(&group, "while :; do :; done");
        group.freeze(5 * SECOND).unwrap();
        group.freeze(5 * SECOND).unwrap();
        assert!(group.is_frozen().unwrap());
        let before = group.usage().unwrap().cpu_microseconds;
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(group.usage().unwrap().cpu_microseconds, before);
        group.thaw(5 * SECOND).unwrap();
        assert!(!group.is_frozen().unwrap());
        let used = || group.usage().unwrap().cpu_microseconds;
        wait_for("processor time after the thaw", || used() > before);

        group.freeze(5 * SECOND).unwrap();
        group.kill_all(5 * SECOND).unwrap();
        assert_eq!(group.processes().unwrap(), []);
        assert!(
            !group.is_frozen().unwrap(),
            "the next process to enter would stand still"
        );
    }

    #[test]
    fn whatever_a_ve_does_is_motion() {
        Node::open(61_500).iter().for_each(motion);
    }

    #[test]
    fn whatever_a_ve_does_is_motion_on_v1() {
        Node::open_v1(64_500).iter().for_each(motion);
    }

    fn motion(node: &Node) {
        use rustix::process::{Pid, Signal, kill_process};
        let group = node.group.create(id(61_501)).unwrap();
        let process = start(&group, "exec sleep 100");
        let asleep = || {
            let before = group.motion().unwrap();
            std::thread::sleep(Duration::from_millis(100));
            group.motion().unwrap() == before
        };
        wait_for("a process that sleeps", asleep);
        let before = group.motion().unwrap();
        assert!(group.usage().is_ok());
        assert_eq!(group.motion().unwrap(), before, "to look is no motion");
        assert_eq!(group.motion_without_waiting(before).unwrap(), before);
        let usage = group.usage().unwrap();
        let at_rest = group.usage_at_rest(usage).unwrap();
        assert_eq!(at_rest.cpu_microseconds, usage.cpu_microseconds);
        assert!(at_rest.memory_bytes > 0 && at_rest.processes == usage.processes);
        // The least that a process can do.
        let pid = Pid::from_child(&process.0);
        kill_process(pid, Signal::STOP).unwrap();
        wait_for("motion", || group.motion().unwrap() != before);
        assert_ne!(group.motion_without_waiting(before).unwrap(), before);
        drop(process);
        wait_for("the end", || node.group.remove(id(61_501)).is_ok());
        assert!(group.motion().unwrap_err().source.is_missing());
    }

    #[test]
    fn a_fork_bomb_is_frozen_and_killed() {
        Node::open(60_900).iter().for_each(fork_bomb);
    }

    #[test]
    fn a_fork_bomb_is_frozen_and_killed_on_v1() {
        Node::open_v1(63_900).iter().for_each(fork_bomb);
    }

    fn fork_bomb(node: &Node) {
        let group = node.group.create(id(60_901)).unwrap();
        let limits = Limits {
            processes_limit: Some(200),
            ..Limits::default()
        };
        assert!(group.apply(&limits).is_complete());
        // 8 lines that each end a process and begin another, for ever.
        let bomb = "f() { (f &) ; }; for i in 1 2 3 4 5 6 7 8; do f 2>/dev/null & done; sleep 100";
        let _process = start(&group, bomb);
        std::thread::sleep(Duration::from_millis(200));
        group.freeze(5 * SECOND).unwrap();
        group.thaw(5 * SECOND).unwrap();
        match group.kill_all(5 * SECOND) {
            Ok(()) => {}
            Err(error @ KillError::Left { .. }) => panic!("{error}"),
            Err(error) => panic!("{error:?}"),
        }
        assert_eq!(group.processes().unwrap(), []);
    }

    #[test]
    fn costs() {
        // 100, or as many as are asked for: none of these may grow with their number.
        let count = std::env::var("VESSEL_TEST_VES")
            .ok()
            .and_then(|text| text.parse().ok());
        let count: u32 = count.unwrap_or(100);
        let Some(node) = Node::open(62_000) else {
            return;
        };
        let ids: Vec<_> = (62_001..=62_000 + count).map(id).collect();
        let measure = |name: &str, work: &dyn Fn(VeId)| {
            let begin = Instant::now();
            ids.iter().for_each(|ve| work(*ve));
            println!(
                "{name}: {} us per VE",
                begin.elapsed().as_micros() / u128::from(count)
            );
        };
        measure("create", &|ve| drop(node.group.create(ve).unwrap()));
        measure("create again", &|ve| drop(node.group.create(ve).unwrap()));
        let limits = Limits {
            cpu_limit_millicores: Some(1_000),
            memory_limit_bytes: Some(512 << 20),
            processes_limit: Some(1_000),
            ..Limits::default()
        };
        measure("apply", &|ve| {
            assert!(node.group.ve(ve).apply(&limits).is_complete())
        });
        measure("entry", &|ve| drop(node.group.ve(ve).entry().unwrap()));
        measure("usage", &|ve| assert!(node.group.ve(ve).usage().is_ok()));
        measure("motion", &|ve| assert!(node.group.ve(ve).motion().is_ok()));
        measure("freeze, empty", &|ve| {
            node.group.ve(ve).freeze(SECOND).unwrap()
        });
        measure("thaw, empty", &|ve| node.group.ve(ve).thaw(SECOND).unwrap());
        measure("enter from a shell", &|ve| {
            drop(output(&node.group.ve(ve), "exit 0"))
        });
        measure("kill_all, empty", &|ve| {
            node.group.ve(ve).kill_all(SECOND).unwrap()
        });
        measure("remove", &|ve| node.group.remove(ve).unwrap());
        measure("shell alone", &|_| {
            drop(
                run_in(
                    &Entry {
                        v1_tasks: vec![],
                        v2_directory: None,
                    },
                    "exit 0",
                )
                .output(),
            );
        });
    }
}
