use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

fn at(offset: u64) -> PushId {
    PushId { epoch: 1, partition: 0, offset }
}

fn sender(floor: u64) -> Sender {
    Sender { group: "g".into(), floor: Some(floor) }
}

/// A job that tells no floor.
fn older() -> Sender {
    Sender { group: "g".into(), floor: None }
}

impl Repeats {
    /// Words and keys that are remembered.
    fn size(&self) -> usize {
        let keys = |partition: &Partition| partition.keys.values().map(Vec::len).sum::<usize>();
        self.partitions.values().map(|partition| partition.whole.words.len() + keys(partition)).sum()
    }
}

#[test]
fn a_record_is_new_once_also_below_the_highest_seen() {
    let mut repeats = Repeats::default();
    assert!([5, 3, 0, 4].iter().all(|offset| repeats.first(&sender(0), at(*offset))));
    assert!([3, 5, 0, 4].iter().all(|offset| !repeats.first(&sender(0), at(*offset))));
    assert!(repeats.first(&sender(0), at(1)));
}

#[test]
fn records_without_an_id_are_never_repeats() {
    let mut repeats = Repeats::default();
    let id = PushId { epoch: 0, partition: 0, offset: 9 };
    assert!(repeats.first(&sender(0), id) && repeats.first(&sender(0), id));
}

#[test]
fn another_group_and_a_new_epoch_start_afresh() {
    let mut repeats = Repeats::default();
    assert!(repeats.first(&sender(9), at(9)));
    assert!(repeats.first(&Sender { group: "h".into(), floor: Some(0) }, at(9)));
    let again = PushId { epoch: 2, ..at(3) };
    assert!(repeats.first(&sender(0), again), "the floor of the topic that was is not the new one's");
    assert!(!repeats.first(&sender(0), again));
}

#[test]
fn of_ten_thousand_keys_that_come_again_those_that_were_not_here_are_tried_again_and_no_other() {
    let keys: Vec<Key> = (0..10_000).map(|number| number.to_string().as_str().into()).collect();
    let is_even = |key: &Key| key.as_str().parse::<u32>().unwrap() % 2 == 0;
    let mut repeats = Repeats::default();
    let missing: Vec<Key> = repeats.deliver(&sender(0), at(5), &keys, is_even).missing.into_iter().cloned().collect();
    assert!(missing.len() == 5000 && !missing.iter().any(is_even));
    let mut tried = Vec::new();
    let rest = repeats.deliver(&sender(0), at(5), &keys, |key| {
        tried.push(key.clone());
        true
    });
    assert!(rest.missing.is_empty());
    assert_eq!(tried, missing);
    assert!(repeats.deliver(&sender(0), at(5), &keys, |_| panic!("a repeat")).missing.is_empty());
}

#[test]
fn below_the_floor_everything_is_a_repeat() {
    let mut repeats = Repeats::default();
    assert!(repeats.first(&sender(100), at(100)));
    assert!(!repeats.first(&sender(100), at(99)));
    assert!(repeats.deliver(&sender(100), at(99), &["k".into()], |_| panic!("a repeat")).missing.is_empty());
}

#[test]
fn a_new_owner_that_begins_where_was_committed_repeats_nothing_that_was_answered() {
    let mut repeats = Repeats::default();
    for offset in 0..100 {
        assert!(repeats.first(&sender(offset.max(10) - 10), at(offset)));
    }
    repeats.settle(&"g".into(), 1, 0, 95);
    // The last commit is older than the last answer.
    let new: Vec<u64> = (50..103).filter(|offset| repeats.first(&sender(50), at(*offset))).collect();
    assert_eq!(new, [100, 101, 102]);
}

#[test]
fn a_record_at_the_windows_end_is_an_error_of_the_sender() {
    assert!(sender(7).may_send(7 + WINDOW - 1));
    assert!(!sender(7).may_send(7 + WINDOW));
    assert!(older().may_send(u64::MAX) && sender(u64::MAX).may_send(3));
}

