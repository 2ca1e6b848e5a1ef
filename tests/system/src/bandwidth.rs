//! The node's way to other networks: sold once, and divided as promised while everybody wants all of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::harness::far::{self, Far, Port};
use crate::harness::{Node, tests};

tests! {
    Node [] =>
        guaranteed_bandwidth_is_sold_once,
        guaranteed_bandwidth_holds_while_others_flood;
}

/// What the tests say that the node has, and what of it is for VEs, in megabits per second.
const CAPACITY: &str = "network.capacity=80Mbit";
const FOR_VES: f64 = 76.0;
/// Of a packet of 1,514 bytes 1,448 are content, and timers are not exact.
const CONTENT: f64 = 0.95;

fn guaranteed_bandwidth_is_sold_once(node: &mut Node) -> Result<()> {
    node.start_tiny("a")?;
    let refused = node.vessel(&["set", "a", "network.guarantee=10Mbit"])?;
    ensure!(
        refused.code == 6 && refused.stderr.contains("vessel node set network.capacity"),
        "{refused}"
    );
    node.ok(&["node", "set", CAPACITY])?;
    node.ok(&["set", "a", "network.guarantee=50Mbit"])?;
    node.start_tiny("b")?;
    let both = ["set", "b", "memory.limit=64M", "network.guarantee=30Mbit"];
    let refused = node.vessel(&both)?;
    ensure!(
        refused.code == 6
            && refused.stderr.contains(
                "network.guarantee: 30Mbit is asked for, and 26Mbit is left: 80Mbit less 4Mbit for \
                 the node itself less 50Mbit guaranteed to 1 other running VE"
            ),
        "{refused}"
    );
    ensure!(node.show("b")?["limits"]["memory.limit"].is_null());
    let refused = node.vessel(&["node", "set", "network.capacity=40Mbit"])?;
    ensure!(refused.code == 6, "{refused}");
    let shown = node.json(&["node", "show"])?;
    ensure!(
        shown["sold"]["network_guarantee_bits_per_second"] == 50_000_000,
        "{shown}"
    );
    node.ok(&["stop", "a", "--kill"])?;
    node.ok(&["set", "b", "network.guarantee=30Mbit"])?;
    let refused = node.vessel(&["start", "a"])?;
    ensure!(refused.code == 6, "{refused}");
    Ok(())
}

/// A way between a VE and the world: the VE, its port there, and how many connections it opens.
type Flow = (&'static str, u16, usize);

/// Megabits per second of content on each port, in two seconds of everybody at once.
fn measured(node: &Node, far: &Far, kind: Port, flows: &[Flow]) -> Result<BTreeMap<u16, f64>> {
    let ports: Vec<_> = flows.iter().map(|(_, port, _)| (*port, kind)).collect();
    let ports = far.answer(&ports)?;
    for (name, port, count) in flows {
        let to = format!("nc {} {port}", far::ADDRESS);
        let flow = match kind {
            Port::Takes => format!("(dd if=/dev/zero bs=64k | {to}) >/dev/null 2>&1 </dev/null &"),
            Port::Gives => format!("{to} >/dev/null 2>&1 </dev/null &"),
        };
        node.sh(name, &flow.repeat(*count))?;
    }
    // Queues fill first.
    std::thread::sleep(Duration::from_secs(2));
    let (before, begun) = (ports.bytes(), Instant::now());
    std::thread::sleep(Duration::from_secs(4));
    let (after, seconds) = (ports.bytes(), begun.elapsed().as_secs_f64());
    let rate = |(port, bytes): (u16, u64)| {
        let bytes = u32::try_from(bytes - before[&port]).context("too many bytes")?;
        Ok((port, f64::from(bytes) * 8.0 / 1e6 / seconds))
    };
    after.into_iter().map(rate).collect()
}

fn guaranteed_bandwidth_holds_while_others_flood(node: &mut Node) -> Result<()> {
    for name in ["good", "b", "c"] {
        node.start_tiny(name)?;
    }
    node.ok(&["node", "set", CAPACITY])?;
    node.ok(&["set", "good", "network.guarantee=50Mbit"])?;
    let far = Far::connect(node)?;
    let lone = [("good", 7001, 1)];
    let flood = [("good", 7001, 1), ("b", 7002, 6), ("c", 7003, 6)];
    for kind in [Port::Takes, Port::Gives] {
        let alone = measured(node, &far, kind, &lone)?[&7001];
        ensure!(
            (FOR_VES * CONTENT * 0.93..=FOR_VES).contains(&alone),
            "{kind:?}: alone it has {alone} of {FOR_VES}"
        );
        let found = measured(node, &far, kind, &flood)?;
        let (own, all) = (found[&7001], found.values().sum::<f64>());
        ensure!(own >= 50.0 * 0.95, "{kind:?}: {found:?} of 50");
        ensure!(all <= FOR_VES, "{kind:?}: {found:?} of {FOR_VES}");
    }
    // What VEs exchange among themselves does not go that way.
    node.sh("b", "dd if=/dev/zero of=/srv/file bs=1M count=50")?;
    let fetch = format!("wget -q -O /dev/null http://{}/file", node.v4("b")?);
    let begun = Instant::now();
    node.sh("good", &fetch)?;
    let took = begun.elapsed().as_secs_f64();
    ensure!(took < 2.5, "400 Mbit from a neighbour took {took} s");
    // It holds under another daemon, and for a VE that starts into it.
    node.kill_daemon()?;
    node.start_daemon()?;
    node.ok(&["restart", "c", "--kill"])?;
    node.expect_page(&node.v4("c")?, "c")?;
    let found = measured(node, &far, Port::Takes, &flood)?;
    ensure!(found[&7001] >= 50.0 * 0.95, "a new daemon: {found:?}");
    // Without its guarantee it would not have had that much.
    node.ok(&["set", "good", "network.guarantee=none"])?;
    node.ok(&["set", "b", "network.guarantee=1Mbit"])?;
    let found = measured(node, &far, Port::Takes, &flood)?;
    ensure!(found[&7001] < 40.0, "without a guarantee: {found:?}");
    node.ok(&["set", "b", "network.guarantee=none"])?;
    let alone = measured(node, &far, Port::Takes, &lone)?[&7001];
    ensure!(alone > 2.0 * FOR_VES, "nobody is guaranteed: {alone}");
    Ok(())
}
