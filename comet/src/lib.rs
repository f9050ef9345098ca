//! Holds the connections.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod close;
pub mod config;
pub mod limits;
pub mod listen;
pub mod logic;
pub mod transport;
