//! Private areas: counted, limited, removed whatever is in them, swept.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use kernel::btrfs::{self, Access, QgroupId};
use pool::{Full, PRIVATE_LIMIT_BYTES_MIN, Pool, PrivateError, Shares, Swept};

use crate::fixture::{Folder, GIB, MIB, close, id, upper};

pub(crate) const TESTS: &[(&str, fn())] = &[
    (
        "every_byte_counts_from_the_first",
        every_byte_counts_from_the_first,
    ),
    (
        "a_full_area_says_so_and_can_be_emptied",
        a_full_area_says_so_and_can_be_emptied,
    ),
    (
        "the_least_limit_leaves_room_to_begin",
        the_least_limit_leaves_room_to_begin,
    ),
    ("limits_change_live", limits_change_live),
    (
        "what_is_guaranteed_nobody_else_takes",
        what_is_guaranteed_nobody_else_takes,
    ),
    (
        "removal_takes_nested_subvolumes_along",
        removal_takes_nested_subvolumes_along,
    ),
    (
        "creation_goes_on_after_a_crash",
        creation_goes_on_after_a_crash,
    ),
    (
        "removal_goes_on_after_a_crash",
        removal_goes_on_after_a_crash,
    ),
    (
        "a_sweep_leaves_nothing_and_no_kept_ve_loses",
        a_sweep_leaves_nothing_and_no_kept_ve_loses,
    ),
    ("what_is_no_area_is_refused", what_is_no_area_is_refused),
    ("a_work_directory_is_replaced", a_work_directory_is_replaced),
    ("a_full_pool_says_so", a_full_pool_says_so),
];

/// Writes so many megabytes into a VE's area, and says how many fitted.
fn fitted(pool: &Pool, number: u32, name: &str, mebibytes: usize) -> usize {
    use std::io::Write as _;
    let Ok(mut file) = fs::File::create(upper(pool, id(number)).join(name)) else {
        return 0;
    };
    let block = vec![7; 1 << 20];
    let blocks =
        (0..mebibytes).take_while(|_| file.write_all(&block).is_ok() && file.sync_data().is_ok());
    blocks.count()
}

fn what_is_guaranteed_nobody_else_takes() {
    let folder = Folder::new();
    let pool = folder.pool();
    assert_eq!(pool.space_undivisible(), None);
    for number in [100, 101, 102] {
        pool.private_create(id(number), None).unwrap();
    }
    // What is there already counts.
    assert_eq!(fitted(&pool, 101, "before", 30), 30);
    let shares = |own: u64, common: u64| Shares {
        own: [(id(100), own * MIB)].into(),
        common: common * MIB,
    };
    pool.space_divide(&shares(60, 100)).unwrap();
    pool.space_divide(&shares(60, 100)).unwrap();
    let others = fitted(&pool, 101, "a", 200) + fitted(&pool, 102, "b", 200);
    assert!((55..=70).contains(&others), "{others} of 70");
    let own = fitted(&pool, 100, "c", 200);
    assert!((50..=60).contains(&own), "{own} of 60");
    // More for one is less for others, who keep what they have.
    pool.space_divide(&shares(100, 60)).unwrap();
    assert_eq!(fitted(&pool, 102, "d", 10), 0);
    let more = fitted(&pool, 100, "e", 200);
    assert!((30..=40).contains(&more), "{more} of 40");
    // The limit holds besides.
    pool.private_limit_set(id(100), Some(110 * MIB)).unwrap();
    pool.space_divide(&shares(500, 60)).unwrap();
    let limited = fitted(&pool, 100, "f", 200);
    assert!((5..=15).contains(&limited), "{limited} of 10");
    // Another is guaranteed something now, and one is gone.
    pool.private_remove(id(101)).unwrap();
    let other = Shares {
        own: [(id(102), 300 * MIB)].into(),
        common: 400 * MIB,
    };
    pool.space_divide(&other).unwrap();
    let freed = fitted(&pool, 102, "g", 150);
    assert_eq!(freed, 150);
    pool.space_undivide().unwrap();
    pool.space_undivide().unwrap();
    assert_eq!(fitted(&pool, 102, "h", 200), 200);
    for number in [100, 102] {
        pool.private_remove(id(number)).unwrap();
    }
    close(&folder, pool);
}

fn group(number: u32) -> QgroupId {
    QgroupId::above(1, number)
}

