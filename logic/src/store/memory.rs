//! The store in memory: the same meaning as Redis, for one process, bounded by what is in it.
//!
//! Time is tokio's, so that tests can pause it. What has expired is gone for every reader at once and swept out of
//! memory once a minute.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use parking_lot::{Mutex, MutexGuard};
use proto::log::now_ms;
use proto::logic::CometInfo;
use proto::{Key, Mid, RoomId, ServerId};
use tokio::time::Instant;

use super::{Connected, Held, INFO_TTL, Noted, SETTLED, Seen, ServerOnline, Session, SessionStore, StoreResult};

const SWEEP: Duration = Duration::from_secs(60);
/// How many sessions are told of at a time.
const PAGE: usize = 500;

/// Sessions and counts in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    // Held for a few map operations, never across an await.
    tables: Mutex<Tables>,
    /// For tests that need a store that is away: while set, nothing is answered.
    #[cfg(test)]
    pub(crate) away: std::sync::atomic::AtomicBool,
}

#[derive(Debug, Default)]
struct Tables {
    keys: HashMap<Key, Expiring<ServerId>>,
    mids: HashMap<Mid, HashMap<Key, Device>>,
    /// By key, so that a look can go on behind one.
    incarnations: HashMap<(ServerId, u64), BTreeSet<(Key, Mid)>>,
    online: HashMap<ServerId, Expiring<ServerOnline>>,
    comets: HashMap<ServerId, Expiring<CometInfo>>,
    seen: BTreeMap<(ServerId, u64), i64>,
    /// Begins at 0: see [`SessionStore::epoch`].
    losses: u64,
    clock: i64,
    swept: Option<Instant>,
}

#[derive(Debug)]
struct Device {
    server: ServerId,
    /// Unix milliseconds, and the order within one.
    since: (u64, i64),
}

#[derive(Debug)]
struct Expiring<T> {
    value: T,
    until: Instant,
}

impl<T> Expiring<T> {
    fn new(value: T, ttl: Duration) -> Self {
        Self { value, until: Instant::now() + ttl }
    }

    fn live(&self) -> Option<&T> {
        (self.until > Instant::now()).then_some(&self.value)
    }
}

impl MemoryStore {
    /// Nobody is there yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets everything, as a Redis that was started again does.
    pub fn lose(&self) {
        let mut tables = self.tables.lock();
        *tables = Tables { losses: tables.losses + 1, ..Tables::default() };
    }

    fn tables(&self) -> StoreResult<MutexGuard<'_, Tables>> {
        #[cfg(test)]
        if self.away.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(super::StoreError("connection refused".to_owned()));
        }
        Ok(self.tables.lock())
    }
}

impl Tables {
    fn tick(&mut self) -> i64 {
        self.clock += 1;
        self.clock
    }

    fn locate(&self, key: &Key) -> Option<&ServerId> {
        self.keys.get(key).and_then(Expiring::live)
    }

    /// The member's devices whose key still lives, oldest first.
    fn devices(&self, mid: Mid) -> Vec<(Key, ServerId)> {
        let Some(devices) = self.mids.get(&mid) else {
            return Vec::new();
        };
        let mut live: Vec<_> = devices.iter().filter(|(key, _)| self.locate(key).is_some()).collect();
        live.sort_by_key(|(_, device)| device.since);
        live.into_iter().map(|(key, device)| (key.clone(), device.server.clone())).collect()
    }

    /// Whether the member has had the key's entry for longer than this connection.
    fn is_older(&self, Held { session, since_ms }: &Held) -> bool {
        let device = self.mids.get(&session.mid).and_then(|devices| devices.get(&session.key));
        device.is_some_and(|device| device.since.0 < *since_ms)
    }

    fn put(&mut self, session: &Session, since_ms: u64, ttl: Duration) {
        let Session { mid, key, server, incarnation } = session.clone();
        if incarnation != 0 {
            self.incarnations.entry((server.clone(), incarnation)).or_default().insert((key.clone(), mid));
        }
        self.keys.insert(key.clone(), Expiring::new(server.clone(), ttl));
        if !mid.is_anonymous() {
            let since = (since_ms, self.tick());
            self.mids.entry(mid).or_default().insert(key, Device { server, since });
        }
        self.sweep();
    }

