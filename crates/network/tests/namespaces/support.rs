//! Namespaces as threads, a node with VEs in them, and small conversations between them.

use std::any::Any;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{self, AssertUnwindSafe};
use std::process::Command;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use network::link::{self, HostEnd, LinkSpec, Target};
use network::node::{self, NodeNetwork};
use network::{Netlink, inside};
use ve::VeId;

/// Long enough for a packet over veth on a busy machine, short enough to wait for none.
pub(crate) const PATIENCE: Duration = Duration::from_millis(400);

/// A link needs a moment from up to carrying packets (`linkwatch`), and a lost SYN a second.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(8);

/// Says why this cannot run here, if so.
pub(crate) fn runnable() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: making network namespaces needs root");
    }
    root
}

pub(crate) fn id(number: u32) -> VeId {
    VeId::new(number).unwrap()
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| ip(text)).collect()
}

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace: a thread in it that does what it is told.
pub(crate) struct Namespace {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    descriptor: OwnedFd,
}

impl Namespace {
    pub(crate) fn new() -> Self {
        let (jobs, work) = mpsc::channel::<Job>();
        let (descriptors, descriptor) = mpsc::channel();
        let thread = thread::spawn(move || {
            kernel::netns::unshare().unwrap();
            descriptors.send(current()).unwrap();
            for job in work {
                job();
            }
        });
        let descriptor = descriptor.recv().unwrap();
        Self {
            jobs: Some(jobs),
            thread: Some(thread),
            descriptor,
        }
    }

