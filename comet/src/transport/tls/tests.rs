use std::time::Duration;

use rustls::HandshakeKind;
use rustls::pki_types::CertificateDer;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream as ClientStream;

use super::super::tests::{Certificate, certificate, client_config, load, pair};
use super::*;

async fn connect(
    tls: &Tls,
    config: &Arc<rustls::ClientConfig>,
    name: &'static str,
) -> (ClientStream<TcpStream>, TlsStream<TcpStream>) {
    let (client, server, _) = pair().await;
    let connector = TlsConnector::from(config.clone());
    let (client, server) =
        tokio::join!(connector.connect(ServerName::try_from(name).unwrap(), client), tls.accept(server));
    (client.unwrap(), server.unwrap())
}

async fn certificate_given(tls: &Tls, roots: &[&Certificate], name: &'static str) -> CertificateDer<'static> {
    // Which certificate is chosen is asked, not whether it fits: unknown names get the first.
    let (client, server, _) = pair().await;
    let mut config = client_config(roots);
    config.dangerous().set_certificate_verifier(Arc::new(Any));
    let connector = TlsConnector::from(Arc::new(config));
    let (client, _server) =
        tokio::join!(connector.connect(ServerName::try_from(name).unwrap(), client), tls.accept(server));
    client.unwrap().get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

/// Takes every certificate.
#[derive(Debug)]
struct Any;

impl rustls::client::danger::ServerCertVerifier for Any {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

#[tokio::test]
async fn a_client_gets_the_certificate_for_the_name_it_asks_for_and_else_the_first() {
    let directory = tempfile::tempdir().unwrap();
    let [one, two, wild] = [("1", "one.example"), ("2", "two.example"), ("3", "*.wild.example")]
        .map(|(stem, name)| certificate(directory.path(), stem, name));
    let all = [&one, &two, &wild];
    let tls = load(&all).unwrap();
    for (name, expected) in [
        ("one.example", &one),
        ("two.example", &two),
        ("a.wild.example", &wild),
        ("a.b.wild.example", &one),
        ("unknown.example", &one),
        ("127.0.0.1", &one),
    ] {
        assert_eq!(certificate_given(&tls, &all, name).await, expected.der, "{name}");
    }
}

#[tokio::test]
async fn a_client_that_comes_back_with_its_ticket_skips_the_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let one = certificate(directory.path(), "1", "one.example");
    let tls = load(&[&one]).unwrap();
    let config = Arc::new(client_config(&[&one]));
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let (mut client, mut server) = connect(&tls, &config, "one.example").await;
        kinds.push(server.get_ref().1.handshake_kind().unwrap());
        // The ticket comes behind the handshake: read on to see it.
        tokio::io::AsyncWriteExt::write_all(&mut server, b"x").await.unwrap();
        tokio::io::AsyncReadExt::read_u8(&mut client).await.unwrap();
    }
    assert_eq!(kinds, [HandshakeKind::Full, HandshakeKind::Resumed]);
}

#[test]
fn changed_files_are_used_and_bad_ones_are_not() {
    let directory = tempfile::tempdir().unwrap();
    let old = certificate(directory.path(), "1", "one.example");
    let tls = load(&[&old]).unwrap();
    let in_use = || tls.certificates.current()[0].end_entity_cert().unwrap().clone().into_owned();
    assert!(!tls.certificates.look().unwrap(), "nothing changed");
    let new = certificate(directory.path(), "1", "one.example");
    assert!(tls.certificates.look().unwrap());
    assert_eq!(in_use(), new.der);

    std::fs::write(&new.cert_file, "half a fi").unwrap();
    let error = tls.certificates.look().unwrap_err().to_string();
    assert!(error.contains("holds no certificate") && error.contains("1.pem"), "{error}");
    assert!(!tls.certificates.look().unwrap(), "said once");
    std::fs::remove_file(&new.cert_file).unwrap();
    assert!(tls.certificates.look().unwrap_err().to_string().contains("cannot read"));
    assert!(!tls.certificates.look().unwrap(), "said once");
    assert_eq!(in_use(), new.der, "the last good one stays");

    let newest = certificate(directory.path(), "1", "one.example");
    assert!(tls.certificates.look().unwrap());
    assert_eq!(in_use(), newest.der);
}

#[tokio::test]
async fn certificates_are_reloaded_while_serving() {
    let directory = tempfile::tempdir().unwrap();
    let old = certificate(directory.path(), "1", "one.example");
    let tls = load(&[&old]).unwrap();
    let following = tls.clone();
    let follower = tokio::spawn(following.certificates.follow(Duration::from_millis(10)));
    let new = certificate(directory.path(), "1", "one.example");
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while certificate_given(&tls, &[&old], "one.example").await != new.der {
        assert!(tokio::time::Instant::now() < deadline, "the new certificate is not in use");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(tls.certificates.reloads.get() >= 1);
    follower.abort();
}

#[test]
fn what_is_wrong_with_a_file_is_said_with_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (certificate(directory.path(), "1", "a.example"), certificate(directory.path(), "2", "b.example"));
    let error = |cert: &PathBuf, key: &PathBuf| {
        format!("{:#}", Tls::load(std::slice::from_ref(cert), std::slice::from_ref(key)).unwrap_err())
    };
    assert!(error(&one.cert_file, &two.key_file).contains("2.key is not the key of"));
    assert!(error(&one.key_file, &one.key_file).contains("1.key holds no certificate"));
    assert!(error(&one.cert_file, &one.cert_file).contains("1.pem holds no private key"));
    assert!(error(&directory.path().join("none"), &one.key_file).contains("cannot read"));
}

#[test]
fn private_keys_are_not_shown() {
    let directory = tempfile::tempdir().unwrap();
    let shown = format!("{:?}", load(&[&certificate(directory.path(), "1", "a.example")]).unwrap());
    assert!(shown.contains("1.pem") && !shown.contains("BEGIN"), "{shown}");
}
