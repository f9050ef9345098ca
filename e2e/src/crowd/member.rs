//! One client of a crowd: in, out, and in again, as a goim client does it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use proto::op;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};

use super::{End, Life, Plan, Shared, Stay};
use crate::client::{Client, Dial, Received, Target};
use crate::os;

/// How long a client waits for a connection and the answer to its auth packet.
const PATIENCE: Duration = Duration::from_secs(3);
/// A client that is out waits a random time up to this, and up to twice as long after each further refusal.
const PAUSE: Duration = Duration::from_secs(1);
/// What the limit of the pause grows to.
const LONGEST: Duration = Duration::from_secs(3);

/// Lives until the crowd is told to end.
pub(super) async fn live(index: usize, shared: Arc<Shared>) -> Life {
    let member = (shared.plan.member)(index);
    let mut life = Life::new(member.streams);
    // Wherever it is when it is told to end: what the life says is whole.
    shared.stop.run_until_cancelled(come_and_go(index, &member.token, &shared, &mut life)).await;
    life
}

async fn come_and_go(index: usize, token: &str, shared: &Shared, life: &mut Life) {
    let (plan, dial) = (&shared.plan, dial(index, &shared.plan));
    let turn = (0..plan.targets.len()).cycle().skip(index % plan.targets.len());
    let mut turn = plan.first.into_iter().chain(turn);
    // Held until this client was in once. The semaphore is never closed.
    let mut opening = shared.opening.acquire().await.ok();
    loop {
        let mut limit = PAUSE;
        let (server, client, began) = loop {
            let server = turn.next().expect("a plan has targets, and they begin again");
            let began = os::monotonic();
            let entered = timeout(PATIENCE, enter(&plan.targets[server], &dial, token)).await;
            match entered.context("not in within 3 s").flatten() {
                Ok(client) => break (server, client, began),
                Err(error) => {
                    life.refusals.push(os::monotonic());
                    shared.say(format!("not let in: {error:#}"));
                }
            }
            limit = (limit * 2).min(LONGEST);
            pause(limit).await;
        };
        let entered = os::monotonic();
        life.stays.push(Stay { server, entered, took: entered - began, ended: None });
        shared.inside.lock().insert(index, server);
        if opening.take().is_some() {
            shared.entered.fetch_add(1, Ordering::SeqCst);
        }
        let end = stay(client, shared, life).await;
        shared.inside.lock().remove(&index);
        if let Some(stay) = life.stays.last_mut() {
            stay.ended = Some((os::monotonic(), end));
        }
        pause(PAUSE).await;
    }
}

/// How this client gets there.
fn dial(index: usize, plan: &Plan) -> Dial {
    let mut dial = plan.dial.clone();
    if plan.sources > 0 {
        let host = 1 + index % plan.sources.min(250);
        dial.source = Some(IpAddr::V4(Ipv4Addr::new(127, 0, 1, host as u8)));
    }
    dial
}

/// Full jitter.
async fn pause(limit: Duration) {
    sleep(limit.mul_f64(rand::random_range(0.0..1.0))).await;
}

async fn enter(target: &Target, dial: &Dial, token: &str) -> anyhow::Result<Client> {
    let mut client = Client::connect(target, dial).await?;
    client.auth(token).await?;
    Ok(client)
}

/// Reads pushes and sends heartbeats until the connection is no more, or the client has had enough.
async fn stay(mut client: Client, shared: &Shared, life: &mut Life) -> End {
    let plan = &shared.plan;
    let first = Instant::now() + plan.heartbeat.mul_f64(rand::random_range(0.0..1.0));
    let mut beats = interval_at(first, plan.heartbeat);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let enough = async {
        match &plan.stay {
            Some(stay) => sleep(rand::random_range(stay.start..=stay.end)).await,
            None => std::future::pending().await,
        }
    };
    let (mut enough, mut answered) = (std::pin::pin!(enough), true);
    loop {
        let body = tokio::select! {
            // What has come is read first: a client that was held up must not take it for silence.
            biased;
            received = client.next() => match received {
                Ok(Received::Packet(packet)) if packet.op > op::MESSAGE => packet.body,
                Ok(Received::Message { body, .. }) => body,
                Ok(Received::Packet(packet)) if packet.op == op::GAP => {
                    if !life.note_gap(&packet.body, os::monotonic()) {
                        shared.say(format!("broken: op 23 says {}", String::from_utf8_lossy(&packet.body)));
                        return End::Broken;
                    }
                    continue;
                }
                Ok(Received::Packet(packet)) => {
                    answered |= packet.op == op::HEARTBEAT_REPLY;
                    continue;
                }
                Ok(Received::Closed(code)) => {
                    shared.say(code.map_or("closed without a code".to_owned(), |code| format!("closed with {code}")));
                    return End::Closed(code);
                }
                Err(error) => {
                    shared.say(format!("broken: {error:#}"));
                    return End::Broken;
                }
            },
            _ = beats.tick() => {
                if !answered {
                    shared.say("broken: a heartbeat was not answered before the next".to_owned());
                    return End::Broken;
                }
                answered = false;
                // What is wrong with a connection that takes no heartbeat is read from it, or its answer is missing.
                let _ = timeout(PATIENCE, client.send(op::HEARTBEAT, b"")).await;
                continue;
            }
            () = &mut enough => return End::Left,
        };
        if life.note(&body, plan.run, os::monotonic()) {
            shared.arrivals.fetch_add(1, Ordering::SeqCst);
        }
    }
}
