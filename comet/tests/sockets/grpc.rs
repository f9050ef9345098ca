//! What job asks: goim's service as a Go job uses it, and ours beside it.

use bytes::Bytes;
use proto::comet::{BroadcastReq, BroadcastRoomReq, Owner, PushMsgReq, RoomsReq};
use proto::delivery::{ClaimReq, HelloReq, KickReq};
use proto::log::now_ms;
use proto::protocol::Proto;
use tonic::{Code, Status};

use crate::support::*;

fn is(status: &Status, code: Code, message: &str) {
    assert_eq!((status.code(), status.message()), (code, message));
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_arguments_are_goims_texts_with_code_unknown() {
    let (comet, _) = comet(&[]).await;
    let mut job = comet.job();
    let proto = Some(raw(&["m"]));
    for request in [
        PushMsgReq { proto: proto.clone(), ..Default::default() },
        PushMsgReq { keys: vec!["k".into()], ..Default::default() },
    ] {
        is(&job.push_msg(request).await.unwrap_err(), Code::Unknown, "rpc pushmsg arg error");
    }
    is(&job.broadcast(BroadcastReq::default()).await.unwrap_err(), Code::Unknown, "rpc broadcast arg error");
    for request in [
        BroadcastRoomReq { proto, ..Default::default() },
        BroadcastRoomReq { room_id: "r".into(), ..Default::default() },
    ] {
        is(&job.broadcast_room(request).await.unwrap_err(), Code::Unknown, "rpc broadcast  room arg error");
    }
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_method_is_unimplemented() {
    let (comet, _) = comet(&[]).await;
    let mut raw = tonic::client::Grpc::new(comet.channel.clone());
    raw.ready().await.unwrap();
    let path = tonic::codegen::http::uri::PathAndQuery::from_static("/goim.comet.Comet/Nothing");
    let codec = tonic_prost::ProstCodec::<RoomsReq, RoomsReq>::default();
    let status = raw.unary(tonic::Request::new(RoomsReq {}), path, codec).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_to_keys_reaches_those_that_are_here_and_accept_it_and_names_those_that_are_not() {
    let (comet, _) = comet(&[]).await;
    let mut one = Client::signed_in(&comet, false, r#"{"key":"one","accepts":[1000]}"#).await;
    let mut two = Client::signed_in(&comet, true, r#"{"key":"two","accepts":[1000]}"#).await;
    let mut deaf = Client::signed_in(&comet, true, r#"{"key":"deaf"}"#).await;
    let mut missing = comet.push_keys(&["gone", "one", "two", "deaf", "lost"], 1000, raw(&["m"]), vec![]).await;
    missing.sort();
    assert_eq!(missing, ["gone", "lost"]);
    assert_eq!(one.pushed().await, [(1000, "m".into())]);
    assert_eq!(two.pushed().await, [(1000, "m".into())]);
    deaf.got_nothing().await;
    comet.push_keys(&["one"], 1001, raw(&["1000:filtered by protoOp, not by the packet"]), vec![]).await;
    one.got_nothing().await;
    comet.push_keys(&["one", "one"], 1000, raw(&["twice"]), vec![]).await;
    assert_eq!(one.pushed().await, [(1000, "twice".into())]);
    assert_eq!(one.pushed().await, [(1000, "twice".into())]);
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_to_all_reaches_those_that_accept_it() {
    let (comet, _) = comet(&[]).await;
    let mut one = Client::signed_in(&comet, false, r#"{"key":"one","accepts":[1000]}"#).await;
    let mut deaf = Client::signed_in(&comet, true, r#"{"key":"deaf","accepts":[1001]}"#).await;
    comet.push_all(1000, 0, raw(&["m"])).await;
    assert_eq!(one.pushed().await, [(1000, "m".into())]);
    deaf.got_nothing().await;
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_to_a_room_reaches_all_in_it_whatever_they_accept() {
    let (comet, _) = comet(&[]).await;
    let mut inside = Client::signed_in(&comet, false, r#"{"key":"one","room_id":"live://1"}"#).await;
    let mut outside = Client::signed_in(&comet, true, r#"{"key":"two","room_id":"live://2","accepts":[1000]}"#).await;
    comet.push_room("live://1", &["m"]).await;
    assert_eq!(inside.pushed().await, [(1000, "m".into())]);
    outside.got_nothing().await;
    comet.push_room("nobody://1", &["m"]).await;
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rooms_with_somebody_in_them_are_listed_as_true() {
    let (comet, _) = comet(&[]).await;
    let _one = Client::signed_in(&comet, false, r#"{"key":"one","room_id":"live://1"}"#).await;
    let two = Client::signed_in(&comet, true, r#"{"key":"two","room_id":"live://2"}"#).await;
    let rooms = || async {
        let mut rooms: Vec<_> = comet.job().rooms(RoomsReq {}).await.unwrap().into_inner().rooms.into_iter().collect();
        rooms.sort();
        rooms
    };
    assert_eq!(rooms().await, [("live://1".to_owned(), true), ("live://2".to_owned(), true)]);
    drop(two);
    within(async { while rooms().await.len() != 1 {} }).await;
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_packet_that_is_not_raw_is_framed_as_it_is() {
    let (comet, _) = comet(&[]).await;
    let mut tcp = Client::signed_in(&comet, false, r#"{"key":"t","room_id":"r"}"#).await;
    let mut ws = Client::signed_in(&comet, true, r#"{"key":"w","room_id":"r"}"#).await;
    let proto = Proto { ver: 3, op: 1000, seq: 9, body: "hi".into() };
    comet.push_room_as("r", proto, vec![]).await;
    assert_eq!(tcp.read(18).await, hex("00000012 0010 0003 000003e8 00000009 6869"));
    assert_eq!(ws.read(20).await, hex("82 12 00000012 0010 0003 000003e8 00000009 6869"));
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raw_packet_is_relayed_with_its_own_version_and_sequence() {
    let (comet, _) = comet(&[]).await;
    let mut tcp = Client::signed_in(&comet, false, r#"{"key":"t","room_id":"r"}"#).await;
    let mut ws = Client::signed_in(&comet, true, r#"{"key":"w","room_id":"r"}"#).await;
    let inner = hex("00000011 0010 0002 ffffffff 00000005 21");
    let proto = Proto { ver: 2, op: 9, seq: 6, body: inner.clone().into() };
    comet.push_room_as("r", proto, vec![]).await;
    assert_eq!(tcp.read(17).await, inner);
    let outer = hex("82 21 00000021 0010 0002 00000009 00000006 00000011 0010 0002 ffffffff 00000005 21");
    assert_eq!(ws.read(35).await, outer);
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_16_mib_are_taken_and_larger_ones_refused() {
    let (comet, _) = comet(&[]).await;
    let mut client = Client::signed_in(&comet, false, r#"{"key":"k","room_id":"r"}"#).await;
    let body = "x".repeat((16 << 20) - 100);
    comet.push_room("r", &[&body]).await;
    assert_eq!(client.pushed().await, [(1000, body)]);
    let proto = Some(Proto { ver: 1, op: 9, seq: 0, body: Bytes::from(vec![0; 16 << 20]) });
    let request = BroadcastRoomReq { room_id: "r".into(), proto, ..Default::default() };
    assert_eq!(comet.job().broadcast_room(request).await.unwrap_err().code(), Code::OutOfRange);
    client.got_nothing().await;
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_pings_all_the_time_is_not_sent_away() {
    let (comet, _) = comet(&[]).await;
    let pinging = tonic::transport::Endpoint::from_shared(format!("http://{}", comet.grpc))
        .unwrap()
        .http2_keep_alive_interval(std::time::Duration::from_millis(20))
        .keep_alive_while_idle(true)
        .connect()
        .await
        .unwrap();
    let mut job = proto::comet::comet_client::CometClient::new(pinging);
    job.rooms(RoomsReq {}).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    job.rooms(RoomsReq {}).await.unwrap();
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_fields_are_ignored() {
    let (comet, _) = comet(&[]).await;
    let mut client = Client::signed_in(&comet, false, r#"{"key":"k","room_id":"r"}"#).await;
    #[derive(Clone, PartialEq, prost::Message)]
    struct Newer {
        #[prost(string, tag = "1")]
        room: String,
        #[prost(message, optional, tag = "2")]
        proto: Option<Proto>,
        #[prost(string, tag = "77")]
        newer: String,
    }
    let request = Newer { room: "r".into(), proto: Some(raw(&["m"])), newer: "what is this".into() };
    let mut call = tonic::client::Grpc::new(comet.channel.clone());
    call.ready().await.unwrap();
    let path = tonic::codegen::http::uri::PathAndQuery::from_static("/goim.comet.Comet/BroadcastRoom");
    let codec = tonic_prost::ProstCodec::<Newer, RoomsReq>::default();
    call.unary(tonic::Request::new(request), path, codec).await.unwrap();
    assert_eq!(client.pushed().await, [(1000, "m".into())]);
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hello_names_the_server_and_a_number_of_this_start() {
    let (one, _) = comet(&["--host", "h1"]).await;
    let (two, _) = comet(&["--host", "h1"]).await;
    let hello = one.delivery().hello(HelloReq {}).await.unwrap().into_inner();
    assert_eq!(hello.server, "h1");
    assert_eq!(one.delivery().hello(HelloReq {}).await.unwrap().into_inner(), hello);
    assert_ne!(two.delivery().hello(HelloReq {}).await.unwrap().into_inner().incarnation, hello.incarnation);
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_of_an_older_generation_is_fenced() {
    let (comet, _) = comet(&[]).await;
    let mut client = Client::signed_in(&comet, false, r#"{"key":"k","room_id":"r","accepts":[1000]}"#).await;
    let claim = |partitions: Vec<u32>, generation| {
        let mut delivery = comet.delivery();
        async move {
            let request = ClaimReq { group: "g".into(), epoch: 7, partitions, generation, ..Default::default() };
            delivery.claim(request).await.unwrap().into_inner().fenced
        }
    };
    assert!(claim(vec![3, 4], 5).await.is_empty());
    assert!(claim(vec![4], 6).await.is_empty());
    assert_eq!(claim(vec![3, 4], 5).await, [4]);
    let owner = |group: &str, generation| Some(Owner { group: group.into(), generation, floor: None });
    let push = |owner, offset| BroadcastRoomReq {
        room_id: "r".into(),
        proto: Some(raw(&[&format!("{offset}")])),
        ids: vec![id(offset)],
        owner,
    };
    let mut job = comet.job();
    is(&job.broadcast_room(push(owner("g", 4), 1)).await.unwrap_err(), Code::FailedPrecondition, "fenced");
    job.broadcast_room(push(owner("g", 5), 2)).await.unwrap();
    job.broadcast_room(push(owner("g", 6), 3)).await.unwrap();
    is(&job.broadcast_room(push(owner("g", 5), 4)).await.unwrap_err(), Code::FailedPrecondition, "fenced");
    job.broadcast_room(push(owner("another", 1), 5)).await.unwrap();
    let proto = Some(raw(&["k"]));
    let (keys, ids) = (vec!["k".into()], vec![id(6)]);
    let keys = PushMsgReq { keys, proto, proto_op: 1000, ids, owner: owner("g", 5) };
    is(&job.push_msg(keys).await.unwrap_err(), Code::FailedPrecondition, "fenced");
    let all =
        BroadcastReq { proto_op: 1000, proto: Some(raw(&["a"])), speed: 0, ids: vec![id(7)], owner: owner("g", 5) };
    is(&job.broadcast(all).await.unwrap_err(), Code::FailedPrecondition, "fenced");
    for expected in ["2", "3", "5"] {
        assert_eq!(client.pushed().await, [(1000, expected.to_owned())]);
    }
    client.got_nothing().await;
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kick_that_comes_late_leaves_a_key_that_has_come_back_alone() {
    let (comet, _) = comet(&[]).await;
    let before = now_ms() - 1;
    let mut back = Client::signed_in(&comet, true, r#"{"key":"k"}"#).await;
    let kick = |created_ms| KickReq { keys: vec!["k".into()], created_ms, ..Default::default() };
    comet.delivery().kick(kick(before)).await.unwrap();
    back.got_nothing().await;
    assert_eq!(comet.closed("kicked"), 0.0);
    comet.delivery().kick(kick(now_ms() + 1)).await.unwrap();
    back.closes_with(1008).await;
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kicked_keys_are_closed_and_told_why() {
    let (comet, logic) = comet(&[]).await;
    let mut goim = Client::signed_in(&comet, false, r#"{"key":"goim"}"#).await;
    let mut ws = Client::signed_in(&comet, true, r#"{"key":"ws"}"#).await;
    let mut caps = Client::tcp(&comet).await;
    caps.send(&packet(7, 1, r#"{"key":"caps","caps":["envelope"]}"#)).await;
    assert_eq!(caps.packet().await.op, 8);
    let mut other = Client::signed_in(&comet, true, r#"{"key":"other"}"#).await;
    let keys = ["goim", "ws", "caps", "nobody"].map(str::to_owned).to_vec();
    comet.delivery().kick(KickReq { keys, ..Default::default() }).await.unwrap();
    goim.closes().await;
    ws.closes_with(1008).await;
    assert_eq!(
        caps.rest().await,
        packet(24, 0, &br#"{"code":"kicked","reason":"this connection was ended by the service"}"#[..])
    );
    other.got_nothing().await;
    eventually("logic is told", || disconnected(&logic).len() == 3).await;
    assert_eq!(comet.closed("kicked"), 3.0);
    comet.stop().await;
}
