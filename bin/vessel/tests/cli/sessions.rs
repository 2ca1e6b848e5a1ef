//! `exec`, `enter`, `console` and `logs`, with and without a terminal.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use api::latest::VeState;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::fake::{Served, details};
use crate::{command, run, run_with_input};

fn served() -> Served {
    let served = Served::start();
    served.node.add(details(100, "web", VeState::Running));
    served.node.add(details(101, "off", VeState::Stopped));
    served
}

#[test]
fn streams_and_codes_pass_through() {
    let served = served();
    let ran = run(
        &served,
        &[
            "exec",
            "web",
            "--",
            "sh",
            "-c",
            "echo out; echo err >&2; exit 42",
        ],
    );
    assert_eq!(
        (ran.code, ran.stdout.as_str(), ran.stderr.as_str()),
        (42, "out\n", "err\n")
    );
    let ran = run(&served, &["exec", "web", "--", "sh", "-c", "kill -TERM $$"]);
    assert_eq!(ran.code, 143);
    let ran = run(
        &served,
        &[
            "exec",
            "web",
            "-e",
            "A=b c",
            "--",
            "sh",
            "-c",
            "echo $A; env | grep -c HOME",
        ],
    );
    assert_eq!((ran.code, ran.stdout.as_str()), (1, "b c\n0\n"));
    let ran = run_with_input(
        &served,
        &["exec", "100", "--", "tr", "a-z", "A-Z"],
        b"hello",
    );
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "HELLO"));
}

#[test]
fn a_command_needs_no_dashes_before_it() {
    let served = served();
    let ran = run(
        &served,
        &["exec", "web", "-e", "A=b", "sh", "-c", "echo $A -e"],
    );
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "b -e\n"));
    // What follows the command is its own, also where it looks like ours.
    let ran = run(&served, &["exec", "web", "echo", "-n", "--user", "x", "--"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "--user x --"));
}

#[test]
fn codes_of_our_own() {
    let served = served();
    for (words, code, text) in [
        (
            &["exec", "web", "--", "no-such-program"][..],
            127,
            "no-such-program",
        ),
        (&["exec", "web", "--", "/etc/passwd"], 126, "/etc/passwd"),
        (&["exec", "off", "--", "true"], 125, "stopped"),
        (&["exec", "nobody", "--", "true"], 125, "nobody"),
        (&["enter", "nobody"], 125, "nobody"),
        (&["exec", "web"], 2, "COMMAND"),
    ] {
        let ran = run(&served, words);
        assert!(
            ran.code == code && ran.stderr.contains(text),
            "{words:?}: {ran:?}"
        );
    }
}

#[test]
fn much_data_and_readers_that_leave_early() {
    let served = served();
    let data: Vec<u8> = (0..4_u32 << 20)
        .map(|n| b'a' + (n * 7 % 26) as u8)
        .collect();
    let ran = run_with_input(&served, &["exec", "web", "--", "cat"], &data);
    assert!(ran.code == 0 && ran.stdout.as_bytes() == data);
    let ran = run_with_input(&served, &["exec", "web", "--", "head", "-c", "3"], &data);
    assert_eq!((ran.code, ran.stdout.len()), (0, 3));
    // Our own reader leaves: the end of a pipe ends the command.
    let mut yes = command(served.root(), &["exec", "web", "--", "yes"]);
    let mut child = yes
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 2];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    assert_eq!((&first, code(&mut child)), (b"y\n", Some(141)));
}

#[test]
fn a_signal_is_passed_on() {
    // A signal that no caller of the tests ignores: a shell could not trap it then (POSIX, trap).
    let served = served();
    let script = "trap 'echo caught; exit 7' USR1; echo ready; while :; do sleep 0.05; done";
    let mut exec = command(served.root(), &["exec", "web", "--", "sh", "-c", script]);
    // Input stays open: the end of it is not what ends the command.
    let mut child = exec
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut seen = [0; 6];
    out.read_exact(&mut seen).unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::USR1).unwrap();
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!((rest.as_str(), code(&mut child)), ("caught\n", Some(7)));
}

