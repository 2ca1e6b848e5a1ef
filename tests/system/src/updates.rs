//! VEs that follow the revisions of their template: forward or back, and what they changed stays theirs.
//!
//! The package manager is a script that takes the words of apk and brings along what it upgrades to, so nothing
//! outside of the node is needed.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::harness::{Node, command, tests, tree, until};

tests! {
    Node [] =>
        ves_follow_and_keep_what_they_changed,
        one_that_is_upgraded_inside_sees_the_same_over_the_new_revision,
        a_check_that_fails_brings_a_ve_back_and_spares_the_others,
        a_daemon_that_dies_in_the_middle_leaves_ves_as_before_or_after,
        one_that_is_deleted_meanwhile_is_told_and_no_failure,
        what_cannot_be_is_refused_before_anything_is_done;
}

const PATIENCE: Duration = Duration::from_secs(30);

/// An upgrade that changes, adds and removes files, and keeps configuration that was changed, as apk does. `add` makes a
/// VE's database of packages its own.
const APK: &str = "#!/bin/sh
put() { printf '%s' \"$2\" >$1.new; touch -d @1700000000 $1.new; mv $1.new $1; }
for word; do case $word in
upgrade)
    if [ -e /root/broken ]; then echo 'E: broken on purpose' >&2; exit 3; fi
    grep -q '^V:1$' /lib/apk/db/installed || exit 0
    sed -i 's/^V:1$/V:2/' /lib/apk/db/installed
    put /srv/one 'one of 2'
    put /srv/three 'three of 2'
    rm -f /srv/two
    case $(cat /etc/tiny.conf) in 1) put /etc/tiny.conf 2 ;; *) put /etc/tiny.conf.apk-new 2 ;; esac ;;
add) printf 'P:extra\\nV:7\\nA:noarch\\n\\n' >>/lib/apk/db/installed; echo extra >/srv/extra ;;
esac; done
";

/// Makes the template `demo` in its first revision.
fn template(node: &Node) -> Result<()> {
    let folder = node.folder().join("demo");
    fs::create_dir(&folder)?;
    tree::write(&folder)?;
    fs::create_dir_all(folder.join("lib/apk/db"))?;
    let files = [
        ("lib/apk/db/installed", "P:demo\nV:1\nA:noarch\n\n", 0o644),
        ("etc/os-release", "ID=alpine\nVERSION_ID=3\n", 0o644),
        ("etc/tiny.conf", "1", 0o644),
        ("srv/one", "one of 1", 0o644),
        ("srv/two", "two of 1", 0o644),
        ("sbin/apk", APK, 0o755),
    ];
    for (name, text, mode) in files {
        let path = folder.join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, Permissions::from_mode(mode))?;
    }
    let source = folder.display().to_string();
    node.ok(&["template", "import", &source, "--name", "demo"])?;
    Ok(())
}

/// Makes VEs of the first revision, then the second one.
fn prepare(node: &Node, count: &str) -> Result<()> {
    template(node)?;
    node.ok(&[
        "create",
        "web",
        "--template",
        "demo",
        "--count",
        count,
        "--start",
    ])?;
    Ok(())
}

fn next_revision(node: &Node) -> Result<()> {
    node.ok(&["template", "update", "demo"])?;
    Ok(())
}

/// Everything that a VE sees below some folders: names, modes, owners, contents; times of files. What is written at
/// every start of it is left out.
fn listing(node: &Node, name: &str) -> Result<Vec<String>> {
    let folders = "/bin /sbin /etc /lib /srv /usr /var/tmp /root /home";
    let line = format!(
        "find {folders} | sort | xargs stat -c '%n %f %u %g'; \
         find {folders} -type f | sort | xargs stat -c '%n %Y'; \
         find {folders} -type f | sort | xargs md5sum; find {folders} -type l | sort | xargs -n 1 readlink"
    );
    let ours = [
        "/etc/hosts",
        "/etc/hostname",
        "/etc/resolv.conf",
        "/srv/index.html",
    ];
    let text = node.sh(name, &line)?;
    let kept = text
        .lines()
        .filter(|line| !ours.iter().any(|name| line.contains(name)));
    Ok(kept.map(str::to_owned).collect())
}

fn revision(node: &Node, name: &str) -> Result<Option<u64>> {
    // The first one need not be said.
    Ok(node.show(name)?["revision"].as_u64().or(Some(1)))
}

fn of<'a>(report: &'a Value, name: &str) -> Result<&'a Value> {
    if report["name"] == name {
        return Ok(report);
    }
    let all = report.as_array().context("the report is no list")?;
    let found = all.iter().find(|ve| ve["name"] == name);
    found.with_context(|| format!("nothing is told of `{name}`: {report}"))
}

