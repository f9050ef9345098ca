//! Removing what a dead incarnation of a server left behind, in batches and at a bounded rate.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fred::interfaces::{LuaInterface, SetsInterface, SortedSetsInterface};
use futures::future::try_join_all;
use proto::ServerId;

use super::keys::{RENEWAL_DELETE_IF, entry, member};
use super::{RedisStore, failed};
use crate::store::{Held, Session, SessionStore, StoreResult};

/// How many sessions a purge takes at once, and how long it rests in between.
const PURGE_BATCH: usize = 500;
const PURGE_REST: Duration = Duration::from_millis(20);

impl RedisStore {
    pub(super) async fn purge(&self, server: &ServerId, incarnation: u64) -> StoreResult<u64> {
        let set = self.keys.sessions(server, incarnation);
        let name = format!("{server}/{incarnation}");
        let renewed = self.renewal(&name).await?;
        let mut purged = 0;
        // A Go comet has no set: only its entry goes.
        loop {
            let members: Vec<String> = self.client().srandmember(&set, Some(PURGE_BATCH)).await.map_err(failed)?;
            if members.is_empty() {
                break;
            }
            let count = self.purge_batch(server, incarnation, &members).await?;
            if self.renewal(&name).await? != renewed {
                // It was only silent, and registers what it holds. These it may have registered just before they went.
                tracing::warn!(%server, incarnation, "a comet that was taken for dead is back, its purge ends");
                let sessions = members.iter().filter_map(|member| session(member, server));
                self.put_back(sessions.map(|session| Session { incarnation, ..session })).await?;
                return Ok(purged);
            }
            purged += count;
            // Only now: a purge that is cut short is taken up again by the next.
            let _: i64 = self.client().srem(&set, members).await.map_err(failed)?;
            tokio::time::sleep(PURGE_REST).await;
        }
        if let Some(renewed) = renewed {
            let with = vec![name, renewed.to_string()];
            let _: i64 = self.client().eval(RENEWAL_DELETE_IF, self.keys.comets(), with).await.map_err(failed)?;
        }
        Ok(purged)
    }

    /// When an incarnation renewed last.
    async fn renewal(&self, name: &str) -> StoreResult<Option<f64>> {
        self.client().zscore(self.keys.comets(), name).await.map_err(failed)
    }

    /// Which of these members of an incarnation's set are also in a later one's. That may have renewed for the first time
    /// just now.
    async fn again(&self, server: &ServerId, incarnation: u64, members: &[String]) -> StoreResult<HashSet<String>> {
        let mut again = HashSet::new();
        let seen = self.servers().await?;
        for later in seen.iter().filter(|seen| &seen.server == server && seen.incarnation != incarnation) {
            let set = self.keys.sessions(server, later.incarnation);
            let found: Vec<bool> = self.client().smismember(set, members.to_vec()).await.map_err(failed)?;
            again.extend(members.iter().zip(found).filter(|(_, found)| *found).map(|(member, _)| member.clone()));
        }
        Ok(again)
    }

    /// Removes these sessions if they still name the server. Returns how many keys were removed.
    async fn purge_batch(&self, server: &ServerId, incarnation: u64, all: &[String]) -> StoreResult<u64> {
        let spared = self.again(server, incarnation, all).await?;
        let gone: Vec<&String> = all.iter().filter(|member| !spared.contains(*member)).collect();
        let sessions: Vec<Session> = gone.iter().filter_map(|member| session(member, server)).collect();
        if sessions.is_empty() {
            return Ok(0);
        }
        let answers = try_join_all(sessions.iter().map(|session| self.delete_key(session))).await?;
        let members = sessions.iter().zip(&answers).filter(|(session, _)| !session.mid.is_anonymous());
        try_join_all(members.map(|(session, answer)| self.forget_member(session, *answer))).await?;
        // Whoever came back between the look and the deletion is in a later set by now: put it back.
        let returned = self.again(server, incarnation, all).await?;
        let is_back = |session: &Session| {
            let member = member(session);
            returned.contains(&member) && !spared.contains(&member)
        };
        self.put_back(sessions.iter().filter(|session| is_back(session)).cloned()).await?;
        Ok(answers.iter().filter(|answer| **answer == 1).count() as u64)
    }
}

impl RedisStore {
    async fn put_back(&self, sessions: impl Iterator<Item = Session>) -> StoreResult<()> {
        let ttl = Duration::from_secs(self.ttl.load(Ordering::Relaxed));
        for session in sessions {
            self.heartbeat(&Held { session, since_ms: 0 }, ttl).await?;
        }
        Ok(())
    }
}

/// The session that a member of an incarnation's set stands for. The incarnation is left out: what is put back stays in
/// the later set it was found in.
fn session(member: &str, server: &ServerId) -> Option<Session> {
    entry(member).map(|(mid, key)| Session { mid, key, server: server.clone(), incarnation: 0 })
}
