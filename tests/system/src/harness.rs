//! What tests are made of: nodes, their command line, the machine around them.

pub(crate) mod command;
mod daemon;
pub(crate) mod far;
pub(crate) mod machine;
pub(crate) mod needs;
pub(crate) mod node;
pub(crate) mod receiver;
pub(crate) mod run;
pub(crate) mod service;
pub(crate) mod tree;
mod uplink;

pub(crate) use command::Output;
pub(crate) use needs::{Fixture, Need};
pub(crate) use node::Node;
pub(crate) use run::Test;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Declares the tests of a topic: what they get, and their functions.
macro_rules! tests {
    ($($fixture:ident $needs:expr => $($function:ident),+ $(,)?;)+) => {
        pub(crate) const TESTS: &[$crate::harness::Test] = &[$($($crate::harness::Test {
            topic: module_path!(),
            name: stringify!($function),
            fixture: $crate::harness::Fixture::$fixture,
            needs: &$needs,
            function: $function,
        }),+),+];
    };
}
pub(crate) use tests;

/// Asks again and again until it is so; the last answer is in the message if it never is.
pub(crate) fn until<T: std::fmt::Debug>(
    what: &str,
    timeout: Duration,
    mut ask: impl FnMut() -> Result<T>,
    accept: impl Fn(&T) -> bool,
) -> Result<T> {
    let deadline = Instant::now() + timeout * slowness();
    loop {
        let answer = ask();
        match &answer {
            Ok(value) if accept(value) => return answer,
            _ if Instant::now() > deadline => {
                let seen = match answer {
                    Ok(value) => format!("{value:?}"),
                    Err(error) => format!("{error:#}"),
                };
                bail!(
                    "not so within {} s: {what}; last seen: {seen}",
                    timeout.as_secs_f32()
                )
            }
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// How much slower than a real one this machine is: an emulated one says so.
pub(crate) fn slowness() -> u32 {
    let said = std::env::var("VESSEL_SLOWNESS").ok();
    said.and_then(|text| text.parse().ok()).unwrap_or(1)
}
