//! `vessel cp`.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll, ready};

use api::latest::{ApiError, ErrorCode};
use client::ClientError;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::UnixStream;

use super::{pack, unpack};
use crate::Context;
use crate::arguments::CopyArguments;
use crate::output::{Outcome, failed, usage};
use crate::terminal;

const READ_BYTES: usize = 64 * 1024;

/// One end of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// A path of a VE.
    Inside { ve: String, path: String },
    /// A path of this host.
    Outside(PathBuf),
    /// A tar archive on standard input or output.
    Archive,
}

pub(crate) async fn run(context: &Context, arguments: CopyArguments) -> Outcome {
    let (from, to) = (place(&arguments.from)?, place(&arguments.to)?);
    let keep = arguments.archive;
    match (from, to) {
        (Place::Outside(from), Place::Inside { ve, path }) => {
            copy_in(context, &from, &ve, &path, keep).await
        }
        (Place::Inside { ve, path }, Place::Outside(to)) => {
            copy_out(context, &ve, &path, &to, keep).await
        }
        (Place::Inside { ve, path }, Place::Archive) => archive_out(context, &ve, &path).await,
        (Place::Archive, Place::Inside { ve, path }) => {
            context.client.put_files(&ve, &path, Typed::new()).await?;
            Ok(())
        }
        (Place::Inside { .. }, Place::Inside { .. }) => Err(usage(
            "copying from one VE to another is not possible in one step",
        )
        .with_hint("pipe it: `vessel cp A:/from - | vessel cp - B:/to`")
        .into()),
        _ => Err(usage(format!(
            "neither `{}` nor `{}` is in a VE",
            arguments.from, arguments.to
        ))
        .with_hint("write a path of a VE as NAME:/PATH")
        .into()),
    }
}

/// Reads one end of a copy. A file of this host whose name looks like a VE's path is written `./a:/b`.
fn place(text: &str) -> Result<Place, ApiError> {
    if text == "-" {
        return Ok(Place::Archive);
    }
    let is_ve = |name: &str| ve::Name::new(name).is_ok() || name.parse::<u32>().is_ok();
    match text.split_once(':') {
        Some((name, path)) if is_ve(name) && path.starts_with('/') => {
            if path.split('/').any(|part| part == "..") {
                return Err(usage(format!(
                    "`{text}`: `..` is not accepted in a path of a VE"
                )));
            }
            Ok(Place::Inside {
                ve: name.to_owned(),
                path: path.to_owned(),
            })
        }
        Some((name, path)) if is_ve(name) && !Path::new(text).exists() => Err(usage(format!(
            "`{text}`: the path in a VE must be absolute"
        ))
        .with_hint(format!("write it as `{name}:/{path}`"))),
        _ => Ok(Place::Outside(PathBuf::from(text))),
    }
}

async fn copy_in(context: &Context, from: &Path, ve: &str, to: &str, keep: bool) -> Outcome {
    let own_name = name_of(from)?;
    let trimmed = to.trim_end_matches('/');
    let is_folder = match context
        .client
        .is_folder(ve, if trimmed.is_empty() { "/" } else { trimmed })
        .await
    {
        Ok(is_folder) => is_folder,
        // A new name is given by TO, unless it says that it is a folder.
        Err(ClientError::Refused(error)) if error.code == ErrorCode::NotFound && trimmed == to => {
            // A VE that does not exist is told by what follows.
            false
        }
        Err(error) => return Err(error.into()),
    };
    let (folder, name) = match trimmed.rsplit_once('/') {
        _ if is_folder => (if trimmed.is_empty() { "/" } else { trimmed }, own_name),
        Some((folder, name)) => (
            if folder.is_empty() { "/" } else { folder },
            OsString::from(name),
        ),
        None => ("/", own_name),
    };
    let failure: Arc<Mutex<Option<io::Error>>> = Arc::default();
    let packed = Packed::start(from.to_owned(), name, keep, Arc::clone(&failure))
        .map_err(|error| failed(format!("`{}` cannot be read: {error}", from.display())))?;
    let sent = context.client.put_files(ve, folder, packed).await;
    // A failure on this side breaks the request too, and says more.
    match failure.lock().ok().and_then(|mut failure| failure.take()) {
        Some(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(failed(format!("`{}` cannot be copied: {error}", from.display())).into())
        }
        _ => Ok(sent?),
    }
}

