use proto::logic::PushMsg;

use super::*;
use crate::push::tests::{partition, record};

fn push(offset: u64, size: usize) -> Push {
    let message =
        PushMsg { server: "a".into(), keys: vec!["k".into()], msg: vec![0; size].into(), ..Default::default() };
    Push::decode(&record(0, offset, &message), 1, Instant::now()).unwrap()
}

fn left(before: u64) -> Option<Left> {
    Some(Left { server: "a".into(), before })
}

fn at(server: &str) -> Place {
    Place::At(server.into())
}

/// A board with one partition, and on it the key `k`, sought since `now` for this offset.
fn seeking(offset: u64, now: Instant) -> (Board, Arc<Partition>) {
    let (mut board, partition) = (Board::default(), partition(0));
    board.assign(&partition);
    assert!(matches!(board.put(&partition, "k", push(offset, 1), left(9), now), Put::Kept));
    (board, partition)
}

fn is_due(board: &Board, now: Instant) -> bool {
    !board.due(now, |_, _| None).is_empty()
}

#[tokio::test(start_paused = true)]
async fn logic_is_asked_three_times_in_ten_seconds_and_then_the_key_is_given_up() {
    let begun = Instant::now();
    let (mut board, _) = seeking(0, begun);
    for (number, after) in TRIES.iter().enumerate() {
        let time = begun + *after;
        assert!(!is_due(&board, time - Duration::from_millis(1)) && is_due(&board, time));
        let next = board.located(0, &"k".into(), Place::Unknown("nowhere"), time);
        assert_eq!(matches!(next, Next::GiveUp(_, "nowhere")), number == 2, "{next:?}");
    }
    assert!(board.is_empty() && board.bytes == 0);
    assert!(TRIES[2] < LIMIT);
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_key_is_sent_oldest_first_however_it_came() {
    let now = Instant::now();
    let (mut board, partition) = seeking(5, now);
    assert!(board.seeks(&partition, "k") && !board.seeks(&partition, "other"));
    for (offset, left) in [(8, None), (4, left(9)), (6, None)] {
        assert!(matches!(board.put(&partition, "k", push(offset, 1), left, now), Put::Kept));
    }
    assert!(matches!(board.put(&partition, "k", push(6, 1), None, now), Put::Twice));
    let Next::Send(sought, server) = board.located(0, &"k".into(), at("b"), now) else { panic!("not found") };
    assert_eq!((sought.pushes.keys().copied().collect::<Vec<_>>(), server.as_str()), (vec![4, 5, 6, 8], "b"));
    assert!(board.is_empty() && board.bytes == 0 && !board.seeks(&partition, "k"));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_on_while_older_records_may_be_on_their_way_to_where_the_key_was() {
    let now = Instant::now();
    let (board, _) = seeking(5, now);
    let time = now + TRIES[0];
    for (oldest, is_due) in [(None, true), (Some(8), false), (Some(9), true)] {
        let mut asked = Vec::new();
        let due = board.due(time, |server, partition| {
            asked.push((server.to_string(), partition));
            oldest
        });
        assert_eq!(!due.is_empty(), is_due, "{oldest:?}");
        assert_eq!(asked, [("a".to_owned(), 0)]);
    }
    assert!(!board.due(now + LIMIT, |_, _| Some(8)).is_empty(), "it does not wait for ever");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_found_and_lost_again_has_no_more_tries_than_others() {
    let begun = Instant::now();
    let (mut board, partition) = seeking(0, begun);
    for (number, after) in TRIES.iter().enumerate() {
        let time = begun + *after;
        let Next::Send(sought, _) = board.located(0, &"k".into(), at("b"), time) else { panic!("not found") };
        assert_eq!(sought.late, Late { since: begun, tries: number + 1 });
        let again = Push { late: Some(sought.late), ..push(0, 1) };
        let put = board.put(&partition, "k", again, left(9), time);
        assert_eq!(matches!(put, Put::Refused("not_here", _)), number == 2, "{put:?}");
    }
    let old = Push { late: Some(Late { since: begun, tries: 0 }), ..push(0, 1) };
    assert!(matches!(board.put(&partition, "k", old, left(9), begun + LIMIT), Put::Refused("not_here", _)));
}

#[tokio::test(start_paused = true)]
async fn what_has_been_sought_before_keeps_its_time_beside_what_is_new() {
    let begun = Instant::now();
    let (mut board, partition) = seeking(5, begun + TRIES[1]);
    let old = Late { since: begun, tries: 2 };
    board.put(&partition, "k", Push { late: Some(old), ..push(4, 1) }, left(9), begun + TRIES[1]);
    let next = board.located(0, &"k".into(), Place::Unknown("nowhere"), begun + TRIES[2]);
    assert!(matches!(next, Next::GiveUp(..)), "{next:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_sought_is_bounded_in_keys_and_in_bytes() {
    let now = Instant::now();
    let (mut board, partition) = seeking(0, now);
    for number in 1..KEYS {
        assert!(matches!(board.put(&partition, &number.to_string(), push(0, 1), left(9), now), Put::Kept));
    }
    assert!(matches!(board.put(&partition, "one more", push(0, 1), left(9), now), Put::Refused("full", _)));
    assert!(matches!(board.put(&partition, "k", push(1, 1), None, now), Put::Kept));
    let (mut board, partition) = seeking(0, now);
    let mut kept = 0;
    while matches!(board.put(&partition, "k", push(kept + 1, 1 << 20), None, now), Put::Kept) {
        kept += 1;
    }
    assert_eq!(kept, 15);
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_is_taken_away_takes_its_keys_with_it() {
    let now = Instant::now();
    let (mut board, first) = seeking(0, now);
    let second = partition(0);
    board.assign(&second);
    assert!(board.is_empty() && board.bytes == 0);
    assert!(matches!(board.put(&first, "k", push(0, 1), left(9), now), Put::NotOurs));
    assert!(matches!(board.put(&second, "k", push(0, 1), left(9), now), Put::Kept));
    board.revoke(&first);
    assert!(board.seeks(&second, "k"), "what is left of an earlier assignment ends nothing of the later one");
    board.revoke(&second);
    assert!(board.is_empty());
    assert!(matches!(board.located(0, &"k".into(), at("b"), now), Next::Wait));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_not_found_before_its_partition_would_stand_still_is_given_up_first() {
    let (mut board, partition) = seeking(5, Instant::now());
    for offset in 0..=5 {
        partition.ledger.lock().open(offset, 1);
    }
    partition.ledger.lock().open(5 + WINDOW / 2 - 2, 1);
    assert!(board.in_the_way().is_empty());
    partition.ledger.lock().open(5 + WINDOW / 2 - 1, 1);
    let taken = board.in_the_way();
    assert_eq!(taken.iter().flat_map(|sought| sought.pushes.keys()).collect::<Vec<_>>(), [&5]);
    assert!(board.is_empty() && board.bytes == 0);
}
