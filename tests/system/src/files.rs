//! Copying files in and out.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use anyhow::{Result, ensure};

use crate::harness::{Node, tests};

tests! {
    Node [] =>
        a_file_goes_in_and_comes_back,
        a_folder_goes_in_and_comes_back,
        a_link_in_a_ve_leads_nowhere_outside,
        what_is_not_there_is_named;
}

fn a_file_goes_in_and_comes_back(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    let (there, back) = (node.folder().join("there"), node.folder().join("back"));
    fs::write(&there, vec![7; 3 << 20])?;
    fs::set_permissions(&there, fs::Permissions::from_mode(0o750))?;
    node.ok(&["cp", &there.display().to_string(), "web:/root/file"])?;
    ensure!(node.sh("web", "stat -c '%a %u %s' /root/file")? == format!("750 0 {}", 3 << 20));
    node.ok(&["cp", "web:/root/file", &back.display().to_string()])?;
    ensure!(fs::read(&back)? == fs::read(&there)?);
    // Into a folder under its own name, as `cp` does.
    node.ok(&["cp", &there.display().to_string(), "web:/var/"])?;
    ensure!(node.sh("web", "stat -c %s /var/there")? == (3 << 20).to_string());
    Ok(())
}

fn a_folder_goes_in_and_comes_back(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    let there = node.folder().join("site");
    fs::create_dir_all(there.join("deep/er"))?;
    fs::write(there.join("deep/er/page"), "page")?;
    symlink("deep/er/page", there.join("link"))?;
    node.ok(&["cp", &there.display().to_string(), "web:/srv/"])?;
    ensure!(node.sh("web", "cat /srv/site/link; readlink /srv/site/link")? == "pagedeep/er/page");
    let back = node.folder().join("back");
    fs::create_dir(&back)?;
    node.ok(&["cp", "web:/srv/site", &back.display().to_string()])?;
    ensure!(fs::read_to_string(back.join("site/deep/er/page"))? == "page");
    Ok(())
}

fn a_link_in_a_ve_leads_nowhere_outside(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    let (bait, file) = (node.folder().join("bait"), node.folder().join("file"));
    fs::create_dir(&bait)?;
    fs::write(&file, "from the host")?;
    fs::write(bait.join("secret"), "of the host")?;
    // A VE's root replaces a folder by a link to a folder of the host.
    let target = bait.display();
    node.sh(
        "web",
        &format!("ln -s {target} /root/out; mkdir -p {target}; echo inside > {target}/secret"),
    )?;
    node.ok(&["cp", &file.display().to_string(), "web:/root/out/planted"])?;
    ensure!(
        !bait.join("planted").exists(),
        "a copy followed a VE's link to the host"
    );
    ensure!(node.sh("web", &format!("cat {target}/planted"))? == "from the host");
    let back = node.folder().join("back");
    node.ok(&["cp", "web:/root/out/secret", &back.display().to_string()])?;
    ensure!(
        fs::read_to_string(&back)?.trim() == "inside",
        "a copy read the host's file"
    );
    Ok(())
}

fn what_is_not_there_is_named(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    let output = node.vessel(&["cp", "web:/no/such", "/tmp/"])?;
    ensure!(
        output.code != 0 && output.stderr.contains("/no/such"),
        "{output}"
    );
    let output = node.vessel(&["cp", "/no/such", "web:/root/"])?;
    ensure!(
        output.code != 0 && output.stderr.contains("/no/such"),
        "{output}"
    );
    let output = node.vessel(&["cp", "/etc/hosts", "/tmp/x"])?;
    ensure!(output.code == 2, "{output}");
    Ok(())
}
