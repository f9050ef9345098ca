//! Calls to web servers of others over HTTP or HTTPS. Connections are kept and used again.

use std::path::Path;

use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_rustls::builderstates::WantsSchemes;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use url::Url;

/// Makes the calls. Cheap to clone; clones share their connections.
pub type Client = legacy::Client<hyper_rustls::HttpsConnector<HttpConnector>, Full<Bytes>>;

/// A client that trusts the public certificate authorities and follows no redirects.
pub fn client() -> Client {
    let provider = rustls::crypto::ring::default_provider();
    let builder = HttpsConnectorBuilder::new().with_provider_and_webpki_roots(provider);
    over(builder.expect("ring speaks the default versions of TLS"))
}

/// The same that trusts the authorities of this file alone.
///
/// # Errors
/// When it cannot be read, or holds no certificates.
pub fn trusting(authorities: &Path) -> Result<Client, String> {
    let expected = |why: String| format!("expected a file of PEM certificates ({why})");
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(authorities).map_err(|error| expected(error.to_string()))? {
        let certificate = certificate.map_err(|error| expected(error.to_string()))?;
        roots.add(certificate).map_err(|error| expected(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(expected("it holds none".to_owned()));
    }
    let tls = rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("ring speaks the default versions of TLS");
    Ok(over(HttpsConnectorBuilder::new().with_tls_config(tls.with_root_certificates(roots).with_no_client_auth())))
}

fn over(builder: HttpsConnectorBuilder<WantsSchemes>) -> Client {
    legacy::Client::builder(TokioExecutor::new()).build(builder.https_or_http().enable_http1().build())
}

/// Reads a URL of a web server from a setting.
///
/// # Errors
/// What was expected instead.
pub fn url(text: &str) -> Result<Url, String> {
    let expected = "expected a URL such as https://backend.example/path";
    let url = Url::parse(text).map_err(|error| format!("{expected}: {error}"))?;
    let is_web = matches!(url.scheme(), "http" | "https") && url.has_host();
    if is_web { Ok(url) } else { Err(expected.to_owned()) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use rustls::pki_types::PrivateKeyDer;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A server that answers every request over TLS, and its certificate.
    async fn server() -> (String, String) {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
        let tls = rustls::ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into());
        let tls = tls.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let tls = tls.with_single_cert(vec![cert.der().clone()], key).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                if let Ok(mut socket) = acceptor.accept(socket).await {
                    let _some = socket.read(&mut [0; 1024]).await.unwrap();
                    socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
                }
            }
        });
        (address, cert.pem())
    }

    #[tokio::test]
    async fn a_server_is_checked_against_the_authorities_that_are_named_and_no_others() {
        let ((address, certificate), (_, another)) = (server().await, server().await);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.crt");
        let of = |text: &str| {
            std::fs::write(&path, text).unwrap();
            trusting(&path)
        };
        let ask = async |client: Client| client.get(address.parse().unwrap()).await.map(|answer| answer.status());
        assert_eq!(ask(of(&certificate).unwrap()).await.unwrap(), 200);
        assert_eq!(ask(of(&format!("{another}{certificate}")).unwrap()).await.unwrap(), 200);
        assert!(ask(of(&another).unwrap()).await.is_err());
        assert!(ask(client()).await.is_err());
        for text in ["", "hush", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            let error = of(text).unwrap_err();
            assert!(error.starts_with("expected a file of PEM certificates") && !error.contains("hush"), "{error}");
        }
        assert!(trusting(Path::new("/nowhere")).is_err());
    }
}
