//! `vessel alert`: tables, JSON, and what is sent to the node.

use crate::fake::Served;
use crate::{run, snapshot};

#[test]
fn alerts() {
    let served = Served::start();
    snapshot(
        "alerts",
        &served,
        &[
            &["alert", "list"],
            &["alert", "list", "--all"],
            &["alert", "list", "--json"],
            &["alert", "rule", "list"],
            &["alert", "rule", "list", "--json"],
            &["alert", "rule", "set", "slow"],
            &["alert", "rule", "set", "slow", "--if", "cpu_cores"],
            &[
                "alert",
                "rule",
                "set",
                "slow",
                "--if",
                "cpu_cores > 1",
                "--severity",
                "bad",
            ],
            &[
                "alert",
                "rule",
                "set",
                "slow",
                "--if",
                "cpu_cores > 1",
                "--for",
                "5m",
            ],
            &[
                "alert",
                "rule",
                "set",
                "slow",
                "--severity",
                "critical",
                "--json",
            ],
            &["alert", "rule", "disable", "slow", "nothing"],
            &["alert", "rule", "delete", "slow"],
            &["alert", "rule", "delete", "slow"],
            &["alert", "channel", "list"],
            &["alert", "channel", "test", "ops"],
            &["alert", "silence", "list"],
            &[
                "alert",
                "silence",
                "add",
                "--rule",
                "memory-high",
                "--for",
                "2h",
            ],
            &["alert", "silence", "delete", "4"],
            &["alert", "metrics"],
        ],
    );
}

#[test]
fn what_is_not_given_of_a_rule_stays() {
    let served = Served::start();
    let words = "alert rule set memory-high --ve web --label tier=app --resolve 2m --message {ve}";
    let words: Vec<&str> = words.split(' ').collect();
    assert_eq!(run(&served, &words).code, 0);
    let calls = served.node.lock().calls.clone();
    let call = calls.last().unwrap();
    for part in [
        "condition: \"memory_used_ratio > 90%\"",
        "for_seconds: 300",
        "resolve_seconds: Some(120)",
        "ves: [\"web\"]",
        "labels: [\"tier=app\"]",
        "message: Some(\"{ve}\")",
        "enabled: true",
    ] {
        assert!(call.contains(part), "{part} in {call}");
    }
}

#[test]
fn channels_are_sent_as_they_are_given() {
    let served = Served::start();
    let file = served.root().join("secret");
    std::fs::write(&file, "open sesame\n").unwrap();
    let file = file.display().to_string();
    let mail = [
        "alert",
        "channel",
        "mail",
        "ops",
        "--server",
        "mail.example.org",
        "--user",
        "me",
        "--password-file",
        &file,
        "--from",
        "a@example.org",
        "--to",
        "b@example.org",
    ];
    let webhook = [
        "alert",
        "channel",
        "webhook",
        "hook",
        "https://example.org/",
        "--header",
        "X-Key: 1",
        "--severity",
        "critical",
    ];
    let command = [
        "alert",
        "channel",
        "command",
        "pager",
        "/bin/page",
        "--",
        "--now",
    ];
    for (words, parts) in [
        (&mail[..], ["kind: Mail", "password: Some(\"open sesame\")"]),
        (&webhook, ["headers: [\"X-Key: 1\"]", "severity: Critical"]),
        (
            &command,
            ["program: Some(\"/bin/page\")", "arguments: [\"--now\"]"],
        ),
    ] {
        let ran = run(&served, words);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        let calls = served.node.lock().calls.clone();
        let call = calls.last().unwrap();
        for part in parts {
            assert!(call.contains(part), "{part} in {call}");
        }
    }
}
