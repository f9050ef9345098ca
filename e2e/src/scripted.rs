//! A comet that does what a test tells it, faults included: clients, farm and checker are tried against it.
//! It speaks both framings on one port, knows no rooms, and gives every push to everybody. Who announces that it can move
//! is given them with their ids, and the last one once more when it comes from elsewhere and before it leaves.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use proto::envelope::{Message, Move, PushId, Through, Welcome};
use proto::{Packet, frame, op, packet, token};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;

use crate::client::Target;
use crate::stamp::Stamp;

/// What the comet does wrong, for every client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Never sends number 7.
    Lose,
    /// Sends number 7 twice.
    Repeat,
    /// Sends number 8 before 7.
    Swap,
    /// Sends every byte by itself.
    Trickle,
    /// Closes instead of answering an auth packet.
    Refuse,
    /// The same the first two times that a client asks; over WebSocket with a close frame.
    Busy,
    /// Answers an auth packet with bytes that are no packet.
    Garbage,
    /// Answers nothing but the auth packet.
    Mute,
}

#[derive(Clone)]
pub struct ScriptedComet {
    address: SocketAddr,
    pushes: broadcast::Sender<Stamp>,
    orders: broadcast::Sender<Order>,
    seen: Arc<Seen>,
}

/// What is to become of those who are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// Everybody is closed, over WebSocket with code 1012.
    Close,
    /// Who can move is told to, the others are closed.
    Move,
}

/// What came from clients.
#[derive(Default)]
struct Seen {
    heartbeats: AtomicU64,
    /// Auth body → how often it came.
    auths: Mutex<HashMap<Vec<u8>, u64>>,
    /// What was pushed last.
    last: Mutex<Option<Stamp>>,
}

impl ScriptedComet {
    pub async fn start(fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (pushes, _) = broadcast::channel(1 << 16);
        let (orders, _) = broadcast::channel(16);
        let seen = Arc::<Seen>::default();
        let (sender, ordered, noted) = (pushes.clone(), orders.clone(), seen.clone());
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, fault, sender.clone(), ordered.subscribe(), noted.clone()));
            }
        });
        Self { address, pushes, orders, seen }
    }

    pub fn target(&self, scheme: &str) -> Target {
        format!("{scheme}://{}", self.address).parse().unwrap()
    }

    pub fn push(&self, run: u32, stream: u32, number: u32, due: Duration) {
        self.give(Stamp { run, stream, number, due });
    }

    pub fn give(&self, stamp: Stamp) {
        *self.seen.last.lock() = Some(stamp);
        self.pushes.send(stamp).unwrap();
    }

    /// Closes everybody who is in, over WebSocket with code 1012.
    pub fn close(&self) {
        self.orders.send(Order::Close).unwrap();
    }

    /// Tells who can move to do so, and closes the others.
    pub fn leave(&self) {
        self.orders.send(Order::Move).unwrap();
    }

    pub fn heartbeats(&self) -> u64 {
        self.seen.heartbeats.load(Ordering::SeqCst)
    }

    /// How often clients asked to be let in.
    pub fn auths(&self) -> u64 {
        self.seen.auths.lock().values().sum()
    }
}

