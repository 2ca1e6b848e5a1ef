//! Turning a machine into a router without cutting it off, and back.
//!
//! A machine that forwards IPv6 stops listening to router advertisements and forgets the default
//! route it learnt from one, unless the interface says `accept_ra = 2` before
//! (`addrconf_fixup_forwarding` in `net/ipv6/addrconf.c`). So that comes first.
//!
//! What was there before is remembered in the comment of the node's filter table: it lives exactly
//! as long as the settings do (until the network namespace ends or the machine reboots), and other
//! nodes in the same namespace can read it.

use std::fmt;
use std::fs;
use std::io;

use super::NodeError;

const IPV4_FORWARD: &str = "net/ipv4/ip_forward";
const IPV6_FORWARD: &str = "net/ipv6/conf/all/forwarding";
const IPV6_CONF: &str = "/proc/sys/net/ipv6/conf";

/// Forwarding as it was before the first node came. `None` where there is no IPv6.
///
/// `accept_ra` is not remembered: without forwarding 2 means the same as 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Previous {
    ipv4: bool,
    ipv6: Option<bool>,
}

impl Previous {
    /// Reads the settings as they are now.
    pub(super) fn read(ipv6: bool) -> Result<Self, NodeError> {
        let ipv4 = read(IPV4_FORWARD)?;
        let ipv6 = if ipv6 {
            Some(read(IPV6_FORWARD)?)
        } else {
            None
        };
        Ok(Self { ipv4, ipv6 })
    }

    /// Nothing was forwarded, and there is no IPv6.
    pub(super) fn none() -> Self {
        Self {
            ipv4: false,
            ipv6: None,
        }
    }

    /// Reads what [`fmt::Display`] wrote.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut previous = Self::none();
        let settings = text.strip_prefix(PREFIX)?;
        for setting in settings.split_ascii_whitespace() {
            match setting.split_once('=')? {
                ("ipv4", value) => previous.ipv4 = value != "0",
                ("ipv6", value) => previous.ipv6 = Some(value != "0"),
                _ => return None,
            }
        }
        Some(previous)
    }
}

const PREFIX: &str = "forwarding before: ";

impl fmt::Display for Previous {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}ipv4={}", u8::from(self.ipv4))?;
        self.ipv6
            .map_or(Ok(()), |ipv6| write!(f, " ipv6={}", u8::from(ipv6)))
    }
}

/// Turns forwarding on, without losing routes that the machine learnt from its routers.
pub(super) fn enable(ipv6: bool, previous: &Previous) -> Result<(), NodeError> {
    write(IPV4_FORWARD, "1")?;
    if ipv6 && previous.ipv6.is_some() {
        keep_router_advertisements()?;
        write(IPV6_FORWARD, "1")?;
    }
    Ok(())
}

/// Whether forwarding is on, as [`enable`] left it.
pub(super) fn enabled(ipv6: bool) -> Result<bool, NodeError> {
    let ipv4 = read(IPV4_FORWARD)?;
    Ok(ipv4 && (!ipv6 || read(IPV6_FORWARD)?))
}

/// Puts back what was there before.
pub(super) fn restore(previous: &Previous) -> Result<(), NodeError> {
    if !previous.ipv4 {
        write(IPV4_FORWARD, "0")?;
    }
    if previous.ipv6 == Some(false) {
        write(IPV6_FORWARD, "0")?;
    }
    Ok(())
}

/// Lets every interface that listens to routers now go on doing so. Interfaces that forward
/// already do not listen, so those of VEs and of other programs' making are left alone.
fn keep_router_advertisements() -> Result<(), NodeError> {
    let entries = fs::read_dir(IPV6_CONF).map_err(|error| failed("net/ipv6/conf", "2", error))?;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name
            .to_str()
            .filter(|name| !matches!(*name, "all" | "default" | "lo"))
        else {
            continue;
        };
        let setting = |key: &str| format!("net/ipv6/conf/{name}/{key}");
        let is = |key: &str, value: &str| {
            fs::read_to_string(format!("/proc/sys/{}", setting(key)))
                .is_ok_and(|text| text.trim() == value)
        };
        if is("accept_ra", "1") && is("forwarding", "0") {
            match write(&setting("accept_ra"), "2") {
                // The interface went away meanwhile.
                Err(NodeError::Setting { source, .. })
                    if source.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
    }
    Ok(())
}

fn read(key: &str) -> Result<bool, NodeError> {
    fs::read_to_string(format!("/proc/sys/{key}"))
        .map(|text| text.trim() != "0")
        .map_err(|error| failed(key, "1", error))
}

/// Writes a setting unless it is right already: an administrator may have set it where the daemon
/// may not write.
fn write(key: &str, value: &str) -> Result<(), NodeError> {
    let path = format!("/proc/sys/{key}");
    if fs::read_to_string(&path).is_ok_and(|text| text.trim() == value) {
        return Ok(());
    }
    fs::write(&path, value).map_err(|error| failed(key, value, error))
}

fn failed(key: &str, value: &str, source: io::Error) -> NodeError {
    NodeError::Setting {
        key: key.replace('/', "."),
        value: value.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_in_words() {
        for ipv4 in [false, true] {
            for ipv6 in [None, Some(false), Some(true)] {
                let previous = Previous { ipv4, ipv6 };
                assert_eq!(Previous::parse(&previous.to_string()), Some(previous));
            }
        }
        assert_eq!(Previous::parse("somebody's own comment"), None);
    }
}
