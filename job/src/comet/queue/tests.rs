use std::sync::Arc;
use std::time::Duration;

use proto::delivery::Interest;
use proto::logic::PushMsg;
use tokio::time::Instant;

use super::*;
use crate::metrics::Reason;
use crate::push::Push;
use crate::push::tests::{partition, record};
use crate::rig::LIMITS;

fn queue(partition: &Arc<Partition>) -> Queue {
    let queue = Queue::new(LIMITS, Metrics::default());
    queue.assign(partition, 0);
    queue.claimed(std::slice::from_ref(partition));
    queue
}

fn owe(queue: &Queue, partition: &Arc<Partition>, offset: u64, now: Instant) -> bool {
    let message = PushMsg { keys: vec![format!("k{offset}")], ..Default::default() };
    let push = Push::decode(&record(partition.number, offset, &message), 1, now).unwrap();
    partition.ledger.lock().open(offset, 1);
    queue.push(partition, Item { push: Arc::new(push), speed: 0 }, now)
}

/// Looks at a queue from `from` to `to` whenever it says, as the comet's task does.
fn look(queue: &Queue, from: Instant, to: Instant) -> (State, Option<Instant>) {
    let mut now = from;
    loop {
        let (state, again) = queue.check(now);
        if now == to || state != State::Open {
            return (state, again);
        }
        now = again.map_or(to, |again| again.min(to));
    }
}

#[tokio::test]
async fn a_partition_has_one_call_open_and_the_next_starts_with_the_oldest() {
    let (first, second) = (partition(0), partition(1));
    let queue = queue(&first);
    queue.assign(&second, 0);
    queue.claimed(std::slice::from_ref(&second));
    let now = Instant::now();
    owe(&queue, &first, 0, now);
    owe(&queue, &first, 1, now);
    owe(&queue, &second, 0, now);
    let (a, b) = (queue.next(now, Way::Calls).unwrap(), queue.next(now, Way::Calls).unwrap());
    assert_eq!((a.partition.number, b.partition.number), (0, 1));
    assert!(queue.next(now, Way::Calls).is_none());
    queue.answered(&a, now);
    assert_eq!(first.ledger.lock().committed(), 1);
    assert_eq!(queue.next(now, Way::Calls).unwrap().items[0].push.id.offset, 1);
}

#[tokio::test]
async fn a_call_without_an_answer_is_made_again_before_anything_later() {
    let partition = partition(0);
    let queue = queue(&partition);
    let now = Instant::now();
    owe(&queue, &partition, 0, now);
    owe(&queue, &partition, 1, now);
    let call = queue.next(now, Way::Calls).unwrap();
    queue.away(&call);
    queue.retry();
    assert!(Arc::ptr_eq(&queue.next(now, Way::Calls).unwrap().items, &call.items));
}

#[tokio::test]
async fn an_answer_after_the_comet_was_let_go_counts_once() {
    let partition = partition(0);
    let queue = queue(&partition);
    let now = Instant::now();
    owe(&queue, &partition, 0, now);
    let call = queue.next(now, Way::Calls).unwrap();
    assert_eq!(look(&queue, now, now + LIMITS.stall), (State::LetGo, None));
    assert_eq!((partition.ledger.lock().committed(), queue.size()), (1, (0, 0, State::LetGo)));
    queue.answered(&call, now);
    assert_eq!(queue.size(), (0, 0, State::LetGo));
    assert!(owe(&queue, &partition, 1, now));
    assert_eq!(partition.ledger.lock().committed(), 2);
}

#[tokio::test]
async fn a_comet_that_answers_now_and_then_is_not_let_go() {
    let partition = partition(0);
    let queue = queue(&partition);
    let mut now = Instant::now();
    for offset in 0..5 {
        owe(&queue, &partition, offset, now);
    }
    for _ in 0..5 {
        let later = now + LIMITS.stall - Duration::from_millis(1);
        assert_eq!(look(&queue, now, later).0, State::Open);
        now = later;
        let call = queue.next(now, Way::Calls).unwrap();
        queue.answered(&call, now);
    }
    assert_eq!(look(&queue, now, now + LIMITS.stall), (State::Open, None));
}

