//! Limits that bind and can be changed, on the control groups of this host.

#[cfg(test)]
mod common;

#[cfg(test)]
mod tests {

    use cgroup::{Controller, LimitKey, Limits, Refusal};

    use super::common::*;

    #[test]
    fn limits_are_written_and_taken_back() {
        let Some(node) = Node::open(60_300) else {
            return;
        };
        let group = node.group.create(id(60_301)).unwrap();
        let limits = Limits {
            cpu_limit_millicores: Some(500),
            cpu_weight: Some(200),
            memory_limit_bytes: Some(64 << 20),
            swap_limit_bytes: Some(32 << 20),
            processes_limit: Some(50),
            ..Limits::default()
        };
        for _ in 0..2 {
            let applied = group.apply(&limits);
            assert!(applied.is_complete(), "{:?}", applied.refused);
        }
        assert_eq!(
            value(&group, Controller::Processes, "pids.max", "pids.max"),
            "50"
        );
        let cpu = value(&group, Controller::Cpu, "cpu.cfs_quota_us", "cpu.max");
        assert!(cpu.starts_with("50000"), "{cpu}");
        let share = value(&group, Controller::Cpu, "cpu.shares", "cpu.weight");
        assert!(share == "2048" || share == "200", "{share}");
        let memory = value(
            &group,
            Controller::Memory,
            "memory.limit_in_bytes",
            "memory.max",
        );
        assert_eq!(memory, (64 << 20).to_string());
        if group.v1_path(Controller::Memory).is_some() {
            let both = value(
                &group,
                Controller::Memory,
                "memory.memsw.limit_in_bytes",
                "",
            );
            assert_eq!(both, (96 << 20).to_string());
        }
    }

    #[test]
    fn limits_go_up_and_down_and_off_again() {
        let Some(node) = Node::open(60_350) else {
            return;
        };
        let group = node.group.create(id(60_351)).unwrap();
        // In every order of memory and swap.
        for (memory, swap) in [(200, Some(0)), (16, Some(400)), (500, None), (8, Some(8))] {
            let limits = Limits {
                memory_limit_bytes: Some(memory << 20),
                swap_limit_bytes: swap.map(|swap: u64| swap << 20),
                ..Limits::default()
            };
            let applied = group.apply(&limits);
            assert!(
                applied.is_complete(),
                "{memory} {swap:?} {:?}",
                applied.refused
            );
            let now = value(
                &group,
                Controller::Memory,
                "memory.limit_in_bytes",
                "memory.max",
            );
            assert_eq!(now, (memory << 20).to_string());
        }
        assert!(group.apply(&Limits::default()).is_complete());
        assert_eq!(
            value(&group, Controller::Processes, "pids.max", "pids.max"),
            cgroup::processes_default().to_string()
        );

        let wrong = Limits {
            cpu_limit_millicores: Some(1),
            ..Limits::default()
        };
        let refused = group.apply(&wrong).refused;
        assert!(matches!(
            refused[..],
            [(LimitKey::CpuLimit, Refusal::Invalid { .. })]
        ));
    }

    #[test]
    fn a_memory_limit_below_what_is_in_use_is_refused_and_kills_nobody() {
        let Some(node) = Node::open(60_400) else {
            return;
        };
        let group = node.group.create(id(60_401)).unwrap();
        let mut process = start(
            &group,
            "a=$(head -c 50000000 /dev/zero | tr '\\0' x); sleep 100",
        );
        wait_for("the memory to be used", || {
            group.memory_usage().unwrap() >= 45_000_000
        });
        let limits = Limits {
            memory_limit_bytes: Some(8 << 20),
            swap_limit_bytes: Some(0),
            ..Limits::default()
        };
        let mut refused = group.apply(&limits).refused;
        let (key, refusal) = refused.remove(0);
        assert_eq!(key, LimitKey::Memory);
        let Refusal::MemoryInUse { in_use_bytes, .. } = refusal else {
            panic!("{refusal}")
        };
        assert!(in_use_bytes > 40_000_000, "{in_use_bytes}");
        assert!(
            process.0.try_wait().unwrap().is_none(),
            "the process was killed"
        );
        assert!(
            group
                .apply(&Limits {
                    memory_limit_bytes: Some(1 << 30),
                    ..limits
                })
                .is_complete()
        );
    }

