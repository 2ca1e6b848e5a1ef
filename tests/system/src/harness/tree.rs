//! A whole server in 2 MB: busybox as init, shell and web server; and the formats it travels in.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow};
use serde_json::json;

use crate::harness::command;

/// A binary without libraries, of Debian's package `busybox-static`.
pub(crate) const BUSYBOX: &str = "/bin/busybox";

/// The shell at the console has no job control: it would hold `/dev/tty`, and with that no VE can be
/// put on disk.
const INITTAB: &str = "\
::sysinit:/etc/init.d/begin
::respawn:/bin/httpd -f -h /srv
/dev/console::respawn:-/bin/sh +m
::shutdown:/etc/init.d/end
";

const BEGIN: &str = "\
#!/bin/sh
echo 'tiny: init has begun' > /dev/console
hostname > /srv/index.html
";

const END: &str = "\
#!/bin/sh
echo ended >> /var/ends
";

/// Small files of the tree: path, mode, content.
const FILES: [(&str, u32, &str); 9] = [
    ("etc/inittab", 0o644, INITTAB),
    ("etc/init.d/begin", 0o755, BEGIN),
    ("etc/init.d/end", 0o755, END),
    (
        "etc/passwd",
        0o644,
        "root:x:0:0:root:/root:/bin/sh\nguest:x:1000:1000:guest:/home:/bin/sh\n",
    ),
    ("etc/group", 0o644, "root:x:0:\nguest:x:1000:\n"),
    (
        "etc/shadow",
        0o640,
        "root:*:19000:0:99999:7:::\nguest:*:19000:0:99999:7:::\n",
    ),
    (
        "etc/os-release",
        0o644,
        "ID=tiny\nVERSION_ID=1\nPRETTY_NAME=\"Tiny 1\"\n",
    ),
    ("etc/hosts", 0o644, "127.0.0.1 localhost\n"),
    ("srv/index.html", 0o644, "nothing yet\n"),
];

const FOLDERS: [&str; 14] = [
    "bin",
    "dev",
    "etc/init.d",
    "home",
    "proc",
    "root",
    "run",
    "sbin",
    "srv",
    "sys",
    "tmp",
    "usr",
    "var/log",
    "var/tmp",
];

/// Writes the tree into an empty folder.
pub(crate) fn write(folder: &Path) -> Result<()> {
    for name in FOLDERS {
        fs::create_dir_all(folder.join(name)).with_context(|| format!("cannot make {name}"))?;
    }
    fs::copy(BUSYBOX, folder.join("bin/busybox")).context("cannot copy busybox")?;
    let applets = command::run(Command::new(BUSYBOX).arg("--list"))?.success()?;
    for applet in applets
        .lines()
        .filter(|applet| !matches!(*applet, "busybox" | "init"))
    {
        symlink("busybox", folder.join("bin").join(applet))
            .with_context(|| format!("cannot link {applet}"))?;
    }
    symlink("/bin/busybox", folder.join("sbin/init")).context("cannot link init")?;
    for (name, mode, text) in FILES {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {name}"))?;
        set_mode(&path, mode)?;
    }
    set_mode(&folder.join("tmp"), 0o1777)
}

/// Writes an archive of a folder; the ending decides about compression.
pub(crate) fn archive(folder: &Path, file: &Path) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.args([
        "--create",
        "--auto-compress",
        "--numeric-owner",
        "--sort=name",
        "--file",
    ]);
    command::run(tar.arg(file).arg("--directory").arg(folder).arg("."))?.success()?;
    Ok(())
}

/// The archive that nearly every test imports; written once.
pub(crate) fn tiny_archive() -> Result<String> {
    static ARCHIVE: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let made = ARCHIVE.get_or_init(|| make_archive().map_err(|error| format!("{error:#}")));
    let path = made
        .as_ref()
        .map_err(|error| anyhow!("no archive to import: {error}"))?;
    Ok(path.display().to_string())
}

