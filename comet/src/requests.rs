//! What a client asks and how it is answered, op by op.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use proto::envelope::{Caps, Problem, RoomResults};
use proto::packet::{Packet, PacketRef};
use proto::{RoomId, frame, op};

use crate::channel::Channel;
use crate::close::Close;
use crate::input::Incoming;
use crate::limits::FrameBudget;
use crate::moving::{self, Moving};
use crate::room::Membership;
use crate::shard::Shard;
use crate::transport::Framing;

/// The longest room key, in bytes.
const MAX_ROOM: usize = 1024;

/// What op 20 says of a room that logic does not allow this client.
const NOT_ALLOWED: &str = "not_allowed";

/// A call to logic whose answer the client waits for; the reply to send then, if any.
pub type Call = Pin<Box<dyn Future<Output = Option<Packet>>>>;

/// What one connection has asked for so far, and may ask.
pub struct Requests {
    shard: Rc<Shard>,
    channel: Rc<Channel>,
    caps: Caps,
    heartbeat: Duration,
    rooms_allowed: Box<[String]>,
    rooms: Vec<Membership>,
    counted: Option<RoomId>,
    budget: FrameBudget,
    goodbye: Option<u16>,
    waiting: Option<Call>,
}

impl Requests {
    /// A connection that has asked nothing yet. An empty `rooms_allowed` allows every room.
    pub fn new(
        shard: Rc<Shard>,
        channel: Rc<Channel>,
        caps: Caps,
        heartbeat: Duration,
        rooms_allowed: Vec<String>,
    ) -> Self {
        let settings = shard.shared.live.load();
        let budget = FrameBudget::new(settings.frames_per_second, settings.bytes_per_second, shard.now_ms());
        Self {
            shard,
            channel,
            caps,
            heartbeat,
            rooms_allowed: rooms_allowed.into(),
            rooms: Vec::new(),
            counted: None,
            budget,
            goodbye: None,
            waiting: None,
        }
    }

    /// What the client announced.
    pub fn caps(&self) -> Caps {
        self.caps
    }

    /// The code the client said goodbye with.
    pub fn goodbye(&self) -> Option<u16> {
        self.goodbye
    }

    /// The call to logic that must be answered before the next request is read.
    pub fn waiting(&mut self) -> Option<&mut Call> {
        self.waiting.as_mut()
    }

    /// The call was answered.
    pub fn answered(&mut self, reply: Option<Packet>) {
        self.waiting = None;
        if let Some(reply) = reply {
            self.channel.reply(&reply);
        }
    }

    /// Answers one request; says whether the next may be read already.
    ///
    /// # Errors
    /// The reason to close.
    pub fn take(&mut self, incoming: Incoming<'_>) -> Result<bool, Close> {
        let size = match &incoming {
            Incoming::Packet(packet) => packet.body.len(),
            Incoming::Ping(payload) => payload.len(),
            Incoming::Goodbye(_) => 0,
        };
        self.shard.shared.metrics.received.inc();
        if !self.budget.take(self.shard.now_ms(), size) {
            return Err(Close::RateLimited);
        }
        match incoming {
            Incoming::Packet(packet) => self.packet(packet),
            Incoming::Ping(payload) => {
                let mut pong = BytesMut::with_capacity(2 + payload.len());
                frame::put_header(frame::PONG, payload.len(), &mut pong);
                pong.put_slice(payload);
                self.channel.reply_bytes(pong.freeze());
                Ok(true)
            }
            Incoming::Goodbye(code) => {
                self.goodbye = code;
                Err(Close::Gone)
            }
        }
    }

