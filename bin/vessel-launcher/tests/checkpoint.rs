//! VEs that are put on disk and woken.
//!
//! Needs CRIU (`cargo xtask dependencies`); says so and passes without. Whole distributions sleep in the
//! system tests.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::tests_outside_test_module,
    reason = "tests"
)]

mod common;

use std::fs;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cgroup::{Entry, Layout, NodeGroup, VeGroup};
use checkpoint::resume::{self, ResumeRequest, resume};
use checkpoint::settle::settle;
use checkpoint::suspend::{SuspendRequest, suspend};
use checkpoint::{Criu, Follower, ResumeError, Settled, SuspendError};
use common::{Node, busybox_tree};
use runtime::protocol::Launched;
use runtime::{CgroupEntry, ExecSpec, ExecStreams, InitKind, LaunchSpec};
use ve::{Exit, VeId};

/// A node that can put its VE on disk.
struct Bedroom {
    node: Node,
    group: NodeGroup,
    own: VeGroup,
    spec: LaunchSpec,
    criu: Criu,
    folder: PathBuf,
    gate: PathBuf,
    follower: Will,
}

/// Whether somebody changes his mind.
#[derive(Debug, Default)]
struct Will(AtomicBool);

impl Follower for Will {
    fn wrote(&self, _: u64) {}

    fn cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Bedroom {
    fn new(first: u32, tree: &Path, kind: InitKind) -> Option<Self> {
        let node = Node::start()?;
        let programs = Path::new(env!("CARGO_BIN_EXE_vessel-launcher"))
            .parent()
            .unwrap();
        let criu = match Criu::find(programs, &node.root().join("run")) {
            Ok(criu) => criu,
            Err(error) => {
                println!("skipped: {error}");
                return None;
            }
        };
        let group = NodeGroup::open(&Layout::detect().unwrap(), VeId::new(first).unwrap(), None);
        let group = group.unwrap();
        let mut spec = node.spec(first + 1, tree);
        spec.kind = kind;
        spec.facts.hostname = Some("guest".to_owned());
        let own = group.create(spec.id).unwrap();
        let folder = node.root().join(format!("checkpoints/{}", spec.id));
        let gate = node.root().join("run/gate.sock");
        Some(Self {
            node,
            group,
            own,
            spec,
            criu,
            folder,
            gate,
            follower: Will::default(),
        })
    }

    fn launch(&self) -> Launched {
        let entry = self.own.entry().unwrap();
        self.node
            .client
            .launch(&self.spec, &groups(&entry))
            .unwrap()
    }

    fn request(&self, init: Launched) -> SuspendRequest<'_> {
        SuspendRequest {
            id: self.spec.id,
            init,
            group: &self.own,
            linked: false,
            addresses: &[],
            folder: &self.folder,
            gate: &self.gate,
            criu: &self.criu,
            follower: &self.follower,
        }
    }

    /// Puts the VE on disk and clears up after it as after any end.
    fn sleep(&self, init: Launched) {
        let suspended = suspend(&self.request(init)).unwrap();
        println!("on disk: {suspended:?}");
        assert_eq!(self.node.wait_exit(self.spec.id), Exit::Signal(9));
        self.group.remove(self.spec.id).unwrap();
        assert!(!Path::new(&format!("/proc/{}", init.pid)).exists());
    }

    fn settle(&self, init: Launched) -> Result<Settled, SuspendError> {
        settle(self.spec.id, Some(init), &self.own, &self.folder)
    }

    fn wake(&self) -> Result<Launched, ResumeError> {
        self.group.create(self.spec.id).unwrap();
        let begun = Instant::now();
        let woken = resume(&ResumeRequest {
            launch: self.spec.clone(),
            group: &self.own,
            folder: &self.folder,
            gate: &self.gate,
            work: &self.gate.with_extension("work"),
            criu: &self.criu,
            launcher: &self.node.client,
            follower: &self.follower,
        });
        println!("woken in {:?}", begun.elapsed());
        if woken.is_err() {
            let log = self.gate.with_extension("work").join("restore.log");
            let log = fs::read_to_string(log);
            println!("{}", log.unwrap_or_default());
        }
        woken
    }

