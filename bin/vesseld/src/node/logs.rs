//! What a VE's console said.

use std::path::{Path, PathBuf};
use std::time::Duration;

use api::latest::{ApiError, ErrorCode};
use server::node::{ByteSource, LogFilter, VeKey};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

use super::{NodeDoor, ves};

/// How often a followed log is looked at. Only followers cost this.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(200);
/// Bytes under way to a follower.
const BUFFER_BYTES: usize = 64 << 10;

pub(super) async fn read(
    door: &NodeDoor,
    ve: VeKey,
    filter: LogFilter,
) -> Result<ByteSource, ApiError> {
    let (folder, area) = door
        .with_up(move |up| {
            let id = ves::find(up, &ve)?.spec.id;
            Ok((up.host.log_folder(id), up.host.private(id)))
        })
        .await?;
    let path = folder.join("console.log");
    let kept = kept(&path).await.map_err(|error| {
        ApiError::new(
            ErrorCode::Failed,
            format!("the log cannot be read: {error}"),
        )
    })?;
    let start = filter.lines.map_or(0, |lines| start_of_last(&kept, lines));
    if !filter.follow {
        return Ok(Box::new(std::io::Cursor::new(kept[start..].to_vec())));
    }
    let (mut to, from) = tokio::io::duplex(BUFFER_BYTES);
    let end = tokio::fs::metadata(&path)
        .await
        .map_or(0, |metadata| metadata.len());
    tokio::spawn(async move {
        // A failed write means that the follower is gone.
        if to.write_all(&kept[start..]).await.is_ok() {
            follow(&path, &area, end, &mut to).await;
        }
    });
    Ok(Box::new(from))
}

/// Everything that is kept: the full file before the one that is being written.
async fn kept(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    for path in [older(path), path.to_owned()] {
        match tokio::fs::read(&path).await {
            Ok(content) => kept.extend(content),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(kept)
}

fn older(path: &Path) -> PathBuf {
    path.with_extension("log.1")
}

/// Where the last `lines` lines of a text begin.
fn start_of_last(text: &[u8], lines: usize) -> usize {
    let body = text.strip_suffix(b"\n").unwrap_or(text);
    let ends = body
        .iter()
        .enumerate()
        .rev()
        .filter(|(_, byte)| **byte == b'\n');
    match lines {
        0 => text.len(),
        lines => ends.map(|(at, _)| at + 1).nth(lines - 1).unwrap_or(0),
    }
}

/// Passes on what is added to the log, also when it starts anew, until the VE is gone.
async fn follow(path: &Path, area: &Path, mut end: u64, to: &mut (impl AsyncWriteExt + Unpin)) {
    loop {
        tokio::time::sleep(FOLLOW_INTERVAL).await;
        let length = match tokio::fs::metadata(path).await {
            Ok(metadata) => metadata.len(),
            // Nothing was said yet, unless the VE is gone, which takes its private area along.
            Err(_) if area.exists() => continue,
            Err(_) => return,
        };
        if length < end {
            end = 0;
        }
        if length > end {
            let Ok(added) = read_from(path, end).await else {
                continue;
            };
            end += added.len() as u64;
            if to.write_all(&added).await.is_err() {
                return;
            }
        }
    }
}

async fn read_from(path: &Path, start: u64) -> std::io::Result<Vec<u8>> {
    let mut file = tokio::fs::File::open(path).await?;
    file.seek(std::io::SeekFrom::Start(start)).await?;
    let mut added = Vec::new();
    file.take(crate::host::CONSOLE_LOG_BYTES_MAX * 2)
        .read_to_end(&mut added)
        .await?;
    Ok(added)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_lines_are_counted_as_people_count_them() {
        let text = b"one\ntwo\nthree\n";
        let last = |lines| &text[start_of_last(text, lines)..];
        assert_eq!(last(0), b"");
        assert_eq!(last(1), b"three\n");
        assert_eq!(last(2), b"two\nthree\n");
        assert_eq!(last(9), text);
        assert_eq!(start_of_last(b"", 3), 0);
    }
}
