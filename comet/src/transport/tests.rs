//! Real sockets, and clients that know nothing of our code.

use std::io::Write;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsConnector;

use super::*;

/// A certificate for one name, in files and for clients.
pub(super) struct Certificate {
    pub(super) cert_file: std::path::PathBuf,
    pub(super) key_file: std::path::PathBuf,
    pub(super) der: rustls::pki_types::CertificateDer<'static>,
}

/// Writes a certificate for `name` over the files called `stem`.
pub(super) fn certificate(directory: &std::path::Path, stem: &str, name: &str) -> Certificate {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let (cert_file, key_file) = (directory.join(format!("{stem}.pem")), directory.join(format!("{stem}.key")));
    std::fs::write(&cert_file, made.cert.pem()).unwrap();
    std::fs::write(&key_file, made.signing_key.serialize_pem()).unwrap();
    Certificate { cert_file, key_file, der: made.cert.der().clone() }
}

pub(super) fn load(certificates: &[&Certificate]) -> anyhow::Result<Tls> {
    let files = |file: fn(&Certificate) -> &std::path::PathBuf| -> Vec<_> {
        certificates.iter().map(|certificate| file(certificate).clone()).collect()
    };
    Tls::load(&files(|one| &one.cert_file), &files(|one| &one.key_file))
}

pub(super) fn client_config(roots: &[&Certificate]) -> ClientConfig {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.der.clone()).unwrap();
    }
    ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(store)
        .with_no_client_auth()
}

fn settings(tls: Option<Tls>) -> TransportSettings {
    TransportSettings { tls, proxies: TrustedProxies::default(), proxy_protocol: false }
}

fn behind_proxy() -> TransportSettings {
    let proxies = TrustedProxies::new(&["127.0.0.0/8".parse().unwrap()]);
    TransportSettings { tls: None, proxies, proxy_protocol: true }
}

pub(super) async fn pair() -> (TcpStream, TcpStream, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (client, accepted) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    let (server, peer) = accepted.unwrap();
    (client.unwrap(), server, peer)
}

/// The next plain bytes of the client, as comet's reader will get them.
async fn read_some(accepted: &mut Accepted) -> Vec<u8> {
    if !accepted.leftover.is_empty() {
        return std::mem::take(&mut accepted.leftover);
    }
    let Some(session) = accepted.tls.as_deref_mut() else {
        let mut plain = Vec::new();
        accepted.socket.read_buf(&mut plain).await.unwrap();
        return plain;
    };
    let mut plain = Vec::new();
    while plain.is_empty() {
        let mut sealed = Vec::new();
        accepted.socket.read_buf(&mut sealed).await.unwrap();
        session.read_tls(&mut sealed.as_slice()).unwrap();
        session.process_new_packets().unwrap();
        drain(session, &mut plain).unwrap();
    }
    plain
}

async fn write_all(accepted: &mut Accepted, plain: &[u8]) {
    let Some(session) = accepted.tls.as_deref_mut() else {
        return accepted.socket.write_all(plain).await.unwrap();
    };
    session.writer().write_all(plain).unwrap();
    let mut sealed = Vec::new();
    while session.wants_write() {
        session.write_tls(&mut sealed).unwrap();
    }
    accepted.socket.write_all(&sealed).await.unwrap();
}

#[tokio::test]
async fn a_tcp_client_is_up_at_once() {
    let (_client, server, peer) = pair().await;
    let accepted = open(server, peer, ListenerKind::Tcp, &settings(None)).await.unwrap();
    assert_eq!((accepted.framing, accepted.address), (Framing::Tcp, peer.ip()));
    assert!(accepted.tls.is_none() && accepted.leftover.is_empty() && accepted.cookie.is_empty());
}

#[tokio::test]
async fn an_independent_websocket_client_upgrades_and_is_heard() {
    let (client, server, peer) = pair().await;
    let settings = settings(None);
    let builder = tokio_websockets::ClientBuilder::new().uri("ws://comet.example/sub").unwrap();
    let (accepted, client) =
        tokio::join!(open(server, peer, ListenerKind::WebSocket, &settings), builder.connect_on(client));
    let (mut accepted, (mut client, response)) = (accepted.unwrap(), client.unwrap());
    assert_eq!(response.status(), 101);
    assert_eq!(accepted.framing, Framing::WebSocket);
    futures::SinkExt::send(&mut client, tokio_websockets::Message::binary(&b"hello"[..])).await.unwrap();
    let frame = read_some(&mut accepted).await;
    assert_eq!((frame[0], frame[1], frame.len()), (0x82, 0x85, 11), "one masked binary frame of five bytes");
    // Server frames are unmasked (RFC 6455 §5.1).
    write_all(&mut accepted, &[0x82, 2, b'h', b'i']).await;
    let message = futures::StreamExt::next(&mut client).await.unwrap().unwrap();
    assert_eq!(&message.as_payload()[..], b"hi");
}

