//! What a history keeps, and what it survives.

use super::*;
use std::os::unix::fs::MetadataExt;
use tempfile::TempDir;

/// 2026-11-21T00:00:00Z, the begin of a step at every level.
const START: u64 = 1_795_219_200;

fn ve(number: u32) -> VeId {
    VeId::new(number).unwrap()
}

fn open(folder: &TempDir) -> (History, Option<PathBuf>) {
    History::open(&folder.path().join("history"), ve(100), ve(4_099)).unwrap()
}

fn cpu(cores: f64) -> Values {
    let mut values = Values::default();
    values.set(Metric::CpuCores, Some(cores));
    values
}

fn means(records: &[Record]) -> Vec<f64> {
    let points = records.iter().map(|r| r.get(Metric::CpuCores).unwrap());
    points
        .map(|point| (point.mean * 100.0).round() / 100.0)
        .collect()
}

#[test]
fn levels_nest_and_reach_an_hour_a_day_a_month_a_year() {
    for pair in LEVELS.windows(2) {
        assert_eq!(pair[1].step_seconds % pair[0].step_seconds, 0);
        assert!(pair[0].reach_seconds() >= pair[1].step_seconds);
        // As `History::read_within` has it.
        let within = pair[1].step_seconds / pair[0].step_seconds;
        assert!(usize::try_from(within).unwrap() <= RECORDS_WITHIN_MAX);
        assert_eq!(pair[0].steps % within, 0);
    }
    let days = |level: usize| LEVELS[level].reach_seconds() / 86_400;
    assert_eq!(LEVELS[0].reach_seconds(), 3_600);
    assert_eq!((days(1), days(2), days(3)), (1, 31, 366));
    assert_eq!(
        (level_for(60), level_for(86_400), level_for(86_401)),
        (0, 1, 2)
    );
    assert_eq!(level_for(u64::MAX), 3);
    // What the documentation says of its size.
    assert!(
        (1_600_000..1_650_000).contains(&REGION_BYTES),
        "{REGION_BYTES}"
    );
}

