//! Running programs in a VE from outside, and its console.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::harness::{Node, tests, until};

tests! {
    Node [] =>
        streams_and_exit_codes_pass_through,
        much_data_passes_both_ways_unchanged,
        what_cannot_run_has_the_shells_codes,
        user_and_environment_are_chosen,
        a_command_is_inside_in_every_way,
        many_commands_run_at_once,
        enter_is_a_terminal,
        the_console_is_a_terminal_and_is_logged;
}

fn streams_and_exit_codes_pass_through(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    let output = node.vessel(&[
        "exec",
        "web",
        "--",
        "sh",
        "-c",
        "echo out; echo err >&2; exit 42",
    ])?;
    ensure!(
        output.code == 42 && output.stdout == "out\n" && output.stderr == "err\n",
        "{output}"
    );
    let output = node.vessel_with_input(&["exec", "web", "--", "tr", "a-z", "A-Z"], b"hello")?;
    ensure!(output.code == 0 && output.stdout == "HELLO", "{output}");
    let output = node.vessel(&["exec", "web", "--", "sh", "-c", "kill -TERM $$"])?;
    ensure!(output.code == 128 + 15, "{output}");
    Ok(())
}

fn much_data_passes_both_ways_unchanged(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    let data: Vec<u8> = (0..4_u32 << 20)
        .map(|n| b'a' + u8::try_from(n * 7 % 26).unwrap_or(0))
        .collect();
    let output = node.vessel_with_input(&["exec", "web", "--", "cat"], &data)?;
    ensure!(output.code == 0, "code {}", output.code);
    ensure!(
        output.stdout.as_bytes() == data,
        "{} bytes came back of {}",
        output.stdout.len(),
        data.len()
    );
    // A reader that leaves early does not hang the sender.
    let output = node.vessel_with_input(&["exec", "web", "--", "head", "-c", "3"], &data)?;
    ensure!(output.code == 0 && output.stdout.len() == 3, "{output}");
    Ok(())
}

fn what_cannot_run_has_the_shells_codes(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    let output = node.vessel(&["exec", "web", "--", "no-such-program"])?;
    ensure!(
        output.code == 127 && output.stderr.contains("no-such-program"),
        "{output}"
    );
    let output = node.vessel(&["exec", "web", "--", "/etc/passwd"])?;
    ensure!(
        output.code == 126 && output.stderr.contains("/etc/passwd"),
        "{output}"
    );
    node.ok(&["stop", "web"])?;
    let output = node.vessel(&["exec", "web", "--", "true"])?;
    ensure!(
        output.code == 125 && output.stderr.contains("stopped"),
        "{output}"
    );
    Ok(())
}

fn user_and_environment_are_chosen(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    let output = node.ok(&[
        "exec",
        "web",
        "--user",
        "guest",
        "--env",
        "A=b c",
        "--",
        "sh",
        "-c",
        "id -un; echo $A; pwd",
    ])?;
    ensure!(output.starts_with("guest\nb c\n"), "{output}");
    let output = node.vessel(&["exec", "web", "--user", "nobody-here", "--", "true"])?;
    ensure!(output.code == 125 || output.code == 126, "{output}");
    ensure!(output.stderr.contains("nobody-here"), "{output}");
    // Nothing of the caller's environment leaks in.
    let mut command = node.command(&["exec", "web", "--", "env"]);
    let output = crate::harness::command::run(command.env("SECRET_OF_THE_HOST", "1"))?.success()?;
    ensure!(
        !output.contains("SECRET_OF_THE_HOST") && output.contains("PATH="),
        "{output}"
    );
    Ok(())
}

fn a_command_is_inside_in_every_way(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    ensure!(
        node.sh("web", "cat /proc/1/comm")? == "init",
        "not its pid namespace"
    );
    ensure!(
        node.sh("web", "cat /proc/self/uid_map")?
            .contains(&node.show("web")?["uid_base"].to_string())
    );
    let init = node.init_pid("web")?;
    for kind in ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"] {
        let inside = node.sh("web", &format!("readlink /proc/self/ns/{kind}"))?;
        let own = fs::read_link(format!("/proc/{init}/ns/{kind}"))?;
        ensure!(
            own.as_os_str() == inside.as_str(),
            "{kind} is {inside}, init's is {}",
            own.display()
        );
    }
    let descriptors = node.sh("web", "ls /proc/self/fd | wc -l")?;
    ensure!(
        descriptors.parse::<u32>()? <= 4,
        "{descriptors} descriptors are open"
    );
    // The same filter and the same rights as init has.
    let status = |pid: &str| {
        node.sh(
            "web",
            &format!("grep -E '^(Seccomp|CapBnd|NoNewPrivs):' /proc/{pid}/status"),
        )
    };
    ensure!(
        status("self")? == status("1")?,
        "{} against {}",
        status("self")?,
        status("1")?
    );
    let groups = fs::read_to_string(format!("/proc/{init}/cgroup"))?;
    ensure!(
        groups.contains(&format!("vessel-{}", node.first_id())),
        "{groups}"
    );
    Ok(())
}

fn many_commands_run_at_once(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    let node = &*node;
    std::thread::scope(|scope| {
        let run = |n: u32| move || node.sh("web", &format!("sleep 0.3; echo {n}"));
        let threads: Vec<_> = (0..16).map(|n| (n, scope.spawn(run(n)))).collect();
        for (n, thread) in threads {
            let text = thread
                .join()
                .map_err(|_| anyhow::anyhow!("a thread panicked"))??;
            ensure!(text == n.to_string(), "{text} instead of {n}");
        }
        Ok(())
    })
}

fn enter_is_a_terminal(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    let output = node.terminal(&["enter", "web"], &["tty; stty size; hostname; exit 3\n"])?;
    ensure!(
        output.stdout.contains("/dev/pts/") && output.stdout.contains("web"),
        "{output}"
    );
    ensure!(output.code == 3, "{output}");
    Ok(())
}

fn the_console_is_a_terminal_and_is_logged(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    let begun = |text: &String| text.contains("tiny: init has begun");
    until(
        "the log shows it",
        Duration::from_secs(5),
        || node.ok(&["logs", "web"]),
        begun,
    )?;
    node.sh("web", "echo 'said on the console' > /dev/console")?;
    let said = |text: &String| text.contains("said on the console");
    until(
        "the log shows it",
        Duration::from_secs(5),
        || node.ok(&["logs", "web"]),
        said,
    )?;
    let output = node.terminal(&["console", "web"], &["\necho sum $((40+2))\n", "\x1d"])?;
    ensure!(output.stdout.contains("sum 42"), "{output}");
    Ok(())
}
