//! A comet over real sockets with logic in memory.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use comet::logic::memory::MemoryLogic;
use comet::transport::ListenerKind;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    comet: comet::Config,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_authenticates_and_gets_a_room_push() {
    let config = Cli::parse_from([
        "comet",
        "--tcp-bind",
        "127.0.0.1:0",
        "--websocket-bind",
        "127.0.0.1:0",
        "--grpc-bind",
        "127.0.0.1:0",
        "--drain-min",
        "0s",
        "--drain-delay",
        "0s",
        "--flush",
        "0s",
    ])
    .comet;
    let listeners = comet::Listeners::bind(&config).unwrap();
    let tcp = listeners.address(ListenerKind::Tcp).unwrap();
    let grpc = listeners.grpc_address();
    let process = runtime::Process::quiet();
    let running = tokio::spawn(comet::run(config, listeners, Arc::new(MemoryLogic::default()), process.clone()));
    let mut client = tokio::task::spawn_blocking(move || {
        let mut client = std::net::TcpStream::connect(tcp).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        client
            .write_all(
                &proto::Packet::new(7, 1, r#"{"mid":1,"key":"k","room_id":"live://1","accepts":[1000]}"#).to_bytes(),
            )
            .unwrap();
        let mut reply = [0; 16];
        client.read_exact(&mut reply).unwrap();
        assert_eq!(reply, proto::Packet::new(8, 1, "").to_bytes()[..]);
        client
    })
    .await
    .unwrap();
    let channel = proto::grpc::channel(&grpc.to_string(), Duration::from_secs(5)).unwrap();
    let mut job = proto::comet::comet_client::CometClient::new(channel);
    let inner = proto::Packet::new(1000, 0, "m1").to_bytes();
    job.broadcast_room(proto::comet::BroadcastRoomReq {
        room_id: "live://1".into(),
        proto: Some(proto::protocol::Proto { ver: 1, op: 9, seq: 0, body: inner.clone() }),
        ..Default::default()
    })
    .await
    .unwrap();
    let got = tokio::task::spawn_blocking(move || {
        let mut got = vec![0; 18];
        client.read_exact(&mut got).unwrap();
        got
    })
    .await
    .unwrap();
    assert_eq!(got, inner);
    process.shutdown.begin();
    running.await.unwrap().unwrap();
}