/// The name that a copy of a path has, once it is known to be there.
fn name_of(path: &Path) -> Result<OsString, ApiError> {
    let found = path.symlink_metadata().map_err(|error| {
        let code = match error.kind() {
            io::ErrorKind::NotFound => ErrorCode::NotFound,
            _ => ErrorCode::Failed,
        };
        ApiError::new(code, format!("`{}`: {error}", path.display()))
    });
    found?;
    if let Some(name) = path.file_name() {
        return Ok(name.to_owned());
    }
    let real = path.canonicalize();
    let real = real.map_err(|error| failed(format!("`{}`: {error}", path.display())))?;
    real.file_name().map(ToOwned::to_owned).ok_or_else(|| {
        usage(format!(
            "`{}` has no name to be copied under",
            path.display()
        ))
        .with_hint("name one in TO: NAME:/PATH/NEW")
    })
}

async fn copy_out(context: &Context, ve: &str, from: &str, to: &Path, keep: bool) -> Outcome {
    let name = from
        .trim_end_matches('/')
        .rsplit('/')
        .next()
        .unwrap_or_default();
    // The root of a VE has no name: its copy is named after the VE.
    let (strip, name) = if name.is_empty() { (0, ve) } else { (1, name) };
    let (folder, name) = if to.is_dir() {
        (to.to_owned(), OsString::from(name))
    } else {
        let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty());
        (
            parent.unwrap_or(Path::new(".")).to_owned(),
            name_of_new(to)?,
        )
    };
    let target = unpack::Target::open(&folder, strip, name, keep).map_err(|error| {
        let code = match error.kind() {
            io::ErrorKind::NotFound => ErrorCode::NotFound,
            _ => ErrorCode::Failed,
        };
        ApiError::new(code, format!("folder `{}`: {error}", folder.display()))
    })?;
    let mut stream = context.client.get_files(ve, from).await?;
    let (reader, writer) = pair()?;
    let unpacking = tokio::task::spawn_blocking(move || unpack::unpack(reader, target));
    let mut writer = writer;
    let copied = async {
        tokio::io::copy(&mut stream, &mut writer).await?;
        writer.shutdown().await
    }
    .await;
    drop(writer);
    let unpacked = unpacking
        .await
        .map_err(|error| failed(format!("unpacking broke: {error}")))?;
    let skipped = match (unpacked, copied) {
        (Err(error), _) => {
            return Err(failed(format!("`{ve}:{from}` cannot be copied: {error}")).into());
        }
        (Ok(_), Err(source)) if source.kind() != io::ErrorKind::BrokenPipe => {
            let socket = context.client.socket().to_owned();
            return Err(ClientError::Cut { socket, source }.into());
        }
        (Ok(skipped), _) => skipped,
    };
    for path in skipped {
        context
            .out
            .note(&format!("left out: `{path}` is no file, folder or link"));
    }
    Ok(())
}

fn name_of_new(path: &Path) -> Result<OsString, ApiError> {
    let ends_with_slash = path.as_os_str().as_encoded_bytes().ends_with(b"/");
    match path.file_name() {
        Some(name) if !ends_with_slash => Ok(name.to_owned()),
        _ => {
            let message = format!("folder `{}`: there is none", path.display());
            Err(ApiError::new(ErrorCode::NotFound, message).with_hint("make it first"))
        }
    }
}

