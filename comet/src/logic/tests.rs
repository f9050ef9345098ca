//! One suite for the twin in memory and for a real server behind gRPC, and what only gRPC can do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proto::log::now_ms;
use proto::logic::logic_server::{self, LogicServer};
use proto::logic::*;
use proto::sessions::probe_server::{self, ProbeServer};
use proto::sessions::sessions_server::{self, SessionsServer};
use proto::sessions::{LocateReply, LocateReq, NotedReply, NotedReq, RegisterReply, RegisterReq, SendReply, SendReq};
use proto::{ServerId, grpc, op};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::codec::CompressionEncoding::Gzip;
use tonic::{Code, Request, Response, Status};

use super::memory::{MemoryLogic, Said};
use super::*;

const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(9, 9, 9, 9));

fn held(mid: i64, key: &str) -> Held {
    Held { mid: Mid(mid), key: key.into(), connected_ms: 5 }
}

/// What a [`Logic`] does, whoever does it; `twin` is where the calls arrive.
async fn suite(logic: &dyn Logic, twin: &MemoryLogic) {
    let token = Bytes::from_static(
        br#"{"mid":7,"key":"k1","room_id":"live://1","accepts":[1000,-1],"rooms_allowed":["live://1"],
            "session_ttl_ms":9,"expires_ms":99999999999999}"#,
    );
    let before = now_ms();
    let identity = logic.connect("sid=1", token.clone(), ADDRESS).await.unwrap();
    assert!((before..=now_ms()).contains(&identity.connected_ms));
    let key = Key::from("k1");
    assert_eq!(
        identity,
        Identity {
            mid: Mid(7),
            key: key.clone(),
            room: Some("live://1".into()),
            accepts: vec![1000, -1],
            heartbeat: Duration::from_secs(480),
            session_ttl: Some(Duration::from_millis(9)),
            rooms_allowed: vec!["live://1".into()],
            expires_ms: 99_999_999_999_999,
            connected_ms: identity.connected_ms,
        }
    );
    let anonymous = logic.connect("", Bytes::from_static(b"{}"), ADDRESS).await.unwrap();
    assert!(anonymous.mid.is_anonymous() && !anonymous.key.as_str().is_empty());
    assert_eq!((anonymous.room, anonymous.session_ttl), (None, None));
    assert_eq!(twin.sessions(), [key.clone(), anonymous.key]);

    let refused = logic.connect("", Bytes::from_static(b"not JSON"), ADDRESS).await.unwrap_err();
    assert!(matches!(&refused, LogicError::Refused(text) if text.starts_with("auth body: ")), "{refused}");

    assert_eq!(logic.disconnect(Mid(7), &key).await, Ok(true));
    assert_eq!(logic.disconnect(Mid(7), &key).await, Ok(false));
    logic.heartbeat(held(7, "k1")).await.unwrap();
    assert!(twin.sessions().contains(&key), "a heartbeat notes the session again");

    twin.set_online([("live://1".to_owned(), 40)]);
    let rooms = HashMap::from([("live://1".to_owned(), 2), ("live://2".to_owned(), 1)]);
    let info = CometInfo { host: "h".into(), conn_count: 3, ..CometInfo::default() };
    let everywhere = logic.renew_online(rooms.clone(), info.clone()).await.unwrap();
    let counts = HashMap::from([("live://1".to_owned(), 42), ("live://2".to_owned(), 1)]);
    assert_eq!(everywhere, Renewed { everywhere: counts, epoch: 1 });
    twin.lose();
    let registered = vec![held(7, "k1")];
    logic.register(registered.clone()).await.unwrap();
    assert_eq!(twin.sessions(), std::slice::from_ref(&key));
    logic.register(["k2", "k3", "k4"].map(|key| held(8, key)).into()).await.unwrap();
    let first = logic.noted("").await.unwrap();
    let named = |mid, key: &str| (Mid(mid), Key::from(key));
    assert_eq!(first.sessions, [named(7, "k1"), named(8, "k2"), named(8, "k3")]);
    assert_eq!(logic.noted(&first.cursor).await.unwrap(), Noted { sessions: vec![named(8, "k4")], cursor: "".into() });

    let packet = Packet { ver: 1, op: op::AUTH, seq: 5, body: Bytes::from_static(b"body") };
    logic.receive(Mid(7), &key, packet.clone()).await.unwrap();
    logic.probe("probe-1").await.unwrap();

    let said = twin.said();
    assert_eq!(said[0], Said::Connect { cookie: "sid=1".into(), token, address: ADDRESS });
    let rest = [
        Said::Disconnect { mid: Mid(7), key: key.clone() },
        Said::Disconnect { mid: Mid(7), key: key.clone() },
        Said::Heartbeat { held: held(7, "k1") },
        Said::RenewOnline { rooms, info },
        Said::Register { held: registered },
        Said::Register { held: ["k2", "k3", "k4"].map(|key| held(8, key)).into() },
        Said::Noted { cursor: "".into() },
        Said::Noted { cursor: first.cursor },
        Said::Receive { mid: Mid(7), key: key.clone(), packet },
        Said::Probe { key: "probe-1".into() },
    ];
    assert_eq!(said[3..], rest);

    let late = logic.connect("", Bytes::from_static(br#"{"mid":7,"expires_ms":1}"#), ADDRESS).await.unwrap_err();
    assert!(matches!(&late, LogicError::Expired(_)), "{late}");

    twin.set_down(true);
    assert!(matches!(logic.heartbeat(held(7, "k1")).await, Err(LogicError::Unavailable(_))));
    twin.set_down(false);
    logic.heartbeat(held(7, "k1")).await.unwrap();
}

/// A gRPC server in front of the twin, as logic's is.
#[derive(Clone, Default)]
struct Served {
    twin: Arc<MemoryLogic>,
    calls: Arc<AtomicUsize>,
    heartbeat: Option<i64>,
    answer: Option<(Code, &'static str)>,
}

fn status(error: LogicError) -> Status {
    match error {
        LogicError::Refused(text) => Status::unknown(text),
        LogicError::Expired(text) => Status::unauthenticated(text),
        LogicError::Unavailable(text) => Status::unavailable(text),
    }
}

impl Served {
    /// Serves on a free port; the server ends with the test's runtime.
    async fn start(self, server: tonic::transport::Server) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mut server = server;
        let serving = server
            .add_service(LogicServer::new(self.clone()).accept_compressed(Gzip).send_compressed(Gzip))
            .add_service(SessionsServer::new(self.clone()))
            .add_service(ProbeServer::new(self))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(serving);
        address
    }
}

fn client(addresses: &str) -> LogicClient {
    LogicClient::lazy(addresses, ServerId::from("comet-1"), 7, None).unwrap()
}

#[tonic::async_trait]
impl logic_server::Logic for Served {
    async fn connect(&self, request: Request<ConnectReq>) -> Result<Response<ConnectReply>, Status> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if let Some((code, text)) = self.answer {
            return Err(Status::new(code, text));
        }
        let ConnectReq { server, cookie, token, address, incarnation } = request.into_inner();
        assert_eq!((server.as_str(), incarnation), ("comet-1", 7));
        let identity = self.twin.connect(&cookie, token, address.parse().unwrap()).await.map_err(status)?;
        Ok(Response::new(ConnectReply {
            mid: identity.mid.0,
            key: identity.key.to_string(),
            room_id: identity.room.map(|room| room.to_string()).unwrap_or_default(),
            accepts: identity.accepts,
            heartbeat: self.heartbeat.unwrap_or(identity.heartbeat.as_nanos() as i64),
            rooms_allowed: identity.rooms_allowed,
            expires_ms: identity.expires_ms,
            session_ttl_ms: identity.session_ttl.map_or(0, |ttl| ttl.as_millis() as u64),
            connected_ms: identity.connected_ms,
        }))
    }

    async fn disconnect(&self, request: Request<DisconnectReq>) -> Result<Response<DisconnectReply>, Status> {
        let DisconnectReq { mid, key, server, incarnation } = request.into_inner();
        assert_eq!((server.as_str(), incarnation), ("comet-1", 7));
        let has = self.twin.disconnect(Mid(mid), &key.into()).await.map_err(status)?;
        Ok(Response::new(DisconnectReply { has }))
    }

    async fn heartbeat(&self, request: Request<HeartbeatReq>) -> Result<Response<HeartbeatReply>, Status> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let HeartbeatReq { mid, key, server, incarnation, connected_ms } = request.into_inner();
        assert_eq!((server.as_str(), incarnation), ("comet-1", 7));
        self.twin.heartbeat(Held { mid: Mid(mid), key: key.into(), connected_ms }).await.map_err(status)?;
        Ok(Response::new(HeartbeatReply {}))
    }

    async fn renew_online(&self, request: Request<OnlineReq>) -> Result<Response<OnlineReply>, Status> {
        let encoding = request.metadata().get("grpc-encoding").map(|value| value.as_bytes().to_vec());
        assert_eq!(encoding.as_deref(), Some(&b"gzip"[..]), "the request is compressed");
        let OnlineReq { server, room_count, info } = request.into_inner();
        assert_eq!(server, "comet-1");
        let renewed = self.twin.renew_online(room_count, info.unwrap()).await.map_err(status)?;
        Ok(Response::new(OnlineReply { all_room_count: renewed.everywhere, epoch: renewed.epoch }))
    }

    async fn receive(&self, request: Request<ReceiveReq>) -> Result<Response<ReceiveReply>, Status> {
        let ReceiveReq { mid, proto, key, server } = request.into_inner();
        assert_eq!(server, "comet-1");
        let proto = proto.unwrap();
        let packet = Packet { ver: proto.ver as i16, op: proto.op, seq: proto.seq, body: proto.body };
        self.twin.receive(Mid(mid), &key.into(), packet).await.map_err(status)?;
        Ok(Response::new(ReceiveReply {}))
    }

    async fn nodes(&self, _: Request<NodesReq>) -> Result<Response<NodesReply>, Status> {
        Err(Status::unimplemented("not asked by comets"))
    }
}

