//! Revisions of templates: made by the template's own package manager, kept while they are used, whole whatever fails.
//!
//! The package manager here is a script that takes the words of apt and fetches from another VE, so these tests need
//! nothing outside of their node. A package of it is a script, too, which its installation runs. One test does it with
//! Debian's own programs, and packages of its own.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::debian;
use crate::harness::{Need, Node, command, tests, tree, until};

tests! {
    Node [] =>
        a_revision_stays_while_it_is_used,
        an_update_that_fails_leaves_the_template_as_it_was,
        what_is_no_template_of_a_system_is_not_updated,
        a_daemon_that_dies_amid_an_update_leaves_the_template_as_it_was,
        what_one_sandbox_fetched_the_next_does_not,
        applications_come_along_to_the_next_revision;
    Debian [Need::Packages] =>
        a_debian_is_updated_by_its_own_apt;
}

const PATIENCE: Duration = Duration::from_secs(20);

/// Takes `update`, `dist-upgrade`, and that with `--print-uris`. The mirror's `versions` has a line for each package: name,
/// version, file, size and digest.
const APT: &str = r#"#!/bin/sh
for word; do case "$word" in update | dist-upgrade | --print-uris) verb="$verb $word" ;; esac; done
mirror=$(cat /etc/mirror)
lists=/var/lib/apt/lists/versions
archives=/var/cache/apt/archives
fetch() { wget -q -O "$2" "$mirror/$1" || { echo "E: cannot fetch $1" >&2; exit 100; }; }
case "$verb" in
    " update") fetch versions "$lists" ;;
    *--print-uris*) while read -r name version file size digest; do
        echo "'$mirror/$file' $file $size SHA256:$digest"
    done <"$lists" ;;
    " dist-upgrade") while read -r name version file size digest; do
        grep -q "^Version: $version$" /var/lib/dpkg/status && continue
        [ -e "$archives/$file" ] || fetch "$file" "$archives/$file"
        sh "$archives/$file" || { echo "E: the script of $name failed" >&2; exit 100; }
        sed -i "s/^Version: .*/Version: $version/" /var/lib/dpkg/status
    done <"$lists" ;;
    *) echo "E: not understood: $*" >&2; exit 100 ;;
esac
"#;

/// A VE that others fetch packages from, and a template `fake` with the package `demo` in version 1.
struct Mirror<'a>(&'a Node);

impl<'a> Mirror<'a> {
    fn begin(node: &'a Node) -> Result<Self> {
        node.start_tiny("mirror")?;
        let folder = node.folder().join("fake");
        fs::create_dir(&folder)?;
        tree::write(&folder)?;
        for name in [
            "var/lib/dpkg",
            "var/lib/apt/lists",
            "var/cache/apt/archives",
            "usr/sbin",
        ] {
            fs::create_dir_all(folder.join(name))?;
        }
        let status =
            "Package: demo\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n\n";
        fs::write(folder.join("var/lib/dpkg/status"), status)?;
        fs::write(
            folder.join("etc/mirror"),
            format!("http://{}", node.v4("mirror")?),
        )?;
        fs::write(folder.join("etc/demo"), "1\n")?;
        fs::write(folder.join("bin/apt-get"), APT)?;
        let mut chmod = Command::new("chmod");
        command::run(chmod.arg("755").arg(folder.join("bin/apt-get")))?.success()?;
        let source = folder.display().to_string();
        node.ok(&["template", "import", &source, "--name", "fake"])?;
        Ok(Self(node))
    }

    /// Offers a version of the package, and what its installation does besides.
    fn offer(&self, version: u32, script: &str) -> Result<()> {
        let file = format!("demo_{version}_all.deb");
        let text = format!("{script}\necho {version} >/etc/demo\n");
        let line = format!(
            "cd /srv && cat >{file} && set -- $(sha256sum {file}) && \
             echo demo {version} {file} {} $1 >versions",
            text.len()
        );
        let words = ["exec", "mirror", "--", "sh", "-c", &line];
        self.0
            .vessel_with_input(&words, text.as_bytes())?
            .success()?;
        Ok(())
    }
}

/// What nobody uses goes when the operation that ended its use has ended.
fn left(node: &Node, expected: &[&str]) -> Result<()> {
    let listed = || node.templates();
    until("the rest is gone", PATIENCE, listed, |all| all == expected).map(drop)
}

fn revision(node: &Node, ve: &str) -> Result<u64> {
    Ok(node.show(ve)?["revision"].as_u64().unwrap_or(1))
}