    #[test]
    fn memory_beyond_the_limit_kills_in_the_ve_and_is_counted() {
        let Some(node) = Node::open(60_500) else {
            return;
        };
        let group = node.group.create(id(60_501)).unwrap();
        let limits = Limits {
            memory_limit_bytes: Some(16 << 20),
            swap_limit_bytes: Some(0),
            ..Limits::default()
        };
        assert!(group.apply(&limits).is_complete());
        output(
            &group,
            "a=$(head -c 80000000 /dev/zero | tr '\\0' x); echo alive",
        );
        let usage = group.usage().unwrap();
        assert!(usage.out_of_memory_kills >= 1, "{usage:?}");
        assert!(usage.memory_bytes <= 16 << 20, "{usage:?}");
    }

    #[test]
    fn processor_time_is_limited_and_counted() {
        let Some(node) = Node::open(60_600) else {
            return;
        };
        let group = node.group.create(id(60_601)).unwrap();
        let limits = Limits {
            cpu_limit_millicores: Some(100),
            ..Limits::default()
        };
        assert!(group.apply(&limits).is_complete());
        let _process = start(&group, "while :; do :; done");
        let before = group.usage().unwrap();
        std::thread::sleep(SECOND);
        let after = group.usage().unwrap();
        let used = after.cpu_microseconds - before.cpu_microseconds;
        assert!((10_000..300_000).contains(&used), "{used} us of 100,000");
        assert!(after.cpu_throttled_periods > 0 && after.cpu_throttled_microseconds > 0);
        assert!(after.cpu_user_microseconds > 0);
    }

    #[test]
    fn processes_are_limited() {
        let Some(node) = Node::open(60_700) else {
            return;
        };
        for (number, limit, succeeds) in [(60_701, 50, true), (60_702, 5, false)] {
            let group = node.group.create(id(number)).unwrap();
            let limits = Limits {
                processes_limit: Some(limit),
                ..Limits::default()
            };
            assert!(group.apply(&limits).is_complete());
            // A shell gives up when it cannot fork.
            let script = "for i in 1 2 3 4 5 6 7 8; do sleep 100 & done 2>/dev/null; exit 0";
            let entry = group.entry().unwrap();
            let status = run_in(&entry, script)
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .status()
                .unwrap();
            assert_eq!(status.success(), succeeds, "{limit}");
            assert!(group.usage().unwrap().processes <= u64::from(limit));
        }
    }

    #[test]
    fn a_mask_moves_what_runs_already() {
        let Some(node) = Node::open(61_000) else {
            return;
        };
        let group = node.group.create(id(61_001)).unwrap();
        let process = start(&group, "sleep 100 & exec sleep 100");
        let allowed = |pid: u32| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let line = status
                .lines()
                .find_map(|l| l.strip_prefix("Cpus_allowed_list:"));
            line.unwrap().trim().to_owned()
        };
        let all = allowed(process.0.id());
        assert!(
            group
                .v1_path(Controller::CpuSet)
                .is_none_or(|path| !path.exists())
        );
        let applied = group.apply(&Limits {
            cpu_set: vec![0],
            ..Limits::default()
        });
        assert!(applied.is_complete(), "{:?}", applied.refused);
        for pid in group.processes().unwrap() {
            assert_eq!(allowed(pid), "0");
        }
        let inside = output(&group, "grep Cpus_allowed_list /proc/self/status");
        assert!(inside.trim().ends_with("\t0"), "{inside}");
        let applied = group.apply(&Limits::default());
        assert!(applied.is_complete(), "{:?}", applied.refused);
        assert_eq!(allowed(process.0.id()), all);
        let wrong = group.apply(&Limits {
            cpu_set: vec![8_000],
            ..Limits::default()
        });
        assert!(matches!(wrong.refused[..], [(LimitKey::CpuSet, _)]));
    }

    #[test]
    fn input_and_output_are_counted() {
        let Some(node) = Node::open(61_400) else {
            return;
        };
        let file = tempfile::NamedTempFile::new_in("/var/tmp").unwrap();
        let device = rustix::fs::fstat(&file).unwrap().st_dev;
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        if let Err(error) = node.group.count_io_of(major, minor) {
            println!("not run: /var/tmp lies on no block device: {error}");
            return;
        }
        let group = node.group.create(id(61_401)).unwrap();
        let path = file.path().display();
        output(
            &group,
            &format!("dd if=/dev/zero of={path} bs=64k count=16 oflag=direct 2>/dev/null"),
        );
        let usage = group.usage().unwrap();
        assert!(usage.io_write_bytes >= 1 << 20, "{usage:?}");
        assert!(usage.io_write_operations > 0, "{usage:?}");
    }
}
