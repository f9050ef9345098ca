//! A store and a queue that do what a test tells them to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use prost::Message;
use proto::logic::{CometInfo, PushMsg};
use proto::{Key, Mid, RoomId, ServerId};

use crate::queue::{NewRecord, PushQueue, QueueError};
use crate::store::memory::MemoryStore;
use crate::store::{Connected, Seen, ServerOnline, Session, SessionStore, StoreError, StoreResult};

const HOUR: Duration = Duration::from_secs(3600);

/// How a fake behaves from now on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mood {
    #[default]
    Well,
    Away,
    /// Never answers.
    Hanging,
    Panicking,
}

impl Mood {
    async fn act(self) -> bool {
        match self {
            Self::Well => true,
            Self::Away => false,
            Self::Hanging => std::future::pending().await,
            Self::Panicking => panic!("told to"),
        }
    }
}

/// The store in memory, as long as it is well.
#[derive(Default)]
pub struct FakeStore {
    pub inner: MemoryStore,
    pub mood: Mutex<Mood>,
}

impl FakeStore {
    /// Puts a connection there.
    pub async fn put(&self, mid: i64, key: &str, server: &str) {
        let session = Session { mid: Mid(mid), key: key.into(), server: server.into(), incarnation: 1 };
        self.inner.connect(&session, HOUR).await.unwrap();
    }

    async fn act(&self) -> StoreResult<()> {
        let mood = *self.mood.lock();
        if mood.act().await { Ok(()) } else { Err(StoreError("connection refused".to_owned())) }
    }
}

#[async_trait]
impl SessionStore for FakeStore {
    async fn connect(&self, session: &Session, ttl: Duration) -> StoreResult<Connected> {
        self.inner.connect(session, ttl).await
    }

    async fn heartbeat(&self, session: &Session, ttl: Duration) -> StoreResult<()> {
        self.inner.heartbeat(session, ttl).await
    }

    async fn disconnect(&self, session: &Session) -> StoreResult<bool> {
        self.inner.disconnect(session).await
    }

    async fn locate_keys(&self, keys: &[Key]) -> StoreResult<Vec<Option<ServerId>>> {
        self.act().await?;
        self.inner.locate_keys(keys).await
    }

    async fn locate_mids(&self, mids: &[Mid]) -> StoreResult<Vec<(Key, ServerId)>> {
        self.act().await?;
        self.inner.locate_mids(mids).await
    }

    async fn renew_online(
        &self,
        server: &ServerId,
        rooms: &BTreeMap<RoomId, i32>,
        info: Option<&CometInfo>,
        ttl: Duration,
    ) -> StoreResult<()> {
        self.inner.renew_online(server, rooms, info, ttl).await
    }

    async fn online(&self, server: &ServerId) -> StoreResult<Option<ServerOnline>> {
        self.inner.online(server).await
    }

    async fn purge_online(&self, server: &ServerId, updated: i64) -> StoreResult<()> {
        self.inner.purge_online(server, updated).await
    }

    async fn comets(&self) -> StoreResult<Vec<(ServerId, CometInfo)>> {
        self.inner.comets().await
    }

    async fn servers(&self) -> StoreResult<Vec<Seen>> {
        self.inner.servers().await
    }

    async fn purge_server(&self, server: &ServerId, incarnation: u64) -> StoreResult<u64> {
        self.inner.purge_server(server, incarnation).await
    }

    async fn ping(&self) -> StoreResult<()> {
        self.act().await
    }
}

/// Keeps what it was handed, in order.
#[derive(Default)]
pub struct FakeQueue {
    pub records: Mutex<Vec<NewRecord>>,
    pub mood: Mutex<Mood>,
    pub flushed: Mutex<bool>,
}

impl FakeQueue {
    /// Every record so far.
    pub fn pushed(&self) -> Vec<PushMsg> {
        self.records.lock().iter().map(|record| PushMsg::decode(record.value().clone()).unwrap()).collect()
    }
}

#[async_trait]
impl PushQueue for FakeQueue {
    fn partitions(&self) -> u32 {
        9
    }

    async fn send(&self, record: NewRecord) -> Result<(u32, u64), QueueError> {
        let mood = *self.mood.lock();
        if !mood.act().await {
            return Err(QueueError::Unavailable("all brokers are down".to_owned()));
        }
        let partition = proto::push::partition(record.key(), 9);
        let mut records = self.records.lock();
        records.push(record);
        Ok((partition, records.len() as u64))
    }

    async fn flush(&self, _within: Duration) {
        *self.flushed.lock() = true;
    }
}

/// Both, as the code under test takes them.
pub fn pair() -> (Arc<FakeStore>, Arc<FakeQueue>) {
    (Arc::default(), Arc::default())
}
