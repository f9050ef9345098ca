//! What a client may not do because of who it is: rooms that are not its own, and staying longer than its token.

use std::time::Duration;

use comet::logic::memory::Said;
use proto::log::now_ms;
use proto::packet::Packet;

use crate::support::*;

const BOUND: &str = r#"{"key":"k","room_id":"a","rooms_allowed":["a","b"],"caps":["rooms"]}"#;

fn in_ms(ms: u64) -> u64 {
    now_ms() + ms
}

async fn said(client: &mut Client) -> serde_json::Value {
    let Packet { op, body, .. } = client.packet().await;
    assert_eq!(op, 24);
    serde_json::from_slice(&body).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn rooms_beyond_those_allowed_are_refused_in_every_way_of_asking() {
    let (comet, _) = comet(&[]).await;
    let mut client = Client::on(&comet, true).await;
    client.send(&packet(7, 1, BOUND)).await;
    assert_eq!(client.packet().await.op, 8);
    let not_allowed = r#"{"code":"not_allowed","reason":"this client may not enter that room"}"#;
    for room in ["c", "A", "a ", " a", "a/", "*", "a,b", "[\"a\"]", "a\u{0}", "\u{ff41}"] {
        client.send(&packet(12, 2, room.to_owned())).await;
        client.expect(&packet(24, 2, not_allowed)).await;
        client.send(&packet(19, 3, serde_json::json!([room]).to_string())).await;
        let answer: serde_json::Value = serde_json::from_slice(&client.packet().await.body).unwrap();
        assert_eq!(answer[room], "not_allowed", "{room}");
        comet.push_room(room, &["secret"]).await;
    }
    client.send(&packet(19, 4, r#"["b","c"]"#)).await;
    client.expect(&packet(20, 4, r#"{"b":"ok","c":"not_allowed","through":{}}"#)).await;
    client.send(&packet(12, 5, "b")).await;
    client.expect(&packet(13, 5, "b")).await;
    client.got_nothing().await;
    assert_eq!(comet.metric("rooms_refused_total{reason=\"not_allowed\"}"), 21.0);
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_be_told_that_a_room_is_refused_is_closed() {
    let (comet, _) = comet(&[]).await;
    let plain = BOUND.replace(r#","caps":["rooms"]"#, "");
    for ws in [false, true] {
        let mut client = Client::signed_in(&comet, ws, &plain).await;
        client.send(&packet(12, 2, "c")).await;
        if ws { client.closes_with(1008).await } else { client.closes().await }
    }
    assert_eq!(comet.closed("room_refused"), 2.0);
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_room_that_is_not_allowed_lets_nobody_in() {
    let (comet, logic) = comet(&[]).await;
    for (token, code) in [(BOUND, true), (r#"{"room_id":"c","rooms_allowed":["a"]}"#, false)] {
        let mut client = Client::on(&comet, true).await;
        client.send(&packet(7, 1, token.replace(r#""room_id":"a""#, r#""room_id":"c""#))).await;
        if code {
            assert_eq!(said(&mut client).await["code"], "room_refused");
        }
        client.closes_with(1008).await;
    }
    eventually("the sessions to be ended", || logic.sessions().is_empty()).await;
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn none_allowed_is_none_and_not_any() {
    let (comet, _) = comet(&[]).await;
    let mut client = Client::on(&comet, false).await;
    client.send(&packet(7, 1, r#"{"key":"k","rooms_allowed":[""],"caps":["rooms"]}"#)).await;
    assert_eq!(client.packet().await.op, 8);
    client.send(&packet(19, 2, r#"["a",""]"#)).await;
    client.expect(&packet(20, 2, r#"{"":"bad_room","a":"not_allowed","through":{}}"#)).await;
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stays_until_the_token_expires_is_told_so_and_closed() {
    let (comet, logic) = comet(&[]).await;
    let token = |key: &str| format!(r#"{{"key":"{key}","expires_ms":{},"caps":["envelope"]}}"#, in_ms(6000));
    let mut modern = Client::on(&comet, true).await;
    modern.send(&packet(7, 1, token("modern"))).await;
    assert_eq!(modern.packet().await.op, 8);
    let mut plain = Client::signed_in(&comet, true, &token("plain").replace("envelope", "")).await;
    let forever = r#"{"key":"forever","expires_ms":18446744073709551615}"#;
    let mut forever = Client::signed_in(&comet, false, forever).await;
    plain.closes_with(4401).await;
    assert_eq!(said(&mut modern).await["code"], "expired");
    modern.closes_with(4401).await;
    assert_eq!(comet.closed("expired"), 2.0);
    eventually("their sessions to be ended", || logic.sessions().len() == 1).await;
    forever.got_nothing().await;
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_do_not_make_a_token_last_longer() {
    let (comet, _) = comet(&[]).await;
    let mut client = Client::signed_in(&comet, false, &format!(r#"{{"expires_ms":{}}}"#, in_ms(5000))).await;
    let beats = async {
        while client.try_write(&packet(2, 1, "")).await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    within(beats).await;
    assert_eq!(comet.closed("expired"), 1.0);
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_client_says_later_makes_it_anybody_else() {
    let (comet, logic) = comet(&[]).await;
    let other = r#"{"mid":8,"key":"victim","room_id":"b","accepts":[1000],"caps":["rooms","move"],"moving":true}"#;
    let mut victim = Client::on(&comet, false).await;
    victim.send(&packet(7, 1, other)).await;
    assert_eq!(victim.packet().await.op, 8);
    for ws in [false, true] {
        let mut client = Client::on(&comet, ws).await;
        let own = r#"{"mid":7,"key":"own-WS","room_id":"a","rooms_allowed":["a"],"caps":["rooms","move"]}"#;
        client.send(&packet(7, 1, own.replace("WS", &ws.to_string()))).await;
        assert_eq!(client.packet().await.op, 8);
        // To authenticate once more, to beat for another, to listen, to move, to talk upstream: all with another's names.
        for (op, reply) in
            [(7, 7), (2, 3), (3, 3), (14, 15), (16, 17), (18, 24), (19, 24), (21, 24), (25, 24), (1000, 1000)]
        {
            client.send(&packet(op, 2, other)).await;
            assert_eq!((client.packet().await.op, op), (reply, op));
        }
        client.send(&packet(14, 3, "1000")).await;
        client.expect(&packet(15, 3, "1000")).await;
        comet.push_keys(&["victim"], 1000, raw(&["for the victim"]), vec![]).await;
        comet.push_room("b", &["for its room"]).await;
        client.got_nothing().await;
        // Nobody has told it to move, whatever it claims to have been given elsewhere.
        client.send(&packet(18, 4, "[{}]")).await;
        assert_eq!(said(&mut client).await["code"], "unexpected_op");
    }
    for body in ["for the victim", "for its room"].repeat(2) {
        let Packet { op, body: message, .. } = victim.packet().await;
        assert!(op == 25 && message.ends_with(body.as_bytes()), "{message:?}");
    }
    victim.got_nothing().await;
    eventually("both are signed off", || disconnected(&logic) == ["own-false", "own-true"]).await;
    let mut upstream = 0;
    for said in logic.said() {
        match said {
            Said::Receive { mid, key, .. } => {
                assert!(mid.0 == 7 && key.as_str().starts_with("own-"), "{mid} {key}");
                upstream += 1;
            }
            Said::Heartbeat { held } => panic!("a client's body was believed: {held:?}"),
            _ => {}
        }
    }
    assert_eq!(upstream, 4, "op 7 and op 1000, twice");
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_came_too_late_is_told_from_one_that_is_wrong() {
    let (comet, logic) = comet(&[]).await;
    let mut late = Client::on(&comet, true).await;
    late.send(&packet(7, 1, r#"{"expires_ms":1,"caps":["envelope"]}"#)).await;
    assert_eq!(said(&mut late).await["code"], "expired");
    late.closes_with(4401).await;
    let mut wrong = Client::on(&comet, true).await;
    wrong.send(&packet(7, 1, "wrong")).await;
    wrong.closes_with(1008).await;
    assert_eq!((comet.closed("expired"), comet.closed("auth_refused")), (1.0, 1.0));
    assert!(logic.sessions().is_empty());
    comet.stop().await;
}
