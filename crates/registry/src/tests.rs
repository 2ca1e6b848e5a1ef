//! What a registry survives: damage, a log cut short, a full disk, a clock that goes back, a
//! second opener, an older and a newer format.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rusqlite::Connection;
use tempfile::TempDir;
use ve::{Name, Revision, Spec, State, VeId};

use crate::{
    CreateConflict, Event, FirstBoot, NewOperation, OpenError, OperationId, OperationState,
    Outcome, Registry, Run, Stage, VeRecord,
};

fn id(number: u32) -> VeId {
    VeId::new(number).unwrap()
}

fn spec(number: u32) -> Spec {
    let name = Name::new(&format!("ve-{number}")).unwrap();
    Spec {
        revision: Revision::new(number % 3 + 1).unwrap(),
        template_version: "1".to_owned(),
        addresses: vec![std::net::Ipv4Addr::from(0x0a00_0000 + number).into()],
        ..Spec::new(id(number), name, Name::new("debian").unwrap(), 5)
    }
}

fn event(at: u64, number: u32) -> Event {
    Event {
        id: 0,
        at,
        kind: "ve-created".to_owned(),
        ve: Some(number),
        subject: format!("ve-{number}"),
        message: Some("a message that fills pages ".repeat(150)),
    }
}

fn operation(number: u32) -> NewOperation {
    NewOperation {
        kind: "create",
        ve: VeId::new(number).ok(),
        subject: format!("ve-{number}"),
        request: String::new(),
    }
}

fn whole(number: u32) -> VeRecord {
    VeRecord {
        spec: spec(number),
        state: State::Running,
        run: Some(Run {
            pid: number,
            start_time_ticks: 7,
            boot_id: "boot".to_owned(),
        }),
        fault: None,
        first_boot: None,
        stage: Stage::Whole,
        unclean: false,
    }
}

/// One call that writes.
fn write(registry: &Registry, turn: u32, now: u64) -> Result<(), CreateConflict> {
    let number = 100 + turn / 4;
    match turn % 4 {
        0 => registry
            .create_reserve(&FirstBoot::default(), now, |_, _| {
                Ok::<_, CreateConflict>((spec(number), operation(number)))
            })
            .map(drop),
        1 => {
            let open = registry.operations_open()?;
            let id: OperationId = open.last().map_or(0, |operation| operation.id);
            let (record, event) = (whole(number), event(now, number));
            let outcome = Outcome::Record(&record);
            let done = OperationState::Done;
            registry
                .operation_end(id, done, None, outcome, &event)
                .map(drop)
        }
        2 => {
            let more = [std::net::Ipv4Addr::from(0x0b00_0000 + number).into()];
            registry
                .addresses_hold(id(number), |_| Ok::<_, CreateConflict>(more.to_vec()))
                .map(drop)
        }
        _ if turn % 12 == 11 => registry
            .record(Outcome::Forget(id(number)), &event(now, number))
            .map(drop),
        _ => registry.ve_update(&VeRecord {
            fault: Some("something went wrong".to_owned()),
            ..whole(number)
        }),
    }
}

/// Everything that is in a registry.
fn dump(registry: &Registry) -> String {
    let records = registry.ves().unwrap();
    let held: Vec<_> = records
        .iter()
        .map(|record| registry.addresses_held(record.spec.id).unwrap())
        .collect();
    let operations = registry.operations(10_000).unwrap();
    let events = registry.events_after(0, 10_000).unwrap();
    format!("{records:?} {held:?} {operations:?} {events:?}")
}

/// In memory where there is such a folder: a disk would be asked to sync thousands of times.
fn scratch() -> (TempDir, PathBuf) {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    };
    let path = folder.path().join("registry.db");
    (folder, path)
}

fn log_of(path: &Path) -> PathBuf {
    path.with_extension("db-wal")
}

/// A registry's files after `turns` writes, and what was in it after each.
fn written(turns: u32) -> (Vec<u8>, Vec<u8>, Vec<String>) {
    let (_folder, path) = scratch();
    let registry = Registry::open(&path).unwrap();
    let mut dumps = vec![dump(&registry)];
    for turn in 0..turns {
        write(&registry, turn, 10).unwrap();
        dumps.push(dump(&registry));
    }
    let files = (
        std::fs::read(&path).unwrap(),
        std::fs::read(log_of(&path)).unwrap(),
    );
    (files.0, files.1, dumps)
}

