//! An IM client over TCP or WebSocket, plain or TLS, for tests: what a person would do by hand, and what an attacker
//! would. One at a time and convenient; [`crate::load`] is for many.

mod target;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::{Bytes, BytesMut};
use proto::envelope::{Message, PushId, RoomResults};
use proto::{Packet, frame, op, packet};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

pub use target::{Framing, Target, upgrade_answer, upgrade_request};

/// The longest message a server may send us, in bytes.
pub const MAX_MESSAGE: usize = 32 * 1024 * 1024;
/// How long a request waits for its reply.
const PATIENCE: Duration = Duration::from_secs(10);

trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// How to reach the server besides its address.
#[derive(Clone, Debug, Default)]
pub struct Dial {
    /// The loopback address to come from.
    pub source: Option<IpAddr>,
    /// Whom to trust, for `tls` and `wss` targets.
    pub tls: Option<Arc<rustls::ClientConfig>>,
}

/// One connection.
pub struct Client {
    socket: Box<dyn Socket>,
    framing: Framing,
    frames: frame::Reader,
    unread: BytesMut,
    inbox: VecDeque<Received>,
    seq: i32,
}

/// What the server sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// A packet; those inside op 9 come one by one.
    Packet(Packet),
    /// Op 25: one push with its room and place in the queue.
    Message {
        /// The room it was pushed to, or empty.
        room: String,
        /// Its place in the queue.
        id: PushId,
        /// The pusher's operation.
        op: i32,
        /// The pusher's bytes.
        body: Bytes,
    },
    /// The server closed: the WebSocket close code if it sent one, `None` for a bare end of stream.
    Closed(Option<u16>),
}

impl Client {
    /// Connects, with TLS and WebSocket handshakes where the target has them.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses a handshake.
    pub async fn connect(target: &Target, dial: &Dial) -> anyhow::Result<Self> {
        let mut client = Self::open(target, dial).await?;
        if target.framing == Framing::WebSocket {
            client.upgrade(target).await?;
        }
        Ok(client)
    }

    /// Connects without a WebSocket handshake: for handshakes of the test's own.
    ///
    /// # Errors
    /// When the server cannot be reached or TLS fails.
    pub async fn open(target: &Target, dial: &Dial) -> anyhow::Result<Self> {
        let stream = tcp(target.address, dial.source).await.with_context(|| format!("connecting to {target}"))?;
        let socket: Box<dyn Socket> = if target.tls {
            let config = dial.tls.clone().context("a TLS target needs `Dial::tls`")?;
            let name = rustls::pki_types::ServerName::try_from(target.host.clone())?;
            Box::new(tokio_rustls::TlsConnector::from(config).connect(name, stream).await?)
        } else {
            Box::new(stream)
        };
        Ok(Self {
            socket,
            framing: target.framing,
            frames: frame::Reader::client(MAX_MESSAGE),
            unread: BytesMut::new(),
            inbox: VecDeque::new(),
            seq: 0,
        })
    }

    async fn upgrade(&mut self, target: &Target) -> anyhow::Result<()> {
        self.send_bytes(upgrade_request(target).as_bytes()).await?;
        loop {
            if let Some(used) = upgrade_answer(&self.unread)? {
                let _answer = self.unread.split_to(used);
                return Ok(());
            }
            if self.socket.read_buf(&mut self.unread).await? == 0 {
                bail!("{target} closed during the WebSocket handshake");
            }
        }
    }

    /// Sends the auth body and waits for op 8, which it returns.
    ///
    /// # Errors
    /// When the server closes instead.
    pub async fn auth(&mut self, token: impl AsRef<[u8]>) -> anyhow::Result<Packet> {
        self.request(op::AUTH, op::AUTH_REPLY, token.as_ref()).await
    }

    /// Sends op 2 and returns the online count of op 3.
    ///
    /// # Errors
    /// When the server closes or the reply is not a count.
    pub async fn heartbeat(&mut self) -> anyhow::Result<i32> {
        let reply = self.request(op::HEARTBEAT, op::HEARTBEAT_REPLY, b"").await?;
        let count = reply.body.as_ref().try_into().context("an op 3 body is four bytes")?;
        Ok(i32::from_be_bytes(count))
    }

