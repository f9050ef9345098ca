//! The whole thing: the real neighbours on loopback, the real program between them, and what tests need to watch both.
//!
//! [`kafka`] and [`redis`] start brokers and stores, [`program`] starts `imcluster`; all are [`child`] processes that
//! never outlive the run, listen on [`ports`] of their own and log into [`artefacts`]. Waiting is [`eventually`]; [`relay`]
//! is a line between two of them that breaks, [`names`] lead to one and then to another.
//! [`image`] packs all three for a cluster.
//!
//! [`cluster`] is a real Kubernetes, in network namespaces of its own.
//!
//! [`client`] is one client, [`load`] many of them; [`checker`] judges what they received by the [`stamp`] in each
//! body. [`crowd`] is clients that live through deploys, and its judge; [`chaos`] is worse than deploys. [`bench`] is `imcluster bench`, [`smoke`] the
//! one push of `imcluster smoke`.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod artefacts;
pub mod bench;
pub mod cache;
pub mod certs;
pub mod chaos;
pub mod checker;
pub mod child;
pub mod client;
pub mod cluster;
pub mod crowd;
mod eventually;
pub mod image;
pub mod kafka;
pub mod load;
pub mod names;
pub mod os;
pub mod ports;
pub mod program;
pub mod redis;
pub mod relay;
pub mod rights;
#[cfg(test)]
mod scripted;
pub mod smoke;
pub mod soak;
pub mod stamp;

pub use eventually::{Outcome, eventually};
