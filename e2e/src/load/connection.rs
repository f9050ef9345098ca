//! One client of the farm: a socket, a place in the receivers, and the beginning of an unfinished packet.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use anyhow::anyhow;
use proto::envelope::Message;
use proto::packet::{self, PacketRef};
use proto::{Packet, frame, op};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpSocket;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::Instant;

use super::{Local, TICK};
use crate::client::{Framing, MAX_MESSAGE, Target, upgrade_answer, upgrade_request};
use crate::os;

/// The receive buffer of a client that is to stall, in bytes: small, so that the server notices.
const STALLED_BUFFER: u32 = 4096;
/// When something else came than the reply to the auth packet.
const INSTEAD: &str = "instead of answering the auth packet";

/// What a connection sends with, shared by its task and the ticker.
pub(super) type Writer = Rc<OwnedWriteHalf>;

pub(super) struct Connection {
    reader: OwnedReadHalf,
    writer: Writer,
    framing: Framing,
    frames: frame::Reader,
    receiver: usize,
    rest: Vec<u8>,
}

/// What packets of one read amounted to.
#[derive(Default)]
struct Noted {
    arrivals: u64,
    entered: bool,
    broken: Option<Broken>,
}

/// Why nothing more can be read from a connection.
enum Broken {
    NoPacket,
    /// The server's close frame, with its status code (RFC 6455 section 7.4) unless it had none.
    Closed(Option<u16>),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPacket => f.write_str("the server sent bytes that are no packet"),
            Self::Closed(Some(code)) => write!(f, "the server closed with code {code}"),
            Self::Closed(None) => f.write_str("the server closed without a code"),
        }
    }
}

/// Why a client is not in.
pub(super) enum NotIn {
    /// The server refused the connection or closed it. A real client comes again.
    Closed(anyhow::Error),
    /// Coming again would change nothing.
    Wrong(anyhow::Error),
}

impl NotIn {
    fn closed(instead_of: &str) -> Self {
        Self::Closed(anyhow!("closed {instead_of}"))
    }
}

impl From<io::Error> for NotIn {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe => Self::Closed(error.into()),
            _ => Self::Wrong(error.into()),
        }
    }
}

