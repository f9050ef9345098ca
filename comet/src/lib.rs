//! Holds the connections.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod close;
pub mod transport;