    /// Removes what names that server. Returns the server the key was on until now.
    fn remove(&mut self, mid: Mid, key: &Key, server: &ServerId) -> Option<ServerId> {
        let held = self.locate(key).cloned();
        if held.as_ref() == Some(server) {
            self.keys.remove(key);
        }
        if let Some(devices) = self.mids.get_mut(&mid) {
            if devices.get(key).is_some_and(|device| &device.server == server) {
                devices.remove(key);
            }
            if devices.is_empty() {
                self.mids.remove(&mid);
            }
        }
        held
    }

    fn sweep(&mut self) {
        let now = Instant::now();
        if self.swept.is_some_and(|at| now < at + SWEEP) {
            return;
        }
        self.swept = Some(now);
        self.keys.retain(|_, entry| entry.until > now);
        self.online.retain(|_, entry| entry.until > now);
        self.comets.retain(|_, entry| entry.until > now);
        let keys = &self.keys;
        self.mids.retain(|_, devices| {
            devices.retain(|key, _| keys.contains_key(key));
            !devices.is_empty()
        });
        self.incarnations.retain(|_, members| {
            members.retain(|(key, _)| keys.contains_key(key));
            !members.is_empty()
        });
    }
}

#[async_trait]
impl SessionStore for MemoryStore {
    async fn connect(&self, session: &Session, ttl: Duration) -> StoreResult<Connected> {
        let mut tables = self.tables()?;
        let replaced = tables.locate(&session.key).filter(|server| **server != session.server).cloned();
        let before_ms = tables.mids.get(&session.mid).and_then(|devices| Some(devices.get(&session.key)?.since.0));
        let asked_ms = now_ms() + u64::from(replaced.is_some());
        let since_ms = before_ms.map_or(asked_ms, |before| asked_ms.max(before + 1));
        tables.put(session, since_ms, ttl);
        let mut others = if session.mid.is_anonymous() { Vec::new() } else { tables.devices(session.mid) };
        others.retain(|(key, _)| *key != session.key);
        Ok(Connected { replaced, since_ms, before_ms, others })
    }

    async fn heartbeat(&self, held: &Held, ttl: Duration) -> StoreResult<()> {
        let mut tables = self.tables()?;
        let (session, now) = (&held.session, Instant::now());
        let is_theirs = match tables.keys.get_mut(&session.key).filter(|entry| entry.live().is_some()) {
            Some(entry) if entry.value == session.server => {
                entry.until = now + ttl;
                return Ok(());
            }
            Some(entry) => entry.until + SETTLED > now + ttl || !tables.is_older(held),
            None => false,
        };
        if !is_theirs {
            tables.put(session, if held.since_ms == 0 { now_ms() } else { held.since_ms }, ttl);
        }
        Ok(())
    }

    async fn register(&self, held: &[Held], ttl: Duration) -> StoreResult<()> {
        let mut tables = self.tables()?;
        for held @ Held { session, since_ms } in held {
            let is_older = tables.is_older(held);
            if tables.locate(&session.key).is_none_or(|server| *server == session.server || is_older) {
                tables.put(session, *since_ms, ttl);
            }
        }
        Ok(())
    }

    async fn noted(&self, server: &ServerId, incarnation: u64, cursor: &str) -> StoreResult<Noted> {
        let tables = self.tables()?;
        let Some(members) = tables.incarnations.get(&(server.clone(), incarnation)) else {
            return Ok(Noted::default());
        };
        // A cursor is the last key that was told of. One that is noted for two members may be told of for one alone.
        let behind = (Bound::Excluded((Key::from(cursor), Mid(i64::MAX))), Bound::Unbounded);
        let sessions: Vec<(Mid, Key)> =
            members.range(behind).take(PAGE).map(|(key, mid)| (*mid, key.clone())).collect();
        let last = sessions.last().filter(|_| sessions.len() == PAGE);
        let cursor = last.map(|(_, key)| key.to_string()).unwrap_or_default();
        Ok(Noted { sessions, cursor })
    }

    async fn epoch(&self) -> StoreResult<u64> {
        Ok(1 + self.tables()?.losses)
    }

