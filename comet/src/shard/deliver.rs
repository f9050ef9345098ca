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
            Target::Keys { keys, op } => (self.keys(&push, &keys, op, &sender, repeats, round), Some(budget)),
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

    /// Takes a push for keys, less what they had before. Returns the keys that go without some of it; those that had
    /// something later are told so as far as they can be.
    fn keys(
        &self,
        push: &Arc<Push>,
        keys: &[Key],
        op: i32,
        sender: &Sender,
        repeats: &mut Repeats,
        round: &mut Round,
    ) -> Without {
        let (mut missing, mut overtaken) = (AHashSet::new(), AHashSet::new());
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
            let without = repeats.deliver(sender, part.id, keys, here);
            self.shared.metrics.dropped("overtaken", without.overtaken.len() as u64);
            let told = without.overtaken.iter().filter_map(|key| self.bucket.get(key));
            for channel in told.filter(|channel| channel.variant.is_envelope() && channel.accepts(op)) {
                channel.reply(&overtaken_gap(part.id));
            }
            missing.extend(without.missing);
            overtaken.extend(without.overtaken);
        }
        let owned = |keys: AHashSet<&Key>| keys.into_iter().cloned().collect();
        Without { missing: owned(missing), overtaken: owned(overtaken) }
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
fn overtaken_gap(id: PushId) -> Packet {
    let range = GapRange { room: None, partition: id.partition, from: id.offset, to: id.offset };
    packet(&Gap { reason: "overtaken".into(), dropped: 1, ranges: vec![range] })
}

fn packet(gap: &Gap) -> Packet {
    Packet::new(op::GAP, 0, serde_json::to_vec(gap).expect("a gap is plain data"))
}
