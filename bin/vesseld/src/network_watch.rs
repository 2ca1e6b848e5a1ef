//! Looks after the node's part of the network, which others change, too.

use std::sync::Arc;
use std::time::{Duration, Instant};

use network::fast_path::Watch;

use crate::daemon::Up;

/// How often the node's part of the network is looked at: 5 ms of work.
const NETWORK_INTERVAL: Duration = Duration::from_secs(60);
/// The shortest and the longest time from one look to the next, where others change the network all the time.
const NETWORK_REST: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Sets the node's part of the network up again when another program took it away, as reloading a firewall does,
/// and keeps the fast path to what it may do. Ends with the node.
pub(crate) fn look_after(up: impl Fn() -> Option<Arc<Up>>) {
    let watch = match Watch::open() {
        Ok(watch) => Some(watch),
        Err(error) => {
            tracing::warn!("changes of the network are not heard, only looked for: {error}");
            None
        }
    };
    let mut pace = Pace::default();
    while let Some(up) = up() {
        if let Err(error) = up.host.restore_network() {
            tracing::warn!("the node's network cannot be set up again: {error:#}");
        }
        drop(up);
        std::thread::sleep(pace.rest());
        let heard = watch.as_ref().map(|watch| watch.wait(NETWORK_INTERVAL));
        if !matches!(heard, Some(Ok(_))) {
            std::thread::sleep(NETWORK_INTERVAL);
        }
    }
}

/// How soon the network is looked at again: the more often it was of late, the later.
#[derive(Debug)]
struct Pace {
    looked: Instant,
    rest: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            looked: Instant::now(),
            rest: NETWORK_REST.0,
        }
    }
}

impl Pace {
    /// How long to rest after a look.
    fn rest(&mut self) -> Duration {
        let quiet = self.looked.elapsed() > NETWORK_REST.1 * 2;
        self.looked = Instant::now();
        self.rest = if quiet {
            NETWORK_REST.0
        } else {
            (self.rest * 2).min(NETWORK_REST.1)
        };
        self.rest
    }
}