#[test]
fn logs_are_shown_and_followed() {
    let served = served();
    assert_eq!(
        run(&served, &["logs", "web"]).stdout,
        "first\n\x1b[32msecond\x1b[0m\nthird\n"
    );
    assert_eq!(run(&served, &["logs", "web", "-n", "1"]).stdout, "third\n");
    assert_eq!(
        run(&served, &["logs", "web", "-n", "1", "--json"]).stdout,
        "{\"line\":\"third\"}\n"
    );
    assert_eq!(run(&served, &["logs", "nobody"]).code, 3);
    let mut follow = command(served.root(), &["logs", "web", "--follow", "-n", "1"]);
    let mut child = follow
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut seen = [0; 6];
    child.stdout.take().unwrap().read_exact(&mut seen).unwrap();
    assert_eq!(&seen, b"third\n");
    assert!(child.try_wait().unwrap().is_none());
    child.kill().unwrap();
    child.wait().unwrap();
}

/// A terminal with the command line on it.
struct Terminal {
    master: std::fs::File,
    slave: std::fs::File,
    child: Child,
    seen: String,
}

impl Terminal {
    fn start(served: &Served, words: &[&str]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = std::fs::File::options()
            .read(true)
            .write(true)
            .open(name.to_str().unwrap())
            .unwrap();
        tcsetwinsize(
            &slave,
            Winsize {
                ws_row: 30,
                ws_col: 100,
                ws_xpixel: 0,
                ws_ypixel: 0,
            },
        )
        .unwrap();
        // A session of its own, so that the terminal steers this child alone.
        let mut child = Command::new("setsid");
        let line = command(served.root(), words);
        child
            .args(["--ctty", "--wait"])
            .arg(line.get_program())
            .args(line.get_args());
        child.env("TERM", "xterm").env("NO_COLOR", "1");
        let end = || Stdio::from(OwnedFd::from(slave.try_clone().unwrap()));
        let child = child
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        Self {
            master: master.into(),
            slave,
            child,
            seen: String::new(),
        }
    }

    fn expect(&mut self, words: &str) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.seen.contains(words) {
            assert!(Instant::now() < deadline, "no `{words}` in {:?}", self.seen);
            let mut buffer = [0; 4_096];
            let length = self.master.read(&mut buffer).unwrap();
            self.seen
                .push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
    }

    fn type_in(&mut self, keys: &[u8]) {
        self.master.write_all(keys).unwrap();
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.slave)
            .unwrap()
            .local_modes
            .contains(LocalModes::ICANON)
    }

    fn end(mut self) -> (Option<i32>, String, bool) {
        let code = code(&mut self.child);
        let raw = self.is_raw();
        drop(self.slave);
        let mut buffer = [0; 4_096];
        while let Ok(length @ 1..) = self.master.read(&mut buffer) {
            self.seen
                .push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
        (code, self.seen, raw)
    }
}

fn code(child: &mut Child) -> Option<i32> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("it did not end");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn enter_is_a_terminal_that_is_restored() {
    let served = served();
    let mut terminal = Terminal::start(&served, &["enter", "web"]);
    terminal.expect("100x30 TERM=xterm");
    assert!(terminal.is_raw());
    tcsetwinsize(
        &terminal.slave,
        Winsize {
            ws_row: 40,
            ws_col: 120,
            ws_xpixel: 0,
            ws_ypixel: 0,
        },
    )
    .unwrap();
    terminal.expect("resized 120x40");
    // Ctrl-C and Ctrl-] are keys like others here.
    terminal.type_in(b"ab\x03\x1dq");
    let (code, seen, raw) = terminal.end();
    assert_eq!((code, raw), (Some(3), false), "{seen:?}");
    assert!(seen.contains("ab\x03\x1d"), "{seen:?}");
}

