//! A real logic over gRPC, goim's or ours.
//!
//! Several addresses are used in turn ([`proto::pool`]). Every call has a deadline, which goim's have not.

use std::collections::HashMap;
use std::error::Error as _;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use proto::grpc::tls::Tls;
use proto::log::now_ms;
use proto::logic::logic_client;
use proto::logic::{
    CometInfo, ConnectReply, ConnectReq, DisconnectReq, HeartbeatReq, OnlineReply, OnlineReq, ReceiveReq,
};
use proto::pool::{self, Pool};
use proto::sessions::{SendReq, probe_client, sessions_client};
use proto::{Key, Mid, Packet, RoomId, ServerId, grpc, protocol, sessions};
use tonic::codec::CompressionEncoding;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use super::{Held, Identity, Logic, LogicError, Noted, Renewed};

/// How long a client's login may take, the longest of all calls; the handshake timeout may end it sooner.
const CONNECT: Duration = Duration::from_secs(5);
/// How long every other call may take.
const DEADLINE: Duration = Duration::from_secs(3);

/// The logic servers behind a list of addresses. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LogicClient {
    server: Arc<str>,
    incarnation: u64,
    pool: Arc<Pool>,
}

impl LogicClient {
    /// A client that connects on its first call: `addresses` is `host:port`, several comma-separated, or
    /// `dns:name:port`. `server` and `incarnation` are who we are; with `tls` logic knows us by our certificate. Must be
    /// called within a tokio runtime.
    ///
    /// # Errors
    /// When an address is not one; one line naming it.
    pub fn lazy(addresses: &str, server: ServerId, incarnation: u64, tls: Option<Tls>) -> anyhow::Result<Self> {
        let pool = pool::source(addresses).and_then(|source| Pool::lazy(source, CONNECT, tls));
        let pool = pool.map_err(|error| anyhow::anyhow!("--logic {error}"))?;
        Ok(Self { server: server.as_str().into(), incarnation, pool: Arc::new(pool) })
    }

    /// Makes a call at one of the addresses.
    async fn call<Q, T, F>(
        &self,
        deadline: Duration,
        request: Q,
        make: impl Fn(Channel, Q) -> F,
    ) -> Result<T, LogicError>
    where
        Q: Clone,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        Ok(self.pool.call(deadline, request, make).await?)
    }
}

impl From<Status> for LogicError {
    /// A status that travelled is an answer; one with a source was made here because the transport failed. goim's logic
    /// has one status, `Unknown`, with the error's text.
    fn from(status: Status) -> Self {
        let text = match (status.message(), status.code()) {
            ("", code) => format!("{code:?}"),
            (message, Code::Unknown) => message.to_owned(),
            (message, code) => format!("{code:?}: {message}"),
        };
        let unanswered = matches!(
            status.code(),
            Code::Unavailable
                | Code::DeadlineExceeded
                | Code::Cancelled
                | Code::Internal
                | Code::Aborted
                | Code::DataLoss
        );
        match status.code() {
            _ if unanswered || status.source().is_some() => Self::Unavailable(text),
            Code::Unauthenticated => Self::Expired(text),
            _ => Self::Refused(text),
        }
    }
}

impl TryFrom<ConnectReply> for Identity {
    type Error = LogicError;

    fn try_from(reply: ConnectReply) -> Result<Self, LogicError> {
        let heartbeat = u64::try_from(reply.heartbeat).ok().filter(|nanos| *nanos > 0);
        let heartbeat = heartbeat.ok_or_else(|| {
            LogicError::Refused(format!("heartbeat {} ns: expected a time above zero", reply.heartbeat))
        })?;
        Ok(Self {
            mid: Mid(reply.mid),
            key: reply.key.into(),
            room: Some(RoomId::from(reply.room_id)).filter(|room| !room.as_str().is_empty()),
            accepts: reply.accepts,
            heartbeat: Duration::from_nanos(heartbeat),
            session_ttl: Some(Duration::from_millis(reply.session_ttl_ms)).filter(|ttl| !ttl.is_zero()),
            rooms_allowed: reply.rooms_allowed,
            expires_ms: reply.expires_ms,
            connected_ms: if reply.connected_ms == 0 { now_ms() } else { reply.connected_ms },
        })
    }
}

