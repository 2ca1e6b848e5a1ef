//! Where pools lie: made, found, refused, opened again, grown.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use kernel::loop_device::LoopDevice;
use pool::{
    Closed, CreateError, Full, GrowError, OpenError, Options, Pool, Problem, Quota, Source, Warning,
};

use crate::fixture::{Folder, GIB, MIB, close, id, is_mounted, upper};

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("a_new_pool_is_found_again", a_new_pool_is_found_again),
    (
        "a_pool_is_for_root_only_and_mounted_safely",
        a_pool_is_for_root_only_and_mounted_safely,
    ),
    (
        "what_is_no_pool_is_never_overwritten",
        what_is_no_pool_is_never_overwritten,
    ),
    (
        "an_unfinished_file_is_made_anew",
        an_unfinished_file_is_made_anew,
    ),
    (
        "a_pool_that_is_still_used_is_found_on_its_device",
        a_pool_that_is_still_used_is_found_on_its_device,
    ),
    ("a_device_holds_a_pool", a_device_holds_a_pool),
    ("a_device_in_use_is_refused", a_device_in_use_is_refused),
    (
        "a_directory_of_a_btrfs_is_a_pool",
        a_directory_of_a_btrfs_is_a_pool,
    ),
    (
        "a_mount_point_that_is_taken_is_refused",
        a_mount_point_that_is_taken_is_refused,
    ),
    ("a_pool_grows_while_in_use", a_pool_grows_while_in_use),
    ("sizes_are_honest", sizes_are_honest),
    (
        "a_file_that_was_deleted_is_a_problem",
        a_file_that_was_deleted_is_a_problem,
    ),
    (
        "freed_space_goes_back_to_the_disk",
        freed_space_goes_back_to_the_disk,
    ),
    ("compression_is_a_choice", compression_is_a_choice),
    (
        "a_full_disk_is_told_and_survived",
        a_full_disk_is_told_and_survived,
    ),
];

fn a_new_pool_is_found_again() {
    let folder = Folder::new();
    let pool = folder.pool();
    assert_eq!(*pool.quota(), Quota::Simple);
    assert_eq!(pool.warnings(), []);
    pool.private_create(id(100), None).unwrap();
    let number = folder.loop_number();
    assert!(number.is_some());

    // A second opening, as by a daemon that was killed and started again, finds all of it.
    let again = folder.open();
    assert_eq!(folder.loop_number(), number);
    assert_eq!(again.private_list().unwrap(), [id(100)]);
    drop(again);
    assert!(is_mounted(&folder.mount_point()));
    close(&folder, pool);

    // And so does creating, which changes nothing.
    let wanted = folder.source(3 * GIB);
    let pool = Pool::create(&wanted, &folder.mount_point(), &Options::default()).unwrap();
    assert_eq!(pool.private_list().unwrap(), [id(100)]);
    assert!(
        matches!(pool.warnings(), [Warning::SizeDiffers { .. }]),
        "{:?}",
        pool.warnings()
    );
    close(&folder, pool);
}

fn a_pool_is_for_root_only_and_mounted_safely() {
    let folder = Folder::new();
    let pool = folder.pool();
    assert_eq!(fs::metadata(pool.path()).unwrap().mode() & 0o7777, 0o700);
    assert_eq!(fs::metadata(folder.image()).unwrap().mode() & 0o7777, 0o600);
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let line = mounts
        .lines()
        .find(|line| line.contains(pool.path().to_str().unwrap()))
        .unwrap();
    for option in ["nosuid", "noatime", "discard=async"] {
        assert!(line.contains(option), "{line}");
    }
    close(&folder, pool);
}

fn what_is_no_pool_is_never_overwritten() {
    let folder = Folder::new();
    let create = |size| {
        Pool::create(
            &folder.source(size),
            &folder.mount_point(),
            &Options::default(),
        )
        .unwrap_err()
    };
    assert!(matches!(create(GIB), CreateError::TooSmall { .. }));
    assert!(!folder.image().exists());

    fs::write(folder.image(), "a letter").unwrap();
    let error = create(2 * GIB);
    assert!(matches!(error, CreateError::Occupied { .. }), "{error}");
    assert_eq!(fs::read_to_string(folder.image()).unwrap(), "a letter");

    for (mkfs, name) in [("mkfs.ext4", "ext4"), ("mkfs.btrfs", "btrfs")] {
        fs::remove_file(folder.image()).unwrap();
        fs::File::create(folder.image())
            .unwrap()
            .set_len(GIB)
            .unwrap();
        assert!(
            Command::new(mkfs)
                .arg("-q")
                .arg(folder.image())
                .status()
                .unwrap()
                .success()
        );
        let error = create(2 * GIB).to_string();
        assert!(
            error.contains(name) && error.contains("left as it is"),
            "{error}"
        );
    }
    assert_eq!(folder.loop_number(), None);
}

