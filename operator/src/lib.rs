//! Keeps an `ImCluster` true.
//!
//! ```text
//! watches ─► observe ─► validate ─► build ─► plan ─► apply ─► status
//!  (caches)   (what is)   (spec → Cluster → objects → what to do next)   (writes)
//! ```
//!
//! [`validate`], [`build`], [`plan`] and [`status`] are pure. Only [`observe`], [`apply`], [`events`] and [`lease`] see
//! the API server.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod apply;
pub mod build;
pub mod config;
pub mod controller;
pub mod crd;
pub mod definition;
pub mod events;
pub mod lease;
pub mod metrics;
pub mod observe;
pub mod plan;
pub mod reference;
pub mod retry;
#[cfg(test)]
mod scripted;
pub mod status;
pub mod validate;
pub mod watches;

pub use config::Config;
pub use controller::run;
