//! Entry point of `vesseld`.
#![forbid(unsafe_code)]
fn main() {}
