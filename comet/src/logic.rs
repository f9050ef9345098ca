//! What comet asks of logic. [`grpc`] asks a real one, goim's or ours; [`memory`] is its twin for tests.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use proto::logic::CometInfo;
use proto::{Key, Mid, Packet, RoomId};

pub mod grpc;
pub mod memory;

pub use grpc::LogicClient;

/// Who a client is, as logic says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The member.
    pub mid: Mid,
    /// Names the connection.
    pub key: Key,
    /// The first room.
    pub room: Option<RoomId>,
    /// The operations it wants.
    pub accepts: Vec<i32>,
    /// Close after this long without an op 2.
    pub heartbeat: Duration,
    /// How long the session lives in the store unless refreshed; `None` = goim's rule.
    pub session_ttl: Option<Duration>,
    /// The rooms it may enter; empty = any.
    pub rooms_allowed: Vec<String>,
    /// When it is to be closed, in Unix milliseconds; 0 = never.
    pub expires_ms: u64,
    /// When the session was made, in Unix milliseconds by logic's clock; by ours where logic is goim's.
    pub connected_ms: u64,
}

impl Identity {
    /// Whether its first room, if it has one, is one that it may enter.
    pub fn may_begin(&self) -> bool {
        let is_allowed = |room: &RoomId| self.rooms_allowed.iter().any(|allowed| allowed == room.as_str());
        self.rooms_allowed.is_empty() || self.room.as_ref().is_none_or(is_allowed)
    }
}

/// What a renewal answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Renewed {
    /// Room → how many are there, over all comets.
    pub everywhere: HashMap<String, i32>,
    /// Another number when the store may have lost sessions; 0 = nobody says (a Go logic).
    pub epoch: u64,
}

/// A connection that is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The member.
    pub mid: Mid,
    /// Its name.
    pub key: Key,
    /// When logic made its session, in Unix milliseconds.
    pub connected_ms: u64,
}

/// Some of the sessions that logic has noted for this comet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Noted {
    /// Whose they are, and their keys.
    pub sessions: Vec<(Mid, Key)>,
    /// Where to go on; empty = these were the last.
    pub cursor: String,
}

/// Logic did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogicError {
    /// It answered no; asking again will not help. goim's logic says everything this way, also that Redis is away.
    #[error("logic refused: {0}")]
    Refused(String),
    /// It answered that the client's token is too old; a newer one will help.
    #[error("logic refused: {0}")]
    Expired(String),
    /// It did not answer, or could not.
    #[error("logic did not answer: {0}")]
    Unavailable(String),
}

/// The calls of a comet to logic.
#[async_trait]
pub trait Logic: std::fmt::Debug + Send + Sync + 'static {
    /// Who is this client, and may it come in? `token` is the body of its auth packet. Notes the session.
    async fn connect(&self, cookie: &str, token: Bytes, address: IpAddr) -> Result<Identity, LogicError>;

    /// The session ended; returns whether it was known.
    async fn disconnect(&self, mid: Mid, key: &Key) -> Result<bool, LogicError>;

    /// The session goes on: keep it, or note it again.
    async fn heartbeat(&self, held: Held) -> Result<(), LogicError>;

    /// Reports how many are in each room here, and returns how many there are everywhere.
    async fn renew_online(&self, rooms: HashMap<String, i32>, info: CometInfo) -> Result<Renewed, LogicError>;

    /// Notes sessions again that the store may have lost. A Go logic refuses.
    async fn register(&self, held: Vec<Held>) -> Result<(), LogicError>;

    /// Which sessions are noted for this comet, some at a time, from an empty cursor on. A Go logic refuses.
    async fn noted(&self, cursor: &str) -> Result<Noted, LogicError>;

    /// Hands on what a client sent.
    async fn receive(&self, mid: Mid, key: &Key, packet: Packet) -> Result<(), LogicError>;

    /// Asks for one push to this key on this server, to prove the path. A Go logic refuses.
    async fn probe(&self, key: &str) -> Result<(), LogicError>;
}

#[cfg(test)]
mod tests;