fn an_unfinished_file_is_made_anew() {
    let folder = Folder::new();
    // As left by a crash in mkfs.
    fs::write(folder.path("pool.img.new"), "half a file system").unwrap();
    let pool = folder.pool();
    assert!(!folder.path("pool.img.new").exists());
    close(&folder, pool);
}

fn a_pool_that_is_still_used_is_found_on_its_device() {
    let folder = Folder::new();
    let pool = folder.pool();
    pool.private_create(id(100), None).unwrap();
    let number = folder.loop_number();
    let device = fs::metadata(pool.path()).unwrap().dev();
    // A VE's hold on the file system, that a lazy unmount does not end.
    let held = fs::File::create(upper(&pool, id(100)).join("held")).unwrap();
    drop(pool);
    let flags = rustix::mount::UnmountFlags::DETACH;
    rustix::mount::unmount(folder.mount_point(), flags).unwrap();
    assert!(!is_mounted(&folder.mount_point()));
    assert_eq!(folder.loop_number(), number);

    let pool = folder.open();
    assert_eq!(folder.loop_number(), number);
    assert_eq!(fs::metadata(pool.path()).unwrap().dev(), device);
    assert_eq!(pool.close().unwrap(), Closed::StillUsed);
    drop(held);
    assert_eq!(folder.loop_number(), None);
}

/// Attaches a sparse file to stand for a disk.
fn disk(folder: &Folder, name: &str, size_bytes: u64) -> LoopDevice {
    let path = folder.path(name);
    let file = fs::File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)
        .unwrap();
    file.set_len(size_bytes).unwrap();
    LoopDevice::attach(std::os::fd::AsFd::as_fd(&file), &folder.path("")).unwrap()
}

fn a_device_holds_a_pool() {
    let folder = Folder::new();
    let device = disk(&folder, "disk", 2 * GIB);
    let source = Source::Device(device.path().to_owned());
    let options = Options::default();
    let pool = Pool::create(&source, &folder.mount_point(), &options).unwrap();
    pool.private_create(id(100), Some(64 * MIB)).unwrap();
    assert!(matches!(
        pool.grow(4 * GIB),
        Err(GrowError::DeviceSmaller { .. })
    ));
    assert_eq!(pool.close().unwrap(), Closed::Released);
    let pool = Pool::create(&source, &folder.mount_point(), &options).unwrap();
    assert_eq!(pool.private_list().unwrap(), [id(100)]);
    let open = Pool::open(&source, &folder.mount_point(), &options).unwrap();
    drop(open);

    let file = fs::File::options()
        .write(true)
        .open(folder.path("disk"))
        .unwrap();
    file.set_len(3 * GIB).unwrap();
    device.size_refresh().unwrap();
    pool.grow(3 * GIB).unwrap();
    assert_eq!(pool.usage().unwrap().size_bytes, 3 * GIB);
    assert_eq!(pool.close().unwrap(), Closed::Released);
}

fn a_device_in_use_is_refused() {
    let folder = Folder::new();
    let options = Options::default();
    let small = disk(&folder, "small", GIB);
    let source = Source::Device(small.path().to_owned());
    let error = Pool::create(&source, &folder.mount_point(), &options).unwrap_err();
    assert!(matches!(error, CreateError::TooSmall { .. }), "{error}");

    let ext4 = disk(&folder, "ext4", 2 * GIB);
    assert!(
        Command::new("mkfs.ext4")
            .arg("-q")
            .arg(ext4.path())
            .status()
            .unwrap()
            .success()
    );
    let source = Source::Device(ext4.path().to_owned());
    let error = Pool::create(&source, &folder.mount_point(), &options).unwrap_err();
    assert!(error.to_string().contains("ext4"), "{error}");

    // Mounted, and its signature hidden: nothing but the kernel knows.
    let mount = folder.path("mounted");
    fs::create_dir(&mount).unwrap();
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount(ext4.path(), &mount, "ext4", flags, None).unwrap();
    let erased = Command::new("wipefs")
        .args(["--all", "--force", "--quiet"])
        .arg(ext4.path())
        .status();
    assert!(erased.unwrap().success());
    let error = Pool::create(&source, &folder.mount_point(), &options).unwrap_err();
    assert!(matches!(error, CreateError::InUse { .. }), "{error}");
    rustix::mount::unmount(&mount, rustix::mount::UnmountFlags::empty()).unwrap();

    let source = Source::Device("/dev/null".into());
    let error = Pool::create(&source, &folder.mount_point(), &options).unwrap_err();
    assert!(matches!(error, CreateError::NotADevice { .. }), "{error}");
}