    async fn disconnect(&self, session: &Session) -> StoreResult<bool> {
        let mut tables = self.tables()?;
        if let Some(members) = tables.incarnations.get_mut(&(session.server.clone(), session.incarnation)) {
            members.remove(&(session.key.clone(), session.mid));
        }
        Ok(tables.remove(session.mid, &session.key, &session.server).is_some())
    }

    async fn locate_keys(&self, keys: &[Key]) -> StoreResult<Vec<Option<ServerId>>> {
        let tables = self.tables()?;
        Ok(keys.iter().map(|key| tables.locate(key).cloned()).collect())
    }

    async fn locate_mids(&self, mids: &[Mid]) -> StoreResult<Vec<(Key, ServerId)>> {
        let tables = self.tables()?;
        let found: BTreeMap<Key, ServerId> = mids.iter().flat_map(|mid| tables.devices(*mid)).collect();
        Ok(found.into_iter().collect())
    }

    async fn renew_online(
        &self,
        server: &ServerId,
        rooms: &BTreeMap<RoomId, i32>,
        info: Option<&CometInfo>,
        ttl: Duration,
    ) -> StoreResult<()> {
        let updated = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
        let online = ServerOnline { rooms: rooms.clone().into_iter().collect(), updated };
        let mut tables = self.tables()?;
        if rooms.is_empty() {
            tables.online.remove(server);
        } else {
            tables.online.insert(server.clone(), Expiring::new(online, ttl));
        }
        if let Some(info) = info {
            tables.comets.insert(server.clone(), Expiring::new(info.clone(), INFO_TTL));
        }
        let renewal = tables.tick();
        tables.seen.insert((server.clone(), info.map_or(0, |info| info.incarnation)), renewal);
        Ok(())
    }

    async fn online(&self, server: &ServerId) -> StoreResult<Option<ServerOnline>> {
        Ok(self.tables()?.online.get(server).and_then(Expiring::live).cloned())
    }

    async fn purge_online(&self, server: &ServerId, updated: i64) -> StoreResult<()> {
        let mut tables = self.tables()?;
        if tables.online.get(server).is_some_and(|online| online.value.updated == updated) {
            tables.online.remove(server);
        }
        Ok(())
    }

    async fn comets(&self) -> StoreResult<Vec<(ServerId, CometInfo)>> {
        let tables = self.tables()?;
        let live = tables.comets.iter().filter_map(|(server, info)| Some((server.clone(), info.live()?.clone())));
        Ok(live.collect())
    }

    async fn servers(&self) -> StoreResult<Vec<Seen>> {
        let tables = self.tables()?;
        let seen = tables.seen.iter().map(|((server, incarnation), renewal)| Seen {
            server: server.clone(),
            incarnation: *incarnation,
            renewal: *renewal,
        });
        Ok(seen.collect())
    }

    async fn purge_server(&self, server: &ServerId, incarnation: u64) -> StoreResult<u64> {
        let mut tables = self.tables()?;
        tables.seen.remove(&(server.clone(), incarnation));
        let members = tables.incarnations.remove(&(server.clone(), incarnation)).unwrap_or_default();
        let mut purged = 0;
        for member in members {
            let again = tables.incarnations.iter().any(|((id, _), kept)| id == server && kept.contains(&member));
            if !again {
                purged += u64::from(tables.remove(member.1, &member.0, server).as_ref() == Some(server));
            }
        }
        Ok(purged)
    }

    async fn ping(&self) -> StoreResult<()> {
        self.tables().map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn the_memory_store_passes_the_suite() {
        super::super::suite::run(Arc::new(MemoryStore::new())).await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_expired_is_swept_out_of_memory() {
        let store = MemoryStore::new();
        let session = |key: &str| Session { mid: Mid(1), key: key.into(), server: "s".into(), incarnation: 1 };
        store.connect(&session("old"), Duration::from_secs(5)).await.unwrap();
        tokio::time::advance(SWEEP).await;
        store.connect(&session("new"), Duration::from_secs(5)).await.unwrap();
        let tables = store.tables.lock();
        assert_eq!(tables.keys.len(), 1);
        assert_eq!(tables.mids[&Mid(1)].len(), 1);
        assert_eq!(tables.incarnations[&("s".into(), 1)].len(), 1);
    }
}
