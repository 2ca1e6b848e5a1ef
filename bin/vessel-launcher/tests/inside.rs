//! Work in a VE: commands, terminals, the console, files.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::tests_outside_test_module,
    reason = "tests"
)]

mod common;

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use common::{IDLE, Node, busybox_tree};
use runtime::{CallError, CgroupEntry, ExecSpec, ExecStreams, FailureKind, WindowSize};

fn command(words: &[&str]) -> ExecSpec {
    ExecSpec {
        command: words.iter().map(|word| (*word).to_owned()).collect(),
        user: "root".to_owned(),
        environment: Vec::new(),
        directory: None,
        login: false,
        terminal: None,
        open_files: runtime::open_files(None),
    }
}

fn kind_of(outcome: Result<impl std::fmt::Debug, CallError>) -> FailureKind {
    match outcome.unwrap_err() {
        CallError::Failed(failure) => failure.kind,
        other => panic!("{other}"),
    }
}

#[test]
fn commands_run_as_their_user_and_say_how_they_ended() {
    let Some(node) = Node::start() else { return };
    let Some(tree) = busybox_tree(node.root(), IDLE) else {
        return;
    };
    let spec = node.spec(40_300, &tree);
    let id = spec.id;
    let groups = CgroupEntry::default();
    node.client.launch(&spec, &groups).unwrap();
    let (_, text) = node.shell_as(
        id,
        "web",
        "id; pwd; echo $HOME $USER; umask; cat /proc/self/sessionid >/dev/null; ulimit -n",
    );
    assert_eq!(
        text,
        "uid=33(web) gid=33(web) groups=33(web),50(extra)\n/tmp\n/tmp web\n0022\n1024\n"
    );
    let null = fs::File::open("/dev/null").unwrap();
    let streams = ExecStreams {
        input: null.as_fd(),
        output: null.as_fd(),
        error: null.as_fd(),
    };
    let run = |spec: &ExecSpec| node.client.exec(id, spec, Some(streams), &groups);
    assert_eq!(
        kind_of(run(&command(&["none"]))),
        FailureKind::CommandNotFound
    );
    assert_eq!(
        kind_of(run(&command(&["/etc/passwd"]))),
        FailureKind::CommandNotExecutable
    );
    let nobody = ExecSpec {
        user: "nobody-here".to_owned(),
        ..command(&["id"])
    };
    assert_eq!(kind_of(run(&nobody)), FailureKind::Guest);
    let task = run(&command(&["sleep", "1000"])).unwrap();
    task.signal(15).unwrap();
    assert_eq!(task.wait().unwrap().code, 128 + 15);
    assert!(task.signal(15).is_err());
    assert_eq!(run(&command(&["true"])).unwrap().wait().unwrap().code, 0);
}

#[test]
fn a_terminal_is_the_ves_own() {
    let Some(node) = Node::start() else { return };
    let Some(tree) = busybox_tree(node.root(), IDLE) else {
        return;
    };
    let spec = node.spec(40_310, &tree);
    let id = spec.id;
    let groups = CgroupEntry::default();
    node.client.launch(&spec, &groups).unwrap();
    let terminal = Some(WindowSize {
        rows: 33,
        columns: 99,
    });
    let look = command(&[
        "/bin/sh",
        "-c",
        "tty; stty size; echo >/dev/tty && read x; echo got $x",
    ]);
    let mut task = node
        .client
        .exec(id, &ExecSpec { terminal, ..look }, None, &groups)
        .unwrap();
    let mut master = fs::File::from(task.take_terminal().unwrap());
    master.write_all(b"typed\n").unwrap();
    let mut text = Vec::new();
    let _ = master.read_to_end(&mut text); // EIO at its end
    let text = String::from_utf8(text).unwrap();
    assert!(
        text.contains("/dev/pts/") && text.contains("33 99"),
        "{text}"
    );
    assert!(text.contains("got typed"), "{text}");
    assert_eq!(task.wait().unwrap().code, 0);
    drop(master);

    // A hostile root puts something else where terminals come from.
    let swap = "umount /dev/pts && mkfifo /dev/pts/ptmx 2>&1";
    assert_eq!(node.shell(id, swap), (0, String::new()));
    let outcome = node.client.exec(
        id,
        &ExecSpec {
            terminal,
            ..command(&["sh"])
        },
        None,
        &groups,
    );
    assert_eq!(kind_of(outcome), FailureKind::Guest);
}

