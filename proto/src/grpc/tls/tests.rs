use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use clap::Parser;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose as Usage, IsCa, KeyPair,
};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tonic::Status;
use tonic::transport::Channel;

use super::*;
use crate::delivery::HelloReq;
use crate::delivery::delivery_client::DeliveryClient;
use crate::delivery::delivery_server::DeliveryServer;
use crate::grpc::tests::{Fake, PATIENT};
use crate::grpc::{channel, channel_over, incoming};

const NAME: &str = "imcluster.internal";

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    tls: TlsConfig,
}

/// An authority and the folder that its files go into.
struct Authority {
    folder: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, format!("authority {}", rand::random::<u32>()));
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Self { folder: tempfile::tempdir().unwrap(), issuer };
        authority.write("ca.crt", &authority.issuer.pem());
        authority.issue(NAME, |_| {});
        authority
    }

    fn write(&self, file: &str, text: &str) {
        std::fs::write(self.folder.path().join(file), text).unwrap();
    }

    /// Writes a certificate for this name over the one that is there.
    fn issue(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![Usage::ServerAuth, Usage::ClientAuth];
        change(&mut params);
        self.write("tls.crt", &params.signed_by(&key, &self.issuer).unwrap().pem());
        self.write("tls.key", &key.serialize_pem());
    }

    fn flags(&self) -> Vec<String> {
        let flag =
            |(name, file): (&str, &str)| format!("--internal-tls-{name}={}", self.folder.path().join(file).display());
        [("cert", "tls.crt"), ("key", "tls.key"), ("ca", "ca.crt")].map(flag).to_vec()
    }

    fn open(&self) -> Result<Tls, CertsError> {
        open(&self.flags()).map(Option::unwrap)
    }
}

fn open(flags: &[String]) -> Result<Option<Tls>, CertsError> {
    Line::parse_from(std::iter::once("x").chain(flags.iter().map(String::as_str))).tls.open()
}

/// A server that ends with the test.
async fn serve(tls: Option<Tls>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = crate::grpc::server().add_service(DeliveryServer::new(Fake::default()));
    tokio::spawn(router.serve_with_incoming(incoming(listener, tls)));
    address
}

fn over(address: SocketAddr, tls: &Tls) -> DeliveryClient<Channel> {
    DeliveryClient::new(channel_over(&address.to_string(), PATIENT, Some(tls)).unwrap())
}

async fn hello(client: &mut DeliveryClient<Channel>) -> Result<String, Status> {
    client.hello(HelloReq {}).await.map(|reply| reply.into_inner().server)
}

