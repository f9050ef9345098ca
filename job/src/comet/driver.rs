//! The task of one comet: finds out who answers, claims our partitions there, sends what is owed with one call open
//! per partition, tries again while the comet may be let to lag, and picks it up again when it answers later.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use proto::delivery::{ClaimReq, HelloReply};
use tokio::time::Instant;

use super::queue::{Batch, State};
use super::{Call, Comet, CometError};
use crate::fleet::{Fleet, Seat};
use crate::metrics::{Metrics, Reason};
use crate::push::{Partition, Target};

/// The first pause after a failure; doubles up to [`LAST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(1);
/// How often a comet is asked who it is while nothing fails.
const ASK: Duration = Duration::from_secs(3);

type Open<T> = Pin<Box<dyn Future<Output = T> + Send>>;
/// A call that ended: what it carried, when it was made, the keys that are not there.
type Called = (Batch, Instant, Result<Vec<String>, CometError>);

/// Who answered.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Known {
    /// One of ours.
    Ours(HelloReply),
    /// A Go comet: it answered that it does not know the question.
    Go,
}

struct Driver {
    fleet: Arc<Fleet>,
    seat: Arc<Seat>,
    metrics: Metrics,
    known: Option<Known>,
    /// Who it was before it failed.
    last: Option<Known>,
    failures: u32,
    ask_at: Instant,
}

/// Serves one comet until it is gone.
pub(crate) async fn drive(fleet: Arc<Fleet>, seat: Arc<Seat>, metrics: Metrics) {
    let mut driver = Driver { fleet, seat, metrics, known: None, last: None, failures: 0, ask_at: Instant::now() };
    driver.run().await;
    if driver.known.is_some() {
        driver.metrics.comets.dec();
    }
}

impl Driver {
    async fn run(&mut self) {
        let mut calls: FuturesUnordered<Open<Called>> = FuturesUnordered::new();
        let mut asking: Option<Open<Asked>> = None;
        let (mut client, mut version) = self.seat.client();
        let alarm = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(alarm);
        loop {
            let now = Instant::now();
            let (state, stall_at) = self.seat.queue.check(now);
            let (current, current_version) = self.seat.client();
            if current_version != version {
                // Another address under the same id: whoever is there is asked first.
                (client, version) = (current, current_version);
                calls.clear();
                self.seat.queue.all_away();
                (asking, self.failures, self.ask_at) = (None, 0, now);
                self.lost();
            }
            match state {
                State::Closed => return,
                State::LetGo if client.is_none() => {
                    self.fleet.give_up(&self.seat);
                    return;
                }
                State::LetGo if self.known.is_some() => {
                    tracing::warn!(comet = %self.seat, "comet lags too far, let go until it answers");
                    calls.clear();
                    self.lost();
                    self.ask_at = now + FIRST_PAUSE;
                }
                _ => {}
            }
            let unclaimed = self.seat.queue.unclaimed();
            let must_ask = now >= self.ask_at || (self.known.is_some() && !unclaimed.is_empty());
            if let Some(client) = client.as_ref().filter(|_| asking.is_none() && must_ask) {
                asking = Some(Box::pin(ask(client.clone(), unclaimed)));
            }
            if let Some(client) = client.as_ref().filter(|_| self.known.is_some()) {
                while let Some(batch) = self.seat.queue.next(now) {
                    calls.push(Box::pin(send(client.clone(), batch, now)));
                }
            }
            let room_at = self.seat.queue.due().filter(|_| self.known.is_some());
            let ask_at = (asking.is_none() && client.is_some()).then_some(self.ask_at);
            let next = [stall_at, room_at, ask_at].into_iter().flatten().min();
            if let Some(next) = next
                && alarm.deadline() != next
            {
                alarm.as_mut().reset(next);
            }
            tokio::select! {
                () = self.seat.queue.wake.notified() => {}
                Some((batch, sent, result)) = calls.next(), if !calls.is_empty() => self.called(&batch, sent, result),
                asked = async { asking.as_mut().expect("checked").await }, if asking.is_some() => {
                    asking = None;
                    if !self.asked(asked) {
                        return;
                    }
                }
                () = &mut alarm, if next.is_some() => {}
            }
        }
    }

    /// A call ended.
    fn called(&mut self, batch: &Batch, sent: Instant, result: Result<Vec<String>, CometError>) {
        let now = Instant::now();
        match result {
            Ok(not_here) => {
                self.failures = 0;
                self.count(batch, now);
                if !not_here.is_empty() {
                    // The seam for asking logic where they went.
                    let reason = Reason { reason: "not_here" };
                    self.metrics.undeliverable.get_or_create(&reason).inc_by(not_here.len() as u64);
                }
                self.seat.queue.answered(batch, now);
            }
            Err(CometError::Away(why)) => {
                tracing::debug!(comet = %self.seat, %why, waited = ?now - sent, "comet does not answer");
                self.metrics.errors.get_or_create(&Reason { reason: "comet" }).inc();
                self.seat.queue.away(batch);
                self.lost();
                self.pause(now);
            }
            Err(CometError::Fenced) => {
                tracing::warn!(partition = batch.partition.number, comet = %self.seat, "partition has a later owner");
                batch.partition.fence();
            }
            Err(error) => {
                let goim_has_no_kick =
                    matches!(batch.items[0].push.target, Target::Kick(_)) && error == CometError::Unimplemented;
                if !goim_has_no_kick {
                    let reason = Reason { reason: refusal(&error) };
                    self.metrics.undeliverable.get_or_create(&reason).inc_by(batch.items.len() as u64);
                    tracing::debug!(comet = %self.seat, %error, "comet refused a call");
                }
                self.count(batch, now);
                self.seat.queue.answered(batch, now);
            }
        }
    }

