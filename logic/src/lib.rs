//! Decides who gets a push: sessions, online counts, node lists, and the HTTP API for backends.
//!
//! Edges: [`http`] for backends and pages, [`grpc`] for comets. Behind them the domain: [`session`], [`push`],
//! [`online`], [`nodes`]. Below that two traits: [`store::SessionStore`] (Redis or memory) and [`queue::PushQueue`]
//! (Kafka or memory).

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod error;
pub mod grpc;
pub mod online;
pub mod queue;
pub mod receive;
pub mod session;
pub mod store;
