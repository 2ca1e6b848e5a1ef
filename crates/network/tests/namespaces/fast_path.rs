//! Packets of VEs past the node's stack: that they come, are counted, and obey what the filter says.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use network::Netlink;
use network::fast_path::{self, FastPath, Obstacle, Passed, Watch};

use crate::frames::{send, tcp4};
use crate::support::{Namespace, Node, id, ip, outside, runnable, talk};

const RANGES: &[&str] = &["10.99.0.0/16", "fd00:99::/64"];

/// A node with two VEs, a host outside that has a route to them, and the fast path.
struct Scene {
    node: Node,
    outside: Namespace,
    one: Namespace,
    two: Namespace,
    path: Arc<FastPath>,
}

fn scene(nat: bool) -> Scene {
    let node = Node::new(RANGES, nat);
    let outside = outside(&node);
    outside.program("ip route add 10.99.0.0/16 via 203.0.113.1");
    let one = node.ve(101, &["10.99.0.2"]);
    let two = node.ve(102, &["10.99.0.3"]);
    let path = open(&node);
    for number in [101, 102] {
        allow(&node, &path, number, true);
    }
    refresh(&node, &path);
    // Links carry packets a moment after they come up.
    talk(&node.namespace, &one, "10.99.0.2").unwrap();
    talk(&node.namespace, &two, "10.99.0.3").unwrap();
    Scene {
        node,
        outside,
        one,
        two,
        path,
    }
}

fn open(node: &Node) -> Arc<FastPath> {
    let network = node.network();
    node.namespace
        .run(move || Arc::new(FastPath::open(&mut Netlink::open().unwrap(), &network).unwrap()))
}

fn refresh(node: &Node, path: &Arc<FastPath>) {
    let path = Arc::clone(path);
    node.namespace
        .run(move || path.refresh(&mut Netlink::open().unwrap()).unwrap());
}

fn allow(node: &Node, path: &Arc<FastPath>, number: u32, allowed: bool) {
    let path = Arc::clone(path);
    node.namespace
        .run(move || path.allow(id(number), allowed, true).unwrap());
}

impl Scene {
    fn passed(&self, number: u32) -> Passed {
        self.path.passed_of(id(number)).unwrap()
    }
}

#[test]
fn what_comes_from_outside_takes_it_both_ways() {
    if !runnable() {
        return;
    }
    for nat in [true, false] {
        let scene = scene(nat);
        assert_eq!(scene.path.obstacles(), []);
        let before = (scene.passed(101), scene.node.rules());
        let peer = talk(&scene.outside, &scene.one, "10.99.0.2").unwrap();
        assert_eq!(peer, ip("203.0.113.2"));
        let after = scene.passed(101).traffic;
        // SYN, ACK, five bytes, FIN, and their answers; the fewest that the kernel makes of it.
        assert!(after.receive_outside.packets >= 4, "{after:?}");
        assert!(after.transmit_outside.packets >= 3, "{after:?}");
        // Headers of 40 bytes at least.
        assert!(after.receive_outside.bytes >= 4 * 40 + 5, "{after:?}");
        assert_eq!(after.receive_inside, before.0.traffic.receive_inside);
        assert_eq!(
            scene.passed(101).receive_of_link,
            after.receive_outside,
            "all that came"
        );
    }
}

#[test]
fn ves_talk_to_each_other_by_it() {
    if !runnable() {
        return;
    }
    let scene = scene(true);
    assert_eq!(
        talk(&scene.one, &scene.two, "10.99.0.3").unwrap(),
        ip("10.99.0.2")
    );
    let (one, two) = (scene.passed(101).traffic, scene.passed(102).traffic);
    assert!(one.transmit_inside.packets >= 4, "{one:?}");
    assert_eq!(one.transmit_inside, two.receive_inside);
    assert_eq!(one.receive_inside, two.transmit_inside);
    assert_eq!(one.transmit_outside.packets, 0);
}

#[test]
fn what_a_ve_begins_is_translated_as_without_it() {
    if !runnable() {
        return;
    }
    let scene = scene(true);
    assert_eq!(
        talk(&scene.one, &scene.outside, "203.0.113.2").unwrap(),
        ip("203.0.113.1")
    );
    assert_eq!(scene.passed(101).traffic.transmit_outside.packets, 0);
    // Without translation nothing speaks against it once an answer came.
    let bare = self::scene(false);
    assert_eq!(
        talk(&bare.one, &bare.outside, "203.0.113.2").unwrap(),
        ip("10.99.0.2")
    );
    assert!(bare.passed(101).traffic.receive_outside.packets >= 2);
}

