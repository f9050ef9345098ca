//! From an accepted socket to a client that may authenticate: TLS, PROXY protocol, WebSocket upgrade.

use std::net::IpAddr;

use tokio::net::TcpStream;

/// How packets stand in the byte stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Framing {
    /// Back to back.
    Tcp,
    /// One WebSocket message each.
    WebSocket,
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
