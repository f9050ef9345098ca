//! TLS on both ports, from the handshake to large pushes through a client that reads slowly.

use std::sync::Arc;
use std::time::Duration;

use comet::logic::memory::MemoryLogic;
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, crypto};

use crate::support::*;

struct Secure {
    comet: Comet,
    root: CertificateDer<'static>,
    _files: tempfile::TempDir,
}

impl Secure {
    async fn start(flags: &[&str]) -> Self {
        let files = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["im.example.com".to_owned()]).unwrap();
        let [cert, key] = ["cert.pem", "key.pem"].map(|name| files.path().join(name));
        std::fs::write(&cert, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let paths = ["--tls-open", "--cert-file", cert.to_str().unwrap(), "--key-file", key.to_str().unwrap()];
        let comet = Comet::start(&[&paths[..], flags].concat(), Arc::new(MemoryLogic::default())).await;
        Self { comet, root: made.cert.der().clone(), _files: files }
    }

    async fn client(&self, ws: bool, version: &'static SupportedProtocolVersion) -> Client {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let address = if ws { self.comet.ws_tls } else { self.comet.tcp_tls };
        let socket = socket.connect(address.unwrap()).await.unwrap();
        let name = ServerName::try_from("im.example.com").unwrap();
        Client::over(within(TlsConnector::from(Arc::new(config)).connect(name, socket)).await.unwrap(), ws).await
    }
}

const WAYS: [(bool, &SupportedProtocolVersion); 4] = [(false, &TLS13), (true, &TLS13), (false, &TLS12), (true, &TLS12)];

#[tokio::test(flavor = "multi_thread")]
async fn requests_and_pushes_are_goims_bytes_inside_tls() {
    let secure = Secure::start(&[]).await;
    for (index, (ws, version)) in WAYS.into_iter().enumerate() {
        for shard in 0..4 {
            let mut client = secure.client(ws, version).await;
            let token = format!(r#"{{"key":"{index}{shard}","room_id":"r{index}{shard}"}}"#);
            // All at once: what comes with the auth packet moves to the other shard with it.
            let packets = [packet(7, 1, token), packet(2, 2, ""), packet(14, 3, "1")];
            let one = |packet: &Vec<u8>| if ws { masked(2, packet) } else { packet.clone() };
            client.write(&packets.iter().flat_map(one).collect::<Vec<_>>()).await;
            client.expect(&packet(8, 1, "")).await;
            assert_eq!(client.packet().await.seq, 2);
            client.expect(&packet(15, 3, "1")).await;
            secure.comet.push_room(&format!("r{index}{shard}"), &["m"]).await;
            assert_eq!(client.pushed().await, [(1000, "m".into())]);
            client.got_nothing().await;
        }
    }
    secure.comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_pushes_reach_a_slow_reader_whole() {
    let secure = Secure::start(&["--queue-bytes", "32MiB", "--tcp-send-buffer", "4096"]).await;
    for (ws, version) in WAYS {
        let mut client = secure.client(ws, version).await;
        client.sign_in(r#"{"key":"k","room_id":"r"}"#).await;
        let bodies: Vec<String> = [1, 60_000, 70_000, 3 << 20, 200_000, 5, 16_384, 65_536]
            .iter()
            .enumerate()
            .map(|(index, size)| char::from(b'a' + index as u8).to_string().repeat(*size))
            .collect();
        for body in &bodies {
            secure.comet.push_room("r", &[body]).await;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        client.send(&packet(14, 9, vec![b'1'; 4000])).await;
        for body in &bodies {
            assert!(client.pushed().await == [(1000, body.clone())], "{} bytes", body.len());
        }
        client.expect(&packet(15, 9, vec![b'1'; 4000])).await;
        client.got_nothing().await;
    }
    secure.comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stops_is_closed_or_told_as_without_tls() {
    let secure = Secure::start(&["--queue-bytes", "16KiB", "--tcp-send-buffer", "4096"]).await;
    let body = "x".repeat(4096);
    let mut goim = secure.client(false, &TLS13).await;
    goim.sign_in(r#"{"key":"goim","room_id":"r"}"#).await;
    while secure.comet.closed("slow") == 0.0 {
        secure.comet.push_room("r", &[&body]).await;
    }
    let mut capable = secure.client(true, &TLS13).await;
    capable.send(&packet(7, 1, r#"{"key":"c","room_id":"s","caps":["envelope"]}"#)).await;
    capable.packet().await;
    let before = secure.comet.metric("dropped_total{reason=\"slow\"}");
    let mut pushed = 0;
    while secure.comet.metric("dropped_total{reason=\"slow\"}") < before + 10.0 {
        secure.comet.push_room("s", &[&body]).await;
        pushed += 1;
    }
    secure.comet.push_room("s", &["last"]).await;
    let (mut got, mut gaps) = (0, 0);
    loop {
        let packet = capable.packet().await;
        if packet.op == 23 {
            let gap: proto::envelope::Gap = serde_json::from_slice(&packet.body).unwrap();
            gaps += gap.dropped;
        } else {
            got += 1;
            if packet.body.ends_with(b"last") {
                break;
            }
        }
    }
    assert_eq!(got + gaps, pushed + 1);
    secure.comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_requests_at_once_are_all_answered_in_order() {
    let secure = Secure::start(&[]).await;
    for (ws, version) in WAYS {
        let mut client = secure.client(ws, version).await;
        client.sign_in(r#"{"key":"k"}"#).await;
        let one = |seq| if ws { masked(2, &packet(4, seq, "x")) } else { packet(4, seq, "x") };
        client.write(&(0..500).flat_map(one).collect::<Vec<_>>()).await;
        for seq in 0..500 {
            client.expect(&packet(4, seq, "")).await;
        }
    }
    secure.comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_speaks_no_tls_is_closed_and_one_that_stalls_in_it_as_well() {
    let secure = Secure::start(&["--handshake-timeout", "1s"]).await;
    let mut plain =
        Client::over(tokio::net::TcpStream::connect(secure.comet.tcp_tls.unwrap()).await.unwrap(), false).await;
    plain.write(&packet(7, 1, "{}")).await;
    plain.rest().await;
    let mut stalled =
        Client::over(tokio::net::TcpStream::connect(secure.comet.ws_tls.unwrap()).await.unwrap(), false).await;
    stalled.write(b"\x16\x03\x01").await;
    stalled.rest().await;
    eventually("both are counted", || secure.comet.closed("handshake") + secure.comet.closed("auth_timeout") == 2.0)
        .await;
    secure.comet.stop().await;
}
