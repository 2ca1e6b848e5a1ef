//! A host outside of a node's network, and what it exchanges with each VE.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::harness::Node;
use crate::harness::machine::{self, Place};

/// Where VEs find it.
pub(crate) const ADDRESS: &str = "198.51.100.2";
/// How often is looked for the end.
const LOOK: Duration = Duration::from_millis(20);

/// The host, as a network namespace on a link to the node's; the node's default route leads there.
#[derive(Debug)]
pub(crate) struct Far {
    place: Place,
    namespace: String,
}

/// What becomes of a connection to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    /// What comes is thrown away.
    Takes,
    /// Bytes without end are sent.
    Gives,
}

/// Ports that answer for as long as this is not dropped; connections end with it.
#[derive(Debug)]
pub(crate) struct Ports {
    bytes: BTreeMap<u16, Arc<AtomicU64>>,
    ending: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Far {
    /// Connects it to a node.
    pub(crate) fn connect(node: &Node) -> Result<Self> {
        let namespace = format!("{}-out", node.name());
        machine::ip(&["netns", "add", &namespace])?.success()?;
        let far = Self {
            place: node.place,
            namespace,
        };
        let (inner, outer) = (node.name(), far.namespace.as_str());
        let link = ["link", "add", "out0", "netns", &inner, "type", "veth"];
        let peer = ["peer", "name", "in0", "netns", outer];
        machine::ip(&[&link[..], &peer].concat())?.success()?;
        for words in [
            &["addr", "add", "198.51.100.1/24", "dev", "out0"][..],
            &["link", "set", "out0", "up"],
            &["route", "add", "default", "via", ADDRESS],
        ] {
            node.inside(&[&["ip"], words].concat())?.success()?;
        }
        let there = format!("{ADDRESS}/24");
        for words in [
            &["-n", outer, "addr", "add", &there, "dev", "in0"][..],
            &["-n", outer, "link", "set", "in0", "up"],
        ] {
            machine::ip(words)?.success()?;
        }
        Ok(far)
    }

    /// Answers on ports.
    pub(crate) fn answer(&self, ports: &[(u16, Port)]) -> Result<Ports> {
        let mut all = Ports {
            bytes: BTreeMap::new(),
            ending: Arc::new(AtomicBool::new(false)),
            threads: Vec::new(),
        };
        for (port, kind) in ports {
            let listener = self.listen(*port)?;
            let bytes = Arc::new(AtomicU64::new(0));
            all.bytes.insert(*port, Arc::clone(&bytes));
            let (ending, kind) = (Arc::clone(&all.ending), *kind);
            let serve = move || accept(&listener, kind, &bytes, &ending);
            all.threads.push(std::thread::spawn(serve));
        }
        Ok(all)
    }

    fn listen(&self, port: u16) -> Result<TcpListener> {
        let path = format!("/run/netns/{}", self.namespace);
        // A socket belongs to the namespace of the thread that made it; no other thread is moved.
        let bind = move || -> Result<TcpListener> {
            let file = std::fs::File::open(&path).with_context(|| format!("cannot open {path}"))?;
            let of = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), of)
                .context("cannot enter the network namespace")?;
            let listener = TcpListener::bind((ADDRESS, port)).context("cannot listen")?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        std::thread::spawn(bind)
            .join()
            .map_err(|_| anyhow::anyhow!("the thread of a listener failed"))?
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        let _ = self.place.run_inside(&["ip", "link", "del", "out0"]);
        let _ = machine::ip(&["netns", "del", &self.namespace]);
    }
}

impl Ports {
    /// Bytes that went through each port so far.
    pub(crate) fn bytes(&self) -> BTreeMap<u16, u64> {
        let now = |(port, bytes): (&u16, &Arc<AtomicU64>)| (*port, bytes.load(Ordering::Relaxed));
        self.bytes.iter().map(now).collect()
    }
}

impl Drop for Ports {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, kind: Port, bytes: &Arc<AtomicU64>, ending: &Arc<AtomicBool>) {
    let mut threads = Vec::new();
    while !ending.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => {
                let (bytes, ending) = (Arc::clone(bytes), Arc::clone(ending));
                let work = move || {
                    // Its end is the VE's, or the test's.
                    let _ = exchange(stream, kind, &bytes, &ending);
                };
                threads.push(std::thread::spawn(work));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(LOOK),
            Err(_) => break,
        }
    }
    for thread in threads {
        let _ = thread.join();
    }
}

fn exchange(
    mut stream: TcpStream,
    kind: Port,
    bytes: &AtomicU64,
    ending: &AtomicBool,
) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(LOOK))?;
    stream.set_write_timeout(Some(LOOK))?;
    let mut buffer = vec![0; 64 << 10];
    while !ending.load(Ordering::Relaxed) {
        let done = match kind {
            Port::Takes => stream.read(&mut buffer),
            Port::Gives => stream.write(&buffer),
        };
        match done {
            Ok(0) => break,
            Ok(count) => {
                let count = u64::try_from(count).unwrap_or(0);
                bytes.fetch_add(count, Ordering::Relaxed);
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
