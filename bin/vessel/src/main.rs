//! Entry point of `vessel`.
#![forbid(unsafe_code)]
fn main() {}
