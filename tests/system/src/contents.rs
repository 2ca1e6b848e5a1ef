//! What is in VEs, looked at from outside: packages, differences, and copies that are given back.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::harness::{Node, tests, tree};

tests! {
    Node [] =>
        the_inventory_says_what_each_ve_has_installed,
        a_hostile_package_database_is_named_and_costs_nothing,
        a_difference_lists_what_a_ve_changed,
        a_stopped_ve_gives_back_what_became_equal,
        a_running_ve_gives_back_blocks_and_loses_no_write;
}

/// Bytes of a file that is large enough to lie in the store, and to count.
const LARGE: usize = 3 << 20;

fn status(version: &str) -> String {
    format!(
        "Package: libssl3\nStatus: install ok installed\nArchitecture: amd64\nSource: openssl\n\
         Version: {version}\n\nPackage: nginx\nStatus: install ok installed\nVersion: 1.22.1-9\n\n"
    )
}

/// A template with packages and some files.
fn import(node: &Node) -> Result<()> {
    let folder = node.folder().join("packaged");
    fs::create_dir(&folder)?;
    tree::write(&folder)?;
    fs::create_dir_all(folder.join("var/lib/dpkg"))?;
    fs::write(folder.join("var/lib/dpkg/status"), status("3.0.9-1"))?;
    fs::create_dir_all(folder.join("opt/data"))?;
    for (name, seed) in [("one", 1_u8), ("two", 2), ("three", 3)] {
        let content: Vec<u8> = (0..LARGE)
            .map(|at| u8::try_from(at * 7 % 251).unwrap_or(0).wrapping_add(seed))
            .collect();
        fs::write(folder.join("opt/data").join(name), content)?;
    }
    fs::hard_link(folder.join("opt/data/three"), folder.join("opt/data/third"))?;
    let source = folder.display().to_string();
    node.ok(&["template", "import", &source, "--name", "packaged"])?;
    Ok(())
}

fn names(entries: &Value) -> Vec<&str> {
    let entries = entries.as_array().map(Vec::as_slice).unwrap_or_default();
    entries.iter().filter_map(|e| e["name"].as_str()).collect()
}

fn the_inventory_says_what_each_ve_has_installed(node: &mut Node) -> Result<()> {
    import(node)?;
    for name in ["old", "new", "moved"] {
        node.ok(&["create", name, "--template", "packaged", "--start"])?;
    }
    node.ok(&["create", "fresh", "--template", "packaged"])?;
    node.start_tiny("bare")?;
    let new = status("3.0.11-1~deb12u2").replace('\n', "\\n");
    node.sh("new", &format!("printf '{new}' > /var/lib/dpkg/status"))?;
    // A database at the other end of a link, as some systems have it.
    node.sh(
        "moved",
        "mv /var/lib/dpkg /opt/dpkg && ln -s /../opt/dpkg /var/lib/dpkg",
    )?;
    node.ok(&["set", "old", "owner=Jane Doe", "description=the shop, old"])?;
    ensure!(node.show("old")?["owner"] == "Jane Doe");

    let search = [
        "inventory",
        "--package",
        "openssl",
        "--older-than",
        "3.0.11",
    ];
    let found = node.json(&search)?;
    ensure!(names(&found) == ["old", "moved", "fresh"], "{found}");
    ensure!(
        found[0]["owner"] == "Jane Doe" && found[0]["manager"] == "dpkg",
        "{found}"
    );
    ensure!(found[0]["packages"][0]["name"] == "libssl3", "{found}");
    let found = node.json(&["inventory", "--package", "libssl*", "new", "bare"])?;
    ensure!(names(&found) == ["new"], "{found}");
    ensure!(
        found[0]["packages"][0]["version"] == "3.0.11-1~deb12u2",
        "{found}"
    );

    // A stopped VE is read as well, and what it had changed counts.
    node.ok(&["stop", "--kill", "new"])?;
    let found = node.json(&search)?;
    ensure!(names(&found) == ["old", "moved", "fresh"], "{found}");
    node.ok(&["start", "new"])?;
    node.sh("new", "rm -r /var/lib/dpkg")?;
    let found = node.json(&["inventory", "new"])?;
    ensure!(
        found[0]["packages_count"] == 0 && found[0]["manager"] == "",
        "{found}"
    );

    let templates = node.json(&["inventory", "--templates", "--package", "nginx"])?;
    ensure!(names(&templates) == ["packaged"], "{templates}");
    let csv = node.ok(&["inventory", "--csv"])?;
    ensure!(
        csv.contains("Jane Doe,\"the shop, old\"") && csv.contains("libssl3,3.0.9-1,amd64,openssl"),
        "{csv}"
    );
    let refused = node.vessel(&["inventory", "nobody"])?;
    ensure!(refused.code == 3, "{refused}");
    Ok(())
}

