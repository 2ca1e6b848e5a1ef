//! The typed client of the API.
#![forbid(unsafe_code)]
