//! From the queue to the comets: decodes each record, notes in the ledger who is owed it, hands it to their queues,
//! and commits what everybody has answered.

mod copies;
mod ours;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use proto::log::{Record, now_ms};
use tokio::sync::Notify;
use tokio::time::Instant;

use self::copies::Copies;
use self::ours::Ours;
use crate::consumer::{Assignment, Event, Revocation, Source};
use crate::fleet::{Fleet, View};
use crate::ledger::Ledger;
use crate::metrics::{Kind, Metrics, PartitionLabel, Reason};
use crate::push::{Partition, Push, Target};
use crate::room::Item;

/// How long answers are waited for when a partition is to be given up.
const REVOKE: Duration = Duration::from_millis(500);
/// How often it is looked whether the comets still are saturated.
const SATURATED: Duration = Duration::from_millis(5);
/// After so many bytes it is looked again whether they are.
const CHECK: usize = 64 * 1024;
/// How often comets are told what they were sent.
const TELL: Duration = Duration::from_millis(250);
/// The same, of partitions that are to be given up.
const TELL_LAST: Duration = Duration::from_millis(20);
/// For how long comets may take a partition for a later owner's that the queue says is ours: twice the time in which the
/// queue, or its client, finds that it is not.
const STANDS_STILL: Duration = Duration::from_secs(12);
/// How often offsets are committed.
pub const COMMIT: Duration = Duration::from_secs(1);

/// The consumer's side of job.
pub struct Dispatcher {
    source: Box<dyn Source>,
    fleet: Arc<Fleet>,
    group: Arc<str>,
    metrics: Metrics,
    ours: HashMap<u32, Ours>,
    /// Partitions that the source was told to hold back, as it does until it is told otherwise: also when a partition
    /// was somebody else's meanwhile.
    paused: HashSet<u32>,
    /// Since when which partition of ours has been a later owner's to some comet.
    fenced: HashMap<u32, Instant>,
    progress: Arc<Notify>,
    /// Read, not dispatched yet: the comets are saturated.
    inbox: VecDeque<Record>,
    lag: Lag,
    stopping: bool,
}

/// How many records of our partitions are not committed yet. Cheap to clone: all clones see the same.
#[derive(Clone, Debug, Default)]
pub struct Lag(Arc<Mutex<Option<u64>>>);

impl Lag {
    /// The number, as of the last commit; `None` before the first partition was ours.
    pub fn get(&self) -> Option<u64> {
        *self.0.lock()
    }
}

impl Dispatcher {
    /// A dispatcher from this source to these comets.
    pub fn new(source: Box<dyn Source>, fleet: Arc<Fleet>, group: &str, metrics: Metrics) -> Self {
        Self {
            source,
            fleet,
            group: group.into(),
            metrics,
            ours: HashMap::new(),
            paused: HashSet::new(),
            fenced: HashMap::new(),
            progress: Arc::default(),
            inbox: VecDeque::new(),
            lag: Lag::default(),
            stopping: false,
        }
    }

    /// What is not committed yet.
    pub fn lag(&self) -> Lag {
        self.lag.clone()
    }

    /// Carries records until `stop`, then finishes what is owed, for at most `flush`, commits and leaves the group.
    ///
    /// # Errors
    /// When the last commit fails: what it named is delivered again.
    pub async fn run(
        mut self,
        stop: impl Future<Output = ()>,
        flush: Duration,
        queue: runtime::Condition,
    ) -> anyhow::Result<()> {
        tokio::pin!(stop);
        let mut tick = tokio::time::interval(COMMIT);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut tell = tokio::time::interval(TELL);
        tell.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // Goes on while other things happen, however often.
        let mut saturated = tokio::time::interval(SATURATED);
        saturated.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut deadline = None;
        loop {
            if self.stopping && self.ours.values().all(|ours| ours.is_done(&self.fleet)) {
                break;
            }
            let progress = self.progress.clone();
            tokio::select! {
                event = self.source.next(), if self.inbox.is_empty() => self.event(event, &queue).await,
                _ = saturated.tick(), if !self.inbox.is_empty() => self.dispatch(),
                () = progress.notified() => self.progressed(),
                _ = tick.tick() => {
                    self.commit();
                    self.take_over();
                }
                _ = tell.tick() => self.fleet.tell(Instant::now()),
                () = &mut stop, if !self.stopping => {
                    self.stopping = true;
                    self.ours.keys().for_each(|number| self.fleet.flush(*number));
                    deadline = Some(Instant::now() + flush);
                }
                () = until(deadline) => {
                    tracing::warn!("stopping with records that comets have not answered; they will be delivered again");
                    break;
                }
            }
        }
        let offsets = self.ours.values().filter_map(|ours| ours.to_commit(&self.fleet)).collect();
        self.source.close(offsets).await
    }

    async fn event(&mut self, event: Event, queue: &runtime::Condition) {
        match event {
            Event::Up => queue.up(),
            Event::Down(why) => {
                self.metrics.errors.get_or_create(&Reason { reason: self.source.name() }).inc();
                queue.down(&why);
            }
            Event::Assigned(partitions) => partitions.into_iter().for_each(|assignment| self.assigned(assignment)),
            Event::Revoked(revocation) => self.revoked(revocation).await,
            Event::Records(records) => {
                self.inbox.extend(records);
                self.dispatch();
            }
        }
    }

