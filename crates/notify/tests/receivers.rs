//! Messages arrive at real receivers: an SMTP server and an HTTP server on loopback, a program.
#![cfg(test)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::thread::JoinHandle;

use notify::{Command, CommandError, Mail, MailError, Message, Security, Webhook, WebhookError};

fn message() -> Message {
    Message {
        id: "node-7".to_owned(),
        subject: "web: memory is short".to_owned(),
        text: "memory_used_ratio is 0.95\n.\nfor 5 minutes".to_owned(),
        json: serde_json::json!({ "id": "node-7", "ve": "web" }),
        ..Message::default()
    }
}

/// Takes one connection on a port of its own and gives what `serve` made of it.
fn receiver<T: Send + 'static>(
    serve: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> (u16, JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let thread = std::thread::spawn(move || serve(listener.accept().unwrap().0));
    (port, thread)
}

/// As much of SMTP (RFC 5321) as a client may ask of a server that only knows passwords beyond it.
fn smtp(stream: TcpStream, answer_to_data: &str) -> (Vec<String>, String) {
    let mut lines = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    let mut say = |line: &str| stream.write_all(format!("{line}\r\n").as_bytes()).unwrap();
    say("220 test");
    let (mut commands, mut mail) = (Vec::new(), String::new());
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line).unwrap() == 0 {
            return (commands, mail);
        }
        let command = line.trim_end().to_owned();
        match command.split([' ', ':']).next().unwrap() {
            "EHLO" => say("250-test\r\n250 AUTH PLAIN"),
            "AUTH" => say("235 welcome"),
            "DATA" => {
                say("354 go on");
                loop {
                    let mut line = String::new();
                    lines.read_line(&mut line).unwrap();
                    if line == ".\r\n" {
                        break;
                    }
                    mail.push_str(&line);
                }
                say(answer_to_data);
            }
            "QUIT" => {
                say("221 bye");
                return (commands, mail);
            }
            _ => say("250 ok"),
        }
        commands.push(command);
    }
}

fn mail(port: u16) -> Mail {
    Mail {
        host: "127.0.0.1".to_owned(),
        port,
        security: Security::None,
        credentials: None,
        authorities: None,
        from: "Vessel <vessel@node.example>".to_owned(),
        to: vec!["ops@example.org".to_owned(), "boss@example.org".to_owned()],
    }
}

#[test]
fn a_mail_arrives_with_its_id_and_for_everybody() {
    let (port, server) = receiver(|stream| smtp(stream, "250 taken"));
    let mail = mail(port);
    mail.send(&message()).unwrap();
    drop(mail);
    let (commands, text) = server.join().unwrap();
    let to = |name: &str| commands.contains(&format!("RCPT TO:<{name}@example.org>"));
    assert!(to("ops") && to("boss"), "{commands:?}");
    for line in [
        "Subject: web: memory is short",
        "Message-ID: <node-7@node.example>",
        "From: Vessel <vessel@node.example>",
        "memory_used_ratio is 0.95",
        // A line of one dot is no end of the mail.
        "..",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
}

#[test]
fn a_mail_server_that_wants_a_password_gets_it() {
    let (port, server) = receiver(|stream| smtp(stream, "250 taken"));
    let mut mail = mail(port);
    mail.credentials = Some(("me".to_owned(), "secret".to_owned()));
    mail.send(&message()).unwrap();
    drop(mail);
    let (commands, text) = server.join().unwrap();
    // RFC 4616: no other identity, the name, the password.
    let login = "AUTH PLAIN AG1lAHNlY3JldA==".to_owned();
    assert!(commands.contains(&login), "{commands:?}");
    assert!(!text.is_empty());
}

#[test]
fn a_mail_that_is_not_taken_is_an_error_with_the_servers_words() {
    let (port, server) = receiver(|stream| smtp(stream, "452 mailbox full"));
    let error = mail(port).send(&message()).unwrap_err();
    let words = format!("{error}: {}", std::error::Error::source(&error).unwrap());
    assert!(
        words.contains("127.0.0.1") && words.contains("mailbox full"),
        "{words}"
    );
    drop(server);
    let mut wrong = mail(25);
    wrong.to.push("nobody".to_owned());
    assert!(matches!(wrong.check(), Err(MailError::Address { .. })));
}

#[test]
fn a_server_without_starttls_gets_no_mail_that_wants_it() {
    let (port, server) = receiver(|stream| smtp(stream, "250 taken"));
    let mut mail = mail(port);
    mail.security = Security::StartTls;
    assert!(mail.send(&message()).is_err());
    let (commands, text) = server.join().unwrap();
    assert!(
        !commands.iter().any(|c| c.starts_with("MAIL")),
        "{commands:?}"
    );
    assert_eq!(text, "");
}

/// Reads one request and answers it.
fn http(mut stream: TcpStream, answer: &str) -> (String, String) {
    let mut lines = BufReader::new(stream.try_clone().unwrap());
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    lines.read_exact(&mut body).unwrap();
    stream.write_all(answer.as_bytes()).unwrap();
    (head, String::from_utf8(body).unwrap())
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(work)
}

#[test]
fn a_webhook_gets_the_json_with_its_id_and_headers() {
    let (port, server) = receiver(|stream| http(stream, "HTTP/1.1 204 No Content\r\n\r\n"));
    let webhook = Webhook {
        url: format!("http://127.0.0.1:{port}/hook?a=b"),
        headers: vec![("Authorization".to_owned(), "Bearer x".to_owned())],
        authorities: None,
        body: None,
    };
    run(webhook.send(&message())).unwrap();
    let (head, body) = server.join().unwrap();
    assert!(head.starts_with("POST /hook?a=b HTTP/1.1\r\n"), "{head}");
    let head = head.to_lowercase();
    for line in [
        format!("host: 127.0.0.1:{port}"),
        "idempotency-key: node-7".to_owned(),
        "authorization: bearer x".to_owned(),
        "content-type: application/json".to_owned(),
    ] {
        assert!(head.lines().any(|found| found == line), "{line} in {head}");
    }
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["ve"], "web");
}

