//! Files of a VE, in and out, as tar streams.
//!
//! Paths of a VE are resolved by a process that has entered it, so nothing in a VE, whatever it
//! links to, leads to a file of the node's.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use api::latest::{ApiError, ErrorCode};
use policy::Action;
use runtime::Task;
use server::node::{ByteSource, VeKey};
use tokio::io::AsyncReadExt;
use tokio::sync::oneshot;

use super::sessions::call_error;
use super::streams::{self, CheckedOutput};
use super::{NodeDoor, blocking, ves};
use crate::contents::AreaWork;
use crate::convert::api_fault;
use crate::daemon::Up;

/// Size of a header of a tar archive (POSIX.1-2017, pax, "ustar Interchange Format").
const HEADER_BYTES: usize = 512;
/// Where the header says what kind of entry it is, and what it says for a folder.
const KIND_OFFSET: usize = 156;
const KIND_FOLDER: u8 = b'5';

enum Direction {
    Out,
    In,
}

pub(super) async fn get(door: &NodeDoor, ve: VeKey, path: String) -> Result<ByteSource, ApiError> {
    let output = pack(door, ve, path).await?;
    Ok(Box::new(output))
}

pub(super) async fn put(
    door: &NodeDoor,
    ve: VeKey,
    folder: String,
    mut archive: ByteSource,
) -> Result<(), ApiError> {
    check_path(&folder)?;
    let up = door.0.up()?;
    let (mut input, theirs) =
        streams::pipe_to_other().map_err(|error| failed(&error.to_string()))?;
    let task = blocking(move || transfer(&up, &ve, &folder, &theirs, &Direction::In)).await?;
    let copied = tokio::io::copy(&mut archive, &mut input).await;
    drop(input);
    blocking(move || verdict(&task).map_err(|message| failed(&message))).await?;
    // The other side may close early only with a verdict of its own, which came first.
    copied.map(drop).map_err(|error| failed(&error.to_string()))
}

pub(super) async fn is_folder(door: &NodeDoor, ve: VeKey, path: String) -> Result<bool, ApiError> {
    // With `/.` behind it a path leads through links to a folder, and to nothing else.
    let through = format!("{}/.", path.trim_end_matches('/'));
    if let Some(kind) = first_kind(door, ve.clone(), through).await? {
        return Ok(kind == KIND_FOLDER);
    }
    match first_kind(door, ve, path.clone()).await? {
        Some(_) => Ok(false),
        None => Err(ApiError::new(
            ErrorCode::NotFound,
            format!("there is no `{path}` in it"),
        )),
    }
}

/// The kind of what a path leads to; nothing where there is nothing.
async fn first_kind(door: &NodeDoor, ve: VeKey, path: String) -> Result<Option<u8>, ApiError> {
    let mut output = match pack(door, ve, path).await {
        Ok(output) => output,
        Err(error) if error.code == ErrorCode::Failed => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut header = [0; HEADER_BYTES];
    Ok(output
        .read_exact(&mut header)
        .await
        .ok()
        .map(|_| header[KIND_OFFSET]))
}

async fn pack(door: &NodeDoor, ve: VeKey, path: String) -> Result<CheckedOutput, ApiError> {
    check_path(&path)?;
    let up = door.0.up()?;
    let (output, theirs) =
        streams::pipe_from_other().map_err(|error| failed(&error.to_string()))?;
    let task = blocking(move || transfer(&up, &ve, &path, &theirs, &Direction::Out)).await?;
    let (say, said) = oneshot::channel();
    tokio::task::spawn_blocking(move || say.send(verdict(&task)));
    Ok(CheckedOutput::new(output, said))
}

/// A transfer under way. Of a stopped VE nobody else may change the files meanwhile.
struct Transfer {
    task: Task,
    _work: Option<AreaWork>,
}

fn transfer(
    up: &Arc<Up>,
    ve: &VeKey,
    path: &str,
    pipe: &OwnedFd,
    direction: &Direction,
) -> Result<Transfer, ApiError> {
    let record = ves::find(up, ve)?;
    ves::permit(&record, Action::Files)?;
    let id = record.spec.id;
    let host = &up.host;
    let running = record.run.is_some();
    let work = (!running)
        .then(|| host.contents.areas().copy(id))
        .transpose()
        .map_err(api_fault)?;
    let stopped = (!running)
        .then(|| host.root_spec(id, &record.spec.stack()))
        .transpose()
        .map_err(api_fault)?;
    let entry = running
        .then(|| host.groups.ve(id).exec_entry())
        .transpose()
        .map_err(|error| failed(&error.to_string()))?;
    let entry = entry
        .as_ref()
        .map(crate::mechanisms::cgroup_entry)
        .unwrap_or_default();
    let client = host.launcher.client();
    let task = match direction {
        Direction::Out => client.pack(id, stopped.as_ref(), path, pipe.as_fd(), &entry),
        Direction::In => client.unpack(id, stopped.as_ref(), path, pipe.as_fd(), &entry),
    };
    let task = task.map_err(|error| call_error(&error))?;
    Ok(Transfer { task, _work: work })
}

fn verdict(transfer: &Transfer) -> Result<(), String> {
    match transfer.task.wait() {
        Ok(end) if end.code == 0 => Ok(()),
        Ok(end) => Err(end
            .message
            .unwrap_or_else(|| format!("it ended with code {}", end.code))),
        Err(error) => Err(engine::Fault::from_error(&error).message),
    }
}

fn check_path(path: &str) -> Result<(), ApiError> {
    if path.starts_with('/') && !path.contains('\0') {
        return Ok(());
    }
    Err(ApiError::new(
        ErrorCode::Usage,
        format!("`{path}` is not an absolute path in a VE"),
    )
    .with_hint("write it as NAME:/path"))
}

fn failed(message: &str) -> ApiError {
    ApiError::new(
        ErrorCode::Failed,
        format!("the files cannot be copied: {message}"),
    )
}
