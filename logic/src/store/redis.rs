//! The store in Redis: goim's keys, so that a Go logic can share them, and ours beside them; `keys.rs` has the table.
//!
//! Every command and script touches one key, so Cluster needs nothing special. Removal is conditional: a script
//! compares the server first (goim's D4: it deletes whatever is there).

mod config;
mod keys;
mod purge;
mod register;
pub mod shards;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use fred::clients::{Client, Pipeline, Pool, WithOptions};
use fred::interfaces::{ClientLike, HashesInterface, KeysInterface, LuaInterface, SetsInterface, SortedSetsInterface};
use fred::types::config::Options;
use fred::types::{Expiration, FromValue, SetOptions, Value};
use futures::future::{join_all, try_join_all};
use prost::Message;
use proto::log::now_ms;
use proto::logic::CometInfo;
use proto::{Key, Mid, RoomId, ServerId};

pub use config::{FILE_KEYS, RedisConfig, RedisConfigError};
use keys::{COUNTS_DELETE_IF, DELETE_IF, FIELD_DELETE_IF, Keys, member};

use super::{
    Connected, Held, INFO_TTL, Noted, SETTLED, Seen, ServerOnline, Session, SessionStore, StoreError, StoreResult,
};

/// How many keys go into one command or pipeline.
const CHUNK: usize = 1000;
/// How often we ask Redis over each connection whether it is there.
const PING: Duration = Duration::from_secs(1);
/// How many times in a row it may leave that unanswered over one that seems to be there, until that is made anew.
const UNANSWERED: u32 = 2;

/// What a member has.
struct Devices {
    /// Since when the key's entry counted that was there before, in Unix milliseconds.
    before_ms: Option<u64>,
    /// Key → server.
    entries: HashMap<String, String>,
    /// Keys by connect time.
    order: Vec<String>,
}

/// Commands that go together.
type Queued = WithOptions<Pipeline<Client>>;

/// Sessions and counts in Redis. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RedisStore {
    pool: Pool,
    keys: Keys,
    /// What is refused is not carried out later: nothing waits for a connection, or is written to a second one. The
    /// client forgets a single command that nobody waits for any more, but not a pipeline.
    options: Options,
    /// Where the epoch is kept.
    epochs: std::sync::Arc<[String]>,
    clustered: bool,
    /// The time to live last asked for, in seconds: for what a purge puts back.
    ttl: std::sync::Arc<AtomicU64>,
}

impl RedisStore {
    /// Begins to connect and returns at once; Redis need not be there yet. Whether it answers shows in the readiness
    /// condition `redis`.
    ///
    /// # Errors
    /// When the settings or the files they name cannot be used.
    pub fn start(config: &RedisConfig, process: &runtime::Process) -> Result<Self, RedisConfigError> {
        let pool = config.pool()?;
        // The handle ends when the pool is told to quit; nothing waits for it.
        drop(pool.connect());
        let keys = Keys::new(&config.prefix);
        let store = Self {
            pool,
            options: Options { fail_fast: true, max_attempts: Some(config.attempts()), ..Options::default() },
            epochs: keys.epochs(config.cluster).into(),
            keys,
            clustered: config.cluster,
            ttl: std::sync::Arc::new(AtomicU64::new(1800)),
        };
        let condition = process.readiness.condition("redis", "first answer");
        tokio::spawn(store.clone().watch(condition, process.shutdown.clone()));
        Ok(store)
    }

    /// Asks over every connection again and again until the process ends. The client itself takes a connection for dead
    /// only when it has written nothing to it for a while.
    async fn watch(self, condition: runtime::Condition, shutdown: runtime::Shutdown) {
        let clients = self.pool.clients();
        let mut unanswered = vec![0; clients.len()];
        loop {
            let answers = join_all(clients.iter().map(|client| client.ping::<String>(None))).await;
            for ((client, unanswered), answer) in clients.iter().zip(&mut unanswered).zip(&answers) {
                *unanswered = if answer.is_err() && client.is_connected() { *unanswered + 1 } else { 0 };
                if *unanswered == UNANSWERED {
                    *unanswered = 0;
                    let client = client.clone();
                    // Whether it is there again shows at the next ping.
                    tokio::spawn(async move { client.force_reconnection().await });
                }
            }
            match answers.into_iter().find_map(Result::err) {
                None => condition.up(),
                Some(error) => condition.down(&error.to_string()),
            }
            tokio::select! {
                () = shutdown.begun() => return,
                () = tokio::time::sleep(PING) => {}
            }
        }
    }

