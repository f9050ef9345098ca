//! One client of a crowd: in, out, and in again, as a goim client does it; who can move is in elsewhere before it leaves.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use futures::future::BoxFuture;
use proto::envelope::{Through, Welcome};
use proto::{Packet, op};
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};

use super::given::Given;
use super::{End, Life, Plan, Shared, Stay};
use crate::client::{Client, Dial, Received};
use crate::os;

/// How long a client waits for a connection and the answer to its auth packet.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a client that moves waits for a connection, as it has no time for a server that is not there.
const IMPATIENCE: Duration = Duration::from_secs(1);
/// A client that is out waits a random time up to this, and up to twice as long after each further refusal.
const PAUSE: Duration = Duration::from_secs(1);
/// What the limit of the pause grows to.
const LONGEST: Duration = Duration::from_secs(3);
/// How long a client that moves waits after a server that did not let it in.
const AGAIN: Duration = Duration::from_millis(100);

/// Who a client is, all its life.
struct Who {
    index: usize,
    /// Its auth body.
    token: String,
    /// The same where it moves to, if it can.
    moving: Option<String>,
}

/// A connection that was let in.
struct Entered {
    /// Which of the plan's targets.
    server: usize,
    client: Client,
    /// When the auth reply was read.
    at: Duration,
    /// How long that took.
    took: Duration,
    /// From where on it is given everything there, if it can move.
    through: Through,
}

/// Lives until the crowd is told to end.
pub(super) async fn live(index: usize, shared: Arc<Shared>) -> Life {
    let member = (shared.plan.member)(index);
    let movable = (shared.plan.movable)(index);
    let mut life = Life { movable, ..Life::new(member.streams) };
    let can_move = |moving: bool| {
        let mut token: Value = serde_json::from_str(&member.token).expect("the tokens of members are JSON");
        (token["caps"], token["moving"]) = (json!(["envelope", "rooms", "move"]), json!(moving));
        token.to_string()
    };
    let who = match movable {
        true => Who { index, token: can_move(false), moving: Some(can_move(true)) },
        false => Who { index, token: member.token, moving: None },
    };
    // Wherever it is when it is told to end: what the life says is whole.
    shared.stop.run_until_cancelled(come_and_go(&who, &shared, &mut life)).await;
    life
}

