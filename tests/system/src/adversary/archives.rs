//! Crafted templates, and archives that are sent into a VE.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::arsenal::{canary, canary_lives, text};
use crate::harness::{Node, slowness, tests};

tests! {
    Node [] =>
        templates_reach_nothing_outside,
        templates_bring_no_devices_and_no_foreign_owners,
        archives_that_lie_about_sizes_are_refused,
        archives_that_are_too_deep_are_refused,
        an_archive_of_names_alone_does_not_hang_the_daemon,
        archives_sent_into_a_ve_reach_nothing_outside,
        a_stream_that_is_no_archive_is_refused;
}

/// One entry of an archive.
struct Entry<'a> {
    name: &'a str,
    kind: u8,
    link: &'a str,
    size: u64,
    content: &'a [u8],
    device: (u32, u32),
    owner: u64,
}

impl Default for Entry<'_> {
    fn default() -> Self {
        Self {
            name: "",
            kind: b'0',
            link: "",
            size: 0,
            content: b"",
            device: (0, 0),
            owner: 0,
        }
    }
}

const LINK: u8 = b'1';
const SYMLINK: u8 = b'2';
const CHARACTER: u8 = b'3';
const BLOCK: u8 = b'4';
const FOLDER: u8 = b'5';
const LONG_NAME: u8 = b'L';

/// Writes the header of an entry as `ustar` says, with any lie that the caller wants.
fn header(entry: &Entry<'_>) -> [u8; 512] {
    let mut header = [0_u8; 512];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, entry.name.as_bytes());
    put(100, b"0000755\0");
    put(108, format!("{:07o}\0", entry.owner).as_bytes());
    put(116, format!("{:07o}\0", entry.owner).as_bytes());
    if entry.size < 1 << 33 {
        put(124, format!("{:011o}\0", entry.size).as_bytes());
    } else {
        // Larger ones as a binary number.
        put(124, &[0x80, 0, 0, 0]);
        put(128, &entry.size.to_be_bytes());
    }
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, &[entry.kind]);
    put(157, entry.link.as_bytes());
    put(257, b"ustar\x0000");
    put(329, format!("{:07o}\0", entry.device.0).as_bytes());
    put(337, format!("{:07o}\0", entry.device.1).as_bytes());
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

/// An archive of these entries after what makes a tree a system.
fn archive(node: &Node, name: &str, entries: &[Entry<'_>]) -> Result<PathBuf> {
    let path = node.folder().join(format!("{name}.tar"));
    let mut file = File::create(&path).context("cannot write an archive")?;
    let init = Entry {
        name: "sbin/init",
        size: 4,
        content: b"init",
        ..Entry::default()
    };
    for entry in std::iter::once(&init).chain(entries) {
        file.write_all(&header(entry))?;
        file.write_all(entry.content)?;
        let padding = (512 - entry.content.len() % 512) % 512;
        file.write_all(&vec![0; padding])?;
    }
    file.write_all(&[0; 1024])?;
    Ok(path)
}

/// A file that is small and says so.
fn file<'a>(name: &'a str, content: &'a [u8]) -> Entry<'a> {
    Entry {
        name,
        content,
        size: content.len() as u64,
        ..Entry::default()
    }
}

fn special<'a>(name: &'a str, kind: u8, link: &'a str) -> Entry<'a> {
    Entry {
        name,
        kind,
        link,
        ..Entry::default()
    }
}

/// Entries that lead to the file `canary` of `folder`, at `path`: by the name `up`, and by links.
fn lies<'a>(path: &'a str, up: &'a str, folder: &'a str) -> Vec<(&'static str, Vec<Entry<'a>>)> {
    vec![
        ("dots", vec![file(up, b"dead\n")]),
        (
            "hard-link",
            vec![special("x", LINK, path), file("x", b"dead\n")],
        ),
        (
            "through-link",
            vec![
                special("way", SYMLINK, folder),
                file("way/canary", b"dead\n"),
            ],
        ),
    ]
}

