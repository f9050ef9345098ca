//! The end of a comet that was told to stop.

use std::time::{Duration, Instant};

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn told_to_stop_it_closes_clients_at_the_rate_while_pushes_still_arrive() {
    let flags = ["--close-rate", "20", "--drain-max", "1m", "--flush", "1s", "--drain-delay", "300ms"];
    let (comet, logic) = comet(&flags).await;
    let mut clients = Vec::new();
    for index in 0..40 {
        let token = format!(r#"{{"key":"{index}","room_id":"r"}}"#);
        clients.push((index, Client::signed_in(&comet, index % 2 == 0, &token).await));
    }
    let began = Instant::now();
    comet.process.shutdown.begin();
    let ends = clients
        .into_iter()
        .map(|(index, mut client)| tokio::spawn(async move { (client.rest().await, index, began.elapsed()) }));
    let ends: Vec<_> = ends.collect();
    eventually("it is not ready", || !comet.process.readiness.is_ready()).await;
    eventually("some are closed", || comet.closed("drain") >= 5.0).await;
    let half = comet.closed("drain");
    assert!(half < 40.0, "not all at once");
    comet.push_room("r", &["still"]).await;
    let mut got = 0;
    let mut order = Vec::new();
    for end in ends {
        let (bytes, index, at) = within(end).await.unwrap();
        got += u32::from(bytes.windows(5).any(|window| window == b"still"));
        if index % 2 == 0 {
            assert_eq!(bytes[bytes.len() - 4..], [0x88, 2, 0x03, 0xf4], "a WebSocket is told 1012");
        }
        order.push((at, index));
    }
    assert!(got >= 1 && f64::from(got) <= 40.0 - half, "{got} of those left got the push");
    let last = order.iter().max().unwrap().0;
    assert!(last >= Duration::from_millis(1900), "40 clients at 20 a second were closed within {last:?}");
    order.sort();
    assert!(!order.is_sorted_by_key(|(_, index)| *index), "in random order");
    eventually("every session is ended", || disconnected(&logic).len() == 40).await;
    assert!(
        tokio::net::TcpStream::connect(comet.tcp).await.is_err() || comet.running.is_finished() || {
            let mut late = Client::tcp(&comet).await;
            late.rest().await.is_empty()
        }
    );
    assert_eq!(comet.closed("drain"), 40.0);
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn capable_clients_are_told_to_connect_to_another() {
    let (comet, _) = comet(&[]).await;
    let mut client = Client::tcp(&comet).await;
    client.send(&packet(7, 1, r#"{"key":"c","caps":["envelope"]}"#)).await;
    client.packet().await;
    comet.process.shutdown.begin();
    assert_eq!(
        client.rest().await,
        packet(24, 0, &br#"{"code":"drain","reason":"this server is leaving: connect to another"}"#[..])
    );
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_authenticates_while_the_others_are_closed_is_closed_too() {
    let (comet, _) = comet(&["--flush", "5s"]).await;
    let mut late = Client::tcp(&comet).await;
    eventually("its transport is up", || comet.metric("handshakes_total") == 1.0).await;
    comet.process.shutdown.begin();
    tokio::time::sleep(Duration::from_millis(300)).await;
    late.sign_in(r#"{"key":"late"}"#).await;
    late.closes().await;
    assert_eq!(comet.closed("drain"), 1.0);
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_nobody_there_it_is_gone_at_once() {
    let (comet, _) = comet(&["--drain-delay", "1h", "--drain-min", "1h", "--drain-max", "1h"]).await;
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_pushed_before_the_close_is_still_delivered_and_who_left_holds_up_nothing() {
    let (comet, _) = comet(&["--tcp-send-buffer", "4096", "--queue-bytes", "8MiB"]).await;
    let mut reading = Client::narrow(&comet, true).await;
    reading.sign_in(r#"{"key":"reading","room_id":"r"}"#).await;
    let mut leaving = Client::narrow(&comet, false).await;
    leaving.sign_in(r#"{"key":"leaving","room_id":"r"}"#).await;
    let body = "x".repeat(1 << 20);
    comet.push_room("r", &[&body]).await;
    comet.push_room("r", &["last"]).await;
    drop(leaving);
    comet.process.shutdown.begin();
    assert_eq!(reading.pushed().await, [(1000, body)]);
    assert_eq!(reading.pushed().await, [(1000, "last".into())]);
    reading.closes_with(1012).await;
    comet.stop().await;
}
