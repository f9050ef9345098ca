use std::net::SocketAddr;

use prost::Message;
use proto::log::MemoryLog;
use proto::logic::logic_client::LogicClient;
use proto::logic::{CometInfo, PushMsg};
use proto::protocol::Proto;
use proto::sessions::probe_client::ProbeClient;
use proto::sessions::sessions_client::SessionsClient;
use runtime::{Metrics, Shutdown};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Code;
use tonic::transport::Channel;

use super::*;
use crate::auth::{AuthError, Authenticator, Away, Denied};
use crate::queue::memory::MemoryQueue;
use crate::receive::ReceiveConfig;
use crate::session::{Policy, Refused, SessionConfig, SessionMetrics};
use crate::store::memory::MemoryStore;

struct Server {
    address: SocketAddr,
    channel: Channel,
    store: Arc<MemoryStore>,
    online: Online,
    log: MemoryLog,
}

async fn server() -> Server {
    let (store, log) = (Arc::new(MemoryStore::new()), MemoryLog::new(1, 1 << 20));
    let config = SessionConfig { expire: Duration::from_secs(1800), limit: 1, policy: Policy::Refuse };
    let queue = Arc::new(MemoryQueue::new(log.clone()));
    let receive = ReceiveConfig { url: None, concurrency: 1, queue: 1, timeout: Duration::from_secs(2) };
    let online = Online::default();
    let service = Service {
        sessions: Sessions::new(config, Authenticator::Trust, store.clone(), queue, SessionMetrics::default()),
        store: store.clone(),
        online: online.clone(),
        receive: Receive::start(&receive, &Metrics::default(), Shutdown::new()),
        nodes: Arc::new(|platform, ip| NodesReply { domain: format!("{platform} {ip}"), ..NodesReply::default() }),
        heartbeat: Arc::new(|| Duration::from_secs(480)),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, None, service, std::future::pending()));
    let channel = proto::grpc::channel(&address.to_string(), Duration::from_secs(30)).unwrap();
    Server { address, channel, store, online, log }
}

impl Server {
    fn logic(&self) -> LogicClient<Channel> {
        LogicClient::new(self.channel.clone())
    }

    async fn connect(&self, token: &'static str) -> Result<ConnectReply, Status> {
        let request = ConnectReq { server: "h1".to_owned(), token: token.into(), ..ConnectReq::default() };
        self.logic().connect(request).await.map(Response::into_inner)
    }

    async fn at(&self, key: &str) -> Option<ServerId> {
        self.store.locate_keys(&[key.into()]).await.unwrap().remove(0)
    }
}

#[tokio::test]
async fn connect_returns_who_it_is_and_how_long_it_lives() {
    let server = server().await;
    let token = r#"{"mid":7,"key":"phone","room_id":"test://1","accepts":[1000]}"#;
    let expected = ConnectReply {
        mid: 7,
        key: "phone".to_owned(),
        room_id: "test://1".to_owned(),
        accepts: vec![1000],
        heartbeat: 480_000_000_000,
        session_ttl_ms: 1_800_000,
        ..ConnectReply::default()
    };
    let before = proto::log::now_ms();
    let mut reply = server.connect(token).await.unwrap();
    assert!((before..=proto::log::now_ms()).contains(&std::mem::take(&mut reply.connected_ms)));
    assert_eq!(reply, expected);
    assert_eq!(server.at("phone").await, Some("h1".into()));
}

