//! Admit, journal, drive, undo, publish: what happens to VEs, over mechanisms seen as traits.
#![forbid(unsafe_code)]
