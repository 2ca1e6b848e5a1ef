//! Wire types of the API in named, append-only versions.
#![forbid(unsafe_code)]