async fn serve(
    mut socket: TcpStream,
    fault: Fault,
    pushes: broadcast::Sender<Stamp>,
    mut orders: broadcast::Receiver<Order>,
    seen: Arc<Seen>,
) {
    let (mut unread, mut frames) = (Vec::new(), None);
    let (mut pushes, mut live, mut held, mut movable) = (pushes.subscribe(), false, None, false);
    loop {
        let stamp = tokio::select! {
            read = socket.read_buf(&mut unread) => match read {
                Ok(0) | Err(_) => return,
                Ok(_) => None,
            },
            Ok(stamp) = pushes.recv(), if live => Some(stamp),
            Ok(order) = orders.recv(), if live => match order {
                Order::Move if movable => {
                    let body = serde_json::to_vec(&Move { within_ms: 4000, nodes: vec![] }).unwrap();
                    send(&mut socket, frames.is_some(), &Packet::new(op::MOVE, 0, body).to_bytes(), fault).await;
                    None
                }
                Order::Close | Order::Move => {
                    if frames.is_some() {
                        let _gone = socket.write_all(&[0x88, 2, 0x03, 0xf4]).await;
                    }
                    return;
                }
            },
        };
        if let Some(stamp) = stamp {
            let order = match (fault, stamp.number) {
                (Fault::Lose, 7) => vec![],
                (Fault::Repeat, 7) => vec![stamp, stamp],
                (Fault::Swap, 7) => {
                    held = Some(stamp);
                    vec![]
                }
                (Fault::Swap, 8) => vec![stamp, held.take().unwrap()],
                _ => vec![stamp],
            };
            for stamp in order {
                send(&mut socket, frames.is_some(), &pushed(stamp, frames.is_some(), movable), fault).await;
            }
        }
        if frames.is_none() && unread.starts_with(b"GET ") && unread.ends_with(b"\r\n\r\n") {
            let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
            socket.write_all(answer.as_bytes()).await.unwrap();
            unread.clear();
            frames = Some(frame::Reader::server(65536));
        }
        while let Some(packet) = take(&mut unread, &mut frames) {
            let (last, mut again) = (*seen.last.lock(), None);
            let reply = match packet.op {
                op::AUTH => {
                    let times = {
                        let mut auths = seen.auths.lock();
                        let times = auths.entry(packet.body.to_vec()).or_default();
                        *times += 1;
                        *times
                    };
                    match fault {
                        Fault::Refuse => return,
                        Fault::Busy if times <= 2 => {
                            if frames.is_some() {
                                // Code 1013: try again later.
                                let _gone = socket.write_all(&[0x88, 2, 0x03, 0xf5]).await;
                            }
                            return;
                        }
                        Fault::Garbage => {
                            send(&mut socket, frames.is_some(), &[0xff; 16], fault).await;
                            continue;
                        }
                        _ => {}
                    }
                    (live, movable) = (true, token::announced(&packet.body).moves);
                    again = last.filter(|_| token::is_moving(&packet.body));
                    let (key, server) = (String::new(), String::new());
                    let welcome = Welcome { key, server, heartbeat_ms: 60_000, through: Through::new() };
                    let body = if movable { serde_json::to_vec(&welcome).unwrap() } else { vec![] };
                    Packet::new(op::AUTH_REPLY, packet.seq, body)
                }
                _ if fault == Fault::Mute => continue,
                op::MOVE => {
                    again = last;
                    Packet::new(op::MOVE, packet.seq, "")
                }
                op::HEARTBEAT => {
                    seen.heartbeats.fetch_add(1, Ordering::SeqCst);
                    Packet::new(op::HEARTBEAT_REPLY, packet.seq, &b"\0\0\0\x05"[..])
                }
                other => Packet::new(other + 1, packet.seq, packet.body),
            };
            let again = again.map(|stamp| pushed(stamp, frames.is_some(), movable));
            let reply = reply.to_bytes();
            if packet.op == op::MOVE {
                for bytes in again.as_deref().into_iter().chain([&*reply]) {
                    send(&mut socket, frames.is_some(), bytes, fault).await;
                }
                return;
            }
            for bytes in [&*reply].into_iter().chain(again.as_deref()) {
                send(&mut socket, frames.is_some(), bytes, fault).await;
            }
        }
    }
}

fn take(unread: &mut Vec<u8>, frames: &mut Option<frame::Reader>) -> Option<Packet> {
    let (packet, used) = match frames {
        None if unread.starts_with(b"GET ") => return None,
        None => packet::decode(unread, 65536).unwrap().map(|(packet, used)| (packet.to_packet(), used))?,
        Some(frames) => match frames.next(unread).unwrap()? {
            (frame::Event::Message(message), used) => {
                (packet::decode_message(message, 65536).unwrap().to_packet(), used)
            }
            _ => return None,
        },
    };
    unread.drain(..used);
    Some(packet)
}

/// A push as comet writes it: bare over TCP, inside op 9 over WebSocket; in an envelope for who can move.
fn pushed(stamp: Stamp, websocket: bool, movable: bool) -> Vec<u8> {
    let (mut body, mut inner) = (Vec::new(), Vec::new());
    stamp.encode(64, &mut body);
    if movable {
        let id = PushId { epoch: 1, partition: stamp.stream, offset: stamp.number.into() };
        Message { room: "", id, op: 1000, body: &body }.encode_packet(&mut inner);
    } else {
        packet::encode(1, 1000, 0, &body, &mut inner);
    }
    if websocket { packet::raw(inner.into()).to_bytes().to_vec() } else { inner }
}

async fn send(socket: &mut TcpStream, websocket: bool, packet: &[u8], fault: Fault) {
    let mut bytes = Vec::new();
    if websocket {
        frame::put_header(frame::BINARY, packet.len(), &mut bytes);
    }
    bytes.extend_from_slice(packet);
    let step = if fault == Fault::Trickle { 1 } else { bytes.len() };
    for part in bytes.chunks(step) {
        // A client that has what it came for is gone by now.
        let _ = socket.write_all(part).await;
        tokio::task::yield_now().await;
    }
}