/// Takes away what all tests of this run shared.
pub(crate) fn clean() {
    let _ = fs::remove_dir_all(shared_folder());
}

fn shared_folder() -> PathBuf {
    std::env::temp_dir().join(format!("vessel-test-files-{}", std::process::id()))
}

fn make_archive() -> Result<PathBuf> {
    let tree = shared_folder().join("tree");
    fs::create_dir_all(&tree).context("cannot make a folder")?;
    write(&tree)?;
    let file = shared_folder().join("tiny.tar");
    archive(&tree, &file)?;
    Ok(file)
}

/// Writes an LXC image: one archive with `metadata.yaml` beside `rootfs/`.
pub(crate) fn lxc_image(folder: &Path, file: &Path) -> Result<()> {
    let root = folder.join("rootfs");
    fs::create_dir_all(&root).context("cannot make rootfs")?;
    write(&root)?;
    let metadata = "architecture: x86_64\ncreation_date: 1700000000\nproperties:\n  os: Tiny\n  release: \"1\"\n";
    fs::write(folder.join("metadata.yaml"), metadata).context("cannot write metadata.yaml")?;
    archive(folder, file)
}

/// Writes an OCI layout with two layers; the second removes `/etc/group` of the first.
pub(crate) fn oci_layout(scratch: &Path, layout: &Path) -> Result<()> {
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).context("cannot make blobs")?;
    let (first, second) = (scratch.join("first"), scratch.join("second"));
    for folder in [&first, &second] {
        fs::create_dir_all(folder).context("cannot make a layer")?;
    }
    write(&first)?;
    fs::create_dir_all(second.join("etc")).context("cannot make a layer")?;
    fs::write(second.join("etc/.wh.group"), "").context("cannot write a whiteout")?;
    fs::write(second.join("etc/second"), "here\n").context("cannot write a file")?;
    let mut layers = Vec::new();
    let mut diff_ids = Vec::new();
    for (name, folder) in [("first", first), ("second", second)] {
        let plain = scratch.join(format!("{name}.tar"));
        archive(&folder, &plain)?;
        diff_ids.push(format!("sha256:{}", digest(&plain)?));
        let packed = scratch.join(format!("{name}.tar.gz"));
        archive(&folder, &packed)?;
        layers.push(blob(
            &blobs,
            &packed,
            "application/vnd.oci.image.layer.v1.tar+gzip",
        )?);
    }
    let config = scratch.join("config.json");
    let text = json!({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/sbin/init"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    fs::write(&config, text.to_string()).context("cannot write the configuration")?;
    let config = blob(&blobs, &config, "application/vnd.oci.image.config.v1+json")?;
    let manifest = scratch.join("manifest.json");
    let text = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config, "layers": layers});
    fs::write(&manifest, text.to_string()).context("cannot write the manifest")?;
    let manifest = blob(
        &blobs,
        &manifest,
        "application/vnd.oci.image.manifest.v1+json",
    )?;
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(layout.join("index.json"), index.to_string()).context("cannot write the index")?;
    fs::write(
        layout.join("oci-layout"),
        json!({"imageLayoutVersion": "1.0.0"}).to_string(),
    )
    .context("cannot write the layout")
}

/// Copies a file to the blobs under its digest and describes it.
fn blob(blobs: &Path, file: &Path, kind: &str) -> Result<serde_json::Value> {
    let digest = digest(file)?;
    let size = fs::copy(file, blobs.join(&digest)).context("cannot copy a blob")?;
    Ok(json!({"mediaType": kind, "digest": format!("sha256:{digest}"), "size": size}))
}

fn digest(file: &Path) -> Result<String> {
    let line = command::run(Command::new("sha256sum").arg(file))?.success()?;
    Ok(line.split(' ').next().unwrap_or_default().to_owned())
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("cannot set the mode of {}", path.display()))
}
