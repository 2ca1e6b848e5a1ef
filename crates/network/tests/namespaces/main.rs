//! VEs' links in network namespaces of the test's own.
//!
//! Every namespace belongs to a thread of the test and ends with it, so nothing is left behind
//! even by a test that fails, and nothing here meets the machine's own network. Needs root.

#[cfg(test)]
mod fast_path;
#[cfg(test)]
mod forged;
#[cfg(test)]
mod frames;
#[cfg(test)]
mod life;
#[cfg(test)]
mod scale;
#[cfg(test)]
mod support;
#[cfg(test)]
mod traffic;
