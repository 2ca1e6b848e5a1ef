//! What is there once for many: contents on disk, programs in memory.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::harness::{Node, tests, tree};

tests! {
    Node [] =>
        ves_that_run_one_program_have_its_text_once_in_memory,
        a_second_template_takes_only_what_changed,
        a_ve_chooses_whether_its_memory_is_merged;
}

/// Bit of an entry of `/proc/PID/pagemap` that says that the page is in memory, and the mask of its number
/// (Documentation/admin-guide/mm/pagemap.rst).
const PRESENT: u64 = 1 << 63;
const FRAME: u64 = (1 << 55) - 1;

/// The physical pages of a process's program text.
fn text_pages(pid: u64) -> Result<BTreeSet<u64>> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let text = maps
        .lines()
        .find(|line| line.contains(" r-xp ") && line.contains('/'));
    let range = text
        .context("no text is mapped")?
        .split(' ')
        .next()
        .unwrap_or_default();
    let (begin, end) = range.split_once('-').context("no range")?;
    let page = |hexadecimal| anyhow::Ok(u64::from_str_radix(hexadecimal, 16)? / 4096);
    let pagemap = File::open(format!("/proc/{pid}/pagemap"))?;
    let mut pages = BTreeSet::new();
    for number in page(begin)?..page(end)? {
        let mut entry = [0; 8];
        pagemap.read_exact_at(&mut entry, number * 8)?;
        let entry = u64::from_ne_bytes(entry);
        if entry & PRESENT != 0 {
            pages.insert(entry & FRAME);
        }
    }
    ensure!(
        !pages.is_empty() && !pages.contains(&0),
        "the kernel tells no page numbers"
    );
    Ok(pages)
}

fn saved(node: &Node) -> Result<(u64, u64, u64)> {
    let pool = node.json(&["pool", "show"])?;
    let number = |key: &str| {
        pool[key]
            .as_u64()
            .with_context(|| format!("no {key}: {pool}"))
    };
    Ok((
        number("saved_disk_bytes")?,
        number("saved_memory_bytes")?,
        number("saved_memory_measured_ves")?,
    ))
}

fn ves_that_run_one_program_have_its_text_once_in_memory(node: &mut Node) -> Result<()> {
    node.start_tiny("one")?;
    let (disk_alone, memory_alone, measured) = saved(node)?;
    ensure!(
        (memory_alone, measured) == (0, 1),
        "{memory_alone} bytes with one VE"
    );
    // Another template with the same program in it.
    let other = node.folder().join("other");
    fs::create_dir(&other)?;
    tree::write(&other)?;
    fs::write(other.join("etc/other"), "other ".repeat(200))?;
    node.ok(&[
        "template",
        "import",
        &other.display().to_string(),
        "--name",
        "other",
    ])?;
    node.ok(&["create", "two", "--template", "other", "--start"])?;
    node.start_tiny("three")?;
    let pages = |name: &str| text_pages(node.init_pid(name)?);
    let (one, two, three) = (pages("one")?, pages("two")?, pages("three")?);
    let common = one
        .iter()
        .filter(|page| two.contains(page) && three.contains(page))
        .count();
    // Each may have touched a page more; of none there is a second copy.
    let all: BTreeSet<u64> = one.iter().chain(&two).chain(&three).copied().collect();
    let most = one.len().max(two.len()).max(three.len());
    ensure!(
        common * 2 > most && all.len() < most + most / 2,
        "{common} of {most} pages are common, {} in all",
        all.len()
    );
    let (disk, memory, measured) = saved(node)?;
    ensure!(measured == 3, "{measured} VEs were measured");
    // Two of three do not have it for themselves, and no page is saved that is not there.
    let text = 4096 * (one.len() + two.len() + three.len() - all.len()) as u64;
    ensure!(
        memory >= text,
        "{memory} bytes are saved, of text alone {text}"
    );
    let program = fs::metadata(tree::BUSYBOX)?.len();
    ensure!(
        memory <= 2 * program + (4 << 20),
        "{memory} bytes are saved of {program}"
    );
    ensure!(
        disk > disk_alone,
        "{disk} bytes of disk are saved, {disk_alone} before"
    );
    for name in ["two", "three"] {
        node.ok(&["stop", "--kill", name])?;
    }
    ensure!(
        saved(node)?.1 == 0,
        "{} bytes with one VE again",
        saved(node)?.1
    );
    Ok(())
}

