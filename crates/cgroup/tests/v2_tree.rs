//! cgroup2 as far as plain files can stand for it: where things go and what is written. What the
//! kernel makes of it is tested by the other files here when they run on a v2 host.

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use cgroup::{Controller, Home, IoLimits, Layout, LimitKey, Limits, Mode, NodeGroup, Refusal};
    use kernel::proc::parse_mounts;
    use ve::VeId;

    const CONTROLLERS: &str = "cpuset cpu io memory hugetlb pids rdma\n";
    const OWN: &str = "0::/system.slice/vesseld.service\n";

    struct Tree {
        root: tempfile::TempDir,
    }

    impl Tree {
        /// A hierarchy with one group that files may be put in: `base`.
        fn new(base: &str) -> Self {
            let tree = Self {
                root: tempfile::tempdir().unwrap(),
            };
            tree.put("cgroup.controllers", CONTROLLERS);
            tree.put("cgroup.subtree_control", "");
            tree.put(&format!("{base}/cgroup.controllers"), CONTROLLERS);
            tree.put(&format!("{base}/cgroup.subtree_control"), "cpu memory");
            tree.put(&format!("{base}/cgroup.procs"), "");
            tree.put(&format!("{base}/daemon/cgroup.procs"), "");
            tree.put(&format!("{base}/vessel-100/cgroup.subtree_control"), "");
            tree.put(&format!("{base}/vessel-100/cpu.weight"), "100");
            tree
        }

        fn path(&self, below: &str) -> PathBuf {
            self.root.path().join(below)
        }

        fn put(&self, below: &str, text: &str) {
            let path = self.path(below);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }

        fn get(&self, below: &str) -> String {
            std::fs::read_to_string(self.path(below)).unwrap()
        }

        fn layout(&self, own: &str, delegated: &str) -> Layout {
            let delegated = self.path(delegated);
            let root = self.root.path().display();
            let mounts = parse_mounts(&format!("30 1 0:26 / {root} rw - cgroup2 cgroup2 rw\n"));
            Layout::from_parts(&mounts, own, |path: &Path| path == delegated).unwrap()
        }
    }

    fn id(number: u32) -> VeId {
        VeId::new(number).unwrap()
    }

    #[test]
    fn a_delegated_group_is_used_and_left_by_the_daemon() {
        let tree = Tree::new("system.slice/vesseld.service");
        let base = "system.slice/vesseld.service";
        let layout = tree.layout(OWN, base);
        assert_eq!(layout.mode(), Mode::V2);
        assert_eq!(layout.missing(), []);
        assert_eq!(layout.home(Controller::Io), Some(Home::V2));
        let unified = layout.unified().unwrap();
        assert_eq!(unified.base, tree.path(base));
        assert!(unified.delegated && unified.must_move);

        tree.put(&format!("{base}/cgroup.procs"), "4711\n");
        let node = NodeGroup::open(&layout, id(100), None).unwrap();
        assert_eq!(tree.get(&format!("{base}/daemon/cgroup.procs")), "4711");
        // One controller per write; a file keeps the last.
        assert_eq!(tree.get(&format!("{base}/cgroup.subtree_control")), "+pids");
        assert_eq!(
            tree.get(&format!("{base}/vessel-100/cgroup.subtree_control")),
            "+pids"
        );
        assert_eq!(
            tree.get("cgroup.subtree_control"),
            "",
            "the root is not ours"
        );
        drop(node);

        // Started again by systemd with DelegateSubgroup=daemon.
        let again = tree.layout("0::/system.slice/vesseld.service/daemon\n", base);
        let unified = again.unified().unwrap();
        assert_eq!(unified.base, tree.path(base));
        assert!(unified.delegated && !unified.must_move);
    }

    #[test]
    fn without_delegation_the_root_is_used() {
        let tree = Tree::new(".");
        for own in [OWN, "0::/\n", "0::/../x\n", ""] {
            let layout = tree.layout(own, "nowhere");
            let unified = layout.unified().unwrap();
            assert_eq!(unified.base, tree.root.path(), "{own}");
            assert!(!unified.delegated && !unified.must_move);
        }
        NodeGroup::open(&tree.layout(OWN, "nowhere"), id(100), None).unwrap();
        assert_eq!(tree.get("cgroup.subtree_control"), "+pids");
    }

    #[test]
    fn a_ve_that_comes_to_need_memory_is_slowed_and_heard() {
        let tree = Tree::new(".");
        for (name, text) in [
            ("memory.high", "max"),
            ("memory.events", "high 0\nmax 0\n"),
            ("memory.pressure", ""),
            ("memory.current", "1000\n"),
            (
                "memory.stat",
                "anon 300\nactive_file 200\ninactive_file 400\n",
            ),
        ] {
            tree.put(&format!("vessel-100/101/{name}"), text);
        }
        let node = NodeGroup::open(&tree.layout(OWN, "nowhere"), id(100), None).unwrap();
        let group = node.ve(id(101));
        assert_eq!(group.memory_in_use().unwrap(), (400, 1_000));
        for (from, written) in [(Some(900), "900"), (None, "max")] {
            group.slow_memory(from).unwrap();
            assert_eq!(tree.get("vessel-100/101/memory.high"), written);
        }
        let strain = group.memory_strain(&[800]).unwrap();
        assert_eq!(strain.descriptors().count(), 2);
        // A part of a window that the kernel takes from anybody.
        let trigger = tree.get("vessel-100/101/memory.pressure");
        assert_eq!(trigger, "some 200000 2000000");
    }

    #[test]
    fn a_controller_that_the_kernel_lacks_is_named() {
        let tree = Tree::new(".");
        tree.put("cgroup.controllers", "cpu pids\n");
        let layout = tree.layout("0::/\n", "nowhere");
        assert_eq!(
            layout.missing(),
            [Controller::CpuSet, Controller::Memory, Controller::Io]
        );
        tree.put("vessel-100/101/cpu.max", "max 100000");
        tree.put("vessel-100/101/cpu.weight", "100");
        tree.put("vessel-100/101/pids.max", "max");
        let node = NodeGroup::open(&layout, id(100), None).unwrap();
        assert!(node.ve(id(101)).apply(&Limits::default()).is_complete());
        let limits = Limits {
            memory_limit_bytes: Some(1 << 30),
            ..Limits::default()
        };
        let refused = node.ve(id(101)).apply(&limits).refused;
        let [(LimitKey::Memory, Refusal::Unsupported { reason })] = &refused[..] else {
            panic!("{refused:?}")
        };
        assert!(reason.contains("cgroup_disable=memory"), "{reason}");
    }

    #[test]
    fn limits_and_usage_as_cgroup2_writes_them() {
        let tree = Tree::new(".");
        let put = |name: &str, text: &str| tree.put(&format!("vessel-100/101/{name}"), text);
        put("cpu.max", "max 100000");
        put("cpu.max.burst", "0");
        put("cpu.weight", "100");
        put("pids.max", "max");
        put("memory.min", "0");
        put("memory.max", "max");
        put("memory.swap.max", "max");
        put("memory.reclaim", "");
        put("memory.current", "5000000\n");
        put("cpuset.cpus", "");
        put("io.max", "");
        let node = NodeGroup::open(&tree.layout("0::/\n", "nowhere"), id(100), None).unwrap();
        node.count_io_of(7, 3).unwrap();
        let group = node.ve(id(101));
        let limits = Limits {
            cpu_limit_millicores: Some(1_500),
            cpu_burst_millicores: Some(250),
            cpu_weight: Some(300),
            cpu_set: vec![0, 1, 5],
            memory_guarantee_bytes: Some(6_000_000),
            memory_limit_bytes: Some(10_000_000),
            swap_limit_bytes: Some(7),
            processes_limit: Some(9),
            io_weight: None,
            io: IoLimits {
                read_bytes: Some(1_000_000),
                write_operations: Some(200),
                ..IoLimits::default()
            },
        };
        assert!(group.apply(&limits).is_complete());
        let get = |name: &str| tree.get(&format!("vessel-100/101/{name}"));
        assert_eq!(get("cpu.max"), "150000 100000");
        assert_eq!(get("cpu.max.burst"), "25000");
        assert_eq!(get("cpu.weight"), "300");
        assert_eq!(get("cpuset.cpus"), "0,1,5");
        assert_eq!(get("memory.min"), "6000000");
        assert_eq!(get("memory.max"), "10000000");
        assert_eq!(get("memory.swap.max"), "7");
        assert_eq!(get("memory.reclaim"), "", "nothing to take back");
        assert_eq!(get("pids.max"), "9");
        assert_eq!(
            get("io.max"),
            "7:3 rbps=1000000 wbps=max riops=max wiops=200"
        );

        let lower = Limits {
            memory_limit_bytes: Some(3_000_000),
            ..limits
        };
        let refused = group.apply(&lower).refused;
        assert!(matches!(
            refused[..],
            [(LimitKey::Memory, Refusal::MemoryInUse { .. })]
        ));
        assert_eq!(get("memory.reclaim"), "2000000");
        assert_eq!(
            get("memory.max"),
            "10000000",
            "a refused limit stays as it was"
        );
    }

    #[test]
    fn usage_as_cgroup2_writes_it() {
        let tree = Tree::new(".");
        let put = |name: &str, text: &str| tree.put(&format!("vessel-100/101/{name}"), text);
        put("memory.current", "5000000\n");
        let node = NodeGroup::open(&tree.layout("0::/\n", "nowhere"), id(100), None).unwrap();
        let group = node.ve(id(101));
        put(
            "cpu.stat",
            "usage_usec 10\nuser_usec 6\nsystem_usec 4\nnr_periods 3\nnr_throttled 2\n",
        );
        put("memory.stat", "anon 11\nfile 22\nkernel 33\n");
        put("memory.events", "low 0\noom 2\noom_kill 1\n");
        put("memory.swap.current", "44\n");
        put(
            "io.stat",
            "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n",
        );
        put("pids.current", "8\n");
        let usage = group.usage().unwrap();
        assert_eq!(
            (usage.cpu_microseconds, usage.cpu_throttled_periods),
            (10, 2)
        );
        assert_eq!(
            (usage.memory_bytes, usage.memory_cache_bytes),
            (5_000_000, 22)
        );
        assert_eq!((usage.swap_bytes, usage.out_of_memory_kills), (44, 1));
        assert_eq!((usage.io_write_bytes, usage.processes), (2, 8));
    }

    #[test]
    fn hybrid_hosts_and_controllers_that_share_a_hierarchy() {
        let tree = Tree::new(".");
        tree.put("cgroup.controllers", "hugetlb\n");
        let text = format!(
            "32 1 0:29 / /c/cpu,cpuacct rw - cgroup cgroup rw,xattr,cpu,cpuacct\n\
             33 1 0:30 / /c/systemd rw - cgroup systemd rw,xattr,release_agent=/a,name=systemd\n\
             34 1 0:31 /sub /c/bound rw - cgroup cgroup rw,memory\n\
             35 1 0:32 / /c/net rw - cgroup cgroup rw,net_cls,net_prio\n\
             36 1 0:33 / /c/cpuset rw - cgroup cgroup rw,cpuset\n\
             37 1 0:29 / /other/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
             38 1 0:34 / {} rw - cgroup2 cgroup2 rw\n",
            tree.root.path().display()
        );
        let layout = Layout::from_parts(&parse_mounts(&text), "0::/\n", |_| false).unwrap();
        assert_eq!(layout.mode(), Mode::Hybrid);
        let mounts: Vec<_> = layout
            .hierarchies()
            .iter()
            .map(|h| h.mount_point.clone())
            .collect();
        let wanted = ["/c/cpu,cpuacct", "/c/systemd", "/c/cpuset"].map(PathBuf::from);
        assert_eq!(mounts, wanted);
        assert_eq!(layout.home(Controller::CpuAccounting), Some(Home::V1(0)));
        assert_eq!(
            layout.home(Controller::Memory),
            None,
            "a bound part is no hierarchy"
        );
        assert_eq!(layout.home(Controller::Freezer), Some(Home::V2));
    }
}
