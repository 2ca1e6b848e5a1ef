//! The small single-threaded program that clones VEs: see `runtime::launcher`.
//!
//! Started by the daemon, never by hand: `vessel-launcher --root DIR`. What it has to say goes to
//! its standard error, which the daemon connects with the node's `log/launcher.log`. CRIU runs it,
//! too, as its script: see `runtime::gate`.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::ExitCode;

use anyhow::bail;
use runtime::gate::Question;

fn main() -> anyhow::Result<ExitCode> {
    if let Some(question) = Question::of_criu() {
        return Ok(ExitCode::from(question.ask()));
    }
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    match arguments.as_slice() {
        [option, root] if option == "--root" => {
            runtime::launcher::serve(Path::new(root))?;
            Ok(ExitCode::SUCCESS)
        }
        _ => bail!("usage: vessel-launcher --root DIR (vesseld starts it)"),
    }
}
