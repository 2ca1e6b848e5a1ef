//! Values that are the same in every run.

use std::collections::BTreeMap;

use api::latest::{
    Capacity, Diagnosis, DoctorReport, DoctorRow, Isolation, IsolationEntry, IsolationVerdict,
    IsolationWall, Limits, NodeStatus, Overcommit, Package, PoolKind, PoolStatus, Reserve, Sold,
    Stats, Template, TemplateDetails, TemplateKind, Timestamp, Usage, Ve, VeDetails, VeState,
};

pub fn moment() -> Timestamp {
    "2026-11-21T10:33:14.250Z".parse().unwrap()
}

pub fn limits() -> Limits {
    Limits {
        cpu_limit: Some(0.5),
        memory_limit: Some(512 << 20),
        disk_limit: Some(10 << 30),
        ..Limits::default()
    }
}

pub fn details(id: u32, name: &str, state: VeState) -> VeDetails {
    let has_processes = matches!(
        state,
        VeState::Running | VeState::Starting | VeState::Paused
    );
    VeDetails {
        id,
        name: name.to_owned(),
        state,
        reason: None,
        template: "debian-12".to_owned(),
        revision: 1,
        applications: Vec::new(),
        options: BTreeMap::new(),
        addresses: vec![format!("10.99.0.{}", id - 90), format!("fd99::{id}")],
        labels: BTreeMap::from([("team".to_owned(), "shop".to_owned())]),
        created: moment(),
        started: has_processes.then(moment),
        limits: limits(),
        hostname: name.to_owned(),
        dns: vec!["9.9.9.9".to_owned()],
        autostart: Some(10),
        protected: false,
        nesting: false,
        memory_merge: false,
        owner: None,
        description: None,
        pid: has_processes.then_some(4_000 + id),
        uid_base: id * 65_536,
        memory_given_bytes: None,
        interface: format!("ve{id}"),
        usage: has_processes.then_some(Usage {
            cpu_seconds: 12.5,
            memory_bytes: 37 << 20,
            processes: 14,
            disk_bytes: 120 << 20,
        }),
        pending: Vec::new(),
    }
}

pub fn in_list(ve: &VeDetails) -> Ve {
    let ve = ve.clone();
    Ve {
        id: ve.id,
        name: ve.name,
        state: ve.state,
        template: ve.template,
        revision: ve.revision,
        applications: Vec::new(),
        addresses: ve.addresses,
        labels: ve.labels,
        created: ve.created,
        limits: ve.limits,
    }
}

/// One wall with a part of each verdict.
pub fn isolation(ve: &VeDetails) -> Isolation {
    let part = |name: &str, found: Option<&str>, verdict| IsolationEntry {
        name: name.to_owned(),
        planned: "its own".to_owned(),
        found: found.map(str::to_owned),
        verdict: if ve.pid.is_some() {
            verdict
        } else {
            IsolationVerdict::Unseen
        },
        reason: "no shared memory outside".to_owned(),
    };
    Isolation {
        id: ve.id,
        name: ve.name.clone(),
        state: ve.state,
        pid: ve.pid,
        differing: u32::from(ve.pid.is_some()),
        walls: vec![IsolationWall {
            name: "namespaces".to_owned(),
            stops: "naming what is not the VE's".to_owned(),
            entries: vec![
                part("ipc", Some("ipc:[4026532201]"), IsolationVerdict::Holds),
                part("net", Some("net:[4026531840]"), IsolationVerdict::Differs),
                part("uts", None, IsolationVerdict::Unseen),
            ],
        }],
    }
}

pub fn stats(ve: &VeDetails) -> Stats {
    let runs = ve.usage.is_some();
    let n = u64::from(ve.id);
    let when = |value: u64| runs.then_some(value);
    Stats {
        id: ve.id,
        name: ve.name.clone(),
        state: ve.state,
        sampled: moment(),
        uptime_seconds: runs.then_some(3_725.5),
        cpu_seconds: runs.then_some(12.5),
        cpu_user_seconds: runs.then_some(8.25),
        cpu_system_seconds: runs.then_some(4.25),
        cpu_throttled_seconds: runs.then_some(0.0),
        cpu_pressure_seconds: runs.then_some(1.5),
        memory_pressure_seconds: runs.then_some(0.25),
        io_pressure_seconds: None,
        cpu_limit_cores: ve.limits.cpu_limit,
        memory_bytes: when(n << 19),
        memory_anonymous_bytes: when(20 << 20),
        memory_file_bytes: when(17 << 20),
        memory_peak_bytes: when(64 << 20),
        memory_limit_bytes: ve.limits.memory_limit,
        memory_merged_bytes: None,
        memory_merge_profit_bytes: None,
        memory_merge_node_profit_bytes: None,
        memory_merge_cpu_seconds: None,
        swap_bytes: when(0),
        memory_oom_kills: when(0),
        processes: when(14),
        processes_limit: None,
        disk_bytes: Some(120 << 20),
        disk_limit_bytes: ve.limits.disk_limit,
        io_read_bytes: when(1 << 30),
        io_write_bytes: when(5 << 20),
        io_read_operations: when(70_000),
        io_write_operations: when(900),
        network_receive_bytes: when(123_456_789),
        network_transmit_bytes: when(9_876_543),
        network_receive_packets: when(100_000),
        network_transmit_packets: when(50_000),
    }
}

