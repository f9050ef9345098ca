//! From an accepted socket to a client that may authenticate: PROXY header, TLS, WebSocket upgrade, in this order.
//! What they leave behind is a socket, perhaps a TLS session, and the bytes read beyond the handshake.

use std::io::Read;
use std::net::{IpAddr, SocketAddr};

use runtime::proxies::TrustedProxies;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::close::Close;
use crate::config::Config;
use tls::Tls;

pub mod proxy;
pub mod tls;
pub mod websocket;

/// How packets stand in the byte stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Framing {
    /// Back to back.
    Tcp,
    /// One WebSocket message each.
    WebSocket,
}

/// What is spoken on a client port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ListenerKind {
    /// goim's port 3101.
    Tcp,
    /// goim's port 3102.
    WebSocket,
    /// goim's port 3103.
    WebSocketTls,
    /// Port 3104; goim has none.
    TcpTls,
}

impl ListenerKind {
    /// How packets stand in the byte stream.
    pub fn framing(self) -> Framing {
        match self {
            Self::Tcp | Self::TcpTls => Framing::Tcp,
            Self::WebSocket | Self::WebSocketTls => Framing::WebSocket,
        }
    }

    /// Whether a connection begins with a TLS handshake.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::WebSocketTls | Self::TcpTls)
    }

    /// The label in metrics and logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::TcpTls => "tcps",
            Self::WebSocket => "ws",
            Self::WebSocketTls => "wss",
        }
    }
}

/// A client whose transport is up, before its first packet.
#[derive(Debug)]
pub struct Accepted {
    /// The socket, non-blocking, with `TCP_NODELAY`.
    pub socket: TcpStream,
    /// The TLS session on it, handshake finished.
    pub tls: Option<Box<rustls::ServerConnection>>,
    /// What is spoken on it.
    pub framing: Framing,
    /// Plain bytes that were read beyond the handshake.
    pub leftover: Vec<u8>,
    /// The first `Cookie` header of the upgrade, verbatim.
    pub cookie: String,
    /// The client's address, as a trusted proxy says it.
    pub address: IpAddr,
}

/// What [`open`] needs to know, the same for every connection. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TransportSettings {
    /// Certificates, when a TLS port is open.
    pub tls: Option<Tls>,
    /// Whose word on the client's address is taken.
    pub proxies: TrustedProxies,
    /// Whether connections from trusted proxies begin with a PROXY header.
    pub proxy_protocol: bool,
}

impl TransportSettings {
    /// Reads the certificates that `config` names.
    ///
    /// # Errors
    /// One line naming the file that is no certificate or key.
    pub fn new(config: &Config) -> anyhow::Result<Self> {
        Ok(Self {
            tls: config.tls_open.then(|| Tls::load(&config.cert_file, &config.key_file)).transpose()?,
            proxies: TrustedProxies::new(&config.trusted_proxies),
            proxy_protocol: config.proxy_protocol,
        })
    }
}

/// Brings a client's transport up. Has no timer of its own: the caller bounds it by the handshake timeout. Dropping
/// the future closes the socket.
///
/// # Errors
/// [`Close::Gone`] and [`Close::Io`] when the client left; [`Close::Handshake`] when what it sent is no handshake. A
/// failed upgrade was answered.
pub async fn open(
    mut socket: TcpStream,
    peer: SocketAddr,
    kind: ListenerKind,
    settings: &TransportSettings,
) -> Result<Accepted, Close> {
    let mut address = peer.ip().to_canonical();
    if settings.proxy_protocol && settings.proxies.trust(address) {
        address = proxy::read_header(&mut socket).await?.unwrap_or(address);
    }
    let framing = kind.framing();
    if !kind.is_tls() {
        let upgrade = upgraded(&mut socket, framing, address, settings).await?;
        return Ok(accepted(socket, None, framing, upgrade));
    }
    let tls = settings.tls.as_ref().ok_or(Close::Handshake)?;
    let mut stream = tls.accept(socket).await?;
    let upgrade = upgraded(&mut stream, framing, address, settings).await;
    if upgrade.is_err() {
        // Best effort: says that the answer ends here and was not cut off.
        let _ = stream.shutdown().await;
    }
    let mut upgrade = upgrade?;
    // Tickets may still wait for the client to read: send them before the session changes hands.
    stream.flush().await?;
    let (socket, mut session) = stream.into_inner();
    drain(&mut session, &mut upgrade.leftover)?;
    Ok(accepted(socket, Some(Box::new(session)), framing, upgrade))
}

/// The upgrade of a WebSocket port; on a TCP port there is nothing to do.
async fn upgraded<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    framing: Framing,
    address: IpAddr,
    settings: &TransportSettings,
) -> Result<websocket::Upgrade, Close> {
    match framing {
        Framing::Tcp => Ok(websocket::Upgrade { leftover: Vec::new(), cookie: String::new(), address }),
        Framing::WebSocket => websocket::upgrade(stream, address, &settings.proxies).await,
    }
}

fn accepted(
    socket: TcpStream,
    tls: Option<Box<rustls::ServerConnection>>,
    framing: Framing,
    upgrade: websocket::Upgrade,
) -> Accepted {
    let websocket::Upgrade { leftover, cookie, address } = upgrade;
    Accepted { socket, tls, framing, leftover, cookie, address }
}

/// Takes what the session has decrypted already; it would wait there until the client's next record.
fn drain(session: &mut rustls::ServerConnection, leftover: &mut Vec<u8>) -> Result<(), Close> {
    match session.reader().read_to_end(leftover) {
        Ok(_) => Ok(()),
        // Everything was taken; the client may send more.
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests;