#[tokio::test]
async fn time_in_which_nobody_looked_is_not_held_against_a_comet() {
    for is_owed in [true, false] {
        let partition = partition(0);
        let queue = queue(&partition);
        let now = Instant::now();
        if is_owed {
            owe(&queue, &partition, 0, now);
        } else {
            partition.ledger.lock().open(0, 0);
            queue.tell(now);
        }
        queue.check(now);
        let thawed = now + LIMITS.stall * 3;
        let middle = thawed + LIMITS.stall / 2;
        assert_eq!(look(&queue, thawed, middle).0, State::Open);
        assert_eq!(look(&queue, middle, thawed + LIMITS.stall).0, State::LetGo);
    }
}

#[tokio::test]
async fn what_is_left_of_an_earlier_assignment_is_never_answered_for_a_later_one() {
    let (earlier, later) = (partition(0), partition(0));
    let queue = queue(&earlier);
    let now = Instant::now();
    owe(&queue, &earlier, 0, now);
    let call = queue.next(now, Way::Calls).unwrap();
    queue.assign(&later, 0);
    queue.claimed(std::slice::from_ref(&later));
    assert_eq!(queue.size(), (0, 0, State::Open));
    owe(&queue, &later, 0, now);
    queue.answered(&call, now);
    queue.revoke(&earlier);
    assert_eq!((later.ledger.lock().committed(), queue.size().1), (0, 1));
}

#[tokio::test]
async fn a_closed_queue_takes_nothing() {
    let partition = partition(0);
    let queue = queue(&partition);
    let now = Instant::now();
    owe(&queue, &partition, 0, now);
    queue.close("gone");
    assert_eq!(partition.ledger.lock().committed(), 1);
    assert!(!owe(&queue, &partition, 1, now));
}

#[tokio::test]
async fn a_stream_has_many_batches_out_and_what_was_not_answered_goes_out_again_in_its_order() {
    let partition = partition(0);
    let queue = queue(&partition);
    let now = Instant::now();
    for offset in 0..4 {
        owe(&queue, &partition, offset, now);
    }
    let next = || queue.next(now, Way::Stream);
    let offset = |batch: &Batch| batch.items[0].push.id.offset;
    let first = next().unwrap();
    let rest: Vec<u64> = [next(), next()].iter().flatten().map(offset).collect();
    assert_eq!((offset(&first), rest), (0, vec![1, 2]));
    queue.answered(&first, now);
    queue.all_away(now);
    queue.retry();
    owe(&queue, &partition, 4, now);
    let again: Vec<Batch> = std::iter::from_fn(next).collect();
    assert_eq!(again.iter().map(offset).collect::<Vec<_>>(), [1, 2, 3, 4]);
    again.iter().for_each(|batch| queue.answered(batch, now));
    assert_eq!((partition.ledger.lock().committed(), queue.size()), (5, (0, 0, State::Open)));
}

#[tokio::test]
async fn a_stream_serves_partitions_in_turn() {
    let (first, second) = (partition(0), partition(1));
    let queue = queue(&first);
    queue.assign(&second, 0);
    queue.claimed(std::slice::from_ref(&second));
    let now = Instant::now();
    for offset in 0..3 {
        owe(&queue, &first, offset, now);
    }
    owe(&queue, &second, 0, now);
    let turns = std::iter::from_fn(|| queue.next(now, Way::Stream)).map(|batch| batch.partition.number);
    assert_eq!(turns.collect::<Vec<_>>(), [0, 1, 0, 0]);
}