#[tonic::async_trait]
impl sessions_server::Sessions for Served {
    async fn locate(&self, _: Request<LocateReq>) -> Result<Response<LocateReply>, Status> {
        Err(Status::unimplemented("not asked by comets"))
    }

    async fn register(&self, request: Request<RegisterReq>) -> Result<Response<RegisterReply>, Status> {
        let RegisterReq { server, incarnation, sessions } = request.into_inner();
        assert_eq!((server.as_str(), incarnation), ("comet-1", 7));
        let held = sessions.into_iter().map(|held| Held {
            mid: Mid(held.mid),
            key: held.key.into(),
            connected_ms: held.connected_ms,
        });
        self.twin.register(held.collect()).await.map_err(status)?;
        Ok(Response::new(RegisterReply {}))
    }

    async fn noted(&self, request: Request<NotedReq>) -> Result<Response<NotedReply>, Status> {
        let NotedReq { server, incarnation, cursor } = request.into_inner();
        assert_eq!((server.as_str(), incarnation), ("comet-1", 7));
        let noted = self.twin.noted(&cursor).await.map_err(status)?;
        let sessions = noted.sessions.into_iter();
        let sessions = sessions.map(|(mid, key)| proto::sessions::Noted { mid: mid.0, key: key.to_string() });
        Ok(Response::new(NotedReply { sessions: sessions.collect(), cursor: noted.cursor }))
    }
}