    fn count(&self, batch: &Batch, now: Instant) {
        self.metrics.calls.inc();
        self.metrics.batch.observe(batch.items.len() as f64);
        let oldest = batch.items[0].push.taken;
        self.metrics.job_to_comet.observe((now - oldest).as_secs_f64());
    }

    /// It said who it is, or did not. Returns whether to go on.
    fn asked(&mut self, asked: Asked) -> bool {
        let now = Instant::now();
        match asked {
            Ok((known, claimed, fenced)) => {
                self.ask_at = now + ASK;
                match &known {
                    Known::Ours(hello) => {
                        if !self.fleet.named(&self.seat, &hello.server) {
                            return false;
                        }
                    }
                    Known::Go if self.seat.name().is_none() => {
                        if self.last.replace(known).is_none() {
                            tracing::error!(comet = %self.seat, "does not say its server id: list it as id=host:port");
                        }
                        return true;
                    }
                    Known::Go => {}
                }
                if self.last.as_ref().is_some_and(|last| *last != known) {
                    // What is owed is sent on: connections made to it meanwhile may be among those it is for.
                    tracing::info!(comet = %self.seat, "comet was started again");
                    self.seat.queue.unclaim();
                    self.ask_at = now;
                }
                self.last = Some(known.clone());
                self.seat.queue.claimed(&claimed);
                fenced.iter().for_each(|partition| partition.fence());
                if self.known.replace(known).is_none() {
                    self.metrics.comets.inc();
                    self.seat.set_up(true);
                    self.seat.queue.retry();
                }
            }
            Err(error) => {
                tracing::debug!(comet = %self.seat, %error, "comet does not say who it is");
                self.metrics.errors.get_or_create(&Reason { reason: "comet" }).inc();
                if !self.seat.is_listed() {
                    tracing::info!(comet = %self.seat, "comet is gone");
                    self.fleet.gone(&self.seat);
                    return false;
                }
                self.lost();
                self.pause(now);
            }
        }
        true
    }

    /// It must say who it is before it is sent anything more.
    fn lost(&mut self) {
        if self.known.take().is_some() {
            self.metrics.comets.dec();
        }
        self.seat.set_up(false);
    }

    fn pause(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        let pause = FIRST_PAUSE.saturating_mul(1 << (self.failures - 1).min(8)).min(LAST_PAUSE);
        self.ask_at = now + pause.mul_f64(rand::random_range(0.8..1.2));
    }
}

/// Who answered, what it was told of, and what of it somebody else owns.
type Asked = Result<(Known, Vec<Arc<Partition>>, Vec<Arc<Partition>>), CometError>;

/// Asks who it is and claims these partitions there.
async fn ask(client: Arc<dyn Comet>, mut partitions: Vec<Arc<Partition>>) -> Asked {
    let hello = match client.hello().await {
        Ok(hello) => hello,
        Err(CometError::Unimplemented) => return Ok((Known::Go, partitions, vec![])),
        Err(error) => return Err(error),
    };
    partitions.sort_by_key(|partition| (partition.epoch, partition.generation, partition.number));
    let mut fenced = Vec::new();
    for same in partitions.chunk_by(|a, b| (a.epoch, a.generation) == (b.epoch, b.generation)) {
        let claim = ClaimReq {
            group: same[0].group.to_string(),
            epoch: same[0].epoch,
            partitions: same.iter().map(|partition| partition.number).collect(),
            generation: same[0].generation,
        };
        let reply = client.claim(claim).await?;
        fenced.extend(same.iter().filter(|partition| reply.fenced.contains(&partition.number)).cloned());
    }
    Ok((Known::Ours(hello), partitions, fenced))
}

async fn send(client: Arc<dyn Comet>, batch: Batch, now: Instant) -> Called {
    let call = Call::of(&batch.items, &batch.partition);
    let trace = batch.items.iter().find_map(|item| item.push.trace.as_ref()).map(|(_, parent)| parent.as_str());
    let result = client.send(call, trace).await;
    (batch, now, result)
}

fn refusal(error: &CometError) -> &'static str {
    match error {
        CometError::Refused { reason, .. } => reason,
        CometError::Unimplemented => "unimplemented",
        CometError::Fenced => "fenced",
        CometError::Away(_) => "away",
    }
}
