//! What a neighbour of an attacker feels: how long its web server takes to answer, before and while
//! a bomb runs.
//!
//! Who asks is a process of the node's, and shares its processors with the VEs, which come first: a node gives all
//! VEs together ten times the weight of one such process. What would be measured is how long that process waits
//! for its turn (28 ms at the median beside four loops, where the neighbour took 0.4 ms). Users are elsewhere and wait for
//! nothing here, so who asks does not either: it has the greatest weight that there is.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::setpriority_process;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::arsenal;
use crate::harness::{Node, Output, command, slowness};

/// How much longer than twice its quiet value the median may take: a clock's tick, by which a wake-up
/// may be late on any machine.
const ALLOWANCE: Duration = Duration::from_millis(1);
/// How long the quiet neighbour is asked before the bomb, and again after it.
const QUIET: Duration = Duration::from_millis(500);
/// How long the disturbed neighbour is asked; bombs take longer than this and their fuse.
const DISTURBED: Duration = Duration::from_millis(1_500);
/// A bomb gets going before the neighbour is asked.
const FUSE: Duration = Duration::from_millis(400);
/// The niceness of whoever asks.
const GREATEST_WEIGHT: i32 = -20;
/// An answer that takes longer is none.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the daemon may take for a list, while the bomb runs: on a machine whose every processor is wanted by
/// hundreds, the start of the command alone waits for its slices many times.
const DAEMON_PATIENCE: Duration = Duration::from_secs(5);

/// Makes the neighbour, `good`, from the same template as the attacker.
pub(super) fn settle(node: &Node) -> Result<()> {
    node.ok(&["create", "good", "--template", "hostile", "--start"])?;
    node.expect_state("good", "running")?;
    node.expect_page(&node.v4("good")?, "good")
}

/// Sets off a bomb in `bad` for some seconds, and measures `good` before, meanwhile and after.
/// Returns what the bomb said; it may have been killed at its end.
///
/// The median of the answers during the bomb is compared with that of all quiet ones: other work on
/// this machine comes and goes, and delays some answers of both, while a bomb that harms delays most
/// of its own. What is quiet stands on both sides of the bomb, so that work which came in between is
/// in it too. Nothing is measured twice.
pub(super) fn bomb(node: &Node, script: &str, seconds: u32) -> Result<Output> {
    let address = format!("{}:80", node.v4("good")?)
        .parse()
        .context("no address")?;
    let mut quiet = asked(node, address, QUIET)?;
    let attack = arsenal::attack_command(node, "bad", script, seconds);
    let (output, disturbed) = during(node, attack, address)?;
    quiet.extend(asked(node, address, QUIET)?);
    let (quiet, disturbed) = (median(quiet)?, median(disturbed)?);
    ensure!(
        disturbed <= quiet * 2 + ALLOWANCE * slowness(),
        "the neighbour answers in {disturbed:?} instead of {quiet:?} (medians)"
    );
    Ok(output)
}

/// Runs the attack to its end and asks the neighbour and the daemon while it runs.
fn during(
    node: &Node,
    mut attack: Command,
    address: SocketAddr,
) -> Result<(Output, Vec<Duration>)> {
    attack.stdin(Stdio::null());
    std::thread::scope(|scope| {
        let attacking = scope.spawn(move || command::run(&mut attack));
        std::thread::sleep(FUSE);
        let begun = Instant::now();
        let answered = node.ok(&["list"]);
        let daemon = begun.elapsed();
        let times = asked(node, address, DISTURBED);
        let output = attacking
            .join()
            .map_err(|_| anyhow!("the attacking thread panicked"))??;
        answered.context("the daemon does not answer")?;
        ensure!(
            daemon < DAEMON_PATIENCE * slowness(),
            "the daemon took {daemon:?} for a list"
        );
        Ok((output, times?))
    })
}

/// Asks a web server for its page until the time is over; how long each answer took.
fn asked(node: &Node, address: SocketAddr, time: Duration) -> Result<Vec<Duration>> {
    let namespace = format!("/run/netns/{}", node.name());
    let namespace = File::open(&namespace).with_context(|| format!("cannot open {namespace}"))?;
    // On a thread of its own, which alone enters the node's network.
    let ask = move || -> Result<Vec<Duration>> {
        move_into_link_name_space(
            std::os::fd::AsFd::as_fd(&namespace),
            Some(LinkNameSpaceType::Network),
        )
        .context("cannot enter the node's network")?;
        // This thread's, which ends here.
        setpriority_process(None, GREATEST_WEIGHT).context("cannot take the greatest weight")?;
        let begun = Instant::now();
        let mut times = Vec::new();
        while begun.elapsed() < time {
            times.push(ask_once(address)?);
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(times)
    };
    std::thread::spawn(ask)
        .join()
        .map_err(|_| anyhow!("the asking thread panicked"))?
}

fn ask_once(address: SocketAddr) -> Result<Duration> {
    let begun = Instant::now();
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_TIMEOUT)
        .context("the neighbour takes no connection")?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .context("the neighbour does not answer")?;
    if !answer.starts_with("HTTP/1.") || !answer.contains(" 200 ") {
        bail!("the neighbour answers {answer:?}");
    }
    Ok(begun.elapsed())
}

fn median(mut times: Vec<Duration>) -> Result<Duration> {
    times.sort_unstable();
    times
        .get(times.len() / 2)
        .copied()
        .context("nothing was measured")
}
