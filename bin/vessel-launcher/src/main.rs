//! Entry point of `vessel-launcher`.
#![forbid(unsafe_code)]
fn main() {}
