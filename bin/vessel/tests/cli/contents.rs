//! What is in VEs: inventory, differences, compaction.

use api::latest::VeState;

use crate::fake::{Served, details};
use crate::snapshot;

#[test]
fn inventory_and_differences() {
    let served = Served::start();
    served.node.add(details(100, "web", VeState::Running));
    served.node.add(details(101, "db", VeState::Stopped));
    snapshot(
        "contents",
        &served,
        &[
            &["inventory"],
            &[
                "inventory",
                "--package",
                "openssl",
                "--older-than",
                "3.0.12",
            ],
            &["inventory", "web", "--csv"],
            &["inventory", "web", "--json"],
            &["inventory", "--older-than", "3"],
            &["diff", "web"],
            &["diff", "--all", "--summary"],
            &["diff", "web", "--json"],
            &["compact", "--all"],
            &["compact", "db", "--json"],
            &["compact", "nobody"],
        ],
    );
    let calls = served.node.lock().calls.clone();
    assert!(
        calls
            .iter()
            .any(|c| c.contains("older_than: Some(\"3.0.12\")")),
        "{calls:?}"
    );
    served.node.add(details(102, "broken", VeState::Broken));
    snapshot(
        "contents-unknown",
        &served,
        &[&["inventory", "--label", "team=shop"]],
    );
}

#[test]
fn updates() {
    let served = Served::start();
    served.node.add(details(100, "web", VeState::Running));
    served.node.add(details(101, "db", VeState::Stopped));
    served
        .node
        .add(details(102, "asleep", VeState::Checkpointed));
    snapshot(
        "update",
        &served,
        &[
            &["update", "web", "db", "--dry-run"],
            &["update", "web", "--dry-run", "--to", "3", "--json"],
            &["update", "web", "--check", "true", "--check-timeout", "5s"],
            &["update", "web", "--json"],
            &["update", "asleep"],
            &["update", "web", "nobody"],
            &["update", "web", "--template", "alpine"],
            &["update", "web", "--stop-at", "101%"],
        ],
    );
    let calls = served.node.lock().calls.clone();
    let asked = "check: Some(\"true\"), check_timeout_ms: Some(5000)";
    assert!(calls.iter().any(|c| c.contains(asked)), "{calls:?}");
}
