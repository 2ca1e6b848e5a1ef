//! Applications on templates: stacks that several VEs share, and what they cost.

use std::fs;
use std::time::Instant;

use anyhow::{Result, ensure};

use crate::harness::{Node, tests};

tests! {
    Node [] =>
        stacks_are_made_once_and_go_with_their_last_ve,
        a_recipe_that_fails_leaves_nothing_but_its_log,
        applications_come_and_go_while_a_ve_is_stopped,
        a_sample_says_what_the_command_does_not,
        a_new_ve_copies_no_file;
}

/// Builds an application that is one file, `/opt/NAME`.
fn build(node: &Node, name: &str) -> Result<()> {
    let recipe = node.folder().join(format!("{name}.toml"));
    let text = format!(
        "name = '{name}'\ncommands = ['mkdir -p /opt', 'echo {name} >/opt/{name}']\n\
         [settings.colour]\ndescription = 'Colour'\nkind = 'word'\ndefault = 'green'\n"
    );
    fs::write(&recipe, text)?;
    let recipe = recipe.display().to_string();
    node.ok(&[
        "template", "build", name, "--on", "tiny", "--recipe", &recipe,
    ])?;
    Ok(())
}

fn stacks_are_made_once_and_go_with_their_last_ve(node: &mut Node) -> Result<()> {
    build(node, "one")?;
    build(node, "two")?;
    for ve in ["a", "b"] {
        let with = ["--application", "two", "--application", "one"];
        node.ok(&[&["create", ve, "--template", "tiny"][..], &with].concat())?;
        node.ok(&["start", ve])?;
        let both = node.sh(ve, "cat /opt/one /opt/two; cat /etc/hostname")?;
        ensure!(both == format!("one\ntwo\n{ve}"), "{both}");
    }
    ensure!(node.templates()? == ["tiny", "tiny+one", "tiny+one+two", "tiny+two"]);
    let used = node.vessel(&["template", "remove", "tiny+one"])?;
    ensure!(
        used.code == 4 && used.stderr.contains("used by 2 VEs"),
        "{used:?}"
    );
    node.ok(&["delete", "--force", "a"])?;
    ensure!(node.templates()?.len() == 4, "b uses it");
    node.ok(&["delete", "--force", "b"])?;
    ensure!(node.templates()? == ["tiny", "tiny+one", "tiny+two"]);
    Ok(())
}

fn a_recipe_that_fails_leaves_nothing_but_its_log(node: &mut Node) -> Result<()> {
    let recipe = node.folder().join("bad.toml");
    fs::write(
        &recipe,
        "name = 'bad'\ncommands = ['echo begun', 'exit 3']\n",
    )?;
    let recipe = recipe.display().to_string();
    let failed = node.vessel(&[
        "template", "build", "bad", "--on", "tiny", "--recipe", &recipe,
    ])?;
    ensure!(failed.code == 1, "{failed:?}");
    ensure!(
        failed
            .stderr
            .contains("command 2 of the recipe failed: exit 3"),
        "{failed:?}"
    );
    let log = fs::read_to_string(node.root().join("log/template-tiny+bad.log"))?;
    ensure!(log.contains("begun"), "{log}");
    ensure!(node.templates()? == ["tiny"]);
    ensure!(
        node.json(&["list"])?.as_array().is_some_and(Vec::is_empty),
        "a sandbox is left"
    );
    let unknown = node.vessel(&["create", "x", "--template", "tiny", "--application", "bad"])?;
    ensure!(
        unknown.code == 3 && unknown.stderr.contains("--on tiny"),
        "{unknown:?}"
    );
    Ok(())
}

fn applications_come_and_go_while_a_ve_is_stopped(node: &mut Node) -> Result<()> {
    build(node, "one")?;
    build(node, "two")?;
    node.ok(&[
        "create",
        "web",
        "--template",
        "tiny",
        "--application",
        "one",
        "--start",
    ])?;
    node.sh("web", "echo mine >/mine; mkdir -p /opt; echo own >/opt/two")?;
    let running = node.vessel(&["application", "add", "two", "web"])?;
    ensure!(running.code == 5, "{running:?}");
    node.ok(&["stop", "--kill", "web"])?;
    let taken = node.vessel(&["application", "add", "two", "web"])?;
    ensure!(
        taken.code == 4 && taken.stderr.contains("/opt/two"),
        "{taken:?}"
    );
    node.ok(&["start", "web"])?;
    node.sh("web", "rm /opt/two")?;
    node.ok(&["stop", "--kill", "web"])?;
    node.ok(&[
        "application",
        "add",
        "two",
        "web",
        "--option",
        "two.colour=red",
    ])?;
    node.ok(&["start", "web"])?;
    let all = node.sh(
        "web",
        "cat /mine /opt/one /opt/two /etc/vessel/applications/two.env",
    )?;
    ensure!(all == "mine\none\ntwo\nCOLOUR='red'", "{all}");
    node.ok(&["stop", "--kill", "web"])?;
    node.ok(&["application", "remove", "one", "web"])?;
    node.ok(&["start", "web"])?;
    let left = node.sh("web", "cat /mine; ls /opt")?;
    ensure!(left == "mine\ntwo", "{left}");
    Ok(())
}

fn a_sample_says_what_the_command_does_not(node: &mut Node) -> Result<()> {
    let own = [
        "--set",
        "memory.limit=64M",
        "--set",
        "processes.limit=50",
        "--label",
        "team=shop",
    ];
    node.ok(&[
        &["sample", "create", "shop", "--template", "tiny"][..],
        &own,
    ]
    .concat())?;
    node.ok(&[
        "create",
        "web",
        "--sample",
        "shop",
        "--count",
        "2",
        "--set",
        "memory.limit=96M",
    ])?;
    let ve = node.show("web-2")?;
    ensure!(ve["limits"]["memory.limit"] == 96 << 20, "{ve}");
    ensure!(
        ve["limits"]["processes.limit"] == 50 && ve["labels"]["team"] == "shop",
        "{ve}"
    );
    let listed = node.json(&["sample", "list"])?;
    ensure!(
        listed.as_array().is_some_and(|all| all.len() == 4),
        "{listed}"
    );
    node.ok(&["sample", "delete", "shop"])?;
    let gone = node.vessel(&["create", "more", "--sample", "shop"])?;
    ensure!(gone.code == 3, "{gone:?}");
    Ok(())
}

/// Most that a VE takes before it ran.
const CREATE_BYTES_MAX: u64 = 64 << 10;

fn a_new_ve_copies_no_file(node: &mut Node) -> Result<()> {
    build(node, "one")?;
    let begun = Instant::now();
    node.ok(&[
        "create",
        "web",
        "--template",
        "tiny",
        "--application",
        "one",
        "--count",
        "20",
    ])?;
    let each = begun.elapsed() / 20;
    for number in 1..=20 {
        let ve = node.show(&format!("web-{number}"))?;
        let bytes = ve["usage"]["disk_bytes"].as_u64().unwrap_or(u64::MAX);
        ensure!(bytes <= CREATE_BYTES_MAX, "a new VE takes {bytes} bytes");
    }
    // Five milliseconds are the aim, which a busy machine misses; a copy of files would take more than this.
    ensure!(each.as_millis() < 100, "a creation took {each:?}");
    Ok(())
}
