//! The small single-threaded program that clones VEs: see `runtime::launcher`.
//!
//! Started by the daemon, never by hand: `vessel-launcher --root DIR`. What it has to say goes to
//! its standard error, which the daemon connects with the node's `log/launcher.log`.
#![forbid(unsafe_code)]

use std::path::Path;

use anyhow::bail;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    match arguments.as_slice() {
        [option, root] if option == "--root" => Ok(runtime::launcher::serve(Path::new(root))?),
        _ => bail!("usage: vessel-launcher --root DIR (vesseld starts it)"),
    }
}