#[test]
fn steps_become_coarser_when_they_are_over() {
    let folder = TempDir::new().unwrap();
    let (mut history, _) = open(&folder);
    for sample in 0..7 {
        let cores = f64::from(u32::try_from(sample).unwrap());
        history
            .append(ve(100), 5, START + sample * 10, &cpu(cores))
            .unwrap();
    }
    let span = START..START + 3_600;
    let fine = history.read(ve(100), 5, 0, span.clone()).unwrap();
    assert_eq!(means(&fine), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let minutes = history.read(ve(100), 5, 1, span.clone()).unwrap();
    assert_eq!(means(&minutes), [2.5]);
    assert_eq!(minutes[0].samples, 6);
    assert!((minutes[0].get(Metric::CpuCores).unwrap().max - 5.0).abs() < 0.01);
    assert!(history.read(ve(100), 5, 2, span).unwrap().is_empty());
}

#[test]
fn two_samples_in_one_step_make_one() {
    let folder = TempDir::new().unwrap();
    let (mut history, _) = open(&folder);
    history.append(ve(100), 5, START + 1, &cpu(1.0)).unwrap();
    history.append(ve(100), 5, START + 9, &cpu(3.0)).unwrap();
    let fine = history.read(ve(100), 5, 0, START..START + 10).unwrap();
    assert_eq!((means(&fine), fine[0].samples), (vec![2.0], 2));
}

#[test]
fn a_day_stays_in_minutes_and_goes_from_seconds() {
    let folder = TempDir::new().unwrap();
    let (mut history, _) = open(&folder);
    let day = 86_400;
    for sample in 0..=day / 10 {
        history
            .append(ve(101), 5, START + sample * 10, &cpu(1.0))
            .unwrap();
    }
    let all = START - 10..START + 2 * day;
    let mut count = |level| history.read(ve(101), 5, level, all.clone()).unwrap().len();
    assert_eq!(
        [count(0), count(1), count(2), count(3)],
        [360, 1_440, 144, 24]
    );
    let blocks = std::fs::metadata(folder.path().join("history"))
        .unwrap()
        .blocks();
    assert!(blocks * 512 < 300_000, "a day takes {} bytes", blocks * 512);
}

#[test]
fn another_daemon_makes_coarser_what_one_left() {
    let folder = TempDir::new().unwrap();
    for sample in 0..6 {
        // Each sample by another daemon, the last minutes by none.
        let (mut history, set_aside) = open(&folder);
        assert_eq!(set_aside, None);
        history
            .append(ve(100), 5, START + 540 + sample * 10, &cpu(2.0))
            .unwrap();
    }
    let (mut history, _) = open(&folder);
    history
        .append(ve(100), 5, START + 4_000, &cpu(8.0))
        .unwrap();
    let span = START..START + 3_600;
    for level in 1..LEVELS.len() {
        let records = history.read(ve(100), 5, level, span.clone()).unwrap();
        assert_eq!(means(&records), [2.0], "level {level}");
    }
}

#[test]
fn another_ve_with_the_number_has_no_past() {
    let folder = TempDir::new().unwrap();
    let (mut history, _) = open(&folder);
    history.append(ve(100), 5, START, &cpu(1.0)).unwrap();
    let span = START..START + 100;
    assert!(
        history
            .read(ve(100), 6, 0, span.clone())
            .unwrap()
            .is_empty()
    );
    history.append(ve(100), 6, START + 20, &cpu(2.0)).unwrap();
    assert_eq!(
        means(&history.read(ve(100), 6, 0, span.clone()).unwrap()),
        [2.0]
    );
    assert!(
        history
            .read(ve(100), 5, 0, span.clone())
            .unwrap()
            .is_empty()
    );
    history.forget(ve(100)).unwrap();
    assert!(history.read(ve(100), 6, 0, span).unwrap().is_empty());
    assert!(matches!(
        history.append(ve(5_000), 1, START, &cpu(1.0)),
        Err(AccessError::Foreign(_))
    ));
}

#[test]
fn a_damaged_file_is_put_aside_and_a_torn_record_is_absent() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("history");
    let (mut history, _) = open(&folder);
    for sample in 0..3 {
        history
            .append(ve(100), 5, START + sample * 10, &cpu(1.0))
            .unwrap();
    }
    // In the middle of the second record.
    let torn = PAGE + offset(0, LEVELS[0].slot(u32::try_from(START).unwrap() + 10)) + 50;
    history.file.write_all_at(b"damage", torn).unwrap();
    drop(history);
    let (mut history, set_aside) = open(&folder);
    assert_eq!(set_aside, None);
    let times: Vec<u32> = history
        .read(ve(100), 5, 0, START..START + 100)
        .unwrap()
        .iter()
        .map(|record| record.time)
        .collect();
    let start = u32::try_from(START).unwrap();
    assert_eq!(times, [start, start + 20]);
    for damage in [&b"garbage"[..], b"vessel-meterXXXXXXXXXXXXXXXXXXXXXXX"] {
        std::fs::write(&path, damage).unwrap();
        let (mut history, set_aside) = open(&folder);
        assert_eq!(std::fs::read(set_aside.unwrap()).unwrap(), damage);
        assert!(history.read(ve(100), 5, 0, 0..u64::MAX).unwrap().is_empty());
        history.append(ve(100), 5, START, &cpu(1.0)).unwrap();
    }
}

#[test]
fn a_clock_that_was_set_back_is_no_end() {
    let folder = TempDir::new().unwrap();
    let (mut history, _) = open(&folder);
    history
        .append(ve(100), 5, START + 900_000, &cpu(1.0))
        .unwrap();
    for sample in 0..7 {
        history
            .append(ve(100), 5, START + sample * 10, &cpu(4.0))
            .unwrap();
    }
    let minutes = history.read(ve(100), 5, 1, START..START + 60).unwrap();
    assert_eq!(means(&minutes), [4.0]);
}