/// Nothing of a sandbox is left, and the template is the one that was imported.
fn unharmed(node: &Node) -> Result<()> {
    ensure!(node.templates()? == ["fake", "tiny"]);
    let areas = || {
        let private = node.pool()?.join("private");
        let names = fs::read_dir(private)?.map(|entry| Ok(entry?.file_name()));
        names.collect::<Result<Vec<_>>>()
    };
    let mirror = node.show("mirror")?["id"].to_string();
    until("the sandbox is gone", PATIENCE, areas, |left| {
        left.iter().all(|name| *name == *mirror)
    })?;
    node.ok(&["template", "verify", "fake"])?;
    Ok(())
}

fn a_revision_stays_while_it_is_used(node: &mut Node) -> Result<()> {
    let mirror = Mirror::begin(node)?;
    mirror.offer(1, "")?;
    node.ok(&["create", "old", "--template", "fake", "--start"])?;
    let same = node.json(&["template", "update", "fake"])?;
    ensure!(same["changed"] == false && same["to"] == "fake", "{same}");
    ensure!(node.templates()? == ["fake", "tiny"]);

    mirror.offer(2, "")?;
    let made = node.json(&["template", "update", "fake"])?;
    let expected = serde_json::json!([{"name": "demo", "old": "1", "new": "2"}]);
    ensure!(made["changed"] == true && made["to"] == "fake@2", "{made}");
    ensure!(made["packages"] == expected, "{made}");
    ensure!(node.templates()? == ["fake", "fake@2", "tiny"]);
    let list = node.ok(&["template", "list", "--quiet"])?;
    ensure!(list.lines().eq(["fake@1", "fake@2", "tiny"]), "{list}");

    node.ok(&["create", "new", "--template", "fake", "--start"])?;
    node.ok(&["create", "asked", "--template", "fake@1", "--start"])?;
    for (ve, number) in [("old", 1), ("new", 2), ("asked", 1)] {
        ensure!(revision(node, ve)? == number, "{ve}");
        ensure!(node.sh(ve, "cat /etc/demo")? == number.to_string(), "{ve}");
    }
    // They start again on what they were made from.
    node.ok(&["restart", "old", "new"])?;
    ensure!(node.sh("old", "cat /etc/demo; ls /var/cache/apt/archives")? == "1");
    ensure!(node.sh("new", "cat /etc/demo; ls /var/cache/apt/archives")? == "2");
    let list = node.ok(&["list"])?;
    ensure!(list.contains("fake@2"), "{list}");
    let missing = node.vessel(&["create", "x", "--template", "fake@3"])?;
    ensure!(
        missing.code == 3 && missing.stderr.contains("fake@3"),
        "{missing}"
    );

    let difference = ["template", "diff", "fake@1", "fake"];
    ensure!(node.json(&difference)?["packages"] == expected);
    node.ok(&["delete", "--force", "old"])?;
    ensure!(node.templates()?.len() == 3, "`asked` is of it");
    node.ok(&["delete", "--force", "asked"])?;
    left(node, &["fake@2", "tiny"])?;
    // What the update changed is known all the same.
    ensure!(node.json(&difference)?["packages"] == expected);
    let used = node.vessel(&["template", "remove", "fake"])?;
    ensure!(used.code == 4, "{used}");
    node.ok(&["delete", "--force", "new"])?;
    let again = node.vessel(&["template", "import", "/nowhere", "--name", "fake"])?;
    ensure!(again.code != 0, "{again}");
    node.ok(&["template", "remove", "fake"])?;
    ensure!(node.templates()? == ["tiny"]);
    ensure!(!node.pool()?.join("templates/packages/fake").exists());
    Ok(())
}