/// Names that lead out, and links that do (CWE-22, CWE-59; CVE-2014-6407, CVE-2014-9356).
fn templates_reach_nothing_outside(node: &mut Node) -> Result<()> {
    let canary = canary(node)?;
    let path = text(&canary);
    let up = format!("../../../../../../../..{path}");
    let folder = text(&node.folder());
    let mut cases = lies(&path, &up, &folder);
    cases.extend([
        (
            "hard-link-up",
            vec![special("x", LINK, &up), file("x", b"dead\n")],
        ),
        ("absolute", vec![file(&path, b"dead\n")]),
    ]);
    for (name, entries) in &cases {
        let archive = archive(node, name, entries)?;
        // Refused, or taken as a name within the tree; never outside.
        node.vessel(&["template", "import", &text(&archive), "--name", name])?;
        canary_lives(&canary).with_context(|| (*name).to_owned())?;
    }
    for refused in ["dots", "hard-link", "hard-link-up"] {
        let shown = node.vessel(&["template", "show", refused])?;
        ensure!(shown.code != 0, "`{refused}` was imported");
    }
    Ok(())
}

/// Device nodes (CWE-732), and owners in another VE's range (CWE-282).
fn templates_bring_no_devices_and_no_foreign_owners(node: &mut Node) -> Result<()> {
    let devices = [
        Entry {
            name: "dev/disk",
            kind: BLOCK,
            device: (7, 0),
            ..Entry::default()
        },
        Entry {
            name: "root-memory",
            kind: CHARACTER,
            device: (1, 1),
            ..Entry::default()
        },
        // What an overlay takes for a deleted file.
        Entry {
            name: "etc-whiteout",
            kind: CHARACTER,
            ..Entry::default()
        },
    ];
    let path = archive(node, "devices", &devices)?;
    node.ok(&["template", "import", &text(&path), "--name", "devices"])?;
    // `/dev`, `/sbin` and the init; no node.
    let shown = node.json(&["template", "show", "devices"])?;
    ensure!(shown["files"] == 3, "{shown}");
    let foreign = Entry {
        owner: 100_000,
        ..file("etc/x", b"x")
    };
    let path = archive(node, "foreign", &[foreign])?;
    let output = node.vessel(&["template", "import", &text(&path), "--name", "foreign"])?;
    ensure!(output.code != 0, "{output}");
    Ok(())
}

/// Files of petabytes in an archive of kilobytes (CWE-409, decompression bombs).
fn archives_that_lie_about_sizes_are_refused(node: &mut Node) -> Result<()> {
    let huge = Entry {
        size: 1 << 50,
        ..file("huge", b"")
    };
    let path = archive(node, "huge", &[huge])?;
    let begun = Instant::now();
    let output = node.vessel(&["template", "import", &text(&path), "--name", "huge"])?;
    ensure!(output.code != 0, "{output}");
    ensure!(begun.elapsed() < Duration::from_secs(5) * slowness());
    // A sparse file of 8 TB, as GNU tar writes it.
    let sparse = node.folder().join("sparse");
    fs::create_dir_all(sparse.join("sbin"))?;
    fs::write(sparse.join("sbin/init"), "init")?;
    File::create(sparse.join("hole"))?.set_len(8 << 40)?;
    let path = node.folder().join("sparse.tar");
    let mut tar = std::process::Command::new("tar");
    tar.args(["--create", "--sparse", "--file"]);
    crate::harness::command::run(tar.arg(&path).arg("--directory").arg(&sparse).arg("."))?
        .success()?;
    let output = node.vessel(&["template", "import", &text(&path), "--name", "sparse"])?;
    ensure!(output.code != 0, "{output}");
    ensure!(begun.elapsed() < Duration::from_secs(15) * slowness());
    ensure!(
        fs::metadata(&path)?.len() < 1 << 20,
        "the attack was no small archive"
    );
    Ok(())
}

