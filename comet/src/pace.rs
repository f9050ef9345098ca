//! Broadcasts at a speed: so many connections a second, one broadcast of this shard after the other. Who leaves because it
//! has moved elsewhere is given at once what it would have been given later.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::Instant;

use crate::channel::{Batch, Channel};
use crate::message::Push;
use crate::metrics::Metrics;

/// How often connections are written to.
const STEP: Duration = Duration::from_millis(10);

/// One broadcast in this shard.
#[derive(Debug)]
pub struct Job {
    push: Arc<Push>,
    /// To whom it is still to be sent, by serial. Who leaves meanwhile is not held: its socket closes at once.
    members: BTreeMap<u32, Weak<Channel>>,
    per_second: f64,
    /// Given back when it is done.
    _budget: Arc<OwnedSemaphorePermit>,
}

impl Job {
    /// Sends this to these connections, so many of them a second.
    pub fn new(
        push: Arc<Push>,
        members: impl Iterator<Item = Rc<Channel>>,
        per_second: f64,
        budget: Arc<OwnedSemaphorePermit>,
    ) -> Self {
        let members = members.map(|channel| (channel.serial, Rc::downgrade(&channel))).collect();
        Self { push, members, per_second, _budget: budget }
    }

    fn send(&self, channel: &Channel, metrics: &Metrics) {
        let batch = Batch::new(std::slice::from_ref(&self.push), channel.variant);
        metrics.pushed(channel.push(&batch));
    }
}

/// The broadcasts of one shard that are on their way, and the task that paces them.
#[derive(Debug)]
pub struct Pacer {
    jobs: Rc<Jobs>,
    metrics: Metrics,
}

/// Oldest first: the first is being sent.
#[derive(Debug, Default)]
struct Jobs {
    waiting: RefCell<VecDeque<Job>>,
    some: Notify,
}

impl Pacer {
    /// Starts the task on this thread. It ends with it.
    pub fn start(metrics: Metrics) -> Self {
        let jobs = Rc::<Jobs>::default();
        tokio::task::spawn_local(run(jobs.clone(), metrics.clone()));
        Self { jobs, metrics }
    }

    /// Adds a broadcast behind those that wait; the room that each holds bounds how many there can be.
    pub fn add(&self, job: Job) {
        self.jobs.waiting.borrow_mut().push_back(job);
        self.jobs.some.notify_one();
    }

    /// Sends this connection now whatever it is still to be sent.
    pub fn finish(&self, channel: &Channel) {
        for job in self.jobs.waiting.borrow_mut().iter_mut() {
            if job.members.remove(&channel.serial).is_some() {
                job.send(channel, &self.metrics);
            }
        }
    }
}

async fn run(jobs: Rc<Jobs>, metrics: Metrics) {
    loop {
        let per_second = jobs.waiting.borrow().front().map(|job| job.per_second);
        let Some(per_second) = per_second else {
            jobs.some.notified().await;
            continue;
        };
        let began = Instant::now();
        for index in 0_u64.. {
            let due = began + Duration::from_secs_f64(index as f64 / per_second);
            if due > Instant::now() + STEP {
                tokio::time::sleep_until(due).await;
            }
            if !step(&jobs, &metrics) {
                break;
            }
        }
        if let Some(job) = jobs.waiting.borrow_mut().pop_front() {
            metrics.written(std::slice::from_ref(&job.push));
        }
    }
}

/// Sends the first broadcast to its next connection. Returns whether there was one.
fn step(jobs: &Jobs, metrics: &Metrics) -> bool {
    let mut waiting = jobs.waiting.borrow_mut();
    let Some(job) = waiting.front_mut() else {
        return false;
    };
    let Some((_, channel)) = job.members.pop_first() else {
        return false;
    };
    if let Some(channel) = channel.upgrade() {
        job.send(&channel, metrics);
    }
    true
}