#[test]
fn the_console_is_logged_and_shared() {
    let Some(node) = Node::start() else { return };
    let inittab = "console::respawn:/bin/sh\n";
    let Some(tree) = busybox_tree(node.root(), inittab) else {
        return;
    };
    let spec = node.spec(40_320, &tree);
    let id = spec.id;
    node.client.launch(&spec, &CgroupEntry::default()).unwrap();
    let attach = || {
        let (ours, theirs) = UnixStream::pair().unwrap();
        node.client.console_attach(id, theirs.as_fd()).unwrap();
        ours.set_read_timeout(Some(common::PATIENCE)).unwrap();
        ours
    };
    let (mut first, mut second) = (attach(), attach());
    node.client
        .console_resize(
            id,
            WindowSize {
                rows: 11,
                columns: 22,
            },
        )
        .unwrap();
    first
        .write_all(b"echo at $(stty size); echo sum $((40 + 2))\n")
        .unwrap();
    for reader in [&mut first, &mut second] {
        let mut text = String::new();
        while !text.contains("sum 42") {
            let mut buffer = [0; 1024];
            let length = reader.read(&mut buffer).unwrap();
            assert!(length > 0, "closed after: {text}");
            text.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
        assert!(text.contains("at 11 22"), "{text}");
    }
    // A flood stays within its allowance, and everything else is still served.
    first
        .write_all(b"while :; do echo 0123456789012345678901234567890123456789; done\n")
        .unwrap();
    drop((first, second));
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(node.shell(id, "echo alive").1, "alive\n");
    let size = fs::metadata(node.log(id)).unwrap().len();
    assert!(size < 1 << 20, "{size}");
    node.client.kill(id).unwrap();
    node.wait_exit(id);
}

#[test]
fn files_go_in_and_out_of_running_and_stopped_ves() {
    let Some(node) = Node::start() else { return };
    let Some(tree) = busybox_tree(node.root(), IDLE) else {
        return;
    };
    let spec = node.spec(40_330, &tree);
    let id = spec.id;
    let groups = CgroupEntry::default();
    for stopped in [None, Some(&spec.root)] {
        if stopped.is_none() {
            node.client.launch(&spec, &groups).unwrap();
        }
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(6);
        header.set_mode(0o4755);
        header.set_uid(33);
        header.set_gid(50);
        header.set_cksum();
        archive
            .append_data(&mut header, "sub/file", b"inside".as_slice())
            .unwrap();
        let bytes = archive.into_inner().unwrap();
        let (read, mut write) = std::io::pipe().unwrap();
        let task = node
            .client
            .unpack(id, stopped, "/srv/new", read.as_fd(), &groups)
            .unwrap();
        drop(read);
        write.write_all(&bytes).unwrap();
        drop(write);
        let end = task.wait().unwrap();
        assert_eq!((end.code, end.message), (0, None));

        let (mut read, write) = std::io::pipe().unwrap();
        let task = node
            .client
            .pack(id, stopped, "/srv/new", write.as_fd(), &groups)
            .unwrap();
        drop(write);
        let mut bytes = Vec::new();
        read.read_to_end(&mut bytes).unwrap();
        assert_eq!(task.wait().unwrap().code, 0);
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entry = archive.entries().unwrap().map(Result::unwrap);
        let found: Vec<_> = entry
            .filter(|entry| entry.path().unwrap().ends_with("file"))
            .map(|entry| {
                (
                    entry.header().uid().unwrap(),
                    entry.header().mode().unwrap() & 0o7777,
                )
            })
            .collect();
        assert_eq!(found, [(33, 0o4755)]);
        // On disk it lies unshifted.
        let file = fs::metadata(spec.root.private.join("upper/srv/new/sub/file")).unwrap();
        assert_eq!((file.uid(), file.gid()), (33, 50));

        let (_, write) = std::io::pipe().unwrap();
        let none = node
            .client
            .pack(id, stopped, "/srv/none", write.as_fd(), &groups);
        assert_eq!(kind_of(none), FailureKind::Guest);
        if stopped.is_none() {
            let root = Some(&spec.root);
            let busy = node.client.pack(id, root, "/etc", write.as_fd(), &groups);
            assert_eq!(kind_of(busy), FailureKind::Busy);
            node.client.kill(id).unwrap();
            node.wait_exit(id);
        }
    }
}

#[test]
fn links_of_a_hostile_tree_lead_nowhere_outside() {
    let Some(node) = Node::start() else { return };
    let Some(tree) = busybox_tree(node.root(), IDLE) else {
        return;
    };
    let secret = node.root().join("secret");
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join("hostname"), "the node's").unwrap();
    let mut spec = node.spec(40_340, &tree);
    let upper = spec.root.private.join("upper");
    let mut outside = "../".repeat(40);
    outside.push_str(secret.to_str().unwrap());
    symlink(&outside, upper.join("srv")).unwrap();
    symlink(secret.join("hostname"), upper.join("linked")).unwrap();
    fs::create_dir(upper.join("etc")).unwrap();
    symlink(secret.join("hostname"), upper.join("etc/hostname")).unwrap();
    spec.facts.hostname = Some("guest".to_owned());
    let id = spec.id;
    let groups = CgroupEntry::default();
    node.client.launch(&spec, &groups).unwrap();
    assert_eq!(node.shell(id, "cat /etc/hostname").1, "guest\n");
    let (_read, write) = std::io::pipe().unwrap();
    for path in ["/srv/hostname", "/linked/x"] {
        let outcome = node.client.pack(id, None, path, write.as_fd(), &groups);
        assert_eq!(kind_of(outcome), FailureKind::Guest, "{path}");
    }
    assert_eq!(
        fs::read_to_string(secret.join("hostname")).unwrap(),
        "the node's"
    );
    assert_eq!(fs::read_dir(&secret).unwrap().count(), 1);
}