fn an_update_that_fails_leaves_the_template_as_it_was(node: &mut Node) -> Result<()> {
    let mirror = Mirror::begin(node)?;
    for (script, word, code) in [
        ("exit 7", "the script of demo failed", 1),
        (
            "fallocate -l 4g /big 2>&1",
            "no space was left to write to",
            6,
        ),
    ] {
        mirror.offer(2, &format!("set -e\n{script}"))?;
        let failed = node.vessel(&["template", "update", "fake"])?;
        let told = failed.code == code && failed.stderr.contains(word);
        ensure!(told, "{failed}");
        let log = fs::read_to_string(node.root().join("log/template-fake@2.log"))?;
        ensure!(log.contains("the script of demo failed"), "{log}");
        unharmed(node)?;
    }
    // The list is there, what it names is not: a mirror that goes away in the middle.
    node.sh("mirror", "rm /srv/demo_2_all.deb")?;
    let failed = node.vessel(&["template", "update", "fake"])?;
    let word = "cannot fetch demo_2_all.deb";
    ensure!(failed.code == 1 && failed.stderr.contains(word), "{failed}");
    node.ok(&["stop", "--kill", "mirror"])?;
    let failed = node.vessel(&["template", "update", "fake"])?;
    ensure!(failed.stderr.contains("lists of packages") || failed.stderr.contains("cannot fetch"));
    unharmed(node)?;
    node.ok(&["start", "mirror"])?;

    mirror.offer(2, "echo 'I: it sleeps' >&2; sleep 60")?;
    let begun = node.json(&["template", "update", "fake", "--no-wait"])?;
    let id = begun["id"].to_string();
    let message = || {
        let shown = node.json(&["operation", "show", &id])?;
        Ok(shown["progress"]["message"].to_string())
    };
    until("it installs", PATIENCE, message, |text| {
        text.contains("sleeps")
    })?;
    let again = node.vessel(&["template", "remove", "fake", "--no-wait"])?;
    ensure!(again.code == 0, "{again}");
    node.vessel(&["operation", "cancel", &id])?;
    let shown = node.json(&["operation", "show", &id])?;
    ensure!(shown["state"] != "done", "{shown}");
    // The removal waited for its turn.
    let gone = || node.templates();
    until("it is removed", PATIENCE, gone, |all| *all == ["tiny"])?;
    Ok(())
}

fn what_is_no_template_of_a_system_is_not_updated(node: &mut Node) -> Result<()> {
    for (words, code) in [
        (&["template", "update", "nothing"][..], 3),
        (&["template", "update", "tiny"], 2),
        (&["template", "update", "tiny@1"], 2),
        (&["template", "update", "tiny+x"], 2),
        (&["template", "update", "tiny@0"], 2),
        (&["template", "diff", "tiny", "tiny@2"], 3),
    ] {
        let refused = node.vessel(words)?;
        ensure!(refused.code == code, "{words:?}: {refused}");
    }
    Ok(())
}

fn a_daemon_that_dies_amid_an_update_leaves_the_template_as_it_was(node: &mut Node) -> Result<()> {
    Mirror::begin(node)?.offer(2, "sleep 10")?;
    for after in [50, 400, 2_000] {
        node.cut_off(
            &["template", "update", "fake"],
            Duration::from_millis(after),
        )?;
        unharmed(node).with_context(|| format!("killed after {after} ms"))?;
    }
    Mirror(node).offer(2, "")?;
    let made = node.json(&["template", "update", "fake"])?;
    ensure!(made["to"] == "fake@2", "{made}");
    Ok(())
}

fn what_one_sandbox_fetched_the_next_does_not(node: &mut Node) -> Result<()> {
    let mirror = Mirror::begin(node)?;
    mirror.offer(2, "")?;
    node.ok(&["create", "keeper", "--template", "fake"])?;
    node.ok(&["template", "update", "fake"])?;
    node.ok(&["template", "remove", "fake@2"])?;
    node.sh("mirror", "rm /srv/demo_2_all.deb")?;
    let made = node.json(&["template", "update", "fake"])?;
    ensure!(made["to"] == "fake@2", "{made}");
    let log = fs::read_to_string(node.root().join("log/template-fake@2.log"))?;
    ensure!(log.contains("1 archives"), "{log}");
    // One whose bytes are not what the list says is not given to anybody.
    node.ok(&["template", "remove", "fake@2"])?;
    node.sh("mirror", "sed -i 's/[0-9a-f]$/x/' /srv/versions")?;
    let failed = node.vessel(&["template", "update", "fake"])?;
    ensure!(
        failed.stderr.contains("cannot fetch demo_2_all.deb"),
        "{failed}"
    );
    Ok(())
}

fn applications_come_along_to_the_next_revision(node: &mut Node) -> Result<()> {
    let mirror = Mirror::begin(node)?;
    let recipe = node.folder().join("one.toml");
    fs::write(
        &recipe,
        "name = 'one'\ncommands = ['cp /etc/demo /opt-one']\n",
    )?;
    let recipe = recipe.display().to_string();
    node.ok(&[
        "template", "build", "one", "--on", "fake", "--recipe", &recipe,
    ])?;
    let create = |name: &str, template: &str| {
        let with = ["--application", "one", "--start"];
        node.ok(&[&["create", name, "--template", template][..], &with].concat())
    };
    create("old", "fake")?;
    mirror.offer(2, "")?;
    node.ok(&["template", "update", "fake"])?;
    create("new", "fake")?;
    create("asked", "fake@1")?;
    for (ve, found) in [("old", "1"), ("new", "2"), ("asked", "1")] {
        ensure!(node.sh(ve, "cat /opt-one")? == found, "{ve}");
    }
    ensure!(node.templates()? == ["fake", "fake+one", "fake@2", "fake@2+one", "tiny"]);
    let shown: Value = node.json(&["template", "show", "fake+one"])?;
    ensure!(
        shown["name"] == "fake@2+one" && shown["on"] == "fake@2",
        "{shown}"
    );
    node.ok(&["delete", "--force", "old", "asked"])?;
    left(node, &["fake@2", "fake@2+one", "tiny"])?;
    Ok(())
}

