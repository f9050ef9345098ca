//! How much one client, one address and all together may take.

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn more_packets_a_second_than_allowed_close_the_connection() {
    let (comet, _) = comet(&["--frames-per-second", "10"]).await;
    for ws in [false, true] {
        let mut client = Client::signed_in(&comet, ws, r#"{"key":"k"}"#).await;
        while client.try_write(&if ws { masked(2, &packet(2, 1, "")) } else { packet(2, 1, "") }).await
            && comet.closed("rate_limited") < f64::from(u8::from(ws)) + 1.0
        {}
        client.rest().await;
    }
    let mut capable = Client::tcp(&comet).await;
    capable.send(&packet(7, 1, r#"{"key":"c","caps":["envelope"]}"#)).await;
    capable.packet().await;
    for seq in 0..30 {
        if !capable.try_write(&packet(2, seq, "")).await {
            break;
        }
    }
    loop {
        let packet = capable.packet().await;
        if packet.op == 24 {
            assert_eq!(
                packet.body,
                r#"{"code":"rate_limited","reason":"too many packets or bytes a second: send less","retryAfterMs":1000}"#
            );
            break;
        }
        assert_eq!(packet.op, 3);
    }
    eventually("all are counted", || comet.closed("rate_limited") == 3.0).await;
    let mut calm = Client::signed_in(&comet, false, r#"{"key":"calm"}"#).await;
    for seq in 0..5 {
        assert_eq!(calm.online(seq).await.1, seq);
    }
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_bytes_a_second_than_allowed_close_the_connection() {
    let (comet, _) = comet(&["--bytes-per-second", "10000"]).await;
    let mut client = Client::signed_in(&comet, false, r#"{"key":"k"}"#).await;
    while client.try_write(&packet(14, 1, vec![b'1'; 4000])).await && comet.closed("rate_limited") == 0.0 {}
    client.rest().await;
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_before_auth_is_closed_as_well() {
    let (comet, _) = comet(&["--frames-per-second", "10"]).await;
    let mut client = Client::tcp(&comet).await;
    while client.try_write(&packet(2, 1, "")).await && comet.closed("rate_limited") == 0.0 {}
    client.rest().await;
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_limit_are_closed_at_once_until_a_place_is_free() {
    let (comet, _) = comet(&["--max-connections", "2"]).await;
    let first = Client::signed_in(&comet, false, r#"{"key":"1"}"#).await;
    let _second = Client::signed_in(&comet, true, r#"{"key":"2"}"#).await;
    let mut third = Client::tcp(&comet).await;
    third.rest().await;
    assert_eq!(comet.metric("over_connections_total"), 1.0);
    drop(first);
    eventually("a place is free", || comet.metric("connections") == 1.0).await;
    Client::signed_in(&comet, false, r#"{"key":"3"}"#).await;
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_has_its_own_limit() {
    let (comet, _) = comet(&["--max-per-address", "2"]).await;
    let _first = Client::signed_in(&comet, false, r#"{"key":"1"}"#).await;
    let _second = Client::signed_in(&comet, true, r#"{"key":"2"}"#).await;
    let mut third = Client::tcp(&comet).await;
    third.closes().await;
    let mut fourth = Client::ws(&comet).await;
    fourth.closes_with(1013).await;
    assert_eq!((comet.metric("over_address_total"), comet.closed("limit")), (2.0, 2.0));
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut elsewhere = Client::over(socket.connect(comet.tcp).await.unwrap(), false).await;
    elsewhere.sign_in(r#"{"key":"3"}"#).await;
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_connections_beyond_so_many_a_second_are_closed() {
    let (comet, _) = comet(&["--handshakes-per-second", "1"]).await;
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(tokio::net::TcpStream::connect(comet.tcp).await.unwrap());
    }
    eventually("some are refused", || comet.metric("over_handshakes_total") >= 1.0).await;
    assert!(comet.metric("over_handshakes_total") < 10.0);
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_comes_back_from_another_address_leaves_the_addresses_counted_right() {
    let (comet, logic) = comet(&[]).await;
    let addresses = || {
        logic.said().into_iter().rev().find_map(|said| match said {
            comet::logic::memory::Said::RenewOnline { info, .. } => Some(info.ip_count),
            _ => None,
        })
    };
    let mut old = Client::signed_in(&comet, false, r#"{"key":"k"}"#).await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut new = Client::over(socket.connect(comet.tcp).await.unwrap(), false).await;
    new.sign_in(r#"{"key":"k"}"#).await;
    old.closes().await;
    eventually("one address is left", || addresses() == Some(1)).await;
    drop(new);
    eventually("none is left", || addresses() == Some(0)).await;
    let _again = Client::signed_in(&comet, false, r#"{"key":"k"}"#).await;
    eventually("and one again", || addresses() == Some(1)).await;
    comet.stop().await;
}
