//! Who owns which partition, as jobs claim them, up to where its owners have vouched that this comet was sent
//! everything, and how far anything of it was seen. Pure.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use proto::envelope::{PushId, Through};

/// What is known of the partitions of every topic, by consumer group.
#[derive(Debug, Default)]
pub struct Owners {
    groups: HashMap<Arc<str>, Group>,
    /// Group and epoch of which something was sent or vouched for last.
    latest: Option<(Arc<str>, u32)>,
    /// How far anything of that was seen, until more is: rooms that begin meanwhile share it.
    snapshot: Option<Arc<Seen>>,
}

/// What one consumer group told.
#[derive(Debug, Default)]
struct Group {
    /// By epoch and number.
    partitions: HashMap<(u32, u32), Partition>,
    /// How many partitions the topic of each epoch has, as claims of them say.
    counts: HashMap<u32, u32>,
}

#[derive(Debug)]
struct Partition {
    /// The highest generation that claimed it or sent for it.
    generation: i32,
    /// This comet was sent everything before; `None` until somebody vouched for anything.
    heard: Option<u64>,
    /// Nothing from here on was sent here, nor vouched for.
    seen: u64,
    /// What is before is a repeat, as shards were told.
    settled: u64,
}

/// How far anything of each partition was seen at some moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    group: Arc<str>,
    epoch: u32,
    /// Partition and the offset behind the last that was seen, by partition.
    offsets: Box<[(u32, u64)]>,
}

impl Seen {
    /// Whether a record of this group had, or could have, come here before that moment.
    pub fn covers(&self, group: &str, id: PushId) -> bool {
        let at = self.offsets.binary_search_by_key(&id.partition, |(partition, _)| *partition);
        id.epoch == self.epoch && group == &*self.group && at.is_ok_and(|at| id.offset < self.offsets[at].1)
    }

    /// The same of this partition alone, when it says something of others as well.
    pub fn narrowed(&self, partition: u32) -> Option<Self> {
        if self.offsets.len() <= 1 {
            return None;
        }
        let offsets = self.offsets.iter().copied().filter(|(of, _)| *of == partition).collect();
        Some(Self { group: self.group.clone(), epoch: self.epoch, offsets })
    }

    /// The same for clients.
    pub fn through(&self) -> Through {
        self.offsets.iter().copied().collect()
    }
}

/// What a mark turned out to mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A later generation owns the partition.
    Fenced,
    /// Nothing was missed.
    Whole,
    /// These offsets were not sent to this comet, whoever they were for, and will not be.
    Missed(Range<u64>),
}

impl Owners {
    /// Notes the owner unless a later generation is. Returns whether it is the owner.
    pub fn claim(&mut self, group: &str, epoch: u32, partition: u32, generation: i32) -> bool {
        self.admit(group, epoch, partition, generation).is_some()
    }

    /// The group's generations have begun anew: whoever claims it next is the owner.
    pub fn forget_owner(&mut self, group: &str, epoch: u32, partition: u32) {
        if let Some(known) = self.group(group).partitions.get_mut(&(epoch, partition)) {
            known.generation = i32::MIN;
        }
    }

    /// The owner vouches that everything in `from..through` was sent to this comet or is not for it. What is between
    /// what was vouched for before and `from` was missed. With epoch 0 offsets cannot be compared.
    pub fn hear(&mut self, group: &str, epoch: u32, partition: u32, generation: i32, vouched: Range<u64>) -> Heard {
        let Some(known) = self.admit(group, epoch, partition, generation) else {
            return Heard::Fenced;
        };
        let before = known.heard.filter(|_| epoch != 0).unwrap_or(vouched.start);
        let is_news = known.heard.is_none() || known.seen < vouched.end;
        known.heard = Some(before.max(vouched.start).max(vouched.end));
        known.seen = known.seen.max(vouched.end);
        self.turn_to(group, epoch, is_news);
        if before < vouched.start { Heard::Missed(before..vouched.start) } else { Heard::Whole }
    }

    /// What is before this floor is a repeat, as its owner says. Returns whether that is news.
    pub fn settle(&mut self, group: &str, epoch: u32, partition: u32, floor: u64) -> bool {
        let known = self.group(group).partitions.get_mut(&(epoch, partition)).filter(|known| known.settled < floor);
        known.map(|known| known.settled = floor).is_some()
    }

    /// The topic has so many partitions, as an owner of some of them says.
    pub fn count(&mut self, group: &str, epoch: u32, partitions: u32) {
        let known = self.group(group).counts.entry(epoch).or_default();
        *known = partitions.max(*known);
    }

    /// Whether somebody has vouched for every partition of a topic: whatever this comet is not sent from then on is
    /// found to be missed. Claims alone are not enough: a stream may break between a claim and the first mark.
    pub fn are_complete(&self) -> bool {
        self.groups.values().any(|Group { partitions, counts }| {
            let is_heard = |epoch, number| partitions.get(&(epoch, number)).is_some_and(|known| known.heard.is_some());
            counts.iter().any(|(epoch, count)| *count > 0 && (0..*count).all(|number| is_heard(*epoch, number)))
        })
    }

