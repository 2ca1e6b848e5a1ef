//! Alerts: rules that fire reach real receivers, once, and across a daemon that is killed.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::harness::receiver::Receiver;
use crate::harness::{Node, tests, until};

/// Two sweeps of the meter, the half minute in which messages gather, and what a busy machine adds.
const PATIENCE: Duration = Duration::from_secs(75);

tests! {
    Node [] =>
        an_alert_reaches_everybody_once,
        what_many_fire_at_once_is_one_message,
        what_nobody_took_arrives_after_a_crash;
}

/// Makes a rule about `web` that holds while it runs, and is over at once.
fn rule(node: &Node, more: &[&str]) -> Result<()> {
    let words = [
        "alert",
        "rule",
        "set",
        "up",
        "--if",
        "running > 0",
        "--ve",
        "web",
        "--resolve",
        "0s",
    ];
    node.ok(&[&words[..], more].concat())?;
    Ok(())
}

fn webhook(node: &Node, port: u16, more: &[&str]) -> Result<()> {
    let url = format!("http://127.0.0.1:{port}/alerts");
    let words = ["alert", "channel", "webhook", "hook", &url];
    node.ok(&[&words[..], more].concat())?;
    Ok(())
}

/// Waits for so many messages, and gives them.
fn messages(receiver: &Receiver, count: usize) -> Result<Vec<String>> {
    let what = format!("{count} messages");
    until(
        &what,
        PATIENCE,
        || Ok(receiver.taken()),
        |taken| taken.len() >= count,
    )
}

/// The JSON in the body of a request.
fn body(request: &str) -> Result<Value> {
    let (_, body) = request.split_once("\r\n\r\n").context("no body")?;
    serde_json::from_str(body).with_context(|| format!("no JSON: {body}"))
}

/// Tells everything by all four ways, of which the command writes to `file`.
fn all_channels(node: &Node, mail: &Receiver, web: &Receiver, file: &str) -> Result<()> {
    let server = format!("127.0.0.1:{}", mail.port());
    let mail = [
        "mail",
        "ops",
        "--server",
        &server,
        "--from",
        "vessel@node.example",
        "--to",
        "ops@example.org",
        "--subject",
        "{state}: {ve}",
    ];
    let command = [
        "command",
        "pager",
        "/bin/sh",
        "--severity",
        "critical",
        "--",
        "-c",
        "cat >> \"$0\"",
        file,
    ];
    for words in [&mail[..], &command] {
        node.ok(&[&["alert", "channel"], words].concat())?;
    }
    webhook(node, web.port(), &["--header", "X-Key: sesame"])
}

/// Keeps quiet about whatever else this machine is short of.
fn no_other_rules(node: &Node) -> Result<()> {
    let rules = node.json(&["alert", "rule", "list"])?;
    let names = rules.as_array().context("no rules")?.iter();
    let names: Vec<&str> = names.filter_map(|rule| rule["name"].as_str()).collect();
    node.ok(&[&["alert", "rule", "disable"], &names[..]].concat())?;
    Ok(())
}

fn an_alert_reaches_everybody_once(node: &mut Node) -> Result<()> {
    let mail = Receiver::mail(&node.network_namespace())?;
    let web = Receiver::web(&node.network_namespace(), 0)?;
    let file = node.folder().join("paged").display().to_string();
    all_channels(node, &mail, &web, &file)?;
    no_other_rules(node)?;
    node.start_tiny("web")?;
    rule(node, &["--severity", "critical", "--message", "{ve} is up"])?;

    let taken = messages(&web, 1)?;
    let told = body(&taken[0])?;
    ensure!(
        taken[0].starts_with("POST /alerts ") && taken[0].contains("x-key: sesame"),
        "{taken:?}"
    );
    for (key, value) in [("state", "firing"), ("ve", "web"), ("summary", "web is up")] {
        ensure!(told[key] == value, "{key} in {told}");
    }
    let mails = messages(&mail, 1)?;
    ensure!(
        mails[0].contains("Subject: firing: web") && mails[0].contains("web is up"),
        "{mails:?}"
    );
    let lines = |file: &str| {
        Ok(std::fs::read_to_string(file)
            .unwrap_or_default()
            .lines()
            .count())
    };
    let log = node.root().join("log/alerts.log").display().to_string();
    for file in [&file, &log] {
        until(file, PATIENCE, || lines(file), |count| *count == 1)?;
    }
    let alerts = node.json(&["alert", "list"])?;
    ensure!(
        alerts[0]["state"] == "firing" && alerts[0]["name"] == "web",
        "{alerts}"
    );

    // A daemon that is killed tells nothing again.
    node.kill_daemon()?;
    node.start_daemon()?;
    node.ok(&["stop", "web", "--kill"])?;
    let taken = messages(&web, 2)?;
    ensure!(body(&taken[1])?["state"] == "resolved", "{taken:?}");
    let mails = messages(&mail, 2)?;
    ensure!(mails[1].contains("Subject: resolved: web"), "{mails:?}");
    for file in [&file, &log] {
        until(file, PATIENCE, || lines(file), |count| *count == 2)?;
    }
    let events = node.ok(&["events"])?;
    for kind in ["alert-firing", "alert-resolved"] {
        let found = events.lines().filter(|line| line.contains(kind)).count();
        ensure!(found == 1, "{found} {kind}:\n{events}");
    }
    Ok(())
}

