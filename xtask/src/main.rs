//! The project's own checks and chores.
#![forbid(unsafe_code)]
fn main() {}
