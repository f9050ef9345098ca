//! Mutual TLS between our own processes: each shows a certificate of one authority for one fixed name, never for an
//! address, and neither end goes on with who has none.
//!
//! TLS 1.3 alone and without resumption: connections are few and live long, and each is looked at in full. Files that
//! change count for the connections that come after.

use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerifier};
use rustls::client::{ClientConfig, Resumption, WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, ServerConfig, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::certs::{CertsError, File, LOOK_EVERY, Reloaded};

/// From the first byte to a connection that both ends trust.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Callers that are refused are said at most this often.
const SAY_EVERY: Duration = Duration::from_secs(10);
/// As much as is read ahead to hear the server's first word; all that is longer goes past this buffer.
const FIRST_WORD: usize = 16;
/// What both ends speak.
const ALPN: &[u8] = b"h2";

/// Where the certificates are with which our processes know each other.
#[derive(Clone, Debug, clap::Args)]
pub struct TlsConfig {
    /// Certificate chain (PEM) of this process, for mutual TLS on the gRPC ports of comet and logic: comet, logic and
    /// job show theirs to each other and let nobody else in. Good for servers and clients, for the name of
    /// --internal-tls-name. All our processes have the three files, or none has. Read again when they change.
    #[arg(long, value_name = "FILE", env = "IMCLUSTER_INTERNAL_TLS_CERT")]
    pub internal_tls_cert: Option<PathBuf>,
    /// The private key (PEM) to that certificate.
    #[arg(long, value_name = "FILE", env = "IMCLUSTER_INTERNAL_TLS_KEY")]
    pub internal_tls_key: Option<PathBuf>,
    /// Certificate authorities (PEM) that the certificates of our processes are by; several while one takes over from
    /// another.
    #[arg(long, value_name = "FILE", env = "IMCLUSTER_INTERNAL_TLS_CA")]
    pub internal_tls_ca: Option<PathBuf>,
    /// The name that the certificates of all our processes are for, wherever they run.
    #[arg(
        long,
        value_name = "NAME",
        env = "IMCLUSTER_INTERNAL_TLS_NAME",
        default_value = "imcluster.internal",
        value_parser = dns_name
    )]
    pub internal_tls_name: ServerName<'static>,
}

fn dns_name(text: &str) -> Result<ServerName<'static>, String> {
    match ServerName::try_from(text.to_owned()) {
        Ok(name @ ServerName::DnsName(_)) => Ok(name),
        _ => Err(format!("expected a DNS name such as imcluster.internal, not `{text}`")),
    }
}

impl TlsConfig {
    /// Reads the files; `None` when none is named.
    ///
    /// # Errors
    /// One line that says which file does not fit, and why.
    pub fn open(&self) -> Result<Option<Tls>, CertsError> {
        let paths = [&self.internal_tls_cert, &self.internal_tls_key, &self.internal_tls_ca];
        let paths: Vec<PathBuf> = paths.into_iter().flatten().cloned().collect();
        match paths.len() {
            0 => Ok(None),
            3 => Tls::load(paths, self.internal_tls_name.clone()).map(Some),
            _ => Err(CertsError::new(
                "--internal-tls-cert, --internal-tls-key and --internal-tls-ca go together: name all three, or none",
            )),
        }
    }
}

/// Why a caller was refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// What a process shows and trusts at both ends of its connections. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tls {
    ends: Arc<Reloaded<Ends>>,
    name: ServerName<'static>,
    refused: Family<Reason, Counter>,
    /// When a refused caller was last said.
    said: Arc<Mutex<Option<Instant>>>,
}

/// Both ends with the files as they are.
struct Ends {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

impl Tls {
    fn load(paths: Vec<PathBuf>, name: ServerName<'static>) -> Result<Self, CertsError> {
        let make = {
            let name = name.clone();
            move |files: &[File]| Ends::new(&files[0], &files[1], &files[2], &name)
        };
        let ends = Reloaded::load(paths, make).map_err(|error| CertsError::new(format!("internal TLS: {error}")))?;
        Ok(Self { ends: Arc::new(ends), name, refused: Family::default(), said: Arc::default() })
    }

    /// Registers what happens to the files and to callers.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("reloads", "Changed certificates put to use", self.ends.reloads.clone());
        registry.register("reload_errors", "Changed certificates of no use", self.ends.reload_errors.clone());
        registry.register("refused", "Callers that were refused", self.refused.clone());
    }

    /// Whether the files are in use as they are, for `/status`.
    pub fn report(&self) -> serde_json::Value {
        match self.ends.trouble() {
            None => serde_json::json!({"ok": true}),
            Some(error) => serde_json::json!({"ok": false, "error": error}),
        }
    }

    /// Puts changed files to use, for as long as it is polled; connections that exist stay as they are.
    pub async fn follow(self) {
        self.ends.follow(LOOK_EVERY).await;
    }