#[test]
fn a_log_cut_short_anywhere_gives_an_earlier_state() {
    let (database, log, dumps) = written(24);
    // Lengths that fall on frames and between them; all of them would take minutes.
    let lengths = (0..log.len()).step_by(997).chain([log.len()]);
    let mut reached = 0;
    for length in lengths {
        let (_folder, path) = scratch();
        std::fs::write(&path, &database).unwrap();
        std::fs::write(log_of(&path), &log[..length]).unwrap();
        let registry = Registry::open(&path).unwrap();
        let found = dump(&registry);
        let state = dumps.iter().position(|dump| *dump == found);
        let state = state.unwrap_or_else(|| panic!("cut at {length}: a state that never was"));
        assert!(state >= reached, "a longer log holds less");
        reached = state;
        // And it goes on from there.
        registry.operation_insert(&operation(900), 10).unwrap();
    }
    assert_eq!(reached, dumps.len() - 1);
}

#[test]
fn a_log_with_a_damaged_frame_gives_an_earlier_state() {
    let (database, log, dumps) = written(24);
    for place in (40..log.len()).step_by(3_001) {
        let (_folder, path) = scratch();
        let mut log = log.clone();
        log[place] ^= 0xff;
        std::fs::write(&path, &database).unwrap();
        std::fs::write(log_of(&path), &log).unwrap();
        let registry = Registry::open(&path).unwrap();
        assert!(dumps.contains(&dump(&registry)), "damaged at {place}");
    }
}

/// A registry's file with everything in it and no log.
fn settled(turns: u32) -> Vec<u8> {
    let (_folder, path) = scratch();
    let registry = Registry::open(&path).unwrap();
    for turn in 0..turns {
        write(&registry, turn, 10).unwrap();
    }
    drop(registry);
    std::fs::read(&path).unwrap()
}

#[test]
fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let (_folder, path) = scratch();
    let text = "this was a registry once\n".repeat(400);
    std::fs::write(&path, &text).unwrap();
    let refused = Registry::open(&path).unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!(
            "the registry {} is damaged (file is not a database); stop the node, keep a copy of \
             the file, and bring back an undamaged one",
            path.display()
        )
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    #[test]
    fn a_damaged_file_is_refused_or_read_and_never_brings_the_node_down(
        places in proptest::collection::vec((any::<prop::sample::Index>(), 1_u8..), 1..30),
        shorter in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = settled(40);
        for (place, change) in places {
            let place = place.index(bytes.len());
            bytes[place] ^= change;
        }
        if let Some(length) = shorter {
            bytes.truncate(length.index(bytes.len()).max(1));
        }
        let (_folder, path) = scratch();
        std::fs::write(&path, &bytes).unwrap();
        match Registry::open(&path) {
            Err(refused) => {
                let text = refused.to_string();
                prop_assert!(text.contains(&path.display().to_string()), "{}", text);
            }
            // What the check did not find is a changed word in a record, or is found when read.
            Ok(registry) => {
                let _ = registry.ves().map_err(|error| error.to_string());
                let _ = registry.operations(1_000).map_err(|error| error.to_string());
                let _ = registry.events_after(0, 1_000).map_err(|error| error.to_string());
                let _ = write(&registry, 400, 10).map_err(|error| error.to_string());
            }
        }
    }
}

#[test]
fn a_full_disk_leaves_nothing_half_written() {
    let mut refused = 0;
    for room in 0..4 {
        let (_folder, path) = scratch();
        let registry = Registry::open(&path).unwrap();
        let pages = |sql: &str| -> i64 {
            let connection = registry.connection();
            connection.query_row(sql, [], |row| row.get(0)).unwrap()
        };
        for turn in 0..60 {
            let limit = pages("PRAGMA page_count") + room;
            pages(&format!("PRAGMA max_page_count = {limit}"));
            let before = dump(&registry);
            if write(&registry, turn, 10).is_ok() {
                continue;
            }
            refused += 1;
            assert_eq!(
                dump(&registry),
                before,
                "room for {room} pages, write {turn}"
            );
            // With room again, the same call goes through.
            pages("PRAGMA max_page_count = 100000");
            write(&registry, turn, 10).unwrap();
        }
        drop(registry);
        Registry::open(&path).unwrap();
    }
    assert!(refused > 20, "only {refused} writes met a full disk");
}