    /// Dispatches what was read until the comets are saturated.
    fn dispatch(&mut self) {
        if self.stopping {
            // Not opened in any ledger, so not committed: the next owner reads it.
            self.inbox.clear();
        }
        let view = self.fleet.view();
        let (now, now_ms) = (Instant::now(), now_ms());
        let mut unchecked = CHECK;
        while let Some(record) = self.inbox.front() {
            unchecked += record.value.len();
            if unchecked >= CHECK {
                if !view.reads_on(now) {
                    return;
                }
                unchecked = 0;
            }
            if let Some(record) = self.inbox.pop_front() {
                self.take(record, &view, now, now_ms);
            }
        }
    }

    fn assigned(&mut self, assignment: Assignment) {
        let Assignment { partition: number, generation, start, out_of_range, takeover } = assignment;
        self.fenced.remove(&number);
        tracing::info!(partition = number, generation, start, "partition is ours");
        self.metrics.partitions_fenced.remove(&PartitionLabel { partition: number });
        if out_of_range {
            self.metrics.out_of_range.inc();
            tracing::error!(
                partition = number,
                start,
                "the committed offset is gone from the topic: starting at its oldest record; raise the topic's retention"
            );
        }
        let partition = Arc::new(Partition {
            number,
            generation,
            group: self.group.clone(),
            epoch: self.source.epoch(),
            in_topic: self.source.partitions(),
            takeover,
            ledger: Mutex::new(Ledger::new(start)),
            progress: self.progress.clone(),
            fenced: false.into(),
        });
        self.fleet.assign(&partition);
        let (held, copies) = (VecDeque::new(), Copies::default());
        self.ours.insert(number, Ours { partition, held, committed: start, copies });
        self.resume(number);
    }

    /// Has the source go on with a partition, if it was told not to.
    fn resume(&mut self, partition: u32) {
        if self.paused.remove(&partition) {
            self.source.resume(partition);
        }
    }

    /// Finishes what these partitions owe, for a short while, and gives them up.
    async fn revoked(&mut self, revocation: Revocation) {
        let deadline = Instant::now() + REVOKE;
        let leaving: Vec<Ours> =
            revocation.partitions.iter().filter_map(|partition| self.ours.remove(partition)).collect();
        if !revocation.lost {
            leaving.iter().for_each(|ours| self.fleet.flush(ours.partition.number));
            while !leaving.iter().all(|ours| ours.is_done(&self.fleet)) {
                self.fleet.tell(Instant::now());
                let progress = self.progress.clone();
                tokio::select! {
                    () = progress.notified() => self.progressed(),
                    () = tokio::time::sleep(TELL_LAST) => {}
                    () = tokio::time::sleep_until(deadline) => break,
                }
            }
        }
        for partition in &revocation.partitions {
            self.fenced.remove(partition);
            self.metrics.partitions_fenced.remove(&PartitionLabel { partition: *partition });
        }
        for ours in &leaving {
            tracing::info!(partition = ours.partition.number, lost = revocation.lost, "partition is not ours any more");
            self.fleet.revoke(&ours.partition);
            self.metrics.lag.remove(&PartitionLabel { partition: ours.partition.number });
        }
        let offsets = if revocation.lost {
            vec![]
        } else {
            leaving.iter().filter_map(|ours| ours.to_commit(&self.fleet)).collect()
        };
        // A source that gave up waiting has nothing more to commit with.
        drop(revocation.done.send(offsets));
    }

    fn take(&mut self, record: Record, view: &Arc<View>, now: Instant, now_ms: u64) {
        let Some(ours) = self.ours.get_mut(&record.partition) else {
            return;
        };
        if ours.partition.is_fenced() {
            return;
        }
        if ours.held.is_empty() && ours.partition.ledger.lock().has_room(record.offset) {
            let partition = ours.partition.clone();
            self.deliver(&partition, &record, view, now, now_ms);
            return;
        }
        if ours.held.is_empty() {
            tracing::warn!(partition = record.partition, "too many records wait for answers, partition is paused");
            self.paused.insert(record.partition);
            self.source.pause(record.partition);
        }
        ours.held.push_back(record);
    }

