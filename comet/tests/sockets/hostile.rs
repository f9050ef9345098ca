//! Clients that hold on to what they are given and go on nowhere: a byte now and then, or half a goodbye. Each takes one
//! place, for the time that is set, and nobody else notices.

use std::sync::Arc;
use std::time::Duration;

use comet::logic::memory::MemoryLogic;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::*;

/// An upgrade, long enough to take its time.
const UPGRADE: &[u8] = b"GET /sub HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nX-More: and more and more and more\r\n\r\n";
/// The first bytes of a TLS 1.2 or 1.3 record with half a KiB of ClientHello, which is all zeros.
const HELLO: [u8; 200] = {
    let mut bytes = [0; 200];
    let head = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    let mut at = 0;
    while at < head.len() {
        bytes[at] = head[at];
        at += 1;
    }
    bytes
};

/// A comet with TLS, and the files of its certificate.
async fn start(more: &[&str]) -> (Comet, tempfile::TempDir) {
    let files = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["im.example.com".to_owned()]).unwrap();
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| files.path().join(name));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let tls = ["--tls-open", "--cert-file", cert.to_str().unwrap(), "--key-file", key.to_str().unwrap()];
    let flags = [&tls[..], more].concat();
    (Comet::start(&flags, Arc::new(MemoryLogic::default())).await, files)
}

/// Sends a byte every twentieth of a second, until it is closed or has sent them all.
async fn dawdle(mut client: Client, bytes: Vec<u8>) {
    for byte in bytes {
        if !client.try_write(&[byte]).await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it was let go on to the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_a_byte_now_and_then_takes_one_place_until_the_time_is_over() {
    let (comet, _files) = start(&["--handshake-timeout", "5s", "--max-connections", "51"]).await;
    let mut bystander = Client::signed_in(&comet, true, r#"{"key":"bystander","room_id":"r"}"#).await;
    let auth = packet(7, 1, format!(r#"{{"key":"slow","more":"{}"}}"#, "x".repeat(200)));
    let raw = async |address| Client::over(TcpStream::connect(address).await.unwrap(), false).await;
    let mut slow = Vec::new();
    for _ in 0..10 {
        slow.push(tokio::spawn(dawdle(raw(comet.tcp).await, auth.clone())));
        slow.push(tokio::spawn(dawdle(raw(comet.ws).await, UPGRADE.to_vec())));
        slow.push(tokio::spawn(dawdle(Client::ws(&comet).await, masked(2, &auth))));
        slow.push(tokio::spawn(dawdle(raw(comet.tcp_tls.unwrap()).await, HELLO.to_vec())));
        slow.push(tokio::spawn(dawdle(raw(comet.ws_tls.unwrap()).await, HELLO.to_vec())));
    }
    // They have all the places there are, and that is all they have.
    let mut late = Client::tcp(&comet).await;
    late.closes().await;
    for number in 0..20 {
        assert_eq!(bystander.online(number).await.1, number);
        comet.push_room("r", &["m"]).await;
        assert_eq!(bystander.pushed().await, [(1000, "m".into())]);
    }
    for slow in slow {
        within(slow).await.unwrap();
    }
    eventually("all are counted", || comet.closed("auth_timeout") == 50.0).await;
    assert_eq!(comet.metric("over_connections_total"), 1.0);
    drop(enter(&comet).await);
    bystander.got_nothing().await;
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_closes_its_half_is_closed_and_its_place_is_free() {
    let (comet, _files) = start(&["--max-connections", "12"]).await;
    let auth = packet(7, 1, r#"{"mid":1}"#);
    let (frame, none) = (masked(2, &auth), &[][..]);
    let (tcp, ws) = (comet.tcp, comet.ws);
    let (tcps, wss) = (comet.tcp_tls.unwrap(), comet.ws_tls.unwrap());
    // Where, and how far each came: nothing, some of the handshake, all of it, some of the auth packet, all of that.
    for (address, bytes) in [
        (tcp, none),
        (tcp, &auth[..20]),
        (tcp, &auth[..]),
        (ws, none),
        (ws, &UPGRADE[..40]),
        (ws, UPGRADE),
        (ws, &[UPGRADE, &frame[..20]].concat()[..]),
        (ws, &[UPGRADE, &frame].concat()[..]),
        (tcps, none),
        (tcps, &HELLO[..]),
        (wss, none),
        (wss, &HELLO[..]),
    ] {
        let mut client = Client::over(TcpStream::connect(address).await.unwrap(), false).await;
        client.write(bytes).await;
        client.close_half().await;
        // It may be answered, but not kept.
        client.rest().await;
    }
    eventually("all are counted as gone", || comet.closed("gone") == 12.0).await;
    let mut all = Vec::new();
    for _ in 0..12 {
        all.push(enter(&comet).await);
    }
    comet.stop().await;
}

/// A client that was let in, once there is a place for it.
async fn enter(comet: &Comet) -> TcpStream {
    let entered = async {
        loop {
            let mut socket = TcpStream::connect(comet.tcp).await.unwrap();
            let mut answer = [0; 16];
            if socket.write_all(&packet(7, 1, "{}")).await.is_ok() && socket.read_exact(&mut answer).await.is_ok() {
                return socket;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(entered).await
}