/// Waits until so many were refused for this reason: they hear it a moment before it is counted.
async fn counted(tls: &Tls, reason: &'static str, times: u64) {
    let count = || tls.refused.get_or_create(&Reason { reason }).get();
    let wait = async {
        while count() < times {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENT, wait).await.unwrap_or_else(|_| panic!("{reason}: {}, expected {times}", count()));
}

/// A client that trusts the authority of one and shows the certificate of another, or none.
fn stranger(trusts: &Path, shows: Option<&Path>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(trusts.join("ca.crt")).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match shows {
        None => config.with_no_client_auth(),
        Some(folder) => {
            let chain = vec![CertificateDer::from_pem_file(folder.join("tls.crt")).unwrap()];
            let key = PrivateKeyDer::from_pem_file(folder.join("tls.key")).unwrap();
            config.with_client_auth_cert(chain, key).unwrap()
        }
    };
    TlsConnector::from(Arc::new(config))
}

#[tokio::test]
async fn who_has_a_certificate_of_the_authority_for_the_name_calls_and_is_called() {
    let ours = Authority::new();
    let address = serve(Some(ours.open().unwrap())).await;
    // Another process has a certificate of its own.
    ours.issue(NAME, |_| {});
    let mut client = over(address, &ours.open().unwrap());
    for _ in 0..2 {
        assert_eq!(hello(&mut client).await.unwrap(), "comet-1");
    }
}

#[tokio::test]
async fn a_caller_without_such_a_certificate_is_refused_and_counted_and_holds_up_nobody() {
    let (ours, theirs, other_name) = (Authority::new(), Authority::new(), Authority::new());
    let tls = ours.open().unwrap();
    let address = serve(Some(tls.clone())).await;
    // From our authority, but made for something else.
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["billing.internal".to_owned()]).unwrap();
    other_name.write("tls.crt", &params.signed_by(&key, &ours.issuer).unwrap().pem());
    other_name.write("tls.key", &key.serialize_pem());

    let _silent = TcpStream::connect(address).await.unwrap();
    for (shows, reason, times) in [
        (None, "no_certificate", 1),
        (Some(theirs.folder.path()), "bad_certificate", 1),
        (Some(other_name.folder.path()), "bad_certificate", 2),
    ] {
        let socket = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from(NAME).unwrap();
        let mut stream = stranger(ours.folder.path(), shows).connect(name, socket).await.unwrap();
        let error = stream.read_u8().await.unwrap_err();
        assert!(matches!(of_tls(&error), Some(rustls::Error::AlertReceived(_))), "{error}");
        counted(&tls, reason, times).await;
    }
    let mut plain = DeliveryClient::new(channel(&address.to_string(), PATIENT).unwrap());
    hello(&mut plain).await.unwrap_err();
    counted(&tls, "no_tls", 1).await;
    let mut hung_up = TcpStream::connect(address).await.unwrap();
    hung_up.shutdown().await.unwrap();
    assert_eq!(hung_up.read_to_end(&mut Vec::new()).await.unwrap(), 0);
    counted(&tls, "gone", 1).await;
    assert_eq!(hello(&mut over(address, &tls)).await.unwrap(), "comet-1");
}

#[tokio::test]
async fn a_server_that_is_not_of_ours_is_not_called_and_the_error_says_what_to_look_at() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let tls = ours.open().unwrap();
    let ask = async |address| hello(&mut over(address, &tls)).await.unwrap_err().message().to_owned();

    let plain = ask(serve(None).await).await;
    assert!(plain.starts_with("internal TLS with 127.0.0.1:"), "{plain}");
    assert!(plain.contains("give it --internal-tls-cert"), "{plain}");
    let of_others = ask(serve(Some(theirs.open().unwrap())).await).await;
    assert!(
        of_others.contains("expected one for imcluster.internal by an authority of --internal-tls-ca"),
        "{of_others}"
    );

    // One that has a certificate of our authority, and takes only those of another.
    std::fs::copy(theirs.folder.path().join("ca.crt"), ours.folder.path().join("ca2.crt")).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ours.folder.path().join("ca2.crt")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).build().unwrap();
    let chain = vec![CertificateDer::from_pem_file(ours.folder.path().join("tls.crt")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(ours.folder.path().join("tls.key")).unwrap();
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_client_cert_verifier(clients).with_single_cert(chain, key).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepting = tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            assert!(acceptor.accept(socket).await.is_err());
        }
    });
    let refuses = ask(address).await;
    assert!(refuses.contains("it refuses our certificate"), "{refuses}");
    accepting.abort();
}

#[tokio::test]
async fn files_that_change_count_for_new_connections_and_those_that_exist_go_on() {
    let (old, new) = (Authority::new(), Authority::new());
    let (server, client) = (old.open().unwrap(), old.open().unwrap());
    let address = serve(Some(server.clone())).await;
    let mut before = over(address, &client);
    hello(&mut before).await.unwrap();

    for file in ["ca.crt", "tls.crt", "tls.key"] {
        std::fs::copy(new.folder.path().join(file), old.folder.path().join(file)).unwrap();
    }
    assert!(server.ends.look().unwrap());
    assert_eq!(hello(&mut before).await.unwrap(), "comet-1", "the connection is the one it had");
    let with_the_old = hello(&mut over(address, &client)).await.unwrap_err();
    assert!(with_the_old.message().starts_with("internal TLS with"), "{with_the_old}");
    assert!(client.ends.look().unwrap());
    assert_eq!(hello(&mut over(address, &client)).await.unwrap(), "comet-1");
    assert!(!client.ends.look().unwrap(), "nothing changed since");
}

