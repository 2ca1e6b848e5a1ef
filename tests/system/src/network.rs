//! Reaching VEs, and what a VE's root cannot do to its neighbours.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::harness::{Node, tests, until};

tests! {
    Node [] =>
        host_and_ves_reach_each_other_in_both_families,
        an_address_is_chosen_changed_and_freed,
        no_two_ves_get_one_address,
        forged_sources_reach_nobody,
        forged_neighbour_answers_change_nothing,
        a_stolen_address_stays_with_its_owner,
        a_dhcp_server_in_a_ve_is_heard_by_nobody,
        name_servers_are_those_that_were_set,
        translated_traffic_leaves_with_the_nodes_address,
        a_ve_sees_only_its_own_link;
}

fn host_and_ves_reach_each_other_in_both_families(node: &mut Node) -> Result<()> {
    node.start_tiny("one")?;
    node.start_tiny("two")?;
    let (v4, v6) = (node.v4("two")?, node.v6("two")?);
    for address in [&v4, &v6] {
        node.expect_page(address, "two")?;
        let line = format!("ping -c 1 -W 2 {address}");
        node.sh("one", &line)
            .with_context(|| format!("from one VE to {address}"))?;
    }
    // Outwards: the node answers where VEs see their gateway.
    node.sh("one", "ping -c 1 -W 2 169.254.1.1")?;
    Ok(())
}

fn an_address_is_chosen_changed_and_freed(node: &mut Node) -> Result<()> {
    node.ok(&[
        "create",
        "one",
        "--template",
        "tiny",
        "--set",
        "address=10.99.7.7",
        "--start",
    ])?;
    node.expect_page("10.99.7.7", "one")?;
    let changed = node.ok(&["set", "one", "address=10.99.7.8"])?;
    if changed.contains("restart") {
        node.ok(&["restart", "one"])?;
    }
    node.expect_page("10.99.7.8", "one")?;
    ensure!(!node.reaches("10.99.7.7")?, "the old address still answers");
    node.ok(&["delete", "--force", "one"])?;
    ensure!(!node.reaches("10.99.7.8")?);
    node.ok(&[
        "create",
        "two",
        "--template",
        "tiny",
        "--set",
        "address=10.99.7.8",
        "--start",
    ])?;
    node.expect_page("10.99.7.8", "two")
}

fn no_two_ves_get_one_address(node: &mut Node) -> Result<()> {
    let node = &*node;
    // Two commands at a time, so that they race for the next address.
    std::thread::scope(|scope| {
        let create = |prefix: &'static str| {
            move || node.ok(&["create", prefix, "--template", "tiny", "--count", "20"])
        };
        let threads = ["a", "b", "c"].map(|prefix| scope.spawn(create(prefix)));
        for thread in threads {
            thread
                .join()
                .map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        }
        anyhow::Ok(())
    })?;
    let list = node.json(&["list"])?;
    let all: Vec<&str> = list
        .as_array()
        .context("no list")?
        .iter()
        .flat_map(|ve| ve["addresses"].as_array().into_iter().flatten())
        .filter_map(serde_json::Value::as_str)
        .collect();
    let distinct: BTreeSet<&&str> = all.iter().collect();
    ensure!(all.len() == 120, "60 VEs have {} addresses", all.len());
    ensure!(distinct.len() == all.len(), "an address was given twice");
    Ok(())
}

/// Echo requests that a VE has received, of both families.
fn echoes(node: &Node, name: &str) -> Result<u64> {
    let v4 = "awk '/^Icmp:/ { if (n) print $n; else for (i = 1; i <= NF; i++) if ($i == \"InEchos\") n = i }' /proc/net/snmp";
    let v6 = "awk '$1 == \"Icmp6InEchos\" { print $2 }' /proc/net/snmp6";
    let mut sum = 0;
    for line in [v4, v6] {
        sum += node.sh(name, line)?.parse::<u64>().context("no counter")?;
    }
    Ok(sum)
}

fn forged_sources_reach_nobody(node: &mut Node) -> Result<()> {
    node.start_tiny("bad")?;
    node.start_tiny("good")?;
    let (v4, v6) = (node.v4("good")?, node.v6("good")?);
    let begun = echoes(node, "good")?;
    node.sh(
        "bad",
        &format!("ping -c 1 -W 1 {v4} && ping -c 1 -W 1 {v6}"),
    )?;
    ensure!(
        echoes(node, "good")? == begun + 2,
        "the counter does not see honest pings"
    );
    let stranger = [
        ("10.99.200.200", &v4),
        ("192.0.2.7", &v4),
        ("fd99:1:2:3::7", &v6),
    ];
    for (forged, target) in stranger {
        let length = if forged.contains(':') { 128 } else { 32 };
        node.sh(
            "bad",
            &format!("ip addr add {forged}/{length} dev eth0; sleep 0.1"),
        )?;
        // An IPv6 address may be used once duplicate address detection is over.
        let usable = || {
            node.sh(
                "bad",
                &format!("ip addr show dev eth0 | grep -F {forged} | grep -c tentative || true"),
            )
        };
        until(
            "the forged address is usable",
            Duration::from_secs(5),
            usable,
            |n| n == "0",
        )?;
        let sent = node.vessel(&[
            "exec", "bad", "--", "ping", "-c", "3", "-W", "1", "-I", forged, target,
        ])?;
        ensure!(
            sent.code != 0 && sent.stdout.contains("3 packets transmitted"),
            "{sent}"
        );
        ensure!(
            echoes(node, "good")? == begun + 2,
            "packets from {forged} arrived at {target}"
        );
    }
    Ok(())
}