impl Connection {
    pub async fn open(target: &Target, source: IpAddr, stalled: bool, receiver: usize) -> Result<Self, NotIn> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        if stalled {
            socket.set_recv_buffer_size(STALLED_BUFFER)?;
        }
        socket.bind(SocketAddr::new(source, 0))?;
        let stream = socket.connect(target.address).await?;
        stream.set_nodelay(true)?;
        let (reader, writer) = stream.into_split();
        let frames = frame::Reader::client(MAX_MESSAGE);
        let framing = target.framing;
        Ok(Self { reader, writer: Rc::new(writer), framing, frames, receiver, rest: Vec::new() })
    }

    /// Shakes hands and authenticates. Pushes that come right behind the reply are judged as any other.
    pub async fn enter(&mut self, target: &Target, token: &str, local: &Local) -> Result<(), NotIn> {
        if self.framing == Framing::WebSocket {
            self.send(upgrade_request(target).as_bytes())?;
            loop {
                if self.fill().await? == 0 {
                    return Err(NotIn::closed("during the WebSocket handshake"));
                }
                if let Some(used) = upgrade_answer(&self.rest).map_err(NotIn::Wrong)? {
                    self.rest.drain(..used);
                    break;
                }
            }
        }
        let auth = Packet::new(op::AUTH, 1, token.to_owned()).to_bytes();
        self.send(&framed(self.framing, &auth))?;
        loop {
            if self.fill().await? == 0 {
                return Err(NotIn::closed(INSTEAD));
            }
            let mut bytes = std::mem::take(&mut self.rest);
            let noted = self.note(&mut bytes, local);
            if let Some(broken) = noted.broken {
                let error = anyhow!("{broken} {INSTEAD}");
                return Err(match broken {
                    Broken::Closed(_) => NotIn::Closed(error),
                    Broken::NoPacket => NotIn::Wrong(error),
                });
            }
            local.shared.count(noted.arrivals);
            if noted.entered {
                return Ok(());
            }
        }
    }

    pub fn socket(&self) -> Writer {
        self.writer.clone()
    }

    /// Reads until the server closes.
    pub async fn read(mut self, local: &Local) {
        std::future::poll_fn(|context| self.poll_read(context, local)).await;
        local.shared.closed.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    }

    /// `poll_read`, not `readable` and `try_read`: after a short read tokio knows without a call that there is no more.
    fn poll_read(&mut self, context: &mut Context<'_>, local: &Local) -> Poll<()> {
        loop {
            let mut buffer = local.buffer.borrow_mut();
            let kept = self.rest.len();
            if kept * 2 > buffer.len() {
                buffer.resize(kept * 4, 0);
            }
            let mut read = ReadBuf::new(&mut buffer[kept..]);
            match ready!(Pin::new(&mut self.reader).poll_read(context, &mut read)) {
                Ok(()) if !read.filled().is_empty() => {}
                _ => return Poll::Ready(()),
            }
            let end = kept + read.filled().len();
            buffer[..kept].copy_from_slice(&self.rest);
            self.rest.clear();
            let noted = self.note(&mut buffer[..end], local);
            if noted.arrivals > 0 {
                local.shared.count(noted.arrivals);
            }
            if noted.broken.is_some() {
                return Poll::Ready(());
            }
        }
    }

    /// Judges every whole packet of `bytes` and keeps what is left over.
    fn note(&mut self, bytes: &mut [u8], local: &Local) -> Noted {
        let (now, mut noted, mut at) = (os::monotonic(), Noted::default(), 0);
        let (mut receivers, mut tally) = (local.receivers.borrow_mut(), local.tally.borrow_mut());
        let receiver = &mut receivers[self.receiver];
        let mut each = |packet: PacketRef<'_>, noted: &mut Noted| match packet.op {
            op::AUTH_REPLY => noted.entered = true,
            op::HEARTBEAT_REPLY => local.heartbeats.set(local.heartbeats.get() + 1),
            op::MESSAGE => match Message::decode(packet.body) {
                Some(message) => noted.arrivals += u64::from(receiver.note(message.body, now, &mut tally)),
                None => noted.broken = Some(Broken::NoPacket),
            },
            ..=op::ERROR => {}
            _ => noted.arrivals += u64::from(receiver.note(packet.body, now, &mut tally)),
        };
        while noted.broken.is_none() {
            let used = match self.framing {
                Framing::Tcp => match packet::decode(&bytes[at..], MAX_MESSAGE) {
                    Ok(Some((packet, used))) => {
                        unpack(packet, &mut noted, &mut each);
                        used
                    }
                    Ok(None) => break,
                    Err(_) => return Noted { broken: Some(Broken::NoPacket), ..noted },
                },
                Framing::WebSocket => match self.frames.next(&mut bytes[at..]) {
                    Ok(Some((event, used))) => {
                        match event {
                            frame::Event::Message(message) => match packet::decode_message(message, MAX_MESSAGE) {
                                Ok(packet) => unpack(packet, &mut noted, &mut each),
                                Err(_) => noted.broken = Some(Broken::NoPacket),
                            },
                            frame::Event::Nothing => {}
                            frame::Event::Ping(payload) => pong(&self.writer, payload),
                            frame::Event::Close(code) => noted.broken = Some(Broken::Closed(code)),
                        }
                        used
                    }
                    Ok(None) => break,
                    Err(_) => return Noted { broken: Some(Broken::NoPacket), ..noted },
                },
            };
            at += used;
        }
        if at == bytes.len() {
            // Frees what a large packet needed: an idle connection holds no buffer.
            self.rest = Vec::new();
        } else {
            self.rest.extend_from_slice(&bytes[at..]);
        }
        noted
    }

    fn send(&self, bytes: &[u8]) -> Result<(), NotIn> {
        match self.writer.try_write(bytes)? {
            all if all == bytes.len() => Ok(()),
            some => Err(NotIn::Wrong(anyhow!("the socket took {some} of {} bytes of the handshake", bytes.len()))),
        }
    }

    async fn fill(&mut self) -> io::Result<usize> {
        use tokio::io::AsyncReadExt;
        self.reader.read_buf(&mut self.rest).await
    }
}

fn unpack(packet: PacketRef<'_>, noted: &mut Noted, each: &mut impl FnMut(PacketRef<'_>, &mut Noted)) {
    if packet.op != op::RAW {
        return each(packet, noted);
    }
    for inner in packet::packets(packet.body) {
        match inner {
            Ok(inner) => each(inner, noted),
            Err(_) => noted.broken = Some(Broken::NoPacket),
        }
    }
}

fn framed(framing: Framing, packet: &[u8]) -> Vec<u8> {
    match framing {
        Framing::Tcp => packet.to_vec(),
        Framing::WebSocket => {
            let mut bytes = Vec::with_capacity(packet.len() + 14);
            frame::put_masked(frame::BINARY, packet, rand::random(), &mut bytes);
            bytes
        }
    }
}

fn pong(writer: &OwnedWriteHalf, payload: &[u8]) {
    let mut bytes = Vec::with_capacity(payload.len() + 14);
    frame::put_masked(frame::PONG, payload, rand::random(), &mut bytes);
    // A socket that takes no pong is about to be closed by the server, which is counted.
    let _ = writer.try_write(&bytes);
}

/// Sends each connection's op 2 once per `every`, spread evenly; a socket that is full misses one.
pub(super) async fn heartbeats(writers: &RefCell<Vec<Writer>>, framing: Framing, every: Duration) {
    let packet = framed(framing, &Packet::new(op::HEARTBEAT, 1, "").to_bytes());
    let (mut last, mut owed, mut next) = (Instant::now(), 0.0, 0);
    loop {
        tokio::time::sleep(TICK).await;
        let writers = writers.borrow();
        owed += last.elapsed().as_secs_f64() / every.as_secs_f64() * writers.len() as f64;
        last = Instant::now();
        while owed >= 1.0 {
            owed -= 1.0;
            next = (next + 1) % writers.len();
            // A closed socket is counted where it is read, a full one has missed its turn.
            let _ = writers[next].try_write(&packet);
        }
    }
}
