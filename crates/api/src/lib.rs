//! Wire types of the API in named, append-only versions.
//!
//! Whoever speaks to a node, over its socket today and over TLS tomorrow, speaks in these types.
//! They are plain records: no behaviour, no rules. The daemon turns them into the nouns of `ve` once,
//! at its edge; the command line turns them into tables.
//!
//! - [`initial`] is the first version. Within a version only optional fields, new words of an
//!   enum that has an `Unknown` word, and new types may be added. Anything else is a new module beside it.
//! - [`latest`] names the newest version of each type; code outside of conversions uses only that.
//! - [`stream`] is the framing of `exec` and `console` after the HTTP upgrade.
//!
//! Conventions, so that one type serves JSON and XML: records and word-like enums only (no
//! data-carrying enums), a unit at the end of each number's name, bytes as numbers, times as RFC 3339 in UTC,
//! and an absent field for what is not set or not known.
#![forbid(unsafe_code)]

pub mod initial;
pub mod latest;
pub mod stream;
pub mod time;
mod words;

/// Prefix of every path of this generation of the API.
pub const PATH_PREFIX: &str = "/v1";

/// Value of the `Upgrade` header that turns a connection into a stream of [`stream`] frames.
pub const UPGRADE_PROTOCOL: &str = "vessel-stream";