#[test]
fn nobody_enters_a_ve_that_is_not_there_yet() {
    let Some(node) = Node::start() else { return };
    let Some(tree) = busybox_tree(node.root(), IDLE) else {
        return;
    };
    let spec = node.spec(40_380, &tree);
    let id = spec.id;
    let groups = CgroupEntry::default();
    let null = fs::File::open("/dev/null").unwrap();
    let streams = ExecStreams {
        input: null.as_fd(),
        output: null.as_fd(),
        error: null.as_fd(),
    };
    // The first process of a VE sees the node's files until it has left them.
    let look = format!("test -e {}", node.root().display());
    let look = command(&["/bin/sh", "-c", &look]);
    for _ in 0..20 {
        std::thread::scope(|scope| {
            let launch = scope.spawn(|| node.client.launch(&spec, &groups).map(|_| ()));
            while !launch.is_finished() {
                match node.client.exec(id, &look, Some(streams), &groups) {
                    Ok(task) => assert_eq!(task.wait().unwrap().code, 1),
                    Err(error) => assert!(matches!(
                        kind_of(Err::<(), _>(error)),
                        FailureKind::Busy | FailureKind::NotFound
                    )),
                }
            }
            launch.join().unwrap().unwrap();
        });
        node.client.kill(id).unwrap();
        node.wait_exit(id);
    }
}
