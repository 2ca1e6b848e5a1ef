//! Durable records and the operation journal, in SQLite.
#![forbid(unsafe_code)]
