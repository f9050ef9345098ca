//! Connect, heartbeat, disconnect: which server a key is on, and how many connections a member may have.
//!
//! A key that moves from one comet to another is closed on the one it left, and so is a member's oldest connection
//! when there are too many: a record of type kick goes through the queue to that comet (goim leaves the old socket
//! open, its D30). Neither tokens nor keys are ever logged (goim logs every token, its D24).

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prost::Message;
use proto::log::now_ms;
use proto::logic::PushMsg;
use proto::logic::push_msg::Type;
use proto::{Key, Mid, ServerId, push, token};
use runtime::Metrics;
use runtime::config::FileKey;
use uuid::Uuid;

use crate::auth::{AuthError, AuthMetrics, Authenticator, Identity, Presented};
use crate::queue::{NewRecord, PushQueue, QueueError};
use crate::store::{Connected, Held, Noted, Session, SessionStore, StoreError, StoreResult};

/// goim's keys for sessions and what they mean here.
pub const FILE_KEYS: &[(&str, FileKey)] = &[("redis.expire", FileKey::Arg("redis_expire"))];

/// How long a connection that is moving has to leave the comet where it was before it is told to end: longer than a comet
/// that told it to move keeps it.
const MOVING: Duration = Duration::from_secs(10);

/// How long sessions live and how many a member may have.
#[derive(Clone, Debug, clap::Args)]
pub struct SessionConfig {
    /// How long a session lives without being refreshed; comets refresh every third of it.
    #[arg(
        id = "redis_expire",
        long = "redis-expire",
        value_name = "DURATION",
        env = "IMCLUSTER_REDIS_EXPIRE",
        value_parser = expire,
        default_value = "30m"
    )]
    pub expire: Duration,
    /// How many connections one member may have at a time; 0 = as many as it likes.
    #[arg(
        id = "mid_connections",
        long = "mid-connections",
        value_name = "COUNT",
        env = "IMCLUSTER_MID_CONNECTIONS",
        default_value_t = 0
    )]
    pub limit: usize,
    /// What happens when a member has too many: the new one is refused, or the oldest is closed.
    #[arg(
        id = "mid_policy",
        long = "mid-policy",
        value_name = "POLICY",
        env = "IMCLUSTER_MID_POLICY",
        default_value = "refuse"
    )]
    pub policy: Policy,
}

/// What to do with one connection too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Policy {
    /// Refuse the new one.
    Refuse,
    /// Close the oldest.
    EvictOldest,
}

/// A client that was let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entered {
    /// Who it is.
    pub identity: Identity,
    /// When its session was made, in Unix milliseconds. Later than every kick of the same key that was caused by a
    /// session before this one, so that a kick that comes late is told from one for this connection.
    pub connected_ms: u64,
}

/// Why a client is not let in.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It is not who it wants to be, or that cannot be told.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The member has as many connections as it may.
    #[error("this member has {limit} connections already")]
    TooMany {
        /// How many it may have.
        limit: usize,
    },
    /// Try again later.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The sessions of all clients. Cheap to clone.
