//! Where keys went: what a comet was sent for a key that is not there waits here until logic says where the key is, and
//! is sent on. Three times within ten seconds; then it is undeliverable.
//!
//! What is sought is still owed, so no offset is committed that somebody is sought for. Whatever else comes for such a
//! key waits behind it. What the key got meanwhile, from a record that logic had sent to its new place already, comes
//! first; then comet drops what is older, because order is worth more.

pub mod board;
pub mod logic;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use proto::log::now_ms;
use proto::push::PROBE;
use proto::{Key, ServerId};
use tokio::sync::Notify;
use tokio::time::Instant;

use self::board::{Board, Left, Next, Place, Put, Sought};
use self::logic::Locate;
use crate::comet::queue::Batch;
use crate::fleet::Fleet;
use crate::metrics::{Metrics, Reason};
use crate::push::{Partition, Push, Target};
use crate::webhook::Outbox;

/// How often it is looked whether there is something to ask.
const LOOK: Duration = Duration::from_millis(50);
/// How long logic may take to answer.
const ANSWER: Duration = Duration::from_millis(1500);
/// At most so many keys in one question.
const QUESTION: usize = 500;

/// The keys that are sought. The lock comes before those of the comets' queues and of ledgers.
#[derive(Debug)]
pub struct Seeker {
    board: Mutex<Board>,
    /// Somebody asks logic; else what is not there is undeliverable at once.
    is_on: AtomicBool,
    /// Whether any key is sought, for whoever need not wait for the lock.
    is_any: AtomicBool,
    some: Notify,
    /// Who is told of what cannot be delivered.
    outbox: Mutex<Option<Outbox>>,
    metrics: Metrics,
}

impl Seeker {
    /// Seeks nothing before [`run`] does.
    pub(crate) fn new(metrics: Metrics) -> Self {
        let (is_on, is_any) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { board: Mutex::default(), is_on, is_any, some: Notify::new(), outbox: Mutex::default(), metrics }
    }

    /// From now on who is told of what cannot be delivered; `None` = nobody any more.
    pub(crate) fn tell(&self, outbox: Option<Outbox>) {
        *self.outbox.lock() = outbox;
    }

    /// From now on keys of this partition may be sought.
    pub(crate) fn assign(&self, partition: &Arc<Partition>) {
        self.board.lock().assign(partition);
    }

    /// What is sought of this partition is somebody else's now.
    pub(crate) fn revoke(&self, partition: &Arc<Partition>) {
        self.board.lock().revoke(partition);
    }

    /// These keys of a batch were not at `server`. To be said before the batch is answered: what is sought stays owed.
    pub(crate) fn not_here(&self, server: Option<ServerId>, batch: &Batch, keys: &[String], now: Instant) {
        if keys.iter().all(|key| key.starts_with(PROBE)) {
            // Of a comet that was started again meanwhile, and has a probe of its own.
            return;
        }
        let Some(server) = server.filter(|_| self.is_on.load(Ordering::Relaxed)) else {
            for push in batch.items.iter().map(|item| &item.push) {
                keys.iter().for_each(|key| self.undeliverable(push, key, "not_here"));
            }
            return;
        };
        let mut board = self.board.lock();
        // Before the ledger is asked: who opens an offset that it does not know yet sees this. See `pass`.
        self.is_any.store(true, Ordering::SeqCst);
        for push in batch.items.iter().map(|item| &item.push) {
            for key in keys {
                let before = {
                    let mut ledger = batch.partition.ledger.lock();
                    // The comet was let go meanwhile, and told what it missed.
                    if !ledger.more(push.id.offset, 1) {
                        continue;
                    }
                    ledger.next()
                };
                let left = Left { server: server.clone(), before };
                self.keep(&mut board, &batch.partition, key, push.narrowed(vec![key.clone()]), Some(left), now);
            }
        }
        self.is_any.store(!board.is_empty(), Ordering::SeqCst);
        drop(board);
        self.some.notify_one();
    }

    /// These keys of a batch had something later when it came, and go without.
    pub(crate) fn overtaken(&self, batch: &Batch, keys: &[String]) {
        for push in batch.items.iter().map(|item| &item.push) {
            keys.iter().for_each(|key| self.undeliverable(push, key, "overtaken"));
        }
    }

    /// Has what is for keys that are sought wait, and returns the push for the others. Its offset is open, owed once.
    pub(crate) fn pass(&self, partition: &Arc<Partition>, push: Push, now: Instant) -> Option<Push> {
        if !self.is_any.load(Ordering::SeqCst) {
            return Some(push);
        }
        let mut board = self.board.lock();
        let Target::Keys(keys) = &push.target else {
            return Some(push);
        };
        let (sought, free): (Vec<_>, Vec<_>) = keys.iter().cloned().partition(|key| board.seeks(partition, key));
        if sought.is_empty() {
            return Some(push);
        }
        let more = sought.len() + usize::from(!free.is_empty()) - 1;
        partition.ledger.lock().more(push.id.offset, more as u32);
        for key in sought {
            let one = push.narrowed(vec![key.clone()]);
            self.keep(&mut board, partition, &key, one, None, now);
        }
        (!free.is_empty()).then(|| push.narrowed(free))
    }