fn every_byte_counts_from_the_first() {
    let folder = Folder::new();
    let pool = folder.pool();
    pool.private_create(id(100), None).unwrap();
    pool.sync().unwrap();
    let empty = pool.private_usage(id(100)).unwrap();
    assert_eq!(empty, 16 << 10, "the subvolume's own node counts");
    assert_eq!(pool.private_limit(id(100)).unwrap(), None);
    let area = pool.private_open(id(100)).unwrap();
    let own = QgroupId::of_subvolume(btrfs::subvolume_id(area.as_fd()).unwrap());
    assert_eq!(
        btrfs::qgroup_members(pool.root(), group(100)).unwrap(),
        [own]
    );
    for part in ["upper", ""] {
        let metadata = fs::metadata(upper(&pool, id(100)).join("..").join(part)).unwrap();
        assert_eq!((metadata.mode() & 0o7777, metadata.uid()), (0o755, 0));
    }
    fs::write(upper(&pool, id(100)).join("file"), vec![1; 8 << 20]).unwrap();
    // Before it is on the disk, and after.
    let live = pool.private_usage(id(100)).unwrap();
    assert!((8 * MIB..9 * MIB).contains(&live), "{live}");
    pool.sync().unwrap();
    let usages = pool.private_usages().unwrap();
    let [(ve, bytes)] = usages.as_slice() else {
        panic!("{usages:?}")
    };
    assert!(
        *ve == id(100) && (8 * MIB..9 * MIB).contains(bytes),
        "{usages:?}"
    );
    assert_eq!(pool.private_usage(id(100)).unwrap(), *bytes);
    drop(area);
    close(&folder, pool);
}

/// Writes until something is full; returns the error and the bytes written.
fn fill(path: &std::path::Path) -> (std::io::Error, u64) {
    use std::io::Write;
    let mut file = match fs::File::create(path) {
        Ok(file) => file,
        Err(error) => return (error, 0),
    };
    let mut written = 0;
    loop {
        match file.write(&[7; 1 << 20]) {
            Ok(bytes) => written += bytes as u64,
            Err(error) => return (error, written),
        }
    }
}

fn a_full_area_says_so_and_can_be_emptied() {
    let folder = Folder::new();
    let pool = folder.pool();
    pool.private_create(id(100), Some(64 * MIB)).unwrap();
    let file = upper(&pool, id(100)).join("file");
    let (error, written) = fill(&file);
    assert_eq!(error.kind(), ErrorKind::QuotaExceeded, "{error}");
    assert!((60 * MIB..=64 * MIB).contains(&written), "{written}");
    let full = pool.explain_full(&error, Some(id(100))).unwrap();
    assert!(
        matches!(full, Full::Area { limit_bytes, .. } if limit_bytes == 64 * MIB),
        "{full}"
    );
    assert!(full.to_string().contains("disk.limit"), "{full}");

    // Nobody else suffers, and there is a way out.
    fs::write(pool.staging_path().join("file"), vec![1; 8 << 20]).unwrap();
    fs::remove_file(&file).unwrap();
    pool.sync().unwrap();
    fs::write(&file, vec![1; 32 << 20]).unwrap();
    close(&folder, pool);
}

fn the_least_limit_leaves_room_to_begin() {
    let folder = Folder::new();
    let pool = folder.pool();
    let error = pool
        .private_create(id(100), Some(PRIVATE_LIMIT_BYTES_MIN - 1))
        .unwrap_err();
    assert!(
        matches!(error, PrivateError::LimitTooSmall { .. }),
        "{error}"
    );
    assert_eq!(pool.private_list().unwrap(), []);
    pool.private_create(id(100), Some(PRIVATE_LIMIT_BYTES_MIN))
        .unwrap();
    let upper = upper(&pool, id(100));
    for number in 0..100 {
        fs::create_dir(upper.join(format!("{number}"))).unwrap();
        fs::write(upper.join(format!("{number}/file")), "a few bytes").unwrap();
    }
    fs::write(upper.join("journal"), vec![1; 8 << 20]).unwrap();
    close(&folder, pool);
}

fn limits_change_live() {
    let folder = Folder::new();
    let pool = folder.pool();
    pool.private_create(id(100), Some(32 * MIB)).unwrap();
    fs::write(upper(&pool, id(100)).join("file"), vec![1; 24 << 20]).unwrap();
    let error = pool.private_limit_set(id(100), Some(20 * MIB)).unwrap_err();
    assert!(
        matches!(error, PrivateError::LimitBelowUse { .. }),
        "{error}"
    );
    assert_eq!(pool.private_limit(id(100)).unwrap(), Some(32 * MIB));
    pool.private_limit_set(id(100), Some(64 * MIB)).unwrap();
    fs::write(upper(&pool, id(100)).join("more"), vec![1; 24 << 20]).unwrap();
    pool.private_limit_set(id(100), None).unwrap();
    assert_eq!(pool.private_limit(id(100)).unwrap(), None);
    fs::write(upper(&pool, id(100)).join("most"), vec![1; 64 << 20]).unwrap();
    let error = pool.private_limit_set(id(101), None).unwrap_err();
    assert!(matches!(error, PrivateError::NotFound { .. }), "{error}");
    close(&folder, pool);
}

