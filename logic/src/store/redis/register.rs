//! Noting again the sessions that a comet holds, a batch at a time, telling which are noted, and the number that says when
//! that is needed.

use fred::interfaces::{ClientLike, HashesInterface, KeysInterface, LuaInterface, SetsInterface, SortedSetsInterface};
use fred::types::sorted_sets::Ordering;
use fred::types::{ClusterHash, CustomCommand, Expiration, SetOptions, Value};
use futures::future::try_join_all;
use proto::ServerId;

use super::keys::{EPOCH, TAKE_OVER, entry, member};
use super::{RedisStore, all, convert, failed, queue};
use crate::store::{Held, Noted, StoreError, StoreResult};

/// About how many sessions are told of at a time.
const PAGE: &str = "500";

/// What becomes of a key.
enum Step {
    Refresh,
    Add,
    /// It names this server, where an older connection was.
    Take(String),
    Leave,
}

impl RedisStore {
    pub(super) async fn register_again(&self, held: &[Held], ttl: i64) -> StoreResult<()> {
        let steps = self.look(held, ttl).await?;
        let pipeline = self.pipeline();
        let mut settled = Vec::new();
        let mut moved = Vec::new();
        for (held, step) in held.iter().zip(steps) {
            let (key, server) = (self.keys.key(&held.session.key), held.session.server.as_str());
            match step {
                Step::Leave => continue,
                Step::Refresh => queue(pipeline.expire(&key, ttl, None).await)?,
                Step::Add => {
                    let (expire, absent) = (Some(Expiration::EX(ttl)), Some(SetOptions::NX));
                    queue(pipeline.set(&key, server, expire, absent, false).await)?;
                }
                Step::Take(from) => {
                    moved.push((held, from));
                    continue;
                }
            }
            settled.push(held);
        }
        // A key that somebody else has got meanwhile answers nil, one that went answers 0.
        let done: Vec<Value> = if settled.is_empty() { Vec::new() } else { all(&pipeline).await? };
        let mut ours: Vec<&Held> = settled
            .into_iter()
            .zip(done)
            .filter(|(_, done)| !done.is_null() && done.as_i64() != Some(0))
            .map(|(held, _)| held)
            .collect();
        // Rare: a pipeline takes no scripts.
        for (held, from) in moved {
            ours.extend(self.take_over(held, from, ttl).await?.then_some(held));
        }
        self.note_devices(ours.into_iter().filter(|held| !held.session.mid.is_anonymous()), ttl).await
    }

    /// Has the key name this server if it still names that one.
    pub(super) async fn take_over(&self, held: &Held, from: String, ttl: i64) -> StoreResult<bool> {
        let (key, with) = (self.keys.key(&held.session.key), [from, held.session.server.to_string(), ttl.to_string()]);
        let taken: i64 = self.client().eval(TAKE_OVER, key, with.to_vec()).await.map_err(failed)?;
        Ok(taken == 1)
    }

    /// Whether the member has had the key's entry for longer than this connection.
    pub(super) async fn is_older(&self, Held { session, since_ms }: &Held) -> StoreResult<bool> {
        let devices = self.keys.devices(session.mid);
        let since: Option<f64> = self.client().zscore(devices, session.key.as_str()).await.map_err(failed)?;
        Ok(since.is_some_and(|since| since < *since_ms as f64))
    }

    /// Adds the sessions to their incarnation's set and looks where their keys are.
    async fn look(&self, held: &[Held], ttl: i64) -> StoreResult<Vec<Step>> {
        let pipeline = self.pipeline();
        let Some(Held { session: first, .. }) = held.first() else {
            return Ok(Vec::new());
        };
        let set = self.keys.sessions(&first.server, first.incarnation);
        let members: Vec<String> = held.iter().map(|held| member(&held.session)).collect();
        queue(pipeline.sadd(&set, members).await)?;
        queue(pipeline.expire(&set, ttl * 2, None).await)?;
        for Held { session, .. } in held {
            queue(pipeline.get(self.keys.key(&session.key)).await)?;
            queue(pipeline.zscore(self.keys.devices(session.mid), session.key.as_str()).await)?;
        }
        let answers: Vec<Value> = all(&pipeline).await?;
        let found = answers[2..].chunks_exact(2);
        held.iter()
            .zip(found)
            .map(|(Held { session, since_ms }, found)| {
                let server: Option<String> = convert(found[0].clone())?;
                let since: Option<f64> = convert(found[1].clone())?;
                Ok(match server {
                    None => Step::Add,
                    Some(server) if server == session.server.as_str() => Step::Refresh,
                    Some(server) if since.is_some_and(|since| since < *since_ms as f64) => Step::Take(server),
                    Some(_) => Step::Leave,
                })
            })
            .collect()
    }

    async fn note_devices(&self, held: impl Iterator<Item = &Held>, ttl: i64) -> StoreResult<()> {
        let pipeline = self.pipeline();
        let mut any = false;
        for Held { session, since_ms } in held {
            let (mid, devices) = (self.keys.mid(session.mid), self.keys.devices(session.mid));
            let key = session.key.as_str();
            queue(pipeline.hset(&mid, (key, session.server.as_str())).await)?;
            queue(pipeline.expire(&mid, ttl, None).await)?;
            let later = Some(Ordering::GreaterThan);
            queue(pipeline.zadd(&devices, None, later, false, false, (*since_ms as f64, key)).await)?;
            queue(pipeline.expire(&devices, ttl, None).await)?;
            any = true;
        }
        if any {
            let _: Vec<Value> = all(&pipeline).await?;
        }
        Ok(())
    }

    pub(super) async fn look_through(&self, server: &ServerId, incarnation: u64, cursor: &str) -> StoreResult<Noted> {
        let set = self.keys.sessions(server, incarnation);
        let from = if cursor.is_empty() { "0" } else { cursor };
        // One step at a time: what the library offers goes through the whole set on one connection.
        let scan = CustomCommand::new_static("SSCAN", ClusterHash::FirstKey, false);
        let (next, members): (String, Vec<String>) =
            self.client().custom(scan, vec![set.as_str(), from, "COUNT", PAGE]).await.map_err(failed)?;
        Ok(Noted {
            sessions: members.iter().filter_map(|member| entry(member)).collect(),
            cursor: if next == "0" { String::new() } else { next },
        })
    }

    pub(super) async fn read_epoch(&self) -> StoreResult<u64> {
        let kept = self.epochs.iter().map(|key| async move {
            let fresh = format!("{:016x}", rand::random::<u64>());
            let kept: String = self.client().eval(EPOCH, key.as_str(), fresh).await.map_err(failed)?;
            let number = kept.split(' ').next().and_then(|number| u64::from_str_radix(number, 16).ok());
            number.ok_or_else(|| StoreError(format!("{key} holds {kept:?}: expected a number; delete it")))
        });
        let numbers: Vec<u64> = try_join_all(kept).await?;
        // On one server the number itself.
        Ok(numbers.into_iter().fold(0, |all: u64, number| all.rotate_left(7) ^ number).max(1))
    }
}
