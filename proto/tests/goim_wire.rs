//! goim's gRPC messages as literal bytes, read and written: field numbers and types are the wire.
#![allow(clippy::unwrap_used)]

use std::fmt::Debug;

use prost::Message;
use proto::comet::{BroadcastReply, BroadcastReq, BroadcastRoomReply, BroadcastRoomReq, PushMsgReply, PushMsgReq};
use proto::comet::{RoomsReply, RoomsReq};
use proto::logic::{Backoff, ConnectReply, ConnectReq, DisconnectReply, DisconnectReq, HeartbeatReply, HeartbeatReq};
use proto::logic::{NodesReply, NodesReq, OnlineReply, OnlineReq, ReceiveReply, ReceiveReq};
use proto::protocol::Proto;

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// Written as these bytes, and read from them.
fn is<M: Message + Default + PartialEq + Debug>(message: &M, hex: &str) {
    let written: String = message.encode_to_vec().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(written, hex, "{message:?}");
    assert_eq!(&M::decode(&*bytes(hex)).unwrap(), message, "{hex}");
}

fn raw() -> Option<Proto> {
    Some(Proto { ver: 1, op: 9, seq: 7, body: "hi".into() })
}

#[test]
fn what_job_asks_of_a_comet_is_goims_bytes() {
    is(&raw().unwrap(), "08011009180722026869");
    let negative = Proto { ver: 1, op: -1, seq: i32::MIN, ..Default::default() };
    is(&negative, "080110ffffffffffffffffff011880808080f8ffffffff01");
    let keys = vec!["k1".to_owned(), "k2".to_owned()];
    let push = PushMsgReq { keys, proto: raw(), proto_op: 1000, ..Default::default() };
    is(&push, "0a026b310a026b32120a0801100918072202686918e807");
    let all = BroadcastReq { proto_op: 1000, proto: raw(), speed: 64, ..Default::default() };
    is(&all, "08e807120a080110091807220268691840");
    let room = BroadcastRoomReq { room_id: "test://1".into(), proto: raw(), ..Default::default() };
    is(&room, "0a08746573743a2f2f31120a08011009180722026869");
    is(&RoomsReply { rooms: [("test://1".to_owned(), true)].into() }, "0a0c0a08746573743a2f2f311001");
    is(&RoomsReq {}, "");
    is(&PushMsgReply::default(), "");
    is(&BroadcastReply {}, "");
    is(&BroadcastRoomReply {}, "");
}

#[test]
fn what_a_comet_asks_of_logic_is_goims_bytes() {
    let (key, server) = ("k1".to_owned(), "h1".to_owned());
    let connect = ConnectReq { server: server.clone(), cookie: "a=b".into(), token: "{}".into(), ..Default::default() };
    is(&connect, "0a0268311203613d621a027b7d");
    let session = "080712026b311a026831";
    is(&DisconnectReq { mid: 7, key: key.clone(), server: server.clone(), ..Default::default() }, session);
    is(&HeartbeatReq { mid: 7, key, server: server.clone(), ..Default::default() }, session);
    let online = OnlineReq { server, room_count: [("test://1".to_owned(), 5)].into(), ..Default::default() };
    is(&online, "0a026831120c0a08746573743a2f2f311005");
    is(&ReceiveReq { mid: 7, proto: raw(), ..Default::default() }, "0807120a08011009180722026869");
    is(&NodesReq { platform: "web".into(), client_ip: "192.0.2.1".into() }, "0a0377656212093139322e302e322e31");
}

#[test]
fn what_logic_answers_is_goims_bytes() {
    let identity = ConnectReply {
        mid: 7,
        key: "k1".into(),
        room_id: "test://1".into(),
        accepts: vec![1000, -1],
        heartbeat: 480_000_000_000,
        ..Default::default()
    };
    is(&identity, "080712026b311a08746573743a2f2f31220ce807ffffffffffffffffff01288080eb91fc0d");
    let one_by_one = "080712026b311a08746573743a2f2f3120e80720ffffffffffffffffff01288080eb91fc0d";
    assert_eq!(ConnectReply::decode(&*bytes(one_by_one)).unwrap(), identity, "a list that is not packed is one too");
    is(&DisconnectReply { has: true }, "0801");
    is(&HeartbeatReply {}, "");
    is(&ReceiveReply {}, "");
    is(&OnlineReply { all_room_count: [("test://1".to_owned(), 5)].into(), epoch: 0 }, "0a0c0a08746573743a2f2f311005");
    let nodes = NodesReply {
        domain: "d".into(),
        tcp_port: 3101,
        ws_port: 3102,
        wss_port: 3103,
        heartbeat: 240,
        nodes: vec!["a".into(), "b".into()],
        backoff: Some(Backoff { max_delay: 300, base_delay: 3, factor: 1.8, jitter: 0.3 }),
        heartbeat_max: 2,
        ..Default::default()
    };
    is(&nodes, "0a0164109d18189e18209f1828f0013201613201623a0f08ac0210031d6666e63f259a99993e4002");
}