#[tokio::test]
async fn websocket_over_tls_upgrades_and_is_heard_both_ways() {
    let directory = tempfile::tempdir().unwrap();
    let certificate = certificate(directory.path(), "a", "comet.example");
    let settings = settings(Some(load(&[&certificate]).unwrap()));
    let (client, server, peer) = pair().await;
    let connect = async {
        let connector = TlsConnector::from(std::sync::Arc::new(client_config(&[&certificate])));
        let stream = connector.connect(ServerName::try_from("comet.example").unwrap(), client).await.unwrap();
        let mut builder = tokio_websockets::ClientBuilder::new().uri("wss://comet.example/sub").unwrap();
        builder = builder.add_header(http::header::COOKIE, http::HeaderValue::from_static("sid=1")).unwrap();
        builder.connect_on(stream).await.unwrap().0
    };
    let (accepted, mut client) = tokio::join!(open(server, peer, ListenerKind::WebSocketTls, &settings), connect);
    let mut accepted = accepted.unwrap();
    assert_eq!((accepted.framing, accepted.cookie.as_str()), (Framing::WebSocket, "sid=1"));
    futures::SinkExt::send(&mut client, tokio_websockets::Message::binary(&b"hello"[..])).await.unwrap();
    assert_eq!(read_some(&mut accepted).await.len(), 11);
    write_all(&mut accepted, &[0x82, 2, b'h', b'i']).await;
    let message = futures::StreamExt::next(&mut client).await.unwrap().unwrap();
    assert_eq!(&message.as_payload()[..], b"hi");
}

#[tokio::test]
async fn a_failed_upgrade_is_answered_over_tls_too_and_closed_properly() {
    let directory = tempfile::tempdir().unwrap();
    let certificate = certificate(directory.path(), "a", "comet.example");
    let settings = settings(Some(load(&[&certificate]).unwrap()));
    let (client, server, peer) = pair().await;
    let ask = async {
        let connector = TlsConnector::from(std::sync::Arc::new(client_config(&[&certificate])));
        let mut stream = connector.connect(ServerName::try_from("comet.example").unwrap(), client).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        // Without a close_notify this is an UnexpectedEof.
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let (accepted, answer) = tokio::join!(open(server, peer, ListenerKind::WebSocketTls, &settings), ask);
    assert_eq!(accepted.unwrap_err(), Close::Handshake);
    assert_eq!(answer, "HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
}

#[tokio::test]
async fn packets_sent_in_one_piece_with_the_end_of_the_tls_handshake_are_not_lost() {
    let directory = tempfile::tempdir().unwrap();
    let certificate = certificate(directory.path(), "a", "comet.example");
    let settings = settings(Some(load(&[&certificate]).unwrap()));
    let (mut client, server, peer) = pair().await;
    let hurry = async {
        let name = ServerName::try_from("comet.example").unwrap();
        let mut session = ClientConnection::new(client_config(&[&certificate]).into(), name).unwrap();
        let mut out = Vec::new();
        session.write_tls(&mut out).unwrap();
        client.write_all(&out).await.unwrap();
        while session.is_handshaking() {
            let mut sealed = Vec::new();
            client.read_buf(&mut sealed).await.unwrap();
            session.read_tls(&mut sealed.as_slice()).unwrap();
            session.process_new_packets().unwrap();
        }
        for packet in [&b"one"[..], b"two", b"three"] {
            session.writer().write_all(packet).unwrap();
        }
        let mut out = Vec::new();
        while session.wants_write() {
            session.write_tls(&mut out).unwrap();
        }
        client.write_all(&out).await.unwrap();
    };
    let (accepted, ()) = tokio::join!(open(server, peer, ListenerKind::TcpTls, &settings), hurry);
    let mut accepted = accepted.unwrap();
    assert_eq!(accepted.framing, Framing::Tcp);
    let mut heard = Vec::new();
    while heard.len() < 11 {
        heard.extend(read_some(&mut accepted).await);
    }
    assert_eq!(heard, b"onetwothree");
}

#[tokio::test]
async fn a_plain_client_on_a_tls_port_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(Some(load(&[&certificate(directory.path(), "a", "comet.example")]).unwrap()));
    let (mut client, server, peer) = pair().await;
    client.write_all(b"GET /sub HTTP/1.1\r\n\r\n").await.unwrap();
    let refused = open(server, peer, ListenerKind::WebSocketTls, &settings).await;
    assert_eq!(refused.unwrap_err(), Close::Handshake);
}

#[tokio::test]
async fn a_client_that_leaves_during_the_handshake_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(Some(load(&[&certificate(directory.path(), "a", "comet.example")]).unwrap()));
    for kind in [ListenerKind::WebSocket, ListenerKind::WebSocketTls, ListenerKind::TcpTls] {
        let (client, server, peer) = pair().await;
        drop(client);
        assert_eq!(open(server, peer, kind, &settings).await.unwrap_err(), Close::Gone, "{kind:?}");
    }
}

