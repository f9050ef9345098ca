//! Keeps an `ImCluster` true.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod build;
pub mod crd;
pub mod reference;
pub mod validate;
