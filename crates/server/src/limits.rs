//! A limit on everything that a caller can make the door hold.

use std::time::Duration;

/// Connections at once. A bulk of the command line uses 16; the rest are followers of logs and events.
pub const CONNECTIONS_MAX: usize = 1_024;

/// Connections for metrics over TCP at once. Few read them, each once in some seconds.
pub const METRICS_CONNECTIONS_MAX: usize = 32;

/// Sessions of `exec` and `console` at once, each with up to four descriptors in the daemon.
pub const SESSIONS_MAX: usize = 512;

/// Largest JSON body. The largest honest one, a create with a dozen SSH keys, is below 16 KiB.
pub const JSON_BYTES_MAX: usize = 1024 * 1024;

/// Time for the head of a request, and for the next one on a connection that is kept.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Largest head of a request.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Time for a JSON body to arrive.
pub const JSON_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest wait that a caller may ask for in one request; longer ones are asked for again.
pub const WAIT_MAX: Duration = Duration::from_secs(300);

/// Wait of a caller that does not say how long.
pub const WAIT_DEFAULT: Duration = Duration::from_secs(60);

/// Time for answers to end after the shutdown of the door.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// How long output is read on after a command ended while something it left behind holds the pipe
/// open and says nothing.
pub const OUTPUT_IDLE_MAX: Duration = Duration::from_millis(500);

/// Operations in one list, unless the caller asks for fewer.
pub const OPERATIONS_MAX: usize = 1_000;

/// Bytes read at once from a source that is sent to a caller.
pub const READ_BYTES: usize = 64 * 1024;

/// Pause after the kernel refused to give a connection, so that a lack of descriptors is no busy loop.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