    fn client(&self) -> &Client {
        self.pool.next_connected()
    }

    fn pipeline(&self) -> Queued {
        self.client().pipeline().with_options(&self.options)
    }

    fn ttl(&self, ttl: Duration) -> i64 {
        let seconds = ttl.as_secs().max(1);
        self.ttl.store(seconds, Ordering::Relaxed);
        seconds as i64
    }

    /// Registers key and incarnation first and the member's entry after it, so that whoever finds the member's entry
    /// finds the key. Returns the server the key was on. `options` may say: only if the key is nowhere.
    async fn put_key(&self, session: &Session, ttl: i64, options: Option<SetOptions>) -> StoreResult<Option<String>> {
        let client = self.client().with_options(&self.options);
        let pipeline = client.pipeline().with_options(&self.options);
        self.note(&pipeline, session, ttl).await?;
        let (key, server) = (self.keys.key(&session.key), session.server.as_str());
        // Redis takes NX and GET together only since 7.0.
        let get = options.is_none();
        // Beside the pipeline, on the same connection and after it: it makes the session, see `options`.
        let made = client.set(key, server, Some(Expiration::EX(ttl)), options, get);
        let (noted, before) = futures::join!(all::<Vec<Value>>(&pipeline), made);
        noted?;
        let before: Option<String> = before.map_err(failed)?;
        Ok(before.filter(|_| get))
    }

    /// Adds the session to its incarnation's set.
    async fn note(&self, pipeline: &Queued, session: &Session, ttl: i64) -> StoreResult<()> {
        if session.incarnation != 0 {
            let set = self.keys.sessions(&session.server, session.incarnation);
            queue(pipeline.sadd(&set, member(session)).await)?;
            queue(pipeline.expire(&set, ttl * 2, None).await)?;
        }
        Ok(())
    }

    /// Registers the member's entry and returns all that the member has.
    async fn put_mid(&self, session: &Session, since_ms: u64, ttl: i64) -> StoreResult<Devices> {
        let (mid, devices) = (self.keys.mid(session.mid), self.keys.devices(session.mid));
        let (key, server) = (session.key.as_str(), session.server.as_str());
        let pipeline = self.pipeline();
        queue(pipeline.zscore(&devices, key).await)?;
        queue(pipeline.hset(&mid, (key, server)).await)?;
        queue(pipeline.expire(&mid, ttl, None).await)?;
        queue(pipeline.zadd(&devices, None, None, false, false, (since_ms as f64, key)).await)?;
        queue(pipeline.expire(&devices, ttl, None).await)?;
        queue(pipeline.hgetall(&mid).await)?;
        queue(pipeline.zrange(&devices, 0, -1, None, false, None, false).await)?;
        let mut answers: Vec<Value> = all(&pipeline).await?;
        let order = convert(answers.pop().unwrap_or(Value::Null))?;
        let entries = convert(answers.pop().unwrap_or(Value::Null))?;
        let before: Option<f64> = convert(answers.into_iter().next().unwrap_or(Value::Null))?;
        Ok(Devices { before_ms: before.map(|before| before as u64), entries, order })
    }

    /// Deletes the key if it names the server. 1 = deleted, 0 = there was none, -1 = it names another.
    async fn delete_key(&self, session: &Session) -> StoreResult<i64> {
        self.client().eval(DELETE_IF, self.keys.key(&session.key), session.server.as_str()).await.map_err(failed)
    }

    /// Deletes the member's entry if it names the server.
    async fn forget_device(&self, mid: Mid, key: &Key, server: &ServerId) -> StoreResult<()> {
        let field = vec![key.as_str(), server.as_str()];
        let _: i64 = self.client().eval(FIELD_DELETE_IF, self.keys.mid(mid), field).await.map_err(failed)?;
        Ok(())
    }

