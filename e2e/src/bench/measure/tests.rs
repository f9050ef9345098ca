use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::TokioIo;
use proto::comet::comet_server::{Comet, CometServer};
use proto::comet::{
    BroadcastReply, BroadcastReq, BroadcastRoomReply, BroadcastRoomReq, PushMsgReply, PushMsgReq, RoomsReply, RoomsReq,
};
use tokio::net::TcpListener;
use tonic::Status;

use super::*;
use crate::bench::stream::{self, Kind};
use crate::crowd::Pusher;
use crate::load::{Farm, Plan};
use crate::scripted::{Fault, ScriptedComet};

/// A logic that hands every push to the comet, and refuses every tenth. Behind an Ingress it is `im.example`.
async fn scripted_logic(comet: ScriptedComet) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let comet = comet.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let comet = comet.clone();
                async move {
                    assert!(request.uri().path().starts_with("/goim/push/"), "{}", request.uri());
                    let header = |name| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
                    let asked = (header("host").unwrap(), header("authorization"));
                    let known = [("im.example".to_owned(), Some("Bearer t".to_owned())), (address.to_string(), None)];
                    assert!(known.contains(&asked), "{asked:?}");
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let stamp = Stamp::decode(&body).unwrap();
                    let refused = stamp.number % 10 == 9;
                    if !refused {
                        comet.give(stamp);
                    }
                    let answer =
                        if refused { r#"{"code":-500,"message":"full"}"# } else { r#"{"code":0,"message":""}"# };
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(answer))))
                }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service));
        }
    });
    address
}

/// The scripted comet's gRPC half.
struct Grpc(ScriptedComet);

impl Grpc {
    fn give(&self, proto: Option<proto::protocol::Proto>) {
        for packet in proto::packet::packets(&proto.unwrap().body) {
            self.0.give(Stamp::decode(packet.unwrap().body).unwrap());
        }
    }

    async fn start(comet: ScriptedComet) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        tokio::spawn(proto::grpc::server().add_service(CometServer::new(Self(comet))).serve_with_incoming(incoming));
        address
    }
}

#[tonic::async_trait]
impl Comet for Grpc {
    async fn push_msg(&self, request: tonic::Request<PushMsgReq>) -> Result<tonic::Response<PushMsgReply>, Status> {
        self.give(request.into_inner().proto);
        Ok(tonic::Response::new(PushMsgReply::default()))
    }

    async fn broadcast(
        &self,
        request: tonic::Request<BroadcastReq>,
    ) -> Result<tonic::Response<BroadcastReply>, Status> {
        self.give(request.into_inner().proto);
        Ok(tonic::Response::new(BroadcastReply::default()))
    }

    async fn broadcast_room(
        &self,
        request: tonic::Request<BroadcastRoomReq>,
    ) -> Result<tonic::Response<BroadcastRoomReply>, Status> {
        self.give(request.into_inner().proto);
        Ok(tonic::Response::new(BroadcastRoomReply::default()))
    }

    async fn rooms(&self, _: tonic::Request<RoomsReq>) -> Result<tonic::Response<RoomsReply>, Status> {
        Err(Status::unimplemented("not asked for"))
    }
}

async fn farm(comet: &ScriptedComet, run: u32) -> Farm {
    let plan = Plan {
        target: comet.target("ws"),
        connections: 5,
        stalled: 0,
        sources: 2,
        threads: 1,
        core: None,
        heartbeat: None,
        run,
        member: stream::members(1),
    };
    Farm::connect(plan).await.unwrap()
}

fn schedule(run: u32, rate: f64) -> Schedule {
    let streams = Kind::Room.streams(5, 1);
    Schedule { run, streams, rate, duration: Duration::from_secs(1), body: 64, workers: 2 }
}

fn ourselves() -> [Watched; 1] {
    [Watched { name: "us".to_owned(), pid: std::process::id() }]
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_by_http_are_offered_at_their_rate_and_refusals_are_no_loss() {
    let comet = ScriptedComet::start(Fault::None).await;
    let entry = Entry::Http { address: scripted_logic(comet.clone()).await, token: None };
    let report = open_loop(farm(&comet, 7).await, &entry, &schedule(7, 100.0), &ourselves()).await.unwrap();
    let verdict = &report.verdict;
    assert_eq!((verdict.accepted, verdict.refused), (90, 10));
    assert_eq!((verdict.expected, verdict.delivered, verdict.lost, verdict.repeats), (450, 450, 0, 0));
    assert_eq!((report.closed, report.connections, report.processes.len()), (0, 5, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comet_that_loses_is_found_out_through_the_whole_path() {
    let comet = ScriptedComet::start(Fault::Lose).await;
    let entry = Entry::Grpc { address: Grpc::start(comet.clone()).await, merge: 4 };
    let report = open_loop(farm(&comet, 8).await, &entry, &schedule(8, 20.0), &[]).await.unwrap();
    let verdict = &report.verdict;
    assert_eq!((verdict.accepted, verdict.expected, verdict.delivered, verdict.lost), (80, 400, 395, 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_at_a_time_waits_for_every_member_and_says_when_one_is_missing() {
    let comet = ScriptedComet::start(Fault::None).await;
    let grpc = Grpc::start(comet.clone()).await;
    let report = one_at_a_time(farm(&comet, 9).await, grpc, &schedule(9, 0.0), 5, &[]).await.unwrap();
    assert!(report.verdict.accepted > 0);
    assert_eq!(report.verdict.delivered, report.verdict.accepted * 5);
    let schedule = schedule(10, 0.0);
    let missing = one_at_a_time(farm(&comet, 10).await, grpc, &schedule, 6, &[]);
    let gave_up = tokio::time::timeout(Duration::from_millis(500), missing).await;
    assert!(gave_up.is_err(), "it went on without its sixth member");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pusher_goes_through_an_ingress_and_keeps_when_each_push_was_sent_until_it_is_stopped() {
    let comet = ScriptedComet::start(Fault::None).await;
    let (address, host) = (scripted_logic(comet.clone()).await, "im.example".to_owned());
    let farm = farm(&comet, 11).await;
    let entry = Entry::Ingress { address, host, token: "t".to_owned() };
    let before = os::monotonic();
    let schedule = Schedule { duration: Duration::from_secs(3600), ..schedule(11, 100.0) };
    let pusher = Pusher::start(schedule, entry, &tokio::runtime::Handle::current());
    assert!(farm.until(100, Duration::from_secs(30)).await);
    let pushed = pusher.stop().await.unwrap();
    let numbers: Vec<_> = pushed.iter().map(|push| push.number).collect();
    assert_eq!(numbers, (0..pushed.len() as u32).collect::<Vec<_>>());
    assert!(pushed.len() > 20 && pushed.iter().all(|push| push.accepted == (push.number % 10 != 9)), "{pushed:#?}");
    assert!(pushed.iter().all(|push| before <= push.due && push.due <= push.sent && push.sent < push.answered));
}
