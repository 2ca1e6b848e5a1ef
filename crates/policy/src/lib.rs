//! Pure decisions: admission, transitions, addresses, order. No I/O and no clock.
#![forbid(unsafe_code)]