    /// Leaves every room and enters this one (op 12); an empty name only leaves.
    ///
    /// # Errors
    /// When the server closes instead of answering.
    pub async fn change_room(&mut self, room: &str) -> anyhow::Result<Packet> {
        self.request(op::CHANGE_ROOM, op::CHANGE_ROOM_REPLY, room.as_bytes()).await
    }

    /// Also accepts these operations (op 14).
    ///
    /// # Errors
    /// When the server closes instead of answering.
    pub async fn subscribe(&mut self, ops: &[i32]) -> anyhow::Result<Packet> {
        self.request(op::SUBSCRIBE, op::SUBSCRIBE_REPLY, list(ops).as_bytes()).await
    }

    /// No longer accepts these operations (op 16).
    ///
    /// # Errors
    /// When the server closes instead of answering.
    pub async fn unsubscribe(&mut self, ops: &[i32]) -> anyhow::Result<Packet> {
        self.request(op::UNSUBSCRIBE, op::UNSUBSCRIBE_REPLY, list(ops).as_bytes()).await
    }

    /// Enters rooms beside those it is in (op 19).
    ///
    /// # Errors
    /// When the server closes, or answers with anything but op 20's JSON.
    pub async fn join(&mut self, rooms: &[&str]) -> anyhow::Result<RoomResults> {
        let reply = self.request(op::JOIN, op::JOIN_REPLY, &serde_json::to_vec(rooms)?).await?;
        Ok(serde_json::from_slice(&reply.body)?)
    }

    /// Leaves rooms (op 21).
    ///
    /// # Errors
    /// As [`Self::join`], with op 22.
    pub async fn leave(&mut self, rooms: &[&str]) -> anyhow::Result<RoomResults> {
        let reply = self.request(op::LEAVE, op::LEAVE_REPLY, &serde_json::to_vec(rooms)?).await?;
        Ok(serde_json::from_slice(&reply.body)?)
    }

    /// Sends one packet and returns its sequence number, without waiting for anything.
    ///
    /// # Errors
    /// When the socket fails.
    pub async fn send(&mut self, op: i32, body: &[u8]) -> anyhow::Result<i32> {
        self.seq += 1;
        let seq = self.seq;
        let bytes = Packet::new(op, seq, Bytes::copy_from_slice(body)).to_bytes();
        match self.framing {
            Framing::Tcp => self.send_bytes(&bytes).await?,
            Framing::WebSocket => self.send_frame(frame::BINARY, &bytes).await?,
        }
        Ok(seq)
    }

    /// Sends one masked WebSocket frame of any opcode.
    ///
    /// # Errors
    /// When the socket fails.
    pub async fn send_frame(&mut self, opcode: u8, payload: &[u8]) -> anyhow::Result<()> {
        let mut bytes = Vec::with_capacity(payload.len() + 14);
        frame::put_masked(opcode, payload, rand::random(), &mut bytes);
        self.send_bytes(&bytes).await
    }

    /// Sends any bytes.
    ///
    /// # Errors
    /// When the socket fails.
    pub async fn send_bytes(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.socket.write_all(bytes).await?;
        Ok(self.socket.flush().await?)
    }

