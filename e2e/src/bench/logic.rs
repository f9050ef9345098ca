//! A stand-in for logic: answers Connect from the token alone and remembers nothing. Good for figures about a comet
//! only, which says nothing of sessions.

use anyhow::Context;
use proto::logic::logic_server::{Logic, LogicServer};
use proto::logic::{
    ConnectReply, ConnectReq, DisconnectReply, DisconnectReq, HeartbeatReply, HeartbeatReq, NodesReply, NodesReq,
    OnlineReply, OnlineReq, ReceiveReply, ReceiveReq,
};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status};

use crate::ports::Port;

/// Nanoseconds without op 2 after which comet closes: longer than any measurement.
const SESSION: i64 = 3600 * 1_000_000_000;

/// A Logic server on loopback until it is dropped.
pub struct StandInLogic {
    port: Port,
    task: JoinHandle<()>,
}

impl StandInLogic {
    /// Serves on a port of its own.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn start() -> anyhow::Result<Self> {
        let port = Port::free()?;
        let listener = TcpListener::bind(port.address()).await.context("a port for the stand-in logic")?;
        let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
        let service = LogicServer::new(Trusting).accept_compressed(CompressionEncoding::Gzip);
        let server = proto::grpc::server().add_service(service).serve_with_incoming(incoming);
        let task = tokio::spawn(async move {
            if let Err(error) = server.await {
                tracing::error!(%error, "stand-in logic ended");
            }
        });
        Ok(Self { port, task })
    }

    /// Where it listens.
    pub fn port(&self) -> &Port {
        &self.port
    }
}

impl Drop for StandInLogic {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Trusting;

/// goim's token, as far as the bench writes it.
#[derive(serde::Deserialize)]
struct Token {
    mid: i64,
    key: String,
    room_id: String,
    accepts: Vec<i32>,
}

#[tonic::async_trait]
impl Logic for Trusting {
    async fn connect(&self, request: Request<ConnectReq>) -> Result<Response<ConnectReply>, Status> {
        let token: Token = serde_json::from_slice(&request.into_inner().token)
            .map_err(|error| Status::unauthenticated(format!("token: {error}")))?;
        Ok(Response::new(ConnectReply {
            mid: token.mid,
            key: token.key,
            room_id: token.room_id,
            accepts: token.accepts,
            heartbeat: SESSION,
            ..Default::default()
        }))
    }

    async fn disconnect(&self, _: Request<DisconnectReq>) -> Result<Response<DisconnectReply>, Status> {
        Ok(Response::new(DisconnectReply { has: true }))
    }

    async fn heartbeat(&self, _: Request<HeartbeatReq>) -> Result<Response<HeartbeatReply>, Status> {
        Ok(Response::new(HeartbeatReply {}))
    }

    async fn renew_online(&self, request: Request<OnlineReq>) -> Result<Response<OnlineReply>, Status> {
        Ok(Response::new(OnlineReply { all_room_count: request.into_inner().room_count, epoch: 0 }))
    }

    async fn receive(&self, _: Request<ReceiveReq>) -> Result<Response<ReceiveReply>, Status> {
        Ok(Response::new(ReceiveReply {}))
    }

    async fn nodes(&self, _: Request<NodesReq>) -> Result<Response<NodesReply>, Status> {
        Err(Status::unimplemented("a stand-in knows no nodes"))
    }
}