fn a_directory_of_a_btrfs_is_a_pool() {
    let folder = Folder::new();
    let host = folder.pool();
    let directory = host.path().join("staging/own");
    fs::create_dir(&directory).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
    let source = Source::Directory(directory.clone());
    let mount_point = folder.path("bound");
    let options = Options::default();
    let pool = Pool::create(&source, &mount_point, &options).unwrap();
    assert_eq!(fs::metadata(&directory).unwrap().mode() & 0o7777, 0o700);
    assert!(is_mounted(&mount_point));
    pool.private_create(id(300), Some(64 * MIB)).unwrap();
    pool.sync().unwrap();
    assert!(pool.private_usage(id(300)).unwrap() > 0);
    let again = Pool::create(&source, &mount_point, &options).unwrap();
    assert_eq!(again.private_list().unwrap(), [id(300)]);
    // What is another node's on the same btrfs stays.
    host.private_create(id(100), None).unwrap();
    let report = again.private_sweep(&[]).unwrap();
    assert!(report.failed.is_empty(), "{report:?}");
    assert!(host.private_usage(id(100)).is_ok() && pool.private_usage(id(300)).is_err());
    drop(again);
    assert_eq!(pool.close().unwrap(), Closed::Released);
    assert!(!is_mounted(&mount_point));

    // In place, nothing is mounted, and nothing unmounted.
    let pool = Pool::open(&source, &directory, &options).unwrap();
    assert_eq!(pool.close().unwrap(), Closed::Released);

    fs::write(directory.join("letter"), "").unwrap();
    let other = host.path().join("staging/other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("letter"), "").unwrap();
    let error = Pool::create(&Source::Directory(other), &mount_point, &options).unwrap_err();
    assert!(error.to_string().contains("letter"), "{error}");
    let error =
        Pool::create(&Source::Directory(folder.path("")), &mount_point, &options).unwrap_err();
    assert!(matches!(error, CreateError::NotBtrfs { .. }), "{error}");
    close(&folder, host);
}

fn a_mount_point_that_is_taken_is_refused() {
    let folder = Folder::new();
    fs::create_dir(folder.mount_point()).unwrap();
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("none", folder.mount_point(), "tmpfs", flags, None).unwrap();
    let error = Pool::create(
        &folder.source(2 * GIB),
        &folder.mount_point(),
        &Options::default(),
    );
    let error = error.unwrap_err();
    assert!(
        matches!(error, CreateError::Open(OpenError::Taken { .. })),
        "{error}"
    );
    rustix::mount::unmount(folder.mount_point(), rustix::mount::UnmountFlags::empty()).unwrap();
    assert_eq!(folder.loop_number(), None);
}

fn a_pool_grows_while_in_use() {
    let folder = Folder::new();
    let pool = folder.pool();
    assert!(matches!(pool.grow(GIB), Err(GrowError::Shrink { .. })));
    pool.grow(4 * GIB).unwrap();
    pool.grow(4 * GIB).unwrap();
    let usage = pool.usage().unwrap();
    assert_eq!(usage.size_bytes, 4 * GIB);
    assert!(usage.free_bytes > 3 * GIB, "{usage:?}");
    // A crash after the file grew: growing again finishes it, and so does opening the device's part.
    fs::File::options()
        .write(true)
        .open(folder.image())
        .unwrap()
        .set_len(5 * GIB)
        .unwrap();
    pool.grow(5 * GIB).unwrap();
    assert_eq!(pool.usage().unwrap().size_bytes, 5 * GIB);
    close(&folder, pool);
}

fn sizes_are_honest() {
    let folder = Folder::new();
    let pool = folder.pool();
    let before = pool.usage().unwrap();
    assert_eq!(before.size_bytes, 2 * GIB);
    assert!(before.used_bytes < 16 * MIB, "{before:?}");
    assert!(
        before.free_bytes > GIB && before.free_bytes < 2 * GIB,
        "{before:?}"
    );
    assert!(before.metadata_free_bytes > 128 * MIB, "{before:?}");
    fs::write(pool.staging_path().join("file"), vec![1; 64 << 20]).unwrap();
    pool.sync().unwrap();
    let after = pool.usage().unwrap();
    let grown = after.used_bytes - before.used_bytes;
    assert!((64 * MIB..66 * MIB).contains(&grown), "{grown}");
    let file = after.backing.unwrap();
    assert_eq!(file.size_bytes, 2 * GIB);
    assert!((64 * MIB..GIB).contains(&file.allocated_bytes), "{file:?}");
    let health = pool.health().unwrap();
    assert!(
        !health.read_only && health.problems.is_empty(),
        "{health:?}"
    );
    assert_eq!(health.devices.len(), 1);
    close(&folder, pool);
}

fn a_file_that_was_deleted_is_a_problem() {
    let folder = Folder::new();
    let pool = folder.pool();
    let aside = folder.path("aside");
    fs::rename(folder.image(), &aside).unwrap();
    let problems = pool.health().unwrap().problems;
    assert!(
        matches!(problems.as_slice(), [Problem::BackingGone { .. }]),
        "{problems:?}"
    );
    fs::rename(&aside, folder.image()).unwrap();
    assert_eq!(pool.health().unwrap().problems, []);
    close(&folder, pool);
}

fn freed_space_goes_back_to_the_disk() {
    let folder = Folder::new();
    let pool = folder.pool();
    let file = pool.staging_path().join("file");
    fs::write(&file, vec![1; 128 << 20]).unwrap();
    pool.sync().unwrap();
    let full = pool.usage().unwrap().backing.unwrap().allocated_bytes;
    fs::remove_file(&file).unwrap();
    pool.sync().unwrap();
    assert!(pool.trim().unwrap() > 0);
    let freed = full - pool.usage().unwrap().backing.unwrap().allocated_bytes;
    assert!(freed > 100 * MIB, "{freed}");
    close(&folder, pool);
}

fn compression_is_a_choice() {
    let folder = Folder::new();
    let options = Options {
        compression: pool::Compression::Zstd1,
    };
    let pool = Pool::create(&folder.source(2 * GIB), &folder.mount_point(), &options).unwrap();
    let before = pool.usage().unwrap().used_bytes;
    fs::write(pool.staging_path().join("file"), vec![1; 64 << 20]).unwrap();
    pool.sync().unwrap();
    let grown = pool.usage().unwrap().used_bytes - before;
    assert!(grown < 8 * MIB, "{grown}");
    close(&folder, pool);
}

/// The disk under a sparse file fills up: the worst that a pool can meet, as its file system was
/// promised more than there is.
fn a_full_disk_is_told_and_survived() {
    let folder = Folder::new();
    let device = disk(&folder, "disk", 600 * MIB);
    assert!(
        Command::new("mkfs.ext4")
            .arg("-q")
            .arg(device.path())
            .status()
            .unwrap()
            .success()
    );
    let host = folder.path("host");
    fs::create_dir(&host).unwrap();
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount(device.path(), &host, "ext4", flags, None).unwrap();
    let source = Source::LoopFile {
        path: host.join("pool.img"),
        size_bytes: 2 * GIB,
    };
    let (mount_point, options) = (folder.mount_point(), Options::default());
    let pool = Pool::create(&source, &mount_point, &options).unwrap();
    assert!(
        matches!(pool.warnings(), [Warning::DiskSmaller { .. }]),
        "{:?}",
        pool.warnings()
    );
    assert!(pool.usage().unwrap().free_bytes < 600 * MIB);
    pool.private_create(id(100), None).unwrap();
    fs::write(upper(&pool, id(100)).join("kept"), "content").unwrap();
    pool.sync().unwrap();

    // Something else takes the disk, and then the VE writes.
    let taken = fs::File::create(host.join("taken")).unwrap();
    let fallocate =
        |bytes| rustix::fs::fallocate(&taken, rustix::fs::FallocateFlags::empty(), 0, bytes);
    let free = pool.usage().unwrap().backing.unwrap().disk_free_bytes;
    fallocate(free - 32 * MIB).unwrap();
    let problems = pool.health().unwrap().problems;
    assert!(
        matches!(problems.as_slice(), [Problem::DiskLow { .. }]),
        "{problems:?}"
    );
    // The page cache takes it; only writing out shows that there is no room.
    let written = fs::write(upper(&pool, id(100)).join("file"), vec![1; 64 << 20]);
    let error = written.and_then(|()| pool.sync()).unwrap_err();
    let full = pool.explain_full(&error, Some(id(100))).unwrap();
    assert!(matches!(full, Full::Disk { .. }), "{full}");
    let problems = pool.health().unwrap().problems;
    assert!(
        problems.contains(&Problem::ReadOnly { disk_full: true }),
        "{problems:?}"
    );

    // Room is made: after opening again, all that was there before is.
    drop(taken);
    fs::remove_file(host.join("taken")).unwrap();
    pool.close().unwrap();
    let pool = Pool::open(&source, &mount_point, &options).unwrap();
    let upper = upper(&pool, id(100));
    assert_eq!(fs::read_to_string(upper.join("kept")).unwrap(), "content");
    fs::write(upper.join("file"), vec![1; 64 << 20]).unwrap();
    pool.sync().unwrap();
    assert!(!pool.health().unwrap().read_only);
    assert_eq!(pool.close().unwrap(), Closed::Released);
    rustix::mount::unmount(&host, rustix::mount::UnmountFlags::empty()).unwrap();
}