#[test]
fn without_a_told_floor_the_window_ends_at_the_highest_seen() {
    let mut repeats = Repeats::default();
    assert!(repeats.first(&older(), at(WINDOW + 10)));
    assert!(!repeats.first(&older(), at(10)));
    assert!(repeats.first(&older(), at(11)));
}

#[test]
fn what_the_floor_has_passed_costs_nothing() {
    let mut repeats = Repeats::default();
    for offset in 0..WINDOW {
        assert!(repeats.first(&sender(0), at(offset)));
        repeats.deliver(&sender(0), PushId { partition: 1, ..at(offset) }, &["k".into()], |_| true);
    }
    assert_eq!(repeats.size(), (WINDOW / 64 + WINDOW) as usize);
    for partition in 0..3 {
        repeats.settle(&"g".into(), 1, partition, WINDOW);
        repeats.settle(&"g".into(), 2, partition, u64::MAX);
    }
    assert_eq!(repeats.size(), 0);
    assert!(repeats.partitions.values().all(|partition| partition.whole.words.capacity() < 16));
    assert!(repeats.first(&sender(WINDOW), at(WINDOW)), "the floor of another epoch was not taken");
}

#[test]
fn a_key_that_has_had_a_later_record_goes_without_and_no_other_does() {
    let mut repeats = Repeats::default();
    let keys = [Key::from("ahead"), Key::from("behind"), Key::from("away")];
    let is_here = |key: &Key| key.as_str() != "away";
    repeats.deliver(&sender(0), at(7), &keys[..1], is_here);
    repeats.deliver(&sender(0), at(8), &keys[2..], is_here);
    let without = repeats.deliver(&sender(0), at(5), &keys, is_here);
    assert_eq!(without, Without { missing: vec![&keys[2]], overtaken: vec![&keys[0]] });
    // It is not later than itself, and nothing later than what it had already.
    for (offset, of) in [(7, 0), (5, 1)] {
        assert_eq!(repeats.deliver(&sender(0), at(offset), &keys[of..=of], |_| panic!("a repeat")), Without::default());
    }
    for other in [PushId { partition: 1, ..at(4) }, PushId { epoch: 2, ..at(4) }] {
        assert_eq!(repeats.deliver(&sender(0), other, &keys[..1], is_here), Without::default());
    }
}

#[test]
fn only_keys_that_were_not_here_may_get_it_again() {
    let mut repeats = Repeats::default();
    let keys = [Key::from("a"), Key::from("b")];
    let without = repeats.deliver(&sender(0), at(1), &keys, |key| key.as_str() == "a");
    assert_eq!(without.missing, [&keys[1]]);
    let mut given = Vec::new();
    let without = repeats.deliver(&sender(0), at(1), &keys, |key| {
        given.push(key.clone());
        true
    });
    assert!(without.missing.is_empty());
    assert_eq!(given, [keys[1].clone()]);
    assert!(repeats.deliver(&sender(0), at(1), &keys, |_| panic!("a repeat")).missing.is_empty());
}

#[test]
fn a_record_comes_for_another_key_after_all_keys_of_the_first_call_had_it() {
    let mut repeats = Repeats::default();
    assert!(repeats.deliver(&sender(0), at(1), &["a".into()], |_| true).missing.is_empty());
    let mut given = 0;
    repeats.deliver(&sender(0), at(1), &["a".into(), "moved here".into()], |_| {
        given += 1;
        true
    });
    assert_eq!(given, 1);
}

proptest! {
    #[test]
    fn above_the_floor_it_is_an_exact_set(
        steps in proptest::collection::vec((0u64..400, 0u64..300, 0u64..200), 1..300),
    ) {
        let mut repeats = Repeats::default();
        let mut model = HashSet::new();
        let (mut base, mut floor) = (1000, 0);
        for (forward, back, below) in steps {
            base += forward;
            let offset = base - back;
            floor = floor.max(base - 300 - below);
            let new = offset >= floor && model.insert(offset);
            prop_assert_eq!(repeats.first(&sender(floor), at(offset)), new, "offset {} floor {}", offset, floor);
            prop_assert!(repeats.size() <= 1 + (base - floor) as usize / 64 + 1);
        }
    }
}
