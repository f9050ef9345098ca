//! TLS for client ports: several certificates by the name a client asks for, read again when their files change.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::close::Close;

/// How often the files are looked at. Kubernetes swaps a mounted Secret within a minute or so; this adds little.
pub const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The server side of TLS with its certificates. Cheap to clone.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    certificates: Arc<Certificates>,
    /// Files that changed into something unusable; the certificates before them stay in use.
    pub reload_errors: Counter,
    /// Files that changed and are in use.
    pub reloads: Counter,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("certificates", &self.certificates).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the certificate chains and, in the same order, their keys.
    ///
    /// # Errors
    /// One line naming the file that cannot be read or does not fit.
    pub fn load(cert_files: &[PathBuf], key_files: &[PathBuf]) -> anyhow::Result<Self> {
        let pairs = cert_files.iter().cloned().zip(key_files.iter().cloned());
        let files: Vec<_> = pairs.map(|(chain, key)| Files { chain, key }).collect();
        let contents = read_files(&files)?;
        let current = ArcSwap::from_pointee(parse(&files, &contents)?);
        let certificates = Arc::new(Certificates { files, current, seen: Mutex::new(Some(contents)) });
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context("TLS 1.2 and 1.3 are built in")?
            .with_no_client_auth()
            .with_cert_resolver(certificates.clone());
        // Clients that come back skip the certificate: tickets are kept by them, so a restart storm costs no memory here.
        config.ticketer = rustls::crypto::ring::Ticketer::new().context("a key for session tickets")?;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.send_tls13_tickets = 1;
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            certificates,
            reload_errors: Counter::default(),
            reloads: Counter::default(),
        })
    }

    /// Takes a client through the handshake.
    ///
    /// # Errors
    /// [`Close::Handshake`] when it does not speak TLS, or not ours; [`Close::Gone`] when it left.
    pub async fn accept(&self, socket: TcpStream) -> Result<TlsStream<TcpStream>, Close> {
        self.acceptor.accept(socket).await.map_err(|error| match Close::from(error) {
            Close::Gone => Close::Gone,
            _ => Close::Handshake,
        })
    }

    /// Looks at the files again and again and puts what changed to use; connections that exist keep theirs. Never ends;
    /// may be dropped at any time.
    pub async fn follow(&self, every: Duration) {
        loop {
            tokio::time::sleep(every).await;
            let certificates = self.certificates.clone();
            match tokio::task::spawn_blocking(move || certificates.look()).await {
                Ok(Ok(false)) => {}
                Ok(Ok(true)) => {
                    self.reloads.inc();
                    tracing::info!("certificates changed and are in use");
                }
                Ok(Err(error)) => {
                    self.reload_errors.inc();
                    let error = format!("{error:#}");
                    tracing::error!(error, "certificates changed and cannot be used, keeping the old ones");
                }
                Err(error) => tracing::error!(%error, "looking at certificate files failed"),
            }
        }
    }
}

/// A certificate chain and its private key, as paths.
struct Files {
    chain: PathBuf,
    key: PathBuf,
}

/// What was in them.
#[derive(PartialEq, Eq)]
struct Contents {
    chain: Vec<u8>,
    key: Vec<u8>,
}

/// The certificates in use and where they come from.
struct Certificates {
    files: Vec<Files>,
    current: ArcSwap<Vec<Arc<CertifiedKey>>>,
    /// What the files held when we last looked; `None` = they could not be read.
    seen: Mutex<Option<Vec<Contents>>>,
}

impl std::fmt::Debug for Certificates {
    /// Names, never contents: there are private keys among them.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.files.iter().map(|files| &files.chain)).finish()
    }
}

impl Certificates {
    /// Puts the files to use if they changed since we last looked, and says whether. An error is said once per change.
    /// Contents are compared, not times: they are small, and a mounted Secret changes by a link.
    fn look(&self) -> anyhow::Result<bool> {
        let mut seen = self.seen.lock();
        let read = read_files(&self.files);
        if seen.as_ref() == read.as_ref().ok() {
            return Ok(false);
        }
        *seen = None;
        let contents = seen.insert(read?);
        self.current.store(Arc::new(parse(&self.files, contents)?));
        Ok(true)
    }
}

impl ResolvesServerCert for Certificates {
    /// The first certificate for the name asked for that the client can verify, else the first of all.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let keys = self.current.load();
        let asked = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let fits = |key: &&Arc<CertifiedKey>| {
            let Some(name) = &asked else { return false };
            covers(key, name) && key.key.choose_scheme(hello.signature_schemes()).is_some()
        };
        let chosen = if keys.len() > 1 { keys.iter().find(fits) } else { None };
        chosen.or_else(|| keys.first()).cloned()
    }
}

fn covers(key: &CertifiedKey, name: &ServerName<'_>) -> bool {
    let parsed = key.end_entity_cert().and_then(ParsedCertificate::try_from);
    parsed.is_ok_and(|certificate| rustls::client::verify_server_name(&certificate, name).is_ok())
}

fn read_files(files: &[Files]) -> anyhow::Result<Vec<Contents>> {
    let read = |path: &PathBuf| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    files.iter().map(|files| Ok(Contents { chain: read(&files.chain)?, key: read(&files.key)? })).collect()
}

fn parse(files: &[Files], contents: &[Contents]) -> anyhow::Result<Vec<Arc<CertifiedKey>>> {
    files.iter().zip(contents).map(|(files, contents)| Ok(Arc::new(parse_one(files, contents)?))).collect()
}

fn parse_one(files: &Files, contents: &Contents) -> anyhow::Result<CertifiedKey> {
    let (chain_path, key_path) = (files.chain.display(), files.key.display());
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&contents.chain)
        .collect::<Result<_, _>>()
        .with_context(|| format!("{chain_path} is not PEM"))?;
    anyhow::ensure!(!chain.is_empty(), "{chain_path} holds no certificate");
    let key = PrivateKeyDer::from_pem_slice(&contents.key)
        .with_context(|| format!("{key_path} holds no private key in PEM"))?;
    CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider())
        .with_context(|| format!("{key_path} is not the key of {chain_path}"))
}

#[cfg(test)]
mod tests;