    /// A record came. Returns whether its sender is the owner.
    pub fn see(&mut self, group: &str, id: PushId, generation: i32) -> bool {
        let Some(known) = self.admit(group, id.epoch, id.partition, generation) else {
            return false;
        };
        let is_news = known.seen <= id.offset;
        known.seen = known.seen.max(id.offset.saturating_add(1));
        self.turn_to(group, id.epoch, is_news);
        true
    }

    /// How far anything was seen by now: what comes later, or is pushed later, lies behind it, unless it is sent again.
    /// None before anything came that has an epoch.
    pub fn seen(&mut self) -> Option<Arc<Seen>> {
        if self.snapshot.is_none() {
            self.snapshot = self.look().map(Arc::new);
        }
        self.snapshot.clone()
    }

    fn look(&self) -> Option<Seen> {
        let (group, epoch) = self.latest.clone()?;
        let offsets = self.groups.get(&group)?.partitions.iter().filter(|((at, _), _)| *at == epoch);
        let mut offsets: Box<[(u32, u64)]> = offsets.map(|((_, number), known)| (*number, known.seen)).collect();
        offsets.sort_unstable();
        Some(Seen { group, epoch, offsets })
    }

    /// Whether owners have vouched for everything before these offsets, which another comet has promised to give from
    /// there on. A partition that is not among them was not promised there yet: nothing of it may have been sent here.
    pub fn have_vouched(&self, through: &Through) -> bool {
        let known = self.latest.as_ref().and_then(|(group, epoch)| Some((self.groups.get(group)?, epoch)));
        let Some((Group { partitions, .. }, epoch)) = known else {
            return through.is_empty();
        };
        let heard = |number| partitions.get(&(*epoch, number)).and_then(|known| known.heard);
        let mut ours =
            partitions.iter().filter(|((at, _), known)| at == epoch && known.heard.is_some_and(|heard| heard > 0));
        through.iter().all(|(number, offset)| heard(*number).is_some_and(|heard| heard >= *offset))
            && ours.all(|((_, number), _)| through.contains_key(number))
    }

    /// Something of this was sent or vouched for, more than before or not.
    fn turn_to(&mut self, group: &str, epoch: u32, is_news: bool) {
        let is_latest = self.latest.as_ref().is_some_and(|(of, at)| **of == *group && *at == epoch);
        if epoch != 0 && !is_latest {
            self.latest = Some((group.into(), epoch));
        }
        if is_news || !is_latest {
            self.snapshot = None;
        }
    }

    fn admit(&mut self, group: &str, epoch: u32, partition: u32, generation: i32) -> Option<&mut Partition> {
        let fresh = Partition { generation, heard: None, seen: 0, settled: 0 };
        let known = self.group(group).partitions.entry((epoch, partition)).or_insert(fresh);
        known.generation = known.generation.max(generation);
        (known.generation == generation).then_some(known)
    }