    /// Runs something in the namespace and hands on what it returned, or its panic.
    pub(crate) fn run<R: Send + 'static>(&self, work: impl FnOnce() -> R + Send + 'static) -> R {
        let (answers, answer) = mpsc::channel::<Result<R, Box<dyn Any + Send>>>();
        let job = Box::new(move || {
            let _ = answers.send(panic::catch_unwind(AssertUnwindSafe(work)));
        });
        self.jobs.as_ref().unwrap().send(job).unwrap();
        answer
            .recv()
            .unwrap()
            .unwrap_or_else(|panic| panic::resume_unwind(panic))
    }

    /// Runs a program in the namespace and returns what it printed.
    pub(crate) fn program(&self, line: &str) -> String {
        let line = line.to_owned();
        self.run(move || {
            let mut words = line.split_ascii_whitespace();
            let output = Command::new(words.next().unwrap())
                .args(words)
                .output()
                .unwrap();
            assert!(
                output.status.success(),
                "{line}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            String::from_utf8_lossy(&output.stdout).into_owned()
        })
    }

    pub(crate) fn descriptor(&self) -> OwnedFd {
        self.descriptor.try_clone().unwrap()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The calling thread's network namespace.
pub(crate) fn current() -> OwnedFd {
    std::fs::File::open("/proc/thread-self/ns/net")
        .unwrap()
        .into()
}

/// A node in a namespace of its own.
pub(crate) struct Node {
    pub(crate) namespace: Rc<Namespace>,
    network: NodeNetwork,
}

impl Node {
    pub(crate) fn new(ranges: &[&str], nat: bool) -> Self {
        Self::in_namespace(Namespace::new(), 100..=1_999, ranges, nat)
    }

    pub(crate) fn in_namespace(
        namespace: impl Into<Rc<Namespace>>,
        ids: std::ops::RangeInclusive<u32>,
        ranges: &[&str],
        nat: bool,
    ) -> Self {
        let network = NodeNetwork {
            ids: id(*ids.start())..=id(*ids.end()),
            ranges: ranges.iter().map(|range| range.parse().unwrap()).collect(),
            nat,
        };
        let node = Self {
            namespace: namespace.into(),
            network,
        };
        node.prepare();
        node
    }

    /// A second node in the same namespace.
    pub(crate) fn beside(
        &self,
        ids: std::ops::RangeInclusive<u32>,
        ranges: &[&str],
        nat: bool,
    ) -> Self {
        Self::in_namespace(Rc::clone(&self.namespace), ids, ranges, nat)
    }

    pub(crate) fn network(&self) -> NodeNetwork {
        self.network.clone()
    }

    pub(crate) fn prepare(&self) {
        let network = self.network();
        self.namespace
            .run(move || node::prepare(&mut Netlink::open().unwrap(), &network).unwrap());
    }

    pub(crate) fn remove(&self) {
        let network = self.network();
        self.namespace
            .run(move || node::remove(&mut Netlink::open().unwrap(), &network).unwrap());
    }

    /// Makes a link into a namespace, as the launcher does.
    pub(crate) fn link(
        &self,
        number: u32,
        addresses: &[IpAddr],
        target: &Namespace,
        host_end: HostEnd,
    ) -> Result<(), link::LinkError> {
        let (addresses, target) = (addresses.to_vec(), target.descriptor());
        self.namespace.run(move || {
            let target = Target::Fd(target.as_fd());
            let (id, addresses) = (id(number), addresses.as_slice());
            let spec = LinkSpec {
                id,
                addresses,
                target,
                mtu: None,
                host_end,
            };
            link::create(&mut Netlink::open().unwrap(), &spec)
        })
    }

    /// A running VE as far as its network goes.
    pub(crate) fn ve(&self, number: u32, addresses: &[&str]) -> Namespace {
        let (namespace, addresses) = (Namespace::new(), ips(addresses));
        self.link(number, &addresses, &namespace, HostEnd::Up)
            .unwrap();
        namespace.run(move || inside::configure(&addresses).unwrap());
        namespace
    }

    pub(crate) fn rules(&self) -> String {
        self.namespace.program("nft list ruleset")
    }
}

/// An outside host behind the node's uplink, which knows no route to the node's ranges.
pub(crate) fn outside(node: &Node) -> Namespace {
    let outside = Namespace::new();
    node.namespace
        .program("ip link add up0 type veth peer name up1");
    let thread = outside.run(|| rustix::thread::gettid().as_raw_nonzero());
    node.namespace
        .program(&format!("ip link set up1 netns {thread}"));
    for line in [
        "ip addr add 203.0.113.1/24 dev up0",
        "ip addr add 2001:db8::1/64 dev up0 nodad",
    ] {
        node.namespace.program(line);
    }
    node.namespace.program("ip link set up0 up");
    for line in [
        "ip addr add 203.0.113.2/24 dev up1",
        "ip addr add 2001:db8::2/64 dev up1 nodad",
        "ip link set up1 up",
        "ip link set lo up",
    ] {
        outside.program(line);
    }
    outside
}

/// Whether a TCP conversation from one namespace to an address in another works, and with whom
/// the listener believes to speak.
pub(crate) fn talk(from: &Namespace, to: &Namespace, address: &str) -> io::Result<IpAddr> {
    let wildcard = if ip(address).is_ipv6() {
        "[::]:0"
    } else {
        "0.0.0.0:0"
    };
    let (listener, port) = to.run(move || {
        let listener = TcpListener::bind(wildcard).unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, port)
    });
    listener.set_nonblocking(true).unwrap();
    let failed = Arc::new(AtomicBool::new(false));
    let server = thread::spawn({
        let failed = Arc::clone(&failed);
        move || serve_one(&listener, &failed)
    });
    let target = SocketAddr::new(ip(address), port);
    let answer = from.run(move || {
        let mut stream = TcpStream::connect_timeout(&target, CONNECT_TIMEOUT)?;
        stream.set_read_timeout(Some(CONNECT_TIMEOUT))?;
        stream.write_all(b"hello")?;
        let mut echo = [0; 5];
        stream.read_exact(&mut echo)?;
        assert_eq!(&echo, b"hello");
        Ok(())
    });
    failed.store(answer.is_err(), Ordering::Relaxed);
    let peer = server.join().unwrap();
    answer.and_then(|()| peer.ok_or_else(|| io::ErrorKind::TimedOut.into()))
}

fn serve_one(listener: &TcpListener, failed: &AtomicBool) -> Option<IpAddr> {
    let deadline = Instant::now() + CONNECT_TIMEOUT;
    while Instant::now() < deadline && !failed.load(Ordering::Relaxed) {
        let Ok((mut stream, peer)) = listener.accept() else {
            thread::sleep(Duration::from_millis(1));
            continue;
        };
        stream.set_nonblocking(false).unwrap();
        let mut bytes = [0; 5];
        stream.read_exact(&mut bytes).ok()?;
        stream.write_all(&bytes).ok()?;
        return Some(peer.ip().to_canonical());
    }
    None
}

/// A UDP socket in a namespace, for seeing what arrives there.
pub(crate) fn udp(namespace: &Namespace, address: &str) -> UdpSocket {
    let address: SocketAddr = address.parse().unwrap();
    let socket = namespace.run(move || UdpSocket::bind(address).unwrap());
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// The next datagram's text and sender, or nothing within [`PATIENCE`].
pub(crate) fn received(socket: &UdpSocket) -> Option<(String, IpAddr)> {
    let mut bytes = [0; 512];
    let (length, peer) = socket.recv_from(&mut bytes).ok()?;
    Some((
        String::from_utf8_lossy(&bytes[..length]).into_owned(),
        peer.ip(),
    ))
}
