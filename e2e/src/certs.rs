//! Certificates for a test: an authority of its own, and what it signs, as PEM files.

use std::path::{Path, PathBuf};

use anyhow::Context;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};

use crate::planted;

/// A certificate authority that exists for one test.
#[derive(Debug)]
pub struct Authority {
    folder: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key.
#[derive(Clone, Debug)]
pub struct Issued {
    /// PEM file of the certificate.
    pub cert: PathBuf,
    /// PEM file of the key (PKCS#8).
    pub key: PathBuf,
    /// Both in one PEM file, key first, as Kafka's PEM keystores want it.
    pub bundle: PathBuf,
}

impl Authority {
    /// Makes one whose files go into this folder.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn new(folder: &Path) -> anyhow::Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "imcluster test authority");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let authority = Self { folder: folder.to_owned(), issuer };
        std::fs::write(authority.ca(), authority.issuer.pem()).context("write the authority's certificate")?;
        Ok(authority)
    }

    /// PEM file of the authority's own certificate: what the other side is to trust.
    pub fn ca(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// Signs a certificate, good for servers and clients, for these DNS names and addresses.
    ///
    /// # Errors
    /// When a name is none or a file cannot be written.
    pub fn issue(&self, name: &str, hosts: &[&str]) -> anyhow::Result<Issued> {
        let key = KeyPair::generate()?;
        planted::note_key(&key.serialize_pem());
        let mut params = CertificateParams::new(hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>())?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let cert = params.signed_by(&key, &self.issuer)?.pem();
        let file = |suffix: &str, text: &str| -> anyhow::Result<PathBuf> {
            let path = self.folder.join(format!("{name}{suffix}"));
            std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
            Ok(path)
        };
        Ok(Issued {
            cert: file(".pem", &cert)?,
            key: file(".key", &key.serialize_pem())?,
            bundle: file(".bundle.pem", &format!("{}{cert}", key.serialize_pem()))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

    use super::*;

    #[test]
    fn what_it_signs_is_a_certificate_and_the_key_that_fits() {
        let folder = tempfile::tempdir().unwrap();
        let issued = Authority::new(folder.path()).unwrap().issue("server", &["localhost", "127.0.0.1"]).unwrap();
        let chain = vec![CertificateDer::from_pem_file(&issued.cert).unwrap()];
        let key = PrivateKeyDer::from_pem_file(&issued.bundle).unwrap();
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        config.unwrap().with_no_client_auth().with_single_cert(chain, key).unwrap();
    }
}
