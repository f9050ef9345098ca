//! The life of one connection, written once for every transport: authenticate, move to its shard, serve, end.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use proto::envelope::{Caps, Problem, Welcome};
use proto::frame;
use proto::log::now_ms;
use proto::packet::Packet;
use proto::{op, token};
use tokio::net::TcpStream;

use crate::channel::Channel;
use crate::close::Close;
use crate::input::{Incoming, Input};
use crate::limits::{AddressPermit, FrameBudget, Permit};
use crate::logic::{Held, Identity, LogicError};
use crate::message::{Variant, framed};
use crate::moving::Moving;
use crate::requests::Requests;
use crate::shard::{Command, Shard};
use crate::transport::{self, Framing, ListenerKind};
use crate::wire::Wire;

mod live;

pub use live::{depart, refresh};

/// How soon a refresh that failed is tried again.
pub const REFRESH_AGAIN: Duration = live::RETRY;

/// How long a Go logic's sessions live.
pub const GOIM_TTL: Duration = Duration::from_secs(1800);

/// A connection that authenticated, on its way to its shard.
#[derive(Debug)]
pub struct Newcomer {
    from: usize,
    wire: Wire,
    framing: Framing,
    input: Input,
    identity: Identity,
    caps: Caps,
    auth: Packet,
    began: Instant,
    places: Places,
}

/// The places a connection takes; dropping them gives them back.
#[derive(Debug)]
struct Places {
    _connection: Permit,
    _address: AddressPermit,
}

/// A client whose transport is up and who has not authenticated.
struct Entrance {
    wire: Wire,
    framing: Framing,
    input: Input,
    cookie: String,
    address: IpAddr,
    caps: Caps,
}

/// Logic being asked who a client is. When the client's time is up before the answer came, the session that logic may
/// still make is ended again.
struct Login {
    shard: Rc<Shard>,
    call: Option<Pin<Box<dyn Future<Output = LoginAnswer>>>>,
}

type LoginAnswer = Result<Identity, LogicError>;

impl Login {
    async fn answer(&mut self) -> LoginAnswer {
        let answer = self.call.as_mut().expect("it is asked once").await;
        self.call = None;
        answer
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        if let Some(call) = self.call.take()
            && !std::thread::panicking()
        {
            let shared = self.shard.shared.clone();
            tokio::task::spawn_local(async move {
                match call.await {
                    Ok(Identity { mid, key, .. }) => shared.shards[shared.home(&key)].send(Command::Depart(mid, key)),
                    Err(error) => shared.logic_failed("connect", &error),
                }
            });
        }
    }
}

/// Counts a connection that panics before it has a place of its own.
struct Unregistered(Rc<Shard>);

impl Drop for Unregistered {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.shared.metrics.closed(Close::Panic);
        }
    }
}

/// Takes an accepted socket through handshake and authentication and hands it to its shard.
pub async fn open(shard: Rc<Shard>, socket: TcpStream, peer: SocketAddr, kind: ListenerKind, place: Permit) {
    let _counted = Unregistered(shard.clone());
    let shared = shard.shared.clone();
    let deadline = tokio::time::Instant::now() + shared.live.load().handshake_timeout;
    let opened = tokio::time::timeout_at(deadline, transport::open(socket, peer, kind, &shared.transport)).await;
    let accepted = match opened {
        Ok(Ok(accepted)) => accepted,
        Ok(Err(reason)) => return shared.metrics.closed(reason),
        Err(_) => return shared.metrics.closed(Close::AuthTimeout),
    };
    shared.metrics.handshakes.inc();
    let Some(address_place) = shared.limits.admit(accepted.address) else {
        return shared.metrics.closed(Close::Limit);
    };
    let places = Places { _connection: place, _address: address_place };
    let mut entrance = Entrance {
        wire: Wire::new(accepted.socket, accepted.tls),
        framing: accepted.framing,
        input: Input::new(accepted.framing, accepted.leftover),
        cookie: accepted.cookie,
        address: accepted.address,
        caps: Caps::default(),
    };
    let answer = tokio::time::timeout_at(deadline, entrance.authenticate(&shard)).await;
    let (auth, identity, began) = match answer.unwrap_or(Err(Close::AuthTimeout)) {
        Ok(answer) => answer,
        Err(reason) => {
            shared.metrics.closed(reason);
            return entrance.refuse(reason);
        }
    };
    let Entrance { wire, framing, input, caps, .. } = entrance;
    let newcomer = Newcomer { from: shard.index, wire, framing, input, identity, caps, auth, began, places };
    let home = shared.home(&newcomer.identity.key);
    if home == shard.index {
        adopt(&shard, newcomer);
    } else {
        shared.shards[home].send(Command::Adopt(Box::new(newcomer)));
    }
}

