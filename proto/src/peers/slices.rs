//! The EndpointSlices of a Service (<https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/>).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, ResourceExt as _};

use super::{Board, PORT, Peer};

/// The port's name in our Service; any other Service's first port is taken.
const PORT_NAME: &str = "grpc";
/// After how many seconds the API server ends a watch, so that one cut without a word is noticed soon.
const WATCH_SECONDS: u32 = 60;
/// The pause after a failure: doubled each time, up to the second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

/// Follows the slices. After any failure it lists them all again: then the list is known to be current.
pub(super) async fn follow(namespace: Option<String>, service: String, port: Option<u16>, board: Board) {
    let refresh = async {
        let mut pause = PAUSE.0;
        loop {
            let mut listed = false;
            let why = match follow_once(namespace.as_deref(), &service, port, &board, &mut listed).await {
                Ok(()) => "the watch ended".to_owned(),
                Err(error) => error.to_string(),
            };
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
    namespace: Option<&str>,
    service: &str,
    port: Option<u16>,
    board: &Board,
    listed: &mut bool,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let client = Client::try_default().await?;
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
    Some(Peer { ready: serving && !terminating, terminating, zone: endpoint.zone.clone(), ..Peer::at(address) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn endpoint(uid: &str, address: &str, conditions: serde_json::Value) -> serde_json::Value {
        json!({"addresses": [address], "conditions": conditions, "zone": "a", "targetRef": {"kind": "Pod", "uid": uid}})
    }

    fn slice(name: &str, endpoints: &[serde_json::Value]) -> EndpointSlice {
        let ports = json!([{"name": "tcp", "port": 3101}, {"name": "grpc", "port": 3109}]);
        serde_json::from_value(json!({
            "metadata": {"name": name},
            "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": ports,
        }))
        .unwrap()
    }

    fn addresses(peers: &[Peer]) -> Vec<&str> {
        peers.iter().map(|peer| peer.address.as_str()).collect()
    }

    #[test]
    fn every_pod_of_every_slice_is_a_peer() {
        let ready = json!({"ready": true, "serving": true, "terminating": false});
        let one = slice("one", &[endpoint("u2", "10.0.0.2", ready.clone())]);
        let two = slice("two", &[endpoint("u1", "10.0.0.1", ready)]);
        let peers = merge([&one, &two], None);
        assert_eq!(addresses(&peers), ["10.0.0.1:3109", "10.0.0.2:3109"]);
        assert!(peers.iter().all(|peer| peer.ready && !peer.terminating && peer.zone.as_deref() == Some("a")));
        assert_eq!(addresses(&merge([&one], Some(9))), ["10.0.0.2:9"]);
    }

    #[test]
    fn a_pod_on_its_way_out_stays_listed_and_takes_no_clients() {
        let leaving = json!({"ready": false, "serving": true, "terminating": true});
        let peers = merge([&slice("one", &[endpoint("u", "10.0.0.1", leaving)])], None);
        assert!(peers[0].terminating && !peers[0].ready);
    }

    #[test]
    fn a_published_pod_that_does_not_serve_is_not_ready() {
        let published = json!({"ready": true, "serving": false, "terminating": false});
        let peers = merge([&slice("one", &[endpoint("u", "10.0.0.1", published)])], None);
        assert!(!peers[0].ready && !peers[0].terminating);
        let silent = merge([&slice("one", &[endpoint("u", "10.0.0.1", json!({}))])], None);
        assert!(silent[0].ready, "an absent condition means ready");
    }

    #[test]
    fn a_pod_in_two_slices_is_one_peer() {
        let ready = json!({"ready": true});
        let leaving = json!({"ready": false, "terminating": true});
        let one = slice("one", &[endpoint("u", "10.0.0.1", ready.clone())]);
        let two = slice("two", &[endpoint("u", "10.0.0.1", leaving)]);
        let peers = merge([&one, &two], None);
        assert_eq!(peers.len(), 1);
        assert!(peers[0].terminating && !peers[0].ready);
        let six = slice("six", &[endpoint("u", "fd00::1", ready)]);
        assert_eq!(addresses(&merge([&six], None)), ["[fd00::1]:3109"]);
        assert_eq!(addresses(&merge([&six, &one], None)), ["10.0.0.1:3109"]);
    }

    #[test]
    fn without_a_port_named_grpc_the_first_is_taken() {
        let mut slice = slice("one", &[endpoint("u", "10.0.0.1", json!({}))]);
        slice.ports.as_mut().unwrap()[1].name = None;
        assert_eq!(addresses(&merge([&slice], None)), ["10.0.0.1:3101"]);
        slice.ports = None;
        assert_eq!(addresses(&merge([&slice], None)), ["10.0.0.1:3109"]);
    }

    #[test]
    fn a_list_counts_only_when_it_is_complete() {
        let mut held = Held::default();
        assert!(!held.take(Event::Init));
        assert!(!held.take(Event::InitApply(slice("one", &[]))));
        assert!(held.take(Event::InitDone));
        assert!(held.take(Event::Apply(slice("two", &[]))));
        assert_eq!(held.slices.len(), 2);
        assert!(!held.take(Event::Init), "a new list does not empty the old one");
        assert_eq!(held.slices.len(), 2);
        assert!(held.take(Event::InitDone));
        assert!(held.slices.is_empty());
        held.take(Event::Apply(slice("two", &[])));
        assert!(held.take(Event::Delete(slice("two", &[]))));
        assert!(held.slices.is_empty());
    }
}
