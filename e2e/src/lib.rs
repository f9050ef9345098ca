//! The whole thing from outside: clients, load, what it cost, and whether anything was lost.
//!
//! [`client`] is one client for tests, [`load`] many of them for load; [`checker`] judges what they received by the
//! [`stamp`] in each body. [`bench`] is `imcluster bench`.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod bench;
pub mod checker;
pub mod client;
pub mod load;
pub mod os;
#[cfg(test)]
mod scripted;
pub mod stamp;