#[tokio::test]
async fn what_was_out_on_a_stream_goes_out_one_by_one_to_a_comet_that_has_none() {
    let partition = partition(0);
    let queue = queue(&partition);
    let now = Instant::now();
    for offset in 0..3 {
        owe(&queue, &partition, offset, now);
        queue.next(now, Way::Stream).unwrap();
    }
    queue.all_away(now);
    queue.retry();
    for offset in 0..3 {
        let call = queue.next(now, Way::Calls).unwrap();
        assert_eq!(call.items[0].push.id.offset, offset);
        assert!(queue.next(now, Way::Calls).is_none());
        queue.answered(&call, now);
    }
    assert_eq!(partition.ledger.lock().committed(), 3);
}

/// What the comet is told: from and through of the partition's only word.
fn word(queue: &Queue) -> Option<(Vouch, u64, u64)> {
    let words = queue.vouches();
    assert!(words.len() <= 1);
    words.into_iter().next().map(|word| (word.clone(), word.from, word.through))
}

#[tokio::test]
async fn a_comet_that_is_owed_nothing_is_told_how_far_everything_was_answered() {
    let partition = partition(0);
    let queue = queue(&partition);
    let now = Instant::now();
    let (first, from, through) = word(&queue).unwrap();
    assert_eq!((from, through), (0, 0));
    queue.told(&first, now);
    partition.ledger.lock().open(0, 0);
    queue.tell(now);
    assert_eq!(queue.knows(0), Some(0));
    let (second, from, through) = word(&queue).unwrap();
    assert_eq!((from, through), (0, 1));
    queue.told(&second, now);
    queue.tell(now);
    assert_eq!((queue.knows(0), word(&queue).is_none()), (Some(1), true));
    queue.goes_by(Way::Calls);
    assert_eq!(queue.knows(0), None);
}

#[tokio::test]
async fn a_comet_that_does_not_answer_what_it_is_told_is_let_go() {
    let partition = partition(0);
    let queue = queue(&partition);
    let now = Instant::now();
    partition.ledger.lock().open(0, 0);
    queue.tell(now);
    let middle = now + LIMITS.stall / 2;
    assert_eq!(look(&queue, now, middle).0, State::Open);
    queue.tell(middle);
    assert_eq!(look(&queue, middle, now + LIMITS.stall).0, State::LetGo);
    assert_eq!(queue.knows(0), None, "it holds up nobody");
}

#[tokio::test]
async fn a_comet_is_not_let_go_for_what_it_was_to_be_told_of_a_partition_that_was_taken_from_us() {
    let (taken, kept) = (partition(0), partition(1));
    let queue = queue(&taken);
    queue.assign(&kept, 0);
    queue.claimed(std::slice::from_ref(&kept));
    queue.vouches();
    let now = Instant::now();
    taken.ledger.lock().open(0, 0);
    queue.tell(now);
    queue.revoke(&taken);
    let later = now + LIMITS.stall;
    assert_eq!(look(&queue, now, later).0, State::Open);
    queue.assign(&taken, 1);
    kept.ledger.lock().open(0, 0);
    queue.tell(later);
    queue.revoke(&taken);
    assert_eq!(look(&queue, later, later + LIMITS.stall).0, State::LetGo, "it owes the other's answer");
}

#[tokio::test]
async fn after_a_comet_was_let_go_nobody_vouches_for_what_was_dropped() {
    let partition = partition(0);
    let queue = queue(&partition);
    let now = Instant::now();
    owe(&queue, &partition, 0, now);
    owe(&queue, &partition, 1, now);
    let call = queue.next(now, Way::Stream).unwrap();
    queue.answered(&call, now);
    assert_eq!(look(&queue, now, now + LIMITS.stall).0, State::LetGo);
    owe(&queue, &partition, 2, now);
    queue.unclaim();
    queue.claimed(std::slice::from_ref(&partition));
    queue.retry();
    owe(&queue, &partition, 3, now);
    let (word, from, through) = word(&queue).unwrap();
    assert_eq!((from, through, word.floor), (3, 3, 3));
}

