//! TLS for client ports: several certificates by the name a client asks for, read again when their files change.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use proto::certs::Reloaded;
use rustls::pki_types::ServerName;
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::close::Close;

/// The server side of TLS with its certificates. Cheap to clone.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    /// The certificates, to be followed.
    pub certificates: Arc<Reloaded<Chosen>>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("certificates", &self.certificates).finish_non_exhaustive()
    }
}

/// The certificates of the files, in their order.
type Chosen = Vec<Arc<CertifiedKey>>;

impl Tls {
    /// Reads the certificate chains and, in the same order, their keys.
    ///
    /// # Errors
    /// One line naming the file that cannot be read or does not fit.
    pub fn load(cert_files: &[PathBuf], key_files: &[PathBuf]) -> anyhow::Result<Self> {
        let pairs = cert_files.iter().zip(key_files).flat_map(|(chain, key)| [chain.clone(), key.clone()]);
        let certificates = Reloaded::load(pairs.collect(), |files| {
            files.chunks_exact(2).map(|pair| pair[0].with_key(&pair[1]).map(Arc::new)).collect()
        })?;
        let certificates = Arc::new(certificates);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context("TLS 1.2 and 1.3 are built in")?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(BySni(certificates.clone())));
        // Clients that come back skip the certificate: tickets are kept by them, so a restart storm costs no memory here.
        config.ticketer = rustls::crypto::ring::Ticketer::new().context("a key for session tickets")?;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.send_tls13_tickets = 1;
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), certificates })
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
}

/// Chooses among the certificates in use.
#[derive(Debug)]
struct BySni(Arc<Reloaded<Chosen>>);

impl ResolvesServerCert for BySni {
    /// The first certificate for the name asked for that the client can verify, else the first of all.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let keys = self.0.current();
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

#[cfg(test)]
mod tests;
