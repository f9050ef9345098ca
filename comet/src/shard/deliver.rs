//! How a shard takes pushes into a round, less what it had before, and what it tells when some did not come.

use std::sync::Arc;

use ahash::AHashSet;
use proto::envelope::{Gap, GapRange, PushId};
use proto::packet::Packet;
use proto::{Key, op};
use tokio::sync::OwnedSemaphorePermit;

use super::{Order, Shard, Target, Without};
use crate::fanout::Round;
use crate::message::Push;
use crate::pace;
use crate::repeats::{Repeats, Sender};
use crate::wheel::Entry;

impl Shard {
    /// Takes a push into the round and answers whoever sent it. Returns the budget, if the round is to hold it.
    pub(super) fn take(
        &self,
        order: Order,
        repeats: &mut Repeats,
        round: &mut Round,
    ) -> Option<Arc<OwnedSemaphorePermit>> {
        let Order { push, target, sender, budget, taken } = order;
        let (without, budget) = match target {
            Target::Keys { mut keys, op, late } => {
                let overtaken =
                    if late { self.leave_out_overtaken(&push, &mut keys, op, &sender, repeats) } else { vec![] };
                let missing = self.keys(&push, keys, op, &sender, repeats, round);
                (Without { missing, overtaken }, Some(budget))
            }
            target => (Without::default(), self.everyone(&push, target, &sender, budget, repeats, round)),
        };
        // Whoever asked may have given up by now; the push is on its way all the same.
        let _asker_gone = taken.send(without);
        budget
    }

    /// Takes a push for a room or for all, less what was here before.
    fn everyone(
        &self,
        push: &Arc<Push>,
        target: Target,
        sender: &Sender,
        budget: Arc<OwnedSemaphorePermit>,
        repeats: &mut Repeats,
        round: &mut Round,
    ) -> Option<Arc<OwnedSemaphorePermit>> {
        let Some(new) = push.filtered(|part| repeats.first(sender, part.id)) else {
            self.shared.metrics.dropped("repeat", push.messages() as u64);
            return None;
        };
        self.shared.metrics.dropped("repeat", (push.messages() - new.messages()) as u64);
        match target {
            Target::Room => round.room(&self.bucket, new),
            Target::All(op) => round.all(&self.bucket, new, op),
            Target::Paced(op, per_second) => {
                let members = self.bucket.channels().into_iter().filter(|channel| channel.accepts(op));
                self.pacer.add(pace::Job::new(new, members, per_second, budget));
                return None;
            }
            Target::Keys { .. } => unreachable!("keys are pushed to one by one"),
        }
        Some(budget)
    }

    /// Job looked for these keys while a later record was on its way to where they are: order is worth more than what is
    /// late. What job sends for such a key comes in order, so the last part tells for all. Returns the keys that go without,
    /// which were told of it as far as they can be.
    fn leave_out_overtaken(
        &self,
        push: &Push,
        keys: &mut Vec<Key>,
        op: i32,
        sender: &Sender,
        repeats: &Repeats,
    ) -> Vec<Key> {
        let Some(last) = push.parts().last() else {
            return vec![];
        };
        let overtaken: Vec<Key> = keys.extract_if(.., |key| repeats.has_later(sender, last.id, key)).collect();
        self.shared.metrics.dropped("overtaken", (push.messages() * overtaken.len()) as u64);
        let here = overtaken.iter().filter_map(|key| self.bucket.get(key));
        for channel in here.filter(|channel| channel.variant.is_envelope() && channel.accepts(op)) {
            channel.reply(&overtaken_gap(push));
        }
        overtaken
    }

    fn keys(
        &self,
        push: &Arc<Push>,
        keys: Vec<Key>,
        op: i32,
        sender: &Sender,
        repeats: &mut Repeats,
        round: &mut Round,
    ) -> Vec<Key> {
        let (mut missing, mut named) = (Vec::new(), AHashSet::new());
        for (index, part) in push.parts().iter().enumerate() {
            let alone = match push.messages() {
                1 => push.clone(),
                _ => {
                    let mut at = 0..;
                    push.filtered(|_| at.next() == Some(index)).expect("one part is kept")
                }
            };
            let here = |key: &Key| match self.bucket.get(key).filter(|channel| channel.is_here()) {
                Some(channel) => {
                    if channel.accepts(op) {
                        round.one(&channel, alone.clone());
                    }
                    true
                }
                None => false,
            };
            for key in repeats.deliver(sender, part.id, &keys, here) {
                if named.insert(key) {
                    missing.push(key.clone());
                }
            }
        }
        missing
    }

    /// Tells of a gap whoever can be told; returns the others.
    pub(super) fn missed(&self, gap: &Gap) -> Vec<Entry> {
        let packet = packet(gap);
        let mut others = Vec::new();
        for (index, channel) in self.connections.borrow().iter() {
            if channel.variant.is_envelope() {
                channel.reply(&packet);
            } else {
                others.push((index, channel.serial));
            }
        }
        others
    }
}

/// What a client is told that goes without a push because it had a later one.
fn overtaken_gap(push: &Push) -> Packet {
    let range = |id: PushId| GapRange { room: None, partition: id.partition, from: id.offset, to: id.offset };
    let ranges = push.parts().iter().map(|part| range(part.id)).collect();
    packet(&Gap { reason: "overtaken".into(), dropped: push.messages() as u64, ranges })
}

fn packet(gap: &Gap) -> Packet {
    Packet::new(op::GAP, 0, serde_json::to_vec(gap).expect("a gap is plain data"))
}