    /// Asked for every record: the name is copied for the first alone.
    fn group(&mut self, name: &str) -> &mut Group {
        if !self.groups.contains_key(name) {
            self.groups.insert(name.into(), Group::default());
        }
        self.groups.get_mut(name).expect("it was put there")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(owners: &mut Owners, generation: i32, vouched: Range<u64>) -> Heard {
        owners.hear("g", 1, 0, generation, vouched)
    }

    #[test]
    fn a_partition_has_the_owner_of_the_highest_generation() {
        let mut owners = Owners::default();
        assert!(owners.claim("g", 1, 0, 5) && owners.claim("g", 1, 0, 5));
        assert!(!owners.claim("g", 1, 0, 4) && owners.claim("g", 1, 0, 6) && !owners.claim("g", 1, 0, 5));
        assert!(owners.claim("h", 1, 0, 1) && owners.claim("g", 2, 0, 1) && owners.claim("g", 1, 1, 1));
        assert_eq!(hear(&mut owners, 5, 0..9), Heard::Fenced);
    }

    #[test]
    fn a_group_whose_generations_begin_anew_owns_what_it_owned_and_nothing_is_forgotten_but_that() {
        let mut owners = Owners::default();
        assert_eq!(hear(&mut owners, 700, 0..100), Heard::Whole);
        assert!(!owners.claim("g", 1, 0, 1));
        owners.forget_owner("g", 1, 0);
        assert!(owners.claim("g", 1, 0, 1));
        assert_eq!(hear(&mut owners, 1, 120..130), Heard::Missed(100..120));
        assert!(!owners.claim("g", 1, 0, 0), "the next is told from the one before again");
    }

    #[test]
    fn what_nobody_vouched_for_was_missed_and_is_told_once() {
        let mut owners = Owners::default();
        assert_eq!(hear(&mut owners, 1, 100..120), Heard::Whole, "nobody was here before");
        assert_eq!(hear(&mut owners, 1, 120..130), Heard::Whole);
        assert_eq!(hear(&mut owners, 1, 110..125), Heard::Whole, "an older mark takes nothing back");
        assert_eq!(hear(&mut owners, 2, 140..140), Heard::Missed(130..140));
        assert_eq!(hear(&mut owners, 2, 140..150), Heard::Whole);
        assert_eq!(hear(&mut owners, 3, 145..150), Heard::Whole, "a new owner begins where was committed");
    }

    #[test]
    fn a_topic_is_complete_once_somebody_vouched_for_each_of_its_partitions() {
        let mut owners = Owners::default();
        owners.count("old", 1, 0);
        assert!(owners.claim("old", 1, 0, 1));
        assert_eq!(owners.hear("old", 1, 0, 1, 0..1), Heard::Whole);
        assert!(!owners.are_complete(), "who does not say how many there are does not have all");
        owners.count("g", 1, 3);
        owners.count("g", 1, 2);
        assert!((0..3).all(|partition| owners.claim("g", 1, partition, 1)));
        assert!(!owners.are_complete(), "claims are not enough");
        for partition in 0..3 {
            assert!(!owners.are_complete(), "{partition}");
            assert_eq!(owners.hear("g", 1, partition, 1, 5..5), Heard::Whole);
        }
        assert!(owners.are_complete());
    }

    fn id(partition: u32, offset: u64) -> PushId {
        PushId { epoch: 1, partition, offset }
    }

    #[test]
    fn what_was_seen_reaches_behind_all_that_was_sent_or_vouched_for_and_no_further() {
        let mut owners = Owners::default();
        assert_eq!(owners.seen(), None);
        assert!(owners.see("g", id(3, 7), 1) && owners.see("g", id(3, 5), 1));
        hear(&mut owners, 1, 0..9);
        let seen = owners.seen().unwrap();
        assert_eq!(seen.through(), Through::from([(0, 9), (3, 8)]));
        assert!(seen.covers("g", id(3, 7)) && seen.covers("g", id(0, 8)));
        assert!(!seen.covers("g", id(3, 8)) && !seen.covers("g", id(0, 9)) && !seen.covers("g", id(1, 0)));
        assert!(!seen.covers("h", id(3, 7)) && !seen.covers("g", PushId { epoch: 2, ..id(3, 7) }));
        assert!(!owners.see("g", id(3, 20), 0), "a zombie is not listened to");
        assert!(owners.see("g", id(3, 6), 1), "it is sent again");
        assert!(Arc::ptr_eq(&owners.seen().unwrap(), &seen), "nothing new: all who ask share one");
        assert_eq!(owners.hear("g", 1, 5, 1, 0..0), Heard::Whole);
        assert_eq!(owners.seen().unwrap().through(), Through::from([(0, 9), (3, 8), (5, 0)]));
        let only = seen.narrowed(3).unwrap();
        assert_eq!((only.through(), only.narrowed(3)), (Through::from([(3, 8)]), None));
        assert!(only.covers("g", id(3, 7)) && !only.covers("g", id(0, 8)));
    }

    #[test]
    fn a_topic_that_was_made_anew_is_seen_from_its_beginning() {
        let mut owners = Owners::default();
        hear(&mut owners, 1, 0..9);
        assert_eq!(owners.hear("g", 2, 0, 1, 0..1), Heard::Whole);
        assert_eq!(owners.seen().unwrap().through(), Through::from([(0, 1)]));
    }

    #[test]
    fn what_another_comet_has_seen_is_vouched_for_here_once_the_marks_reach_it() {
        let mut owners = Owners::default();
        assert!(owners.have_vouched(&Through::new()) && !owners.have_vouched(&Through::from([(0, 0)])));
        hear(&mut owners, 1, 0..9);
        assert!(owners.claim("g", 1, 1, 1) && owners.see("g", id(1, 30), 1));
        assert!(owners.have_vouched(&Through::from([(0, 9)])) && !owners.have_vouched(&Through::from([(0, 10)])));
        assert!(!owners.have_vouched(&Through::from([(0, 9), (1, 4)])), "what came is not yet all that was to come");
        assert!(!owners.have_vouched(&Through::from([(0, 9), (7, 4)])), "its owner has not come here yet");
        assert!(!owners.have_vouched(&Through::new()), "no owner has come there yet");
        assert_eq!(owners.hear("g", 1, 1, 1, 30..31), Heard::Whole);
        assert!(
            !owners.have_vouched(&Through::from([(0, 9)])) && owners.have_vouched(&Through::from([(0, 9), (1, 0)]))
        );
    }

    #[test]
    fn a_floor_is_news_when_it_has_risen() {
        let mut owners = Owners::default();
        hear(&mut owners, 1, 0..9);
        let floors = [0, 5, 5, 4, 6].map(|floor| owners.settle("g", 1, 0, floor));
        assert_eq!(floors, [false, true, false, false, true]);
        assert!(!owners.settle("g", 1, 8, 3), "nobody has claimed it");
    }

    #[test]
    fn a_topic_without_an_id_has_no_holes() {
        let mut owners = Owners::default();
        assert_eq!(owners.hear("g", 0, 0, 1, 0..9), Heard::Whole);
        assert_eq!(owners.hear("g", 0, 0, 1, 20..30), Heard::Whole);
    }
}