/// Makes subvolumes in subvolumes in directories, one of them read-only.
fn nest(pool: &Pool, number: u32) {
    let upper = upper(pool, id(number));
    fs::create_dir_all(upper.join("var/lib/machines")).unwrap();
    let at = |path: &str| fs::File::open(upper.join(path)).unwrap();
    let make = |path: &str, name: &str| {
        btrfs::subvolume_create(at(path).as_fd(), name.as_ref(), &[]).unwrap();
    };
    make("var/lib/machines", "one");
    make("var/lib/machines/one", "two");
    fs::create_dir(upper.join("var/lib/machines/one/directory")).unwrap();
    make("var/lib/machines/one/directory", "three");
    make("var/lib/machines/one/directory/three", "four");
    fs::write(upper.join("var/lib/machines/one/two/file"), "content").unwrap();
    for path in [
        "var/lib/machines/one/directory/three",
        "var/lib/machines/one",
    ] {
        btrfs::subvolume_access_set(at(path).as_fd(), Access::ReadOnly).unwrap();
    }
}

fn removal_takes_nested_subvolumes_along() {
    let folder = Folder::new();
    let pool = folder.pool();
    pool.private_remove(id(100)).unwrap();
    pool.private_create(id(100), Some(64 * MIB)).unwrap();
    nest(&pool, 100);
    pool.private_remove(id(100)).unwrap();
    pool.private_remove(id(100)).unwrap();
    assert_eq!(pool.private_list().unwrap(), []);
    assert_eq!(btrfs::qgroup_info(pool.root(), group(100)).unwrap(), None);
    assert_no_groups_left(&pool);
    close(&folder, pool);
}

