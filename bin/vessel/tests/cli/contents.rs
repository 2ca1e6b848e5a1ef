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
