//! TLS on both ports, from the handshake to large pushes through a client that reads slowly.

use std::path::Path;
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
    files: tempfile::TempDir,
}

impl Secure {
    async fn start(flags: &[&str]) -> Self {
        let files = tempfile::tempdir().unwrap();
        let root = put(files.path());
        let [cert, key] = ["cert.pem", "key.pem"].map(|name| files.path().join(name));
        let paths = ["--tls-open", "--cert-file", cert.to_str().unwrap(), "--key-file", key.to_str().unwrap()];
        let comet = Comet::start(&[&paths[..], flags].concat(), Arc::new(MemoryLogic::default())).await;
        Self { comet, root, files }
    }

    async fn client(&self, ws: bool, version: &'static SupportedProtocolVersion) -> Client {
        self.client_that_trusts(&[&self.root], ws, version).await.unwrap()
    }

    async fn client_that_trusts(
        &self,
        trusted: &[&CertificateDer<'static>],
        ws: bool,
        version: &'static SupportedProtocolVersion,
    ) -> std::io::Result<Client> {
        let mut roots = RootCertStore::empty();
        trusted.iter().for_each(|root| roots.add((*root).clone()).unwrap());
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
        let stream = within(TlsConnector::from(Arc::new(config)).connect(name, socket)).await?;
        Ok(Client::over(stream, ws).await)
    }
}

/// A new certificate and its key in this folder, in the place of those that are there.
fn put(folder: &Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(["im.example.com".to_owned()]).unwrap();
    for (name, pem) in [("cert.pem", made.cert.pem()), ("key.pem", made.signing_key.serialize_pem())] {
        let next = folder.join("next");
        std::fs::write(&next, pem).unwrap();
        std::fs::rename(&next, folder.join(name)).unwrap();
    }
    made.cert.der().clone()
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
async fn a_certificate_replaced_under_load_costs_nobody_and_whoever_comes_next_is_given_the_new_one() {
    let secure = Secure::start(&[]).await;
    let mut readers = Vec::new();
    for (index, (ws, version)) in WAYS.into_iter().enumerate() {
        let mut client = secure.client(ws, version).await;
        client.sign_in(&format!(r#"{{"key":"{index}","room_id":"r"}}"#)).await;
        readers.push(tokio::spawn(async move {
            let mut next = 0;
            loop {
                for (_, body) in client.pushed().await {
                    if body == "last" {
                        client.got_nothing().await;
                        return next;
                    }
                    assert_eq!(body, next.to_string());
                    next += 1;
                }
            }
        }));
    }
    let new = put(secure.files.path());
    let both = [&secure.root, &new];
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let (mut pushed, mut came) = (0, 0);
    // Clients come and pushes flow until some while after the change.
    let mut more = 100;
    while more > 0 {
        assert!(tokio::time::Instant::now() < deadline, "the new certificate is not taken up");
        secure.comet.push_room("r", &[&pushed.to_string()]).await;
        pushed += 1;
        if pushed % 10 == 0 {
            let (ws, version) = WAYS[came % WAYS.len()];
            let mut client = secure.client_that_trusts(&both, ws, version).await.unwrap();
            client.sign_in("{}").await;
            client.got_nothing().await;
            came += 1;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
        more -= u32::from(secure.comet.metric("tls_reloads_total") > 0.0);
    }
    for (ws, version) in WAYS {
        secure.client_that_trusts(&[&new], ws, version).await.unwrap().sign_in("{}").await;
        assert!(secure.client_that_trusts(&[&secure.root], ws, version).await.is_err(), "the old one is still shown");
    }
    secure.comet.push_room("r", &["last"]).await;
    for reader in readers {
        assert_eq!(within(reader).await.unwrap(), pushed, "{came} clients came meanwhile");
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
