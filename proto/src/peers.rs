//! The comets alive right now, as a watch: a fixed list, headless-service DNS, or EndpointSlices.

use std::sync::Arc;

use tokio::sync::watch;

use crate::ServerId;

/// One comet's gRPC address and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// `host:port` of its gRPC server.
    pub address: String,
    /// Its server id, when the list names it (a Go comet cannot be asked).
    pub id: Option<ServerId>,
    /// Whether clients may be sent there.
    pub ready: bool,
    /// Whether it is on its way out; it may still hold connections.
    pub terminating: bool,
    /// Its zone, when known.
    pub zone: Option<String>,
}

/// Every listed comet; keeps the last good list when its source fails.
pub type Peers = watch::Receiver<Arc<[Peer]>>;

/// Where the list comes from; written `host:port` or `id=host:port` (several, comma-separated), `dns:host:port`, or
/// `endpointslices:[namespace/]service`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// These and no others.
    Fixed(Vec<Peer>),
    /// Every address of this name, asked for again and again.
    Dns(String),
    /// The EndpointSlices of this Service.
    EndpointSlices {
        /// Its namespace, ours when absent.
        namespace: Option<String>,
        /// Its name.
        service: String,
    },
}
