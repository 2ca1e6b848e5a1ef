//! Times, printed. Run with `cargo test -p pool --release --test pool -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use crate::fixture::{Folder, MIB, close, id};

pub(crate) const TESTS: &[(&str, fn())] = &[("times_of_private_areas", times_of_private_areas)];

const AREAS: u32 = 1000;

fn each(what: &str, mut action: impl FnMut(u32)) {
    let mut times: Vec<Duration> = (0..AREAS)
        .map(|number| {
            let begin = Instant::now();
            action(100 + number);
            begin.elapsed()
        })
        .collect();
    let total: Duration = times.iter().sum();
    times.sort_unstable();
    let at = |part: usize| {
        times
            .get(times.len() * part / 100)
            .copied()
            .unwrap_or_default()
    };
    println!(
        "{what}: {AREAS} in {total:.0?}, median {:.0?}, p99 {:.0?}",
        at(50),
        at(99)
    );
}

fn times_of_private_areas() {
    let folder = Folder::new();
    let begin = Instant::now();
    let pool = folder.pool();
    println!("pool made in {:.0?}", begin.elapsed());
    let begin = Instant::now();
    drop(folder.open());
    println!("pool opened again in {:.1?}", begin.elapsed());
    each("create", |n| {
        pool.private_create(id(n), Some(64 * MIB)).unwrap()
    });
    each("create again", |n| {
        pool.private_create(id(n), Some(64 * MIB)).unwrap()
    });
    each("limit", |n| {
        pool.private_limit_set(id(n), Some(128 * MIB)).unwrap()
    });
    each("usage", |n| assert!(pool.private_usage(id(n)).is_ok()));
    each("open", |n| drop(pool.private_open(id(n)).unwrap()));
    let begin = Instant::now();
    assert_eq!(pool.private_usages().unwrap().len(), AREAS as usize);
    println!("all usages in {:.1?}", begin.elapsed());
    let begin = Instant::now();
    pool.sync().unwrap();
    println!("sync in {:.0?}", begin.elapsed());
    each("remove", |n| pool.private_remove(id(n)).unwrap());
    let begin = Instant::now();
    let report = pool.private_sweep(&[]).unwrap();
    println!(
        "sweep of {} in {:.0?}",
        report.removed.len(),
        begin.elapsed()
    );
    close(&folder, pool);
}