    /// Takes a caller through the handshake. One that is not of ours is refused, counted and said.
    pub(super) async fn accept(&self, socket: TcpStream) -> Option<server::TlsStream<TcpStream>> {
        let peer = socket.peer_addr().ok()?; // who has no address any more is gone
        let acceptor = self.ends.current().acceptor.clone();
        let (reason, why) = match timeout(HANDSHAKE, acceptor.accept(socket)).await {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(error)) => refusal(&error),
            Err(_) => ("slow", format!("no handshake within {HANDSHAKE:?}")),
        };
        self.refused.get_or_create(&Reason { reason }).inc();
        let mut said = self.said.lock();
        if said.is_none_or(|at| at.elapsed() >= SAY_EVERY) {
            *said = Some(Instant::now());
            tracing::warn!(%peer, why, "refused a caller on the internal port");
        }
        None
    }

    /// Takes a connection to a server of ours through the handshake, up to the server's first word.
    ///
    /// # Errors
    /// When the server is not of ours, or does not take us for one; says what to look at.
    pub(super) async fn connect(
        &self,
        socket: TcpStream,
        to: &str,
    ) -> io::Result<BufReader<client::TlsStream<TcpStream>>> {
        let connector = self.ends.current().connector.clone();
        let handshake = async {
            let stream = connector.connect(self.name.clone(), socket).await?;
            let mut stream = BufReader::with_capacity(FIRST_WORD, stream);
            // In TLS 1.3 the client is done before the server has looked at its certificate: who is refused hears it
            // where the first word should be. Waiting for that, no call is lost on a connection that leads nowhere.
            if stream.fill_buf().await?.is_empty() {
                return Err(io::Error::from(ErrorKind::UnexpectedEof));
            }
            Ok(stream)
        };
        let ended = timeout(HANDSHAKE, handshake).await;
        let ended = ended.unwrap_or_else(|_| Err(io::Error::new(ErrorKind::TimedOut, "no answer to the handshake")));
        ended.map_err(|error| {
            io::Error::new(error.kind(), format!("internal TLS with {to}: {}", explained(&error, &self.name)))
        })
    }
}

impl Ends {
    /// Of a certificate that the others would refuse nothing is made: here its owner sees why.
    fn new(cert: &File, key: &File, ca: &File, name: &ServerName<'static>) -> Result<Self, CertsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        for authority in ca.certificates()? {
            roots.add(authority).map_err(|error| ca.error(format_args!("holds no authority: {error}")))?;
        }
        let roots = Arc::new(roots);
        let of_ca = |error: &dyn std::fmt::Display| ca.error(format_args!("cannot be used: {error}"));
        let servers = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone());
        let servers = servers.build().map_err(|error| of_ca(&error))?;
        let clients = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
        let clients = Named { chain: clients.build().map_err(|error| of_ca(&error))?, name: name.clone() };

        let own = cert.with_key(key)?;
        let (leaf, chain) = own.cert.split_first().ok_or_else(|| cert.error("holds no certificate"))?;
        let now = UnixTime::now();
        let refused = |of: &str, error: rustls::Error| {
            let name = name.to_str();
            cert.error(format_args!("would be refused by our other processes as a {of} for {name}: {error}"))
        };
        servers.verify_server_cert(leaf, chain, name, &[], now).map_err(|error| refused("server", error))?;
        clients.verify_client_cert(leaf, chain, now).map_err(|error| refused("client", error))?;

        let own = Arc::new(SingleCertAndKey::from(own));
        let versions = [&rustls::version::TLS13];
        let of_cert = |error: rustls::Error| cert.error(format_args!("cannot be used: {error}"));
        let server = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&versions);
        let server = server.map_err(of_cert)?.with_client_cert_verifier(Arc::new(clients));
        let mut server = server.with_cert_resolver(own.clone());
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let client = ClientConfig::builder_with_provider(provider).with_protocol_versions(&versions);
        let client = client.map_err(of_cert)?.with_webpki_verifier(servers);
        let mut client = client.with_client_cert_resolver(own);
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.resumption = Resumption::disabled();
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(server)), connector: TlsConnector::from(Arc::new(client)) })
    }
}

/// Takes clients whose certificate is by our authority and for our name: the authority may have others.
#[derive(Debug)]
struct Named {
    chain: Arc<dyn ClientCertVerifier>,
    name: ServerName<'static>,
}

impl ClientCertVerifier for Named {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.chain.verify_client_cert(leaf, chain, now)?;
        verify_server_name(&ParsedCertificate::try_from(leaf)?, &self.name)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

fn of_tls(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|error| error.downcast_ref())
}

/// Why a caller is refused: in one word, and for people.
fn refusal(error: &io::Error) -> (&'static str, String) {
    use rustls::Error;
    match of_tls(error) {
        Some(Error::NoCertificatesPresented) => ("no_certificate", "it has no certificate".to_owned()),
        Some(Error::InvalidCertificate(_)) => ("bad_certificate", format!("{error}, see --internal-tls-ca")),
        Some(Error::AlertReceived(alert)) => ("ours", format!("it does not take our certificate: {alert:?}")),
        Some(_) => ("no_tls", format!("it does not speak TLS as we do: {error}")),
        None => ("gone", error.to_string()),
    }
}

/// Why a server is not called, and what to look at.
fn explained(error: &io::Error, name: &ServerName<'_>) -> String {
    use rustls::Error;
    match of_tls(error) {
        Some(Error::InvalidCertificate(_)) => {
            format!("{error}: expected one for {} by an authority of --internal-tls-ca", name.to_str())
        }
        Some(Error::AlertReceived(alert)) => {
            format!("it refuses our certificate, {alert:?}: give both ends the same --internal-tls-ca")
        }
        Some(_) => format!("it does not speak TLS as we do: give it --internal-tls-cert, -key and -ca too ({error})"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests;
