//! Calls that logic makes over HTTP or HTTPS. Connections are kept and used again.

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use url::Url;

/// Makes the calls. Cheap to clone; clones share their connections.
pub type Client = legacy::Client<hyper_rustls::HttpsConnector<HttpConnector>, Full<Bytes>>;

/// A client that trusts the public certificate authorities and follows no redirects.
pub fn client() -> Client {
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())
        .expect("ring speaks the default versions of TLS")
        .https_or_http()
        .enable_http1()
        .build();
    legacy::Client::builder(TokioExecutor::new()).build(connector)
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