    /// The same, and the device's connect time unless the key is elsewhere (`deleted` is [`Self::delete_key`]'s).
    async fn forget_member(&self, session: &Session, deleted: i64) -> StoreResult<()> {
        self.forget_device(session.mid, &session.key, &session.server).await?;
        if deleted >= 0 {
            let device = session.key.as_str();
            let _: i64 = self.client().zrem(self.keys.devices(session.mid), device).await.map_err(failed)?;
        }
        Ok(())
    }

    /// Drops the member's entries whose key is nowhere or elsewhere, and returns the live ones (goim's D18: there the
    /// entry of a device that died lived as long as any other device of the member refreshed the hash).
    async fn weed(&self, mid: Mid, entries: Vec<(Key, ServerId)>) -> StoreResult<Vec<(Key, ServerId)>> {
        let keys: Vec<Key> = entries.iter().map(|(key, _)| key.clone()).collect();
        let servers = self.locate_keys(&keys).await?;
        let (live, dead): (Vec<_>, Vec<_>) =
            entries.into_iter().zip(servers).partition(|((_, entry), server)| server.as_ref() == Some(entry));
        let nowhere: Vec<&str> =
            dead.iter().filter(|(_, now)| now.is_none()).map(|((key, _), _)| key.as_str()).collect();
        try_join_all(dead.iter().map(|((key, server), _)| self.forget_device(mid, key, server))).await?;
        if !nowhere.is_empty() {
            let _: i64 = self.client().zrem(self.keys.devices(mid), nowhere).await.map_err(failed)?;
        }
        Ok(live.into_iter().map(|(entry, _)| entry).collect())
    }
}

#[async_trait]
impl SessionStore for RedisStore {
    async fn connect(&self, session: &Session, ttl: Duration) -> StoreResult<Connected> {
        let ttl = self.ttl(ttl);
        let before = self.put_key(session, ttl, None).await?;
        let replaced = before.map(ServerId::from).filter(|server| *server != session.server);
        let asked_ms = now_ms() + u64::from(replaced.is_some());
        let mut connected = Connected { replaced, since_ms: asked_ms, ..Connected::default() };
        if session.mid.is_anonymous() {
            return Ok(connected);
        }
        let Devices { before_ms, mut entries, order } = self.put_mid(session, asked_ms, ttl).await?;
        connected.before_ms = before_ms;
        if let Some(before) = before_ms.filter(|before| *before >= asked_ms) {
            // Our clock is behind that of the logic which made that one.
            connected.since_ms = before + 1;
            let (devices, member) = (self.keys.devices(session.mid), (connected.since_ms as f64, session.key.as_str()));
            let _: i64 = self.client().zadd(devices, None, None, false, false, member).await.map_err(failed)?;
        }
        entries.remove(session.key.as_str());
        if entries.is_empty() {
            return Ok(connected);
        }
        // A Go logic writes no connect times: its devices count as the oldest.
        let place = |key: &str| order.iter().position(|at| at == key).map_or(0, |at| at + 1);
        let mut entries: Vec<(Key, ServerId)> =
            entries.into_iter().map(|(key, server)| (key.into(), server.into())).collect();
        entries.sort_by_cached_key(|(key, _)| (place(key.as_str()), key.clone()));
        connected.others = self.weed(session.mid, entries).await?;
        Ok(connected)
    }