/// Names the folder that a small disk is mounted on, in the process that sees it.
const SMALL_DISK: &str = "REGISTRY_TEST_SMALL_DISK";

#[test]
fn a_disk_that_fills_up_loses_nothing_that_was_told() {
    if let Some(folder) = std::env::var_os(SMALL_DISK) {
        fill_up(Path::new(&folder));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mounted = "mount -t tmpfs -o size=400k small \"$0\" && exec \"$@\"";
    let output = std::process::Command::new("unshare")
        .args(["--mount", "sh", "-c", mounted])
        .arg(folder.path())
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "tests::a_disk_that_fills_up_loses_nothing_that_was_told",
        ])
        .env(SMALL_DISK, folder.path())
        .output();
    match output {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned()
                + &String::from_utf8_lossy(&output.stdout);
            let may_not =
                said.contains("Operation not permitted") || said.contains("must be super");
            assert!(may_not, "{said}");
            eprintln!("skipped: no disk can be mounted here without privilege: {said}");
        }
        Err(error) => eprintln!("skipped: there is no `unshare`: {error}"),
    }
}

fn fill_up(folder: &Path) {
    let path = folder.join("registry.db");
    let registry = Registry::open(&path).unwrap();
    let mut refused = 0;
    for turn in 0..200 {
        let before = dump(&registry);
        match write(&registry, turn, 10) {
            Ok(()) => {}
            Err(error) => {
                assert!(
                    error.to_string().contains("the registry cannot be used"),
                    "{error}"
                );
                assert_eq!(dump(&registry), before, "write {turn}");
                refused += 1;
                break;
            }
        }
    }
    assert_eq!(refused, 1, "the disk was never full");
    let told = dump(&registry);
    drop(registry);
    // A node that comes up on a full disk reads what there is, or says why it cannot.
    match Registry::open(&path) {
        Ok(registry) => assert_eq!(dump(&registry), told),
        Err(error) => assert!(
            error.to_string().starts_with("cannot open the registry"),
            "{error}"
        ),
    }
}

#[test]
fn a_clock_that_goes_back_ends_nothing_before_it_began() {
    let (_folder, path) = scratch();
    let registry = Registry::open(&path).unwrap();
    write(&registry, 0, 5_000).unwrap();
    write(&registry, 1, 10).unwrap();
    write(&registry, 4, 20).unwrap();
    let operations = registry.operations(10).unwrap();
    assert_eq!(operations[1].created, 5_000);
    assert_eq!(operations[1].ended, Some(5_000));
    assert!(operations[0].id > operations[1].id);
    // Events keep their order, which is that of their numbers, and the time that the clock had.
    let newest = registry.event_newest().unwrap();
    registry.record(Outcome::Unchanged, &event(3, 100)).unwrap();
    let later = registry.events_after(newest, 10).unwrap();
    assert_eq!((later.len(), later[0].at), (1, 3));
    // A clock far beyond what can be stored is no reason to fail.
    registry
        .operation_insert(&operation(101), u64::MAX)
        .unwrap();
    assert_eq!(
        registry.operations(1).unwrap()[0].created,
        i64::MAX.cast_unsigned()
    );
}

