//! What comets call: goim's Logic on goim's path, and ours beside it on the same port.

use std::sync::Arc;
use std::time::Duration;

use futures::Future;
use http::header::HeaderValue;
use proto::ServerId;
use proto::grpc::MAX_MESSAGE;
use proto::grpc::tls::Tls;
use proto::logic::logic_server::{Logic, LogicServer};
use proto::logic::{
    ConnectReply, ConnectReq, DisconnectReply, DisconnectReq, HeartbeatReply, HeartbeatReq, NodesReply, NodesReq,
    OnlineReply, OnlineReq, ReceiveReply, ReceiveReq,
};
use proto::sessions::probe_server::{Probe, ProbeServer};
use proto::sessions::sessions_server::{Sessions as Locate, SessionsServer};
use proto::sessions::{LocateReply, LocateReq, NotedReply, NotedReq, RegisterReply, RegisterReq, SendReply, SendReq};
use tokio::net::TcpListener;
use tonic::codec::CompressionEncoding::Gzip;
use tonic::{Request, Response, Status};

use crate::auth::Presented;
use crate::online::Online;
use crate::receive::Receive;
use crate::session::{Entered, Sessions};
use crate::store::{Held, Session, SessionStore};

type Answer<T> = Result<Response<T>, Status>;

/// Platform and client address to the answer of GET `/goim/nodes/weighted`.
pub type Nodes = Arc<dyn Fn(&str, &str) -> NodesReply + Send + Sync>;

/// A time that may change.
pub type Heartbeat = Arc<dyn Fn() -> Duration + Send + Sync>;

/// Everything the calls need. Cheap to clone.
#[derive(Clone)]
pub struct Service {
    /// Connect, Disconnect, Heartbeat, Locate, Register, Noted, Send.
    pub sessions: Sessions,
    /// RenewOnline writes here …
    pub store: Arc<dyn SessionStore>,
    /// … and answers from here.
    pub online: Online,
    /// Receive.
    pub receive: Receive,
    /// Nodes.
    pub nodes: Nodes,
    /// After how long without a heartbeat a client is closed, for whoever comes now.
    pub heartbeat: Heartbeat,
}

/// Serves until `until`, with `tls` our own processes alone; then finishes the calls in flight.
///
/// # Errors
/// When the server cannot go on.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Tls>,
    service: Service,
    until: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let service = Arc::new(service);
    let logic = LogicServer::from_arc(service.clone())
        .accept_compressed(Gzip)
        .send_compressed(Gzip)
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    proto::grpc::server()
        .layer(tower::util::MapRequestLayer::new(answer_in_kind))
        .add_service(logic)
        .add_service(SessionsServer::from_arc(service.clone()))
        .add_service(ProbeServer::from_arc(service))
        .serve_with_incoming_shutdown(proto::grpc::incoming(listener, tls), until)
        .await
}

/// A request that came gzipped is answered gzipped, others are not: goim's comets send no `grpc-accept-encoding` and
/// expect just that, and ours would have every small answer compressed.
fn answer_in_kind<B>(mut request: http::Request<B>) -> http::Request<B> {
    let headers = request.headers_mut();
    if headers.get("grpc-encoding").is_some_and(|encoding| encoding == "gzip") {
        headers.insert("grpc-accept-encoding", HeaderValue::from_static("gzip"));
    } else {
        headers.remove("grpc-accept-encoding");
    }
    request
}

#[tonic::async_trait]
impl Logic for Service {
    async fn connect(&self, request: Request<ConnectReq>) -> Answer<ConnectReply> {
        let ConnectReq { server, cookie, token, address, incarnation } = request.into_inner();
        let presented = Presented { body: &token, cookie: &cookie, address: &address };
        let Entered { identity, connected_ms } = self.sessions.connect(server.into(), incarnation, presented).await?;
        Ok(Response::new(ConnectReply {
            mid: identity.mid.0,
            key: identity.key.as_str().to_owned(),
            room_id: identity.room.as_str().to_owned(),
            accepts: identity.accepts,
            heartbeat: i64::try_from((self.heartbeat)().as_nanos()).unwrap_or(i64::MAX),
            session_ttl_ms: u64::try_from(self.sessions.ttl().as_millis()).unwrap_or(u64::MAX),
            connected_ms,
            rooms_allowed: rooms_allowed(identity.rooms),
            expires_ms: identity.expires_ms,
        }))
    }

