//! Every text against one that was looked at once, by people and by the programs that read it.
#![allow(
    clippy::unwrap_used,
    clippy::tests_outside_test_module,
    reason = "tests"
)]

use std::path::Path;
use std::time::Duration;

use procview::facts::{DiskUse, Memory, Tasks, Work};
use procview::history::{Averages, History};
use procview::render;

const MIB: u64 = 1 << 20;

/// Compares with a file, or writes it when `VESSEL_GOLDEN` is set.
fn assert_golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var_os("VESSEL_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, golden, "{name} differs");
}

/// A VE with 512 MiB, of which 128 are in use.
fn memory() -> Memory {
    Memory {
        total_bytes: 512 * MIB,
        used_bytes: 128 * MIB,
        swap_total_bytes: 256 * MIB,
        swap_used_bytes: 16 * MIB,
        anon_bytes: 40 * MIB,
        file_bytes: 70 * MIB,
        shmem_bytes: 10 * MIB,
        mapped_bytes: 20 * MIB,
        dirty_bytes: MIB,
        active_anon_bytes: 30 * MIB,
        inactive_anon_bytes: 20 * MIB,
        active_file_bytes: 25 * MIB,
        inactive_file_bytes: 35 * MIB,
        slab_reclaimable_bytes: 8 * MIB,
        slab_unreclaimable_bytes: 6 * MIB,
        kernel_stack_bytes: MIB,
        page_tables_bytes: 2 * MIB,
        huge_page_bytes: 2 * MIB,
        faults: 4_711,
        major_faults: 3,
        oom_kills: 1,
        ..Memory::default()
    }
}

fn tasks() -> Tasks {
    Tasks {
        running: 2,
        blocked: 1,
        total: 17,
        most: 42,
    }
}

#[test]
fn memory_looks_as_the_kernel_writes_it() {
    assert_golden("meminfo", &render::meminfo(&memory()));
    assert_golden("swaps", &render::swaps(&memory()));
    let none = Memory {
        swap_total_bytes: 0,
        ..memory()
    };
    assert_golden("swaps-none", &render::swaps(&none));
}

#[test]
fn more_use_than_there_is_is_no_free_memory() {
    let memory = Memory {
        used_bytes: 600 * MIB,
        active_file_bytes: 900 * MIB,
        ..memory()
    };
    let text = render::meminfo(&memory);
    assert!(text.contains("MemFree:               0 kB\n"), "{text}");
    assert!(text.contains("MemAvailable:     524288 kB\n"), "{text}");
}

#[test]
fn processors_look_as_the_kernel_writes_them() {
    let work = Work {
        user_us: 120_000_000,
        nice_us: 20_000_000,
        system_us: 30_010_000,
        throttled_us: 5_000_000,
    };
    let mut history = History::default();
    history.advance(Duration::from_secs(1_000), &work, 2);
    let time = history.processor_time(&work, 100);
    assert_golden(
        "stat",
        &render::stat(&[2, 3], &time, 1_700_000_000, &tasks()),
    );
    assert_golden(
        "uptime",
        &render::uptime(Duration::from_secs(1_000), history.idle()),
    );
}

#[test]
fn the_sum_of_all_processors_is_the_first_line() {
    let work = Work {
        user_us: 12_345_678,
        ..Work::default()
    };
    let mut history = History::default();
    history.advance(Duration::from_secs(77), &work, 3);
    let time = history.processor_time(&work, 100);
    let text = render::stat(&[0, 1, 2], &time, 0, &tasks());
    let numbers = |line: &str| -> Vec<u64> {
        line.split_whitespace()
            .skip(1)
            .map(|n| n.parse().unwrap())
            .collect()
    };
    let lines: Vec<Vec<u64>> = text.lines().take(4).map(numbers).collect();
    for column in 0..10 {
        let sum: u64 = lines[1..].iter().map(|line| line[column]).sum();
        assert_eq!(lines[0][column], sum);
    }
}

#[test]
fn loads_look_as_the_kernel_writes_them() {
    let mut averages = Averages::default();
    averages.count(3, 24);
    assert_golden("loadavg", &render::loadavg(&averages, &tasks()));
}

#[test]
fn disks_look_as_the_kernel_writes_them() {
    let disk = DiskUse {
        major: 7,
        minor: 12,
        name: "loop12".to_owned(),
        reads: 10,
        read_bytes: 40_960,
        writes: 20,
        write_bytes: 819_200,
        discards: 1,
        discard_bytes: 4_096,
    };
    let other = DiskUse {
        major: 259,
        name: "nvme0n1".to_owned(),
        ..DiskUse::default()
    };
    let disks = [disk, other];
    assert_golden("diskstats", &render::diskstats(&disks));
    assert_golden("vmstat", &render::vmstat(&memory(), &disks, 4_096));
    assert_eq!(render::diskstats(&[]), "");
}
