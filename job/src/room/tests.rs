use bytes::Bytes;
use proptest::prelude::*;
use proto::comet::Id;

use super::*;

const BATCHING: Batching = Batching { count: 20, bytes: 65_536, window: Duration::from_millis(20) };

fn item(offset: u64, target: Target, size: usize) -> Item {
    let push = Push {
        name: Bytes::new(),
        target,
        server: "".into(),
        operation: 1000,
        speed: 0,
        packet: Bytes::from(vec![0; size]),
        id: Id { offset, ..Default::default() },
        expires_ms: 0,
        taken: Instant::now(),
        late: None,
        trace: None,
    };
    Item { push: Arc::new(push), speed: 0 }
}

fn room(offset: u64, name: &str) -> Item {
    item(offset, Target::Room(name.into()), 20)
}

fn keys(offset: u64, key: &str) -> Item {
    item(offset, Target::Keys(vec![key.into()]), 20)
}

fn offsets(batch: Option<Vec<Item>>) -> Vec<u64> {
    batch.unwrap_or_default().iter().map(Item::offset).collect()
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn the_first_message_of_a_quiet_room_leaves_at_once() {
    let (mut lane, now) = (Lane::new(BATCHING), Instant::now());
    lane.push(room(0, "a"), now);
    assert_eq!(offsets(lane.take(now)), [0]);
    assert!(lane.is_empty());
}

#[test]
fn how_packets_merge_may_change_and_what_gathers_leaves_as_it_was_to() {
    let (mut lane, now) = (Lane::new(BATCHING), Instant::now());
    lane.push(room(0, "a"), now);
    lane.take(now);
    lane.push(room(1, "a"), now + ms(1));
    lane.rebatch(Batching { count: 2, window: ms(500), ..BATCHING });
    assert_eq!(offsets(lane.take(now + ms(20))), [1]);
    lane.push(room(2, "a"), now + ms(21));
    assert_eq!(lane.due(), Some(now + ms(520)));
    lane.push(room(3, "a"), now + ms(22));
    assert_eq!(offsets(lane.take(now + ms(22))), [2, 3], "two are enough now");
}

#[test]
fn a_room_that_has_just_sent_gathers_until_its_window_has_passed() {
    let (mut lane, now) = (Lane::new(BATCHING), Instant::now());
    lane.push(room(0, "a"), now);
    lane.take(now);
    lane.push(room(1, "a"), now + ms(1));
    lane.push(room(2, "a"), now + ms(5));
    assert_eq!(offsets(lane.take(now + ms(19))), [0; 0]);
    assert_eq!(lane.due(), Some(now + ms(20)));
    assert_eq!(offsets(lane.take(now + ms(20))), [1, 2]);
}

#[test]
fn what_comes_while_the_comet_is_busy_leaves_together() {
    let (mut lane, now) = (Lane::new(BATCHING), Instant::now());
    for offset in 0..5 {
        lane.push(room(offset, "a"), now);
    }
    assert_eq!(offsets(lane.take(now)), [0, 1, 2, 3, 4]);
}

#[test]
fn a_gathering_room_leaves_as_soon_as_it_has_enough_packets() {
    let (mut lane, now) = (Lane::new(BATCHING), Instant::now());
    lane.push(room(0, "a"), now);
    lane.take(now);
    for offset in 1..20 {
        lane.push(room(offset, "a"), now);
    }
    assert!(lane.take(now).is_none());
    lane.push(room(20, "a"), now);
    assert_eq!(offsets(lane.take(now)), (1..=20).collect::<Vec<_>>());
}

#[test]
fn a_gathering_room_leaves_as_soon_as_it_has_enough_bytes() {
    let (mut lane, now) = (Lane::new(BATCHING), Instant::now());
    let large = |offset| item(offset, Target::Room("a".into()), 30_000);
    lane.push(large(0), now);
    lane.take(now);
    lane.push(large(1), now);
    lane.push(large(2), now);
    assert!(lane.take(now).is_none());
    lane.push(large(3), now);
    assert_eq!(offsets(lane.take(now)), [1, 2]);
    assert_eq!(lane.due(), Some(now + ms(20)));
}

#[test]
fn fifty_messages_at_once_leave_as_twenty_twenty_and_ten_and_none_is_dropped() {
    let (mut lane, now) = (Lane::new(BATCHING), Instant::now());
    for offset in 0..50 {
        lane.push(room(offset, "a"), now);
    }
    assert_eq!(offsets(lane.take(now)), (0..20).collect::<Vec<_>>());
    assert_eq!(offsets(lane.take(now)), (20..40).collect::<Vec<_>>());
    assert!(lane.take(now).is_none());
    assert_eq!(offsets(lane.take(now + ms(20))), (40..50).collect::<Vec<_>>());
}

#[test]
fn with_a_count_of_one_nothing_waits_and_nothing_merges() {
    let (mut lane, now) = (Lane::new(Batching { count: 1, ..BATCHING }), Instant::now());
    lane.push(room(0, "a"), now);
    lane.push(room(1, "a"), now);
    assert_eq!(offsets(lane.take(now)), [0]);
    assert_eq!(offsets(lane.take(now)), [1]);
    lane.push(room(2, "a"), now);
    assert_eq!(offsets(lane.take(now)), [2]);
}

#[test]
fn a_packet_larger_than_a_batch_leaves_alone() {
    let (mut lane, now) = (Lane::new(BATCHING), Instant::now());
    lane.push(item(0, Target::Room("a".into()), 900_000), now);
    lane.push(room(1, "a"), now);
    assert_eq!(offsets(lane.take(now)), [0]);
}

#[test]
fn the_oldest_goes_first_and_rooms_do_not_wait_for_one_another() {
    let (mut lane, now) = (Lane::new(BATCHING), Instant::now());
    lane.push(room(0, "a"), now);
    assert_eq!(offsets(lane.take(now)), [0]);
    lane.push(room(1, "a"), now);
    lane.push(room(2, "b"), now);
    lane.push(keys(3, "k"), now);
    lane.push(room(4, "b"), now);
    assert_eq!(offsets(lane.take(now)), [2, 4]);
    assert_eq!(offsets(lane.take(now)), [3]);
    assert_eq!(offsets(lane.take(now + ms(20))), [1]);
}

#[test]
fn pushes_to_keys_and_kicks_go_one_by_one_in_their_order() {
    let (mut lane, now) = (Lane::new(BATCHING), Instant::now());
    for (offset, key) in [(0, "k"), (1, "k"), (2, "j"), (3, "k")] {
        lane.push(keys(offset, key), now);
    }
    lane.push(item(4, Target::Kick(vec!["k".into()]), 0), now);
    for offset in 0..5 {
        assert_eq!(offsets(lane.take(now)), [offset]);
    }
}

#[test]
fn flushing_ends_every_wait() {
    let (mut lane, now) = (Lane::new(BATCHING), Instant::now());
    lane.push(room(0, "a"), now);
    lane.take(now);
    lane.push(room(1, "a"), now);
    lane.flush();
    assert_eq!(offsets(lane.take(now)), [1]);
    lane.push(room(2, "a"), now);
    assert_eq!(offsets(lane.take(now)), [2]);
}

#[test]
fn a_quiet_room_is_forgotten() {
    let (mut lane, now) = (Lane::new(BATCHING), Instant::now());
    for offset in 0..100 {
        lane.push(room(offset, &offset.to_string()), now);
        lane.take(now);
    }
    assert_eq!(lane.groups.len(), 100);
    assert!(lane.take(now + ms(20)).is_none());
    assert_eq!((lane.groups.len(), lane.sent.len(), lane.bytes()), (0, 0, 0));
}

proptest! {
    #[test]
    fn every_record_leaves_once_and_in_the_order_of_its_room_and_of_its_key(
        steps in prop::collection::vec((0_u8..6, 0_u64..12, prop::bool::ANY), 1..300),
        count in 1_usize..6,
    ) {
        let mut lane = Lane::new(Batching { count, ..BATCHING });
        let mut now = Instant::now();
        let (mut left, mut sizes) = (Vec::new(), 0);
        let mut drain = |lane: &mut Lane, now| {
            while let Some(batch) = lane.take(now) {
                assert!(!batch.is_empty() && batch.len() <= count);
                assert!(batch.iter().all(|item| merges(&batch[0], item) || batch.len() == 1));
                left.extend(batch);
            }
        };
        for (offset, (kind, wait, busy)) in steps.iter().enumerate() {
            let offset = offset as u64;
            now += ms(*wait);
            let next = match kind {
                0 => keys(offset, "k"),
                1 => keys(offset, "j"),
                2 => item(offset, Target::All, 20),
                room_number => room(offset, &room_number.to_string()),
            };
            sizes += 1;
            lane.push(next, now);
            if !busy {
                drain(&mut lane, now);
            }
        }
        lane.flush();
        drain(&mut lane, now);
        prop_assert_eq!(left.len(), sizes);
        prop_assert_eq!(lane.bytes(), 0);
        let orders: std::collections::HashSet<String> =
            left.iter().map(|item| format!("{:?}", item.push.target)).collect();
        for order in orders {
            let of_it: Vec<u64> =
                left.iter().filter(|item| format!("{:?}", item.push.target) == order).map(Item::offset).collect();
            prop_assert!(of_it.is_sorted(), "{order}: {of_it:?}");
        }
    }
}
