//! The whole thing: the real neighbours on loopback, the real program between them, and what tests need to watch both.
//!
//! [`kafka`] and [`redis`] start brokers and stores, [`program`] starts `imcluster`; all are [`child`] processes that
//! never outlive the run, listen on [`ports`] of their own and log into [`artefacts`]. Waiting is [`eventually`].

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod artefacts;
pub mod certs;
pub mod child;
mod eventually;
pub mod kafka;
pub mod ports;
pub mod program;
pub mod redis;
pub mod soak;

pub use eventually::{Outcome, eventually};