    /// The next thing the server sends; pings are answered on the way. Cancel safe.
    ///
    /// # Errors
    /// When the bytes are no packets.
    pub async fn next(&mut self) -> anyhow::Result<Received> {
        loop {
            if let Some(received) = self.inbox.pop_front() {
                return Ok(received);
            }
            if self.parse().await? {
                continue;
            }
            match self.socket.read_buf(&mut self.unread).await {
                Ok(0) => return Ok(Received::Closed(None)),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(Received::Closed(None)),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// [`Self::next`] when it comes in time.
    ///
    /// # Errors
    /// As [`Self::next`], or when nothing comes within `patience`.
    pub async fn next_within(&mut self, patience: Duration) -> anyhow::Result<Received> {
        tokio::time::timeout(patience, self.next())
            .await
            .with_context(|| format!("nothing came within {patience:?}"))?
    }

    /// The next push: op and body of whatever is not a reply of ops 0–24, with or without an envelope.
    ///
    /// # Errors
    /// When the server closes or nothing comes within `patience`.
    pub async fn push_within(&mut self, patience: Duration) -> anyhow::Result<(i32, Bytes)> {
        let found = async {
            loop {
                match self.next().await? {
                    Received::Packet(packet) if packet.op > op::MESSAGE => return Ok((packet.op, packet.body)),
                    Received::Packet(_) => {}
                    Received::Message { op, body, .. } => return Ok((op, body)),
                    Received::Closed(code) => bail!("closed with {code:?} while waiting for a push"),
                }
            }
        };
        tokio::time::timeout(patience, found).await.with_context(|| format!("no push came within {patience:?}"))?
    }

    /// Waits for the server to close, letting everything else pass; returns the close code.
    ///
    /// # Errors
    /// When the connection is still open after `patience`.
    pub async fn closed_within(&mut self, patience: Duration) -> anyhow::Result<Option<u16>> {
        let found = async {
            loop {
                if let Received::Closed(code) = self.next().await? {
                    return Ok(code);
                }
            }
        };
        tokio::time::timeout(patience, found).await.with_context(|| format!("still open after {patience:?}"))?
    }

    /// Raw bytes as they come, for tests that look at the wire; empty at the end of the stream.
    ///
    /// # Errors
    /// When the socket fails.
    pub async fn bytes(&mut self) -> anyhow::Result<Bytes> {
        if self.unread.is_empty() {
            self.socket.read_buf(&mut self.unread).await?;
        }
        Ok(self.unread.split().freeze())
    }

    async fn request(&mut self, op: i32, reply: i32, body: &[u8]) -> anyhow::Result<Packet> {
        let seq = self.send(op, body).await?;
        let mut meanwhile = Vec::new();
        let found = async {
            loop {
                match self.next().await? {
                    Received::Packet(packet) if packet.op == reply && packet.seq == seq => return Ok(packet),
                    Received::Closed(code) => bail!("closed with {code:?} while waiting for the reply to op {op}"),
                    other => meanwhile.push(other),
                }
            }
        };
        let answer = tokio::time::timeout(PATIENCE, found).await.with_context(|| format!("no reply to op {op}"))?;
        // What came before the reply stays to be read, in order.
        for received in meanwhile.into_iter().rev() {
            self.inbox.push_front(received);
        }
        answer
    }

    /// Moves one whole message from the buffer to the inbox; false when more bytes are needed.
    async fn parse(&mut self) -> anyhow::Result<bool> {
        if self.framing == Framing::Tcp {
            let Some((packet, used)) = packet::decode(&self.unread, MAX_MESSAGE)? else {
                return Ok(false);
            };
            unpack(packet, &mut self.inbox)?;
            let _packet = self.unread.split_to(used);
            return Ok(true);
        }
        let Some((event, used)) = self.frames.next(&mut self.unread)? else {
            return Ok(false);
        };
        let mut pong = None;
        match event {
            frame::Event::Message(message) => unpack(packet::decode_message(message, MAX_MESSAGE)?, &mut self.inbox)?,
            frame::Event::Nothing => {}
            frame::Event::Ping(payload) => pong = Some(payload.to_vec()),
            frame::Event::Close(code) => self.inbox.push_back(Received::Closed(code)),
        }
        let _frame = self.unread.split_to(used);
        if let Some(payload) = pong {
            self.send_frame(frame::PONG, &payload).await?;
        }
        Ok(true)
    }
}

/// A TCP connection with no delay, from this source address if given.
///
/// # Errors
/// When it cannot be made.
pub async fn tcp(address: SocketAddr, source: Option<IpAddr>) -> std::io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(source) = source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    socket.set_nodelay(true)?;
    socket.connect(address).await
}

fn unpack(packet: packet::PacketRef<'_>, inbox: &mut VecDeque<Received>) -> anyhow::Result<()> {
    match packet.op {
        op::RAW => {
            for inner in packet::packets(packet.body) {
                unpack(inner?, inbox)?;
            }
        }
        op::MESSAGE => {
            let message = Message::decode(packet.body).context("op 25 body is no envelope")?;
            let (room, body) = (message.room.to_owned(), Bytes::copy_from_slice(message.body));
            inbox.push_back(Received::Message { room, id: message.id, op: message.op, body });
        }
        _ => inbox.push_back(Received::Packet(packet.to_packet())),
    }
    Ok(())
}

fn list(ops: &[i32]) -> String {
    ops.iter().map(i32::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests;