impl Entrance {
    /// Waits for op 7 and asks logic. Other packets are read and ignored, as in goim; nothing is written.
    async fn authenticate(&mut self, shard: &Rc<Shard>) -> Result<(Packet, Identity, Instant), Close> {
        let settings = **shard.shared.live.load();
        let mut budget = FrameBudget::new(settings.frames_per_second, settings.bytes_per_second, shard.now_ms());
        let mut read = 0;
        let auth = loop {
            if let Some(auth) = self.find_auth(shard, read, &mut budget)? {
                break auth;
            }
            self.wire.readable().await.map_err(|_| Close::Io)?;
            read = match self.wire.try_read(&mut shard.scratch.borrow_mut()) {
                Ok(0) => return Err(Close::Gone),
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => 0,
                Err(_) => return Err(Close::Io),
            };
        };
        self.caps = token::announced(&auth.body);
        let began = Instant::now();
        let (logic, cookie) = (shard.shared.logic.clone(), std::mem::take(&mut self.cookie));
        let (token, address) = (auth.body.clone(), self.address);
        let call = Box::pin(async move { logic.connect(&cookie, token, address).await });
        let mut login = Login { shard: shard.clone(), call: Some(call) };
        match login.answer().await {
            Ok(identity) if identity.may_begin() => Ok((auth, identity, began)),
            Ok(Identity { mid, key, .. }) => {
                // Our logic says no itself; this one made a session.
                let shared = &shard.shared;
                shared.shards[shared.home(&key)].send(Command::Depart(mid, key));
                Err(Close::RoomRefused)
            }
            Err(error) => {
                shard.shared.logic_failed("connect", &error);
                tracing::debug!(%error, address = %self.address, "logic refused a client");
                Err(match error {
                    LogicError::Refused(_) => Close::AuthRefused,
                    LogicError::Expired(_) => Close::Expired,
                    LogicError::Unavailable(_) => Close::LogicAway,
                })
            }
        }
    }

    /// Looks for op 7 in what was read; everything else is passed over.
    fn find_auth(&mut self, shard: &Shard, read: usize, budget: &mut FrameBudget) -> Result<Option<Packet>, Close> {
        let mut found = None;
        let mut scratch = shard.scratch.borrow_mut();
        self.input.read(&mut scratch[..read], |incoming| match incoming {
            Incoming::Packet(packet) if packet.op == op::AUTH => {
                found = Some(packet.to_packet());
                Ok(false)
            }
            Incoming::Packet(packet) if !budget.take(shard.now_ms(), packet.body.len()) => Err(Close::RateLimited),
            Incoming::Packet(_) | Incoming::Ping(_) => Ok(true),
            Incoming::Goodbye(_) => Err(Close::Gone),
        })?;
        Ok(found)
    }

    /// Tells a client that can be told; goim clients see a plain close, as they always did.
    fn refuse(self, reason: Close) {
        if let Some(last) = last_word(self.framing, self.caps, reason, None) {
            // The client is refused either way; a last word that does not fit is not worth waiting for.
            let _best_effort = self.wire.try_write(&last);
        }
        self.wire.end();
    }
}

/// Gives a newcomer its place in this shard, its room, its reply, and its task.
///
/// Where logic was told to forget the key while the session was being made, or is being told so, the session is written
/// once more first: from the reply on every push finds it.
pub fn adopt(shard: &Rc<Shard>, newcomer: Newcomer) {
    let Identity { mid, key, connected_ms, .. } = &newcomer.identity;
    if !shard.is_departing(key, newcomer.began) {
        return settle(shard, newcomer);
    }
    let held = Held { mid: *mid, key: key.clone(), connected_ms: *connected_ms };
    let shard = shard.clone();
    tokio::task::spawn_local(async move {
        let turn = shard.turn(&held.key);
        let mine = turn.lock().await;
        let answer = shard.shared.logic.heartbeat(held.clone()).await;
        settle(&shard, newcomer);
        drop(mine);
        if let (Err(_), Some(channel)) = (answer, shard.bucket.get(&held.key)) {
            refresh(shard, channel).await;
        }
    });
}

