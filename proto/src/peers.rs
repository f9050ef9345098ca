//! The servers of a kind alive right now, as a watch: a fixed list, headless-service DNS, or EndpointSlices. Comets
//! where not said otherwise.

mod dns;
mod slices;

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::ServerId;

/// comet's gRPC port where a source names none.
const PORT: u16 = 3109;

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
    /// The pod it runs in, when the source knows pods.
    pub pod: Option<Pod>,
}

/// A pod as Kubernetes names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its name, which a later pod may have again.
    pub name: String,
    /// Its UID, which no other pod ever has.
    pub uid: String,
}

impl Peer {
    /// A comet of which only the address is known: taken to be ready.
    pub fn at(address: impl Into<String>) -> Self {
        Self { address: address.into(), id: None, ready: true, terminating: false, zone: None, pod: None }
    }
}

/// Every listed comet; keeps the last good list when its source fails.
pub type Peers = watch::Receiver<Arc<[Peer]>>;

/// Where the list comes from; written `host:port` or `id=host:port` (several, comma-separated), `dns:host[:port]`, or
/// `endpointslices:[namespace/]service[:port]`.
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
        /// The gRPC port; absent = the slices' port named `grpc`, or else their first.
        port: Option<u16>,
    },
}

/// The text is no [`Source`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected host:port or id=host:port (several, comma-separated), dns:host[:port], or \
     endpointslices:[namespace/]service[:port]; `{0}` is none of them"
)]
pub struct SourceError(String);

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        let error = || SourceError(text.to_owned());
        if let Some(name) = text.strip_prefix("dns:") {
            let (host, port) = with_port(name).ok_or_else(error)?;
            return Ok(Self::Dns(format!("{host}:{}", port.unwrap_or(PORT))));
        }
        if let Some(name) = text.strip_prefix("endpointslices:") {
            let (name, port) = with_port(name).ok_or_else(error)?;
            let (namespace, service) = match name.split_once('/') {
                Some((namespace, service)) => (Some(namespace.to_owned()), service),
                None => (None, name),
            };
            if service.is_empty() || service.contains('/') || namespace.as_deref() == Some("") {
                return Err(error());
            }
            return Ok(Self::EndpointSlices { namespace, service: service.to_owned(), port });
        }
        let peers = text.split(',').map(|part| peer(part.trim()).ok_or_else(|| SourceError(part.to_owned())));
        Ok(Self::Fixed(peers.collect::<Result<_, _>>()?))
    }
}

/// `host:port` or `id=host:port`.
fn peer(text: &str) -> Option<Peer> {
    let (id, address) = match text.split_once('=') {
        Some(("", _)) => return None,
        Some((id, address)) => (Some(id.into()), address),
        None => (None, text),
    };
    let (_, port) = with_port(address)?;
    port?;
    Some(Peer { id, ..Peer::at(address) })
}

/// `name[:port]`; a name with colons in it (IPv6) stands in brackets.
fn with_port(text: &str) -> Option<(&str, Option<u16>)> {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, _)) if name.starts_with('[') && !name.ends_with(']') => (text, None),
        Some((name, port)) => (name, Some(port.parse().ok()?)),
        None => (text, None),
    };
    let is_bracketed = name.starts_with('[') && name.ends_with(']');
    let is_name = !name.is_empty() && (is_bracketed || !name.contains(':')) && !name.contains([' ', ',', '=']);
    is_name.then_some((name, port))
}

/// A followed source: its list, and whether it answers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Followed {
    /// The list; empty until the first answer.
    pub peers: Peers,
    state: watch::Receiver<State>,
}

#[derive(Clone, Debug, Default)]
struct State {
    known: bool,
    trouble: Option<Trouble>,
}

#[derive(Clone, Debug)]
struct Trouble {
    since: Instant,
    why: Arc<str>,
}

impl Followed {
    /// Waits for the first list. Cancel safe.
    pub async fn known(&self) {
        // An error says that the source is given up: nothing will ever be known.
        if self.state.clone().wait_for(|state| state.known).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits for the first list, or for the first failure to get one. Cancel safe.
    pub async fn answered(&self) {
        let mut state = self.state.clone();
        // An error says that the source is given up: there is nothing to wait for.
        let _given_up = state.wait_for(|state| state.known || state.trouble.is_some()).await.is_err();
    }

    /// Whether there was a first list.
    pub fn is_known(&self) -> bool {
        self.state.borrow().known
    }

    /// For how long the source has not answered: the age of the list. Zero while it answers.
    pub fn age(&self) -> Duration {
        self.state.borrow().trouble.as_ref().map_or(Duration::ZERO, |trouble| trouble.since.elapsed())
    }

    /// Why the source does not answer now.
    pub fn trouble(&self) -> Option<Arc<str>> {
        self.state.borrow().trouble.as_ref().map(|trouble| trouble.why.clone())
    }
}

/// Follows a source until every [`Followed`] and [`Peers`] of it is gone.
///
/// # Panics
/// Outside a tokio runtime.
pub fn watch(source: Source) -> Followed {
    let (board, followed) = Board::new();
    match source {
        Source::Fixed(peers) => {
            board.publish(peers);
            board.keep();
        }
        Source::Dns(name) => {
            tokio::spawn(dns::follow(name, dns::EVERY, dns::lookup, board));
        }
        Source::EndpointSlices { namespace, service, port } => {
            tokio::spawn(slices::follow(namespace, service, port, slices::cluster, board));
        }
    }
    followed
}

/// Where a source puts what it learns.
#[derive(Debug)]
struct Board {
    peers: watch::Sender<Arc<[Peer]>>,
    state: watch::Sender<State>,
}

impl Board {
    fn new() -> (Self, Followed) {
        let (peers, peers_seen) = watch::channel(Arc::from([]));
        let (state, state_seen) = watch::channel(State::default());
        (Self { peers, state }, Followed { peers: peers_seen, state: state_seen })
    }

    /// The source answered; wakes the followers only when the list is another one.
    fn publish(&self, list: Vec<Peer>) {
        self.peers.send_if_modified(|peers| {
            let is_new = **peers != *list;
            if is_new {
                tracing::info!(count = list.len(), "servers listed");
                *peers = list.into();
            }
            is_new
        });
        self.state.send_modify(|state| {
            state.known = true;
            if state.trouble.take().is_some() {
                tracing::info!("list of servers is current again");
            }
        });
    }

    /// The source does not answer: the list stays. Said once until it answers again.
    fn fail(&self, why: &str) {
        self.state.send_modify(|state| match &mut state.trouble {
            Some(trouble) => trouble.why = why.into(),
            None => {
                tracing::warn!(why, "list of servers cannot be refreshed, the last one stays");
                state.trouble = Some(Trouble { since: Instant::now(), why: why.into() });
            }
        });
    }

    /// Until nobody follows any more.
    async fn abandoned(&self) {
        tokio::join!(self.peers.closed(), self.state.closed());
    }

    /// Nothing more will come, but a follower that waits for a change must not take that for an end.
    fn keep(self) {
        tokio::spawn(async move { self.abandoned().await });
    }
}

#[cfg(test)]
mod tests;
