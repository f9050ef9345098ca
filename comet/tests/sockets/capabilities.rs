//! What clients that announced capabilities are given beyond goim.

use proto::envelope::Message;
use proto::packet::{self, Packet};

use crate::support::*;

const ROOMS: &str = r#"{"mid":1,"key":"k","room_id":"live://1","accepts":[1000],"caps":["rooms"]}"#;

async fn welcomed(comet: &Comet, ws: bool, token: &str) -> Client {
    let mut client = Client::on(comet, ws).await;
    client.send(&packet(7, 1, token.to_owned())).await;
    assert_eq!(client.packet().await.op, 8);
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn the_welcome_names_key_server_and_timer() {
    let (comet, _) = comet(&[]).await;
    for (ws, token, key) in [(false, ROOMS, "k"), (true, r#"{"caps":["envelope","unknown"]}"#, "made-up-1")] {
        let mut client = Client::on(&comet, ws).await;
        client
            .send(
                &hex(&format!("{:08x} 0010 0002 00000007 00000009", 16 + token.len()))
                    .into_iter()
                    .chain(token.bytes())
                    .collect::<Vec<_>>(),
            )
            .await;
        let body = format!(r#"{{"key":"{key}","server":"h1","heartbeatMs":480000,"through":{{}}}}"#);
        let expected = Packet { ver: 2, op: 8, seq: 9, body: body.into() };
        client.expect(&expected.to_bytes()).await;
    }
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_is_op_25_bare_on_tcp_and_inside_op_9_on_websocket() {
    let (comet, _) = comet(&[]).await;
    let mut tcp = welcomed(&comet, false, &ROOMS.replace("\"k\"", "\"t\"")).await;
    let mut ws = welcomed(&comet, true, &ROOMS.replace("\"k\"", "\"w\"")).await;
    comet.push_room_as("live://1", raw(&["1000:m1", "1001:m2"]), vec![id(4), id(5)]).await;
    let envelope = |offset, op, body| {
        format!(
            "00000030 0010 0001 00000019 00000000 0008 6c6976653a2f2f31 00000007 00000003 {offset:016x} {op:08x} {body}"
        )
    };
    let both = format!("{} {}", envelope(4, 1000, "6d31"), envelope(5, 1001, "6d32"));
    assert_eq!(tcp.read(96).await, hex(&both));
    assert_eq!(ws.read(2 + 16 + 96).await, hex(&format!("82 70 00000070 0010 0001 00000009 00000000 {both}")));
    comet.push_keys(&["t", "w"], 1000, raw(&["x"]), vec![]).await;
    let unnamed = "00000027 0010 0001 00000019 00000000 0000 00000000 00000000 0000000000000000 000003e8 78";
    assert_eq!(tcp.read(39).await, hex(unnamed), "no room, and epoch 0 when there is no id");
    assert_eq!(ws.read(57).await, hex(&format!("82 37 00000037 0010 0001 00000009 00000000 {unnamed}")));
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_in_several_rooms_and_told_which_a_push_is_for() {
    let (comet, _) = comet(&[]).await;
    for ws in [false, true] {
        let mut client = welcomed(&comet, ws, ROOMS).await;
        client.send(&packet(19, 2, r#"["live://2","live://3","live://1"]"#)).await;
        client.expect(&packet(20, 2, r#"{"live://1":"ok","live://2":"ok","live://3":"ok","through":{}}"#)).await;
        client.send(&packet(21, 3, r#"["live://3","live://9"]"#)).await;
        client.expect(&packet(22, 3, r#"{"live://3":"ok","live://9":"not_in_room","through":{}}"#)).await;
        for room in ["live://3", "live://2", "live://1"] {
            comet.push_room(room, &["m"]).await;
        }
        for expected in ["live://2", "live://1"] {
            let packet = client.packet().await;
            let inner = if ws { packet::decode_message(&packet.body, 1 << 20).unwrap().to_packet() } else { packet };
            let message = Message::decode(&inner.body).unwrap();
            assert_eq!((inner.op, message.room, message.op, message.body), (25, expected, 1000, &b"m"[..]));
        }
        client.send(&packet(12, 4, "live://4")).await;
        client.expect(&packet(13, 4, "live://4")).await;
        comet.push_room("live://2", &["left"]).await;
        assert_eq!(client.online(77).await.1, 77, "op 12 leaves all other rooms");
    }
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rooms_have_a_limit_a_length_and_a_permission_and_the_answer_says_which() {
    let (comet, _) = comet(&["--rooms-per-connection", "2"]).await;
    let mut client = welcomed(&comet, false, r#"{"key":"k","caps":["rooms"]}"#).await;
    client.send(&packet(19, 2, r#"["a","b","c",""]"#)).await;
    client.expect(&packet(20, 2, r#"{"":"bad_room","a":"ok","b":"ok","c":"too_many_rooms","through":{}}"#)).await;
    let long = "r".repeat(1025);
    client.send(&packet(19, 3, format!("[{long:?}]"))).await;
    client.expect(&packet(20, 3, format!(r#"{{"{long}":"bad_room","through":{{}}}}"#))).await;
    client.send(&packet(21, 4, r#"["a"]"#)).await;
    client.expect(&packet(22, 4, r#"{"a":"ok","through":{}}"#)).await;
    client.send(&packet(19, 5, r#"["c"]"#)).await;
    client.expect(&packet(20, 5, r#"{"c":"ok","through":{}}"#)).await;
    let mut bound = welcomed(&comet, true, r#"{"key":"b","caps":["rooms"],"rooms_allowed":["a"]}"#).await;
    bound.send(&packet(19, 6, r#"["a","b"]"#)).await;
    bound.expect(&packet(20, 6, r#"{"a":"ok","b":"not_allowed","through":{}}"#)).await;
    let refused = |reason| comet.metric(&format!("rooms_refused_total{{reason=\"{reason}\"}}"));
    assert_eq!(["bad_room", "too_many_rooms", "not_allowed"].map(refused), [2.0, 1.0, 1.0]);
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_make_no_sense_are_answered_with_op_24_and_their_seq() {
    let (comet, logic) = comet(&[]).await;
    let mut client = welcomed(&comet, false, ROOMS).await;
    for body in ["", "{}", "[1]", "nonsense"] {
        client.send(&packet(19, 5, body)).await;
        client.expect(&packet(24, 5, r#"{"code":"bad_body","reason":"expected a JSON list of room keys"}"#)).await;
    }
    for op in [18, 20, 22, 23, 24, 25] {
        client.send(&packet(op, 6, "")).await;
        client.expect(&packet(24, 6, r#"{"code":"unexpected_op","reason":"this op is the server's"}"#)).await;
    }
    let mut client = welcomed(&comet, true, r#"{"key":"e","caps":["envelope"]}"#).await;
    client.send(&packet(19, 7, "[]")).await;
    client.expect(&packet(24, 7, r#"{"code":"unexpected_op","reason":"this op is the server's"}"#)).await;
    assert!(!logic.said().iter().any(|said| matches!(said, comet::logic::memory::Said::Receive { .. })));
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_online_count_is_that_of_the_auth_or_op_12_room() {
    let (comet, logic) = comet(&["--online-interval", "1h", "--shards", "1"]).await;
    eventually("the only report is made", || !logic.said().is_empty()).await;
    let mut client = welcomed(&comet, false, r#"{"key":"k","caps":["rooms"]}"#).await;
    client.send(&packet(19, 2, r#"["a"]"#)).await;
    client.next().await;
    assert_eq!(client.online(3).await.0, 0, "a joined room is not the counted one");
    client.send(&packet(12, 4, "b")).await;
    client.next().await;
    assert_eq!(client.online(5).await.0, 1);
    client.send(&packet(21, 6, r#"["b"]"#)).await;
    client.next().await;
    assert_eq!(client.online(7).await.0, 0);
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn goims_connection_with_the_same_bytes_is_no_capable_one() {
    let (comet, _) = comet(&[]).await;
    for token in [r#"{"key":"k","caps":[]}"#, r#"{"key":"k","caps":["nothing"]}"#, r#"{"key":"k","Cap":["rooms"]}"#] {
        let mut client = Client::signed_in(&comet, false, token).await;
        client.send(&packet(19, 2, "[]")).await;
        client.expect(&packet(19, 2, "")).await;
    }
    comet.stop().await;
}
