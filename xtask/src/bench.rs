//! `bench`: builds everything as it is shipped, and measures it beside others.
//!
//! The measuring itself is the program `bench`; here is what must be there before it.

use std::process::Command;

use anyhow::Result;

use crate::dependencies::{self, Need};
use crate::process;
use crate::up;
use crate::workspace::Workspace;

/// Installs what is missing, builds, and measures; the arguments are the bench's.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    process::need_root("the bench")?;
    dependencies::install(&[Need::Build, Need::Node, Need::Bench])?;
    up::build(workspace)?;
    let mut build = Command::new(env!("CARGO"));
    build
        .current_dir(workspace.root())
        .args(["build", "--release", "--locked", "-p", "bench"]);
    process::run(&mut build)?;
    let program = workspace.target().join("release").join("bench");
    process::run(Command::new(program).args(arguments))
}
