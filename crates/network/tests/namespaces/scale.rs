//! More VEs than a bridge has ports, with stock kernel settings, and what each link costs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use network::link::{self, HostEnd, LinkSpec, Target};
use network::{Netlink, counters_all, inside};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::support::{Node, current, id, runnable};

/// More than a bridge's 1,023 ports, and more than the neighbour table's 1,024 entries.
const VES: u32 = 1_200;

fn addresses(number: u32) -> [IpAddr; 2] {
    let [_, _, high, low] = number.to_be_bytes();
    [
        Ipv4Addr::new(10, 99, high, low).into(),
        Ipv6Addr::new(0xfd00, 0x99, 0, 0, 0, 0, 0, u16::from_be_bytes([high, low])).into(),
    ]
}

/// Times of one link: host's side, and inside.
struct Cost {
    host: Duration,
    inside: Duration,
}

#[test]
fn more_than_a_thousand_links_work_with_stock_settings() {
    if !runnable() {
        return;
    }
    let node = Node::new(&["10.99.0.0/16", "fd00:99::/64"], true);
    let (namespaces, costs) = many(&node);
    report("links 1 to 100", &costs[..100]);
    report("links 1,001 to 1,100", &costs[1_000..1_100]);

    let listed = node.namespace.run(|| {
        let mut netlink = Netlink::open().unwrap();
        let start = Instant::now();
        let listed = link::list(&mut netlink, id(100)..=id(1_999)).unwrap();
        println!("list of {}: {:?}", listed.len(), start.elapsed());
        let start = Instant::now();
        let counted = counters_all(&mut netlink, id(100)..=id(1_999)).unwrap();
        println!("counters of {}: {:?}", counted.len(), start.elapsed());
        assert_eq!(counted.len(), listed.len());
        listed
    });
    assert_eq!(listed.len(), usize::try_from(VES).unwrap());

    let start = Instant::now();
    let unreachable = everyone_answers(&node);
    println!(
        "{VES} VEs answered the node over IPv4 and IPv6 in {:?}",
        start.elapsed()
    );
    assert_eq!(unreachable, Vec::<IpAddr>::new());

    let start = Instant::now();
    drop(namespaces);
    node.namespace.run(|| {
        let mut netlink = Netlink::open().unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while !link::list(&mut netlink, id(100)..=id(1_999))
            .unwrap()
            .is_empty()
        {
            assert!(Instant::now() < deadline, "links stay");
            thread::sleep(Duration::from_millis(20));
        }
    });
    println!(
        "{VES} links gone with their namespaces in {:?}",
        start.elapsed()
    );
}

/// Makes the links, each to a namespace of its own kept by a descriptor and one echo socket.
fn many(node: &Node) -> (Vec<(OwnedFd, std::net::UdpSocket)>, Vec<Cost>) {
    let (targets, wanted) = mpsc::channel::<(u32, OwnedFd)>();
    let (made, host_time) = mpsc::channel();
    let inner = thread::spawn(move || {
        let mut namespaces = Vec::new();
        let mut costs = Vec::new();
        for number in 100..100 + VES {
            kernel::netns::unshare().unwrap();
            targets.send((number, current())).unwrap();
            let host = host_time.recv().unwrap();
            let start = Instant::now();
            inside::configure(&addresses(number)).unwrap();
            costs.push(Cost {
                host,
                inside: start.elapsed(),
            });
            let socket = std::net::UdpSocket::bind("[::]:7").unwrap();
            namespaces.push((current(), socket));
        }
        (namespaces, costs)
    });
    node.namespace.run(move || {
        let mut netlink = Netlink::open().unwrap();
        for (number, target) in wanted {
            let spec = LinkSpec {
                id: id(number),
                addresses: &addresses(number),
                target: Target::Fd(target.as_fd()),
                mtu: None,
                host_end: HostEnd::Up,
            };
            let start = Instant::now();
            link::create(&mut netlink, &spec).unwrap();
            made.send(start.elapsed()).unwrap();
        }
    });
    let (namespaces, costs) = inner.join().unwrap();
    for (_, socket) in &namespaces {
        socket.set_nonblocking(true).unwrap();
    }
    (namespaces, costs)
}

/// Addresses that do not answer a packet from the node: port 9, where nobody listens, answers
/// with "connection refused" from the VE itself.
fn everyone_answers(node: &Node) -> Vec<IpAddr> {
    node.namespace.run(|| {
        let all = (100..100 + VES).flat_map(addresses);
        all.filter(|&address| {
            let any = if address.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
            let socket = std::net::UdpSocket::bind(any).unwrap();
            socket.connect((address, 9)).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            let refused = (0..3).any(|_| {
                let _ = socket.send(b"?");
                matches!(socket.recv(&mut [0; 8]), Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused)
            });
            !refused
        })
        .collect()
    })
}

fn report(what: &str, costs: &[Cost]) {
    let median = |time: fn(&Cost) -> Duration| {
        let mut times: Vec<Duration> = costs.iter().map(time).collect();
        times.sort();
        times[times.len() / 2]
    };
    println!(
        "{what}: host {:?}, inside {:?} (medians)",
        median(|c| c.host),
        median(|c| c.inside)
    );
}

#[test]
fn the_first_packet_gets_through_soon() {
    if !runnable() {
        return;
    }
    let node = Node::new(&["10.99.0.0/16", "fd00:99::/64"], false);
    let start = Instant::now();
    let _one = node.ve(101, &["10.99.0.2"]);
    let made = start.elapsed();
    let answered = node.namespace.run(move || {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect("10.99.0.2:9").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(2))).unwrap();
        while start.elapsed() < Duration::from_secs(5) {
            let _ = socket.send(b"?");
            if matches!(socket.recv(&mut [0; 8]), Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused) {
                return start.elapsed();
            }
        }
        panic!("no answer");
    });
    println!("namespace and link made in {made:?}, first answer after {answered:?}");
}

#[test]
fn namespaces_can_be_entered_by_descriptor() {
    if !runnable() {
        return;
    }
    let node = Node::new(&["10.99.0.0/16"], false);
    let one = node.ve(101, &["10.99.0.2"]);
    let descriptor = one.descriptor();
    thread::spawn(move || {
        move_into_link_name_space(descriptor.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        let old = ["10.99.0.2".parse().unwrap()];
        let new = ["10.99.0.3".parse().unwrap()];
        inside::set_addresses(&old, &new).unwrap();
    })
    .join()
    .unwrap();
    assert!(one.program("ip addr show eth0").contains("10.99.0.3/32"));
}
