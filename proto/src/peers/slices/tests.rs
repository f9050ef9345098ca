use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

fn endpoint(uid: &str, address: &str, conditions: serde_json::Value) -> serde_json::Value {
    let pod = json!({"kind": "Pod", "name": format!("pod-{uid}"), "uid": uid});
    json!({"addresses": [address], "conditions": conditions, "zone": "a", "targetRef": pod})
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
    assert_eq!(peers[0].pod, Some(Pod { name: "pod-u1".into(), uid: "u1".into() }));
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

/// An API server as far as this file needs one: a list of one pod, then a watch that tells of a second and is cut.
/// Returns what it was asked.
async fn api_server(listener: TcpListener) -> Vec<String> {
    let ready = json!({"ready": true});
    let first = slice("one", &[endpoint("u1", "10.0.0.1", ready.clone())]);
    let second = slice("two", &[endpoint("u2", "10.0.0.2", ready)]);
    let list = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSliceList",
        "metadata": {"resourceVersion": "1"}, "items": [first],
    });
    let mut added = json!({"type": "ADDED", "object": second});
    added["object"]["metadata"]["resourceVersion"] = "2".into();
    let answers = [list.to_string(), format!("{added}\n")];
    let mut asked = Vec::new();
    for answer in answers {
        let (mut stream, _) = listener.accept().await.unwrap();
        asked.push(request_line(&mut stream).await);
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n";
        stream.write_all(format!("{head}{answer}").as_bytes()).await.unwrap();
    }
    asked
}

async fn request_line(stream: &mut TcpStream) -> String {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(request).unwrap().lines().next().unwrap().to_owned()
}

#[tokio::test]
async fn slices_are_listed_then_watched_and_stay_when_the_api_server_is_gone() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url: http::Uri = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let server = tokio::spawn(api_server(listener));
    let (board, mut followed) = Board::new();
    let cluster = move || {
        let client = Client::try_from(kube::Config::new(url.clone()));
        async move { client }
    };
    tokio::spawn(follow(Some("im".into()), "comet".into(), None, cluster, board));

    let deadline = Duration::from_secs(30);
    let both = followed.peers.wait_for(|peers| peers.len() == 2);
    let both = tokio::time::timeout(deadline, both).await.expect("both pods are listed").unwrap().clone();
    assert_eq!(addresses(&both), ["10.0.0.1:3109", "10.0.0.2:3109"]);
    assert!(followed.is_known());
    let asked = server.await.unwrap();
    assert!(asked[0].starts_with("GET /apis/discovery.k8s.io/v1/namespaces/im/endpointslices?"), "{asked:?}");
    assert!(asked[0].contains("labelSelector=kubernetes.io%2Fservice-name%3Dcomet"), "{asked:?}");
    assert!(asked[1].contains("watch=true") && asked[1].contains("resourceVersion=1"), "{asked:?}");

    let gone = followed.state.wait_for(|state| state.trouble.is_some());
    tokio::time::timeout(deadline, gone).await.expect("the outage is noticed").unwrap();
    assert!(followed.trouble().unwrap().starts_with("EndpointSlices of comet: "));
    assert_eq!(*followed.peers.borrow(), both, "the last list stays");
}
