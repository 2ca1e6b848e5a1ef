//! What the root of a VE can write into its files that would mean something where they lie: in the
//! pool, unshifted, owned by numbers below 65,536.

use std::fs;
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result, ensure};

use super::arsenal::{Outcome, attack, attacker, must_be_refused};
use crate::harness::{Node, tests};

tests! {
    Hostile [] =>
        attributes_for_overlays_and_capabilities_mean_nothing_outside,
        the_pool_honours_nothing_that_a_ve_wrote;
}

/// Attributes that mean something to an overlay (CVE-2021-3847's kin, CVE-2023-2640) or to
/// whoever executes the file (CVE-2021-3493, CVE-2023-0386: set-id files copied up).
fn attributes_for_overlays_and_capabilities_mean_nothing_outside(node: &mut Node) -> Result<()> {
    attacker(node)?;
    let name = "trusted.overlay.* from inside (CVE-2023-2640)";
    let script = r#"
        open my $f, ">", "/root/file"; my $won = "";
        for my $name ("trusted.overlay.redirect", "trusted.overlay.opaque", "trusted.overlay.metacopy", "trusted.any") {
            $won .= " $name" if call(188, "/root/file", $name, "/etc", 4, 0) >= 0;
        }
        $won ? succeeded($won) : refused("attributes");"#;
    must_be_refused(node, name, script)?;
    // Capabilities on a file, given through an overlay: the kernel must bind them to the VE.
    let script = r#"
        system "cp /bin/busybox /root/power";
        my $all = pack "L5", 0x02000001, 0xffffffff, 0, 0x1ff, 0; # VFS_CAP_REVISION_2 | effective
        call(188, "/root/power", "security.capability", $all, 20, 0) >= 0 ? succeeded("set") : refused("set");"#;
    let Outcome::Succeeded(_) = attack(node, "bad", script)? else {
        return Ok(());
    };
    // Inside they are a server's usual file capabilities. They must not say "root of the node".
    let file = node.pool()?.join(format!(
        "private/{}/upper/root/power",
        node.show("bad")?["id"]
    ));
    let mut value = [0_u8; 64];
    let length = rustix::fs::lgetxattr(&file, "security.capability", &mut value)
        .with_context(|| format!("cannot read the capabilities of {}", file.display()))?;
    ensure!(length >= 20, "{length} bytes");
    pool_is_harmless(node)
}

/// Files of VEs lie in the pool as they are inside, owned by numbers below 65,536. What a VE marked
/// as set-user-id, or as a device, must mean nothing where the pool is mounted (CVE-2021-3493,
/// CVE-2023-0386).
fn the_pool_honours_nothing_that_a_ve_wrote(node: &mut Node) -> Result<()> {
    attacker(node)?;
    node.sh(
        "bad",
        "cp /bin/busybox /root/suid; chmod 6755 /root/suid; sync",
    )?;
    let file = node.pool()?.join(format!(
        "private/{}/upper/root/suid",
        node.show("bad")?["id"]
    ));
    ensure!(
        fs::metadata(&file)?.mode() & 0o6000 == 0o6000,
        "the attack did not arrive"
    );
    pool_is_harmless(node)
}

/// The pool is seen by the daemon and the launcher alone, without set-id bits and devices, and
/// nobody but root may enter it.
fn pool_is_harmless(node: &Node) -> Result<()> {
    let pool = node.root().join("pool").display().to_string();
    let seen = fs::read_to_string("/proc/self/mountinfo")?;
    ensure!(!seen.contains(&pool), "the pool is mounted for everybody");
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", node.daemon_pid()?))?;
    let line = mounts
        .lines()
        .find(|line| line.split(' ').nth(4) == Some(&pool))
        .with_context(|| format!("{pool} is not mounted"))?;
    let options = line.split(' ').nth(5).unwrap_or_default();
    for option in ["nosuid", "nodev"] {
        ensure!(
            options.split(',').any(|found| found == option),
            "the pool is mounted without {option}: {options}"
        );
    }
    let folder = node.pool()?.join("private");
    let mode = fs::metadata(&folder)?.mode() & 0o7777;
    ensure!(mode & 0o077 == 0, "{} has mode {mode:o}", folder.display());
    Ok(())
}