    async fn heartbeat(&self, held: &Held, ttl: Duration) -> StoreResult<()> {
        let (ttl, session) = (self.ttl(ttl), &held.session);
        let key = self.keys.key(&session.key);
        let pipeline = self.pipeline();
        self.note(&pipeline, session, ttl).await?;
        queue(pipeline.ttl(&key).await)?;
        queue(pipeline.get(&key).await)?;
        let mut answers: Vec<Value> = all(&pipeline).await?;
        let server: Option<String> = convert(answers.pop().unwrap_or(Value::Null))?;
        let left: i64 = convert(answers.pop().unwrap_or(Value::Null))?;
        match server {
            None => drop(self.put_key(session, ttl, Some(SetOptions::NX)).await?),
            Some(server) if server == session.server.as_str() => {
                let _: bool = self.client().expire(&key, ttl, None).await.map_err(failed)?;
            }
            // It moved; whoever holds it now refreshes it.
            Some(_) if left + SETTLED.as_secs() as i64 > ttl => return Ok(()),
            Some(server) => {
                let is_ours = self.is_older(held).await? && self.take_over(held, server, ttl).await?;
                if !is_ours {
                    return Ok(());
                }
            }
        }
        if session.mid.is_anonymous() {
            return Ok(());
        }
        let (mid, devices) = (self.keys.mid(session.mid), self.keys.devices(session.mid));
        let pipeline = self.pipeline();
        queue(pipeline.expire(&mid, ttl, None).await)?;
        queue(pipeline.expire(&devices, ttl, None).await)?;
        queue(pipeline.hgetall(&mid).await)?;
        let mut answers: Vec<Value> = all(&pipeline).await?;
        let mut entries: HashMap<String, String> = convert(answers.pop().unwrap_or(Value::Null))?;
        if entries.remove(session.key.as_str()).as_deref() != Some(session.server.as_str()) {
            let since_ms = if held.since_ms == 0 { now_ms() } else { held.since_ms };
            self.put_mid(session, since_ms, ttl).await?;
        }
        if !entries.is_empty() {
            let entries = entries.into_iter().map(|(key, server)| (key.into(), server.into())).collect();
            self.weed(session.mid, entries).await?;
        }
        Ok(())
    }

    async fn register(&self, held: &[Held], ttl: Duration) -> StoreResult<()> {
        let ttl = self.ttl(ttl);
        for chunk in held.chunks(CHUNK) {
            self.register_again(chunk, ttl).await?;
        }
        Ok(())
    }

    async fn noted(&self, server: &ServerId, incarnation: u64, cursor: &str) -> StoreResult<Noted> {
        self.look_through(server, incarnation, cursor).await
    }

    async fn epoch(&self) -> StoreResult<u64> {
        self.read_epoch().await
    }

    async fn disconnect(&self, session: &Session) -> StoreResult<bool> {
        if session.incarnation != 0 {
            let set = self.keys.sessions(&session.server, session.incarnation);
            let _: i64 = self.client().srem(set, member(session)).await.map_err(failed)?;
        }
        let deleted = self.delete_key(session).await?;
        if !session.mid.is_anonymous() {
            self.forget_member(session, deleted).await?;
        }
        Ok(deleted != 0)
    }

    async fn locate_keys(&self, keys: &[Key]) -> StoreResult<Vec<Option<ServerId>>> {
        let mut found = Vec::with_capacity(keys.len());
        for chunk in keys.chunks(CHUNK) {
            let servers: Vec<Option<String>> = if self.clustered {
                let pipeline = self.pipeline();
                for key in chunk {
                    queue(pipeline.get(self.keys.key(key)).await)?;
                }
                all(&pipeline).await?
            } else {
                let keys: Vec<String> = chunk.iter().map(|key| self.keys.key(key)).collect();
                self.client().mget(keys).await.map_err(failed)?
            };
            found.extend(servers.into_iter().map(|server| server.map(ServerId::from)));
        }
        Ok(found)
    }

    async fn locate_mids(&self, mids: &[Mid]) -> StoreResult<Vec<(Key, ServerId)>> {
        let mut found = BTreeMap::new();
        for chunk in mids.chunks(CHUNK) {
            let pipeline = self.pipeline();
            for mid in chunk {
                queue(pipeline.hgetall(self.keys.mid(*mid)).await)?;
            }
            for entries in all::<Vec<Value>>(&pipeline).await? {
                let entries: HashMap<String, String> = convert(entries)?;
                found.extend(entries.into_iter().map(|(key, server)| (Key::from(key), ServerId::from(server))));
            }
        }
        Ok(found.into_iter().collect())
    }

