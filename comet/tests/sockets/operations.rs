//! Every operation of a goim client and its answer.

use std::sync::Arc;

use comet::logic::memory::{MemoryLogic, Said};
use proto::packet::Packet;

use crate::support::*;

const TOKEN: &str = r#"{"mid":5,"key":"k","room_id":"live://1","accepts":[1000]}"#;

fn received(logic: &MemoryLogic) -> Vec<Packet> {
    let packet = |said| if let Said::Receive { packet, .. } = said { Some(packet) } else { None };
    logic.said().into_iter().filter_map(packet).collect()
}

/// Clients over both transports, one after the other.
async fn both(comet: &Comet, token: &str) -> [Client; 2] {
    [
        Client::signed_in(comet, false, &token.replace("\"k\"", "\"t\"")).await,
        Client::signed_in(comet, true, &token.replace("\"k\"", "\"w\"")).await,
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn op_2_is_answered_with_how_many_are_online_and_its_body_ignored() {
    let (comet, logic) = comet(&[]).await;
    logic.set_online([("live://1".to_owned(), 258)]);
    let mut clients = both(&comet, TOKEN).await;
    eventually("the count is known", || {
        logic
            .said()
            .iter()
            .any(|said| matches!(said, Said::RenewOnline { rooms, .. } if rooms.get("live://1") == Some(&2)))
    })
    .await;
    for client in &mut clients {
        within(async { while client.online(1).await.0 != 260 {} }).await;
        client.send(&packet(2, 9, "a body")).await;
        client.expect(&hex("00000014 0010 0001 00000003 00000009 00000104")).await;
    }
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn op_3_is_answered_as_a_heartbeat_but_keeps_nobody_alive() {
    let mut logic = MemoryLogic::default();
    logic.heartbeat = std::time::Duration::from_secs(1);
    let comet = Comet::start(&[], Arc::new(logic)).await;
    let mut client = Client::signed_in(&comet, false, r#"{"key":"k"}"#).await;
    let began = std::time::Instant::now();
    client.send(&packet(3, 4, "")).await;
    client.expect(&hex("00000014 0010 0001 00000003 00000004 00000000")).await;
    while client.try_write(&packet(3, 4, "")).await && comet.closed("heartbeat_timeout") == 0.0 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(began.elapsed() < PATIENCE);
    client.rest().await;
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn op_12_moves_to_the_room_in_its_body_and_echoes_it() {
    let (comet, _) = comet(&[]).await;
    for ws in [false, true] {
        let mut client = Client::signed_in(&comet, ws, TOKEN).await;
        client.send(&packet(12, 2, "live://2")).await;
        client.expect(&packet(13, 2, "live://2")).await;
        comet.push_room("live://1", &["old"]).await;
        comet.push_room("live://2", &["new"]).await;
        assert_eq!(client.pushed().await, [(1000, "new".into())]);
        client.send(&packet(12, 3, "")).await;
        client.expect(&packet(13, 3, "")).await;
        assert_eq!(client.online(4).await, (0, 4), "no room, nobody online");
        comet.push_room("live://2", &["none"]).await;
        client.got_nothing().await;
    }
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_text_is_a_room() {
    let (comet, _) = comet(&[]).await;
    let mut client = Client::signed_in(&comet, false, TOKEN).await;
    for room in ["x", "live://a/b", "房间", " "] {
        client.send(&packet(12, 2, room)).await;
        client.expect(&packet(13, 2, room)).await;
        comet.push_room(room, &[room]).await;
        assert_eq!(client.pushed().await, [(1000, room.to_owned())]);
    }
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn op_13_comes_also_when_the_room_is_refused_and_the_old_one_is_kept() {
    let (comet, _) = comet(&[]).await;
    let token = r#"{"key":"k","room_id":"a","rooms_allowed":["a","b"]}"#;
    let mut client = Client::signed_in(&comet, false, token).await;
    let refused = "b".repeat(1025);
    client.send(&packet(12, 2, refused.clone())).await;
    client.expect(&packet(13, 2, refused)).await;
    comet.push_room("a", &["still"]).await;
    assert_eq!(client.pushed().await, [(1000, "still".into())]);
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn entering_the_room_one_is_alone_in_stays_in_it() {
    let (comet, _) = comet(&[]).await;
    for ws in [false, true] {
        let mut client = Client::signed_in(&comet, ws, TOKEN).await;
        client.send(&packet(12, 2, "alone")).await;
        client.expect(&packet(13, 2, "alone")).await;
        client.send(&packet(12, 3, "alone")).await;
        client.expect(&packet(13, 3, "alone")).await;
        comet.push_room("alone", &["here"]).await;
        assert_eq!(client.pushed().await, [(1000, "here".into())]);
        assert_eq!(client.online(1).await.0, 1);
    }
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_leaves_silences_nobody_and_the_count_stays_right() {
    let (comet, _) = comet(&["--shards", "1"]).await;
    let mut clients = Vec::new();
    for index in 0..6 {
        clients.push(Client::signed_in(&comet, false, &format!(r#"{{"key":"{index}","room_id":"r"}}"#)).await);
    }
    for seq in 0..4 {
        clients[0].send(&packet(12, seq, if seq % 2 == 0 { "other" } else { "r" })).await;
        clients[0].next().await;
    }
    drop(clients.remove(2));
    eventually("it is gone", || comet.metric("connections") == 5.0).await;
    comet.push_room("r", &["all"]).await;
    for client in &mut clients {
        assert_eq!(client.pushed().await, [(1000, "all".into())]);
        within(async { while client.online(1).await.0 != 5 {} }).await;
    }
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ops_14_and_16_change_what_is_accepted_and_echo_their_body() {
    let (comet, _) = comet(&[]).await;
    for (ws, key) in [(false, "k"), (true, "k")] {
        let mut client = Client::signed_in(&comet, ws, TOKEN).await;
        comet.push_keys(&[key], 1002, raw(&["1002:no"]), vec![]).await;
        client.send(&packet(14, 2, "1002,-7")).await;
        client.expect(&packet(15, 2, "1002,-7")).await;
        for op in [1002, -7, 1000] {
            comet.push_keys(&[key], op, raw(&[&format!("{op}:yes")]), vec![]).await;
            assert_eq!(client.pushed().await, [(op, "yes".into())]);
        }
        client.send(&packet(16, 3, "1002,1000")).await;
        client.expect(&packet(17, 3, "1002,1000")).await;
        comet.push_keys(&[key], 1002, raw(&["1002:no"]), vec![]).await;
        comet.push_all(1000, 0, raw(&["no"])).await;
        comet.push_keys(&[key], -7, raw(&["-7:left"]), vec![]).await;
        assert_eq!(client.pushed().await, [(-7, "left".into())]);
    }
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_item_that_is_no_number_discards_the_list_and_the_reply_is_still_sent() {
    let (comet, _) = comet(&[]).await;
    let mut client = Client::signed_in(&comet, false, TOKEN).await;
    for list in ["1001, 1002", "1001,x", "1001,", "", "1001,2147483648"] {
        client.send(&packet(14, 2, list)).await;
        client.expect(&packet(15, 2, list)).await;
        comet.push_all(1001, 0, raw(&["1001:no"])).await;
        client.send(&packet(16, 3, list.replace("1001", "1000"))).await;
        client.expect(&packet(17, 3, list.replace("1001", "1000"))).await;
        comet.push_all(1000, 0, raw(&["yes"])).await;
        assert_eq!(client.pushed().await, [(1000, "yes".into())]);
    }
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_other_op_goes_to_logic_and_comes_back_empty_with_its_own_number() {
    let (comet, logic) = comet(&[]).await;
    let ops = [0, 1, 4, 5, 6, 7, 8, 10, 11, 13, 15, 17, 18, 19, 21, 23, 24, 25, 1000, -1, i32::MAX, i32::MIN];
    for mut client in both(&comet, TOKEN).await {
        for (seq, op) in ops.into_iter().enumerate() {
            client.send(&packet(op, seq as i32, "upstream")).await;
            client.expect(&packet(op, seq as i32, "")).await;
        }
    }
    let expected = ops.iter().enumerate().map(|(seq, op)| Packet::new(*op, seq as i32, "upstream"));
    assert_eq!(received(&logic), expected.clone().chain(expected).collect::<Vec<_>>());
    let keys: Vec<_> = logic
        .said()
        .into_iter()
        .filter_map(|said| match said {
            Said::Receive { mid, key, .. } => Some((mid.0, key.to_string())),
            _ => None,
        })
        .collect();
    assert_eq!((&keys[0], &keys[keys.len() - 1]), (&(5, "t".to_owned()), &(5, "w".to_owned())));
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_packet_that_logic_does_not_take_is_answered_all_the_same() {
    let (comet, logic) = comet(&[]).await;
    let mut client = Client::signed_in(&comet, false, TOKEN).await;
    logic.set_down(true);
    client.send(&packet(4, 9, "hello")).await;
    client.expect(&packet(4, 9, "")).await;
    assert_eq!(comet.metric("logic_errors_total{kind=\"receive\"}"), 1.0);
    logic.set_down(false);
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn op_9_from_a_client_has_no_reply_on_tcp_and_an_empty_packet_on_websocket() {
    let (comet, logic) = comet(&[]).await;
    let [mut tcp, mut ws] = both(&comet, TOKEN).await;
    tcp.send(&packet(9, 5, "body")).await;
    tcp.got_nothing().await;
    ws.send(&packet(9, 5, "body")).await;
    ws.expect(&hex("00000010 0010 0001 00000009 00000005")).await;
    assert_eq!(received(&logic), [Packet::new(9, 5, "body"), Packet::new(9, 5, "body")]);
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn echoed_bodies_are_each_requests_own_also_for_a_client_that_reads_late() {
    let (comet, _) = comet(&[]).await;
    for ws in [false, true] {
        let mut client = Client::narrow(&comet, ws).await;
        client.sign_in(r#"{"key":"k"}"#).await;
        let bodies: Vec<_> = (0..64u8).map(|index| vec![b'0' + index; 4096]).collect();
        for (seq, body) in bodies.iter().enumerate() {
            client.send(&packet([12, 14, 16][seq % 3], seq as i32, body.clone())).await;
        }
        for (seq, body) in bodies.iter().enumerate() {
            client.expect(&packet([13, 15, 17][seq % 3], seq as i32, body.clone())).await;
        }
    }
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_pipelined_heartbeats_are_all_answered() {
    let (comet, _) = comet(&[]).await;
    for ws in [false, true] {
        let mut client = Client::signed_in(&comet, ws, r#"{"key":"k"}"#).await;
        let one = |seq| if ws { masked(2, &packet(2, seq, "")) } else { packet(2, seq, "") };
        client.write(&(0..200).flat_map(one).collect::<Vec<_>>()).await;
        for seq in 0..200 {
            assert_eq!(client.packet().await, Packet::new(3, seq, vec![0; 4]));
        }
    }
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_online_count_is_the_clusters_else_the_shards_and_zero_without_a_room() {
    let (comet, logic) = comet(&["--shards", "1", "--online-interval", "1h"]).await;
    eventually("the only report is made", || !logic.said().is_empty()).await;
    let mut first = Client::signed_in(&comet, false, r#"{"key":"a","room_id":"r"}"#).await;
    let _second = Client::signed_in(&comet, true, r#"{"key":"b","room_id":"r"}"#).await;
    assert_eq!(first.online(1).await.0, 2, "logic has not said");
    first.send(&packet(12, 2, "s")).await;
    first.next().await;
    assert_eq!(first.online(3).await.0, 1);
    first.send(&packet(12, 4, "")).await;
    first.next().await;
    assert_eq!(first.online(5).await.0, 0);
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_accept_set_has_a_limit() {
    let (comet, _) = comet(&[]).await;
    let mut client = Client::signed_in(&comet, false, TOKEN).await;
    for from in (10_000..22_000).step_by(500) {
        let list: Vec<_> = (from..from + 500).map(|op: i32| op.to_string()).collect();
        client.send(&packet(14, from, list.join(","))).await;
        client.expect(&packet(15, from, list.join(","))).await;
    }
    comet.push_all(21_999, 0, raw(&["beyond"])).await;
    comet.push_all(15_000, 0, raw(&["within"])).await;
    assert_eq!(client.pushed().await, [(1000, "within".into())]);
    comet.stop().await;
}
