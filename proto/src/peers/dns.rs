//! A name whose addresses are the comets: a headless Service, or any DNS name.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::{Board, Peer};

/// How often the name is looked up: Kubernetes' DNS caches for about as long.
pub(super) const EVERY: Duration = Duration::from_secs(3);
/// How long one look-up may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks the system's resolver.
pub(super) async fn lookup(name: String) -> io::Result<Vec<SocketAddr>> {
    Ok(tokio::net::lookup_host(name).await?.collect())
}

/// Looks the name up again and again. An answer without addresses counts as a failure, as most resolvers report it.
pub(super) async fn follow<F>(name: String, every: Duration, lookup: impl Fn(String) -> F, board: Board)
where
    F: Future<Output = io::Result<Vec<SocketAddr>>>,
{
    let refresh = async {
        loop {
            match tokio::time::timeout(PATIENCE, lookup(name.clone())).await {
                Ok(Ok(addresses)) if !addresses.is_empty() => board.publish(peers(addresses)),
                Ok(Ok(_)) => board.fail(&format!("{name} has no address")),
                Ok(Err(error)) => board.fail(&format!("{name}: {error}")),
                Err(_) => board.fail(&format!("{name}: no answer within {} s", PATIENCE.as_secs())),
            }
            tokio::time::sleep(every).await;
        }
    };
    tokio::select! {
        () = refresh => {}
        () = board.abandoned() => {}
    }
}

/// Sorted, each once, so that another order is not another list.
fn peers(mut addresses: Vec<SocketAddr>) -> Vec<Peer> {
    addresses.sort_unstable();
    addresses.dedup();
    addresses.into_iter().map(|address| Peer::at(address.to_string())).collect()
}