#[test]
fn a_terminal_is_restored_after_a_signal() {
    let served = served();
    let mut terminal = Terminal::start(&served, &["exec", "web", "--", "sh"]);
    terminal.expect("TERM=xterm");
    assert!(terminal.is_raw());
    let children = format!("/proc/{0}/task/{0}/children", terminal.child.id());
    let children = std::fs::read_to_string(children).unwrap();
    // `setsid --wait` may run the command itself or as its child.
    let pid = children
        .split_whitespace()
        .next()
        .and_then(|pid| pid.parse().ok());
    let pid = pid.unwrap_or(terminal.child.id().cast_signed());
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let (code, seen, raw) = terminal.end();
    assert_eq!((code, raw), (Some(143), false), "{seen:?}");
}

#[test]
fn a_console_is_left_by_its_keys() {
    let served = served();
    for keys in [&b"x\x1d"[..], b"x\x1b."] {
        let mut terminal = Terminal::start(&served, &["console", "web"]);
        terminal.expect("web 100x30 login: ");
        terminal.type_in(keys);
        let (code, seen, raw) = terminal.end();
        assert_eq!((code, raw), (Some(0), false), "{seen:?}");
        assert!(seen.contains("left the console"), "{seen:?}");
    }
    // An Esc alone arrives, a little later.
    let mut terminal = Terminal::start(&served, &["console", "web"]);
    terminal.expect("login: ");
    terminal.type_in(b"\x1b");
    terminal.expect("\x1b");
    terminal.type_in(b".q");
    let (code, seen, _) = terminal.end();
    assert_eq!(code, Some(0));
    assert!(seen.contains("the VE ended"), "{seen:?}");
}

#[test]
fn top_goes_on_until_it_is_told() {
    let served = served();
    let mut terminal = Terminal::start(&served, &["top"]);
    terminal.expect("1 VEs run");
    terminal.expect("CPU%");
    terminal.type_in(b"mq");
    let (code, seen, raw) = terminal.end();
    assert_eq!((code, raw), (Some(0), false), "{seen:?}");
    assert!(seen.ends_with("\x1b[?25h\x1b[?1049l"), "{seen:?}");
}

#[test]
fn progress_is_shown_on_a_terminal() {
    let served = served();
    let mut terminal = Terminal::start(&served, &["template", "verify", "debian-12"]);
    let deadline = Instant::now() + Duration::from_secs(10);
    while served.node.lock().operations.is_empty() {
        assert!(Instant::now() < deadline, "nothing was begun");
        std::thread::sleep(Duration::from_millis(10));
    }
    let progress = api::latest::Progress {
        fraction: Some(0.42),
        message: "reading \x1b]0;usr/bin".to_owned(),
    };
    served.node.lock().operations[0].progress = progress;
    terminal.expect("42%");
    terminal.expect("reading \u{fffd}]0;usr/bin");
    {
        let mut inner = served.node.lock();
        inner.operations[0].state = api::latest::OperationState::Done;
    }
    let (code, seen, _) = terminal.end();
    assert_eq!(code, Some(0), "{seen:?}");
    assert!(seen.trim_end().ends_with("debian-12 verified"), "{seen:?}");
}

#[test]
fn a_question_is_asked_on_a_terminal() {
    let served = served();
    for (answer, code) in [(&b"n\n"[..], 1), (b"y\n", 0)] {
        let mut terminal = Terminal::start(&served, &["delete", "off"]);
        terminal.expect("delete `off` with all files? [y/N]");
        terminal.type_in(answer);
        let (ended, seen, _) = terminal.end();
        assert_eq!(ended, Some(code), "{seen:?}");
    }
    assert!(!served.node.lock().ves.contains_key(&101));
    let terminal = Terminal::start(&served, &["delete", "web", "--force"]);
    let (ended, seen, _) = terminal.end();
    assert_eq!(ended, Some(0), "{seen:?}");
    assert!(!seen.contains("[y/N]"));
}
