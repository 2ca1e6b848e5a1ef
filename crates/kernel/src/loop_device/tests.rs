//! Loop devices, real where that is possible.

use std::os::unix::fs::MetadataExt;

use super::*;

/// Why the tests below cannot run here, if so.
fn missing() -> Option<&'static str> {
    let root = rustix::process::geteuid().is_root();
    match (root, Path::new(CONTROL_PATH).exists()) {
        (true, true) => None,
        (false, _) => Some("not root"),
        (_, false) => Some("no /dev/loop-control"),
    }
}

fn file(directory: &Path) -> fs::File {
    let path = directory.join("file");
    let file = fs::File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path);
    let file = file.unwrap();
    file.set_len(8 << 20).unwrap();
    file
}

#[test]
fn the_size_request_is_that_of_the_header() {
    assert_eq!(BLKGETSIZE64, 0x8008_1272);
}

#[test]
fn a_file_is_attached_once_and_detached_with_its_last_user() {
    if let Some(reason) = missing() {
        println!("not run: {reason}");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = file(directory.path());
    let first = LoopDevice::attach(file.as_fd(), directory.path()).unwrap();
    let second = LoopDevice::attach(file.as_fd(), directory.path()).unwrap();
    assert_eq!(first.number(), second.number());
    let status = first.status().unwrap();
    assert!(status.autoclear && !status.read_only, "{status:?}");
    assert_eq!((status.offset_bytes, status.size_limit_bytes), (0, None));
    assert_eq!(first.size_bytes().unwrap(), 8 << 20);

    file.set_len(16 << 20).unwrap();
    first.size_refresh().unwrap();
    assert_eq!(first.size_bytes().unwrap(), 16 << 20);

    drop(first);
    assert!(
        LoopDevice::find(file.as_fd(), directory.path())
            .unwrap()
            .is_some()
    );
    drop(second);
    assert!(
        LoopDevice::find(file.as_fd(), directory.path())
            .unwrap()
            .is_none()
    );
}

#[test]
fn many_at_once_get_a_device_each() {
    if let Some(reason) = missing() {
        println!("not run: {reason}");
        return;
    }
    let attach = || {
        let directory = tempfile::tempdir().unwrap();
        let file = file(directory.path());
        LoopDevice::attach(file.as_fd(), directory.path()).unwrap()
    };
    let devices: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..12).map(|_| scope.spawn(attach)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let mut numbers: Vec<_> = devices.iter().map(LoopDevice::number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 12);
}

#[test]
fn a_missing_node_is_made_in_the_private_directory() {
    if let Some(reason) = missing() {
        println!("not run: {reason}");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let node = directory.path().join("loop7");
    make_node(7, &node).unwrap();
    make_node(7, &node).unwrap();
    assert_eq!(
        fs::metadata(&node).unwrap().rdev(),
        rustix::fs::makedev(LOOP_MAJOR, 7)
    );
    assert!(open_node(7, &node, OFlags::RDONLY).is_ok());
    assert!(open_node(8, &node, OFlags::RDONLY).is_err());
}