fn what_many_fire_at_once_is_one_message(node: &mut Node) -> Result<()> {
    let mail = Receiver::mail(&node.network_namespace())?;
    let web = Receiver::web(&node.network_namespace(), 0)?;
    let file = node.folder().join("paged").display().to_string();
    all_channels(node, &mail, &web, &file)?;
    no_other_rules(node)?;
    let words = ["create", "many", "--template", "tiny", "--count", "8"];
    node.ok(&[&words[..], &["--start"]].concat())?;
    let names: Vec<String> = (1..=8).map(|number| format!("many-{number}")).collect();
    let rule = ["alert", "rule", "set", "up", "--if", "running > 0"];
    let more = ["--resolve", "0s", "--severity", "critical"];
    node.ok(&[&rule[..], &more].concat())?;

    let told = body(&messages(&web, 1)?[0])?;
    let alerts = told["alerts"].as_array().context("no list")?;
    let mut ves: Vec<&str> = alerts.iter().filter_map(|one| one["ve"].as_str()).collect();
    ves.sort_unstable();
    ensure!(ves == names && told["count"] == 8, "{told}");
    let mails = messages(&mail, 1)?;
    for name in &names {
        ensure!(
            mails[0].contains(&format!("{name}: ")),
            "{name} in {mails:?}"
        );
    }
    let lines = |file: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        Ok(text.lines().count())
    };
    until("paged", PATIENCE, || lines(&file), |count| *count == 1)?;
    // The log has a line each.
    let log = node.root().join("log/alerts.log").display().to_string();
    until("logged", PATIENCE, || lines(&log), |count| *count == 8)?;

    // They end one after the other, over some sweeps: what comes after the first gathers.
    let stop = [
        &["stop", "--kill"],
        &names.iter().map(String::as_str).collect::<Vec<_>>()[..],
    ];
    node.ok(&stop.concat())?;
    let told = |receiver: &Receiver| -> Result<u64> {
        let bodies = receiver.taken();
        let counts = bodies[1..].iter().map(|request| body(request));
        counts
            .map(|told| told?["count"].as_u64().context("no count"))
            .sum()
    };
    until("all are over", PATIENCE, || told(&web), |count| *count == 8)?;
    until("logged", PATIENCE, || lines(&log), |count| *count == 16)?;
    for (what, count) in [
        ("mails", mail.taken().len()),
        ("requests", web.taken().len()),
    ] {
        ensure!(count <= 3, "{count} {what} for 16 alerts");
    }
    ensure!(lines(&file)? <= 3);
    Ok(())
}

fn what_nobody_took_arrives_after_a_crash(node: &mut Node) -> Result<()> {
    // A port where nobody listens.
    let port = Receiver::web(&node.network_namespace(), 0)?.port();
    webhook(node, port, &[])?;
    node.start_tiny("web")?;
    node.ok(&["alert", "silence", "add", "--rule", "up", "--for", "1h"])
        .err()
        .context("a silence of no rule was taken")?;
    rule(node, &["--channel", "hook"])?;
    let refused = node.vessel(&["alert", "channel", "delete", "hook"])?;
    ensure!(
        refused.code == 4 && refused.stderr.contains("`up`"),
        "{refused}"
    );
    let refused = node.vessel(&["alert", "channel", "test", "hook"])?;
    ensure!(
        refused.code == 1 && refused.stderr.contains("cannot be reached"),
        "{refused}"
    );
    let status = || -> Result<Value> {
        let all = node.json(&["alert", "channel", "list"])?;
        let all = all.as_array().context("no channels")?;
        let own = all.iter().find(|one| one["channel"]["name"] == "hook");
        own.cloned().context("no channel")
    };
    let tried = |status: &Value| status["waiting"] == 1 && status["failure"].is_string();
    until("the message waits", PATIENCE, status, tried)?;
    node.kill_daemon()?;
    let web = Receiver::web(&node.network_namespace(), port)?;
    node.start_daemon()?;
    let taken = messages(&web, 1)?;
    ensure!(body(&taken[0])?["rule"] == "up", "{taken:?}");
    let status = || -> Result<Value> { node.json(&["alert", "channel", "list"]) };
    let settled = |all: &Value| {
        let all = all.as_array().into_iter().flatten();
        all.filter(|one| one["channel"]["name"] == "hook")
            .all(|one| one["waiting"] == 0 && one["failure"].is_null())
    };
    until("nothing waits", PATIENCE, status, settled)?;
    // What is silenced is shown and not told; its end is told to whoever knows of its begin.
    node.ok(&[
        "alert", "silence", "add", "--rule", "up", "--ve", "web", "--for", "1h",
    ])?;
    ensure!(node.json(&["alert", "list"])?[0]["silenced"] == true);
    node.ok(&["delete", "web", "--force"])?;
    let taken = messages(&web, 2)?;
    ensure!(body(&taken[1])?["state"] == "resolved", "{taken:?}");
    let left = node.json(&["alert", "list", "--all"])?;
    let names = |rule: &Value| {
        left.as_array()
            .is_some_and(|all| all.iter().any(|one| one["rule"] == *rule))
    };
    ensure!(!names(&Value::from("up")), "{left}");
    Ok(())
}
