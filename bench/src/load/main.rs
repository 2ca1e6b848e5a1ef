//! The client of the web section: many connections to many servers from one thread on one
//! processor, as fast as the servers answer or at a fixed rate.
//!
//! ```text
//! bench-load NETWORK PROCESSOR SECONDS CONNECTIONS RATE WATCHED KERNEL ADDRESS:PORT...
//!   NETWORK      a file that is a network namespace, to ask from there
//!   CONNECTIONS  to each server, kept open
//!   RATE         requests in a second over all; 0: each connection asks again when it is answered
//!   WATCHED      numbers of the servers' processes, with commas
//!   KERNEL       numbers of kernel threads that may do the servers' work, with commas
//! ```
//!
//! Where servers are to be saturated it never sleeps: to wake a client costs its server an interrupt of
//! another processor, which on a virtual machine is as dear as the rest of an answer, falls due the more
//! often the slower the server is, and is nothing that servers pay whose clients are elsewhere.
//!
//! It writes what was asked and answered between the end of a warm-up and the end, and the processor
//! time of everybody over the same span, as JSON. Other clients were no choice: they ask one address
//! each, and a hundred of them are a load of their own; or they know no fixed rate.
#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line program"
)]

mod connection;
mod cost;

use std::collections::VecDeque;
use std::fs::File;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::thread::CpuSet;
use serde_json::json;

use crate::connection::{Answer, Connection};
use crate::cost::Cost;

/// Before anything counts: connections are open, caches are warm, and the scheduler knows everybody.
const WARM_UP: Duration = Duration::from_millis(300);

/// A server that says nothing for so long has failed.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// Events taken from the kernel at once.
const EVENTS: usize = 256;

struct Settings {
    seconds: f64,
    connections: usize,
    rate: f64,
    watched: Vec<u32>,
    kernel: Vec<u32>,
    servers: Vec<SocketAddr>,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [
        network,
        processor,
        seconds,
        connections,
        rate,
        watched,
        kernel,
        servers @ ..,
    ] = words.as_slice()
    else {
        bail!("see the head of bench/src/load/main.rs");
    };
    let settings = Settings {
        seconds: seconds.parse().context("SECONDS")?,
        connections: connections.parse().context("CONNECTIONS")?,
        rate: rate.parse().context("RATE")?,
        watched: numbers(watched)?,
        kernel: numbers(kernel)?,
        servers: servers
            .iter()
            .map(|server| server.parse().context("ADDRESS:PORT"))
            .collect::<Result<_>>()?,
    };
    let file = File::open(network).with_context(|| format!("cannot open {network}"))?;
    kernel::namespace::join_network_namespace(file).context("cannot enter the network")?;
    let mut processors = CpuSet::new();
    processors.set(processor.parse().context("PROCESSOR")?);
    rustix::thread::sched_setaffinity(None, &processors).context("cannot pin the client")?;
    Load::open(&settings)?.measure(&settings)
}

fn numbers(text: &str) -> Result<Vec<u32>> {
    let words = text.split(',').filter(|word| !word.is_empty());
    words.map(|word| word.parse().context("a number")).collect()
}

/// All connections, and who waits for what.
struct Load {
    poller: std::os::fd::OwnedFd,
    connections: Vec<Connection>,
    /// Connections that have nothing to wait for, longest idle first.
    idle: VecDeque<usize>,
    answered: u64,
    /// Requests that found every connection waiting, and had to wait themselves.
    late: u64,
}

impl Load {
    fn open(settings: &Settings) -> Result<Self> {
        let poller = epoll::create(CreateFlags::CLOEXEC)?;
        let mut connections = Vec::new();
        // Round and round the servers, so that a fixed rate asks each as often as the others.
        for _ in 0..settings.connections {
            for server in &settings.servers {
                let connection = Connection::open(*server)
                    .with_context(|| format!("cannot connect to {server}"))?;
                let data = EventData::new_u64(u64::try_from(connections.len())?);
                epoll::add(&poller, connection.socket(), data, EventFlags::IN)?;
                connections.push(connection);
            }
        }
        Ok(Self {
            poller,
            idle: (0..connections.len()).collect(),
            connections,
            answered: 0,
            late: 0,
        })
    }

    fn measure(mut self, settings: &Settings) -> Result<()> {
        self.ask_until(Instant::now() + WARM_UP, settings.rate)?;
        let before = Cost::of(&settings.watched, &settings.kernel)?;
        let begun = Instant::now();
        (self.answered, self.late) = (0, 0);
        let end = begun + Duration::from_secs_f64(settings.seconds);
        self.ask_until(end, settings.rate)?;
        let elapsed = begun.elapsed();
        let cost = Cost::of(&settings.watched, &settings.kernel)?.since(&before);
        ensure!(self.answered > 0, "no server answered");
        let result = json!({
            "seconds": elapsed.as_secs_f64(),
            "answered": self.answered,
            "late": self.late,
            "server_ns": cost.watched_ns,
            "client_ns": cost.own_ns,
            "kernel_ns": cost.kernel_ns,
        });
        println!("{result}");
        Ok(())
    }

    fn ask_until(&mut self, end: Instant, rate: f64) -> Result<()> {
        let mut events = Vec::with_capacity(EVENTS);
        let mut due = Instant::now();
        let mut heard = due;
        loop {
            let now = Instant::now();
            if now >= end {
                return Ok(());
            }
            let wait = if rate > 0.0 {
                self.ask_due(&mut due, now, Duration::from_secs_f64(1.0 / rate))?
            } else {
                self.ask_all()?;
                Duration::ZERO
            };
            events.clear();
            let wait = Timespec::try_from(wait.min(end - now)).context("an odd span")?;
            let space = rustix::buffer::spare_capacity(&mut events);
            epoll::wait(&self.poller, space, Some(&wait))?;
            if !events.is_empty() {
                heard = Instant::now();
            }
            ensure!(
                heard.elapsed() < SILENCE_MAX,
                "the servers stopped to answer"
            );
            self.hear(&events)?;
        }
    }

    /// Asks on every idle connection.
    fn ask_all(&mut self) -> Result<()> {
        while let Some(at) = self.idle.pop_front() {
            self.connections[at].ask()?;
        }
        Ok(())
    }

    /// Sends what is due; returns how long nothing will be.
    fn ask_due(&mut self, due: &mut Instant, now: Instant, interval: Duration) -> Result<Duration> {
        while *due <= now {
            let Some(at) = self.idle.pop_front() else {
                self.late += 1;
                // It is asked when somebody answers.
                return Ok(SILENCE_MAX);
            };
            self.connections[at].ask()?;
            *due += interval;
        }
        Ok(*due - now)
    }

    fn hear(&mut self, events: &[Event]) -> Result<()> {
        for event in events {
            let at = usize::try_from(event.data.u64())?;
            if self.connections[at].hear()? == Answer::Whole {
                self.answered += 1;
                self.idle.push_back(at);
            }
        }
        Ok(())
    }
}
