//! The task of one comet: finds out who answers, claims our partitions there, sends what is owed on a stream, or with
//! one call open per partition to a comet that has none, tries again while the comet may be let to lag, and picks it up
//! again when it answers later.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use proto::delivery::{ClaimReq, HelloReply};
use tokio::time::Instant;

use super::pipe::{Pipe, Said, Sent};
use super::queue::{Batch, State, Way};
use super::{Call, Comet, CometError, Link, grpc};
use crate::fleet::{Fleet, Seat};
use crate::metrics::{Metrics, Reason};
use crate::push::{Partition, Target};

/// The first pause after a failure; doubles up to [`LAST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(1);
/// How often a comet is asked who it is while nothing fails and nothing comes from it.
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
    /// The stream to it; `None` = it is made calls.
    pipe: Option<Pipe>,
    /// Who it was before it failed.
    last: Option<Known>,
    failures: u32,
    ask_at: Instant,
}

/// Serves one comet until it is gone.
pub(crate) async fn drive(fleet: Arc<Fleet>, seat: Arc<Seat>, metrics: Metrics) {
    let ask_at = Instant::now();
    let mut driver = Driver { fleet, seat, metrics, known: None, pipe: None, last: None, failures: 0, ask_at };
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
                self.seat.queue.all_away(now);
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
            let mut unclaimed = self.seat.queue.unclaimed();
            if let Some(pipe) = &mut self.pipe {
                for (claim, partitions) in claims(std::mem::take(&mut unclaimed)) {
                    // What follows on the stream comes after it.
                    self.seat.queue.claimed(&partitions);
                    pipe.claim(claim, partitions);
                }
                pipe.vouch(self.seat.queue.vouches());
            }
            let must_ask = now >= self.ask_at || (self.known.is_some() && !unclaimed.is_empty());
            if let Some(client) = client.as_ref().filter(|_| asking.is_none() && must_ask) {
                asking = Some(Box::pin(ask(client.clone(), unclaimed, self.pipe.is_some())));
            }
            match (&client, &self.known, self.pipe.is_some()) {
                (Some(_), Some(_), true) => self.stream(now),
                (Some(client), Some(_), false) => {
                    while let Some(batch) = self.seat.queue.next(now, Way::Calls) {
                        calls.push(Box::pin(send(client.clone(), batch, now)));
                    }
                }
                _ => {}
            }
            let may_send = self.known.is_some() && self.pipe.as_ref().is_none_or(Pipe::has_credit);
            let room_at = self.seat.queue.due().filter(|_| may_send);
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
                said = async { self.pipe.as_mut().expect("checked").answers().await }, if self.pipe.is_some() => {
                    self.said(said);
                }
                asked = async { asking.as_mut().expect("checked").await }, if asking.is_some() => {
                    asking = None;
                    if asked.as_ref().is_ok_and(|answer| answer.link.is_some()) {
                        // A stream takes over from calls, if there were any.
                        calls.clear();
                    }
                    if !self.asked(asked) {
                        return;
                    }
                }
                () = &mut alarm, if next.is_some() => {}
            }
        }
    }

    /// Sends what waits, as far as the comet's credit goes.
    fn stream(&mut self, now: Instant) {
        while let Some(pipe) = self.pipe.as_mut().filter(|pipe| pipe.has_credit())
            && let Some(batch) = self.seat.queue.next(now, Way::Stream)
        {
            if let Err((batch, error)) = pipe.send(batch, now) {
                self.called(&batch, now, Err(error));
            }
        }
    }

    /// Something came up the stream.
    fn said(&mut self, said: Result<Said, CometError>) {
        let now = Instant::now();
        let Said { interest, answered } = match said {
            Ok(said) => said,
            Err(error) => {
                tracing::debug!(comet = %self.seat, %error, "stream ended");
                self.metrics.errors.get_or_create(&Reason { reason: "comet" }).inc();
                self.lost();
                return self.pause(now);
            }
        };
        self.ask_at = now + ASK;
        if let Some(interest) = interest {
            self.seat.queue.interested(interest, now);
        }
        for (sent, remark) in answered {
            match sent {
                Sent::Claim(partitions) => {
                    let fenced = partitions.iter().filter(|partition| remark.fenced.contains(&partition.number));
                    fenced.for_each(|partition| partition.fence());
                }
                Sent::Marks(vouches) => {
                    for vouch in vouches {
                        match remark.fenced.contains(&vouch.partition.number) {
                            true => vouch.partition.fence(),
                            false => self.seat.queue.told(&vouch, now),
                        }
                    }
                }
                Sent::Batch(batch, at) if remark.code == 0 => {
                    self.fleet.seeker().overtaken(&batch, &remark.overtaken);
                    self.called(&batch, at, Ok(remark.not_here));
                }
                Sent::Batch(batch, at) => self.called(&batch, at, Err(grpc::said(remark.code, remark.text))),
            }
        }
    }

    /// A call ended, or a frame was answered.
    fn called(&mut self, batch: &Batch, sent: Instant, result: Result<Vec<String>, CometError>) {
        let now = Instant::now();
        match result {
            Ok(not_here) => {
                self.failures = 0;
                self.count(batch, now);
                if !not_here.is_empty() {
                    self.fleet.seeker().not_here(self.seat.name(), batch, &not_here, now);
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
            Ok(Answer { known, has_stream, link, claimed, fenced }) => {
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
                    self.lost();
                    self.seat.queue.unclaim();
                    self.ask_at = now;
                }
                if has_stream && self.pipe.is_none() {
                    // It broke meanwhile: whether it has one is asked anew, because a comet that is made calls cannot be told.
                    (self.last, self.ask_at) = (Some(known), now);
                    return true;
                }
                // The next answer may bring a stream.
                self.seat.queue.goes_by(if link.is_some() || self.pipe.is_some() { Way::Stream } else { Way::Calls });
                if let Some(link) = link {
                    self.pipe = Some(Pipe::new(link));
                    self.seat.queue.unclaim();
                    self.seat.queue.all_away(now);
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
        if self.pipe.take().is_some() {
            self.seat.queue.all_away(Instant::now());
        }
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

/// Who answered.
struct Answer {
    known: Known,
    /// There was a stream to it when it was asked.
    has_stream: bool,
    /// A stream to it, if it has one and there was none yet.
    link: Option<Link>,
    /// What it was told of by a call, and what of it somebody else owns.
    claimed: Vec<Arc<Partition>>,
    fenced: Vec<Arc<Partition>>,
}

type Asked = Result<Answer, CometError>;

/// Asks who it is and opens a stream there, or claims these partitions when it has none.
async fn ask(client: Arc<dyn Comet>, partitions: Vec<Arc<Partition>>, has_stream: bool) -> Asked {
    let (mut claimed, mut fenced, mut link) = (vec![], vec![], None);
    let known = match client.hello().await {
        Ok(hello) => Known::Ours(hello),
        Err(CometError::Unimplemented) => {
            return Ok(Answer { known: Known::Go, has_stream, link, claimed: partitions, fenced });
        }
        Err(error) => return Err(error),
    };
    if !has_stream {
        link = match client.deliver().await {
            Ok(link) => Some(link),
            Err(CometError::Unimplemented) => {
                for (claim, same) in claims(partitions) {
                    let reply = client.claim(claim).await?;
                    fenced.extend(same.iter().filter(|partition| reply.fenced.contains(&partition.number)).cloned());
                    claimed.extend(same);
                }
                None
            }
            Err(error) => return Err(error),
        };
    }
    Ok(Answer { known, has_stream, link, claimed, fenced })
}

/// The claims of these partitions: one for all that are claimed alike.
fn claims(mut partitions: Vec<Arc<Partition>>) -> Vec<(ClaimReq, Vec<Arc<Partition>>)> {
    let kind = |partition: &Partition| (partition.epoch, partition.generation, partition.takeover);
    partitions.sort_by_key(|partition| (kind(partition), partition.number));
    let same = partitions.chunk_by(|a, b| kind(a) == kind(b));
    let claim = |same: &[Arc<Partition>]| ClaimReq {
        group: same[0].group.to_string(),
        epoch: same[0].epoch,
        partitions: same.iter().map(|partition| partition.number).collect(),
        generation: same[0].generation,
        partitions_in_topic: same[0].in_topic,
        takeover: same[0].takeover,
    };
    same.map(|same| (claim(same), same.to_vec())).collect()
}

async fn send(client: Arc<dyn Comet>, batch: Batch, now: Instant) -> Called {
    let call = Call::of(&batch.items, &batch.partition);
    let result = client.send(call, batch.trace()).await;
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