fn a_hostile_package_database_is_named_and_costs_nothing(node: &mut Node) -> Result<()> {
    import(node)?;
    // A word that only the host's file has.
    let secret = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    let bait = node.folder().join("bait");
    let text = status("1").replace("libssl3", secret.trim());
    fs::write(&bait, text)?;
    let bait = bait.display();
    let attacks = [
        ("leads-out", format!("ln -s {bait} status")),
        (
            "climbs-out",
            format!("ln -s ../../../../../../../..{bait} status"),
        ),
        ("proc", format!("ln -s /proc/1/root{bait} status")),
        ("round", "ln -s status status".to_owned()),
        ("pipe", "mkfifo status".to_owned()),
        ("folder", "mkdir status".to_owned()),
        ("huge", "truncate -s 1024G status".to_owned()),
        ("zeros", "truncate -s 30M status".to_owned()),
        (
            "deep",
            "for i in $(seq 300); do mkdir d; cd d; done; touch status".to_owned(),
        ),
    ];
    for (name, attack) in &attacks {
        node.ok(&["create", name, "--template", "packaged", "--start"])?;
        node.sh(name, &format!("cd /var/lib/dpkg && rm status && {attack}"))?;
    }
    let begun = std::time::Instant::now();
    let output = node.vessel(&["inventory", "--json"])?;
    ensure!(
        begun.elapsed().as_secs() < 20,
        "it took {:?}",
        begun.elapsed()
    );
    ensure!(output.code == 9, "{output}");
    ensure!(
        !output.stdout.contains(secret.trim()),
        "a file of the host's was read"
    );
    let entries: Value = serde_json::from_str(&output.stdout)?;
    for entry in entries.as_array().context("no array")? {
        let told = entry["problem"].as_str().is_some();
        let name = entry["name"].as_str().unwrap_or_default();
        ensure!(
            told == ["pipe", "folder", "huge"].contains(&name),
            "{entry}"
        );
        ensure!(entry["packages_count"] == 0, "{entry}");
    }
    ensure!(output.stderr.contains("warning: ve `huge`"), "{output}");
    Ok(())
}

fn a_difference_lists_what_a_ve_changed(node: &mut Node) -> Result<()> {
    import(node)?;
    node.ok(&["create", "web", "--template", "packaged", "--start"])?;
    node.sh(
        "web",
        "echo new > /opt/new; echo x >> /opt/data/one; rm /opt/data/two; chmod 700 /opt/data/third; \
         mv /var/lib/dpkg /var/lib/packages; printf 'a\\033[31mb' > \"/opt/$(printf 'c\\033d')\"",
    )?;
    let found = |node: &Node| -> Result<Vec<String>> {
        let difference = node.json(&["diff", "web"])?;
        ensure!(difference["truncated"] == false, "{difference}");
        let changes = difference["changes"].as_array().context("no changes")?;
        let told = changes.iter().map(|c| {
            let text = |key: &str| c[key].as_str().unwrap_or_default().to_owned();
            format!("{} {}", text("change"), text("path"))
        });
        let told = told.filter(|line| !line.contains("/etc/") && !line.contains("/run"));
        Ok(told.collect())
    };
    let expected = [
        "added /opt/c\\u{1b}d",
        "changed /opt/data/one",
        "metadata /opt/data/third",
        "deleted /opt/data/two",
        "added /opt/new",
        "deleted /var/lib/dpkg",
        "added /var/lib/packages",
    ];
    for line in expected {
        let found = found(node)?;
        ensure!(
            found.iter().any(|f| f == line),
            "{line} is not in {found:?}"
        );
    }
    ensure!(!found(node)?.iter().any(|line| line.contains("/data/three")));
    let text = node.ok(&["diff", "web"])?;
    ensure!(
        text.contains("/var/lib/packages (was /var/lib/dpkg)"),
        "{text}"
    );
    node.ok(&["stop", "--kill", "web"])?;
    for line in expected {
        ensure!(found(node)?.iter().any(|f| f == line), "stopped: {line}");
    }
    Ok(())
}

