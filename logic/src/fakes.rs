//! The store in memory, which a test may send away, and a queue that does what a test tells it to.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use prost::Message;
use proto::Mid;
use proto::logic::PushMsg;

use crate::queue::{NewRecord, PushQueue, QueueError};
use crate::store::memory::MemoryStore;
use crate::store::{Session, SessionStore};

const HOUR: Duration = Duration::from_secs(3600);

/// How the queue behaves from now on.
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

impl MemoryStore {
    /// Puts a connection there.
    pub async fn put(&self, mid: i64, key: &str, server: &str) {
        let session = Session { mid: Mid(mid), key: key.into(), server: server.into(), incarnation: 1 };
        self.connect(&session, HOUR).await.unwrap();
    }

    /// From now on it answers nothing, or does again.
    pub fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::Relaxed);
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
pub fn pair() -> (Arc<MemoryStore>, Arc<FakeQueue>) {
    (Arc::default(), Arc::default())
}