#[tokio::test]
async fn a_bad_token_and_one_connection_too_many_are_unknown_errors_in_plain_text() {
    let server = server().await;
    assert_eq!(server.connect("[]").await.unwrap_err().code(), Code::Unknown);
    server.connect(r#"{"mid":7,"key":"a"}"#).await.unwrap();
    let refused = server.connect(r#"{"mid":7,"key":"b"}"#).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::Unknown, "this member has 1 connections already"));
}

#[test]
fn a_client_is_told_to_try_again_or_to_bring_a_newer_token_only_where_that_helps() {
    let code = |error: AuthError| Status::from(Refused::Auth(error)).code();
    assert_eq!(code(Away("no keys yet").into()), Code::Unavailable);
    assert_eq!(code(Denied::Expired.into()), Code::Unauthenticated);
    for denied in [Denied::Mid, Denied::Key, Denied::Room, Denied::Signature, Denied::Webhook, Denied::NotYet] {
        assert_eq!(code(denied.into()), Code::Unknown);
    }
}

#[test]
fn no_room_allowed_is_not_every_room() {
    assert_eq!(rooms_allowed(None), [""; 0]);
    assert_eq!(rooms_allowed(Some(vec![])), [""]);
    assert_eq!(rooms_allowed(Some(vec!["a://1".to_owned()])), ["a://1"]);
}

#[test]
fn a_store_or_queue_that_is_away_is_unavailable_so_that_a_comet_tries_again() {
    let store = crate::store::StoreError("no answer".to_owned());
    assert_eq!(Status::from(store).code(), Code::Unavailable);
    let queue = crate::queue::QueueError::Unavailable("no answer".to_owned());
    assert_eq!(Status::from(queue).code(), Code::Unavailable);
}

#[tokio::test]
async fn disconnect_says_whether_the_key_was_there_and_heartbeat_brings_it_back() {
    let server = server().await;
    let mut logic = server.logic();
    let held =
        HeartbeatReq { mid: 7, key: "phone".to_owned(), server: "h1".to_owned(), incarnation: 1, connected_ms: 5 };
    logic.heartbeat(held).await.unwrap();
    assert_eq!(server.at("phone").await, Some("h1".into()));
    let session = DisconnectReq { mid: 7, key: "phone".to_owned(), server: "h1".to_owned(), incarnation: 1 };
    assert!(logic.disconnect(session.clone()).await.unwrap().into_inner().has);
    assert!(!logic.disconnect(session).await.unwrap().into_inner().has);
    assert_eq!(server.at("phone").await, None);
}

#[tokio::test]
async fn renew_online_stores_this_comets_counts_and_returns_everybodys() {
    let server = server().await;
    server.online.set([("test://1".to_owned(), 5)].into(), vec![]);
    let info = CometInfo { incarnation: 3, ..CometInfo::default() };
    let request = OnlineReq {
        server: "h1".to_owned(),
        room_count: [("test://1".to_owned(), 2)].into(),
        info: Some(info.clone()),
    };
    let reply = server.logic().renew_online(request).await.unwrap().into_inner();
    assert_eq!(reply.all_room_count, [("test://1".to_owned(), 5)].into());
    assert_eq!(server.store.online(&"h1".into()).await.unwrap().unwrap().rooms[&proto::RoomId::from("test://1")], 2);
    assert_eq!(server.store.comets().await.unwrap(), [("h1".into(), info)]);
}

#[tokio::test]
async fn a_renewal_tells_of_a_loss_and_what_is_registered_again_is_found_again() {
    let server = server().await;
    let renew = async || {
        let request = OnlineReq { server: "h1".to_owned(), ..OnlineReq::default() };
        server.logic().renew_online(request).await.unwrap().into_inner().epoch
    };
    let before = renew().await;
    assert_ne!(before, 0);
    let connected_ms = server.connect(r#"{"mid":7,"key":"phone"}"#).await.unwrap().connected_ms;
    assert_eq!(renew().await, before);
    server.store.lose();
    assert_eq!(server.at("phone").await, None);
    assert_ne!(renew().await, before);
    let sessions = vec![proto::sessions::Held { mid: 7, key: "phone".to_owned(), connected_ms }];
    let request = RegisterReq { server: "h1".to_owned(), incarnation: 1, sessions };
    let mut sessions = SessionsClient::new(server.channel.clone());
    sessions.register(request.clone()).await.unwrap();
    assert_eq!(server.at("phone").await, Some("h1".into()));
    server.store.set_away(true);
    assert_eq!(sessions.register(request).await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn receive_and_nodes_are_answered() {
    let server = server().await;
    let proto = Some(Proto { op: 1000, ..Proto::default() });
    server.logic().receive(ReceiveReq { mid: 7, proto, ..ReceiveReq::default() }).await.unwrap();
    let request = NodesReq { platform: "web".to_owned(), client_ip: "1.2.3.4".to_owned() };
    assert_eq!(server.logic().nodes(request).await.unwrap().into_inner().domain, "web 1.2.3.4");
}

#[tokio::test]
async fn locate_and_probe_are_served_on_the_same_port() {
    let server = server().await;
    server.connect(r#"{"key":"here"}"#).await.unwrap();
    let keys = vec!["here".to_owned(), "nowhere".to_owned()];
    let found = SessionsClient::new(server.channel.clone()).locate(LocateReq { keys }).await.unwrap().into_inner();
    assert_eq!(found.servers, [("here".to_owned(), "h1".to_owned())].into());
    let probe = SendReq { server: "h1".to_owned(), key: "probe".to_owned() };
    ProbeClient::new(server.channel.clone()).send(probe).await.unwrap();
    let record = server.log.read(&[0], 1).await.remove(0);
    assert_eq!(PushMsg::decode(record.value).unwrap().keys, ["probe"]);
}

#[tokio::test]
async fn a_large_map_of_rooms_passes() {
    let server = server().await;
    let rooms = (0..200_000).map(|n| (format!("live://a-room-with-a-name-{n}"), 1)).collect();
    let request = OnlineReq { server: "h1".to_owned(), room_count: rooms, info: None };
    assert!(request.encoded_len() > 5 << 20);
    let logic = server.logic().send_compressed(Gzip).accept_compressed(Gzip);
    logic.max_decoding_message_size(MAX_MESSAGE).renew_online(request).await.unwrap();
    assert_eq!(server.store.online(&"h1".into()).await.unwrap().unwrap().rooms.len(), 200_000);
}

/// As a Go comet calls: `grpc-encoding: gzip`, no `grpc-accept-encoding`; and the same without gzip.
#[tokio::test]
async fn a_gzipped_renewal_is_answered_gzipped_and_a_plain_one_plain() {
    let server = server().await;
    let rooms: std::collections::HashMap<String, i32> = (0..100).map(|n| (format!("live://{n}"), n)).collect();
    server.online.set(rooms.clone(), vec![]);
    let message = OnlineReq { server: "go".to_owned(), room_count: rooms.clone(), info: None }.encode_to_vec();
    for gzipped in [true, false] {
        let body = if gzipped { gzip(&message) } else { message.clone() };
        let mut frame = vec![u8::from(gzipped)];
        frame.extend((body.len() as u32).to_be_bytes());
        frame.extend(body);
        let (encoding, frame) = call(server.address, frame, gzipped).await;
        assert_eq!(encoding.as_deref(), gzipped.then_some("gzip"));
        assert_eq!(frame[0], u8::from(gzipped));
        let payload = if gzipped { gunzip(&frame[5..]) } else { frame[5..].to_vec() };
        assert_eq!(OnlineReply::decode(&payload[..]).unwrap().all_room_count, rooms);
    }
}

/// One unary call by hand: the answer's `grpc-encoding` and its first frame.
async fn call(address: SocketAddr, frame: Vec<u8>, gzipped: bool) -> (Option<String>, Vec<u8>) {
    use http_body_util::{BodyExt, Full};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut request = http::Request::post(format!("http://{address}/goim.logic.Logic/RenewOnline"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if gzipped {
        request = request.header("grpc-encoding", "gzip");
    }
    let response = sender.send_request(request.body(Full::new(bytes::Bytes::from(frame))).unwrap()).await.unwrap();
    let encoding = response.headers().get("grpc-encoding").map(|value| value.to_str().unwrap().to_owned());
    (encoding, response.into_body().collect().await.unwrap().to_bytes().to_vec())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(bytes), &mut out).unwrap();
    out
}

#[tokio::test]
async fn bytes_that_are_no_grpc_end_that_connection_alone() {
    let server = server().await;
    let mut stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    server.connect(r#"{"key":"here"}"#).await.unwrap();
}
