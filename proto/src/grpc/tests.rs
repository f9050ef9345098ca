use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use socket2::{SockFilter, SockRef};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Response, Status};

use super::*;
use crate::delivery::delivery_client::DeliveryClient;
use crate::delivery::delivery_server::{Delivery, DeliveryServer};
use crate::delivery::{ClaimReply, ClaimReq, Down, HelloReply, HelloReq, KickReply, KickReq, Up};

/// Notes the traces it sees; answers hello, never a claim.
#[derive(Clone, Default)]
pub(super) struct Fake {
    traces: Arc<Mutex<Vec<Option<String>>>>,
}

#[tonic::async_trait]
impl Delivery for Fake {
    async fn hello(&self, request: Request<HelloReq>) -> Result<Response<HelloReply>, Status> {
        self.traces.lock().push(traceparent(&request).map(str::to_owned));
        Ok(Response::new(HelloReply { server: "comet-1".into(), incarnation: 7 }))
    }

    async fn claim(&self, _: Request<ClaimReq>) -> Result<Response<ClaimReply>, Status> {
        std::future::pending().await
    }

    async fn kick(&self, _: Request<KickReq>) -> Result<Response<KickReply>, Status> {
        Ok(Response::new(KickReply {}))
    }

    type DeliverStream = tonic::codegen::BoxStream<Up>;

    async fn deliver(&self, _: Request<tonic::Streaming<Down>>) -> Result<Response<Self::DeliverStream>, Status> {
        Err(Status::unimplemented("no streams here"))
    }
}

async fn serve(fake: Fake, address: &str) -> (SocketAddr, JoinHandle<()>) {
    let address: SocketAddr = address.parse().unwrap();
    let incoming = loop {
        // The port of a server that has just ended may still be held for a moment.
        match TcpIncoming::bind(address) {
            Ok(incoming) => break incoming,
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    let bound = incoming.local_addr().unwrap();
    let serving = server().add_service(DeliveryServer::new(fake)).serve_with_incoming(incoming);
    (bound, tokio::spawn(async move { serving.await.unwrap() }))
}

fn client(address: SocketAddr, deadline: Duration) -> DeliveryClient<Channel> {
    DeliveryClient::new(channel(&address.to_string(), deadline).unwrap())
}

pub(super) const PATIENT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_call_carries_its_trace_when_it_has_one() {
    let fake = Fake::default();
    let (address, server) = serve(fake.clone(), "127.0.0.1:0").await;
    let mut client = client(address, PATIENT);
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    assert_eq!(client.hello(traced(HelloReq {}, Some(trace))).await.unwrap().into_inner().server, "comet-1");
    client.hello(traced(HelloReq {}, None)).await.unwrap();
    client.hello(traced(HelloReq {}, Some("no\nmetadata"))).await.unwrap();
    assert_eq!(*fake.traces.lock(), [Some(trace.to_owned()), None, None]);
    server.abort();
}

/// A server with a runtime of its own: when that goes, the connections go with it, as when its process dies.
async fn serve_apart(address: String) -> (SocketAddr, tokio::runtime::Runtime) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let serving = runtime.spawn(async move { serve(Fake::default(), &address).await.0 });
    (serving.await.unwrap(), runtime)
}

#[tokio::test]
async fn a_server_that_comes_back_is_found_again_by_the_same_channel() {
    let (address, server) = serve_apart("127.0.0.1:0".to_owned()).await;
    let mut client = client(address, PATIENT);
    client.hello(HelloReq {}).await.unwrap();
    server.shutdown_background();
    let away = tokio::time::timeout(PATIENT, async {
        loop {
            match client.hello(HelloReq {}).await {
                Err(status) if status.code() == Code::Unavailable => return,
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    });
    away.await.expect("a call to nobody is answered unavailable");
    let (_, server) = serve_apart(address.to_string()).await;
    let back = tokio::time::timeout(PATIENT, async {
        while client.hello(HelloReq {}).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    back.await.expect("found again");
    server.shutdown_background();
}

/// From now on nothing reaches this socket, as when the network is cut: its kernel drops what comes, and acknowledges
/// nothing.
fn cut(socket: &TcpStream) {
    const RETURN: u16 = 0x06;
    SockRef::from(socket).attach_filter(&[SockFilter::new(RETURN, 0, 0, 0)]).unwrap();
}

/// Passes bytes on to a server; the first connection is cut when told so.
async fn relay(to: SocketAddr, first: Arc<tokio::sync::Notify>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut cuts = Some(first);
        loop {
            let (mut from, _) = listener.accept().await.unwrap();
            let cut_at = cuts.take();
            tokio::spawn(async move {
                let mut onward = TcpStream::connect(to).await.unwrap();
                let Some(told) = cut_at else {
                    return drop(tokio::io::copy_bidirectional(&mut from, &mut onward).await);
                };
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut from, &mut onward) => {}
                    () = told.notified() => {
                        cut(&from);
                        std::future::pending().await
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_connection_that_the_network_cut_is_made_anew_instead_of_being_waited_for() {
    let (address, server) = serve(Fake::default(), "127.0.0.1:0").await;
    let cut = Arc::new(tokio::sync::Notify::new());
    let mut client = client(relay(address, cut.clone()).await, Duration::from_secs(1));
    client.hello(HelloReq {}).await.unwrap();
    cut.notify_one();
    // Whoever asks before it is cut is answered.
    while client.hello(HelloReq {}).await.is_ok() {}
    let again = tokio::time::timeout(6 * UNACKNOWLEDGED, async {
        while client.hello(HelloReq {}).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    again.await.expect("the next connection is whole");
    server.abort();
}

#[tokio::test]
async fn a_call_that_is_not_answered_ends_at_its_deadline() {
    let (address, server) = serve(Fake::default(), "127.0.0.1:0").await;
    let mut client = client(address, Duration::from_millis(50));
    let status = client.claim(ClaimReq::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Cancelled, "{status:?}");
    server.abort();
}

#[test]
fn an_address_that_is_none_is_refused() {
    assert!(channel("no host", PATIENT).is_err());
}
