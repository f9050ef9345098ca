//! Broadcasts at a speed: so many connections a second, one broadcast of this shard after the other.

use std::rc::Weak;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;

use crate::channel::{Batch, Channel};
use crate::message::Push;
use crate::metrics::Metrics;

/// How often connections are written to.
const STEP: Duration = Duration::from_millis(10);

/// One broadcast in this shard.
#[derive(Debug)]
pub struct Job {
    /// What to send.
    pub push: Arc<Push>,
    /// To whom. Who leaves meanwhile is not held: its socket closes at once.
    pub members: Vec<Weak<Channel>>,
    /// Connections a second.
    pub per_second: f64,
    /// Given back when it is done.
    pub _budget: Arc<OwnedSemaphorePermit>,
}

/// Hands broadcasts to the task that paces them.
#[derive(Debug)]
pub struct Pacer {
    jobs: mpsc::UnboundedSender<Job>,
}

impl Pacer {
    /// Starts the task on this thread.
    pub fn start(metrics: Metrics) -> Self {
        let (jobs, mut waiting) = mpsc::unbounded_channel::<Job>();
        tokio::task::spawn_local(async move {
            while let Some(job) = waiting.recv().await {
                pace(&job, &metrics).await;
            }
        });
        Self { jobs }
    }

    /// Adds a broadcast behind those that wait; the room that each holds bounds how many there can be.
    pub fn add(&self, job: Job) {
        // The task ends only with its shard.
        let _ended = self.jobs.send(job);
    }
}

async fn pace(job: &Job, metrics: &Metrics) {
    let began = Instant::now();
    for (index, channel) in job.members.iter().enumerate() {
        let due = began + Duration::from_secs_f64(index as f64 / job.per_second);
        if due > Instant::now() + STEP {
            tokio::time::sleep_until(due).await;
        }
        let Some(channel) = channel.upgrade() else { continue };
        let batch = Batch::new(std::slice::from_ref(&job.push), channel.variant);
        metrics.pushed(channel.push(&batch));
    }
    metrics.written(std::slice::from_ref(&job.push));
}