/// Makes the package `demo` in a version, and the list of a repository of all that were made.
const PUBLISH: &str = r#"set -e
folder=/tmp/demo-$1
mkdir -p $folder/DEBIAN $folder/usr/share/demo
echo $1 >$folder/usr/share/demo/version
cat >$folder/DEBIAN/control <<END
Package: demo
Version: $1
Architecture: all
Maintainer: Test <test@example.org>
Description: a test
END
mkdir -p /repository
cd /repository
dpkg-deb --build $folder demo_$1_all.deb >/dev/null
for file in demo_*.deb; do
    dpkg-deb -f $file
    printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' \
        $file $(stat -c %s $file) $(sha256sum $file | cut -d' ' -f1)
done >Packages
"#;

/// What another revision takes for one small package: its own file, and dpkg's lists.
const REVISION_BYTES_MAX: u64 = 4 << 20;

/// Offers a version of `demo` by the VE `mirror`, made in the VE `seed`.
fn publish(node: &Node, version: &str) -> Result<()> {
    let words = ["exec", "seed", "--", "sh", "-s", version];
    let made = node.vessel_with_input(&words, PUBLISH.as_bytes())?;
    made.success()?;
    let local = node.folder().join(format!("repository-{version}"));
    let target = local.display().to_string();
    node.ok(&["cp", "seed:/repository", &target])?;
    for entry in fs::read_dir(&local)? {
        let file = entry?.path().display().to_string();
        node.ok(&["cp", &file, "mirror:/srv/"])?;
    }
    Ok(())
}

fn a_debian_is_updated_by_its_own_apt(node: &mut Node) -> Result<()> {
    node.import_tiny()?;
    node.start_tiny("mirror")?;
    debian::start(node, "seed", &[])?;
    publish(node, "1")?;
    let line = format!(
        "echo 'deb [trusted=yes] http://{}/ ./' >/etc/apt/sources.list && apt-get -q update && \
         apt-get -q -y install demo && apt-get clean",
        node.v4("mirror")?
    );
    node.sh("seed", &line)?;
    let archive = node.folder().join("own.tar");
    let words = [
        "exec",
        "seed",
        "--",
        "tar",
        "c",
        "--one-file-system",
        "-f",
        "-",
        "/",
    ];
    let mut packed = node.command(&words);
    packed
        .stdin(Stdio::null())
        .stdout(fs::File::create(&archive)?);
    ensure!(packed.stderr(Stdio::null()).status()?.success());
    let source = archive.display().to_string();
    node.ok(&["template", "import", &source, "--name", "own"])?;
    fs::remove_file(&archive)?;
    node.ok(&["create", "old", "--template", "own"])?;

    publish(node, "2")?;
    let made = node.json(&["template", "update", "own"])?;
    let expected = serde_json::json!([{"name": "demo", "old": "1", "new": "2"}]);
    ensure!(made["packages"] == expected, "{made}");
    let shown = node.json(&["template", "show", "own"])?;
    ensure!(
        shown["name"] == "own@2" && shown["updated_from"] == "own",
        "{shown}"
    );
    let bytes = shown["unique_bytes"].as_u64();
    ensure!(
        bytes.is_some_and(|bytes| bytes < REVISION_BYTES_MAX),
        "{shown}"
    );
    debian::start_of(node, "new", "own")?;
    node.ok(&["start", "old"])?;
    for (ve, version) in [("old", "1"), ("new", "2")] {
        let found = node.sh(ve, "cat /usr/share/demo/version")?;
        ensure!(found == version, "{ve}: {found}");
    }
    let same = node.json(&["template", "update", "own"])?;
    ensure!(same["changed"] == false, "{same}");
    for ve in ["old", "new", "seed", "mirror"] {
        debian::drop_ve(node, ve)?;
    }
    node.ok(&["template", "remove", "own", "tiny"])?;
    Ok(())
}