    fn end(self) {
        self.node.client.kill(self.spec.id).unwrap();
        self.node.wait_exit(self.spec.id);
        self.group.remove(self.spec.id).unwrap();
        self.group.close_and_remove().unwrap();
    }
}

fn groups(entry: &Entry) -> CgroupEntry<'_> {
    CgroupEntry {
        v1_tasks: entry.v1_tasks.iter().map(|file| file.as_fd()).collect(),
        v2: entry.v2_directory.as_ref().map(|file| file.as_fd()),
    }
}

/// Counts into a file that it keeps open and another that it has deleted; holds memory.
const COUNTING: &str = "::sysinit:/bin/echo booted\n::respawn:/bin/count\n::respawn:/bin/hold\n";
const HOLD: &str = "#!/bin/sh\nx=$(dd if=/dev/zero bs=1M count=64 2>/dev/null | tr '\\0' x)\n> /held\n\
                    while :; do sleep 1; done\n";
/// Bytes that it holds.
const HELD: u64 = 64 << 20;
const COUNT: &str = "#!/bin/sh\nexec 3>>/count 4>/gone; rm /gone; i=0\n\
                     while :; do i=$((i+1)); echo $i >&3; echo $i >&4; sleep 0.05; done\n";

const KILL_COUNT: &str = "for p in /proc/[0-9]*; do \
     if [ \"$(cat $p/comm 2>/dev/null)\" = count ]; then kill ${p#/proc/}; fi; done; cat /proc/1/comm";

