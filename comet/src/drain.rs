//! A comet on its way out: nobody is cut who can be told, nobody else is flooded by who comes back.
//!
//! Told to stop, or asked to by a [`Lease`], it does the same: unready at once, still accepting while others take it off
//! their lists; ports closed; clients closed at a rate while pushes still arrive; a last time for job to deliver. Then
//! the process ends, or stays, empty and unready, until the lease is not kept up any more and it serves again.

use std::sync::Arc;
use std::time::Duration;

use rand::seq::SliceRandom;
use runtime::Process;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::close::Close;
use crate::lease::Lease;
use crate::listen::Gate;
use crate::shard::Command;
use crate::shared::{Phase, Shared};
use crate::wheel::Entry;

/// How often clients are closed while draining.
const STEP: Duration = Duration::from_millis(20);
/// How long the last clients have to leave, and logic to hear of it.
const LAST: Duration = Duration::from_secs(5);
/// How long before a drain is over whoever moves is to be elsewhere.
const SPARE: Duration = Duration::from_secs(1);
/// How often it is looked for clients who came in late.
const LATE: Duration = Duration::from_millis(200);
/// The pause after a port could not be opened again.
const AGAIN: Duration = Duration::from_millis(200);

/// Serves, drains, and serves again, until the process was told to stop and is drained.
pub async fn until_stopped(shared: &Arc<Shared>, mut gate: Gate, process: &Process) {
    let mut lease = Lease::new(process.annotations.clone(), shared.settings.drain_lease);
    loop {
        let stop = tokio::select! {
            // Who is told to stop needs no lease.
            biased;
            () = process.shutdown.begun() => true,
            () = lease.given() => false,
        };
        if stop {
            process.readiness.leave();
        } else {
            process.readiness.hold("asked to by the pod's annotation");
        }
        shared.phase.set(Phase::Draining);
        tracing::info!(clients = shared.connections(), asked = !stop, "draining");
        tokio::select! {
            () = drain(shared, &mut gate, stop) => shared.phase.set(Phase::Drained),
            () = may_serve(&mut lease, process), if !stop => {
                tracing::info!(clients = shared.connections(), "drain called off");
            }
        }
        shared.metrics.draining.set(0);
        if shared.phase.get() == Phase::Drained {
            tracing::info!("drained");
            if process.shutdown.has_begun() {
                return process.readiness.leave();
            }
            tokio::select! {
                () = process.shutdown.begun() => return process.readiness.leave(),
                () = lease.ended() => {}
                () = stay_empty(shared) => {}
            }
        }
        serve_again(shared, &mut gate, process).await;
    }
}

/// Waits until the lease ends, unless the process is to stop anyhow.
async fn may_serve(lease: &mut Lease, process: &Process) {
    lease.ended().await;
    if process.shutdown.has_begun() {
        std::future::pending().await
    }
}

/// Opens the ports again and calls itself ready; leaves that when the process is told to stop.
async fn serve_again(shared: &Shared, gate: &mut Gate, process: &Process) {
    while let Err(error) = gate.open(shared) {
        // The shards may not have closed the old ones yet.
        tracing::warn!(error = format!("{error:#}"), "client ports cannot be opened again yet");
        tokio::select! {
            () = process.shutdown.begun() => return,
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
    shared.phase.set(Phase::Serving);
    process.readiness.release();
    tracing::info!("serving again");
}

/// Everything between being ready and being empty. With nobody here who is told to stop stops at once.
async fn drain(shared: &Arc<Shared>, gate: &mut Gate, stop: bool) {
    let began = Instant::now();
    let settings = &shared.settings;
    if !stop || shared.connections() > 0 {
        tokio::time::sleep(settings.drain_delay).await;
    }
    gate.close();
    clients(shared).await;
    let flushed = Instant::now() + settings.flush;
    while Instant::now() < flushed {
        tokio::time::sleep(LATE.min(flushed - Instant::now())).await;
        close(shared, list(shared).await, Close::Drain);
    }
    shared.metrics.drain_seconds.observe(began.elapsed().as_secs_f64());
}

/// Closes every client, in random order, over as long as the rate asks for; pushes still arrive meanwhile.
async fn clients(shared: &Arc<Shared>) {
    let settings = &shared.settings;
    let mut left = list(shared).await;
    let over = window(left.len(), settings.close_rate, settings.drain_min, settings.drain_max);
    let too_fast = left.len().saturating_sub((over.as_secs_f64() * f64::from(settings.close_rate)).ceil() as usize);
    if too_fast > 0 {
        tracing::warn!(too_fast, "clients are closed faster than the rate, or they would not be closed in time");
        shared.metrics.drain_forced.inc_by(too_fast as u64);
    }
    tracing::info!(clients = left.len(), seconds = over.as_secs_f64(), "closing clients");
    left.shuffle(&mut rand::rng());
    let (total, began) = (left.len(), Instant::now());
    *shared.leave_by.lock() = Some(began + over + LAST + settings.flush - SPARE);
    // Who has left by himself takes none of the time.
    while !left.is_empty() && shared.is_busy() {
        let share = (began.elapsed() + STEP).as_secs_f64() / over.as_secs_f64();
        let keep = total - ((total as f64 * share.min(1.0)).ceil() as usize).min(total);
        let now = left.split_off(keep.min(left.len()));
        close(shared, now, Close::Drain);
        shared.metrics.draining.set(left.len() as i64);
        tokio::time::sleep(STEP).await;
    }
    shared.metrics.draining.set(0);
    let deadline = Instant::now() + LAST;
    while shared.is_busy() && Instant::now() < deadline {
        close(shared, list(shared).await, Close::Drain);
        tokio::time::sleep(STEP).await;
    }
}

/// Closes, for ever, whoever was still authenticating when the others were closed.
async fn stay_empty(shared: &Arc<Shared>) {
    loop {
        tokio::time::sleep(LATE).await;
        if shared.connections() > 0 {
            close(shared, list(shared).await, Close::Drain);
        }
    }
}

/// How long closing so many takes: at the rate, at least `min` and at most `max`; no time for nobody.
fn window(clients: usize, rate: u32, min: Duration, max: Duration) -> Duration {
    match clients {
        0 => Duration::from_millis(1),
        _ => Duration::from_secs_f64(clients as f64 / f64::from(rate)).max(min).min(max).max(Duration::from_millis(1)),
    }
}

async fn list(shared: &Shared) -> Vec<(usize, Entry)> {
    let mut all = Vec::new();
    for (index, shard) in shared.shards.iter().enumerate() {
        let (answer, entries) = oneshot::channel();
        shard.send(Command::List(answer));
        all.extend(entries.await.unwrap_or_default().into_iter().map(|entry| (index, entry)));
    }
    all
}

/// Has shards close these clients.
pub(crate) fn close(shared: &Shared, clients: Vec<(usize, Entry)>, reason: Close) {
    let mut by_shard = vec![Vec::new(); shared.shards.len()];
    clients.into_iter().for_each(|(shard, entry)| by_shard[shard].push(entry));
    for (shard, entries) in shared.shards.iter().zip(by_shard) {
        if !entries.is_empty() {
            shard.send(Command::Close(entries, reason));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_closed_at_the_rate_within_the_bounds() {
        let (min, max) = (Duration::from_secs(30), Duration::from_secs(300));
        assert_eq!(window(0, 1000, min, max), Duration::from_millis(1));
        assert_eq!(window(10, 1000, min, max), min);
        assert_eq!(window(100_000, 1000, min, max), Duration::from_secs(100));
        assert_eq!(window(1_000_000, 1000, min, max), max);
    }
}