#[test]
fn nobody_speaks_for_another_by_it() {
    if !runnable() {
        return;
    }
    let scene = scene(true);
    // A connection that is known makes no way for another link.
    talk(&scene.one, &scene.two, "10.99.0.3").unwrap();
    talk(&scene.outside, &scene.two, "10.99.0.3").unwrap();
    let before = (scene.passed(101), scene.passed(102));
    let ports = (40_000, 40_001);
    let forged = |source| tcp4(source, "10.99.0.3", ports);
    send(
        &scene.one,
        [
            "10.99.0.3",
            "10.99.0.99",
            "203.0.113.2",
            "127.0.0.1",
            "169.254.1.1",
        ]
        .map(forged)
        .to_vec(),
    );
    for target in ["169.254.169.254", "127.0.0.1", "224.0.0.1", "10.99.255.255"] {
        send(&scene.one, vec![tcp4("10.99.0.2", target, ports)]);
    }
    thread::sleep(Duration::from_millis(100));
    assert_eq!((scene.passed(101), scene.passed(102)), before);
    send(&scene.one, vec![forged("10.99.0.2")]);
    thread::sleep(Duration::from_millis(100));
    assert_ne!(scene.passed(102), before.1, "an honest one passes");
}

#[test]
fn a_host_outside_does_not_pose_as_a_ve_by_it() {
    if !runnable() {
        return;
    }
    let scene = scene(true);
    talk(&scene.outside, &scene.two, "10.99.0.3").unwrap();
    scene.outside.program("ip addr add 10.99.0.2/32 dev up1");
    let before = scene.passed(102);
    scene.outside.run(|| {
        let socket = rustix::net::socket(
            rustix::net::AddressFamily::INET,
            rustix::net::SocketType::STREAM,
            None,
        )
        .unwrap();
        let source: SocketAddr = "10.99.0.2:40000".parse().unwrap();
        rustix::net::bind(&socket, &source).unwrap();
        rustix::io::ioctl_fionbio(&socket, true).unwrap();
        let target: SocketAddr = "10.99.0.3:9".parse().unwrap();
        let _ = rustix::net::connect(&socket, &target);
        thread::sleep(Duration::from_millis(100));
    });
    assert_eq!(scene.passed(102), before);
}

#[test]
fn one_that_is_held_to_a_rate_takes_the_slow_path() {
    if !runnable() {
        return;
    }
    let scene = scene(true);
    let path = Arc::clone(&scene.path);
    path.allow(id(102), false, false).unwrap();
    let before = (scene.passed(101), scene.passed(102));
    talk(&scene.one, &scene.two, "10.99.0.3").unwrap();
    talk(&scene.outside, &scene.two, "10.99.0.3").unwrap();
    assert_eq!((scene.passed(101), scene.passed(102)), before);
    path.allow(id(102), true, false).unwrap();
    talk(&scene.outside, &scene.two, "10.99.0.3").unwrap();
    assert_ne!(scene.passed(102), before.1);
}

#[test]
fn connections_outlive_a_change_of_paths() {
    if !runnable() {
        return;
    }
    let scene = scene(true);
    let listener = scene
        .one
        .run(|| TcpListener::bind("10.99.0.2:7000").unwrap());
    let target: SocketAddr = "10.99.0.2:7000".parse().unwrap();
    let mut client = scene
        .outside
        .run(move || TcpStream::connect(target).unwrap());
    let (mut server, _) = listener.accept().unwrap();
    for stream in [&client, &server] {
        stream
            .set_read_timeout(Some(Duration::from_secs(8)))
            .unwrap();
    }
    let mut exchange = |who: &str| {
        let mut bytes = [0; 3];
        // The VE speaks first, which would begin a connection anew for a filter that knows none.
        server.write_all(b"abc").unwrap();
        client
            .read_exact(&mut bytes)
            .unwrap_or_else(|error| panic!("{who}: {error}"));
        client.write_all(b"def").unwrap();
        server
            .read_exact(&mut bytes)
            .unwrap_or_else(|error| panic!("{who}: {error}"));
    };
    exchange("fast");
    scene.node.namespace.program("nft add table ip other");
    scene.node.namespace.program(
        "nft add chain ip other forward { type filter hook forward priority 0 ; policy accept ; }",
    );
    scene
        .node
        .namespace
        .program("nft add rule ip other forward counter accept");
    refresh(&scene.node, &scene.path);
    let chain = Obstacle::Chain("ip other forward".to_owned());
    assert_eq!(scene.path.obstacles(), [chain]);
    let before = scene.passed(101);
    exchange("slow");
    assert_eq!(scene.passed(101), before, "the other's chain is asked");
    scene.node.namespace.program("nft delete table ip other");
    refresh(&scene.node, &scene.path);
    exchange("fast again");
    assert_ne!(scene.passed(101), before);
}