async fn come_and_go(who: &Who, shared: &Shared, life: &mut Life) {
    let (mut first, mut turn, mut given) = (shared.plan.first, who.index, Given::default());
    // Held until this client was in once. The semaphore is never closed.
    let mut opening = shared.opening.acquire().await.ok();
    loop {
        let mut limit = PAUSE;
        let mut here = loop {
            let target = first.take().unwrap_or_else(|| {
                turn += 1;
                turn - 1
            });
            let entered = enter(target, who, &who.token, PATIENCE, shared).await;
            match entered {
                Ok(here) => break here,
                Err(error) => {
                    life.refusals.push(os::monotonic());
                    shared.say(format!("not let in: {error:#}"));
                }
            }
            limit = (limit * 2).min(LONGEST);
            pause(limit).await;
        };
        life.stays.push(Stay { server: here.server, entered: here.at, took: here.took, ended: None });
        shared.inside.lock().insert(who.index, here.server);
        if opening.take().is_some() {
            shared.entered.fetch_add(1, Ordering::SeqCst);
        }
        let end = loop {
            match stay(here, who, &mut given, shared, life).await {
                Ok(there) => {
                    life.move_to(there.server, there.at, there.took, os::monotonic());
                    shared.inside.lock().insert(who.index, there.server);
                    here = there;
                }
                Err(end) => break end,
            }
        };
        shared.inside.lock().remove(&who.index);
        if let Some(stay) = life.stays.last_mut() {
            stay.ended = Some((os::monotonic(), end));
            turn = another(stay.server, shared);
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

/// The turn of any target but this one, if there is another.
fn another(server: usize, shared: &Shared) -> usize {
    let others = shared.plan.targets.len() - 1;
    server + 1 + rand::random_range(0..others.max(1))
}

/// Full jitter.
async fn pause(limit: Duration) {
    sleep(limit.mul_f64(rand::random_range(0.0..1.0))).await;
}

/// One try, at the target whose turn it is.
async fn enter(turn: usize, who: &Who, token: &str, patience: Duration, shared: &Shared) -> anyhow::Result<Entered> {
    let (began, plan) = (os::monotonic(), &shared.plan);
    let (server, dial) = (turn % plan.targets.len(), dial(who.index, plan));
    let target = &plan.targets[server];
    let connected = timeout(patience, Client::connect(target, &dial)).await;
    let mut client = connected.with_context(|| format!("{target}: not connected within {patience:?}")).flatten()?;
    let reply = timeout(PATIENCE, client.auth(token)).await;
    let Packet { body, .. } = reply.with_context(|| format!("{target}: not in within {PATIENCE:?}")).flatten()?;
    let at = os::monotonic();
    let through = match who.moving {
        Some(_) => serde_json::from_slice::<Welcome>(&body).context("taken for a client that cannot move")?.through,
        None => Through::new(),
    };
    Ok(Entered { server, client, at, took: at - began, through })
}

/// Finds a way in at another server than this, however often it takes.
async fn elsewhere(server: usize, who: &Who, token: &str, shared: &Shared) -> Entered {
    let mut turn = another(server, shared);
    loop {
        match enter(turn, who, token, IMPATIENCE, shared).await {
            Ok(there) => return there,
            Err(error) => shared.say(format!("not let in elsewhere: {error:#}")),
        }
        turn += 1;
        sleep(AGAIN).await;
    }
}

/// Reads pushes and sends heartbeats until the client has gone on elsewhere, which is returned; or else the connection
/// is no more, or the client has had enough.
async fn stay(here: Entered, who: &Who, given: &mut Given, shared: &Shared, life: &mut Life) -> Result<Entered, End> {
    let Entered { server, mut client, .. } = here;
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
    // Where it is going, where it goes on, and whether it was told that nothing is left here.
    let (mut opening, mut there, mut is_done) = (None::<BoxFuture<'_, Entered>>, None, false);
    loop {
        let (id, body) = tokio::select! {
            // What has come is read first: a client that was held up must not take it for silence.
            biased;
            received = client.next() => match received {
                Ok(Received::Packet(packet)) if packet.op > op::MESSAGE => (None, packet.body),
                Ok(Received::Message { id, body, .. }) => (Some(id), body),
                Ok(Received::Packet(packet)) if packet.op == op::GAP => {
                    if !life.note_gap(&packet.body, os::monotonic()) {
                        shared.say(format!("broken: op 23 says {}", String::from_utf8_lossy(&packet.body)));
                        return Err(End::Broken);
                    }
                    shared.say(format!("told of a gap: {}", life.told.last().map_or("", |told| told.reason.as_str())));
                    continue;
                }
                Ok(Received::Packet(packet)) => {
                    match (packet.op, &who.moving) {
                        (op::HEARTBEAT_REPLY, _) => answered = true,
                        (op::MOVE, Some(token)) if packet.seq == 0 && there.is_none() => {
                            opening.get_or_insert_with(|| Box::pin(elsewhere(server, who, token, shared)));
                        }
                        (op::MOVE, Some(_)) if packet.seq != 0 => is_done = true,
                        _ => {}
                    }
                    continue;
                }
                Ok(Received::Closed(code)) => match there {
                    Some(there) if is_done => return Ok(there),
                    _ => {
                        let how = code.map_or("without a code".to_owned(), |code| format!("with {code}"));
                        let whom = if life.movable { " who can move" } else { "" };
                        shared.say(format!("closed{whom} {how}"));
                        return Err(End::Closed(code));
                    }
                },
                Err(error) => {
                    shared.say(format!("broken: {error:#}"));
                    return Err(End::Broken);
                }
            },
            entered = async { opening.as_mut().expect("it is looked for").await }, if opening.is_some() => {
                opening = None;
                let through = serde_json::to_vec(&[&entered.through]).expect("offsets are plain data");
                there = Some(entered);
                // What is wrong with a connection that takes nothing is read from it.
                let _ = timeout(PATIENCE, client.send(op::MOVE, &through)).await;
                continue;
            }
            _ = beats.tick() => {
                if !answered {
                    shared.say("broken: a heartbeat was not answered before the next".to_owned());
                    return Err(End::Broken);
                }
                answered = false;
                // What is wrong with a connection that takes no heartbeat is read from it, or its answer is missing.
                let _ = timeout(PATIENCE, client.send(op::HEARTBEAT, b"")).await;
                continue;
            }
            () = &mut enough => return Err(End::Left),
        };
        if id.is_some_and(|id| !given.note(id)) {
            life.again += 1;
        } else if life.note(&body, plan.run, os::monotonic()) {
            shared.arrivals.fetch_add(1, Ordering::SeqCst);
        }
    }
}