    fn keep(
        &self,
        board: &mut Board,
        partition: &Arc<Partition>,
        key: &str,
        push: Push,
        left: Option<Left>,
        now: Instant,
    ) {
        let offset = push.id.offset;
        match board.put(partition, key, push, left, now) {
            Put::Kept | Put::NotOurs => {}
            Put::Twice => partition.answer(std::iter::once(offset)),
            Put::Refused(reason, push) => self.give_up(partition, &push, reason),
        }
    }

    fn give_all_up(&self, Sought { partition, pushes, .. }: &Sought, reason: &'static str) {
        pushes.values().for_each(|push| self.give_up(partition, push, reason));
    }

    fn give_up(&self, partition: &Partition, push: &Push, reason: &'static str) {
        if let Target::Keys(keys) = &push.target {
            keys.iter().for_each(|key| self.undeliverable(push, key, reason));
        }
        partition.answer(std::iter::once(push.id.offset));
    }

    fn undeliverable(&self, push: &Push, key: &str, reason: &'static str) {
        self.metrics.undeliverable.get_or_create(&Reason { reason }).inc();
        if let Some(outbox) = &*self.outbox.lock() {
            outbox.put(push, key, reason);
        }
    }

    /// What logic said of these keys. The lock is held until all is handed on, so that nothing newer gets in between.
    fn located(&self, fleet: &Arc<Fleet>, keys: &[(u32, Key)], said: &Result<HashMap<String, String>, String>) {
        let now = Instant::now();
        let mut board = self.board.lock();
        for (number, key) in keys {
            let place = match said {
                Ok(servers) => match servers.get(key.as_str()) {
                    Some(server) => Place::At(server.as_str().into()),
                    None => Place::Unknown("nowhere"),
                },
                Err(_) => Place::Unknown("logic_away"),
            };
            match board.located(*number, key, place, now) {
                Next::Send(sought, server) => self.send(fleet, sought, &server, now),
                Next::GiveUp(sought, reason) => self.give_all_up(&sought, reason),
                Next::Wait => {}
            }
        }
        self.is_any.store(!board.is_empty(), Ordering::SeqCst);
    }

    fn send(&self, fleet: &Arc<Fleet>, sought: Sought, server: &ServerId, now: Instant) {
        let Sought { partition, pushes, late, .. } = sought;
        let (view, now_ms) = (fleet.view(), now_ms());
        for push in pushes.into_values() {
            if push.is_expired(now_ms) {
                self.metrics.drop_records("expired", 1);
                partition.answer(std::iter::once(push.id.offset));
                continue;
            }
            let push = Push { server: server.clone(), late: Some(late), ..push };
            fleet.give(&view, &partition, push, now);
        }
    }
}

/// Asks logic where keys went, until it is dropped.
pub(crate) async fn run(fleet: Arc<Fleet>, logic: Arc<dyn Locate>) {
    let seeker = fleet.seeker();
    seeker.is_on.store(true, Ordering::Relaxed);
    loop {
        while !seeker.is_any.load(Ordering::SeqCst) {
            seeker.some.notified().await;
        }
        tokio::time::sleep(LOOK).await;
        let due = {
            let mut board = seeker.board.lock();
            board.in_the_way().iter().for_each(|sought| seeker.give_all_up(sought, "full"));
            // All may have been forgotten.
            seeker.is_any.store(!board.is_empty(), Ordering::SeqCst);
            board.due(Instant::now(), |server, partition| fleet.oldest_key(server, partition))
        };
        let mut away = None;
        for keys in due.chunks(QUESTION) {
            let said = match &away {
                None => ask(&*logic, keys).await,
                // It would not answer the next question either.
                Some(error) => Err(String::clone(error)),
            };
            if let Err(error) = &said {
                tracing::debug!(%error, "logic does not say where keys are");
                away = Some(error.clone());
            }
            seeker.located(&fleet, keys, &said);
        }
        if away.is_some() {
            seeker.metrics.errors.get_or_create(&Reason { reason: "logic" }).inc();
        }
    }
}

async fn ask(logic: &dyn Locate, keys: &[(u32, Key)]) -> Result<HashMap<String, String>, String> {
    let keys = keys.iter().map(|(_, key)| key.to_string()).collect();
    let answer = tokio::time::timeout(ANSWER, logic.locate(keys)).await;
    answer.unwrap_or_else(|_| Err(format!("no answer within {ANSWER:?}")))
}

#[cfg(test)]
mod tests;
