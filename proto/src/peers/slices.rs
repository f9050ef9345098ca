//! The EndpointSlices of a Service (<https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/>).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, ResourceExt as _};

use super::{Board, PORT, Peer, Pod};

/// The port's name in our Service; any other Service's first port is taken.
const PORT_NAME: &str = "grpc";
/// After how many seconds the API server ends a watch, so that one cut without a word is noticed soon.
const WATCH_SECONDS: u32 = 60;
/// The pause after a failure: doubled each time, up to the second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

/// The cluster we run in, or the one that kubeconfig names.
pub(super) async fn cluster() -> kube::Result<Client> {
    Client::try_default().await
}

/// Follows the slices. After any failure it lists them all again: then the list is known to be current.
pub(super) async fn follow<F>(
    namespace: Option<String>,
    service: String,
    port: Option<u16>,
    cluster: impl Fn() -> F,
    board: Board,
) where
    F: Future<Output = kube::Result<Client>>,
{
    let refresh = async {
        let mut pause = PAUSE.0;
        loop {
            let mut listed = false;
            let ended = match cluster().await {
                Ok(client) => follow_once(client, namespace.as_deref(), &service, port, &board, &mut listed).await,
                Err(error) => Err(error.into()),
            };
            let why = ended.map_or_else(|error| error.to_string(), |()| "the watch ended".to_owned());
            board.fail(&format!("EndpointSlices of {service}: {why}"));
            pause = if listed { PAUSE.0 } else { (pause * 2).min(PAUSE.1) };
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
        }
    };
    tokio::select! {
        () = refresh => {}
        () = board.abandoned() => {}
    }
}

async fn follow_once(
    client: Client,
    namespace: Option<&str>,
    service: &str,
    port: Option<u16>,
    board: &Board,
    listed: &mut bool,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let namespace = namespace.unwrap_or(client.default_namespace()).to_owned();
    let slices: Api<EndpointSlice> = Api::namespaced(client, &namespace);
    let config =
        watcher::Config::default().labels(&format!("kubernetes.io/service-name={service}")).timeout(WATCH_SECONDS);
    let mut events = std::pin::pin!(watcher::watcher(slices, config));
    let mut held = Held::default();
    while let Some(event) = events.next().await {
        if held.take(event?) {
            *listed = true;
            board.publish(merge(held.slices.values(), port));
        }
    }
    Ok(())
}

/// The slices as the events so far tell them.
#[derive(Default)]
struct Held {
    slices: BTreeMap<String, EndpointSlice>,
    listing: Option<BTreeMap<String, EndpointSlice>>,
}

impl Held {
    /// Whether the slices are complete, and so worth looking at, after this event.
    fn take(&mut self, event: Event<EndpointSlice>) -> bool {
        match event {
            Event::Init => self.listing = Some(BTreeMap::new()),
            Event::InitApply(slice) => {
                self.listing.get_or_insert_default().insert(slice.name_any(), slice);
            }
            Event::InitDone => self.slices = self.listing.take().unwrap_or_default(),
            Event::Apply(slice) => {
                self.slices.insert(slice.name_any(), slice);
            }
            Event::Delete(slice) => {
                self.slices.remove(&slice.name_any());
            }
        }
        self.listing.is_none()
    }
}

/// One peer per pod, sorted by address. While Kubernetes moves an endpoint it may stand in two slices: then the pod is
/// terminating when either says so. A pod with two addresses is listed with its IPv4 one.
fn merge<'a>(slices: impl IntoIterator<Item = &'a EndpointSlice>, port: Option<u16>) -> Vec<Peer> {
    let mut pods: BTreeMap<String, Peer> = BTreeMap::new();
    for slice in slices {
        let port = port.unwrap_or_else(|| named_port(slice));
        for endpoint in &slice.endpoints {
            let Some(found) = peer(endpoint, port) else {
                continue;
            };
            let uid = endpoint.target_ref.as_ref().and_then(|target| target.uid.clone());
            match pods.entry(uid.unwrap_or_else(|| found.address.clone())) {
                Entry::Vacant(free) => {
                    free.insert(found);
                }
                Entry::Occupied(mut taken) => {
                    let known = taken.get_mut();
                    known.terminating |= found.terminating;
                    known.ready = (known.ready || found.ready) && !known.terminating;
                    if known.address.starts_with('[') && !found.address.starts_with('[') {
                        known.address = found.address;
                    }
                }
            }
        }
    }
    let mut peers: Vec<Peer> = pods.into_values().collect();
    peers.sort_by(|one, other| one.address.cmp(&other.address));
    peers
}

fn named_port(slice: &EndpointSlice) -> u16 {
    let ports = slice.ports.as_deref().unwrap_or_default();
    let named = ports.iter().find(|port| port.name.as_deref() == Some(PORT_NAME)).or(ports.first());
    named.and_then(|port| u16::try_from(port.port?).ok()).unwrap_or(PORT)
}

/// `serving` is readiness whatever the Service publishes; an absent condition means yes for `ready`, no for the rest.
fn peer(endpoint: &Endpoint, port: u16) -> Option<Peer> {
    let address = endpoint.addresses.first()?;
    let address = match address.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, port).to_string(),
        Err(_) => format!("{address}:{port}"),
    };
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    let terminating = conditions.terminating.unwrap_or(false);
    let serving = conditions.serving.or(conditions.ready).unwrap_or(true);
    let pod = endpoint.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"));
    let pod = pod.and_then(|pod| Some(Pod { name: pod.name.clone()?, uid: pod.uid.clone()? }));
    let (ready, zone) = (serving && !terminating, endpoint.zone.clone());
    Some(Peer { ready, terminating, zone, pod, ..Peer::at(address) })
}

#[cfg(test)]
mod tests;