fn ves_follow_and_keep_what_they_changed(node: &mut Node) -> Result<()> {
    prepare(node, "4")?;
    node.sh(
        "web-2",
        "echo mine >/etc/tiny.conf; echo own >/srv/own; rm /srv/one",
    )?;
    node.sh("web-3", "apk add extra; echo mine >/etc/tiny.conf")?;
    node.ok(&["stop", "--kill", "web-4"])?;
    next_revision(node)?;
    let plan = node.json(&["update", "--template", "demo", "--dry-run"])?;
    ensure!(of(&plan, "web-1")?["way"] == "template", "{plan}");
    ensure!(
        of(&plan, "web-2")?["conflicts"] == serde_json::json!(["/etc/tiny.conf", "/srv/one"]),
        "{plan}"
    );
    ensure!(of(&plan, "web-3")?["way"] == "inside", "{plan}");
    ensure!(of(&plan, "web-4")?["restarts"] == false, "{plan}");
    ensure!(
        revision(node, "web-1")? == Some(1),
        "a dry run did something"
    );

    let check = [
        "--check",
        "grep -q V:2 /lib/apk/db/installed",
        "--canary",
        "1",
    ];
    let words = [&["update", "--template", "demo"][..], &check].concat();
    let report = node.json(&words)?;
    for name in ["web-1", "web-2", "web-3", "web-4"] {
        ensure!(of(&report, name)?["result"] == "updated", "{report}");
        ensure!(revision(node, name)? == Some(2), "{name} is as before");
    }
    ensure!(of(&report, "web-1")?["downtime_ms"].is_u64(), "{report}");
    ensure!(of(&report, "web-4")?["downtime_ms"].is_null(), "{report}");
    ensure!(
        of(&report, "web-3")?["conflicts"] == serde_json::json!(["/etc/tiny.conf"]),
        "{report}"
    );
    ensure!(node.state("web-4")? == "stopped", "it was started");
    let files = "cat /etc/tiny.conf; for f in one two three own extra; do cat /srv/$f 2>/dev/null; echo; done";
    let seen = |name| node.sh(name, files);
    ensure!(
        seen("web-1")? == "2one of 2\n\nthree of 2",
        "{}",
        seen("web-1")?
    );
    ensure!(
        seen("web-2")? == "mine\n\n\nthree of 2\nown",
        "{}",
        seen("web-2")?
    );
    ensure!(
        seen("web-3")? == "mine\none of 2\n\nthree of 2\n\nextra",
        "{}",
        seen("web-3")?
    );
    // The other template's revision goes with its last VE, and doing it again does nothing.
    let pid = node.init_pid("web-1")?;
    let again = node.json(&["update", "--template", "demo"])?;
    ensure!(of(&again, "web-1")?["result"] == "unchanged", "{again}");
    ensure!(node.init_pid("web-1")? == pid, "it was started again");
    Ok(())
}

fn one_that_is_upgraded_inside_sees_the_same_over_the_new_revision(node: &mut Node) -> Result<()> {
    prepare(node, "1")?;
    // Its own upgrade is done already, so that all that is seen before is to be seen behind it.
    node.sh(
        "web-1",
        "apk add extra; apk upgrade; mv /srv /home/moved; mkdir /srv; echo own >/srv/own; \
         mkdir /usr/deep; ln -s /home/moved/one /usr/deep/link; chmod 600 /etc/hosts; rm /bin/yes",
    )?;
    let before = listing(node, "web-1")?;
    let files = |node: &Node| -> Result<u64> {
        let difference = node.json(&["diff", "web-1"])?;
        difference["counts"]["changed"]
            .as_u64()
            .context("no count of changes")
    };
    let changed = files(node)?;
    next_revision(node)?;
    let report = node.json(&["update", "web-1"])?;
    ensure!(of(&report, "web-1")?["way"] == "inside", "{report}");
    let after = listing(node, "web-1")?;
    for (old, new) in before.iter().zip(&after) {
        ensure!(old == new, "it was `{old}` and is `{new}`");
    }
    ensure!(before.len() == after.len(), "there are other names");
    ensure!(files(node)? < changed + 1, "nothing was given back");
    Ok(())
}

