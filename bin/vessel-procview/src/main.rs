//! The program that serves the VEs' own `/proc` and `/sys` files: see the crate `procview`.
//!
//! Started by the launcher, never by hand: `vessel-procview --root DIR`, with the launcher on its
//! standard input. What it has to say goes to its standard error, which is the launcher's log.
#![forbid(unsafe_code)]

use std::os::fd::AsFd as _;
use std::path::Path;

use anyhow::{Context as _, bail};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [option, root] = arguments.as_slice() else {
        bail!("usage: vessel-procview --root DIR (vessel-launcher starts it)");
    };
    if option != "--root" {
        bail!("usage: vessel-procview --root DIR (vessel-launcher starts it)");
    }
    // It was started by its descriptor and has that for a name.
    let _ = rustix::thread::set_name(c"vessel-procview");
    let channel = std::io::stdin().as_fd().try_clone_to_owned();
    let channel = channel.context("there is no standard input")?;
    Ok(procview::server::serve(Path::new(root), channel)?)
}
