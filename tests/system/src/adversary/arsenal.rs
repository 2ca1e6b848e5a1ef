//! The hostile VE: busybox and Perl, and a way to run attacks in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::harness::{Node, Output, command, tree};

/// Perl of Debian's essential package `perl-base`.
const PERL: &str = "/usr/bin/perl";

/// What of its library the attacks use (`glob`).
const MODULES: [&str; 7] = [
    "File/Glob.pm",
    "warnings.pm",
    "auto/File/Glob/Glob.so",
    "XSLoader.pm",
    "Exporter.pm",
    "strict.pm",
    "feature.pm",
];

/// What every attack begins with: `call` is a system call by number that writes into none of its
/// arguments (Perl lets no call have a constant of its own), `refused` and `succeeded` end the
/// attack.
const PRELUDE: &str = r#"
$| = 1;
sub refused { print "refused: @_ $!\n"; exit 1 }
sub succeeded { print "succeeded: @_\n"; exit 0 }
sub call { my @copies = @_; return syscall(shift @copies, @copies) }
sub must_fail { my ($what, $result) = @_; $result < 0 ? refused($what) : succeeded($what) }
"#;

/// How an attack ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The node or its kernel refused it; what the attack said.
    Refused(String),
    /// It got what it wanted; what the attack said.
    Succeeded(String),
}

/// Imports the template `hostile`.
///
/// # Errors
///
/// If this machine has no Perl, or the node does not take the template.
pub(crate) fn import(node: &Node) -> Result<()> {
    let folder = node.folder().join("hostile");
    fs::create_dir_all(&folder).context("cannot make a folder")?;
    tree::write(&folder)?;
    let libraries = command::run(Command::new("ldd").arg(PERL))?.success()?;
    let libraries = libraries.split_whitespace().filter(|w| w.starts_with('/'));
    for file in libraries.chain([PERL]) {
        let inside = folder.join(file.trim_start_matches('/'));
        fs::create_dir_all(inside.parent().unwrap_or(&folder)).context("cannot make a folder")?;
        fs::copy(file, &inside).with_context(|| format!("cannot copy {file}"))?;
    }
    let base = command::run(Command::new(PERL).args(["-e", "print grep /perl-base/, @INC"]))?;
    let base = base.success()?;
    for module in MODULES {
        let file = format!("{base}/{module}");
        let inside = folder.join(file.trim_start_matches('/'));
        fs::create_dir_all(inside.parent().unwrap_or(&folder)).context("cannot make a folder")?;
        fs::copy(&file, &inside).with_context(|| format!("cannot copy {file}"))?;
    }
    let archive = node.folder().join("hostile.tar");
    tree::archive(&folder, &archive)?;
    fs::remove_dir_all(&folder).context("cannot remove a folder")?;
    node.ok(&["template", "import", &text(&archive), "--name", "hostile"])?;
    Ok(())
}

/// The limits of the attacker: small, so that bombs end soon and disturb nobody else on this
/// machine.
const LIMITS: [&str; 8] = [
    "--set",
    "cpu.limit=0.5",
    "--set",
    "memory.limit=128M",
    "--set",
    "processes.limit=256",
    "--set",
    "disk.limit=256M",
];

/// Makes and starts the attacker, `bad`.
pub(super) fn attacker(node: &Node) -> Result<()> {
    let words = ["create", "bad", "--template", "hostile", "--start"];
    node.ok(&[&words[..], &LIMITS].concat())?;
    node.expect_state("bad", "running")
}

/// A command that attacks from within a VE and is killed after some seconds.
pub(super) fn attack_command(node: &Node, ve: &str, script: &str, seconds: u32) -> Command {
    let script = format!("{PRELUDE}\n{script}");
    let seconds = seconds.to_string();
    let words = ["exec", ve, "--", "timeout", "-s", "KILL", &seconds];
    node.command(&[&words[..], &["perl", "-e", &script]].concat())
}

/// Attacks from within a VE, at most ten seconds.
pub(super) fn attack(node: &Node, ve: &str, script: &str) -> Result<Outcome> {
    judge(&command::run(&mut attack_command(node, ve, script, 10))?)
}

/// Reads how an attack ended.
pub(super) fn judge(output: &Output) -> Result<Outcome> {
    let said = output.stdout.trim().to_owned();
    match output.code {
        1 if said.contains("refused") => Ok(Outcome::Refused(said)),
        0 if said.contains("succeeded") => Ok(Outcome::Succeeded(said)),
        _ => bail!("the attack itself broke: {output}"),
    }
}

/// An attack that must be refused.
pub(super) fn must_be_refused(node: &Node, name: &str, script: &str) -> Result<String> {
    match attack(node, "bad", script).with_context(|| name.to_owned())? {
        Outcome::Refused(said) => Ok(said),
        Outcome::Succeeded(said) => bail!("{name}: {said}"),
    }
}

/// A number that an attack reported as `NAME=NUMBER`.
pub(super) fn reported(text: &str, name: &str) -> Result<u64> {
    let found = text
        .split_whitespace()
        .find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok());
    found.with_context(|| format!("the attack did not say `{name}`: {text}"))
}

/// Memory of the VE's group, which must be within its limit whatever it does.
pub(super) fn memory_within_limit(node: &Node, ve: &str) -> Result<()> {
    let id = node.show(ve)?["id"].as_u64().context("no id")?;
    let used = node.control(id, "memory", "memory.usage_in_bytes", "memory.current")?;
    let used: u64 = used.parse().context("no number")?;
    ensure!(used <= 128 << 20, "{ve} uses {used} bytes of 128 MB");
    Ok(())
}

/// A path as the command line takes it.
pub(super) fn text(path: &Path) -> String {
    path.display().to_string()
}

/// A file of the host that no attack may change, with its content.
pub(super) fn canary(node: &Node) -> Result<PathBuf> {
    let path = node.folder().join("canary");
    fs::write(&path, "alive\n").context("cannot write the canary")?;
    Ok(path)
}

/// Whether the canary is as it was.
pub(super) fn canary_lives(path: &Path) -> Result<()> {
    let content = fs::read_to_string(path).context("the canary is gone")?;
    ensure!(content == "alive\n", "the canary was changed: {content}");
    Ok(())
}
