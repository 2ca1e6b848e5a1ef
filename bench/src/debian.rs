//! The Debian that everybody boots: one archive, built once from Debian's packages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::command;

/// The suite, by Debian's number as templates are called, and by its word.
pub(crate) const NAME: &str = "debian-12";
const SUITE: &str = "bookworm";

/// What templates that Vessel builds have, and a web server.
const PACKAGES: &str = "apt-utils,ca-certificates,cron,curl,dbus,iproute2,iputils-ping,less,\
    libnss-systemd,libpam-systemd,logrotate,nano,netbase,nginx-light,openssh-server,procps,\
    systemd-sysv,tzdata,vim-tiny";

/// The archive, built if it is not there. Needs the network, so it comes before everything else.
pub(crate) fn archive() -> Result<PathBuf> {
    let folder = crate::report::folder()?;
    let (archive, recipe) = (folder.join("debian.tar"), folder.join("debian.recipe"));
    let wanted = format!("{SUITE} {PACKAGES}\n");
    if archive.exists() && fs::read_to_string(&recipe).is_ok_and(|built| built == wanted) {
        return Ok(archive);
    }
    eprintln!("building {}: some minutes, once", archive.display());
    let mut build = Command::new("mmdebstrap");
    build
        .args(["--mode=root", "--variant=minbase", "--format=tar"])
        .arg(format!("--include={PACKAGES}"))
        .args(["--dpkgopt=force-unsafe-io", SUITE])
        .arg(&archive)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let status = build.status().context("cannot run `mmdebstrap`")?;
    ensure!(status.success(), "`mmdebstrap` failed ({status})");
    fs::write(&recipe, wanted).context("cannot note the recipe")?;
    Ok(archive)
}

/// Unpacks the archive into a new folder, as plain files.
pub(crate) fn unpack(archive: &Path, folder: &Path) -> Result<()> {
    fs::create_dir(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--numeric-owner", "--file"])
        .arg(archive);
    command::output(tar.arg("--directory").arg(folder)).map(drop)
}
