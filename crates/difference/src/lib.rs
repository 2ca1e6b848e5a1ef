//! What a VE changed: its private area held against its template, from outside.
//!
//! [`Merged`] reads files as the VE sees them without entering it; [`walk()`] tells everything that
//! differs; [`give_back`] removes copies that have become equal to the template's files, and [`share`] makes
//! them take no space of their own while the VE runs; [`preserve()`] lets a VE see the same over another template.
//!
//! Everything here works by descriptors on the upper directory and on the template's own image; nothing of
//! the VE's is mounted, and no path into it is followed by the kernel.
#![forbid(unsafe_code)]

mod compaction;
mod merged;
mod preserve;
mod rebase;
mod upper;
mod walk;

pub use compaction::{Compaction, Kept, give_back, share};
pub use merged::{Identity, Merged, Place};
pub use preserve::{Preserved, preserve};
pub use rebase::{
    Conflict, conflicts, forget_lower, is_account_database, is_lock, is_package_database,
};
pub use walk::{Change, Changed, DEPTH_MAX, ENTRIES_MAX, Kind, Unseen, shown, walk};