#[tokio::test]
async fn what_waited_for_a_comet_before_it_was_known_is_not_among_what_is_not_sent() {
    let partition = partition(0);
    let (known, phantom) = (Queue::new(LIMITS, Metrics::default()), queue(&partition));
    let now = Instant::now();
    for offset in 0..4 {
        owe(&phantom, &partition, offset, now);
    }
    known.assign(&partition, partition.ledger.lock().next());
    phantom.hand_over(&known, now);
    known.claimed(std::slice::from_ref(&partition));
    let (word, from, through) = word(&known).unwrap();
    assert_eq!((from, through, word.floor), (4, 4, 0));
}

fn say(queue: &Queue, entered: &[&str], left: &[&str], now: Instant) {
    let names = |rooms: &[&str]| rooms.iter().map(|room| (*room).to_owned()).collect();
    queue.interested(Interest { entered: names(entered), left: names(left), complete: true }, now);
}

fn owe_room(queue: &Queue, partition: &Arc<Partition>, offset: u64, room: &str, now: Instant) {
    let message = PushMsg { r#type: 1, room: room.into(), ..Default::default() };
    let push = Push::decode(&record(partition.number, offset, &message), 1, now).unwrap();
    partition.ledger.lock().open(offset, 1);
    assert!(queue.push(partition, Item { push: Arc::new(push), speed: 0 }, now));
}

/// The offsets that the comet is sent now.
fn sent(queue: &Queue, now: Instant) -> Vec<u64> {
    let batches = std::iter::from_fn(|| queue.next(now, Way::Stream));
    batches.flat_map(|batch| batch.items.iter().map(|item| item.push.id.offset).collect::<Vec<_>>()).collect()
}

#[tokio::test]
async fn what_is_for_a_room_that_nobody_is_in_is_kept_back_until_the_comet_has_answered_that_it_was_told_of_more() {
    let partition = partition(0);
    let queue = queue(&partition);
    let now = Instant::now();
    owe_room(&queue, &partition, 0, "r", now);
    assert_eq!(sent(&queue, now), [0], "until it has named its rooms somebody is in each");
    say(&queue, &["s"], &[], now);
    owe_room(&queue, &partition, 1, "r", now);
    owe(&queue, &partition, 2, now);
    assert_eq!(sent(&queue, now), [2]);
    word(&queue);
    queue.tell(now);
    let (asked, _, through) = word(&queue).unwrap();
    assert_eq!((through, asked.sent), (0, 3), "0 and 2 are out, 1 is kept back");
    owe_room(&queue, &partition, 3, "r", now);
    assert_eq!(queue.size().1, 2);
    queue.told(&asked, now);
    assert_eq!(queue.size().1, 2);
    queue.tell(now);
    assert_eq!(word(&queue).unwrap().0.sent, 4);
    say(&queue, &["r"], &[], now);
    let later = now + LIMITS.batching.window;
    assert_eq!(sent(&queue, later), [3], "what comes before the answer is sent, what it answered is not");
}

#[tokio::test]
async fn what_is_kept_back_is_not_vouched_for_and_its_answer_lets_the_floor_pass() {
    let partition = partition(0);
    let queue = queue(&partition);
    let now = Instant::now();
    say(&queue, &[], &[], now);
    word(&queue);
    owe_room(&queue, &partition, 0, "r", now);
    queue.tell(now);
    let (asked, from, through) = word(&queue).unwrap();
    assert_eq!((from, through, asked.sent, partition.ledger.lock().committed()), (0, 0, 1, 0));
    queue.tell(now);
    assert!(word(&queue).is_none(), "it was asked already");
    queue.told(&asked, now);
    assert_eq!((partition.ledger.lock().committed(), queue.size()), (1, (0, 0, State::Open)));
    queue.tell(now);
    let (told, _, through) = word(&queue).unwrap();
    assert_eq!(through, 1);
    queue.told(&told, now);
    assert_eq!(queue.knows(0), Some(1));
}

#[tokio::test]
async fn a_room_that_begins_is_sent_what_was_kept_back_for_it_oldest_first_and_then_what_is_new() {
    let (first, second) = (partition(0), partition(1));
    let queue = queue(&first);
    queue.assign(&second, 0);
    queue.claimed(std::slice::from_ref(&second));
    let now = Instant::now();
    say(&queue, &[], &[], now);
    (0..3).for_each(|offset| owe_room(&queue, &first, offset, "r", now));
    owe_room(&queue, &first, 3, "s", now);
    owe_room(&queue, &second, 0, "t", now);
    say(&queue, &["r", "t"], &[], now);
    owe_room(&queue, &first, 4, "r", now);
    let mut got = sent(&queue, now);
    got.sort_unstable();
    assert_eq!(got, [0, 0, 1, 2, 4]);
    say(&queue, &[], &["r"], now);
    owe_room(&queue, &first, 5, "r", now);
    assert_eq!(sent(&queue, now), [0; 0]);
}

#[tokio::test]
async fn a_stream_that_breaks_may_have_lost_a_room_so_what_was_kept_back_goes_out_on_the_next() {
    let partition = partition(0);
    let queue = queue(&partition);
    let now = Instant::now();
    say(&queue, &["r"], &[], now);
    owe_room(&queue, &partition, 0, "r", now);
    assert_eq!(sent(&queue, now), [0]);
    say(&queue, &[], &["r"], now);
    owe_room(&queue, &partition, 1, "r", now);
    owe_room(&queue, &partition, 2, "s", now);
    queue.all_away(now);
    queue.retry();
    owe_room(&queue, &partition, 3, "r", now);
    let later = now + LIMITS.batching.window;
    let mut got = sent(&queue, later);
    assert_eq!(got[0], 0, "{got:?}");
    let of_room: Vec<u64> = got.iter().copied().filter(|offset| *offset != 2).collect();
    assert_eq!(of_room, [0, 1, 3]);
    got.sort_unstable();
    assert_eq!(got, [0, 1, 2, 3]);
}

#[tokio::test]
async fn a_comet_is_let_go_for_not_answering_about_what_is_kept_back_and_has_missed_it() {
    let partition = partition(0);
    let queue = queue(&partition);
    let now = Instant::now();
    say(&queue, &[], &[], now);
    owe_room(&queue, &partition, 0, "r", now);
    assert_eq!(look(&queue, now, now + LIMITS.stall).0, State::Open, "it was not asked yet");
    queue.tell(now + LIMITS.stall);
    assert_eq!(look(&queue, now + LIMITS.stall, now + LIMITS.stall * 2).0, State::LetGo);
    assert_eq!((partition.ledger.lock().committed(), queue.size()), (1, (0, 0, State::LetGo)));
    queue.unclaim();
    queue.all_away(now);
    queue.claimed(std::slice::from_ref(&partition));
    queue.retry();
    assert_eq!(word(&queue).unwrap().1, 1);
}

#[tokio::test]
async fn much_that_is_kept_back_is_asked_about_at_once() {
    let partition = partition(0);
    let queue = queue(&partition);
    let now = Instant::now();
    say(&queue, &[], &[], now);
    word(&queue);
    let message = PushMsg { r#type: 1, room: "r".into(), msg: vec![0; 600_000].into(), ..Default::default() };
    for offset in 0..2 {
        let push = Push::decode(&record(0, offset, &message), 1, now).unwrap();
        partition.ledger.lock().open(offset, 1);
        assert!(queue.push(&partition, Item { push: Arc::new(push), speed: 0 }, now));
        assert_eq!(word(&queue).map(|word| word.0.sent), (offset == 1).then_some(2));
    }
    queue.revoke(&partition);
    assert_eq!(queue.size(), (0, 0, State::Open));
}

/// Owes the comet half a mebibyte to a room.
fn owe_much(queue: &Queue, partition: &Arc<Partition>, offset: u64, room: &str, now: Instant) {
    let message = PushMsg { r#type: 1, room: room.into(), msg: vec![0; 512 * 1024].into(), ..Default::default() };
    let push = Push::decode(&record(partition.number, offset, &message), 1, now).unwrap();
    partition.ledger.lock().open(offset, 1);
    assert!(queue.push(partition, Item { push: Arc::new(push), speed: 0 }, now));
}

#[tokio::test]
async fn a_comet_lags_by_what_is_kept_back_long_before_it_is_let_go_for_that() {
    let partition = partition(0);
    let queue = queue(&partition);
    let now = Instant::now();
    say(&queue, &["r"], &[], now);
    let half_mebibytes = |bytes: usize| bytes as u64 / (512 * 1024);
    let quarter = half_mebibytes(LIMITS.backlog / 4);
    owe_much(&queue, &partition, 0, "r", now);
    (1..quarter).for_each(|offset| owe_much(&queue, &partition, offset, "s", now));
    assert_eq!(queue.pace(now), Pace::Lags, "it is asked about it, and answers");
    assert_eq!(queue.pace(now + SILENT), Pace::Hangs);
    let most = half_mebibytes(LIMITS.backlog * KEPT_BACK);
    (quarter..most).for_each(|offset| owe_much(&queue, &partition, offset, "s", now));
    assert_eq!(queue.size().2, State::Open);
    (most..most + 2).for_each(|offset| owe_much(&queue, &partition, offset, "s", now));
    assert_eq!(queue.size(), (0, 0, State::LetGo));
}

#[tokio::test]
async fn a_comet_from_which_little_is_kept_back_is_no_reason_to_read_on() {
    let partition = partition(0);
    let queue = queue(&partition);
    let now = Instant::now();
    say(&queue, &[], &[], now);
    owe_room(&queue, &partition, 0, "s", now);
    queue.tell(now);
    assert_eq!(queue.pace(now), Pace::Idle);
}

#[tokio::test]
async fn however_much_is_kept_back_the_comet_is_asked_about_it_once_a_mebibyte() {
    let partition = partition(0);
    let queue = queue(&partition);
    let now = Instant::now();
    say(&queue, &[], &[], now);
    word(&queue);
    let message = PushMsg { r#type: 1, room: "r".into(), msg: vec![0; 32 * 1024].into(), ..Default::default() };
    let mut asked = vec![];
    for offset in 0..320 {
        let push = Push::decode(&record(0, offset, &message), 1, now).unwrap();
        partition.ledger.lock().open(offset, 1);
        assert!(queue.push(&partition, Item { push: Arc::new(push), speed: 0 }, now));
        asked.extend(word(&queue).map(|(word, ..)| word));
    }
    assert!((9..=10).contains(&asked.len()), "{} questions about ten mebibytes", asked.len());
    asked.iter().for_each(|word| queue.told(word, now));
    let left = queue.size().0;
    assert!(left <= interest::ASK + 64 * 1024, "{left} bytes are kept back that were not asked about");
}

#[tokio::test]
async fn what_is_kept_back_when_a_comet_goes_is_no_loss() {
    let partition = partition(0);
    let metrics = Metrics::default();
    let queue = Queue::new(LIMITS, metrics.clone());
    queue.assign(&partition, 0);
    let now = Instant::now();
    say(&queue, &["r"], &[], now);
    (0..3).for_each(|offset| owe_room(&queue, &partition, offset, ["r", "s", "s"][offset as usize], now));
    queue.close("gone");
    assert_eq!(partition.ledger.lock().committed(), 3);
    assert_eq!(metrics.dropped.get_or_create(&Reason { reason: "gone" }).get(), 1);
}

#[tokio::test]
async fn a_comet_that_answers_one_word_and_falls_silent_about_the_next_is_let_go() {
    let partition = partition(0);
    let queue = queue(&partition);
    let now = Instant::now();
    say(&queue, &[], &[], now);
    word(&queue);
    owe_room(&queue, &partition, 0, "r", now);
    queue.tell(now);
    let (first, ..) = word(&queue).unwrap();
    owe_room(&queue, &partition, 1, "r", now);
    queue.tell(now);
    word(&queue).unwrap();
    queue.told(&first, now);
    assert_eq!(look(&queue, now, now + LIMITS.stall).0, State::LetGo);
}