/// Trees are walked with one open folder a level (CWE-674, uncontrolled recursion).
fn archives_that_are_too_deep_are_refused(node: &mut Node) -> Result<()> {
    let name = "d/".repeat(300) + "x\0";
    // A name that is too long for a header comes before it, as the content of an entry.
    let long = Entry {
        kind: LONG_NAME,
        ..file("././@LongLink", name.as_bytes())
    };
    let path = archive(node, "deep", &[long, file("x", b"x")])?;
    let output = node.vessel(&["template", "import", &text(&path), "--name", "deep"])?;
    ensure!(
        output.code != 0 && output.stderr.contains("deep"),
        "{output}"
    );
    Ok(())
}

/// Very many folders, each a name and nothing else (CWE-770): the daemon answers while it reads
/// them. Their number is bounded in the crate `template`; that many would take a minute here.
fn an_archive_of_names_alone_does_not_hang_the_daemon(node: &mut Node) -> Result<()> {
    let path = node.folder().join("names.tar");
    let mut file = std::io::BufWriter::new(File::create(&path)?);
    for number in 0..60_000_u32 {
        file.write_all(&header(&special(&format!("n/{number}"), FOLDER, "")))?;
    }
    file.write_all(&[0; 1024])?;
    drop(file);
    let begun = Instant::now();
    let node = &*node;
    let output = std::thread::scope(|scope| {
        let import =
            scope.spawn(|| node.vessel(&["template", "import", &text(&path), "--name", "names"]));
        std::thread::sleep(Duration::from_millis(200));
        let asked = Instant::now();
        node.ok(&["list"])?;
        ensure!(
            asked.elapsed() < Duration::from_secs(2) * slowness(),
            "the daemon hangs"
        );
        import
            .join()
            .map_err(|_| anyhow::anyhow!("the import panicked"))?
    })?;
    ensure!(
        begun.elapsed() < Duration::from_secs(30) * slowness(),
        "it took {:?}: {output}",
        begun.elapsed()
    );
    node.vessel(&["template", "remove", "names"])?;
    Ok(())
}

/// The same lies in an archive that goes into a VE (CVE-2019-14271, CVE-2018-15664): it is unpacked by
/// a process of the VE, so at worst the VE hurts itself.
fn archives_sent_into_a_ve_reach_nothing_outside(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    let canary = canary(node)?;
    let path = text(&canary);
    let up = format!("../../../../../../../..{path}");
    let folder = text(&node.folder());
    let mut cases = lies(&path, &up, &folder);
    cases.push((
        "device",
        vec![Entry {
            name: "disk",
            kind: BLOCK,
            device: (7, 0),
            ..Entry::default()
        }],
    ));
    for (name, entries) in &cases {
        let archive = fs::read(archive(node, name, entries)?)?;
        node.vessel_with_input(&["cp", "-", "web:/root"], &archive)?;
        canary_lives(&canary).with_context(|| (*name).to_owned())?;
    }
    let made = node.sh("web", "find / -xdev -type b | wc -l")?;
    ensure!(made == "0", "a device node came in");
    ensure!(node.state("web")? == "running");
    Ok(())
}

/// Noise, and archives that end in the middle (CWE-20).
fn a_stream_that_is_no_archive_is_refused(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    let noise: Vec<u8> = (0..100_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let output = node.vessel_with_input(&["cp", "-", "web:/root"], &noise)?;
    ensure!(output.code != 0, "{output}");
    let path = node.folder().join("noise.tar");
    fs::write(&path, &noise)?;
    let output = node.vessel(&["template", "import", &text(&path), "--name", "noise"])?;
    ensure!(output.code != 0, "{output}");
    let whole = fs::read(archive(node, "cut", &[file("etc/x", &[7; 2_000])])?)?;
    fs::write(&path, &whole[..1_800])?;
    let output = node.vessel(&["template", "import", &text(&path), "--name", "cut"])?;
    ensure!(output.code != 0, "{output}");
    ensure!(node.ok(&["list"])?.contains("web"));
    Ok(())
}
