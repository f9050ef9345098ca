//! A logic that lives in this process and believes every token: for tests of what stands on [`Logic`].

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::ops::Bound;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use proto::log::now_ms;
use proto::logic::CometInfo;
use proto::{Key, Mid, Packet, RoomId};
use serde::Deserialize;

use super::{Held, Identity, Logic, LogicError, Noted, Renewed};

/// What clients get when the test does not say otherwise.
const HEARTBEAT: Duration = Duration::from_secs(480);
/// How many sessions it tells of at a time: few, so that tests see more than one answer.
const PAGE: usize = 3;

/// The sessions of one comet and everything it said.
#[derive(Debug)]
pub struct MemoryLogic {
    /// Answers to connects.
    pub heartbeat: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    sessions: BTreeMap<Key, Mid>,
    said: Vec<Said>,
    online: HashMap<String, i32>,
    down: bool,
    mute: bool,
    epoch: u64,
    cannot_probe: bool,
    made: u64,
}

/// One call that reached [`MemoryLogic`].
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Said {
    Connect { cookie: String, token: Bytes, address: IpAddr },
    Disconnect { mid: Mid, key: Key },
    Heartbeat { held: Held },
    RenewOnline { rooms: HashMap<String, i32>, info: CometInfo },
    Receive { mid: Mid, key: Key, packet: Packet },
    Register { held: Vec<Held> },
    Noted { cursor: String },
    Probe { key: String },
}

/// The tokens it takes: goim's fields.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Token {
    mid: i64,
    key: String,
    room_id: String,
    accepts: Vec<i32>,
    rooms_allowed: Vec<String>,
    expires_ms: u64,
    session_ttl_ms: u64,
}

impl Default for MemoryLogic {
    fn default() -> Self {
        Self { heartbeat: HEARTBEAT, state: Mutex::new(State { epoch: 1, ..State::default() }) }
    }
}

impl MemoryLogic {
    /// From now on it does not answer, or answers again.
    pub fn set_down(&self, down: bool) {
        self.state.lock().down = down;
    }

    /// From now on it does what it is told of sessions and does not answer, or answers again.
    pub fn set_mute(&self, mute: bool) {
        self.state.lock().mute = mute;
    }

    /// Whether it knows probes; goim's does not.
    pub fn set_probes(&self, known: bool) {
        self.state.lock().cannot_probe = !known;
    }

    /// How many it says are online in rooms that other comets hold.
    pub fn set_online(&self, rooms: impl IntoIterator<Item = (String, i32)>) {
        self.state.lock().online = rooms.into_iter().collect();
    }

    /// Forgets every session, as a store does that was emptied, and says so from now on.
    pub fn lose(&self) {
        let mut state = self.state.lock();
        state.sessions.clear();
        state.epoch += 1;
    }

    /// Keys with a session.
    pub fn sessions(&self) -> Vec<Key> {
        self.state.lock().sessions.keys().cloned().collect()
    }

    /// Every call so far, in order.
    pub fn said(&self) -> Vec<Said> {
        self.state.lock().said.clone()
    }

    fn note(&self, said: Said) -> Result<parking_lot::MutexGuard<'_, State>, LogicError> {
        let mut state = self.state.lock();
        if state.down {
            return Err(LogicError::Unavailable("told to be down".into()));
        }
        state.said.push(said);
        Ok(state)
    }
}

impl State {
    fn answer<T>(&self, answer: T) -> Result<T, LogicError> {
        if self.mute { Err(LogicError::Unavailable("told to be mute".into())) } else { Ok(answer) }
    }
}

#[async_trait]
impl Logic for MemoryLogic {
    async fn connect(&self, cookie: &str, token: Bytes, address: IpAddr) -> Result<Identity, LogicError> {
        let mut state = self.note(Said::Connect { cookie: cookie.to_owned(), token: token.clone(), address })?;
        let token: Token =
            serde_json::from_slice(&token).map_err(|error| LogicError::Refused(format!("auth body: {error}")))?;
        if (1..=now_ms()).contains(&token.expires_ms) {
            return Err(LogicError::Expired("the token has expired".to_owned()));
        }
        let key = if token.key.is_empty() {
            state.made += 1;
            format!("made-up-{}", state.made).into()
        } else {
            Key::from(token.key)
        };
        state.sessions.insert(key.clone(), Mid(token.mid));
        state.answer(Identity {
            mid: Mid(token.mid),
            key,
            room: Some(RoomId::from(token.room_id)).filter(|room| !room.as_str().is_empty()),
            accepts: token.accepts,
            heartbeat: self.heartbeat,
            session_ttl: Some(Duration::from_millis(token.session_ttl_ms)).filter(|ttl| !ttl.is_zero()),
            rooms_allowed: token.rooms_allowed,
            expires_ms: token.expires_ms,
            connected_ms: now_ms(),
        })
    }

    async fn disconnect(&self, mid: Mid, key: &Key) -> Result<bool, LogicError> {
        let mut state = self.note(Said::Disconnect { mid, key: key.clone() })?;
        let was_known = state.sessions.remove(key).is_some();
        state.answer(was_known)
    }

    async fn heartbeat(&self, held: Held) -> Result<(), LogicError> {
        let mut state = self.note(Said::Heartbeat { held: held.clone() })?;
        state.sessions.insert(held.key, held.mid);
        state.answer(())
    }

    async fn renew_online(&self, rooms: HashMap<String, i32>, info: CometInfo) -> Result<Renewed, LogicError> {
        let state = self.note(Said::RenewOnline { rooms: rooms.clone(), info })?;
        let mut everywhere = state.online.clone();
        for (room, count) in rooms {
            *everywhere.entry(room).or_insert(0) += count;
        }
        Ok(Renewed { everywhere, epoch: state.epoch })
    }

    async fn register(&self, held: Vec<Held>) -> Result<(), LogicError> {
        let mut state = self.note(Said::Register { held: held.clone() })?;
        state.sessions.extend(held.into_iter().map(|held| (held.key, held.mid)));
        state.answer(())
    }

    async fn noted(&self, cursor: &str) -> Result<Noted, LogicError> {
        let state = self.note(Said::Noted { cursor: cursor.to_owned() })?;
        let behind = (Bound::Excluded(Key::from(cursor)), Bound::Unbounded);
        let sessions: Vec<(Mid, Key)> =
            state.sessions.range(behind).take(PAGE).map(|(key, mid)| (*mid, key.clone())).collect();
        let last = sessions.last().filter(|_| sessions.len() == PAGE);
        let cursor = last.map(|(_, key)| key.to_string()).unwrap_or_default();
        Ok(Noted { sessions, cursor })
    }

    async fn receive(&self, mid: Mid, key: &Key, packet: Packet) -> Result<(), LogicError> {
        self.note(Said::Receive { mid, key: key.clone(), packet }).map(drop)
    }

    async fn probe(&self, key: &str) -> Result<(), LogicError> {
        let state = self.note(Said::Probe { key: key.to_owned() })?;
        if state.cannot_probe { Err(LogicError::Refused("unknown service".into())) } else { Ok(()) }
    }
}