async fn archive_out(context: &Context, ve: &str, from: &str) -> Outcome {
    if io::stdout().is_terminal() {
        return Err(usage("an archive is not for a terminal")
            .with_hint("redirect it: `vessel cp NAME:/PATH - > FILE.tar`")
            .into());
    }
    let mut stream = context.client.get_files(ve, from).await?;
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let length = stream.read(&mut buffer).await.map_err(|source| {
            let socket = context.client.socket().to_owned();
            ClientError::Cut { socket, source }
        })?;
        match buffer.get(..length) {
            None | Some([]) => return Ok(()),
            Some(bytes) => context.out.raw(bytes)?,
        }
    }
}

/// A pipe between a thread that works on an archive and the connection.
fn pair() -> Result<(StdUnixStream, UnixStream), ApiError> {
    let open = || {
        let (ours, theirs) = StdUnixStream::pair()?;
        theirs.set_nonblocking(true)?;
        Ok::<_, io::Error>((ours, UnixStream::from_std(theirs)?))
    };
    open().map_err(|error| failed(format!("a pipe cannot be made: {error}")))
}

/// An archive of files of this host, made by a thread while it is read. If the thread fails, so does
/// reading: half an archive must not look like a whole one.
struct Packed {
    stream: UnixStream,
    failure: Arc<Mutex<Option<io::Error>>>,
}

impl Packed {
    fn start(
        from: PathBuf,
        name: OsString,
        keep: bool,
        failure: Arc<Mutex<Option<io::Error>>>,
    ) -> io::Result<Self> {
        let (writer, stream) = pair().map_err(io::Error::other)?;
        let told = Arc::clone(&failure);
        std::thread::spawn(move || {
            let packed = pack::pack(&writer, &from, &name, keep);
            if let (Err(error), Ok(mut told)) = (packed, told.lock()) {
                *told = Some(error);
            }
            // Only now is the end of the archive seen on the other side.
            drop(writer);
        });
        Ok(Self { stream, failure })
    }
}

impl AsyncRead for Packed {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
        let at_end = buffer.filled().len() == before;
        let failed = this.failure.lock().is_ok_and(|failure| failure.is_some());
        Poll::Ready(if at_end && failed {
            Err(io::Error::other("the archive could not be finished"))
        } else {
            Ok(())
        })
    }
}

/// Standard input as it is.
struct Typed {
    pieces: tokio::sync::mpsc::Receiver<Vec<u8>>,
    piece: Vec<u8>,
    used: usize,
}

impl Typed {
    fn new() -> Self {
        Self {
            pieces: terminal::input(),
            piece: Vec::new(),
            used: 0,
        }
    }
}

impl AsyncRead for Typed {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.used == this.piece.len() {
            match ready!(this.pieces.poll_recv(context)) {
                None => return Poll::Ready(Ok(())),
                Some(piece) => (this.piece, this.used) = (piece, 0),
            }
        }
        let left = this.piece.get(this.used..).unwrap_or_default();
        let taken = left
            .get(..left.len().min(buffer.remaining()))
            .unwrap_or_default();
        buffer.put_slice(taken);
        this.used += taken.len();
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_apart() {
        let inside = |ve: &str, path: &str| Place::Inside {
            ve: ve.to_owned(),
            path: path.to_owned(),
        };
        assert_eq!(place("web:/etc").unwrap(), inside("web", "/etc"));
        assert_eq!(place("101:/").unwrap(), inside("101", "/"));
        assert_eq!(place("-").unwrap(), Place::Archive);
        assert_eq!(
            place("./web:/etc").unwrap(),
            Place::Outside("./web:/etc".into())
        );
        assert_eq!(place("C:/x").unwrap(), Place::Outside("C:/x".into()));
        assert_eq!(place("/a:/b").unwrap(), Place::Outside("/a:/b".into()));
        for text in ["web:etc", "web:/a/../b"] {
            assert_eq!(place(text).unwrap_err().code, ErrorCode::Usage, "{text}");
        }
    }
}
