//! The memory of all VEs together, and holding one of them back.

#[cfg(test)]
mod common;

#[cfg(test)]
mod tests {

    use cgroup::{Controller, Limits, Protection, Refusal, Told};
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::common::*;

    const MEBIBYTE: u64 = 1 << 20;
    /// Holds so many megabytes, of its own and not as page cache.
    fn holds(megabytes: u64) -> String {
        format!("a=$(head -c {megabytes}000000 /dev/zero | tr '\\0' x); sleep 100")
    }

    #[test]
    fn what_is_guaranteed_is_written_where_this_kernel_looks() {
        let Some(node) = Node::open(60_700) else {
            return;
        };
        let group = node.group.create(id(60_701)).unwrap();
        for (bytes, written) in [(Some(64 * MEBIBYTE), "67108864"), (None, "0")] {
            let limits = Limits {
                memory_guarantee_bytes: bytes,
                ..Limits::default()
            };
            let applied = group.apply(&limits);
            assert!(applied.is_complete(), "{:?}", applied.refused);
            let v1 = "memory.soft_limit_in_bytes";
            let found = value(&group, Controller::Memory, v1, "memory.min");
            assert_eq!(found, written);
        }
        let v1 = group.v1_path(Controller::Memory).is_some();
        assert_eq!(node.group.memory_protection() == Protection::Nobody, v1);
    }

    #[test]
    fn ves_together_stay_below_what_there_is_for_them() {
        let Some(node) = Node::open(60_710) else {
            return;
        };
        let groups = [60_711, 60_712].map(|number| node.group.create(id(number)).unwrap());
        node.group.divide_memory(64 * MEBIBYTE, 0).unwrap();
        // Each by itself would fit.
        let _processes = groups.each_ref().map(|group| start(group, &holds(40)));
        let kills = || {
            groups
                .iter()
                .map(|g| g.usage().unwrap().out_of_memory_kills)
                .sum::<u64>()
        };
        wait_for("one to be killed", || kills() > 0);
        assert!(node.group.memory_usage().unwrap() <= 64 * MEBIBYTE);
        // More than fits, in a process that nobody may kill for it: the bound stays.
        let used = node.group.memory_usage().unwrap();
        let refused = node.group.divide_memory(used / 4, 0).unwrap_err();
        assert!(matches!(refused, Refusal::MemoryInUse { .. }), "{refused}");
        node.group.divide_memory(1 << 40, 0).unwrap();
    }

    #[test]
    fn a_ve_is_held_back_and_let_go() {
        let Some(node) = Node::open(60_720) else {
            return;
        };
        let group = node.group.create(id(60_721)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, vec![1; 64 << 20]).unwrap();
        rustix::fs::sync();
        // Its page cache is dropped, not its own memory.
        let script = format!("cat {} > /dev/null; {}", file.display(), holds(8));
        let _process = start(&group, &script);
        wait_for("it to hold its memory", || {
            group.usage().unwrap().memory_anonymous_bytes > 8_000_000
        });
        group.cap_memory(Some(48 * MEBIBYTE)).unwrap();
        assert!(group.memory_usage().unwrap() <= 48 * MEBIBYTE);
        assert!(group.usage().unwrap().memory_anonymous_bytes > 8_000_000);
        let refused = group.cap_memory(Some(4 * MEBIBYTE)).unwrap_err();
        assert!(matches!(refused, Refusal::MemoryInUse { .. }), "{refused}");
        group.cap_memory(None).unwrap();
        assert_eq!(group.usage().unwrap().out_of_memory_kills, 0);
    }

    #[test]
    fn a_ve_that_comes_to_need_memory_is_heard() {
        let Some(node) = Node::open(60_740) else {
            return;
        };
        let group = node.group.create(id(60_741)).unwrap();
        let applied = group.apply(&Limits {
            memory_limit_bytes: Some(32 * MEBIBYTE),
            ..Limits::default()
        });
        assert!(applied.is_complete(), "{:?}", applied.refused);
        group.slow_memory(Some(20 * MEBIBYTE)).unwrap();
        let strain = group.memory_strain(&[16 * MEBIBYTE]).unwrap();
        let told = |milliseconds: i64| -> Vec<Told> {
            let timeout = Timespec {
                tv_sec: milliseconds / 1_000,
                tv_nsec: milliseconds % 1_000 * 1_000_000,
            };
            let descriptors = strain.descriptors();
            let mut events: Vec<_> = descriptors
                .map(|(fd, flags)| PollFd::new(fd, flags))
                .collect();
            poll(&mut events, Some(&timeout)).unwrap();
            let ready = events
                .iter()
                .enumerate()
                .filter(|(_, event)| !event.revents().is_empty());
            ready.filter_map(|(at, _)| strain.take(at)).collect()
        };
        assert!(!told(50).contains(&Told::Use), "told of nothing");
        let _process = start(&group, &holds(24));
        wait_for("it to be heard", || told(1_000).contains(&Told::Use));
        let (in_use, all) = group.memory_in_use().unwrap();
        assert!(in_use > 8 * MEBIBYTE && in_use <= all, "{in_use} of {all}");
        group.slow_memory(None).unwrap();
    }

    #[test]
    fn coming_near_is_told_where_the_kernel_tells() {
        let Some(node) = Node::open(60_730) else {
            return;
        };
        let group = node.group.create(id(60_731)).unwrap();
        let Some(watch) = node.group.memory_watch(&[16 * MEBIBYTE, 1 << 40]).unwrap() else {
            println!("not run: cgroup2 tells nobody");
            return;
        };
        let told = |milliseconds: i64| {
            let timeout = Timespec {
                tv_sec: milliseconds / 1_000,
                tv_nsec: milliseconds % 1_000 * 1_000_000,
            };
            poll(&mut [PollFd::new(&watch, PollFlags::IN)], Some(&timeout)).unwrap() > 0
        };
        assert!(!told(50));
        let _process = start(&group, &holds(24));
        assert!(told(30_000), "nothing was told");
    }
}