fn forged_neighbour_answers_change_nothing(node: &mut Node) -> Result<()> {
    node.start_tiny("bad")?;
    node.start_tiny("good")?;
    let victim = node.v4("good")?;
    // Says three times that the victim's address and the gateway's live here.
    for address in [victim.as_str(), "169.254.1.1"] {
        let line = format!(
            "ip addr add {address}/32 dev eth0; arping -U -c 3 -w 4 -I eth0 -s {address} {address}"
        );
        node.vessel(&["exec", "bad", "--", "sh", "-c", &line])?;
    }
    node.expect_page(&victim, "good")?;
    node.sh("good", "ping -c 1 -W 2 169.254.1.1")?;
    Ok(())
}

fn a_stolen_address_stays_with_its_owner(node: &mut Node) -> Result<()> {
    node.start_tiny("bad")?;
    node.start_tiny("good")?;
    node.start_tiny("third")?;
    for address in [node.v4("good")?, node.v6("good")?] {
        let length = if address.contains(':') { 128 } else { 32 };
        node.sh("bad", &format!("ip addr add {address}/{length} dev eth0"))?;
        node.expect_page(&address, "good")?;
        let fetch =
            format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 {address} 80 | tail -n 1");
        let page = node.sh("third", &fetch)?;
        ensure!(page == "good", "{address} showed `{page}` to a third VE");
    }
    Ok(())
}

fn a_dhcp_server_in_a_ve_is_heard_by_nobody(node: &mut Node) -> Result<()> {
    node.start_tiny("bad")?;
    node.start_tiny("good")?;
    let config = "start 10.99.9.1\\nend 10.99.9.9\\ninterface eth0\\nlease_file /tmp/leases\\n";
    node.sh(
        "bad",
        &format!("printf '{config}' > /tmp/c; touch /tmp/leases; udhcpd /tmp/c"),
    )?;
    let asked = node.vessel(&[
        "exec",
        "good",
        "--",
        "udhcpc",
        "-n",
        "-q",
        "-t",
        "2",
        "-T",
        "1",
        "-i",
        "eth0",
        "-s",
        "/bin/true",
    ])?;
    ensure!(asked.code != 0, "somebody gave a lease: {asked}");
    Ok(())
}

fn name_servers_are_those_that_were_set(node: &mut Node) -> Result<()> {
    node.ok(&[
        "create",
        "web",
        "--template",
        "tiny",
        "--set",
        "dns=192.0.2.53,2001:db8::53",
        "--start",
    ])?;
    let file = node.sh("web", "cat /etc/resolv.conf")?;
    ensure!(
        file.contains("nameserver 192.0.2.53") && file.contains("nameserver 2001:db8::53"),
        "{file}"
    );
    Ok(())
}

fn translated_traffic_leaves_with_the_nodes_address(node: &mut Node) -> Result<()> {
    // A world outside that knows the node and nothing behind it.
    let outside = format!("{}-out", node.name());
    let in_outside = |words: &[&str]| {
        let mut command = std::process::Command::new("ip");
        command.args(["netns", "exec", &outside]).args(words);
        crate::harness::command::run(&mut command)?.success()
    };
    crate::harness::machine::ip(&["netns", "add", &outside])?.success()?;
    let result = (|| {
        let inner = node.name();
        let words = [
            "link", "add", "out0", "netns", &inner, "type", "veth", "peer", "name", "in0", "netns",
            &outside,
        ];
        crate::harness::machine::ip(&words)?.success()?;
        node.inside(&["ip", "addr", "add", "198.51.100.1/24", "dev", "out0"])?
            .success()?;
        node.inside(&["ip", "link", "set", "out0", "up"])?
            .success()?;
        node.inside(&["ip", "route", "add", "default", "via", "198.51.100.2"])?
            .success()?;
        in_outside(&["ip", "addr", "add", "198.51.100.2/24", "dev", "in0"])?;
        in_outside(&["ip", "link", "set", "in0", "up"])?;
        node.start_tiny("web")?;
        // There is no route back to a VE's own address, so an answer proves the translation.
        node.sh("web", "ping -c 1 -W 3 198.51.100.2")?;
        anyhow::Ok(())
    })();
    let _ = node.inside(&["ip", "link", "del", "out0"]);
    let _ = crate::harness::machine::ip(&["netns", "del", &outside]);
    result
}

fn a_ve_sees_only_its_own_link(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    let links = node.sh("web", "ls /sys/class/net | sort | tr '\\n' ' '")?;
    ensure!(links.trim() == "eth0 lo", "{links}");
    // Its root may not reach beyond its own network namespace by a new one's parent.
    let rules = node.vessel(&["exec", "web", "--", "sh", "-c", "ls /sys/class/net/eth0/"])?;
    ensure!(rules.code == 0, "{rules}");
    Ok(())
}
