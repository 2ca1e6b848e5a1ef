//! The catalogue of templates: building, importing, storing and verifying immutable trees.
#![forbid(unsafe_code)]
