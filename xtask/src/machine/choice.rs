//! What runs on the machine, and what does not and why.
//!
//! An emulated processor is slow, so the choice is what another kernel, cgroup v2, systemd around a
//! node or another CRIU can change. All else ran on the machine that emulates this one. What is
//! chosen is named here; what is not is found by asking the tests for their list, so that a new
//! test is told as left out until somebody chooses it.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

/// A program of tests: its package, and its name there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Suite {
    pub(super) package: &'static str,
    pub(super) target: &'static str,
}

impl Suite {
    pub(super) fn name(self) -> String {
        format!("{}-{}", self.package, self.target)
    }
}

const fn suite(package: &'static str, target: &'static str) -> Suite {
    Suite { package, target }
}

/// The system tests.
pub(super) const SYSTEM: Suite = suite("system-tests", "system");

/// Those of them that run, by a part of their names.
const CHOSEN: &[&str] = &[
    // systemd, udev and networkd around a node; a Debian that runs, sleeps and wakes
    "installed::",
    // `vessel set` on cgroup v2, live
    "limits::",
    // what the kernel tells of memory that runs short, and weights at the disk and on the way out, on cgroup v2
    "growth::",
    "guarantees::the_disk_is_divided_by_shares",
    "bandwidth::guaranteed_bandwidth_is_sold_once",
    // where runtimes look for limits
    "view::what_runtimes_read_tells_its_limits_or_that_there_are_none",
    // the freezer of cgroup v2, and how inits end
    "life::a_ve_is_created_started_stopped_and_deleted",
    "life::a_pause_freezes_every_process_until_resume",
    "life::reboot_inside_starts_it_again",
    "life::poweroff_inside_stops_it",
    // groups that are found again
    "crash::a_killed_launcher_takes_no_ve_with_it",
    "crash::limits_set_before_a_crash_are_kept",
    // Debian's own CRIU, with the layers that this kernel takes
    "sleep::a_ve_wakes_as_it_was_and_sleeps_again",
    "sleep::settings_change_while_it_sleeps",
    // packets that this kernel filters
    "network::host_and_ves_reach_each_other_in_both_families",
    "network::translated_traffic_leaves_with_the_nodes_address",
];

/// Tests of crates that run: what is written to control groups, and the VEs' view by this kernel's FUSE.
pub(super) const CRATES: &[Suite] = &[
    suite("cgroup", "life"),
    suite("cgroup", "limits"),
    suite("cgroup", "confinement"),
    suite("vessel-procview", "server"),
];

/// Single tests of these that do not run, by their whole names, and why.
const OF_CRATES_LEFT_OUT: [(&str, &str); 1] = [(
    "a_killed_server_is_noticed_by_no_reader",
    "wants more reads in two seconds than an emulated processor makes",
)];

/// Other tests of crates that work with the kernel, and why they do not run here.
const CRATES_LEFT_OUT: [(&str, &str); 5] = [
    (
        "cgroup division",
        "measures shares of processors that are emulated",
    ),
    (
        "network namespaces",
        "the chosen system tests send through the same links and filters",
    ),
    (
        "vessel-launcher",
        "every system test launches by it, the chosen ones dump and restore by it",
    ),
    ("pool", "every system test has a pool here"),
    (
        "template",
        "an emulated processor takes minutes for what it decodes",
    ),
];

/// What a program of tests is told, and what people are told.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) arguments: Vec<String>,
    pub(super) left_out: Vec<String>,
}

/// What the programs of tests of crates are told.
pub(super) fn crate_arguments() -> Vec<String> {
    let skips = OF_CRATES_LEFT_OUT.iter();
    skips
        .flat_map(|(test, _)| ["--skip".to_owned(), (*test).to_owned()])
        .collect()
}

/// Chooses among the system tests, given their own list.
///
/// # Errors
/// A choice that chooses nothing was left behind by a test that got another name.
pub(super) fn choose(list: &str) -> Result<Choice> {
    let names = || list.lines().filter_map(|line| line.strip_suffix(": test"));
    if let Some(stale) = CHOSEN
        .iter()
        .find(|part| !names().any(|name| name.contains(*part)))
    {
        bail!("no system test is called `{stale}`: choose another in xtask/src/machine/choice.rs");
    }
    // A name may be a part of another.
    let mut arguments = vec!["--exact".to_owned()];
    let mut topics: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for name in names().filter(|name| !CHOSEN.iter().any(|part| name.contains(part))) {
        arguments.extend(["--skip".to_owned(), name.to_owned()]);
        let (topic, test) = name.split_once("::").unwrap_or(("", name));
        topics.entry(topic).or_default().push(test);
    }
    let ran = "not chosen for an emulated processor's time; they ran outside";
    let system = topics
        .iter()
        .map(|(topic, tests)| format!("{topic}: {}: {ran}", tests.join(", ")));
    let crates = OF_CRATES_LEFT_OUT.iter().chain(&CRATES_LEFT_OUT);
    let crates = crates.map(|(name, why)| format!("tests of {name}: {why}"));
    Ok(Choice {
        arguments,
        left_out: system.chain(crates).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list with what is chosen, one test each, and with others.
    fn list(others: &str) -> String {
        let chosen = CHOSEN.iter().map(|part| match part.strip_suffix("::") {
            Some(topic) => format!("{topic}::first: test\n"),
            None => format!("{part}: test\n"),
        });
        chosen.chain([others.to_owned()]).collect()
    }

    #[test]
    fn what_is_not_chosen_is_skipped_and_told() {
        let choice = choose(&list("bulk::many: test\nbulk::more: test\n\n2 tests\n")).unwrap();
        let skips = ["--exact", "--skip", "bulk::many", "--skip", "bulk::more"];
        assert_eq!(choice.arguments, skips);
        assert!(choice.left_out[0].starts_with("bulk: many, more: "));
        assert_eq!(
            choice.left_out.len(),
            1 + OF_CRATES_LEFT_OUT.len() + CRATES_LEFT_OUT.len()
        );
    }

    #[test]
    fn a_choice_without_a_test_is_refused() {
        let list = list("").replace("limits::", "bounds::");
        let error = choose(&list).unwrap_err().to_string();
        assert!(error.contains("`limits::`"), "{error}");
    }
}
