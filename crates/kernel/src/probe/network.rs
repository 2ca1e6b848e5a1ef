//! The trials of links and packet filters, in network namespaces of their own.
//!
//! A thread makes itself a namespace, and the namespace ends with the thread (and its child), with all
//! that was made in it.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::Finding;
use super::trials::plain;

/// What a node's own table needs: sets by interface and address, `fib`, `masquerade`.
const RULES: &str = "table inet vessel_probe {
    set known { type ifname . ipv4_addr; elements = { \"ve1\" . 192.0.2.1 } }
    chain input {
        type filter hook prerouting priority raw; policy accept;
        fib saddr . iif oif missing drop
        iifname . ip saddr != @known drop
    }
    chain out {
        type nat hook postrouting priority srcnat; policy accept;
        oifname \"ve0\" masquerade
    }
}
";

pub(super) fn veth() -> Finding {
    match in_network_namespace(make_veth) {
        Ok(()) => Finding::present("a pair was made"),
        Err(error) => Finding::missing(format!("no pair could be made: {}", plain(&error))),
    }
}

pub(super) fn nftables() -> Finding {
    match in_network_namespace(load_rules) {
        Ok(None) => Finding::present("sets, fib and masquerade"),
        Ok(Some(refusal)) => Finding::missing(format!("a table was refused: {refusal}")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Finding::missing("the program nft is not installed")
        }
        Err(error) => Finding::missing(format!("no table could be made: {}", plain(&error))),
    }
}

pub(super) fn ipv6() -> Finding {
    match std::path::Path::new("/proc/sys/net/ipv6").exists() {
        true => Finding::present("the kernel speaks it"),
        false => Finding::missing("the kernel does not speak it"),
    }
}

/// Runs something in a thread with a new network namespace.
fn in_network_namespace<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let thread = std::thread::Builder::new()
        .name("probe".to_owned())
        .spawn(move || {
            // SAFETY: only NEWNET is passed, which concerns this new thread's network alone; the danger
            // that the function warns of is that of FILES.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
            work()
        })?;
    thread
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("the trial broke off")))
}

/// Feeds nft. Answers the first line of its refusal.
fn load_rules() -> io::Result<Option<String>> {
    let paths = "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin";
    let mut nft = Command::new("nft")
        .args(["-f", "-"])
        .env_clear()
        .env("PATH", paths)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut input) = nft.stdin.take() {
        input.write_all(RULES.as_bytes())?;
    }
    let output = nft.wait_with_output()?;
    if output.status.success() {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Ok(Some(
        text.lines().next().unwrap_or("without a word").to_owned(),
    ))
}

/// Asks rtnetlink for a pair of links with names that the kernel chooses.
fn make_veth() -> io::Result<()> {
    const NEW_LINK: u16 = 16; // RTM_NEWLINK
    const FLAGS: u16 = 0x1 | 0x4 | 0x200 | 0x400; // REQUEST, ACK, EXCL, CREATE
    const LINK_INFO: u16 = 18; // IFLA_LINKINFO
    const INFO_KIND: u16 = 1; // IFLA_INFO_KIND
    const HEADER: usize = 16;

    let mut message = vec![0_u8; HEADER + 16]; // struct nlmsghdr and struct ifinfomsg
    message.extend(12_u16.to_ne_bytes());
    message.extend(LINK_INFO.to_ne_bytes());
    message.extend(8_u16.to_ne_bytes());
    message.extend(INFO_KIND.to_ne_bytes());
    message.extend(b"veth");
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    message[0..4].copy_from_slice(&length.to_ne_bytes());
    message[4..6].copy_from_slice(&NEW_LINK.to_ne_bytes());
    message[6..8].copy_from_slice(&FLAGS.to_ne_bytes());

    let socket: OwnedFd = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None, // NETLINK_ROUTE is 0
    )?;
    rustix::net::send(&socket, &message, SendFlags::empty())?;
    // struct nlmsgerr: 0 or a negative errno behind the header.
    let mut answer = [0_u8; 4096];
    let (_, length) = rustix::net::recv(&socket, &mut answer[..], RecvFlags::empty())?;
    let error = answer
        .get(HEADER..HEADER + 4)
        .filter(|_| length >= HEADER + 4);
    match error
        .and_then(|bytes| bytes.try_into().ok())
        .map(i32::from_ne_bytes)
    {
        Some(0) => Ok(()),
        Some(errno) => Err(Errno::from_raw_os_error(-errno).into()),
        None => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
    }
}