/// Changes files of a VE and puts them back as they were.
const THERE_AND_BACK: &str = "cd /opt/data && \
    for f in one two third; do cp -p $f /tmp/$f; echo x >> $f; cat /tmp/$f > $f; touch -r /tmp/$f $f; done; \
    rm two; cp -p /tmp/two two; rm -r /tmp/*";

fn a_stopped_ve_gives_back_what_became_equal(node: &mut Node) -> Result<()> {
    import(node)?;
    node.ok(&["create", "web", "--template", "packaged", "--start"])?;
    let sums = |node: &Node| node.sh("web", "cd /opt/data && sha256sum * && ls -il --full-time .");
    node.sh("web", THERE_AND_BACK)?;
    node.sh("web", "echo mine > /opt/mine")?;
    let before = node.sh("web", "cd /opt/data && sha256sum *")?;
    node.ok(&["stop", "--kill", "web"])?;
    let used = |node: &Node| {
        let shown = node.show("web")?;
        shown["usage"]["disk_bytes"].as_u64().context("no usage")
    };
    let held = used(node)?;
    ensure!(held > 3 * LARGE as u64, "{held} bytes are held");
    let done = node.json(&["compact", "web"])?;
    ensure!(done["whole"] == true && done["files"] == 3, "{done}");
    ensure!(done["size_bytes"] == 3 * LARGE, "{done}");
    let returned = done["disk_bytes"].as_u64().unwrap_or_default();
    ensure!(
        returned >= 3 * LARGE as u64 && used(node)? == held - returned,
        "{done}"
    );
    ensure!(node.json(&["compact", "web"])?["files"] == 0);
    node.ok(&["start", "web"])?;
    ensure!(node.sh("web", "cd /opt/data && sha256sum *")? == before);
    ensure!(node.sh("web", "cat /opt/mine")? == "mine");
    // The two names of one file are one file, and what was given back can be changed again.
    node.sh(
        "web",
        "echo y >> /opt/data/third && cmp /opt/data/third /opt/data/three",
    )?;
    node.sh(
        "web",
        "cd /opt/data && rm two && echo z > two && mv one other",
    )?;
    ensure!(
        node.sh("web", "cat /opt/data/two")? == "z",
        "{}",
        sums(node)?
    );
    let refused = node.vessel(&["compact", "nobody"])?;
    ensure!(refused.code == 3, "{refused}");
    Ok(())
}

fn a_running_ve_gives_back_blocks_and_loses_no_write(node: &mut Node) -> Result<()> {
    import(node)?;
    node.ok(&["create", "web", "--template", "packaged", "--start"])?;
    node.sh("web", THERE_AND_BACK)?;
    // Held open for writing while its blocks become the template's.
    node.sh(
        "web",
        "sh -c 'exec 3>>/opt/data/one; echo $$ > /tmp/holder; sleep 5; echo end >&3' > /dev/null 2>&1 < /dev/null &",
    )?;
    let done = node.json(&["compact", "web"])?;
    ensure!(done["whole"] == false && done["files"] == 3, "{done}");
    ensure!(
        done["disk_bytes"].as_u64() > Some(2 * LARGE as u64),
        "{done}"
    );
    node.sh(
        "web",
        "while kill -0 $(cat /tmp/holder) 2>/dev/null; do sleep 1; done; tail -n 1 /opt/data/one",
    )
    .and_then(|text| {
        ensure!(text.ends_with("end"), "{text:?}");
        Ok(())
    })?;
    let size = node.sh("web", "stat -c %s /opt/data/one")?;
    ensure!(size == (LARGE + 4).to_string(), "{size}");
    Ok(())
}
