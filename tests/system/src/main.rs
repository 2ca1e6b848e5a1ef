//! System tests: real nodes and VEs on this kernel, as root, driven from outside as a user does.
//!
//! Every test gets a node of its own (root folder, network namespace, range of ids), and fails when
//! something of it is left on the machine afterwards. A test says what it needs. What this machine
//! cannot give is a skip, listed at the end with its reason; with `VESSEL_REQUIRE=1` a need that
//! any proper machine can meet (root, packages) fails instead.
//!
//! ```text
//! cargo xtask test                 all of them
//! cargo xtask test network::       those whose name contains a word
//! VESSEL_TEST_INSTALLED=1 ...      also those of the installed node, on a machine of their own
//! VESSEL_TEST_DEBIAN=FILE ...      import this archive of a Debian 12 instead of building one
//! VESSEL_SLOWNESS=12 ...           this machine is so many times slower: deadlines grow with it
//! VESSEL_KEEP=1 cargo xtask test x leave the node of a failed test as it is, to look at it
//! ```
#![forbid(unsafe_code)]
#![expect(clippy::print_stderr, reason = "a test program talks to a terminal")]

mod adversary;
mod alerts;
mod applications;
mod bandwidth;
mod bulk;
mod contents;
mod crash;
mod database;
mod debian;
mod exec;
mod faults;
mod files;
mod full;
mod growth;
mod guarantees;
mod harness;
mod installed;
mod interrupted;
mod life;
mod limits;
mod live;
mod metering;
mod network;
mod refusals;
mod sharing;
mod sleep;
mod space;
mod templates;
mod updates;
mod versions;
mod view;

use std::process::ExitCode;

use libtest_mimic::Arguments;

use crate::harness::run;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let topics = [
        life::TESTS,
        exec::TESTS,
        files::TESTS,
        network::TESTS,
        metering::TESTS,
        limits::TESTS,
        live::TESTS,
        view::TESTS,
        guarantees::TESTS,
        bandwidth::TESTS,
        growth::TESTS,
        space::TESTS,
        alerts::TESTS,
        bulk::TESTS,
        refusals::TESTS,
        templates::TESTS,
        applications::TESTS,
        updates::TESTS,
        versions::TESTS,
        contents::TESTS,
        sharing::TESTS,
        crash::TESTS,
        full::TESTS,
        sleep::TESTS,
        faults::TESTS,
        interrupted::TESTS,
        debian::TESTS,
        database::TESTS,
        installed::TESTS,
        adversary::escapes::TESTS,
        adversary::pool::TESTS,
        adversary::races::TESTS,
        adversary::archives::TESTS,
        adversary::bombs::TESTS,
        adversary::floods::TESTS,
        adversary::kernel_objects::TESTS,
    ];
    match run::all(&topics, &arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
