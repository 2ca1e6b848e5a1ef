//! The door and the client against each other, over a real socket.
#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "a test program is a test module, and its helpers are tests"
)]

mod fake;

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use api::latest::{
    ConsoleRequest, CreateRequest, ErrorCode, ExecRequest, OperationState, TerminalSize, VeState,
};
use api::stream::{Ended, Frame, STDIN_WINDOW};
use client::{Client, ClientError, Filter};
use fake::{Served, details};

fn code(error: ClientError) -> ErrorCode {
    error.into_api_error().code
}

fn exec(words: &[&str]) -> ExecRequest {
    let command = words.iter().map(|word| (*word).to_owned()).collect();
    ExecRequest {
        command,
        ..ExecRequest::default()
    }
}

/// Speaks HTTP by hand, for what the client never does.
fn raw(served: &Served, request: &str) -> String {
    let mut stream = UnixStream::connect(served.root().join("vessel.sock")).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
}

fn post(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn values_pass_through_unchanged() {
    let served = Served::start();
    let client = Client::of_root(served.root());
    let ve = details(100, "web", VeState::Running);
    served.node.add(ve.clone());
    served.node.add(details(101, "off", VeState::Stopped));
    assert_eq!(client.show("web").await.unwrap(), ve);
    assert_eq!(client.show("100").await.unwrap(), ve);
    let all = client.list(&Filter::default()).await.unwrap();
    assert_eq!(all.iter().map(|ve| ve.id).collect::<Vec<_>>(), [100, 101]);
    let labels = vec!["team=shop".to_owned(), "team".to_owned()];
    let states = vec![VeState::Stopped];
    let some = client
        .list(&Filter {
            labels,
            states,
            ..Filter::default()
        })
        .await
        .unwrap();
    assert_eq!(some.iter().map(|ve| ve.id).collect::<Vec<_>>(), [101]);
    assert_eq!(
        client.stats("web").await.unwrap().memory_bytes,
        Some(100 << 19)
    );
    assert_eq!(client.stats_of(&Filter::default()).await.unwrap().len(), 2);
    assert_eq!(client.node().await.unwrap().sold.ves, 2);
    assert!(
        client
            .template("debian-12", true)
            .await
            .unwrap()
            .packages
            .len()
            == 1
    );
    let mut events = Vec::new();
    client
        .events(false, None, |event| {
            events.push(event.id);
            true
        })
        .await
        .unwrap();
    assert_eq!(events, [1, 2]);
}

#[tokio::test]
async fn refusals_keep_code_message_and_hint() {
    let served = Served::start();
    let client = Client::of_root(served.root());
    let error = client.show("a/../b?c").await.unwrap_err().into_api_error();
    assert_eq!(error.code, ErrorCode::NotFound);
    assert_eq!(error.message, "VE `a/../b?c`: there is none");
    assert!(error.hint.is_some());
    let gone = Client::of_root(&served.root().join("nowhere"));
    assert_eq!(code(gone.node().await.unwrap_err()), ErrorCode::Unreachable);
}

#[tokio::test]
async fn operations_are_waited_for() {
    let served = Served::start();
    let client = Client::of_root(served.root());
    let request = CreateRequest {
        name: "web".to_owned(),
        template: "debian-12".to_owned(),
        ..CreateRequest::default()
    };
    let begun = client.create(&request).await.unwrap();
    assert_eq!(begun.state, OperationState::Running);
    assert_eq!(
        client.wait_operation(begun.id).await.unwrap().state,
        OperationState::Done
    );
    // With `wait=true` the first answer is the last.
    let answer = raw(&served, &post("/v1/ves/web/start?wait=true", ""));
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains(r#""state":"done""#),
        "{answer}"
    );
    let answer = raw(&served, &post("/v1/ves/web/stop", "{}"));
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    let verify = client.verify_template("debian-12").await.unwrap();
    let waiting = {
        let client = client.clone();
        tokio::spawn(async move { client.wait_operation(verify.id).await })
    };
    client.cancel_operation(verify.id).await.unwrap();
    assert_eq!(
        waiting.await.unwrap().unwrap().state,
        OperationState::Cancelled
    );
}

#[test]
fn requests_that_make_no_sense_say_so() {
    let served = Served::start();
    for (request, status, words) in [
        (get("/v1/nothing"), 404, "no path of this API"),
        (get("/"), 404, "no path of this API"),
        (post("/v1/pool", ""), 400, "does not take POST"),
        (get("/v1/ves?labl=a"), 400, "`labl` is not known"),
        (get("/v1/ves?state=runing"), 400, "`runing` is no state"),
        (get("/v1/operations/x"), 400, "`x` is not the number"),
        (get("/v1/operations/9"), 404, "operation 9"),
        (get("/v1/ves/x/files?path=etc"), 400, "absolute"),
        (get("/v1/ves/x/files?path=/etc/../x"), 400, "`..`"),
        (
            get("/v1/ves/x?wait=running&timeout_ms=soon"),
            400,
            "`soon` is no number",
        ),
        (post("/v1/ves", "{"), 400, "body of"),
        (
            post("/v1/ves", r#"{"name":"a","template":"b","colour":1}"#),
            400,
            "colour",
        ),
        (post("/v1/ves/x/exec", "{}"), 400, "Upgrade: vessel-stream"),
    ] {
        let answer = raw(&served, &request);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{request}{answer}"
        );
        assert!(
            answer.contains(words) && answer.contains(r#""exit_code":"#),
            "{request}{answer}"
        );
    }
}

#[test]
fn a_body_that_is_too_large_is_refused() {
    let served = Served::start();
    let length = server::limits::JSON_BYTES_MAX + 1;
    let body = "x".repeat(length);
    let answer = raw(&served, &post("/v1/ves", &body));
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}

#[test]
fn only_the_owner_reaches_the_socket_and_a_stale_one_is_replaced() {
    let mut served = Served::start();
    let path = served.root().join("vessel.sock");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let error = server::bind(&path).unwrap_err();
        assert!(matches!(error, server::BindError::InUse(_)), "{error}");
        served.end();
        assert!(
            path.exists(),
            "the socket of an ended daemon is stale, not gone"
        );
        server::bind(&path).unwrap();
        let long = path.with_file_name("x".repeat(110));
        assert!(matches!(
            server::bind(&long).unwrap_err(),
            server::BindError::TooLong(_)
        ));
    });
}