#[test]
fn two_openers_see_each_other_and_take_nothing_twice() {
    let (_folder, path) = scratch();
    let registries = [(); 2].map(|()| Registry::open(&path).unwrap());
    std::thread::scope(|scope| {
        for registry in &registries {
            scope.spawn(|| {
                for _ in 0..30 {
                    let reserved = registry.create_reserve(&FirstBoot::default(), 1, |ids, _| {
                        let number = (100..).find(|n| !ids.contains(&id(*n))).unwrap();
                        Ok::<_, CreateConflict>((spec(number), operation(number)))
                    });
                    reserved.unwrap();
                }
            });
        }
    });
    assert_eq!(dump(&registries[0]), dump(&registries[1]));
    assert_eq!(registries[0].ves().unwrap().len(), 60);
    let taken = registries[1].create_reserve(&FirstBoot::default(), 1, |_, _| {
        let mut other = spec(100);
        other.id = id(700);
        Ok::<_, CreateConflict>((other, operation(700)))
    });
    let text = taken.unwrap_err().to_string();
    assert_eq!(text, "the name `ve-100` is taken by VE 100");
}

#[test]
fn an_unclean_ve_keeps_the_addresses_that_it_may_still_use() {
    let (_folder, path) = scratch();
    let registry = Registry::open(&path).unwrap();
    for turn in 0..3 {
        write(&registry, turn, 1).unwrap();
    }
    assert_eq!(registry.addresses_held(id(100)).unwrap().len(), 2);
    let mut record = whole(100);
    record.unclean = true;
    registry.ve_update(&record).unwrap();
    assert_eq!(registry.addresses_held(id(100)).unwrap().len(), 2);
    let wanted = vec![std::net::Ipv4Addr::from(0x0b00_0000 + 100).into()];
    write(&registry, 4, 1).unwrap();
    let refused = registry.addresses_hold(id(101), |_| Ok::<_, CreateConflict>(wanted));
    assert_eq!(
        refused.unwrap_err().to_string(),
        "the address 11.0.0.100 is taken by VE 100"
    );
    record.unclean = false;
    registry.ve_update(&record).unwrap();
    assert_eq!(
        registry.addresses_held(id(100)).unwrap(),
        spec(100).addresses
    );
}

#[test]
fn a_newer_format_is_refused_and_an_older_one_brought_up() {
    let (_folder, path) = scratch();
    drop(Registry::open(&path).unwrap());
    let connection = Connection::open(&path).unwrap();
    connection
        .execute_batch("PRAGMA user_version = 77")
        .unwrap();
    let refused = Registry::open(&path).unwrap_err();
    assert!(matches!(refused, OpenError::Newer { found: 77, .. }));
    assert!(
        refused.to_string().ends_with("use the newer vesseld"),
        "{refused}"
    );

    let (_folder, path) = scratch();
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch(crate::schema::FORMATS[0]).unwrap();
    let spec = r#"{"name":"a","template":"t","template_version":"1","hostname":"a","addresses":[],"created":5}"#;
    for (number, created) in [(100, 1), (101, 0)] {
        let name = format!("n{number}");
        let values = rusqlite::params![number, name, spec, created];
        let sql =
            "INSERT INTO ves (id, name, spec, state, created) VALUES (?1, ?2, ?3, 'stopped', ?4)";
        connection.execute(sql, values).unwrap();
    }
    connection.execute_batch("PRAGMA user_version = 1").unwrap();
    drop(connection);
    let records = Registry::open(&path).unwrap().ves().unwrap();
    let stages: Vec<_> = records.iter().map(|record| record.stage).collect();
    assert_eq!(stages, [Stage::Whole, Stage::Creating]);
    assert!(records.iter().all(|r| r.spec.revision == Revision::FIRST));
}

#[test]
fn a_copy_is_whole_and_takes_the_place_of_the_one_before() {
    let (folder, path) = scratch();
    let copy = folder.path().join("registry.copy");
    let registry = Registry::open(&path).unwrap();
    for turn in 0..6 {
        let before = registry.changes();
        write(&registry, turn, 10).unwrap();
        assert!(registry.changes() > before);
        // A leftover of a copy that was cut off is in nobody's way.
        std::fs::write(copy.with_extension("new"), "half").unwrap();
        registry.copy_to(&copy).unwrap();
        assert_eq!(dump(&Registry::open(&copy).unwrap()), dump(&registry));
    }
    assert!(!copy.with_extension("new").exists());
    let nowhere = folder.path().join("none/copy");
    let refused = registry.copy_to(&nowhere).unwrap_err();
    assert_eq!(refused.to_string(), "the registry cannot be copied");
}