    async fn disconnect(&self, request: Request<DisconnectReq>) -> Answer<DisconnectReply> {
        let DisconnectReq { mid, key, server, incarnation } = request.into_inner();
        let has = self.sessions.disconnect(&session(mid, key, server, incarnation)).await?;
        Ok(Response::new(DisconnectReply { has }))
    }

    async fn heartbeat(&self, request: Request<HeartbeatReq>) -> Answer<HeartbeatReply> {
        let HeartbeatReq { mid, key, server, incarnation, connected_ms } = request.into_inner();
        let session = session(mid, key, server, incarnation);
        self.sessions.heartbeat(&Held { session, since_ms: connected_ms }).await?;
        Ok(Response::new(HeartbeatReply {}))
    }

    async fn renew_online(&self, request: Request<OnlineReq>) -> Answer<OnlineReply> {
        let OnlineReq { server, room_count, info } = request.into_inner();
        let rooms = room_count.into_iter().map(|(room, count)| (room.into(), count)).collect();
        let server = ServerId::from(server);
        self.store.renew_online(&server, &rooms, info.as_ref(), self.sessions.ttl()).await?;
        let epoch = self.store.epoch().await?;
        Ok(Response::new(OnlineReply { all_room_count: (*self.online.rooms()).clone(), epoch }))
    }

    async fn receive(&self, request: Request<ReceiveReq>) -> Answer<ReceiveReply> {
        self.receive.offer(request.into_inner());
        Ok(Response::new(ReceiveReply {}))
    }

    async fn nodes(&self, request: Request<NodesReq>) -> Answer<NodesReply> {
        let NodesReq { platform, client_ip } = request.into_inner();
        Ok(Response::new((self.nodes)(&platform, &client_ip)))
    }
}

#[tonic::async_trait]
impl Locate for Service {
    async fn locate(&self, request: Request<LocateReq>) -> Answer<LocateReply> {
        let servers = self.sessions.locate(request.into_inner().keys).await?.collect();
        Ok(Response::new(LocateReply { servers }))
    }

    async fn register(&self, request: Request<RegisterReq>) -> Answer<RegisterReply> {
        let RegisterReq { server, incarnation, sessions } = request.into_inner();
        let server = ServerId::from(server);
        let held = sessions.into_iter().map(|proto::sessions::Held { mid, key, connected_ms }| Held {
            session: Session { mid: proto::Mid(mid), key: key.into(), server: server.clone(), incarnation },
            since_ms: connected_ms,
        });
        self.sessions.register(&held.collect::<Vec<_>>()).await?;
        Ok(Response::new(RegisterReply {}))
    }

    async fn noted(&self, request: Request<NotedReq>) -> Answer<NotedReply> {
        let NotedReq { server, incarnation, cursor } = request.into_inner();
        let noted = self.sessions.noted(&server.into(), incarnation, &cursor).await?;
        let sessions = noted.sessions.into_iter();
        let sessions = sessions.map(|(mid, key)| proto::sessions::Noted { mid: mid.0, key: key.as_str().to_owned() });
        Ok(Response::new(NotedReply { sessions: sessions.collect(), cursor: noted.cursor }))
    }
}

#[tonic::async_trait]
impl Probe for Service {
    async fn send(&self, request: Request<SendReq>) -> Answer<SendReply> {
        let SendReq { server, key } = request.into_inner();
        self.sessions.probe(server, key).await?;
        Ok(Response::new(SendReply {}))
    }
}

/// On the wire no rooms are all rooms. So that none stays none, it is written as the one room that nobody can enter.
fn rooms_allowed(rooms: Option<Vec<String>>) -> Vec<String> {
    match rooms {
        None => Vec::new(),
        Some(none) if none.is_empty() => vec![String::new()],
        Some(some) => some,
    }
}

fn session(mid: i64, key: String, server: String, incarnation: u64) -> Session {
    Session { mid: proto::Mid(mid), key: key.into(), server: server.into(), incarnation }
}

#[cfg(test)]
mod tests;