/// Bytes of all files in a folder.
fn bytes_in(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        bytes += match entry.file_type()?.is_dir() {
            true => bytes_in(&entry.path())?,
            false => entry.metadata()?.size(),
        };
    }
    Ok(bytes)
}

fn a_second_template_takes_only_what_changed(node: &mut Node) -> Result<()> {
    const FILE_BYTES: usize = 1 << 20;
    let folder = node.folder().join("version");
    fs::create_dir(&folder)?;
    tree::write(&folder)?;
    let write = |number: u8, seed: u8| {
        let content: Vec<u8> = (0..FILE_BYTES)
            .map(|at| u8::try_from((at / 3) % 256).unwrap_or(0) ^ seed.wrapping_add(number))
            .collect();
        fs::write(folder.join(format!("srv-{number}")), content)
    };
    for number in 0..40 {
        write(number, 64)?;
    }
    let source = folder.display().to_string();
    node.ok(&["template", "import", &source, "--name", "first"])?;
    let objects = node.pool()?.join("templates/store/objects");
    let (before, saved_before) = (bytes_in(&objects)?, saved(node)?.0);
    for number in 0..10 {
        write(number, 160)?;
    }
    node.ok(&["template", "import", &source, "--name", "second"])?;
    let (added, changed) = (bytes_in(&objects)? - before, 10 * FILE_BYTES as u64);
    ensure!(
        added >= changed && added <= changed + changed / 20,
        "{added} bytes were added for {changed} that changed"
    );
    let saved_more = saved(node)?.0 - saved_before;
    ensure!(
        saved_more >= 30 * FILE_BYTES as u64,
        "{saved_more} bytes of disk are saved"
    );
    Ok(())
}

/// Whether the kernel may merge a process's memory.
fn may_merge(pid: u64) -> Result<bool> {
    let text = fs::read_to_string(format!("/proc/{pid}/ksm_stat"))?;
    Ok(text.contains("ksm_merge_any: yes"))
}

fn a_ve_chooses_whether_its_memory_is_merged(node: &mut Node) -> Result<()> {
    node.start_tiny("plain")?;
    let again = |name: &str| {
        node.ok(&["stop", "--kill", name])?;
        node.ok(&["start", name])
    };
    let output = node.vessel(&["set", "plain", "memory.merge=yes"])?;
    if !Path::new("/sys/kernel/mm/ksm/run").exists() {
        ensure!(
            output.code != 0 && output.stderr.contains("CONFIG_KSM"),
            "{output}"
        );
        return Ok(());
    }
    ensure!(
        output.code == 0 && output.stdout.contains("pending"),
        "{output}"
    );
    ensure!(
        !may_merge(node.init_pid("plain")?)?,
        "a running VE was changed"
    );
    let merges = fs::read_to_string("/sys/kernel/mm/ksm/run")?.trim() == "1";
    ensure!(
        merges || output.stdout.contains("/sys/kernel/mm/ksm/run"),
        "{output}"
    );
    node.ok(&[
        "create",
        "merged",
        "--template",
        "tiny",
        "--set",
        "memory.merge=yes",
        "--start",
    ])?;
    let pid = node.init_pid("merged")?;
    ensure!(may_merge(pid)?, "its init chose nothing");
    // And so did what the init made: its web server.
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    let child = children.split(' ').next().context("no child")?.parse()?;
    ensure!(may_merge(child)?, "its processes chose nothing");
    let stats = node.json(&["stats", "merged"])?;
    ensure!(stats["memory_merged_bytes"].is_u64(), "{stats}");
    ensure!(stats["memory_merge_cpu_seconds"].is_f64(), "{stats}");
    ensure!(
        node.json(&["stats", "plain"])?["memory_merged_bytes"].is_u64(),
        "it is to be merged"
    );
    again("plain")?;
    ensure!(
        may_merge(node.init_pid("plain")?)?,
        "nothing after the restart"
    );
    node.ok(&["set", "plain", "memory.merge=no"])?;
    again("plain")?;
    ensure!(!may_merge(node.init_pid("plain")?)?, "still after `no`");
    let doctor = node.vessel(&["doctor"])?;
    ensure!(doctor.stdout.contains("memory merging"), "{doctor}");
    Ok(())
}