#[test]
fn the_next_daemon_goes_on_with_it() {
    if !runnable() {
        return;
    }
    let Scene {
        node,
        outside,
        one,
        path,
        ..
    } = scene(true);
    talk(&outside, &one, "10.99.0.2").unwrap();
    assert!(path.is_fresh());
    let before = path.passed_of(id(101)).unwrap();
    drop(path);
    // While no daemon runs, too.
    talk(&outside, &one, "10.99.0.2").unwrap();
    let path = open(&node);
    assert!(!path.is_fresh());
    refresh(&node, &path);
    let during = path.passed_of(id(101)).unwrap();
    assert!(
        during.traffic.receive_outside.packets > before.traffic.receive_outside.packets,
        "{during:?}"
    );
    talk(&outside, &one, "10.99.0.2").unwrap();
    assert_ne!(path.passed_of(id(101)).unwrap(), during);
    let hooks = || node.namespace.run(|| programs("up0"));
    assert_eq!(hooks(), 1, "none of the earlier one is left");
    let network = node.network();
    node.namespace
        .run(move || fast_path::remove(&mut Netlink::open().unwrap(), &network).unwrap());
    assert_eq!(hooks(), 0);
}

/// How many programs an interface of the calling thread's namespace asks.
fn programs(name: &str) -> usize {
    let index = std::fs::read_to_string("/proc/thread-self/net/dev_mcast")
        .unwrap()
        .lines()
        .find_map(|line| {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            (words.get(1) == Some(&name)).then(|| words[0].parse().unwrap())
        })
        .unwrap();
    kernel::bpf::ingress_programs(index).unwrap().len()
}

#[test]
fn large_packets_find_a_narrow_way() {
    if !runnable() {
        return;
    }
    let scene = scene(false);
    scene.node.namespace.program("ip link set up0 mtu 1300");
    let listener = scene
        .one
        .run(|| TcpListener::bind("10.99.0.2:7000").unwrap());
    let target: SocketAddr = "10.99.0.2:7000".parse().unwrap();
    let mut client = scene
        .outside
        .run(move || TcpStream::connect(target).unwrap());
    let (mut server, _) = listener.accept().unwrap();
    client
        .set_read_timeout(Some(Duration::from_secs(8)))
        .unwrap();
    let sender = thread::spawn(move || server.write_all(&vec![7; 300_000]).map(|()| server));
    let mut all = vec![0; 300_000];
    client.read_exact(&mut all).unwrap();
    assert!(all.iter().all(|byte| *byte == 7));
    sender.join().unwrap().unwrap();
}

#[test]
fn changes_of_the_filter_and_of_links_are_heard() {
    if !runnable() {
        return;
    }
    let node = Node::new(RANGES, true);
    let watch = node.namespace.run(|| Arc::new(Watch::open().unwrap()));
    for line in ["nft add table ip other", "ip link add d0 type bridge"] {
        let heard = thread::spawn({
            let watch = Arc::clone(&watch);
            move || watch.wait(Duration::from_secs(8)).unwrap()
        });
        node.namespace.program(line);
        assert!(heard.join().unwrap(), "{line}");
    }
    let quiet = || !watch.wait(Duration::from_millis(50)).unwrap();
    assert!((0..40).any(|_| quiet()), "it settles");
    node.ve(101, &["10.99.0.2"]);
    assert!(quiet(), "VEs come and go unheard");
}
