//! The HTTP door of a node. The only crate that knows HTTP on the serving side.
#![forbid(unsafe_code)]