#[tokio::test]
async fn a_proxy_header_names_the_client_on_every_port_and_takes_no_byte_after_it() {
    let mut second =
        [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[0x21, 0x11, 0, 15], &[9, 9, 9, 9, 10, 0, 0, 1, 4, 210, 1, 187]].concat();
    // A TLV, as load balancers add them.
    second.extend([4, 0, 0]);
    for header in [b"PROXY TCP4 9.9.9.9 10.0.0.1 1234 443\r\n".to_vec(), second] {
        let (mut client, server, peer) = pair().await;
        client.write_all(&[&header[..], b"packet"].concat()).await.unwrap();
        let mut accepted = open(server, peer, ListenerKind::Tcp, &behind_proxy()).await.unwrap();
        assert_eq!(accepted.address, IpAddr::from([9, 9, 9, 9]));
        assert_eq!(read_some(&mut accepted).await, b"packet");

        let (client, server, peer) = pair().await;
        let settings = behind_proxy();
        let ask = async {
            let mut client = client;
            for byte in &header {
                client.write_all(&[*byte]).await.unwrap();
                tokio::task::yield_now().await;
            }
            tokio_websockets::ClientBuilder::new()
                .uri("ws://comet.example/sub")
                .unwrap()
                .connect_on(client)
                .await
                .unwrap()
        };
        let (accepted, _client) = tokio::join!(open(server, peer, ListenerKind::WebSocket, &settings), ask);
        assert_eq!(accepted.unwrap().address, IpAddr::from([9, 9, 9, 9]));
    }
}

#[tokio::test]
async fn a_trusted_proxy_must_send_a_header() {
    let long = format!("PROXY TCP4 {}", "1".repeat(200));
    for bytes in [&b"\0\0\0\x10\0\x10\0\x01\0\0\0\x07\0\0\0\x01"[..], b"GET /sub HTTP/1.1\r\n\r\n", long.as_bytes()] {
        let (mut client, server, peer) = pair().await;
        client.write_all(bytes).await.unwrap();
        let refused = open(server, peer, ListenerKind::Tcp, &behind_proxy()).await;
        assert_eq!(refused.unwrap_err(), Close::Handshake);
    }
}

#[tokio::test]
async fn a_proxy_header_from_anyone_else_is_not_believed() {
    let mut settings = behind_proxy();
    settings.proxies = TrustedProxies::new(&["10.0.0.0/8".parse().unwrap()]);
    let (mut client, server, peer) = pair().await;
    client.write_all(b"PROXY TCP4 9.9.9.9 10.0.0.1 1234 443\r\n").await.unwrap();
    let mut accepted = open(server, peer, ListenerKind::Tcp, &settings).await.unwrap();
    assert_eq!(accepted.address, peer.ip());
    assert!(read_some(&mut accepted).await.starts_with(b"PROXY"), "it is the client's first packet, and no packet");
}

#[tokio::test]
async fn a_silent_client_is_the_callers_to_end() {
    let (mut client, server, peer) = pair().await;
    let settings = settings(None);
    let opening = open(server, peer, ListenerKind::WebSocket, &settings);
    assert!(tokio::time::timeout(Duration::from_millis(50), opening).await.is_err());
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert!(answer.is_empty(), "closed without a byte, as goim does");
}