    async fn renew_online(
        &self,
        server: &ServerId,
        rooms: &BTreeMap<RoomId, i32>,
        info: Option<&CometInfo>,
        ttl: Duration,
    ) -> StoreResult<()> {
        let key = self.keys.online(server);
        let (full, empty) = shards::split(server, rooms, now_ms() as i64 / 1000);
        let pipeline = self.pipeline();
        if !full.is_empty() {
            queue(pipeline.hset(&key, full).await)?;
            queue(pipeline.expire(&key, self.ttl(ttl), None).await)?;
        }
        if !empty.is_empty() {
            queue(pipeline.hdel(&key, empty).await)?;
        }
        if let Some(info) = info {
            let (bytes, ttl) = (bytes::Bytes::from(info.encode_to_vec()), INFO_TTL.as_secs() as i64);
            queue(pipeline.set(self.keys.info(server), bytes, Some(Expiration::EX(ttl)), None, false).await)?;
        }
        let incarnation = info.map_or(0, |info| info.incarnation);
        let member = format!("{server}/{incarnation}");
        queue(pipeline.zadd(self.keys.comets(), None, None, false, false, (now_ms() as f64, member)).await)?;
        let _: Vec<Value> = all(&pipeline).await?;
        Ok(())
    }

    async fn online(&self, server: &ServerId) -> StoreResult<Option<ServerOnline>> {
        let kept: HashMap<String, String> = self.client().hgetall(self.keys.online(server)).await.map_err(failed)?;
        if kept.is_empty() {
            return Ok(None);
        }
        shards::join(kept.values().map(String::as_str)).map(Some).map_err(StoreError)
    }

    async fn purge_online(&self, server: &ServerId, updated: i64) -> StoreResult<()> {
        let _: i64 = self.client().eval(COUNTS_DELETE_IF, self.keys.online(server), updated).await.map_err(failed)?;
        Ok(())
    }

    async fn comets(&self) -> StoreResult<Vec<(ServerId, CometInfo)>> {
        let mut servers: Vec<ServerId> = self.servers().await?.into_iter().map(|seen| seen.server).collect();
        servers.sort();
        servers.dedup();
        if servers.is_empty() {
            return Ok(Vec::new());
        }
        let pipeline = self.pipeline();
        for server in &servers {
            queue(pipeline.get(self.keys.info(server)).await)?;
        }
        let infos: Vec<Option<bytes::Bytes>> = all(&pipeline).await?;
        let known = servers.into_iter().zip(infos).filter_map(|(server, info)| Some((server, info?)));
        known
            .map(|(server, info)| match CometInfo::decode(info) {
                Ok(info) => Ok((server, info)),
                Err(error) => Err(StoreError(format!("what comet {server} said of itself: {error}"))),
            })
            .collect()
    }

    async fn servers(&self) -> StoreResult<Vec<Seen>> {
        let kept: Vec<(String, f64)> =
            self.client().zrange(self.keys.comets(), 0, -1, None, false, None, true).await.map_err(failed)?;
        let seen = kept.into_iter().filter_map(|(member, renewal)| {
            let (server, incarnation) = member.rsplit_once('/')?;
            Some(Seen { server: server.into(), incarnation: incarnation.parse().ok()?, renewal: renewal as i64 })
        });
        Ok(seen.collect())
    }

    async fn purge_server(&self, server: &ServerId, incarnation: u64) -> StoreResult<u64> {
        self.purge(server, incarnation).await
    }

    async fn ping(&self) -> StoreResult<()> {
        self.client().ping::<String>(None).await.map_err(failed).map(drop)
    }
}

fn queue(queued: Result<Value, fred::error::Error>) -> StoreResult<()> {
    queued.map(drop).map_err(failed)
}

async fn all<T: FromValue>(pipeline: &Queued) -> StoreResult<T> {
    pipeline.all().await.map_err(failed)
}

fn convert<T: FromValue>(value: Value) -> StoreResult<T> {
    value.convert().map_err(failed)
}

fn failed(error: fred::error::Error) -> StoreError {
    StoreError(error.to_string())
}