    /// The floor of some partition moved, or a partition turned out to have a later owner.
    fn progressed(&mut self) {
        let fenced: Vec<u32> =
            self.ours.iter().filter(|(_, ours)| ours.partition.is_fenced()).map(|(number, _)| *number).collect();
        for number in fenced {
            if let Some(ours) = self.ours.remove(&number) {
                // Nothing of it is sent or committed until it is assigned again.
                self.metrics.fenced.inc();
                self.fenced.insert(number, Instant::now());
                self.metrics.partitions_fenced.get_or_create(&PartitionLabel { partition: number }).set(1);
                self.metrics.lag.remove(&PartitionLabel { partition: number });
                self.fleet.revoke(&ours.partition);
            }
        }
        let held: Vec<u32> =
            self.ours.iter().filter(|(_, ours)| !ours.held.is_empty()).map(|(number, _)| *number).collect();
        if held.is_empty() || self.stopping {
            return;
        }
        let view = self.fleet.view();
        let (now, now_ms) = (Instant::now(), now_ms());
        for number in held {
            while let Some(ours) = self.ours.get_mut(&number)
                && let Some(record) = ours.held.front()
                && ours.partition.ledger.lock().has_room(record.offset)
                && let Some(record) = ours.held.pop_front()
            {
                let partition = ours.partition.clone();
                self.deliver(&partition, &record, &view, now, now_ms);
            }
            if self.ours.get(&number).is_some_and(|ours| ours.held.is_empty()) {
                tracing::info!(partition = number, "partition goes on");
                self.resume(number);
            }
        }
    }

    /// Starts partitions anew that stand still although the queue says that they are ours. Were they somebody else's, it
    /// would have said so by now: the group's generations have begun anew, as when the group was deleted.
    fn take_over(&mut self) {
        let stand = self.fenced.extract_if(|_, since| since.elapsed() >= STANDS_STILL);
        for (partition, _) in stand {
            tracing::error!(
                partition,
                "comets remember a later generation of this group than Kafka: the partition is taken over; was the group deleted?"
            );
            self.source.take_over(partition);
        }
    }

    /// Owes a record to the comets it is for.
    fn deliver(&mut self, partition: &Arc<Partition>, record: &Record, view: &Arc<View>, now: Instant, now_ms: u64) {
        let owe = |comets: usize| partition.ledger.lock().open(record.offset, comets as u32);
        let push = match Push::decode(record, partition.epoch, now) {
            Ok(push) => push,
            Err(error) => {
                tracing::warn!(partition = record.partition, offset = record.offset, %error, "skipped a record");
                self.metrics.records.get_or_create(&Kind { kind: "undecodable" }).inc();
                self.metrics.drop_records("undecodable", 1);
                owe(0);
                return;
            }
        };
        self.metrics.record(&push.target);
        let created = if push.id.created_ms == 0 { record.timestamp_ms } else { push.id.created_ms };
        // A kick's time is that of the connection it is for.
        if created != 0 && !matches!(push.target, Target::Kick(_)) {
            self.metrics.queue_to_job.observe(now_ms.saturating_sub(created) as f64 / 1000.0);
        }
        if push.is_expired(now_ms) {
            self.metrics.drop_records("expired", 1);
            owe(0);
            return;
        }
        let ours = self.ours.get_mut(&partition.number).filter(|_| !push.name.is_empty());
        if ours.is_some_and(|ours| ours.copies.is_one(&record.value)) {
            self.metrics.drop_records("copy", 1);
            owe(0);
            return;
        }
        match &push.target {
            Target::Keys(keys) | Target::Kick(keys) if keys.is_empty() => {
                self.metrics.drop_records("no_keys", 1);
                owe(0);
            }
            Target::Keys(_) | Target::Kick(_) => {
                if !owe(1) {
                    return;
                }
                if let Some(push) = self.fleet.seeker().pass(partition, push, now) {
                    self.fleet.give(view, partition, push, now);
                }
            }
            Target::Room(_) | Target::All => {
                if !owe(view.comets.len()) {
                    return;
                }
                let push = Arc::new(push);
                for (seat, speed) in view.comets.iter().zip(shares(push.speed, view.comets.len())) {
                    if !seat.queue.push(partition, Item { push: push.clone(), speed }, now) {
                        partition.answer(std::iter::once(record.offset));
                    }
                }
                self.fleet.given(view, partition, record.offset);
            }
        }
    }

    fn commit(&mut self) {
        let again = self.source.must_commit_again();
        let offsets: Vec<(u32, u64)> =
            self.ours.values().filter_map(|ours| ours.to_commit_now(&self.fleet, again)).collect();
        if !offsets.is_empty() {
            self.source.commit(&offsets);
        }
        for (number, offset) in offsets {
            if let Some(ours) = self.ours.get_mut(&number) {
                ours.committed = offset;
            }
        }
        let mut total = None;
        for (number, ours) in &self.ours {
            if let Some(end) = self.source.end(*number) {
                let lag = end.saturating_sub(ours.partition.ledger.lock().committed());
                self.metrics.lag.get_or_create(&PartitionLabel { partition: *number }).set(lag as i64);
                *total.get_or_insert(0) += lag;
            }
        }
        let mut known = self.lag.0.lock();
        // Who has no partition any more owes nothing; who never had one does not know.
        *known = total.or(known.map(|_| 0));
    }
}

/// A broadcast's speed over so many comets: the shares add up to it, and none is 0, which would mean no limit. goim
/// divides by zero without comets, and a speed below their number becomes none.
fn shares(speed: i32, comets: usize) -> impl Iterator<Item = i32> {
    let count = i32::try_from(comets.max(1)).unwrap_or(i32::MAX);
    (0..comets).map(move |index| {
        if speed <= 0 {
            return 0;
        }
        let more = i32::from((index as i64) < i64::from(speed % count));
        (speed / count + more).max(1)
    })
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