fn counting_tree(folder: &Path) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let tree = busybox_tree(folder, COUNTING)?;
    for (name, script) in [("bin/count", COUNT), ("bin/hold", HOLD)] {
        fs::write(tree.join(name), script).unwrap();
        fs::set_permissions(tree.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    Some(tree)
}

fn count(bedroom: &Bedroom) -> u32 {
    let text = fs::read_to_string(bedroom.spec.root.private.join("upper/count"));
    text.unwrap_or_default()
        .lines()
        .last()
        .and_then(|l| l.parse().ok())
        .unwrap_or(0)
}

fn wait_count(bedroom: &Bedroom, least: u32) -> u32 {
    let until = Instant::now() + common::PATIENCE;
    while Instant::now() < until {
        let found = count(bedroom);
        if found >= least {
            return found;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("the VE does not count on from {}", count(bedroom));
}

#[test]
fn processes_go_on_where_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let Some(tree) = counting_tree(folder.path()) else {
        return;
    };
    let Some(mut bedroom) = Bedroom::new(40_300, &tree, InitKind::Other) else {
        return;
    };
    let mut init = bedroom.launch();
    wait_count(&bedroom, 3);
    // Twice: what was woken must be such that it can sleep again.
    for _ in 0..2 {
        bedroom.sleep(init);
        let slept = count(&bedroom);
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(count(&bedroom), slept, "it went on while on disk");
        bedroom.node.reconnect();
        init = bedroom.wake().unwrap();
        let before = wait_count(&bedroom, slept + 2);
        assert!(before < slept + 1_000);
        assert_eq!(bedroom.node.client.list().unwrap()[0].init, init);
    }
    // Process 1 answers: it makes the counter anew, which begins at 1.
    let (code, said) = bedroom.node.shell(bedroom.spec.id, KILL_COUNT);
    assert_eq!((code, said.as_str()), (0, "init\n"));
    let until = Instant::now() + common::PATIENCE;
    while count(&bedroom) > 20 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(count(&bedroom) <= 20);
    let (_, owner) = bedroom
        .node
        .shell(bedroom.spec.id, "cat /proc/self/uid_map");
    assert!(
        owner.contains(&bedroom.spec.id.uid_base().get().to_string()),
        "{owner}"
    );
    resume::discard(&bedroom.folder).unwrap();
    assert!(!bedroom.folder.exists());
    bedroom.end();
}

#[test]
fn a_failed_dump_leaves_the_ve_running() {
    let folder = tempfile::tempdir().unwrap();
    let Some(tree) = counting_tree(folder.path()) else {
        return;
    };
    let Some(mut bedroom) = Bedroom::new(40_310, &tree, InitKind::Other) else {
        return;
    };
    let init = bedroom.launch();
    wait_count(&bedroom, 3);

    // A CRIU that fails, one that is not there, and one that the kernel kills.
    let real = bedroom.criu.clone();
    for (program, words) in [
        ("/bin/false", "no reason"),
        ("/nonexistent/criu", "run CRIU"),
    ] {
        bedroom.criu.program.command = vec![program.to_owned()];
        let error = suspend(&bedroom.request(init)).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert!(!bedroom.own.is_frozen().unwrap());
        wait_count(&bedroom, count(&bedroom) + 2);
        assert!(!bedroom.folder.exists());
        assert_eq!(bedroom.settle(init).unwrap(), Settled::Awake);
    }
    bedroom.criu = real;

    // Somebody changes his mind, and takes back what CRIU has done.
    bedroom.follower.0.store(true, Ordering::Relaxed);
    let error = suspend(&bedroom.request(init)).unwrap_err();
    assert!(matches!(error, SuspendError::Cancelled { .. }), "{error}");
    assert!(!bedroom.own.is_frozen().unwrap() && !bedroom.folder.exists());
    bedroom.follower.0.store(false, Ordering::Relaxed);
    wait_count(&bedroom, count(&bedroom) + 2);

    // Somebody is in it.
    let null = fs::File::open("/dev/null").unwrap();
    let streams = ExecStreams {
        input: null.as_fd(),
        output: null.as_fd(),
        error: null.as_fd(),
    };
    let spec = ExecSpec {
        command: vec!["sleep".to_owned(), "1000".to_owned()],
        user: "root".to_owned(),
        environment: Vec::new(),
        directory: None,
        login: false,
        terminal: None,
        open_files: runtime::open_files(None),
    };
    let entry = bedroom.own.exec_entry().unwrap();
    let id = bedroom.spec.id;
    let task = bedroom
        .node
        .client
        .exec(id, &spec, Some(streams), &groups(&entry))
        .unwrap();
    let error = suspend(&bedroom.request(init)).unwrap_err();
    assert!(matches!(error, SuspendError::Stray { .. }), "{error}");
    assert!(error.to_string().contains("`sleep`"), "{error}");
    task.signal(9).unwrap();
    task.wait().unwrap();

    // And after all that it can still be put on disk.
    bedroom.sleep(init);
    bedroom.wake().unwrap();
    wait_count(&bedroom, count(&bedroom) + 2);
    bedroom.end();
}

#[test]
fn a_failed_waking_leaves_the_ve_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let Some(tree) = counting_tree(folder.path()) else {
        return;
    };
    let Some(bedroom) = Bedroom::new(40_330, &tree, InitKind::Other) else {
        return;
    };
    let init = bedroom.launch();
    wait_count(&bedroom, 3);
    bedroom.sleep(init);

    // Damaged images.
    let core = bedroom.folder.join("core-1.img");
    let good = fs::read(&core).unwrap();
    fs::write(&core, b"damaged").unwrap();
    let error = bedroom.wake().unwrap_err();
    assert!(matches!(error, ResumeError::Criu { .. }), "{error}");
    println!("damaged: {error}");
    assert!(bedroom.own.processes().unwrap().is_empty());
    fs::write(&core, good).unwrap();

    // Somebody changes his mind.
    let slept = count(&bedroom);
    bedroom.follower.0.store(true, Ordering::Relaxed);
    let error = bedroom.wake().unwrap_err();
    assert!(matches!(error, ResumeError::Cancelled), "{error}");
    assert!(bedroom.own.processes().unwrap().is_empty());
    assert!(resume::exists(&bedroom.folder) && count(&bedroom) == slept);
    bedroom.follower.0.store(false, Ordering::Relaxed);
    bedroom.wake().unwrap();
    assert!(!resume::exists(&bedroom.folder), "it could be woken twice");
    wait_count(&bedroom, count(&bedroom) + 2);
    bedroom.end();
}

/// A daemon died in the middle: what it began is completed or taken back.
#[test]
fn a_dump_whose_daemon_died_is_settled() {
    let folder = tempfile::tempdir().unwrap();
    let Some(tree) = counting_tree(folder.path()) else {
        return;
    };
    let Some(bedroom) = Bedroom::new(40_320, &tree, InitKind::Other) else {
        return;
    };
    let init = bedroom.launch();
    wait_count(&bedroom, 3);
    let unfinished = bedroom
        .folder
        .with_file_name(format!("{}.new", bedroom.spec.id));

    // Before CRIU began: frozen, a folder without images.
    fs::create_dir_all(&unfinished).unwrap();
    bedroom.own.freeze(Duration::from_secs(5)).unwrap();
    assert_eq!(bedroom.settle(init).unwrap(), Settled::Awake);
    assert!(!bedroom.own.is_frozen().unwrap() && !unfinished.exists());
    wait_count(&bedroom, count(&bedroom) + 2);

    // The checkpoint is valid, and its processes were not ended: they are the VE.
    fs::create_dir_all(&bedroom.folder).unwrap();
    bedroom.own.freeze(Duration::from_secs(5)).unwrap();
    assert_eq!(bedroom.settle(init).unwrap(), Settled::Awake);
    assert!(!bedroom.own.is_frozen().unwrap() && !bedroom.folder.exists());
    wait_count(&bedroom, count(&bedroom) + 2);

    // Its processes were ended.
    bedroom.sleep(init);
    bedroom.group.create(bedroom.spec.id).unwrap();
    assert_eq!(bedroom.settle(init).unwrap(), Settled::Asleep);
    assert!(bedroom.folder.exists() && !unfinished.exists());
    bedroom.wake().unwrap();
    wait_count(&bedroom, count(&bedroom) + 2);
    bedroom.end();
}

/// CRIU is killed while it writes: the VE runs on as it was.
#[test]
fn a_dump_whose_criu_is_killed_harms_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let Some(tree) = counting_tree(folder.path()) else {
        return;
    };
    let Some(bedroom) = Bedroom::new(40_340, &tree, InitKind::Other) else {
        return;
    };
    let init = bedroom.launch();
    wait_count(&bedroom, 3);
    let new = format!("{}.new", bedroom.spec.id);
    let new = bedroom.folder.with_file_name(new);
    let held = bedroom.spec.root.private.join("upper/held");
    let until = Instant::now() + common::PATIENCE;
    while !held.exists() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20));
    }
    for _ in 0..5 {
        let dumped = while_criu_is_killed(&new, || suspend(&bedroom.request(init)));
        let error = dumped.unwrap_err();
        assert!(
            error.to_string().ends_with("it was ended by signal 9"),
            "{error}"
        );
        assert!(!bedroom.folder.exists() && !new.exists());
        wait_count(&bedroom, count(&bedroom) + 2);
        // Nothing keeps packets away any more, not even its own.
        let (code, said) = bedroom
            .node
            .shell(bedroom.spec.id, "ping -c 1 -W 5 127.0.0.1");
        assert_eq!(code, 0, "{said}");
    }
    bedroom.sleep(init);
    bedroom.wake().unwrap();
    wait_count(&bedroom, count(&bedroom) + 2);
    bedroom.end();
}

/// Kills the CRIU that writes to a folder as soon as it writes memory: at that time it has no code of
/// its own running in place of a process's.
fn while_criu_is_killed<T>(new: &Path, dump: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    let size = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let images = fs::read_dir(new).into_iter().flatten().flatten();
                let paths: Vec<_> = images.map(|entry| entry.path()).collect();
                let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
                let writes =
                    |path: &PathBuf| name(path).starts_with("pages-") && size(path) > HELD / 4;
                if !paths.iter().any(writes) {
                    continue;
                }
                let writer = checkpoint::settle::writer(new).unwrap();
                return kill(i32::try_from(writer).unwrap());
            }
        });
        let dumped = dump();
        over.store(true, Ordering::Relaxed);
        dumped
    })
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}
