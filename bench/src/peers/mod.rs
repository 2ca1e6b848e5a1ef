//! Whoever is measured: each can create, start, stop and delete one container with the trivial init.
//!
//! What the others are given beyond their own commands (a folder that is stacked, a configuration)
//! is what their users would have to give them, too, and is timed with the step that needs it.

mod crun;
mod floor;
mod groups;
mod incus;
mod lxc;
mod nspawn;
mod stacked;
mod vessel;

use std::path::Path;

use anyhow::Result;

use crate::command;
use crate::context::Context;
use crate::debian;
use crate::node::TRIVIAL;
use crate::report::Results;

pub(crate) use floor::Floor;
pub(crate) use lxc::Lxc;
pub(crate) use nspawn::Nspawn;
pub(crate) use vessel::Api;

/// One way to run a container. A peer has at most one container at a time.
pub(crate) trait Peer {
    /// Its name in the results.
    fn name(&self) -> String;

    /// Makes what lies on disk.
    fn create(&mut self) -> Result<()>;

    /// Runs the init; returns when its command does.
    fn start(&mut self) -> Result<()>;

    /// The number of the init, as the host sees it. Not timed.
    fn init_pid(&mut self) -> Result<u32>;

    /// Asks the init to end; returns when it has.
    fn stop(&mut self) -> Result<()>;

    /// Removes what is left.
    fn delete(&mut self) -> Result<()>;

    /// Takes away what a failure left. Silent about what is not there.
    fn clear(&mut self);
}

/// Everybody who can be measured here; who cannot is noted with the reason.
pub(crate) fn all(context: &Context, results: &mut Results) -> Result<Vec<Box<dyn Peer>>> {
    let mut peers: Vec<Box<dyn Peer>> = vec![
        Box::new(floor::Floor::new(&context.stage)),
        Box::new(Api::new(&context.node, "asked", TRIVIAL)?),
        Box::new(vessel::CommandLine::new(&context.node)),
    ];
    match command::version("crun") {
        Some(version) => peers.push(Box::new(crun::Crun::new(&context.stage, version)?)),
        None => results.absent("crun", "not installed"),
    }
    match command::version("lxc-start") {
        Some(version) => peers.push(Box::new(Lxc::trivial(&context.stage, version)?)),
        None => results.absent("lxc", "not installed"),
    }
    match incus::Incus::new(&context.stage) {
        Ok(peer) => peers.push(Box::new(peer)),
        Err(reason) => results.absent("incus", &format!("{reason:#}")),
    }
    Ok(peers)
}

/// Everybody who can boot a Debian here, whose files lie in `tree`; the template of the same name
/// must be there.
pub(crate) fn with_debian(
    context: &Context,
    tree: &Path,
    results: &mut Results,
) -> Result<Vec<Box<dyn Peer>>> {
    let mut peers: Vec<Box<dyn Peer>> =
        vec![Box::new(Api::new(&context.node, "server", debian::NAME)?)];
    match command::version("lxc-start") {
        Some(version) => peers.push(Box::new(Lxc::debian(&context.stage, version, tree)?)),
        None => results.absent("lxc", "not installed"),
    }
    match command::version("systemd-nspawn") {
        Some(version) => peers.push(Box::new(Nspawn::new(&context.stage, version, tree)?)),
        None => results.absent("systemd-nspawn", "not installed"),
    }
    Ok(peers)
}

/// Takes away what a killed bench left of other containers: their processes and control groups.
pub(crate) fn sweep() {
    lxc::sweep();
    nspawn::sweep();
    crun::sweep();
    floor::sweep();
}
