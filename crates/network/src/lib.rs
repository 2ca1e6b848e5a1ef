//! Links, routes, neighbours, filters and counters of VEs.
#![forbid(unsafe_code)]