#[derive(Clone)]
pub struct Sessions {
    config: Arc<ArcSwap<SessionConfig>>,
    auth: Authenticator,
    store: Arc<dyn SessionStore>,
    queue: Arc<dyn PushQueue>,
    metrics: SessionMetrics,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConnectLabels {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KickLabels {
    reason: &'static str,
    result: &'static str,
}

/// What sessions count.
#[derive(Clone, Debug, Default)]
pub struct SessionMetrics {
    connects: Family<ConnectLabels, Counter>,
    kicks: Family<KickLabels, Counter>,
    /// Of those who say who they are.
    pub auth: AuthMetrics,
}

impl SessionMetrics {
    /// Registers them under `imcluster_logic_`.
    pub fn new(metrics: &Metrics) -> Self {
        let new = Self { auth: AuthMetrics::register(metrics), ..Self::default() };
        metrics.register("logic", |registry| {
            registry.register("connects", "Clients that asked to be let in, by result", new.connects.clone());
            registry.register("kicks", "Connections that were told to end, by reason and result", new.kicks.clone());
        });
        new
    }
}

impl Sessions {
    /// Sessions in this store; kicks go into this queue.
    pub fn new(
        config: SessionConfig,
        auth: Authenticator,
        store: Arc<dyn SessionStore>,
        queue: Arc<dyn PushQueue>,
        metrics: SessionMetrics,
    ) -> Self {
        Self { config: Arc::new(ArcSwap::from_pointee(config)), auth, store, queue, metrics }
    }

    /// From now on sessions are made so.
    pub fn apply(&self, config: SessionConfig) {
        self.config.store(Arc::new(config));
    }

    /// How long a session lives without being refreshed.
    pub fn ttl(&self) -> Duration {
        self.config.load().expire
    }

    /// Lets a client in, or not.
    ///
    /// # Errors
    /// [`Refused`] says why not.
    pub async fn connect(
        &self,
        server: ServerId,
        incarnation: u64,
        presented: Presented<'_>,
    ) -> Result<Entered, Refused> {
        let answer = self.admit(server, incarnation, presented).await;
        let result = match &answer {
            Ok(_) => "ok",
            Err(Refused::Auth(AuthError::Token(_))) => "token",
            Err(Refused::Auth(AuthError::Denied(denied))) => {
                self.metrics.auth.deny(denied);
                "denied"
            }
            Err(Refused::Auth(AuthError::Away(_))) => "auth_away",
            Err(Refused::TooMany { .. }) => "limit",
            Err(Refused::Store(_)) => "store",
        };
        self.metrics.connects.get_or_create(&ConnectLabels { result }).inc();
        answer
    }

    async fn admit(&self, server: ServerId, incarnation: u64, presented: Presented<'_>) -> Result<Entered, Refused> {
        let is_moving = token::is_moving(presented.body);
        let identity = self.auth.identify(presented).await?;
        let asked_ms = now_ms();
        let session = Session { mid: identity.mid, key: identity.key.clone(), server, incarnation };
        let Connected { replaced, since_ms, before_ms, mut others } = self.store.connect(&session, self.ttl()).await?;
        let (limit, policy) = {
            let config = self.config.load();
            (identity.connections.unwrap_or(config.limit), config.policy)
        };
        if limit != 0 && others.len() >= limit {
            match policy {
                Policy::Refuse => {
                    self.store.disconnect(&session).await?;
                    return Err(Refused::TooMany { limit });
                }
                Policy::EvictOldest => {
                    for (key, server) in others.drain(..=others.len() - limit) {
                        self.evict(identity.mid, key, server, asked_ms).await?;
                    }
                }
            }
        }
        if let Some(old) = replaced {
            if is_moving {
                // Behind whatever was sent there for the key until now: so that comet knows when it has all of it.
                self.kick(
                    push::MOVING,
                    old.clone(),
                    session.key.clone(),
                    before_ms.unwrap_or(asked_ms),
                    Duration::ZERO,
                );
            }
            // Who moves leaves by itself, or is closed where it was; only one that does neither needs the kick.
            let after = if is_moving { MOVING } else { Duration::ZERO };
            // Best by what that connection was told itself: clocks differ. It may have come and gone again in between.
            self.kick("moved", old, session.key, before_ms.unwrap_or(asked_ms), after);
        }
        Ok(Entered { identity, connected_ms: since_ms })
    }

    async fn evict(&self, mid: Mid, key: Key, server: ServerId, asked_ms: u64) -> StoreResult<()> {
        let session = Session { mid, key, server, incarnation: 0 };
        self.store.disconnect(&session).await?;
        self.kick("limit", session.server, session.key, asked_ms, Duration::ZERO);
        Ok(())
    }

    /// Tells a comet to close the connection of this key that was made until then. The client that caused it does not
    /// wait for the queue.
    fn kick(&self, reason: &'static str, server: ServerId, key: Key, until_ms: u64, after: Duration) {
        let record = PushMsg {
            r#type: Type::Kick.into(),
            server: server.as_str().to_owned(),
            keys: vec![key.as_str().to_owned()],
            msg: reason.into(),
            created_ms: until_ms,
            ..PushMsg::default()
        };
        let (queue, kicks) = (self.queue.clone(), self.metrics.kicks.clone());
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            let sent = send(&*queue, record).await;
            let result = if sent.is_ok() { "ok" } else { "queue" };
            kicks.get_or_create(&KickLabels { reason, result }).inc();
            if let Err(error) = sent {
                tracing::warn!(%server, reason, %error, "a connection stays open that should have been closed");
            }
        });
    }

    /// Refreshes a session, adding it again when it is gone.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn heartbeat(&self, held: &Held) -> StoreResult<()> {
        self.store.heartbeat(held, self.ttl()).await
    }

    /// Notes again what a comet holds.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn register(&self, held: &[Held]) -> StoreResult<()> {
        self.store.register(held, self.ttl()).await
    }

    /// Some of the sessions that are noted for an incarnation of a server.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn noted(&self, server: &ServerId, incarnation: u64, cursor: &str) -> StoreResult<Noted> {
        self.store.noted(server, incarnation, cursor).await
    }

    /// Ends a session. Returns whether the key was there.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn disconnect(&self, session: &Session) -> StoreResult<bool> {
        self.store.disconnect(session).await
    }

    /// Which server each key is on; keys that are nowhere are left out.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn locate(&self, keys: Vec<String>) -> StoreResult<impl Iterator<Item = (String, String)> + use<>> {
        let names: Vec<Key> = keys.iter().map(|key| key.as_str().into()).collect();
        let servers = self.store.locate_keys(&names).await?;
        let found = keys.into_iter().zip(servers);
        Ok(found.filter_map(|(key, server)| Some((key, server?.as_str().to_owned()))))
    }

    /// Writes a record to that key on that server, with nothing in it: its arrival proves the whole path.
    ///
    /// # Errors
    /// When the queue does not take it.
    pub async fn probe(&self, server: String, key: String) -> Result<(), QueueError> {
        send(&*self.queue, PushMsg { server, keys: vec![key], created_ms: now_ms(), ..PushMsg::default() }).await
    }
}

async fn send(queue: &dyn PushQueue, mut record: PushMsg) -> Result<(), QueueError> {
    record.id = Uuid::now_v7().as_bytes().to_vec().into();
    let key = push::record_key(&record).into_owned().into();
    queue.send(NewRecord::new(key, record.encode_to_vec().into(), None)?).await.map(drop)
}

fn expire(text: &str) -> Result<Duration, String> {
    match runtime::duration::parse(text)? {
        duration if duration < Duration::from_secs(1) => Err("expected at least 1s: Redis is told seconds".to_owned()),
        duration => Ok(duration),
    }
}

#[cfg(test)]
mod tests;
