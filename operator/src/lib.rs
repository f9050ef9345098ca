//! Keeps an `ImCluster` true.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod crd;
