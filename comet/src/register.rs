//! Tells logic of every session here again: when its store may have lost them, or may have taken this comet for dead.
//!
//! In batches, one at a time and at a bounded rate, so that many comets at once are no flood; a logic that does not
//! answer is asked again. Who leaves while it is told of is signed off after it.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep};

use crate::logic::{Held, LogicError, Renewed};
use crate::session;
use crate::shard::{Command, Handle, Shard};
use crate::shared::Shared;
use crate::wheel::Entry;

/// How many sessions logic is told of at a time, and the rest in between: at most 20 000 a second.
const BATCH: usize = 500;
const REST: Duration = Duration::from_millis(25);
/// Time to the next try after an error.
const RETRY: Duration = Duration::from_secs(1);
/// Who did not renew for 30 s is taken for dead. Half of it is enough to be sure that we were not.
const SILENT: Duration = Duration::from_secs(15);

/// What the last renewals said.
#[derive(Debug)]
pub struct Standing {
    epoch: u64,
    heard: Instant,
}

impl Standing {
    /// Nothing was said yet.
    pub fn new() -> Self {
        Self { epoch: 0, heard: Instant::now() }
    }

    /// Takes a renewal's answer. Returns whether logic may not know our sessions.
    pub fn is_lost(&mut self, renewed: &Renewed) -> bool {
        let silent = std::mem::replace(&mut self.heard, Instant::now()).elapsed() > SILENT;
        let says = renewed.epoch != 0;
        let other = says && std::mem::replace(&mut self.epoch, renewed.epoch) != renewed.epoch;
        other || (says && silent)
    }
}

/// Registers all sessions whenever it is asked to, for ever.
pub async fn follow(shared: Arc<Shared>, wanted: Arc<Notify>) {
    loop {
        wanted.notified().await;
        let before = shared.metrics.registered.get();
        for shard in &shared.shards {
            let (answer, entries) = oneshot::channel();
            shard.send(Command::List(answer));
            for entries in entries.await.unwrap_or_default().chunks(BATCH) {
                register(&shared, shard, entries).await;
                sleep(REST).await;
            }
        }
        tracing::info!(sessions = shared.metrics.registered.get() - before, "logic knows every session again");
    }
}

async fn register(shared: &Shared, shard: &Handle, entries: &[Entry]) {
    loop {
        let (answer, held) = oneshot::channel();
        shard.send(Command::Held(entries.to_vec(), answer));
        let held = held.await.unwrap_or_default();
        if held.is_empty() {
            return;
        }
        match shared.logic.register(held.clone()).await {
            Ok(()) => {
                shared.metrics.registered.inc_by(held.len() as u64);
                return shard.send(Command::Registered(held));
            }
            Err(error) => {
                shared.logic_failed("register", &error);
                if let LogicError::Refused(_) = error {
                    tracing::warn!(%error, "sessions are not registered again, they are at their next refresh");
                    return;
                }
                sleep(RETRY).await;
            }
        }
    }
}

/// Who these connections are, those of them that are still here.
pub fn held(shard: &Shard, entries: Vec<Entry>) -> Vec<Held> {
    let here = entries.into_iter().filter_map(|entry| shard.get(entry));
    here.filter(|channel| channel.closing().is_none()).map(|channel| channel.held()).collect()
}

/// Logic was told of these just now. Whose end it may have heard of before that is signed off again.
pub fn sign_off(shard: &Rc<Shard>, told: Vec<Held>) {
    for Held { mid, key, .. } in told {
        if shard.bucket.get(&key).is_none() {
            tokio::task::spawn_local(session::depart(shard.clone(), mid, key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(epoch: u64) -> Renewed {
        Renewed { epoch, ..Renewed::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn another_epoch_and_a_long_silence_are_a_loss_and_a_go_logic_knows_none() {
        let mut standing = Standing::new();
        assert!(standing.is_lost(&epoch(7)));
        assert!(!standing.is_lost(&epoch(7)));
        assert!(!standing.is_lost(&epoch(0)), "a Go logic beside ours");
        assert!(!standing.is_lost(&epoch(7)));
        assert!(standing.is_lost(&epoch(8)));
        tokio::time::advance(SILENT * 2).await;
        assert!(standing.is_lost(&epoch(8)));
        assert!(!standing.is_lost(&epoch(8)));
        tokio::time::advance(SILENT * 2).await;
        assert!(!standing.is_lost(&epoch(0)));
    }
}
