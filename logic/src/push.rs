//! Keys, members, a room or everybody → push records in the queue.
//!
//! Keys are split by (comet, partition of the key), so that all keys of a record share a partition and each key's pushes
//! stay in order. goim writes one record per comet and partitions it by whichever key came first.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use prost::Message;
use proto::comet::OnFull;
use proto::logic::PushMsg;
use proto::logic::push_msg::Type;
use proto::push::{MAX_RECORD, partition, record_key};
use proto::{Key, Mid, RoomId, ServerId};

use crate::queue::{NewRecord, OVERHEAD, PushQueue, QueueError};
use crate::store::{SessionStore, StoreError};

/// Why a push was not, or not wholly, stored.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// No key was named. goim passes Redis' complaint on.
    #[error("ERR wrong number of arguments for 'mget' command")]
    NoKeys,
    /// Nobody could say where the keys are.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The queue refused, or did not answer. Some records may be stored.
    #[error(transparent)]
    Queue(#[from] QueueError),
}

/// What a push may say beyond goim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Worthless after this long.
    pub ttl: Option<Duration>,
    /// What a full outbound queue does with it.
    pub on_full: OnFull,
    /// For whoever reads the record; higher matters more.
    pub priority: u32,
}

/// Writes pushes. Cheap to clone.
#[derive(Clone)]
pub struct Pusher {
    store: Arc<dyn SessionStore>,
    queue: Arc<dyn PushQueue>,
}

impl Pusher {
    /// A pusher over this store and this queue.
    pub fn new(store: Arc<dyn SessionStore>, queue: Arc<dyn PushQueue>) -> Self {
        Self { store, queue }
    }

    /// Pushes to connections; those that are nowhere are passed over. A key named twice gets it twice, as in goim.
    /// Returns how many records were stored.
    ///
    /// # Errors
    /// [`PushError`].
    pub async fn keys(&self, op: i32, keys: Vec<String>, msg: Bytes, options: &Options) -> Result<usize, PushError> {
        if keys.is_empty() {
            return Err(PushError::NoKeys);
        }
        let keys: Vec<Key> = keys.into_iter().filter(|key| !key.is_empty()).map(Key::from).collect();
        if keys.is_empty() {
            return Ok(0);
        }
        let servers = self.store.locate_keys(&keys).await?;
        let found = keys.into_iter().zip(servers).filter_map(|(key, server)| Some((key, server?)));
        self.send_to(op, found, msg, options).await
    }

    /// Pushes to every connection of these members. Returns how many records were stored.
    ///
    /// # Errors
    /// [`PushError`].
    pub async fn mids(&self, op: i32, mids: &[i64], msg: Bytes, options: &Options) -> Result<usize, PushError> {
        let mut seen = HashSet::new();
        let mids: Vec<Mid> = mids.iter().map(|mid| Mid(*mid)).filter(|mid| seen.insert(*mid)).collect();
        let mids: Vec<Mid> = mids.into_iter().filter(|mid| !mid.is_anonymous()).collect();
        if mids.is_empty() {
            return Ok(0);
        }
        let mut seen = HashSet::new();
        let mut found = self.store.locate_mids(&mids).await?;
        found.retain(|(key, _)| !key.as_str().is_empty() && seen.insert(key.clone()));
        self.send_to(op, found.into_iter(), msg, options).await
    }

    /// Pushes to a room. Returns how many records were stored: one.
    ///
    /// # Errors
    /// [`PushError`].
    pub async fn room(&self, op: i32, room: &RoomId, msg: Bytes, options: &Options) -> Result<usize, PushError> {
        let mut record = record(Type::Room, op, msg, options);
        record.room = room.to_string();
        self.send(vec![record]).await
    }

    /// Pushes to everybody, `speed` connections a second over the cluster, 0 for as fast as it goes. Returns how many
    /// records were stored: one.
    ///
    /// # Errors
    /// [`PushError`].
    pub async fn all(&self, op: i32, speed: i32, msg: Bytes, options: &Options) -> Result<usize, PushError> {
        let mut record = record(Type::Broadcast, op, msg, options);
        record.speed = speed;
        self.send(vec![record]).await
    }

    async fn send_to(
        &self,
        op: i32,
        found: impl Iterator<Item = (Key, ServerId)>,
        msg: Bytes,
        options: &Options,
    ) -> Result<usize, PushError> {
        let partitions = self.queue.partitions();
        if partitions == 0 {
            return Err(QueueError::Unavailable("it has not told its partitions yet".to_owned()).into());
        }
        let mut groups: BTreeMap<(ServerId, u32), Vec<String>> = BTreeMap::new();
        for (key, server) in found {
            if !server.as_str().is_empty() {
                let partition = partition(key.as_str().as_bytes(), partitions);
                groups.entry((server, partition)).or_default().push(key.to_string());
            }
        }
        let template = record(Type::Push, op, msg, options);
        let records = groups.into_iter().flat_map(|((server, _), keys)| {
            let template = PushMsg { server: server.to_string(), ..template.clone() };
            chunks(&template, keys)
        });
        self.send(records.collect()).await
    }

    /// Hands the records over in order, then waits for every answer; the first refusal stands.
    async fn send(&self, records: Vec<PushMsg>) -> Result<usize, PushError> {
        let traceparent = runtime::trace::current();
        // All of them before the first is sent: a push that is too large leaves nothing behind.
        let records = records
            .iter()
            .map(|record| {
                let key = Bytes::from(record_key(record).into_owned());
                NewRecord::new(key, record.encode_to_vec().into(), traceparent.clone())
            })
            .collect::<Result<Vec<_>, _>>()?;
        let count = records.len();
        let answers = futures::future::join_all(records.into_iter().map(|record| self.queue.send(record))).await;
        answers.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(count)
    }
}

/// Everything of a record but its targets.
fn record(kind: Type, operation: i32, msg: Bytes, options: &Options) -> PushMsg {
    let created = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let expires = options.ttl.map_or(Duration::ZERO, |ttl| created.saturating_add(ttl));
    PushMsg {
        r#type: kind.into(),
        operation,
        msg,
        id: uuid::Uuid::now_v7().into_bytes().to_vec().into(),
        created_ms: millis(created),
        expires_ms: millis(expires),
        priority: options.priority,
        on_full: options.on_full.into(),
        ..PushMsg::default()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// As few records as the size limit allows, each with at least one key.
fn chunks(template: &PushMsg, keys: Vec<String>) -> Vec<PushMsg> {
    let base = template.encoded_len() + OVERHEAD;
    let mut records = Vec::new();
    let mut chunk: Vec<String> = Vec::new();
    let mut size = 0;
    for key in keys {
        let length = 1 + prost::length_delimiter_len(key.len()) + key.len();
        let first = chunk.first().map_or(0, String::len);
        if !chunk.is_empty() && base + first + size + length > MAX_RECORD {
            records.push(PushMsg { keys: std::mem::take(&mut chunk), ..template.clone() });
            size = 0;
        }
        size += length;
        chunk.push(key);
    }
    if !chunk.is_empty() {
        records.push(PushMsg { keys: chunk, ..template.clone() });
    }
    records
}

#[cfg(test)]
mod tests;