#[tokio::test]
async fn closing_ends_those_who_wait_and_follow() {
    let mut served = Served::start();
    let client = Client::of_root(served.root());
    served.node.add(details(100, "lazy", VeState::Starting));
    let (waits, follows) = (client.clone(), client.clone());
    let waiting = tokio::spawn(async move {
        waits
            .wait("lazy", VeState::Running, Duration::from_secs(60))
            .await
    });
    let following = tokio::spawn(async move { follows.events(true, None, |_| true).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let begun = Instant::now();
    tokio::task::spawn_blocking(move || served.end())
        .await
        .unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(
        code(waiting.await.unwrap().unwrap_err()),
        ErrorCode::Unreachable
    );
    // Cut off is no clean end: who follows must know that there may be more.
    assert_eq!(
        code(following.await.unwrap().unwrap_err()),
        ErrorCode::Unreachable
    );
}

async fn collect(session: client::Session) -> (Vec<u8>, Vec<u8>, Option<Ended>) {
    let (_sender, mut receiver) = session.split();
    let (mut out, mut errors) = (Vec::new(), Vec::new());
    while let Some(frame) = receiver.next_frame().await.unwrap() {
        match frame {
            Frame::Stdout(data) => out.extend(data),
            Frame::Stderr(data) => errors.extend(data),
            Frame::Exit(ended) => return (out, errors, Some(ended)),
            other => panic!("{other:?}"),
        }
    }
    (out, errors, None)
}

#[tokio::test]
async fn streams_and_ends_pass_through() {
    let served = Served::start();
    let client = Client::of_root(served.root());
    served.node.add(details(100, "web", VeState::Running));
    let both = exec(&["sh", "-c", "echo out; echo err >&2; exit 42"]);
    let session = client.exec("web", &both).await.unwrap();
    let (out, errors, ended) = collect(session).await;
    assert_eq!(
        (out.as_slice(), errors.as_slice()),
        (&b"out\n"[..], &b"err\n"[..])
    );
    assert_eq!(ended, Some(Ended::Code(42)));
    let session = client
        .exec("web", &exec(&["sh", "-c", "kill -9 $$"]))
        .await
        .unwrap();
    assert_eq!(collect(session).await.2, Some(Ended::Signal(9)));
    let error = client.exec("web", &exec(&["/no/such"])).await.unwrap_err();
    assert_eq!(code(error), ErrorCode::CommandNotFound);
}

#[tokio::test]
async fn output_is_whole_for_a_slow_reader() {
    let served = Served::start();
    let client = Client::of_root(served.root());
    served.node.add(details(100, "web", VeState::Running));
    let session = client
        .exec("web", &exec(&["head", "-c", "3000000", "/dev/zero"]))
        .await
        .unwrap();
    // Longer than the door waits for output that does not come.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let (out, _, ended) = collect(session).await;
    assert_eq!((out.len(), ended), (3_000_000, Some(Ended::Code(0))));
}

#[tokio::test]
async fn what_a_command_leaves_behind_does_not_hold_the_session() {
    let served = Served::start();
    let client = Client::of_root(served.root());
    served.node.add(details(100, "web", VeState::Running));
    let begun = Instant::now();
    let session = client
        .exec("web", &exec(&["sh", "-c", "sleep 20 & echo done"]))
        .await
        .unwrap();
    let (out, _, ended) = collect(session).await;
    assert_eq!(
        (out.as_slice(), ended),
        (&b"done\n"[..], Some(Ended::Code(0)))
    );
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn input_that_nobody_reads_does_not_hold_a_signal_back() {
    let served = Served::start();
    let client = Client::of_root(served.root());
    served.node.add(details(100, "web", VeState::Running));
    let session = client.exec("web", &exec(&["sleep", "30"])).await.unwrap();
    let (sender, mut receiver) = session.split();
    let feeding = {
        let sender = sender.clone();
        tokio::spawn(async move { sender.input(&vec![0; STDIN_WINDOW as usize * 4]).await })
    };
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!feeding.is_finished(), "more than the window was taken");
    sender.signal(15).await.unwrap();
    assert_eq!(
        receiver.next_frame().await.unwrap(),
        Some(Frame::Exit(Ended::Signal(15)))
    );
    feeding.abort();
}

#[tokio::test]
async fn much_input_comes_back_unchanged() {
    let served = Served::start();
    let client = Client::of_root(served.root());
    served.node.add(details(100, "web", VeState::Running));
    let session = client.exec("web", &exec(&["cat"])).await.unwrap();
    let (sender, mut receiver) = session.split();
    let data: Vec<u8> = (0..4_000_000_u32).map(|n| (n * 7 % 251) as u8).collect();
    let sent = data.clone();
    tokio::spawn(async move {
        sender.input(&sent).await.unwrap();
        sender.end_input().await.unwrap();
        // The connection stays open while somebody listens.
        std::future::pending::<()>().await;
    });
    let mut back = Vec::new();
    loop {
        match receiver.next_frame().await.unwrap() {
            Some(Frame::Stdout(piece)) => back.extend(piece),
            Some(Frame::Exit(ended)) => {
                assert_eq!(ended, Ended::Code(0));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(back == data, "{} of {} bytes", back.len(), data.len());
}

#[tokio::test]
async fn a_caller_that_leaves_hangs_up() {
    let served = Served::start();
    let client = Client::of_root(served.root());
    served.node.add(details(100, "web", VeState::Running));
    let file = served.root().join("pid");
    let line = format!("echo $$ > {}; exec sleep 60", file.display());
    let session = client
        .exec("web", &exec(&["sh", "-c", &line]))
        .await
        .unwrap();
    let mut pid = String::new();
    while !pid.ends_with('\n') {
        tokio::time::sleep(Duration::from_millis(20)).await;
        pid = std::fs::read_to_string(&file).unwrap_or_default();
    }
    drop(session);
    let process = format!("/proc/{}", pid.trim());
    let deadline = Instant::now() + Duration::from_secs(5);
    while std::fs::metadata(&process).is_ok() {
        assert!(Instant::now() < deadline, "the command outlived its caller");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_terminal_is_resized() {
    let served = Served::start();
    let client = Client::of_root(served.root());
    served.node.add(details(100, "web", VeState::Running));
    let size = TerminalSize {
        rows: 24,
        columns: 80,
    };
    let session = client
        .console("web", &ConsoleRequest { terminal: size })
        .await
        .unwrap();
    let (sender, mut receiver) = session.split();
    let mut seen = String::new();
    let mut wait_for = async |words: &str| {
        while !seen.contains(words) {
            match receiver.next_frame().await.unwrap() {
                Some(Frame::Stdout(piece)) => seen.push_str(&String::from_utf8(piece).unwrap()),
                other => panic!("{other:?}"),
            }
        }
    };
    wait_for("web 80x24 login: ").await;
    sender
        .resize(TerminalSize {
            rows: 50,
            columns: 132,
        })
        .await
        .unwrap();
    wait_for("resized 132x50").await;
    sender.input(b"root").await.unwrap();
    wait_for("root").await;
    sender.input(b"q").await.unwrap();
    assert_eq!(
        receiver.next_frame().await.unwrap(),
        Some(Frame::Exit(Ended::Code(3)))
    );
}

#[test]
fn frames_that_are_none_end_the_session() {
    let served = Served::start();
    served.node.add(details(100, "web", VeState::Running));
    let body = r#"{"command":["sleep","30"]}"#;
    let head = format!(
        "POST /v1/ves/web/exec HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: vessel-stream\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut flood = Vec::new();
    for _ in 0..7 {
        // Seven times 64 KiB are more than the window and the pipe of a command that reads nothing.
        Frame::Stdin(vec![0; 64 * 1024]).encode(&mut flood);
    }
    for garbage in [vec![99, 0, 0, 0, 0], vec![0, 255, 255, 255, 255], flood] {
        let mut stream = UnixStream::connect(served.root().join("vessel.sock")).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 101");
        // The door may have closed before all of it was taken.
        let _ = stream.write_all(&garbage);
        let mut rest = Vec::new();
        if let Err(error) = stream.read_to_end(&mut rest) {
            assert_eq!(
                error.kind(),
                std::io::ErrorKind::ConnectionReset,
                "it went on"
            );
        }
    }
}
