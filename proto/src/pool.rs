//! The channels to the servers behind a list of addresses, used in turn.
//!
//! Every call has a deadline. A call that never left this process, because nobody listened or the server was closing the
//! connection (grpc-go does so every two hours), is made once more at the next address; a call that may have been
//! carried out is not repeated.

use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::grpc::{self, tls::Tls};
use crate::peers::{self, Followed, Peer, Source};

/// Channels by address.
#[derive(Debug)]
pub struct Pool {
    followed: Followed,
    /// The longest that a call may take.
    longest: Duration,
    open: Mutex<Open>,
    turn: AtomicUsize,
    tls: Option<Tls>,
}

/// A list, and the channels to its addresses in the same order.
type Open = (Arc<[Peer]>, Vec<(String, Channel)>);

/// Reads where servers are that have no usual port: `host:port`, several comma-separated, or `dns:name:port`.
///
/// # Errors
/// What was expected instead.
pub fn source(addresses: &str) -> Result<Source, String> {
    let has_port = |address: &str| {
        address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
    };
    match addresses.strip_prefix("dns:") {
        Some(name) if !has_port(name) => return Err(format!("{addresses}: expected dns:name:port")),
        Some(_) => {}
        None => {
            if let Some(wrong) = addresses.split(',').map(str::trim).find(|address| !has_port(address)) {
                return Err(format!("{wrong}: expected host:port"));
            }
        }
    }
    addresses.parse::<Source>().map_err(|error| format!("{addresses}: {error}"))
}

impl Pool {
    /// Connects on its first call. No call may take longer than `longest`; with `tls` the servers know us by our
    /// certificate.
    ///
    /// # Errors
    /// When an address is not one; the text names it.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn lazy(source: Source, longest: Duration, tls: Option<Tls>) -> Result<Self, String> {
        if let Source::Fixed(peers) = &source {
            for peer in peers {
                connect(&peer.address, longest, None)?;
            }
        }
        let (followed, open) = (peers::watch(source), Mutex::new((Arc::from([]), Vec::new())));
        Ok(Self { followed, longest, open, turn: AtomicUsize::new(0), tls })
    }

    /// Makes a call at the next address, and at the one after when the first never got it.
    ///
    /// # Errors
    /// What the server answered, or why there is no answer.
    pub async fn call<Q, T, F>(
        &self,
        deadline: Duration,
        request: Q,
        make: impl Fn(Channel, Q) -> F,
    ) -> Result<T, Status>
    where
        Q: Clone,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let tried = async {
            let status = match make(self.next().await?, request.clone()).await {
                Ok(reply) => return Ok(reply.into_inner()),
                Err(status) => status,
            };
            if !never_sent(&status) {
                return Err(status);
            }
            make(self.next().await?, request).await.map(Response::into_inner)
        };
        let late = |_| Err(Status::deadline_exceeded(format!("no answer within {deadline:?}")));
        tokio::time::timeout(deadline, tried).await.unwrap_or_else(late)
    }

    async fn next(&self) -> Result<Channel, Status> {
        self.followed.answered().await;
        let listed = self.followed.peers.borrow().clone();
        let mut open = self.open.lock();
        if !Arc::ptr_eq(&open.0, &listed) {
            // Those known keep their channels.
            let channel = |peer: &Peer| {
                let kept = open.1.iter().find(|(known, _)| *known == peer.address).map(|(_, channel)| channel.clone());
                let opened = kept.map_or_else(|| connect(&peer.address, self.longest, self.tls.as_ref()), Ok)?;
                Ok((peer.address.clone(), opened))
            };
            let channels = listed.iter().map(channel).collect::<Result<_, String>>().map_err(Status::unavailable)?;
            *open = (listed, channels);
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        match open.1.get(turn % open.1.len().max(1)) {
            Some((_, channel)) => Ok(channel.clone()),
            None => Err(Status::unavailable(self.followed.trouble().as_deref().unwrap_or("no addresses"))),
        }
    }
}

fn connect(address: &str, longest: Duration, tls: Option<&Tls>) -> Result<Channel, String> {
    grpc::channel_over(address, longest, tls).map_err(|error| format!("{address}: expected host:port: {error}"))
}

/// Whether the call failed before its request left: no connection, or one that was closing.
fn never_sent(status: &Status) -> bool {
    std::iter::successors(status.source(), |&error| error.source()).any(|error| {
        error.is::<tonic::ConnectError>() || error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_without_a_port_are_refused_by_name() {
        for (text, why) in [
            ("localhost", "localhost: expected host:port"),
            ("a:1,:2", ":2: expected host:port"),
            ("dns:name", "dns:name: expected dns:name:port"),
        ] {
            assert_eq!(source(text).unwrap_err(), why);
        }
        assert_eq!(source("dns:logic:3119"), Ok(Source::Dns("logic:3119".to_owned())));
        let two = vec![Peer::at("a:1"), Peer::at("b:2")];
        assert_eq!(source("a:1, b:2"), Ok(Source::Fixed(two)));
    }
}
