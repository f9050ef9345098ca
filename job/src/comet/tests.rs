//! One suite for every kind of comet: in memory, and over gRPC in front of one in memory.

use std::net::SocketAddr;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use proto::comet::comet_server::{Comet as CometService, CometServer};
use proto::comet::{
    BroadcastReply, BroadcastReq, BroadcastRoomReply, BroadcastRoomReq, Id, Owner, PushMsgReply, PushMsgReq,
    RoomsReply, RoomsReq,
};
use proto::delivery::delivery_server::{Delivery, DeliveryServer};
use proto::delivery::down::Frame;
use proto::delivery::{ClaimReply, ClaimReq, Down, HelloReply, HelloReq, KickReply, KickReq, Remark, Up};
use tonic::{Code, Request, Response, Status, Streaming};

use super::grpc::GrpcComet;
use super::memory::{MemoryComet, Mood};
use super::*;

/// A comet in memory behind goim's service and ours.
#[derive(Clone)]
struct Served {
    comet: MemoryComet,
    traces: Arc<parking_lot::Mutex<Vec<String>>>,
}

impl Served {
    async fn take<T>(&self, request: Request<T>, call: impl FnOnce(T) -> Call) -> Result<Vec<String>, Status> {
        let trace = request.metadata().get("traceparent").and_then(|value| value.to_str().ok());
        self.traces.lock().extend(trace.map(str::to_owned));
        self.comet.send(call(request.into_inner()), None).await.map_err(status)
    }
}

fn status(error: CometError) -> Status {
    match error {
        CometError::Away(why) => Status::unavailable(why),
        CometError::Fenced => Status::failed_precondition("fenced"),
        CometError::Unimplemented => Status::unimplemented("unknown service"),
        CometError::Refused { text, .. } => Status::unknown(text),
    }
}

#[async_trait]
impl CometService for Served {
    async fn push_msg(&self, request: Request<PushMsgReq>) -> Result<Response<PushMsgReply>, Status> {
        self.take(request, Call::Push).await.map(|not_here| Response::new(PushMsgReply { not_here }))
    }

    async fn broadcast(&self, request: Request<BroadcastReq>) -> Result<Response<BroadcastReply>, Status> {
        self.take(request, Call::Broadcast).await.map(|_| Response::new(BroadcastReply {}))
    }

    async fn broadcast_room(&self, request: Request<BroadcastRoomReq>) -> Result<Response<BroadcastRoomReply>, Status> {
        self.take(request, Call::Room).await.map(|_| Response::new(BroadcastRoomReply {}))
    }

    async fn rooms(&self, _request: Request<RoomsReq>) -> Result<Response<RoomsReply>, Status> {
        Ok(Response::new(RoomsReply::default()))
    }
}

#[async_trait]
impl Delivery for Served {
    async fn hello(&self, _request: Request<HelloReq>) -> Result<Response<HelloReply>, Status> {
        self.comet.hello().await.map(Response::new).map_err(status)
    }

