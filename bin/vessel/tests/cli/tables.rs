//! Tables for people and JSON for scripts.

use api::latest::VeState;

use crate::fake::{Served, details};
use crate::{run, snapshot};

fn served() -> Served {
    let served = Served::start();
    served.node.add(details(100, "web", VeState::Running));
    served
        .node
        .add(details(101, "a-rather-long-name", VeState::Stopped));
    let mut broken = details(102, "db", VeState::Broken);
    broken.reason = Some("its private area is gone".to_owned());
    broken.addresses.clear();
    broken.labels.clear();
    served.node.add(broken);
    served
}

#[test]
fn list_and_show() {
    snapshot(
        "list",
        &served(),
        &[
            &["list"],
            &[
                "list",
                "--no-header",
                "--state",
                "stopped",
                "--state",
                "broken",
            ],
            &[
                "list",
                "--columns",
                "name,memory.limit,cpu.limit,created,labels",
                "--sort",
                "name",
            ],
            &["list", "--quiet"],
            &["list", "--json"],
            &[
                "list",
                "--label",
                "team=shop",
                "--json",
                "--state",
                "running",
            ],
            &["list", "nobody"],
            &["list", "--columns", "colour"],
            &["list", "--state", "up"],
        ],
    );
    snapshot(
        "show",
        &served(),
        &[
            &["show", "web"],
            &["show", "102"],
            &["show", "web", "--json"],
            &["show", "web", "db", "--json"],
            &["show", "--label", "team=shop", "--json"],
            &["show", "nobody", "--json"],
            &["show", "nobody", "web"],
        ],
    );
}

#[test]
fn numbers() {
    snapshot(
        "stats",
        &served(),
        &[
            &["stats", "web"],
            &["stats", "web", "--json"],
            &["stats", "--all", "--json"],
            &["top", "--sort", "name"],
            &["top", "--json"],
        ],
    );
}

#[test]
fn walls() {
    snapshot(
        "isolation",
        &served(),
        &[
            &["isolation", "web"],
            &["isolation", "a-rather-long-name"],
            &["isolation", "web", "--differing"],
            &["isolation", "web", "--wall", "namespaces", "--json"],
            &["isolation", "web", "--wall", "moat"],
            &["isolation", "nobody"],
        ],
    );
}

#[test]
fn the_node_and_what_belongs_to_it() {
    snapshot(
        "node",
        &served(),
        &[
            &["node", "show"],
            &["node", "show", "--json"],
            &["node", "set", "cpu.reserve=0.5", "memory.overcommit=1.5"],
            &["node", "set", "cpu.reserve=2"],
            &["node", "set"],
            &["pool", "show"],
            &["pool", "show", "--json"],
            &["doctor"],
            &["doctor", "--json"],
            &["template", "list"],
            &["template", "list", "--json"],
            &["template", "show", "debian-12", "--packages"],
            &["template", "show", "debian-12", "--json"],
            &["template", "show", "nothing"],
            &["template", "diff", "debian-12@1", "debian-12@2"],
            &["template", "update", "debian-12", "--no-wait"],
            &["events"],
            &["events", "--json", "--after", "1"],
            &["init", "--pool-size", "40G"],
            &["init", "--pool-size", "40G", "--device", "/dev/x"],
        ],
    );
}

#[test]
fn operations() {
    let served = served();
    assert_eq!(run(&served, &["stop", "web"]).code, 0);
    snapshot(
        "operations",
        &served,
        &[
            &["operation", "list"],
            &["operation", "list", "--all"],
            &["operation", "list", "--all", "--json"],
            &["operation", "show", "1"],
            &["operation", "show", "1", "--json"],
            &["operation", "show", "9"],
            &["template", "verify", "debian-12", "--no-wait"],
            &["operation", "list"],
            &["operation", "cancel", "2"],
            &["operation", "wait", "2"],
            &["operation", "wait", "1"],
        ],
    );
}

#[test]
fn tables_fit_eighty_columns() {
    let served = served();
    for words in [
        &["list"][..],
        &["top"],
        &["template", "list"],
        &["operation", "list", "--all"],
    ] {
        let ran = run(&served, words);
        for line in ran.stdout.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
}