fn settle(shard: &Rc<Shard>, newcomer: Newcomer) {
    let Newcomer { from, wire, framing, input, identity, caps, auth, began, places } = newcomer;
    let shared = &shard.shared;
    let moved = if from == shard.index { Ok(wire) } else { wire.moved_here() };
    let wire = match moved {
        Ok(wire) => wire,
        Err(_) => {
            shared.metrics.closed(Close::Io);
            tokio::task::spawn_local(live::depart(shard.clone(), identity.mid, identity.key));
            return;
        }
    };
    let variant = Variant::of(framing, caps);
    let channel = Rc::new(Channel::new(
        identity.key,
        identity.mid,
        variant,
        shard.next_serial(),
        identity.accepts,
        wire,
        shared.queue.clone(),
    ));
    let session_ttl = identity.session_ttl.unwrap_or(GOIM_TTL);
    shard.session_ttl.set(session_ttl);
    let refresh_every = session_ttl / 3;
    channel.connected_ms.set(identity.connected_ms);
    channel.moving.set(if caps.moves { Moving::Can } else { Moving::Cannot });
    channel.deadline.set(shard.tick_after(identity.heartbeat));
    channel.refresh.set(shard.tick_after(refresh_every));
    channel.refresh_every.set(refresh_every);
    if identity.expires_ms != 0 {
        channel.expires.set(shard.tick_after(Duration::from_millis(identity.expires_ms.saturating_sub(now_ms()))));
    }
    let registration = shard.register(channel.clone());
    let mut requests =
        Requests::new(registration.shard().clone(), channel.clone(), caps, identity.heartbeat, identity.rooms_allowed);
    if let Some(room) = identity.room {
        // A key that is no room's enters none, as in goim; one that is not allowed did not get here.
        let _no_room = requests.change_room(&room);
    }
    let body = if caps.any() { welcome(shard, &channel, identity.heartbeat) } else { Bytes::new() };
    channel.reply(&Packet { ver: auth.ver, op: op::AUTH_REPLY, seq: auth.seq, body });
    shared.metrics.authenticated.inc();
    shared.metrics.auth.observe(began.elapsed().as_secs_f64());
    if shared.settings.debug || shared.settings.whitelist.contains(&channel.mid.0) {
        tracing::info!(mid = %channel.mid, key = %channel.key, "client connected");
    }
    tokio::task::spawn_local(live::Session { requests, input, registration, _places: places }.run());
}

fn welcome(shard: &Shard, channel: &Channel, heartbeat: Duration) -> Bytes {
    let welcome = Welcome {
        key: channel.key.to_string(),
        server: shard.shared.server.to_string(),
        heartbeat_ms: heartbeat.as_millis() as u64,
        // Read after the client got its place and its room: what comes behind it is given to this client.
        through: shard.shared.interest.through(),
    };
    serde_json::to_vec(&welcome).expect("a welcome is plain data").into()
}

/// The bytes that tell a client why it is closed: op 24 where it understands that, a close frame on WebSocket.
fn last_word(framing: Framing, caps: Caps, reason: Close, echoed: Option<u16>) -> Option<Bytes> {
    let mut out = BytesMut::new();
    if caps.any()
        && let Some((text, retry_after_ms)) = reason.problem()
    {
        let problem = Problem { code: reason.label().into(), reason: text.into(), retry_after_ms };
        let body = serde_json::to_vec(&problem).expect("a problem is plain data");
        out.put(framed(framing, &Packet::new(op::ERROR, 0, body)));
    }
    if framing == Framing::WebSocket && !matches!(reason, Close::Io) {
        frame::put_header(frame::CLOSE, 2, &mut out);
        out.put_u16(echoed.unwrap_or(reason.code()));
    }
    (!out.is_empty()).then(|| out.freeze())
}