    fn packet(&mut self, packet: PacketRef<'_>) -> Result<bool, Close> {
        match packet.op {
            op::HEARTBEAT => {
                self.channel.deadline.set(self.shard.tick_after(self.heartbeat));
                self.reply(packet, op::HEARTBEAT_REPLY, self.online().to_be_bytes().to_vec().into());
            }
            op::HEARTBEAT_REPLY => {
                self.reply(packet, op::HEARTBEAT_REPLY, self.online().to_be_bytes().to_vec().into());
            }
            op::CHANGE_ROOM => match self.change_room(&RoomId::from(&*String::from_utf8_lossy(packet.body))) {
                Err(NOT_ALLOWED) if self.caps.any() => {
                    self.problem(packet, NOT_ALLOWED, "this client may not enter that room");
                }
                // goim's op 13 cannot say no, and a client that believes to be elsewhere is worse off than a closed one.
                Err(NOT_ALLOWED) => return Err(Close::RoomRefused),
                _ => self.echo(packet, op::CHANGE_ROOM_REPLY),
            },
            op::SUBSCRIBE => {
                self.channel.subscribe(ops(packet.body));
                self.echo(packet, op::SUBSCRIBE_REPLY);
            }
            op::UNSUBSCRIBE => {
                self.channel.unsubscribe(&ops(packet.body));
                self.echo(packet, op::UNSUBSCRIBE_REPLY);
            }
            op::JOIN | op::LEAVE if self.caps.rooms => self.join_or_leave(packet),
            // Who was not told to has nothing to wait for here.
            op::MOVE if self.channel.moving.get() == Moving::Told => match serde_json::from_slice(packet.body) {
                Ok(all) => {
                    let (shard, channel, request) = (self.shard.clone(), self.channel.clone(), packet.to_packet());
                    let through = moving::furthest(all);
                    self.waiting =
                        Some(Box::pin(async move { Some(moving::leave(shard, channel, request, through).await) }));
                    return Ok(false);
                }
                Err(_) => {
                    self.problem(packet, "bad_body", "expected a JSON list of the `through` maps of ops 8 and 20")
                }
            },
            18..=op::MESSAGE if self.caps.any() => self.problem(packet, "unexpected_op", "this op is the server's"),
            _ => {
                self.waiting = Some(self.receive(packet));
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// goim's op 12: leaves every room and enters this one, or none when it is empty. Entering where it is stays.
    ///
    /// # Errors
    /// Why it stays where it was, as op 20 says it.
    pub fn change_room(&mut self, room: &RoomId) -> Result<(), &'static str> {
        if room.as_str().is_empty() {
            self.rooms.clear();
            self.counted = None;
        } else {
            self.check(room.as_str())?;
            self.rooms.retain(|membership| &membership.room().id == room);
            if self.rooms.is_empty() {
                self.rooms.push(self.shard.bucket.enter(room, &self.channel));
            }
            self.counted = Some(room.clone());
        }
        Ok(())
    }

    fn join_or_leave(&mut self, packet: PacketRef<'_>) {
        let Ok(names) = serde_json::from_slice::<Vec<String>>(packet.body) else {
            return self.problem(packet, "bad_body", "expected a JSON list of room keys");
        };
        let join = packet.op == op::JOIN;
        let mut results = RoomResults::default();
        for name in names {
            let result = if join { self.join(&name) } else { self.leave(&name) };
            results.rooms.insert(name, result.to_owned());
        }
        // Read after the rooms were entered: what comes behind it is given to this client.
        results.through = self.shard.shared.interest.through();
        let body = serde_json::to_vec(&results).expect("room results are plain data");
        let reply = if join { op::JOIN_REPLY } else { op::LEAVE_REPLY };
        self.reply(packet, reply, body.into());
    }

    fn join(&mut self, name: &str) -> &'static str {
        if self.rooms.iter().any(|membership| membership.room().id.as_str() == name) {
            return "ok";
        }
        if let Err(why) = self.check(name) {
            return why;
        }
        if self.rooms.len() >= self.shard.shared.live.load().rooms_per_connection {
            return self.refused("too_many_rooms");
        }
        self.rooms.push(self.shard.bucket.enter(&name.into(), &self.channel));
        "ok"
    }

    fn leave(&mut self, name: &str) -> &'static str {
        let before = self.rooms.len();
        self.rooms.retain(|membership| membership.room().id.as_str() != name);
        if self.counted.as_ref().is_some_and(|room| room.as_str() == name) {
            self.counted = None;
        }
        if self.rooms.len() < before { "ok" } else { "not_in_room" }
    }

    fn check(&self, room: &str) -> Result<(), &'static str> {
        if room.is_empty() || room.len() > MAX_ROOM {
            return Err(self.refused("bad_room"));
        }
        if !self.rooms_allowed.is_empty() && !self.rooms_allowed.iter().any(|allowed| allowed == room) {
            return Err(self.refused(NOT_ALLOWED));
        }
        Ok(())
    }

    /// Counts a room that is not entered.
    fn refused(&self, why: &'static str) -> &'static str {
        self.shard.shared.metrics.room_refused(why);
        why
    }

    /// How many are online in the room of the auth body or of op 12: in the cluster, else here, 0 without a room.
    fn online(&self) -> i32 {
        let Some(room) = &self.counted else {
            return 0;
        };
        match self.shard.shared.cluster.load().get(room.as_str()) {
            Some(count) if *count > 0 => *count,
            _ => self.shard.bucket.room(room.as_str()).map_or(0, |room| room.len() as i32),
        }
    }

    /// An application's own op: logic is told, then the op comes back empty. On TCP goim's op 9 has no reply bytes.
    fn receive(&self, packet: PacketRef<'_>) -> Call {
        let (shard, channel, packet) = (self.shard.clone(), self.channel.clone(), packet.to_packet());
        Box::pin(async move {
            let echo = Packet { body: Bytes::new(), ..packet.clone() };
            if let Err(error) = shard.shared.logic.receive(channel.mid, &channel.key, packet).await {
                shard.shared.metrics.logic_error("receive");
                tracing::debug!(%error, "upstream packet not taken");
            }
            let silent = echo.op == op::RAW && channel.variant.framing() == Framing::Tcp;
            (!silent).then_some(echo)
        })
    }

    fn problem(&self, packet: PacketRef<'_>, code: &str, reason: &str) {
        let problem = Problem { code: code.into(), reason: reason.into(), retry_after_ms: None };
        let body = serde_json::to_vec(&problem).expect("a problem is plain data");
        self.reply(packet, op::ERROR, body.into());
    }

    fn echo(&self, packet: PacketRef<'_>, op: i32) {
        self.reply(packet, op, Bytes::copy_from_slice(packet.body));
    }

    fn reply(&self, to: PacketRef<'_>, op: i32, body: Bytes) {
        self.channel.reply(&Packet { ver: to.ver, op, seq: to.seq, body });
    }
}

/// A comma-separated list of operations; one that is no number makes the whole list empty, as in goim.
fn ops(body: &[u8]) -> Vec<i32> {
    let parsed: Option<Vec<i32>> =
        std::str::from_utf8(body).ok().and_then(|text| text.split(',').map(|op| op.parse().ok()).collect());
    parsed.unwrap_or_default()
}