fn a_check_that_fails_brings_a_ve_back_and_spares_the_others(node: &mut Node) -> Result<()> {
    prepare(node, "3")?;
    node.sh("web-1", "apk add extra; echo kept >/srv/kept")?;
    let before = listing(node, "web-1")?;
    next_revision(node)?;
    let check = "test ! -e /srv/three || { echo all is lost; false; }";
    let told = node.vessel(&[
        "update",
        "--template",
        "demo",
        "--parallel",
        "1",
        "--check",
        check,
        "--check-timeout",
        "1s",
        "--json",
    ])?;
    ensure!(told.code == 9, "{told:?}");
    ensure!(
        told.stderr.contains("ended with code 1: all is lost"),
        "{told:?}"
    );
    let report: Value = serde_json::from_str(&told.stdout)?;
    ensure!(of(&report, "web-1")?["result"] == "rolled-back", "{report}");
    for name in ["web-2", "web-3"] {
        ensure!(of(&report, name)?["result"] == "not-begun", "{report}");
    }
    ensure!(
        revision(node, "web-1")? == Some(1),
        "it has the new revision"
    );
    node.expect_state("web-1", "running")?;
    ensure!(listing(node, "web-1")? == before, "its files are others");
    // An upgrade inside that fails says why, and leaves a log.
    node.sh("web-1", "touch /root/broken")?;
    let told = node.vessel(&["update", "web-1"])?;
    ensure!(
        told.code == 1 && told.stderr.contains("broken on purpose"),
        "{told:?}"
    );
    let log = fs::read_to_string(
        node.root()
            .join(format!("log/{}/update.log", node.first_id())),
    )?;
    ensure!(log.contains("broken on purpose"), "{log}");
    // A share of failures that is not reached lets the others go on.
    let told = node.vessel(&["update", "--template", "demo", "--stop-at", "50%", "--json"])?;
    let report: Value = serde_json::from_str(&told.stdout)?;
    ensure!(
        told.code == 9 && of(&report, "web-3")?["result"] == "updated",
        "{told:?}"
    );
    Ok(())
}

fn a_daemon_that_dies_in_the_middle_leaves_ves_as_before_or_after(node: &mut Node) -> Result<()> {
    prepare(node, "2")?;
    node.sh("web-2", "apk add extra")?;
    next_revision(node)?;
    let words = [
        "update",
        "web-1",
        "web-2",
        "--check",
        "sleep 0.3; test -e /srv/three",
    ];
    for milliseconds in [30, 300, 1_200, 2_300, 2_800] {
        if revision(node, "web-1")? != Some(1) || revision(node, "web-2")? != Some(1) {
            break;
        }
        let mut running = node.begin(&words)?;
        std::thread::sleep(Duration::from_millis(milliseconds));
        node.kill_daemon()?;
        node.start_daemon()?;
        running.wait()?;
        for name in ["web-1", "web-2"] {
            let state = || node.state(name);
            until("it runs", PATIENCE, state, |state| state == "running")?;
            let three = node.sh(name, "ls /srv | grep -c three || true")?;
            let is = (revision(node, name)?, three.as_str());
            let whole = [(Some(1), "0"), (Some(2), "1")].contains(&is);
            ensure!(whole, "{name}, after {milliseconds} ms: {is:?}");
        }
    }
    let report = node.json(&words)?;
    ensure!(revision(node, "web-2")? == Some(2), "{report}");
    Ok(())
}

fn one_that_is_deleted_meanwhile_is_told_and_no_failure(node: &mut Node) -> Result<()> {
    prepare(node, "3")?;
    next_revision(node)?;
    let mut words = vec!["update", "--template", "demo", "--parallel", "1", "--json"];
    words.extend(["--check", "sleep 2"]);
    let mut update = node.command(&words);
    let told = std::thread::scope(|scope| {
        let told = scope.spawn(|| command::run(&mut update));
        std::thread::sleep(Duration::from_millis(300));
        node.ok(&["delete", "--force", "web-3"])?;
        told.join()
            .unwrap_or_else(|_| anyhow::bail!("the update broke"))
    })?;
    let report: Value = serde_json::from_str(&told.stdout)?;
    ensure!(told.code == 0, "{told:?}");
    ensure!(of(&report, "web-3")?["result"] == "deleted", "{report}");
    ensure!(of(&report, "web-2")?["result"] == "updated", "{report}");
    Ok(())
}

fn what_cannot_be_is_refused_before_anything_is_done(node: &mut Node) -> Result<()> {
    prepare(node, "2")?;
    next_revision(node)?;
    for (words, code, says) in [
        (&["web-1", "nobody"][..], 3, "VE `nobody`"),
        (
            &["web-1", "--template", "tiny"],
            2,
            "is of the template `demo`",
        ),
        (&["--template", "nothing"], 3, "no template `nothing`"),
        (&["web-1", "--to", "9"], 3, "demo@9"),
        (&["web-1", "--stop-at", "0"], 2, "neither a number"),
        (&["web-1", "--check", " "], 2, "a check is a command"),
        (&[], 2, "required"),
    ] {
        let told = node.vessel(&[&["update"], words].concat())?;
        ensure!(
            told.code == code && told.stderr.contains(says),
            "{words:?}: {told:?}"
        );
    }
    node.ok(&["pause", "web-1"])?;
    let told = node.vessel(&["update", "web-1"])?;
    ensure!(told.code == 5, "{told:?}");
    node.ok(&["resume", "web-1"])?;
    ensure!(revision(node, "web-1")? == Some(1), "it was updated");
    Ok(())
}