    async fn claim(&self, request: Request<ClaimReq>) -> Result<Response<ClaimReply>, Status> {
        self.comet.claim(request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn kick(&self, request: Request<KickReq>) -> Result<Response<KickReply>, Status> {
        self.take(request, Call::Kick).await.map(|_| Response::new(KickReply {}))
    }

    type DeliverStream = tonic::codegen::BoxStream<Up>;

    async fn deliver(&self, request: Request<Streaming<Down>>) -> Result<Response<Self::DeliverStream>, Status> {
        let link = self.comet.deliver().await.map_err(status)?;
        let (mut frames, traces) = (request.into_inner(), self.traces.clone());
        tokio::spawn(async move {
            while let Ok(Some(frame)) = frames.message().await {
                traces.lock().extend(Some(frame.traceparent.clone()).filter(|trace| !trace.is_empty()));
                if link.down.send(frame).is_err() {
                    return;
                }
            }
        });
        let welcome = Up { credit: link.credit, ..Up::default() };
        let answers = futures::stream::iter([Ok(welcome)]).chain(link.up.map_err(status));
        Ok(Response::new(Box::pin(answers)))
    }
}

async fn serve(comet: &MemoryComet, is_go: bool) -> (SocketAddr, Served) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = Served { comet: comet.clone(), traces: Arc::default() };
    let router = proto::grpc::server().add_service(CometServer::new(served.clone()));
    let delivery = DeliveryServer::new(served.clone()).max_decoding_message_size(proto::grpc::MAX_MESSAGE);
    let router = if is_go { router } else { router.add_service(delivery) };
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    tokio::spawn(router.serve_with_incoming(incoming));
    (address, served)
}

fn owner(generation: i32) -> Option<Owner> {
    Some(Owner { group: "g".into(), generation, floor: None })
}

fn room(offset: u64, generation: i32) -> Call {
    let ids = vec![Id { epoch: 1, partition: 4, offset, ..Default::default() }];
    Call::Room(BroadcastRoomReq { room_id: "a://1".into(), proto: None, ids, owner: owner(generation) })
}

fn push(keys: &[&str]) -> Call {
    let keys = keys.iter().map(|key| (*key).to_owned()).collect();
    Call::Push(PushMsgReq { keys, proto_op: 1000, owner: owner(9), ..Default::default() })
}

/// What every comet of ours must do, whatever is between.
async fn ours(client: &dyn Comet, comet: &MemoryComet) {
    let hello = client.hello().await.unwrap();
    assert_eq!((hello.server.as_str(), hello.incarnation), ("s1", 1));

    let claim = |generation| {
        let partitions = vec![3, 4];
        ClaimReq { group: "g".into(), epoch: 1, partitions, generation, partitions_in_topic: 9, takeover: false }
    };
    assert_eq!(client.claim(claim(5)).await.unwrap().fenced, [0; 0]);
    assert_eq!(client.claim(claim(4)).await.unwrap().fenced, [3, 4]);
    let anew = ClaimReq { takeover: true, ..claim(4) };
    assert_eq!(client.claim(anew).await.unwrap().fenced, [0; 0]);
    assert_eq!(client.claim(claim(5)).await.unwrap().fenced, [0; 0]);
    assert_eq!(client.send(room(1, 4), None).await, Err(CometError::Fenced));
    assert_eq!(client.send(room(1, 5), None).await, Ok(vec![]));
    assert_eq!(comet.calls(), [room(1, 5)]);

    comet.holds(&["here"]);
    assert_eq!(client.send(push(&["here", "gone"]), None).await, Ok(vec!["gone".to_owned()]));
    let broadcast = Call::Broadcast(BroadcastReq { proto_op: 7, speed: 3, owner: owner(9), ..Default::default() });
    assert_eq!(client.send(broadcast.clone(), None).await, Ok(vec![]));
    let keys = vec!["here".into()];
    let kick = Call::Kick(KickReq { keys, reason: "replaced".into(), owner: owner(9), created_ms: 5 });
    assert_eq!(client.send(kick.clone(), None).await, Ok(vec![]));
    assert_eq!(comet.calls()[2..], [broadcast, kick]);

    comet.set(Mood::Refuses("signal channel full, msg dropped".into()));
    let refused = CometError::Refused { reason: "unknown", text: "signal channel full, msg dropped".into() };
    assert_eq!(client.send(room(2, 5), None).await, Err(refused));
    comet.set(Mood::Away);
    assert!(matches!(client.send(room(2, 5), None).await, Err(CometError::Away(_))));
    assert!(matches!(client.hello().await, Err(CometError::Away(_))));
}

/// What every stream of ours must do.
async fn streams(client: &dyn Comet, comet: &MemoryComet) {
    let mut link = client.deliver().await.unwrap();
    assert_eq!(link.credit, 4 << 20);
    let claim = |generation| {
        let partitions = vec![3, 4];
        let claim =
            ClaimReq { group: "g".into(), epoch: 1, partitions, generation, partitions_in_topic: 9, takeover: false };
        Down { frame: Some(Frame::Claim(claim)), ..Down::default() }
    };
    comet.holds(&["here"]);
    let keys = push(&["here", "gone"]);
    let sent = [claim(5), claim(4), room(1, 5).frame(None), room(1, 4).frame(None), keys.clone().frame(Some("trace"))];
    sent.into_iter().for_each(|frame| link.down.send(frame).unwrap());
    let (mut taken, mut remarks) = (0, vec![]);
    while taken < 5 {
        let up = link.up.next().await.unwrap().unwrap();
        taken = up.taken;
        remarks.extend(up.remarks);
    }
    let remark = |frame| Remark { frame, ..Remark::default() };
    let fenced = Remark { code: Code::FailedPrecondition as i32, text: "fenced".into(), ..remark(4) };
    assert_eq!(grpc::said(fenced.code, fenced.text.clone()), CometError::Fenced);
    let expected =
        [Remark { fenced: vec![3, 4], ..remark(2) }, fenced, Remark { not_here: vec!["gone".into()], ..remark(5) }];
    assert_eq!(remarks, expected);
    assert_eq!(comet.calls(), [room(1, 5), keys]);
    comet.set(Mood::Away);
    link.down.send(room(2, 5).frame(None)).unwrap();
    assert!(matches!(link.up.next().await, Some(Err(CometError::Away(_)))));
}

#[tokio::test]
async fn a_stream_in_memory_and_over_grpc_takes_frames_in_order_and_says_what_calls_would() {
    let comet = MemoryComet::new("s1");
    streams(&comet, &comet).await;
    let comet = MemoryComet::new("s1");
    let (address, served) = serve(&comet, false).await;
    streams(&GrpcComet::new(&address.to_string()).unwrap(), &comet).await;
    assert_eq!(*served.traces.lock(), ["trace"]);
}

#[tokio::test]
async fn an_answer_may_name_more_keys_than_a_grpc_message_usually_holds() {
    let comet = MemoryComet::new("s1");
    comet.holds(&["here"]);
    let (address, _) = serve(&comet, false).await;
    let mut link = GrpcComet::new(&address.to_string()).unwrap().deliver().await.unwrap();
    let keys: Vec<String> = (0..5_000).map(|number| format!("{number:01000}")).collect();
    let request = PushMsgReq { keys: keys.clone(), proto_op: 1000, owner: owner(9), ..Default::default() };
    link.down.send(Call::Push(request).frame(None)).unwrap();
    let up = link.up.next().await.unwrap().unwrap();
    assert!(up.remarks[0].not_here == keys);
}

#[tokio::test]
async fn a_comet_in_memory_answers_as_one_of_ours() {
    let comet = MemoryComet::new("s1");
    ours(&comet, &comet).await;
}

#[tokio::test]
async fn a_comet_over_grpc_answers_as_one_of_ours() {
    let comet = MemoryComet::new("s1");
    let (address, _) = serve(&comet, false).await;
    ours(&GrpcComet::new(&address.to_string()).unwrap(), &comet).await;
}

#[tokio::test]
async fn a_go_comet_takes_goims_calls_and_does_not_know_ours() {
    let comet = MemoryComet::go();
    let (address, _) = serve(&comet, true).await;
    let grpc = GrpcComet::new(&address.to_string()).unwrap();
    for client in [&grpc as &dyn Comet, &comet] {
        assert_eq!(client.hello().await, Err(CometError::Unimplemented));
        assert_eq!(client.deliver().await.unwrap_err(), CometError::Unimplemented);
        assert_eq!(client.send(Call::Kick(KickReq::default()), None).await, Err(CometError::Unimplemented));
        assert_eq!(client.send(room(1, 1), None).await, Ok(vec![]));
    }
}

#[tokio::test]
async fn nobody_at_an_address_is_away_and_text_that_is_no_address_is_said() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let client = GrpcComet::new(&address).unwrap();
    assert!(matches!(client.send(room(1, 1), None).await, Err(CometError::Away(_))));
    assert!(GrpcComet::new("not an address").unwrap_err().contains("expected host:port"));
}

