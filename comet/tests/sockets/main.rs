//! A whole comet over real sockets, judged from outside: what clients and job may rely on, byte for byte.

#![allow(clippy::unwrap_used)]

mod support;

mod capabilities;
mod claims;
mod connecting;
mod drain;
mod frames;
mod grpc;
mod hostile;
mod identity;
mod limits;
mod operations;
mod pushes;
mod random;
mod sessions;
mod slow;
mod stream;
mod tls;
