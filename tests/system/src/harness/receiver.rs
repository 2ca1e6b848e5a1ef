//! Receivers of mail and webhooks on the loopback of a node's network namespace.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// How long a client may take for a line.
const LINE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often is looked for the end of the test.
const LOOK: Duration = Duration::from_millis(20);

/// A server for as long as it is not dropped, and what it took.
#[derive(Debug)]
pub(crate) struct Receiver {
    port: u16,
    taken: Arc<Mutex<Vec<String>>>,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What a connection brought; nothing when it broke off before that was taken.
type Serve = fn(TcpStream) -> std::io::Result<Option<String>>;

impl Receiver {
    /// A mail server that takes everything: SMTP without extensions (RFC 5321).
    pub(crate) fn mail(namespace: &str) -> Result<Self> {
        Self::start(namespace, 0, smtp)
    }

    /// A web server that takes every POST, on this port, or one of its own for 0.
    pub(crate) fn web(namespace: &str, port: u16) -> Result<Self> {
        Self::start(namespace, port, http)
    }

    /// The port of the loopback address where it answers.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What came, in its order: a mail with its headers, or the head and the body of a request.
    pub(crate) fn taken(&self) -> Vec<String> {
        self.taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn start(namespace: &str, port: u16, serve: Serve) -> Result<Self> {
        let path = namespace.to_owned();
        // A socket belongs to the namespace of the thread that made it; no other thread is moved.
        let bind = move || -> Result<TcpListener> {
            let file = std::fs::File::open(&path).with_context(|| format!("cannot open {path}"))?;
            let of = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), of)
                .context("cannot enter the network namespace")?;
            let listener = TcpListener::bind(("127.0.0.1", port)).context("cannot listen")?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let listener = std::thread::spawn(bind)
            .join()
            .map_err(|_| anyhow::anyhow!("the thread of a receiver failed"))??;
        let port = listener.local_addr()?.port();
        let taken = Arc::new(Mutex::new(Vec::new()));
        let ending = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (taken, ending) = (Arc::clone(&taken), Arc::clone(&ending));
            move || {
                while !ending.load(Ordering::Relaxed) {
                    match listener.accept() {
                        Ok((stream, _)) => {
                            if let Ok(Some(message)) = serve(stream) {
                                let mut all = taken.lock().unwrap_or_else(PoisonError::into_inner);
                                all.push(message);
                            }
                        }
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {
                            std::thread::sleep(LOOK);
                        }
                        Err(_) => return,
                    }
                }
            }
        });
        Ok(Self {
            port,
            taken,
            ending,
            thread: Some(thread),
        })
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn smtp(mut stream: TcpStream) -> std::io::Result<Option<String>> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(LINE_TIMEOUT))?;
    let mut lines = BufReader::new(stream.try_clone()?);
    let mut mail = None;
    stream.write_all(b"220 test\r\n")?;
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line)? == 0 {
            return Ok(mail);
        }
        let answer = match line.trim_end() {
            "DATA" => {
                stream.write_all(b"354 go on\r\n")?;
                let mut text = String::new();
                while !text.ends_with("\r\n.\r\n") {
                    if lines.read_line(&mut text)? == 0 {
                        return Ok(None);
                    }
                }
                mail = Some(text);
                "250 taken"
            }
            "QUIT" => {
                stream.write_all(b"221 bye\r\n")?;
                return Ok(mail);
            }
            _ => "250 ok",
        };
        stream.write_all(format!("{answer}\r\n").as_bytes())?;
    }
}

fn http(mut stream: TcpStream) -> std::io::Result<Option<String>> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(LINE_TIMEOUT))?;
    let mut lines = BufReader::new(stream.try_clone()?);
    let (mut head, mut length) = (String::new(), 0);
    while !head.ends_with("\r\n\r\n") {
        let mut line = String::new();
        if lines.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    lines.read_exact(&mut body)?;
    stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")?;
    Ok(Some(format!("{head}{}", String::from_utf8_lossy(&body))))
}