pub fn template() -> Template {
    Template {
        name: "debian-12".to_owned(),
        revision: 1,
        kind: TemplateKind::Built,
        distribution: "debian".to_owned(),
        version: "12".to_owned(),
        architecture: "x86_64".to_owned(),
        size_bytes: 204 << 20,
        unique_bytes: 97 << 20,
        ves: 2,
        created: moment(),
        on: None,
        applications: Vec::new(),
    }
}

pub fn template_details(packages: bool, revision: u32) -> TemplateDetails {
    let mut template = template();
    if revision > 1 {
        template.name = format!("{}@{revision}", template.name);
        template.revision = revision;
    }
    let nginx = Package {
        name: "nginx".to_owned(),
        version: "1.22.1-9+deb12u3".to_owned(),
        architecture: "amd64".to_owned(),
    };
    TemplateDetails {
        name: template.name,
        revision: template.revision,
        kind: template.kind,
        distribution: template.distribution,
        version: template.version,
        architecture: template.architecture,
        size_bytes: template.size_bytes,
        unique_bytes: template.unique_bytes,
        ves: template.ves,
        created: template.created,
        on: None,
        applications: Vec::new(),
        settings: Vec::new(),
        description: "Debian GNU/Linux 12 (bookworm)".to_owned(),
        source: "bookworm".to_owned(),
        updated_from: None,
        files: 10_800,
        digest: "sha256:0123456789abcdef".to_owned(),
        packages_count: Some(233),
        packages: if packages { vec![nginx] } else { Vec::new() },
    }
}

pub fn pool() -> PoolStatus {
    PoolStatus {
        kind: PoolKind::Loop,
        source: "/var/lib/vessel/pool.img".to_owned(),
        size_bytes: 40 << 30,
        used_bytes: 3 << 30,
        free_bytes: 36 << 30,
        guaranteed_bytes: 10 << 30,
        limits_bytes: 20 << 30,
        unlimited_ves: 2,
        allocated_bytes: Some(3 << 30),
        disk_free_bytes: Some(100 << 30),
        saved_disk_bytes: 1_234_567_890,
        saved_memory_bytes: 345_678_901,
        saved_memory_measured_ves: 3,
        healthy: true,
        warnings: Vec::new(),
    }
}

pub fn node(root: &str, ves: u32) -> NodeStatus {
    NodeStatus {
        url: format!("unix://{root}/vessel.sock"),
        version: "0.1.0".to_owned(),
        hostname: "host".to_owned(),
        kernel: "6.18.44".to_owned(),
        cgroup: "hybrid".to_owned(),
        root: root.to_owned(),
        initialized: true,
        networks: vec!["10.99.0.0/16".to_owned(), "fd99::/64".to_owned()],
        first_id: 100,
        last_id: 1_099,
        started: moment(),
        capacity: Capacity {
            cpu_cores: 2.0,
            memory_bytes: 24 << 30,
            disk_bytes: 40 << 30,
            network_bits_per_second: Some(1_000_000_000),
            ves: 1_000,
        },
        reserve: Reserve {
            cpu_cores: 0.1,
            memory_bytes: 1 << 30,
            disk_bytes: 2 << 30,
            network_bits_per_second: Some(50_000_000),
        },
        overcommit: Overcommit {
            memory: Some(1.5),
            ..Overcommit::default()
        },
        sold: Sold {
            cpu_limit_cores: 1.5,
            memory_limit_bytes: 1 << 30,
            disk_limit_bytes: 20 << 30,
            ves,
            ves_running: 1,
            ..Sold::default()
        },
    }
}

pub fn doctor() -> DoctorReport {
    let row = |check: &str, diagnosis, found: &str, remedy: Option<&str>| DoctorRow {
        check: check.to_owned(),
        diagnosis,
        found: found.to_owned(),
        remedy: remedy.map(str::to_owned),
    };
    DoctorReport {
        rows: vec![
            row("kernel", Diagnosis::Ok, "6.18.44", None),
            row(
                "mmdebstrap",
                Diagnosis::Warning,
                "it is not installed",
                Some("templates cannot be built from packages: `apt install mmdebstrap`"),
            ),
        ],
    }
}
