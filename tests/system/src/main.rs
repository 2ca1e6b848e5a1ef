//! System tests.
#![forbid(unsafe_code)]
fn main() {}