/// Waits until the kernel has emptied what was destroyed, sweeping.
fn assert_no_groups_left(pool: &Pool) {
    let begin = Instant::now();
    loop {
        pool.sync().unwrap();
        let report = pool.private_sweep(&pool.private_list().unwrap()).unwrap();
        assert!(report.failed.is_empty(), "{report:?}");
        let groups = btrfs::qgroups(pool.root(), 0).unwrap();
        let own = groups
            .iter()
            .filter(|(group, _)| group.number() >= 256)
            .count();
        if own == pool.private_list().unwrap().len() {
            return;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "{groups:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn creation_goes_on_after_a_crash() {
    let folder = Folder::new();
    let pool = folder.pool();
    // After the group; after the subvolume; after the name was given and parts were lost.
    btrfs::qgroup_create(pool.root(), group(100)).unwrap();
    pool.private_create(id(100), Some(64 * MIB)).unwrap();
    let areas = fs::File::open(pool.path().join("private")).unwrap();
    btrfs::subvolume_create(areas.as_fd(), ".new-101".as_ref(), &[]).unwrap();
    pool.private_create(id(101), None).unwrap();
    fs::remove_dir(upper(&pool, id(101))).unwrap();
    // A pool that was made where quotas were off: neither group nor membership.
    btrfs::subvolume_create(areas.as_fd(), "102".as_ref(), &[]).unwrap();
    fs::write(pool.path().join("private/102/kept"), "").unwrap();
    for number in [100, 101, 102] {
        pool.private_create(id(number), Some(64 * MIB)).unwrap();
        assert!(upper(&pool, id(number)).is_dir());
        assert_eq!(pool.private_limit(id(number)).unwrap(), Some(64 * MIB));
        assert_eq!(
            btrfs::qgroup_members(pool.root(), group(number))
                .unwrap()
                .len(),
            1
        );
    }
    assert!(pool.path().join("private/102/kept").exists());
    assert_eq!(pool.private_list().unwrap(), [id(100), id(101), id(102)]);
    assert!(!pool.path().join("private/.new-101").exists());
    drop(areas);
    close(&folder, pool);
}

fn removal_goes_on_after_a_crash() {
    let folder = Folder::new();
    let pool = folder.pool();
    let areas = pool.path().join("private");
    for number in [100, 101] {
        pool.private_create(id(number), Some(64 * MIB)).unwrap();
        nest(&pool, number);
        fs::rename(
            areas.join(number.to_string()),
            areas.join(format!(".dead-{number}")),
        )
        .unwrap();
    }
    // The id is given again before anybody noticed: the new area counts only itself.
    pool.private_create(id(100), Some(32 * MIB)).unwrap();
    assert_eq!(
        btrfs::qgroup_members(pool.root(), group(100))
            .unwrap()
            .len(),
        1
    );
    assert_eq!(pool.private_limit(id(100)).unwrap(), Some(32 * MIB));
    let report = pool.private_sweep(&[id(100)]).unwrap();
    assert!(
        report.removed.contains(&Swept::Remains(id(101))),
        "{report:?}"
    );
    assert!(!areas.join(".dead-100").exists() && !areas.join(".dead-101").exists());
    assert_eq!(btrfs::qgroup_info(pool.root(), group(101)).unwrap(), None);
    assert_no_groups_left(&pool);
    close(&folder, pool);
}

fn a_sweep_leaves_nothing_and_no_kept_ve_loses() {
    let folder = Folder::new();
    let pool = folder.pool();
    for number in 100..106 {
        pool.private_create(id(number), Some(64 * MIB)).unwrap();
    }
    btrfs::qgroup_create(pool.root(), group(200)).unwrap();
    btrfs::qgroup_create(pool.root(), group(201)).unwrap();
    btrfs::qgroup_create(pool.root(), group(7)).unwrap();
    let report = pool.private_sweep(&[id(100), id(105), id(201)]).unwrap();
    assert!(report.failed.is_empty(), "{report:?}");
    for number in 101..105 {
        assert!(
            report.removed.contains(&Swept::Area(id(number))),
            "{report:?}"
        );
    }
    assert!(
        report.removed.contains(&Swept::Group(id(200))),
        "{report:?}"
    );
    assert_eq!(pool.private_list().unwrap(), [id(100), id(105)]);
    let groups: Vec<_> = btrfs::qgroups(pool.root(), 1)
        .unwrap()
        .into_iter()
        .map(|(group, _)| group)
        .collect();
    assert_eq!(groups, [group(7), group(100), group(105), group(201)]);
    assert_no_groups_left(&pool);
    close(&folder, pool);
}

fn what_is_no_area_is_refused() {
    let folder = Folder::new();
    let pool = folder.pool();
    let error = pool.private_open(id(100)).unwrap_err();
    assert!(matches!(error, PrivateError::NotFound { .. }), "{error}");
    let path = pool.path().join("private/100");
    fs::create_dir(&path).unwrap();
    assert!(matches!(
        pool.private_open(id(100)),
        Err(PrivateError::NotAnArea { .. })
    ));
    assert!(matches!(
        pool.private_create(id(100), None),
        Err(PrivateError::NotAnArea { .. })
    ));
    fs::remove_dir(&path).unwrap();
    std::os::unix::fs::symlink("/etc", &path).unwrap();
    assert!(matches!(
        pool.private_open(id(100)),
        Err(PrivateError::NotAnArea { .. })
    ));
    close(&folder, pool);
}

fn a_work_directory_is_replaced() {
    let folder = Folder::new();
    let pool = folder.pool();
    pool.private_create(id(100), None).unwrap();
    let area = pool.path().join("private/100");
    fs::create_dir_all(area.join("work/index/deep")).unwrap();
    fs::create_dir_all(area.join(".work-dead/from/a/crash")).unwrap();
    fs::write(upper(&pool, id(100)).join("kept"), "").unwrap();
    pool.private_work_reset(id(100)).unwrap();
    assert_eq!(fs::read_dir(area.join("work")).unwrap().count(), 0);
    assert!(!area.join(".work-dead").exists() && area.join("upper/kept").exists());
    fs::remove_dir(area.join("work")).unwrap();
    pool.private_work_reset(id(100)).unwrap();
    assert!(area.join("work").is_dir());
    close(&folder, pool);
}

fn a_full_pool_says_so() {
    let folder = Folder::new();
    let pool = folder.pool();
    pool.private_create(id(100), None).unwrap();
    // Reserving fills without writing.
    let path = upper(&pool, id(100)).join("file");
    let file = fs::File::create(&path).unwrap();
    let mut offset = 0;
    for step in [64 * MIB, MIB, 4096] {
        let flags = rustix::fs::FallocateFlags::empty();
        while rustix::fs::fallocate(&file, flags, offset, step).is_ok() {
            offset += step;
        }
    }
    assert!(offset > GIB, "{offset}");
    let (error, _) = fill(&upper(&pool, id(100)).join("more"));
    assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
    let full = pool.explain_full(&error, Some(id(100))).unwrap();
    assert!(
        matches!(full, Full::Pool { .. }) && full.to_string().contains("grow"),
        "{full}"
    );
    let health = pool.health().unwrap();
    assert!(
        !health.read_only && !health.problems.is_empty(),
        "{health:?}"
    );

    // Other areas can still be made and removed, and deleting helps.
    pool.private_create(id(101), Some(64 * MIB)).unwrap();
    pool.private_remove(id(101)).unwrap();
    drop(file);
    fs::remove_file(&path).unwrap();
    pool.sync().unwrap();
    fs::write(upper(&pool, id(100)).join("after"), vec![1; 32 << 20]).unwrap();
    close(&folder, pool);
}