fn client(channel: Channel) -> logic_client::LogicClient<Channel> {
    logic_client::LogicClient::new(channel).max_decoding_message_size(grpc::MAX_MESSAGE)
}

#[async_trait]
impl Logic for LogicClient {
    async fn connect(&self, cookie: &str, token: Bytes, address: IpAddr) -> Result<Identity, LogicError> {
        let (server, cookie, address) = (self.server.to_string(), cookie.to_owned(), address.to_string());
        let request = ConnectReq { server, cookie, token, address, incarnation: self.incarnation };
        let make = |channel, request| async move { client(channel).connect(request).await };
        self.call(CONNECT, request, make).await?.try_into()
    }

    async fn disconnect(&self, mid: Mid, key: &Key) -> Result<bool, LogicError> {
        let (server, incarnation) = (self.server.to_string(), self.incarnation);
        let request = DisconnectReq { mid: mid.0, key: key.to_string(), server, incarnation };
        let make = |channel, request| async move { client(channel).disconnect(request).await };
        Ok(self.call(DEADLINE, request, make).await?.has)
    }

    async fn heartbeat(&self, Held { mid, key, connected_ms }: Held) -> Result<(), LogicError> {
        let (server, incarnation) = (self.server.to_string(), self.incarnation);
        let request = HeartbeatReq { mid: mid.0, key: key.to_string(), server, incarnation, connected_ms };
        let make = |channel, request| async move { client(channel).heartbeat(request).await };
        self.call(DEADLINE, request, make).await.map(drop)
    }

    async fn renew_online(&self, rooms: HashMap<String, i32>, info: CometInfo) -> Result<Renewed, LogicError> {
        let request = OnlineReq { server: self.server.to_string(), room_count: rooms, info: Some(info) };
        let make = |channel, request| async move {
            let gzip = CompressionEncoding::Gzip;
            client(channel).send_compressed(gzip).accept_compressed(gzip).renew_online(request).await
        };
        let OnlineReply { all_room_count: everywhere, epoch } = self.call(DEADLINE, request, make).await?;
        Ok(Renewed { everywhere, epoch })
    }

    async fn register(&self, held: Vec<Held>) -> Result<(), LogicError> {
        let sessions = held.into_iter().map(|Held { mid, key, connected_ms }| sessions::Held {
            mid: mid.0,
            key: key.to_string(),
            connected_ms,
        });
        let (server, incarnation) = (self.server.to_string(), self.incarnation);
        let request = sessions::RegisterReq { server, incarnation, sessions: sessions.collect() };
        let make =
            |channel, request| async move { sessions_client::SessionsClient::new(channel).register(request).await };
        self.call(DEADLINE, request, make).await.map(drop)
    }

    async fn noted(&self, cursor: &str) -> Result<Noted, LogicError> {
        let (server, incarnation) = (self.server.to_string(), self.incarnation);
        let request = sessions::NotedReq { server, incarnation, cursor: cursor.to_owned() };
        let make = |channel, request| async move { sessions_client::SessionsClient::new(channel).noted(request).await };
        let sessions::NotedReply { sessions, cursor } = self.call(DEADLINE, request, make).await?;
        let sessions = sessions.into_iter().map(|sessions::Noted { mid, key }| (Mid(mid), key.into())).collect();
        Ok(Noted { sessions, cursor })
    }

    async fn receive(&self, mid: Mid, key: &Key, packet: Packet) -> Result<(), LogicError> {
        let Packet { ver, op, seq, body } = packet;
        let packet = protocol::Proto { ver: ver.into(), op, seq, body };
        let (key, server) = (key.to_string(), self.server.to_string());
        let request = ReceiveReq { mid: mid.0, proto: Some(packet), key, server };
        let make = |channel, request| async move { client(channel).receive(request).await };
        self.call(DEADLINE, request, make).await.map(drop)
    }

    async fn probe(&self, key: &str) -> Result<(), LogicError> {
        let request = SendReq { server: self.server.to_string(), key: key.to_owned() };
        let make = |channel, request| async move { probe_client::ProbeClient::new(channel).send(request).await };
        self.call(DEADLINE, request, make).await.map(drop)
    }
}