#[tonic::async_trait]
impl probe_server::Probe for Served {
    async fn send(&self, request: Request<SendReq>) -> Result<Response<SendReply>, Status> {
        let SendReq { server, key } = request.into_inner();
        assert_eq!(server, "comet-1");
        self.twin.probe(&key).await.map_err(status)?;
        Ok(Response::new(SendReply {}))
    }
}

#[tokio::test]
async fn the_twin_in_memory_is_a_logic() {
    let twin = MemoryLogic::default();
    suite(&twin, &twin).await;
}

#[tokio::test]
async fn a_server_over_grpc_is_a_logic_and_online_counts_are_compressed() {
    let served = Served::default();
    let twin = served.twin.clone();
    let address = served.start(grpc::server()).await;
    suite(&client(&address), &twin).await;
}

#[tokio::test]
async fn a_plain_reply_to_a_compressed_renewal_is_taken() {
    let served = Served::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let plain = LogicServer::new(served).accept_compressed(Gzip);
    tokio::spawn(grpc::server().add_service(plain).serve_with_incoming(TcpListenerStream::new(listener)));
    let rooms = HashMap::from([("live://1".to_owned(), 2)]);
    assert_eq!(client(&address).renew_online(rooms.clone(), CometInfo::default()).await.unwrap().everywhere, rooms);
}

#[tokio::test]
async fn a_refusal_and_an_outage_are_told_apart() {
    for (code, refused) in [
        (Code::Unknown, true),
        (Code::PermissionDenied, true),
        (Code::Unauthenticated, true),
        (Code::InvalidArgument, true),
        (Code::Unimplemented, true),
        (Code::Unavailable, false),
        (Code::DeadlineExceeded, false),
        (Code::Internal, false),
    ] {
        let served = Served { answer: Some((code, "no")), ..Served::default() };
        let calls = served.calls.clone();
        let address = served.start(grpc::server()).await;
        let error = client(&address).connect("", Bytes::from_static(b"{}"), ADDRESS).await.unwrap_err();
        assert_eq!(!matches!(error, LogicError::Unavailable(_)), refused, "{code:?}: {error}");
        assert_eq!(calls.load(Ordering::Relaxed), 1, "a call that was answered is not repeated");
    }
}

