//! From accept to the auth reply, and what may go wrong on the way.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use comet::logic::memory::{MemoryLogic, Said};
use comet::logic::{Held, Identity, Logic, LogicError, Noted, Renewed};
use proto::logic::CometInfo;
use proto::{Key, Mid, Packet};

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_before_auth_is_read_and_ignored_and_nothing_is_written() {
    let (comet, logic) = comet(&[]).await;
    for ws in [false, true] {
        let mut client = Client::on(&comet, ws).await;
        for op in [2, 0, 12, 14, 4, 9, 1000, 8] {
            client.send(&packet(op, 5, "live://1")).await;
        }
        if ws {
            client.frame(9, b"ping").await;
        }
        client.send(&hex("00000012 0010 0007 00000007 0000002a 7b7d")).await;
        client.expect(&hex("00000010 0010 0007 00000008 0000002a")).await;
        client.got_nothing().await;
    }
    assert!(!logic.said().iter().any(|said| matches!(said, Said::Receive { .. })));
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logic_is_told_the_body_the_cookie_and_the_address() {
    let (comet, logic) = comet(&[]).await;
    let body = r#"{"mid":1,  "key":"k"}"#;
    Client::signed_in(&comet, true, body).await;
    Client::signed_in(&comet, false, body).await;
    let connects: Vec<_> = logic.said().into_iter().filter(|said| matches!(said, Said::Connect { .. })).collect();
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let said = |cookie: &str| Said::Connect { cookie: cookie.into(), token: body.into(), address };
    assert_eq!(connects, [said("a=b"), said("")]);
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_closes_without_a_packet() {
    let (comet, logic) = comet(&[]).await;
    for body in ["", "nonsense", r#"{"mid":"1"}"#] {
        let mut client = Client::tcp(&comet).await;
        client.send(&packet(7, 1, body)).await;
        client.closes().await;
        let mut client = Client::ws(&comet).await;
        client.send(&packet(7, 1, body)).await;
        client.closes_with(1008).await;
    }
    assert_eq!(comet.closed("auth_refused"), 6.0);
    assert_eq!(disconnected(&logic), [""; 0], "there was no session to end");
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logic_being_away_says_try_again() {
    let (comet, logic) = comet(&[]).await;
    logic.set_down(true);
    let mut client = Client::tcp(&comet).await;
    client.send(&packet(7, 1, "{}")).await;
    client.closes().await;
    let mut client = Client::ws(&comet).await;
    client.send(&packet(7, 1, "{}")).await;
    client.closes_with(1013).await;
    let mut client = Client::tcp(&comet).await;
    client.send(&packet(7, 1, r#"{"caps":["envelope"]}"#)).await;
    let told = br#"{"code":"logic_away","reason":"sessions cannot be made right now: try again","retryAfterMs":2000}"#;
    assert_eq!(client.rest().await, packet(24, 0, &told[..]));
    let mut client = Client::ws(&comet).await;
    client.send(&packet(7, 1, r#"{"caps":["envelope"]}"#)).await;
    client.expect(&packet(24, 0, &told[..])).await;
    client.closes_with(1013).await;
    assert_eq!(comet.closed("logic_away"), 4.0);
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_connection_with_the_key_closes_the_first_and_gets_its_pushes() {
    let (comet, logic) = comet(&[]).await;
    let token = r#"{"mid":1,"key":"k","accepts":[1000]}"#;
    let mut first = Client::signed_in(&comet, false, token).await;
    let mut second = Client::signed_in(&comet, true, token).await;
    first.closes().await;
    let mut third = Client::signed_in(&comet, false, token).await;
    second.closes_with(1008).await;
    assert!(comet.push_keys(&["k"], 1000, raw(&["m"]), vec![]).await.is_empty());
    assert_eq!(third.pushed().await, [(1000, "m".into())]);
    eventually("both are counted", || comet.closed("replaced") == 2.0).await;
    assert_eq!(disconnected(&logic), [""; 0], "the session goes on");
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_client_with_the_same_key_holds_up_nobody() {
    let (comet, _) = comet(&["--shards", "1"]).await;
    let token = r#"{"key":"k","room_id":"r","caps":["envelope"]}"#;
    let mut stalled = Client::narrow(&comet, false).await;
    stalled.send(&packet(7, 1, token)).await;
    assert_eq!(stalled.packet().await.op, 8);
    let mut other = Client::signed_in(&comet, false, r#"{"key":"other","room_id":"r"}"#).await;
    let body = "x".repeat(100_000);
    for _ in 0..30 {
        comet.push_room("r", &[&body]).await;
        other.pushed().await;
    }
    let mut new = Client::signed_in(&comet, false, r#"{"key":"k","room_id":"r"}"#).await;
    comet.push_room("r", &["m"]).await;
    assert_eq!(new.pushed().await, [(1000, "m".into())]);
    assert_eq!(other.pushed().await, [(1000, "m".into())]);
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_made_right_after_the_auth_reply_arrives() {
    let (comet, _) = comet(&[]).await;
    for index in 0..40 {
        let key = format!("k{index}");
        let token = format!(r#"{{"key":"{key}","accepts":[1000],"room_id":"r{index}"}}"#);
        let mut client = Client::signed_in(&comet, index % 2 == 0, &token).await;
        assert!(comet.push_keys(&[&key], 1000, raw(&["key"]), vec![]).await.is_empty());
        comet.push_room(&format!("r{index}"), &["room"]).await;
        comet.push_all(1000, 0, raw(&["all"])).await;
        for expected in ["key", "room", "all"] {
            assert_eq!(client.pushed().await, [(1000, expected.to_owned())]);
        }
    }
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_authenticate_in_time_is_closed_whatever_it_sends_meanwhile() {
    let (comet, _) = comet(&["--handshake-timeout", "1s"]).await;
    let began = Instant::now();
    let mut silent = Client::tcp(&comet).await;
    let mut silent_ws = Client::ws(&comet).await;
    let mut raw_ws = tokio::net::TcpStream::connect(comet.ws).await.unwrap();
    let mut busy = Client::tcp(&comet).await;
    while busy.try_write(&packet(2, 1, "")).await && comet.closed("auth_timeout") < 4.0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    silent.closes().await;
    silent_ws.closes_with(1008).await;
    busy.closes().await;
    let mut nothing = Vec::new();
    within(tokio::io::AsyncReadExt::read_to_end(&mut raw_ws, &mut nothing)).await.unwrap();
    assert_eq!(nothing, b"");
    assert!(began.elapsed() >= Duration::from_secs(1));
    comet.stop().await;
}

/// Connects take longer than anybody waits; everything else is memory's.
#[derive(Debug, Default)]
struct Slow(MemoryLogic);

#[async_trait]
impl Logic for Slow {
    async fn connect(&self, cookie: &str, token: Bytes, address: IpAddr) -> Result<Identity, LogicError> {
        tokio::time::sleep(Duration::from_secs(2)).await;
        self.0.connect(cookie, token, address).await
    }
    async fn disconnect(&self, mid: Mid, key: &Key) -> Result<bool, LogicError> {
        self.0.disconnect(mid, key).await
    }
    async fn heartbeat(&self, held: Held) -> Result<(), LogicError> {
        self.0.heartbeat(held).await
    }
    async fn renew_online(&self, rooms: HashMap<String, i32>, info: CometInfo) -> Result<Renewed, LogicError> {
        self.0.renew_online(rooms, info).await
    }
    async fn register(&self, held: Vec<Held>) -> Result<(), LogicError> {
        self.0.register(held).await
    }
    async fn noted(&self, cursor: &str) -> Result<Noted, LogicError> {
        self.0.noted(cursor).await
    }
    async fn receive(&self, mid: Mid, key: &Key, packet: Packet) -> Result<(), LogicError> {
        self.0.receive(mid, key, packet).await
    }
    async fn probe(&self, key: &str) -> Result<(), LogicError> {
        self.0.probe(key).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_handshake_time_covers_logics_answer_and_a_session_made_too_late_is_ended() {
    let logic = Arc::new(Slow::default());
    let comet = Comet::start(&["--handshake-timeout", "1s"], logic.clone()).await;
    let mut client = Client::tcp(&comet).await;
    client.send(&packet(7, 1, r#"{"mid":4,"key":"late"}"#)).await;
    client.closes().await;
    assert_eq!(comet.closed("auth_timeout"), 1.0);
    eventually("logic is told to forget it", || disconnected(&logic.0) == ["late"]).await;
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_behind_the_auth_packet_is_answered_after_it() {
    let (comet, _) = comet(&[]).await;
    for ws in [false, true] {
        for key in 0..8 {
            let mut client = Client::on(&comet, ws).await;
            let packets = [packet(7, 1, format!(r#"{{"key":"{key}"}}"#)), packet(14, 2, "1"), packet(4, 3, "x")];
            let one = |packet: &Vec<u8>| if ws { masked(2, packet) } else { packet.clone() };
            client.write(&packets.iter().flat_map(one).collect::<Vec<_>>()).await;
            client.expect(&packet(8, 1, "")).await;
            client.expect(&packet(15, 2, "1")).await;
            client.expect(&packet(4, 3, "")).await;
        }
    }
    comet.stop().await;
}
