//! Archives of packages, from sandboxes into the node's keeping and from there to where they are wanted again.
//!
//! Only sandboxes of a template fill what is kept for it; VEs of it get from there what their own package manager asks for,
//! by the digest that the lists of its mirror say. Bytes go in and out by descriptors, and the launcher's worker inside
//! opens what has a path there.
//!
//! All of it is for speed: whatever fails here, the package manager fetches for itself.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;

use engine::Fault;
use runtime::Task;
use template::{ARCHIVES, Archives, WantedArchive};
use ve::{Name, VeId};

use crate::host::Host;
use crate::inside::{Inside, pipe};
use crate::mechanisms::cgroup_entry;

/// Size of a header of a tar archive (POSIX.1-2017, pax, "ustar Interchange Format"), where it says the size in octal
/// digits, and what of entry it is: a plain file.
const HEADER_BYTES: usize = 512;
const SIZE: std::ops::Range<usize> = 124..136;
const KIND: usize = 156;
const KIND_FILE: u8 = b'0';

/// How many archives went one way, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) files: usize,
    pub(crate) bytes: u64,
}

fn failed(error: io::Error) -> Fault {
    Fault::new(format!(
        "archives of packages cannot be handed over: {error}"
    ))
}

/// Gives a running VE or sandbox those of the archives that it wants which are kept for its template.
pub(crate) fn hand_in(
    host: &Host,
    id: VeId,
    template: &Name,
    wanted: &[WantedArchive],
) -> Result<Moved, Fault> {
    let archives = host.catalogue.archives(template);
    let kept: Vec<_> = kept(&archives, wanted).collect();
    if kept.is_empty() {
        return Ok(Moved::default());
    }
    let (theirs, ours) = pipe().map_err(failed)?;
    let task = transfer(host, id, |client, entry| {
        client.unpack(id, None, ARCHIVES, theirs.as_fd(), entry)
    })?;
    drop(theirs);
    let mut moved = Moved::default();
    let written = write(File::from(ours), kept, &mut moved);
    let end = task.wait().map_err(|error| Fault::from_error(&error))?;
    match end.code {
        0 => written.map(|()| moved).map_err(failed),
        code => Err(Fault::new((end.message).unwrap_or_else(|| {
            format!("taking archives in ended with code {code}")
        }))),
    }
}

/// Those that are kept, open. What cannot be opened is fetched.
fn kept<'a>(
    archives: &Archives,
    wanted: &'a [WantedArchive],
) -> impl Iterator<Item = (&'a WantedArchive, File)> {
    wanted
        .iter()
        .filter_map(|wanted| Some((wanted, archives.open(wanted).ok()??)))
}

fn write(to: File, kept: Vec<(&WantedArchive, File)>, moved: &mut Moved) -> io::Result<()> {
    let mut builder = tar::Builder::new(to);
    for (wanted, file) in kept {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(0o644);
        // Root's, and of no time: a field that is left out is malformed.
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(wanted.size_bytes);
        builder.append_data(&mut header, &wanted.name, file.take(wanted.size_bytes))?;
        moved.files += 1;
        moved.bytes += wanted.size_bytes;
    }
    builder.finish()
}

/// Keeps archives that a sandbox fetched, if they are not kept already. Ends early when the work is cancelled.
pub(crate) fn take_out(
    inside: &Inside<'_>,
    template: &Name,
    wanted: &[WantedArchive],
) -> Result<Moved, Fault> {
    let (host, id) = (inside.host, inside.id);
    let archives = host.catalogue.archives(template);
    let mut moved = Moved::default();
    for wanted in wanted {
        if inside.is_cancelled() {
            break;
        }
        if archives.open(wanted).map_err(failed)?.is_some() {
            continue;
        }
        let path = format!("{ARCHIVES}/{}", wanted.name);
        let (stream, theirs) = pipe().map_err(failed)?;
        let task = transfer(host, id, |client, entry| {
            client.pack(id, None, &path, theirs.as_fd(), entry)
        })?;
        drop(theirs);
        let taken = take(&archives, wanted, File::from(stream));
        task.wait().map_err(|error| Fault::from_error(&error))?;
        // One that is not there was not fetched after all.
        if taken.map_err(failed)? {
            moved.files += 1;
            moved.bytes += wanted.size_bytes;
        }
    }
    Ok(moved)
}

/// Keeps what a stream of one file holds; no if it is not of the file that is wanted.
fn take(archives: &Archives, wanted: &WantedArchive, mut stream: File) -> io::Result<bool> {
    let mut header = [0; HEADER_BYTES];
    match stream.read_exact(&mut header) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        read => read?,
    }
    let size = str::from_utf8(&header[SIZE]).ok();
    let size = size.and_then(|text| u64::from_str_radix(text.trim_matches(['\0', ' ']), 8).ok());
    if header[KIND] != KIND_FILE || size != Some(wanted.size_bytes) {
        return Ok(false);
    }
    match archives.add(wanted, stream) {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(false),
        added => added.map(|()| true),
    }
}

fn transfer(
    host: &Host,
    id: VeId,
    ask: impl FnOnce(&runtime::Client, &runtime::CgroupEntry<'_>) -> Result<Task, runtime::CallError>,
) -> Result<Task, Fault> {
    let entry = host.groups.ve(id).exec_entry();
    let entry = entry.map_err(|error| Fault::from_error(&error))?;
    let client = host.launcher.client();
    ask(&client, &cgroup_entry(&entry)).map_err(|error| Fault::from_error(&error))
}
