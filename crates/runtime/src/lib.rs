//! A VE from its parts: the launcher's protocol, its client, and the launch itself.
#![forbid(unsafe_code)]
