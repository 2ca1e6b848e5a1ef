//! Memory that a VE is given beyond its limit by itself, as far as its administrator lets it.
//!
//! ```text
//! 0            memory.limit                      memory.grow.ceiling
//! |-----------------|--- step ---|--- step ---| ... |
//!                   given while more than memory.grow.threshold of what it has is in use
//! ```

use crate::units::{Bytes, Percent, Seconds};

/// When a VE is given memory beyond its limit, how much, and when that goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryGrowth {
    /// What it may have at most with what it is given; without it nothing is ever given.
    pub ceiling: Option<Bytes>,
    /// How much at a time. Without it an eighth of the way to the ceiling.
    pub step: Option<Bytes>,
    /// The part of what it has whose use calls for more: [`MemoryGrowth::THRESHOLD_DEFAULT`].
    pub threshold: Option<Percent>,
    /// Shortest time between two steps; without it none.
    pub cooldown: Option<Seconds>,
    /// So long it has to do without a step for that to go back. Without it, it keeps what it was
    /// given until it ends.
    pub give_back: Option<Seconds>,
    /// What it was given beyond its limit: no setting, but what came of them.
    pub given: Option<Bytes>,
}

impl MemoryGrowth {
    /// The threshold of those who set none: a VE that takes half a gigabyte a second is heard in time
    /// with a limit of 256 MiB.
    pub const THRESHOLD_DEFAULT: Percent = Percent::new(80);
    /// Most steps that lead to the ceiling: the kernel is asked to tell of each beforehand.
    pub const STEPS_MAX: u64 = 64;
}