/// Whether a call's first frame is among what a caller has sent: HTTP/2's preface, then frames.
fn is_called(sent: &[u8]) -> bool {
    const HEADERS: u8 = 1;
    let mut rest = sent.get(24..).unwrap_or_default();
    while let [a, b, c, kind, ..] = *rest {
        if kind == HEADERS {
            return true;
        }
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        rest = rest.get(9 + length..).unwrap_or_default();
    }
    false
}

#[tokio::test]
async fn a_connection_that_breaks_in_the_middle_of_a_call_is_no_answer() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = GrpcComet::new(&listener.local_addr().unwrap().to_string()).unwrap();
    for is_reset in [false, true] {
        let breaks = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            let empty_settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
            socket.write_all(&empty_settings).await.unwrap();
            let mut sent = vec![0; 4096];
            let count = loop {
                let count = socket.peek(&mut sent).await.unwrap();
                if is_called(&sent[..count]) {
                    break count;
                }
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            };
            // What was not read when a socket is closed makes it a reset.
            if !is_reset {
                socket.read_exact(&mut sent[..count]).await.unwrap();
            }
        };
        let (said, ()) = tokio::join!(client.send(room(1, 1), None), breaks);
        assert!(matches!(said, Err(CometError::Away(_))), "{said:?}");
    }
}

#[tokio::test]
async fn a_call_that_is_not_answered_ends_at_its_deadline() {
    let comet = MemoryComet::new("s1");
    let (address, _) = serve(&comet, false).await;
    comet.set(Mood::Hangs);
    let client = GrpcComet::new(&address.to_string()).unwrap();
    let waited = tokio::time::timeout(super::grpc::DEADLINE * 3, client.send(room(1, 1), None)).await;
    assert!(matches!(waited, Ok(Err(CometError::Away(_)))));
}

#[tokio::test]
async fn a_traced_push_carries_its_trace_to_the_comet() {
    let comet = MemoryComet::new("s1");
    let (address, served) = serve(&comet, false).await;
    let client = GrpcComet::new(&address.to_string()).unwrap();
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    client.send(room(1, 1), Some(parent)).await.unwrap();
    client.send(room(2, 1), None).await.unwrap();
    assert_eq!(*served.traces.lock(), [parent]);
}
