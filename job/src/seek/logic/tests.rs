//! One suite for the twin in memory and for a real server behind gRPC.

use proto::sessions::sessions_server::{Sessions, SessionsServer};
use proto::sessions::{LocateReply, NotedReply, NotedReq, RegisterReply, RegisterReq};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use super::*;

async fn suite(logic: &dyn Locate, twin: &MemoryLogic) {
    let keys = vec!["a".to_owned(), "b".to_owned(), "nowhere".to_owned()];
    let error = logic.locate(keys.clone()).await.unwrap_err();
    assert!(error.contains("connection refused"), "{error}");
    twin.set(&[("a", "comet-1"), ("b", "comet-2"), ("c", "comet-3")]);
    let servers = logic.locate(keys.clone()).await.unwrap();
    let expected = [("a", "comet-1"), ("b", "comet-2")].map(|(key, server)| (key.to_owned(), server.to_owned()));
    assert_eq!(servers, HashMap::from(expected));
    assert_eq!(twin.asked(), [keys.clone(), keys]);
}

struct Served(MemoryLogic);

#[tonic::async_trait]
impl Sessions for Served {
    async fn locate(&self, request: Request<LocateReq>) -> Result<Response<LocateReply>, Status> {
        let servers = self.0.locate(request.into_inner().keys).await.map_err(Status::unavailable)?;
        Ok(Response::new(LocateReply { servers }))
    }

    async fn register(&self, _: Request<RegisterReq>) -> Result<Response<RegisterReply>, Status> {
        Err(Status::unimplemented("job registers nobody"))
    }

    async fn noted(&self, _: Request<NotedReq>) -> Result<Response<NotedReply>, Status> {
        Err(Status::unimplemented("not asked by job"))
    }
}

#[tokio::test]
async fn the_twin_in_memory_knows_where_keys_are() {
    let twin = MemoryLogic::default();
    suite(&twin.clone(), &twin).await;
}

#[tokio::test]
async fn a_logic_behind_grpc_knows_where_keys_are() {
    let twin = MemoryLogic::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let service = SessionsServer::new(Served(twin.clone()));
    let server = proto::grpc::server().add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let logic = LogicClient::lazy(proto::pool::source(&address).unwrap(), None).unwrap();
    suite(&logic, &twin).await;
}