#[tokio::test]
async fn a_heartbeat_that_is_not_above_zero_is_refused() {
    for heartbeat in [0, -1, i64::MIN] {
        let served = Served { heartbeat: Some(heartbeat), ..Served::default() };
        let address = served.start(grpc::server()).await;
        let error = client(&address).connect("", Bytes::from_static(b"{}"), ADDRESS).await.unwrap_err();
        assert_eq!(error, LogicError::Refused(format!("heartbeat {heartbeat} ns: expected a time above zero")));
    }
}

async fn closed_port() -> String {
    // Bound and not listening: nobody else gets it while the test runs, and connections are refused.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap().to_string();
    std::mem::forget(socket);
    address
}

#[tokio::test]
async fn calls_take_turns_and_go_on_when_one_server_refuses_connections() {
    let (one, two) = (Served::default(), Served::default());
    let calls = [one.calls.clone(), two.calls.clone()];
    let addresses = [one.start(grpc::server()).await, two.start(grpc::server()).await];
    let logic = client(&addresses.join(", "));
    for _ in 0..10 {
        logic.heartbeat(held(1, "k")).await.unwrap();
    }
    assert_eq!(calls.map(|calls| calls.load(Ordering::Relaxed)), [5, 5]);

    let logic = client(&format!("{},{}", closed_port().await, addresses[0]));
    for _ in 0..10 {
        logic.heartbeat(held(1, "k")).await.unwrap();
    }
}

#[tokio::test]
async fn nobody_there_is_unavailable_and_coming_back_is_noticed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let logic = client(&address);
    let error = logic.heartbeat(held(1, "k")).await.unwrap_err();
    assert!(matches!(error, LogicError::Unavailable(_)), "{error}");
    let listener = TcpListener::bind(&address).await.unwrap();
    let service = LogicServer::new(Served::default());
    tokio::spawn(grpc::server().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while logic.heartbeat(held(1, "k")).await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "it does not connect again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_unavailable_within_the_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let logic = client(&listener.local_addr().unwrap().to_string());
    let begun = tokio::time::Instant::now();
    let error = logic.heartbeat(held(1, "k")).await.unwrap_err();
    assert!(matches!(error, LogicError::Unavailable(_)), "{error}");
    assert!(begun.elapsed() >= Duration::from_secs(2), "it was given its time");
}

#[tokio::test]
async fn a_server_that_says_goodbye_loses_no_call() {
    let served = Served::default();
    let calls = served.calls.clone();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let logic = client(&listener.local_addr().unwrap().to_string());
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    let incoming = futures::StreamExt::inspect(TcpListenerStream::new(listener), move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    // As grpc-go does every two hours, but often.
    let mut server = grpc::server().max_connection_age(Duration::from_millis(20));
    tokio::spawn(server.add_service(LogicServer::new(served)).serve_with_incoming(incoming));
    let begun = std::time::Instant::now();
    let caller = || {
        let logic = logic.clone();
        tokio::spawn(async move {
            let mut made = 0;
            while begun.elapsed() < Duration::from_millis(500) {
                logic.heartbeat(held(1, "k")).await.unwrap();
                made += 1;
                tokio::task::yield_now().await;
            }
            made
        })
    };
    let made = futures::future::join_all((0..8).map(|_| caller())).await;
    let made: usize = made.into_iter().map(Result::unwrap).sum();
    assert_eq!(calls.load(Ordering::Relaxed), made, "each call arrived once");
    assert!(connections.load(Ordering::Relaxed) > 2, "the server did say goodbye");
}

#[tokio::test]
async fn a_name_is_resolved_to_its_addresses() {
    let address = Served::default().start(grpc::server()).await;
    let port = address.rsplit_once(':').unwrap().1;
    let logic = client(&format!("dns:localhost:{port}"));
    // `localhost` may be ::1 as well, where nobody listens: the other address is tried.
    logic.heartbeat(held(1, "k")).await.unwrap();
    let error = client("dns:does-not-exist.invalid:1").heartbeat(held(1, "k")).await.unwrap_err();
    assert!(matches!(&error, LogicError::Unavailable(_)), "{error}");
}

#[tokio::test]
async fn a_bad_address_is_named() {
    for (addresses, expected) in [
        ("localhost", "--logic localhost: expected host:port"),
        ("a:1,:2", "--logic :2: expected host:port"),
        ("a:b", "--logic a:b: expected host:port"),
        ("dns:name", "--logic dns:name: expected dns:name:port"),
    ] {
        let error = LogicClient::lazy(addresses, ServerId::from("s"), 7, None).unwrap_err().to_string();
        assert_eq!(error, expected);
    }
}
