//! Clients that do not read, and everybody else.

use proto::comet::{Id, OnFull};
use proto::envelope::{Gap, Message};
use proto::packet;

use crate::support::*;

const SMALL: &[&str] = &["--queue-bytes", "16KiB", "--tcp-send-buffer", "4096"];

/// Pushes 4 KiB messages to room `r` numbered from 0 until something of this metric is there, and some more.
async fn flood(comet: &Comet, metric: &str, on_full: OnFull) -> u64 {
    let mut offset = 0;
    let body = "x".repeat(4096);
    let mut more = 20;
    while more > 0 {
        let id = Id { on_full: on_full.into(), ..id(offset) };
        comet.push_room_as("r", raw(&[&body]), vec![id]).await;
        offset += 1;
        more -= u64::from(comet.metric(metric) > 0.0);
        assert!(offset < 20_000, "nothing happens");
    }
    eventually("all is written or queued", || comet.metric("to_socket_seconds_count") >= offset as f64).await;
    offset
}

const DROPPED: &str = "dropped_total{reason=\"slow\"}";

#[tokio::test(flavor = "multi_thread")]
async fn a_capable_client_that_falls_behind_loses_the_oldest_and_is_told_exactly_what() {
    for ws in [false, true] {
        let (comet, _) = comet(SMALL).await;
        let mut client = Client::narrow(&comet, ws).await;
        client.send(&packet(7, 1, r#"{"key":"k","room_id":"r","caps":["envelope"]}"#)).await;
        assert_eq!(client.packet().await.op, 8);
        let pushed = flood(&comet, DROPPED, OnFull::Default).await;
        let (mut next, mut gaps) = (0, 0);
        while next < pushed {
            let packet = client.packet().await;
            match packet.op {
                23 => {
                    let gap: Gap = serde_json::from_slice(&packet.body).unwrap();
                    let [range] = &gap.ranges[..] else { panic!("{gap:?}") };
                    assert_eq!((gap.reason.as_str(), range.room.as_deref(), range.partition), ("slow", Some("r"), 3));
                    assert_eq!(range.from, next, "told at the place where it was");
                    assert_eq!(range.to - range.from + 1, gap.dropped);
                    gaps += gap.dropped;
                    next = range.to + 1;
                }
                op => {
                    let inner = if op == 9 {
                        packet::decode_message(&packet.body, 1 << 20).unwrap().to_packet()
                    } else {
                        packet
                    };
                    assert_eq!(Message::decode(&inner.body).unwrap().id.offset, next);
                    next += 1;
                }
            }
        }
        assert!(gaps > 0);
        assert_eq!(gaps as f64, comet.metric(DROPPED));
        client.got_nothing().await;
        eventually("nothing waits any more", || comet.metric("queue_bytes") == 0.0).await;
        comet.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_goim_client_that_falls_behind_is_closed_and_nobody_else_notices() {
    for ws in [false, true] {
        let (comet, logic) = comet(&[SMALL, &["--shards", "1"]].concat()).await;
        let mut slow = Client::narrow(&comet, ws).await;
        slow.sign_in(r#"{"key":"slow","room_id":"r"}"#).await;
        let other = Client::signed_in(&comet, !ws, r#"{"key":"other","room_id":"r"}"#).await;
        let reading = tokio::spawn(async move {
            let (mut other, mut count) = (other, 0);
            loop {
                let pushed = other.pushed().await;
                if pushed[0].1 == "last" {
                    return (other, count);
                }
                count += pushed.len();
            }
        });
        let mut pushed = 0;
        let body = "x".repeat(4096);
        while comet.closed("slow") == 0.0 {
            comet.push_room("r", &[&body]).await;
            pushed += 1;
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        comet.push_room("r", &["last"]).await;
        let (_other, count) = within(reading).await.unwrap();
        assert_eq!(count, pushed);
        slow.rest().await;
        eventually("logic is told", || disconnected(&logic) == ["slow"]).await;
        assert_eq!(comet.metric("connections"), 1.0);
        comet.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_may_say_drop_and_a_goim_client_is_kept() {
    let (comet, _) = comet(SMALL).await;
    let mut client = Client::narrow(&comet, false).await;
    client.sign_in(r#"{"key":"k","room_id":"r"}"#).await;
    let pushed = flood(&comet, DROPPED, OnFull::Drop).await;
    let dropped = comet.metric(DROPPED) as u64;
    for _ in 0..pushed - dropped {
        assert_eq!(client.pushed().await[0].0, 1000);
    }
    client.got_nothing().await;
    assert_eq!(comet.closed("slow"), 0.0);
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_may_say_close_and_a_capable_client_is_told_and_closed() {
    let (comet, _) = comet(SMALL).await;
    let mut client = Client::narrow(&comet, false).await;
    client.send(&packet(7, 1, r#"{"key":"k","room_id":"r","caps":["envelope"]}"#)).await;
    assert_eq!(client.packet().await.op, 8);
    let body = "x".repeat(4096);
    while comet.closed("slow") == 0.0 {
        let id = Id { on_full: OnFull::Close.into(), ..id(0) };
        comet.push_room_as("r", raw(&[&body]), vec![Id { epoch: 0, ..id }]).await;
    }
    client.rest().await;
    assert_eq!(comet.closed("slow"), 1.0);
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_all_has_a_limit_and_comes_back_when_clients_leave() {
    let flags = ["--queue-bytes", "1MiB", "--queue-bytes-total", "64KiB", "--tcp-send-buffer", "4096"];
    let (comet, _) = comet(&flags).await;
    let mut clients = Vec::new();
    for index in 0..4 {
        let mut client = Client::narrow(&comet, false).await;
        client.send(&packet(7, 1, format!(r#"{{"key":"{index}","room_id":"r","caps":["envelope"]}}"#))).await;
        client.packet().await;
        clients.push(client);
    }
    flood(&comet, DROPPED, OnFull::Default).await;
    eventually("the gauge is read", || comet.metric("queue_bytes") > 0.0).await;
    assert!(comet.metric("queue_bytes") <= f64::from((64 + 4 * 5) * 1024), "{}", comet.metric("queue_bytes"));
    drop(clients);
    eventually("all is given back", || comet.metric("queue_bytes") == 0.0).await;
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_are_never_dropped_and_a_client_that_does_not_take_them_is_not_read_from() {
    let (comet, _) = comet(SMALL).await;
    let mut client = Client::narrow(&comet, false).await;
    client.send(&packet(7, 1, r#"{"key":"k","room_id":"r","caps":["envelope"]}"#)).await;
    client.packet().await;
    flood(&comet, DROPPED, OnFull::Default).await;
    for seq in 0..100 {
        client.send(&packet(14, seq, vec![b'1'; 100])).await;
    }
    let mut seq = 0;
    while seq < 100 {
        let packet = client.packet().await;
        if packet.op == 15 {
            assert_eq!(packet.seq, seq);
            seq += 1;
        }
    }
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_push_behind_a_huge_one_does_not_close_a_client_that_reads() {
    let (comet, _) = comet(&[]).await;
    for ws in [false, true] {
        let mut client = Client::signed_in(&comet, ws, r#"{"key":"k","room_id":"r"}"#).await;
        let huge = "x".repeat(8 << 20);
        comet.push_room("r", &[&huge]).await;
        comet.push_room("r", &["small"]).await;
        comet.push_room("r", &[&huge[..100_000]]).await;
        assert_eq!(client.pushed().await, [(1000, huge.clone())]);
        assert_eq!(client.pushed().await, [(1000, "small".into())]);
        assert_eq!(client.pushed().await, [(1000, huge[..100_000].into())]);
    }
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_that_is_full_does_not_keep_a_push_from_the_keys_after_it() {
    let (comet, _) = comet(SMALL).await;
    let mut full = Client::narrow(&comet, false).await;
    full.sign_in(r#"{"key":"full","accepts":[1000]}"#).await;
    let mut other = Client::signed_in(&comet, true, r#"{"key":"other","accepts":[1000]}"#).await;
    let body = "x".repeat(4096);
    let mut pushed = 0;
    while comet.closed("slow") == 0.0 {
        comet.push_keys(&["full", "other"], 1000, raw(&[&body]), vec![]).await;
        assert_eq!(other.pushed().await, [(1000, body.clone())]);
        pushed += 1;
    }
    assert!(pushed > 1);
    assert_eq!(comet.push_keys(&["full", "other"], 1000, raw(&["m"]), vec![]).await, ["full"]);
    assert_eq!(other.pushed().await, [(1000, "m".into())]);
    comet.stop().await;
}
