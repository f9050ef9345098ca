//! Who is where: the sessions and online counts that all logics share.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use async_trait::async_trait;
use proto::logic::CometInfo;
use proto::{Key, Mid, RoomId, ServerId};

pub mod memory;
pub mod redis;
#[doc(hidden)]
pub mod suite;

/// How long a key names a server before a heartbeat from another one may take it back: until then the connection may be
/// on its way in, and since when its member has it is not noted yet.
pub const SETTLED: Duration = Duration::from_secs(10);

/// How long what a comet says of itself is kept.
pub const INFO_TTL: Duration = Duration::from_secs(30);

/// One connection's entry: this key, of this member, is on this server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The member, or anonymous.
    pub mid: Mid,
    /// The connection.
    pub key: Key,
    /// The comet that holds it.
    pub server: ServerId,
    /// The comet's incarnation, 0 when it does not say (a Go comet).
    pub incarnation: u64,
}

/// A connection that a comet holds, and since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its entry.
    pub session: Session,
    /// When the session was made, in Unix milliseconds by logic's clock; 0 = nobody knows.
    pub since_ms: u64,
}

/// Where a member's new connection stands among the member's others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connected {
    /// The server the key was on until now, when it was on another.
    pub replaced: Option<ServerId>,
    /// Since when the session counts, in Unix milliseconds: by our clock, but later than the one before it of the same key,
    /// whichever logic made that and however its clock is.
    pub since_ms: u64,
    /// Since when the one before it counted; `None` = nobody knows.
    pub before_ms: Option<u64>,
    /// The member's other connections, oldest first.
    pub others: Vec<(Key, ServerId)>,
}

/// Per-room counts of one server, and when that server last said so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerOnline {
    /// Room → connections there.
    pub rooms: HashMap<RoomId, i32>,
    /// Unix seconds as the writing logic's clock had it; only a change of it means anything.
    pub updated: i64,
}

/// That a server renewed, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The comet.
    pub server: ServerId,
    /// Its incarnation, 0 for a Go comet.
    pub incarnation: u64,
    /// Another number after every renewal; only a change of it means anything.
    pub renewal: i64,
}

/// Some of the sessions that are noted for an incarnation of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Noted {
    /// Whose they are, and their keys.
    pub sessions: Vec<(Mid, Key)>,
    /// Where the next look goes on; empty = these were the last.
    pub cursor: String,
}

/// The store does not answer, or answered nonsense.
#[derive(Debug, thiserror::Error)]
#[error("session store: {0}")]
pub struct StoreError(pub String);

/// What a store answers.
pub type StoreResult<T> = Result<T, StoreError>;

/// The sessions and counts of one cluster. goim's keys and shapes in Redis; the same meaning in memory.
#[async_trait]
pub trait SessionStore: Send + Sync + 'static {
    /// Adds or replaces the session and refreshes its time to live.
    async fn connect(&self, session: &Session, ttl: Duration) -> StoreResult<Connected>;
    /// Refreshes the session, adding it again when it is gone, and taking it back when the key has named another server
    /// for a while and the member had that connection first: a move that was refused may be carried out late.
    async fn heartbeat(&self, held: &Held, ttl: Duration) -> StoreResult<()>;
    /// Notes the sessions that one incarnation holds again, as after a loss: those that are gone are added, those of
    /// members that name another server are taken back if that connection is the older one, all are refreshed.
    async fn register(&self, held: &[Held], ttl: Duration) -> StoreResult<()>;
    /// Some of the sessions that are noted for that incarnation of a server, from an empty cursor on. Whoever is noted from
    /// the first look to the last is found, perhaps twice. A key among them may name another server by now.
    async fn noted(&self, server: &ServerId, incarnation: u64, cursor: &str) -> StoreResult<Noted>;
    /// A number that is another one after every event that may have lost sessions: the store was emptied, started
    /// again, or fell to an heir. Never 0.
    async fn epoch(&self) -> StoreResult<u64>;
    /// Removes the session if the key still names that server. Returns whether the key was there.
    async fn disconnect(&self, session: &Session) -> StoreResult<bool>;
    /// The server of each key, in order; `None` for keys that are nowhere.
    async fn locate_keys(&self, keys: &[Key]) -> StoreResult<Vec<Option<ServerId>>>;
    /// Every connection of these members.
    async fn locate_mids(&self, mids: &[Mid]) -> StoreResult<Vec<(Key, ServerId)>>;
    /// Replaces what a server said of its rooms, and of itself when it did.
    async fn renew_online(
        &self,
        server: &ServerId,
        rooms: &BTreeMap<RoomId, i32>,
        info: Option<&CometInfo>,
        ttl: Duration,
    ) -> StoreResult<()>;
    /// What a server last said of its rooms; `None` when nothing is kept.
    async fn online(&self, server: &ServerId) -> StoreResult<Option<ServerOnline>>;
    /// Forgets what a server said of its rooms, if `updated` is still what it was when it was found stale.
    async fn purge_online(&self, server: &ServerId, updated: i64) -> StoreResult<()>;
    /// Every comet that said something of itself within the last 30 s.
    async fn comets(&self) -> StoreResult<Vec<(ServerId, CometInfo)>>;
    /// Every incarnation of every server that renewed and was not purged since.
    async fn servers(&self) -> StoreResult<Vec<Seen>>;
    /// Removes every session of that incarnation of a server that still names it, but for those a later incarnation
    /// registered again, and forgets the incarnation. Returns how many. Ends early when the incarnation renews
    /// meanwhile: it lives.
    async fn purge_server(&self, server: &ServerId, incarnation: u64) -> StoreResult<u64>;
    /// Asks whether the store answers.
    async fn ping(&self) -> StoreResult<()>;
}
