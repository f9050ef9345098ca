//! Where a client connects, and its half of the WebSocket handshake (RFC 6455 §4.1).

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use anyhow::{Context, bail};

/// A fixed key is enough: it proves that the other side speaks WebSocket, it is no secret.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// What RFC 6455 §1.3 says the answer to [`KEY`] is.
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// The longest handshake answer we read, in bytes.
const MAX_ANSWER: usize = 8192;

/// How packets are laid on the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Back to back.
    Tcp,
    /// One per binary message.
    WebSocket,
}

/// A comet's client port: `tcp://host:port`, `tls://…`, `ws://host:port/sub`, `wss://…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where to connect.
    pub address: SocketAddr,
    /// How packets travel.
    pub framing: Framing,
    /// Whether TLS lies below.
    pub tls: bool,
    /// The name for `Host` and SNI.
    pub host: String,
    /// Path and query of the WebSocket handshake.
    pub path: String,
}

impl FromStr for Target {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let url = url::Url::parse(text).with_context(|| format!("{text}: expected tcp://, tls://, ws:// or wss://"))?;
        let (framing, tls, port) = match url.scheme() {
            "tcp" => (Framing::Tcp, false, 3101),
            "tls" => (Framing::Tcp, true, 3104),
            "ws" => (Framing::WebSocket, false, 3102),
            "wss" => (Framing::WebSocket, true, 3103),
            other => bail!("{text}: expected tcp://, tls://, ws:// or wss://, not {other}://"),
        };
        let host = url.host_str().with_context(|| format!("{text}: names no host"))?.to_owned();
        let port = explicit_port(text).unwrap_or(port);
        let address =
            (host.as_str(), port).to_socket_addrs()?.next().with_context(|| format!("{host} has no address"))?;
        let path = match (url.path(), url.query()) {
            ("" | "/", None) => "/sub".to_owned(),
            (path, None) => path.to_owned(),
            (path, Some(query)) => format!("{path}?{query}"),
        };
        Ok(Self { address, framing, tls, host, path })
    }
}

impl Target {
    /// What `Host` says: the name and the port, which is left out where it is the scheme's own (RFC 9110 §7.2).
    fn authority(&self) -> String {
        match (self.address.port(), self.tls) {
            (80, false) | (443, true) => self.host.clone(),
            (port, _) => format!("{}:{port}", self.host),
        }
    }
}

/// The port as written: `Url` hides 80 and 443 as the defaults of ws and wss, which are not ours.
fn explicit_port(text: &str) -> Option<u16> {
    let authority = text.split("://").nth(1)?.split(['/', '?']).next()?;
    authority.rsplit_once(':')?.1.parse().ok()
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match (self.framing, self.tls) {
            (Framing::Tcp, false) => "tcp",
            (Framing::Tcp, true) => "tls",
            (Framing::WebSocket, false) => "ws",
            (Framing::WebSocket, true) => "wss",
        };
        write!(f, "{scheme}://{}", self.address)
    }
}

/// The client's half of the handshake.
pub fn upgrade_request(target: &Target) -> String {
    format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n",
        target.path,
        target.authority()
    )
}

/// Reads the server's half: how many bytes it took, or `None` until all of it is there.
///
/// # Errors
/// When it is not a 101 with the right `Sec-WebSocket-Accept`.
pub fn upgrade_answer(bytes: &[u8]) -> anyhow::Result<Option<usize>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        if bytes.len() > MAX_ANSWER {
            bail!("the answer to the WebSocket handshake does not end");
        }
        return Ok(None);
    };
    let head = std::str::from_utf8(&bytes[..end]).context("the answer to the WebSocket handshake is no text")?;
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("101") {
        bail!("the WebSocket handshake was refused: {status}");
    }
    let accept = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-accept"));
    match accept {
        Some((_, value)) if value.trim() == ACCEPT => Ok(Some(end + 4)),
        Some((_, value)) => bail!("Sec-WebSocket-Accept is {}, expected {ACCEPT}", value.trim()),
        None => bail!("the handshake was answered without Sec-WebSocket-Accept"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_read_as_they_are_written() {
        let ws: Target = "ws://127.0.0.1:3102/sub?x=1".parse().unwrap();
        assert_eq!((ws.framing, ws.tls, ws.path.as_str()), (Framing::WebSocket, false, "/sub?x=1"));
        assert_eq!(ws.to_string(), "ws://127.0.0.1:3102");
        assert_eq!("wss://127.0.0.1:443".parse::<Target>().unwrap().address.port(), 443);
        assert_eq!("ws://127.0.0.1".parse::<Target>().unwrap().address.port(), 3102);
        assert_eq!("tls://localhost".parse::<Target>().unwrap().host, "localhost");
        assert!("http://127.0.0.1".parse::<Target>().is_err());
    }

    #[test]
    fn an_upgrade_needs_101_and_the_right_accept() {
        let good = format!("HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: {ACCEPT}\r\n\r\n");
        assert_eq!(upgrade_answer(format!("{good}rest").as_bytes()).unwrap(), Some(good.len()));
        assert_eq!(upgrade_answer(&good.as_bytes()[..good.len() - 1]).unwrap(), None);
        let wrong = good.replace(ACCEPT, "AAAA");
        for bad in [wrong.as_str(), "HTTP/1.1 404 Not Found\r\n\r\n", "HTTP/1.1 101 X\r\n\r\n"] {
            assert!(upgrade_answer(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
