//! What can be measured, each for itself.

mod bombs;
mod boot;
mod creation;
mod crowd;
mod density;
mod life;
mod patch;
mod walls;
mod web;

use anyhow::Result;

use crate::context::Context;
use crate::report::Results;

/// A group of measurements that belong together.
pub(crate) struct Section {
    /// How it is asked for.
    pub(crate) name: &'static str,
    /// What it measures.
    pub(crate) title: &'static str,
    /// Whether it takes a whole Debian, and so minutes.
    pub(crate) needs_debian: bool,
    /// Measures it.
    pub(crate) measure: fn(&mut Context, &mut Results) -> Result<()>,
}

/// All of them, in the order in which they run.
pub(crate) const SECTIONS: &[Section] = &[
    Section {
        name: "life",
        title: "create, start, stop, delete of a container with a trivial init",
        needs_debian: false,
        measure: life::measure,
    },
    Section {
        name: "creation",
        title: "VEs made from a template: time and disk of each",
        needs_debian: false,
        measure: creation::measure,
    },
    Section {
        name: "crowd",
        title: "many VEs with a trivial init: time of making them, memory",
        needs_debian: false,
        measure: crowd::measure,
    },
    Section {
        name: "boot",
        title: "a Debian from its start to running, and its memory",
        needs_debian: true,
        measure: boot::measure,
    },
    Section {
        name: "web",
        title: "nginx: answers per second and processor time a request",
        needs_debian: true,
        measure: web::measure,
    },
    Section {
        name: "walls",
        title: "what the system call filter and the VE's own /proc cost",
        needs_debian: true,
        measure: walls::measure,
    },
    Section {
        name: "bombs",
        title: "a neighbour's answers while a VE does its worst",
        needs_debian: true,
        measure: bombs::measure,
    },
    Section {
        name: "density",
        title: "300 Debian VEs at once, then 1,000 light ones",
        needs_debian: true,
        measure: density::measure,
    },
    Section {
        name: "patch",
        title: "100 VEs brought to a new version of their template by one command",
        needs_debian: true,
        measure: patch::measure,
    },
];