#[test]
fn a_webhook_that_refuses_is_an_error_with_its_words() {
    let answer = "HTTP/1.1 503 Busy\r\nContent-Length: 8\r\n\r\ntomorrow";
    let (port, server) = receiver(move |stream| http(stream, answer));
    let mut webhook = Webhook {
        url: format!("http://127.0.0.1:{port}/"),
        headers: Vec::new(),
        authorities: None,
        body: Some("plain".to_owned()),
    };
    let error = run(webhook.send(&message())).unwrap_err().to_string();
    assert!(
        error.contains("503") && error.contains("tomorrow"),
        "{error}"
    );
    assert_eq!(server.join().unwrap().1, "plain");
    // Nobody answers there now.
    let error = run(webhook.send(&message())).unwrap_err();
    assert!(matches!(error, WebhookError::Connect { .. }), "{error}");
    for url in ["ftp://x/", "x", "http://", "https:///a"] {
        webhook.url = url.to_owned();
        assert!(
            matches!(webhook.check(), Err(WebhookError::Address(_))),
            "{url}"
        );
    }
}

#[test]
fn a_webhook_by_tls_does_not_trust_just_anybody() {
    // A server that speaks no TLS: what matters is that nothing was sent in the clear.
    let (port, server) = receiver(|mut stream| {
        let mut bytes = [0; 1_000];
        let count = stream.read(&mut bytes).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        bytes[..count].to_vec()
    });
    let webhook = Webhook {
        url: format!("https://127.0.0.1:{port}/"),
        headers: Vec::new(),
        authorities: None,
        body: None,
    };
    assert!(run(webhook.send(&message())).is_err());
    let hello = server.join().unwrap();
    assert_eq!(hello[0], 0x16, "the first byte is that of a TLS handshake");
    assert!(!hello.windows(6).any(|part| part == b"node-7"));
}

#[test]
fn a_command_gets_the_message_and_must_end_well() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("script");
    let out = folder.path().join("out");
    let write = |text: &str| {
        std::fs::write(&script, text).unwrap();
        std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    };
    write("#!/bin/sh\n{ echo \"$VESSEL_ALERT_ID $1\"; cat; } > $2\n");
    let command = Command {
        program: script.clone(),
        arguments: vec!["first".to_owned(), out.display().to_string()],
    };
    run(command.send(&message())).unwrap();
    let written = std::fs::read_to_string(&out).unwrap();
    assert_eq!(written.lines().next(), Some("node-7 first"));
    assert!(written.contains("\"ve\":\"web\""), "{written}");
    write("#!/bin/sh\necho no luck >&2\nexit 3\n");
    let error = run(command.send(&message())).unwrap_err().to_string();
    assert!(error.contains("no luck") && error.contains('3'), "{error}");
    let relative = Command {
        program: "script".into(),
        arguments: Vec::new(),
    };
    assert!(matches!(relative.check(), Err(CommandError::Relative(_))));
}
