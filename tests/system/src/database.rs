//! The database that receives memory before it is killed: PostgreSQL in a Debian, under a load that grows.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::debian;
use crate::harness::{Need, Node, slowness, tests, until};

tests! {
    Debian [Need::Packages] =>
        a_database_receives_memory_before_it_is_killed;
}

const PATIENCE: Duration = Duration::from_secs(60);

/// Clients, one after the other; each sorts what takes some 70 MB, and keeps it until all are there.
const CLIENTS: u32 = 6;
/// Time from one client to the next.
const INTERVAL: Duration = Duration::from_millis(500);

/// What a client asks for, and how it answers: the least of many sorted rows.
const QUESTION: &str = "set work_mem = '512MB'; begin; \
    declare rows cursor for select md5(g::text) as m from generate_series(1, 700000) g order by m; \
    fetch 1 from rows; select pg_sleep(SECONDS); fetch 1 from rows; commit;";

/// What the least of so many begins with.
const LEAST: &str = "0000";

fn client(node: &Node, seconds: u32) -> Result<Child> {
    let question = QUESTION.replace("SECONDS", &seconds.to_string());
    let line = format!(
        "cd / && psql --quiet --no-align --tuples-only -v ON_ERROR_STOP=1 -c \"{question}\""
    );
    let mut command: Command =
        node.command(&["exec", "db", "--user", "postgres", "--", "sh", "-c", &line]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().context("cannot run a client")
}

/// Lets the load grow; returns how many clients got their answer, and what the others said.
fn load(node: &Node) -> Result<(u32, String)> {
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        clients.push(client(node, (CLIENTS - number) * slowness())?);
        std::thread::sleep(INTERVAL * slowness());
    }
    let (mut answered, mut said) = (0, String::new());
    for client in clients {
        let output = client.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let rows: Vec<&str> = text.lines().filter(|line| line.len() == 32).collect();
        let right = rows.len() == 2 && rows[0] < rows[1] && rows[0].starts_with(LEAST);
        if output.status.success() && right {
            answered += 1;
        } else {
            said.push_str(&text);
            said.push_str(&String::from_utf8_lossy(&output.stderr));
        }
    }
    Ok((answered, said))
}

fn kills(node: &Node) -> Result<u64> {
    let kills = &node.json(&["stats", "db"])?["memory_oom_kills"];
    kills
        .as_u64()
        .with_context(|| format!("{kills} is no number"))
}

/// Times at which the server had to begin anew, as one of its processes was killed.
fn crashes(node: &Node) -> Result<u64> {
    let count = "cat /var/log/postgresql/*.log | grep -c 'was terminated by signal 9' || true";
    Ok(node.sh("db", count)?.parse()?)
}

fn ready(node: &Node) -> Result<()> {
    let ask = || {
        Ok(node
            .vessel(&["exec", "db", "--", "pg_isready", "--quiet"])?
            .code)
    };
    until("PostgreSQL answers", PATIENCE, ask, |code| *code == 0)?;
    Ok(())
}

fn a_database_receives_memory_before_it_is_killed(node: &mut Node) -> Result<()> {
    debian::start(node, "db", &[])?;
    let install = "apt-get -q update && DEBIAN_FRONTEND=noninteractive \
                   apt-get -q -y install --no-install-recommends postgresql";
    node.sh("db", install)?;
    ready(node)?;
    node.ok(&["set", "db", "memory.limit=256M", "memory.swap=0"])?;
    // Without growth the kernel kills one of its processes, and PostgreSQL ends all others for that.
    let (answered, said) = load(node)?;
    ensure!(
        answered < CLIENTS && kills(node)? > 0,
        "{answered} of {CLIENTS} fitted into 256M: {said}"
    );
    let crashed = until(
        "it was killed",
        PATIENCE,
        || crashes(node),
        |crashes| *crashes > 0,
    )?;
    ready(node)?;
    let killed = kills(node)?;

    node.ok(&[
        "set",
        "db",
        "memory.grow.ceiling=1G",
        "memory.grow.step=96M",
    ])?;
    let (answered, said) = load(node)?;
    ensure!(
        answered == CLIENTS,
        "{answered} of {CLIENTS} were answered: {said}"
    );
    ensure!(
        kills(node)? == killed && crashes(node)? == crashed,
        "it was killed"
    );
    let given = node.show("db")?["memory_given_bytes"].as_u64().unwrap_or(0) >> 20;
    ensure!((96..=768).contains(&given), "{given} mebibytes were given");
    let free = node.sh("db", "free -m | grep Mem:")?;
    let total = format!(" {} ", 256 + given);
    ensure!(
        free.contains(&total),
        "{given} mebibytes were given, and `free` says {free}"
    );
    let events = node.ok(&["events"])?;
    ensure!(events.contains("ve-memory-given"), "{events}");
    debian::drop_ve(node, "db")
}