#[tokio::test]
async fn while_one_authority_takes_over_from_another_both_are_trusted() {
    let (old, new) = (Authority::new(), Authority::new());
    let both = format!("{}{}", old.issuer.pem(), new.issuer.pem());
    old.write("ca.crt", &both);
    new.write("ca.crt", &both);
    let (old, new) = (old.open().unwrap(), new.open().unwrap());
    for (server, client) in [(&old, &new), (&new, &old)] {
        let address = serve(Some(server.clone())).await;
        assert_eq!(hello(&mut over(address, client)).await.unwrap(), "comet-1");
    }
}

#[tokio::test]
async fn files_of_no_use_change_nothing_and_show_in_the_report_until_they_are_good() {
    let ours = Authority::new();
    let tls = ours.open().unwrap();
    let address = serve(Some(tls.clone())).await;
    let follower = tokio::spawn(tls.ends.clone().follow(Duration::from_millis(10)));
    let reported = async |ok: bool| {
        let wait = async {
            while tls.report()["ok"] != ok {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENT, wait).await.unwrap_or_else(|_| panic!("{}", tls.report()));
    };
    ours.write("tls.crt", "half a fi");
    reported(false).await;
    assert!(tls.report()["error"].as_str().unwrap().ends_with("tls.crt holds no certificate"), "{}", tls.report());
    assert_eq!(hello(&mut over(address, &tls)).await.unwrap(), "comet-1");
    ours.issue(NAME, |_| {});
    reported(true).await;
    assert_eq!(hello(&mut over(address, &tls)).await.unwrap(), "comet-1");
    follower.abort();
}

#[test]
fn what_is_wrong_with_the_files_is_said_where_they_are_mounted() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    assert!(open(&[]).unwrap().is_none());
    let error = open(&ours.flags()[..2]).unwrap_err().to_string();
    assert!(error.contains("name all three, or none"), "{error}");
    let error = |change: &dyn Fn()| {
        change();
        let error = ours.open().unwrap_err().to_string();
        assert!(error.starts_with("internal TLS: ") && !error.contains("BEGIN"), "{error}");
        ours.write("ca.crt", &ours.issuer.pem());
        ours.issue(NAME, |_| {});
        ours.open().unwrap();
        error
    };
    let refused = "tls.crt would be refused by our other processes as a";
    assert!(error(&|| ours.issue("comet.example", |_| {})).contains(&format!("{refused} server for {NAME}")));
    let of_servers = |params: &mut CertificateParams| params.extended_key_usages = vec![Usage::ServerAuth];
    assert!(error(&|| ours.issue(NAME, of_servers)).contains(&format!("{refused} client for {NAME}")));
    let expired = |params: &mut CertificateParams| {
        params.not_before = rcgen::date_time_ymd(2019, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    };
    assert!(error(&|| ours.issue(NAME, expired)).contains(refused));
    assert!(error(&|| ours.write("ca.crt", &theirs.issuer.pem())).contains(refused));
    assert!(error(&|| ours.write("ca.crt", "none")).contains("ca.crt holds no certificate"));
    assert!(error(&|| ours.write("tls.key", "none")).contains("tls.key holds no private key in PEM"));
    assert!(
        error(&|| ours.write("tls.key", &KeyPair::generate().unwrap().serialize_pem())).contains("is not the key of")
    );
    assert!(error(&|| std::fs::remove_file(ours.folder.path().join("tls.crt")).unwrap()).contains("cannot read"));
}

#[test]
fn the_name_is_one_of_dns_and_never_an_address() {
    for name in ["prod.imcluster.internal", "a"] {
        assert_eq!(dns_name(name).unwrap().to_str(), name);
    }
    for name in ["", "127.0.0.1", "::1", "a b", "*.internal"] {
        assert!(dns_name(name).unwrap_err().starts_with("expected a DNS name"), "{name}");
    }
}
