//! What our processes and our clients say to each other, held once.
//!
//! | who | to whom | what | where |
//! |---|---|---|---|
//! | client | comet | packets over TCP or WebSocket | [`packet`], [`op`], [`frame`] |
//! | client | comet | op 7: who it claims to be | [`token`] |
//! | comet | client with capabilities | op 25: one push with its room and place in the queue | [`envelope`] |
//! | comet | logic | sessions, online counts | [`logic`] (gRPC) |
//! | logic | job | push records through the queue | [`push`]; [`log`] is the queue in memory |
//! | job | comet | pushes | [`comet`], [`delivery`] (gRPC) |
//! | job | logic | where keys are | [`sessions`] (gRPC); [`pool`] keeps the channels, comet's too |
//! | logic, job | – | which comets exist | [`peers`] |
//!
//! Between themselves our processes speak in the clear, or over mutual TLS ([`grpc::tls`], [`certs`]).
//!
//! Shapes and numbers are goim's (github.com/Terry-Mao/goim, `api/`); gRPC fields from 100 on and the packages
//! `imcluster.*` are ours, and a Go process ignores or refuses them cleanly.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod certs;
pub mod envelope;
pub mod frame;
pub mod grpc;
pub mod id;
pub mod kafka;
pub mod log;
pub mod op;
pub mod packet;
pub mod peers;
pub mod pool;
pub mod push;
pub mod token;

pub use id::{Key, Mid, RoomId, ServerId};
pub use packet::Packet;

mod generated {
    #![allow(missing_docs, clippy::all, clippy::unwrap_used)]
    pub mod goim {
        pub mod protocol {
            tonic::include_proto!("goim.protocol");
        }
        pub mod comet {
            tonic::include_proto!("goim.comet");
        }
        pub mod logic {
            tonic::include_proto!("goim.logic");
        }
    }
    pub mod imcluster {
        pub mod comet {
            pub mod v1 {
                tonic::include_proto!("imcluster.comet.v1");
            }
        }
        pub mod logic {
            pub mod v1 {
                tonic::include_proto!("imcluster.logic.v1");
            }
        }
    }
}

pub use generated::goim::{comet, logic, protocol};
pub use generated::imcluster::comet::v1 as delivery;
pub use generated::imcluster::logic::v1 as sessions;
