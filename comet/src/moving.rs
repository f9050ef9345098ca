//! How a client that can leaves a comet without losing anything: told to move (op 18), it connects to another comet with
//! the same key and joins its rooms there, while everything still comes here. Each answer there says from where on it is
//! given all of it there (`through`). It says so here, and is answered and closed once jobs have vouched here for
//! everything before, and that is written: what is between comes on both, and the client drops one by its id.
//!
//! That is for rooms and for all. What is for its key goes to one comet, wherever logic had noted the key, so its offset
//! says nothing. Logic writes a record to this comet when it notes the key elsewhere, behind what it had sent here, and
//! that is waited for, too. What a logic resolved before and wrote after is looked for as any key that is not here.
//!
//! Who does not move in time is told of a gap and closed, like whoever cannot move.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use proto::envelope::{Gap, Move, Through};
use proto::op;
use proto::packet::Packet;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use crate::channel::Channel;
use crate::close::Close;
use crate::shard::{Command, Shard};
use crate::shared::Phase;
use crate::wheel::Entry;

/// How long a client has to move at least: less than a drain waits for its last clients.
pub const WITHIN: Duration = Duration::from_secs(4);
/// How often it is looked whether the drain was called off.
const LOOK: Duration = Duration::from_secs(1);

/// Whether a client connects elsewhere before it leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Moving {
    /// It has not said that it can.
    #[default]
    Cannot,
    /// It can.
    Can,
    /// It was told to.
    Told,
    /// It has: its key is not here any more.
    Gone,
}

/// Closes these connections, those of them that are still here. For a drain who can move is told to first.
pub fn close(shard: &Rc<Shard>, entries: Vec<Entry>, reason: Close) {
    let (mut told, within) = (Vec::new(), shard.shared.leave_within().max(WITHIN));
    for entry in entries {
        let Some(channel) = shard.get(entry) else {
            continue;
        };
        match (reason, channel.moving.get()) {
            (Close::Drain, Moving::Can) => {
                let order = Move { within_ms: within.as_millis() as u64, nodes: vec![] };
                channel.reply(&packet(op::MOVE, &order));
                channel.moving.set(Moving::Told);
                told.push(entry);
            }
            (Close::Drain, Moving::Told | Moving::Gone) => {}
            _ => channel.close(reason),
        }
    }
    if !told.is_empty() {
        tokio::task::spawn_local(cut(shard.clone(), told, Instant::now() + within));
    }
}

/// Closes those who did not move in time. Where the drain was called off meanwhile, who has not gone elsewhere stays.
async fn cut(shard: Rc<Shard>, told: Vec<Entry>, deadline: Instant) {
    let may_stay = || shard.shared.phase.get() == Phase::Serving;
    while !may_stay() && Instant::now() < deadline {
        sleep_until(deadline.min(Instant::now() + LOOK)).await;
    }
    let may_stay = may_stay();
    for channel in told.into_iter().filter_map(|entry| shard.get(entry)) {
        if may_stay && !channel.is_elsewhere() {
            channel.moving.set(Moving::Can);
        } else if channel.closing().is_none() {
            channel.reply(&packet(op::GAP, &Gap { reason: "drain".into(), dropped: 0, ranges: vec![] }));
            channel.close(Close::Drain);
        }
    }
}

/// Waits until everything before these offsets and all that was sent here for its key was written to a client that has
/// moved, and closes its connection here. Returns the reply to its request. Part of the connection's own task.
pub async fn leave(shard: Rc<Shard>, channel: Rc<Channel>, request: Packet, through: Through) -> Packet {
    shard.shared.interest.vouched(&through).await;
    poll_fn(|_| if channel.has_its_keys() { Poll::Ready(()) } else { Poll::Pending }).await;
    // Every push that came before that is in the inbox before this.
    flushed(&shard).await;
    // Job sends what comes from now on for its key to where it is; what a round has taken for it already is written first.
    channel.moving.set(Moving::Gone);
    flushed(&shard).await;
    // Where it is now such a broadcast may have been over, or begun, before it came.
    shard.pacer.finish(&channel);
    channel.close(Close::Moved);
    Packet { body: Bytes::new(), ..request }
}

/// Waits until everything that is in the inbox of the shard by now was written.
async fn flushed(shard: &Shard) {
    let (written, done) = oneshot::channel();
    shard.shared.shards[shard.index].send(Command::Flush(written));
    // A shard does not end before its connections.
    let _ending = done.await;
}

/// The offsets that reach as far as all of these.
pub fn furthest(all: Vec<Through>) -> Through {
    let mut furthest = Through::new();
    for (partition, offset) in all.into_iter().flatten() {
        let known = furthest.entry(partition).or_default();
        *known = offset.max(*known);
    }
    furthest
}

fn packet(op: i32, body: &impl serde::Serialize) -> Packet {
    Packet::new(op, 0, serde_json::to_vec(body).expect("it is plain data"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::task::{LocalSet, spawn_local};

    use super::*;
    use crate::logic::memory::MemoryLogic;
    use crate::testing;

    #[tokio::test]
    async fn who_has_moved_is_closed_once_what_was_taken_for_its_key_is_written_and_nothing_more_is_taken() {
        let alone = async {
            let (shard, mut inbox) = testing::shard_and_inbox(Arc::new(MemoryLogic::default()));
            let channel = testing::channel("k");
            let request = Packet::new(op::MOVE, 5, "[]");
            let leaving = spawn_local(leave(shard, channel.clone(), request, Through::new()));
            for is_here in [true, false] {
                let Some(Command::Flush(written)) = inbox.recv().await else { panic!("it waits for the shard") };
                assert_eq!((channel.is_here(), channel.closing()), (is_here, None));
                written.send(()).unwrap();
            }
            assert_eq!(leaving.await.unwrap(), Packet::new(op::MOVE, 5, ""));
            assert_eq!(channel.closing(), Some(Close::Moved));
        };
        LocalSet::new().run_until(alone).await;
    }

    #[test]
    fn a_client_has_moved_once_it_was_given_what_is_before_every_answer_it_had() {
        let all = vec![Through::from([(0, 4), (1, 9)]), Through::from([(0, 7), (2, 1)]), Through::new()];
        assert_eq!(furthest(all), Through::from([(0, 7), (1, 9), (2, 1)]));
    }
}
