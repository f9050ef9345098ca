mod movable;

use super::*;
use crate::bench::push::Pushed;
use crate::crowd::{Arrival, End, Life, Mark, Stay, Told};

const STREAM: u32 = 3;
const LIMITS: Limits = Limits {
    window: Duration::from_secs(5),
    moves: 10,
    closes_each: 2,
    cut: 0,
    told: 0,
    gap: Duration::from_secs(10),
    on_its_way: Duration::from_secs(2),
};

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Push n is sent at second n + 1 and answered 10 ms later.
fn push(number: u32) -> Pushed {
    let sent = at(1000 * (u64::from(number) + 1));
    Pushed { stream: STREAM, number, due: sent, sent, answered: sent + at(10), accepted: true, records: 1 }
}

/// A client that was in from the start but for these gaps, and sees these pushes 50 ms after they were sent.
fn life(gaps: &[(u64, u64)], numbers: &[u32]) -> Life {
    let mut life = Life::new(vec![STREAM]);
    life.stays.push(Stay { server: 0, entered: at(0), took: at(0), ended: None });
    for (from, to) in gaps {
        life.stays.last_mut().unwrap().ended = Some((at(*from), End::Closed(Some(1012))));
        life.stays.push(Stay { server: 0, entered: at(*to), took: at(0), ended: None });
    }
    let arrivals = numbers.iter().map(|number| Arrival { number: *number, micros: 50_000 }).collect();
    life.seen.insert(STREAM, arrivals);
    life
}

/// Ten pushes, and these clients.
fn record(lives: Vec<Life>) -> Record {
    let pushed = (0..10).map(push).collect();
    let (marks, reasons) = (Vec::new(), Default::default());
    Record { began: at(0), ended: at(30_000), marks, lives, pushed, reasons }
}

fn judged(lives: Vec<Life>) -> Report {
    judge(&record(lives), &LIMITS)
}

const ALL: [u32; 10] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];
/// All but number 4, which is sent at 5.000 s and, as others have it at 5.050 s and everything takes 50 ms, may come until
/// 5.100 s.
const BUT_4: [u32; 9] = [0, 1, 2, 3, 5, 6, 7, 8, 9];

#[test]
fn everything_once_and_in_order_is_no_fault() {
    let report = judged(vec![life(&[], &ALL), life(&[(4500, 5500)], &ALL)]);
    assert!(report.faults.is_empty(), "{report}");
    let pushes = &report.total.pushes;
    assert_eq!((pushes.accepted, pushes.expected, pushes.delivered), (10, 20, 20));
    assert_eq!((pushes.excused, pushes.lost, pushes.across), (0, 0, 0));
    assert!((49_900..=50_100).contains(&pushes.latency.p50_us), "{report}");
}

#[test]
fn a_push_lost_outside_of_a_gap_is_a_fault_whoever_else_was_out() {
    let out_at_the_time = life(&[(4500, 5500)], &ALL);
    for gaps in [&[][..], &[(1500, 2500)], &[(7500, 8500)], &[(1500, 2500), (7500, 8500)]] {
        let report = judged(vec![life(gaps, &BUT_4), out_at_the_time.clone()]);
        assert_eq!((report.total.pushes.lost, report.total.pushes.excused), (1, 0), "{report}");
        assert_eq!((report.losses[0].client, report.losses[0].push), (0, push(4)));
        assert!(report.faults[0].contains("1 deliveries lost"), "{report}");
        assert!(report.to_string().contains("lost by client 0: Room(3) number 4, sent at 5.000 s"), "{report}");
    }
}

#[test]
fn a_push_lost_inside_of_a_gap_is_excused() {
    for gaps in [&[(4500, 5500)][..], &[(1500, 2500), (4900, 5020)], &[(5020, 5500)]] {
        let report = judged(vec![life(gaps, &BUT_4), life(&[], &ALL)]);
        assert!(report.faults.is_empty(), "{report}");
        assert_eq!((report.total.pushes.expected, report.total.pushes.delivered), (20, 19));
        assert_eq!((report.total.pushes.lost, report.total.pushes.excused), (0, 1), "{report}");
    }
}

#[test]
fn a_gap_excuses_what_touches_it_and_nothing_beside_it() {
    let lost = |gap| judged(vec![life(&[gap], &BUT_4), life(&[], &ALL)]).total.pushes.lost;
    assert_eq!((lost((4000, 4999)), lost((4000, 5000))), (1, 0));
    assert_eq!((lost((5100, 5500)), lost((5101, 5500))), (0, 1));
}

#[test]
fn who_never_came_back_is_excused_for_all_that_followed() {
    let mut gone = life(&[], &[0, 1, 2, 3]);
    gone.stays[0].ended = Some((at(4500), End::Broken));
    let report = judged(vec![gone]);
    assert_eq!((report.total.pushes.excused, report.total.pushes.lost), (6, 0), "{report}");
    assert_eq!((report.total.moves.gaps.max, report.total.moves.reconnects), (at(25_500), 0));
    assert!(report.faults[0].contains("client 0 was out for 25.5s"), "{report}");
}

/// Number 4 and 5 are not there, and 5 was sent while the client was out.
const BUT_4_AND_5: [u32; 8] = [0, 1, 2, 3, 6, 7, 8, 9];

/// A client that saw everything, one of it so late.
fn slow(number: usize, micros: u32) -> Life {
    let mut slow = life(&[], &ALL);
    slow.seen.get_mut(&STREAM).unwrap()[number].micros = micros;
    slow
}

#[test]
fn a_push_is_given_as_long_as_the_slowest_took_and_two_seconds_at_most() {
    let judged = |micros| judged(vec![life(&[(6050, 6500)], &BUT_4_AND_5), slow(9, micros)]);
    let (within, beyond) = (judged(1_000_000), judged(999_000));
    assert_eq!((within.on_its_way, within.total.pushes.lost), (at(1000), 0));
    assert_eq!((beyond.on_its_way, beyond.total.pushes.lost), (at(999), 1));
    assert_eq!(judged(8_000_000).on_its_way, at(2000));
}

const PATIENT: Limits = Limits { on_its_way: Duration::from_secs(30), ..LIMITS };

#[test]
fn what_others_of_the_same_server_had_long_ago_is_lost_however_slow_another_push_was() {
    // Number 4 was there 2.45 s before the gap began, 5 and 6 less than 2 s, and 7 was sent in it.
    let lost = |neighbour| {
        let lives = vec![life(&[(7500, 8500)], &[0, 1, 2, 3, 8, 9]), neighbour];
        judge(&record(lives), &PATIENT).total.pushes.lost
    };
    let (here, mut elsewhere) = (slow(9, 8_000_000), slow(9, 8_000_000));
    elsewhere.stays[0].server = 1;
    assert_eq!((lost(here), lost(elsewhere)), (1, 0));
}

#[test]
fn what_no_other_was_to_have_is_given_as_long_as_the_slowest_of_its_time() {
    const OTHER: u32 = 4;
    let lost = |slow_at| {
        let mut alone = life(&[(7500, 8500)], &[0, 1, 2, 3, 8, 9]);
        alone.streams.push(OTHER);
        // Something of the same second as number 4 has come, so the server was not cut off; and something took 8 s.
        let (prompt, slow) = (Arrival { number: 0, micros: 50_000 }, Arrival { number: 1, micros: 8_000_000 });
        alone.seen.insert(OTHER, vec![prompt, slow]);
        let mut record = record(vec![alone]);
        for (number, sent) in [(0, at(5200)), (1, at(slow_at))] {
            record.pushed.push(Pushed { stream: OTHER, number, due: sent, sent, answered: sent, ..push(0) });
        }
        judge(&record, &PATIENT).total.pushes.lost
    };
    assert_eq!((lost(15_999), lost(16_000)), (0, 1));
}

#[test]
fn what_was_overtaken_on_a_connection_is_not_excused_by_the_end_of_it() {
    let lost = |gap| judged(vec![life(&[gap], &BUT_4), slow(9, 2_000_000)]).total.pushes.lost;
    // Number 5 comes at 6.050 s: to the next connection, or to the one that number 4 should have come to.
    assert_eq!((lost((5900, 6000)), lost((6060, 6500))), (0, 1));
}

#[test]
fn only_accepted_pushes_of_the_clients_own_time_are_expected() {
    let mut late = life(&[], &[2, 3, 5, 6, 7]);
    late.stays[0].entered = at(2500);
    let mut record = record(vec![late]);
    record.pushed[4].accepted = false;
    record.ended = at(8500);
    let report = judge(&record, &LIMITS);
    assert!(report.faults.is_empty(), "{report}");
    assert_eq!((report.total.pushes.accepted, report.total.pushes.refused), (9, 1));
    assert_eq!((report.total.pushes.expected, report.total.pushes.delivered), (5, 5), "{report}");
}

/// A client that was out for a moment and then sees these pushes once more, or late, on its new connection.
fn back_and(seen: &[u32], then: &[(u32, u64)]) -> Report {
    let mut life = life(&[(6200, 6300)], seen);
    let later = then.iter().map(|(number, at_ms)| {
        let micros = (at(*at_ms) - push(*number).due).as_micros() as u32;
        Arrival { number: *number, micros }
    });
    life.seen.get_mut(&STREAM).unwrap().extend(later);
    judged(vec![life])
}

#[test]
fn a_repeat_is_a_fault_unless_a_connection_lies_between() {
    let again = [0, 1, 2, 3, 4, 4, 5, 6, 7, 8, 9];
    for gaps in [&[][..], &[(5060, 5300)], &[(7500, 8500)]] {
        let report = judged(vec![life(gaps, &again)]);
        assert_eq!((report.total.pushes.repeats, report.total.pushes.delivered), (1, 10));
        assert!(report.faults[0].contains("1 deliveries repeated"), "{report}");
        let shown =
            "number 4, sent at 5.000 s, accepted at 5.010 s, came at 5.050 s again, for the first time at 5.050 s";
        assert!(report.to_string().contains(shown), "{report}");
    }
    let rest = [(6, 7050), (7, 8050), (8, 9050), (9, 10_050)];
    let report = back_and(&[0, 1, 2, 3, 4, 5], &[[(4, 6400)].as_slice(), &rest].concat());
    assert!(report.faults.is_empty(), "{report}");
    assert_eq!((report.total.pushes.repeats, report.total.pushes.across), (0, 1));
    let report = back_and(&[0, 1, 2, 3, 4, 5], &[[(4, 6400), (4, 6500)].as_slice(), &rest].concat());
    assert_eq!((report.total.pushes.repeats, report.total.pushes.across), (1, 1));
}

#[test]
fn an_inversion_is_a_fault_unless_a_connection_lies_between() {
    let late = [0, 1, 2, 3, 5, 4, 6, 7, 8, 9];
    let report = judged(vec![life(&[], &late)]);
    assert_eq!((report.total.pushes.inversions, report.total.pushes.delivered), (1, 10));
    assert!(report.faults[0].contains("1 deliveries out of order"), "{report}");
    assert!(report.to_string().contains("came at 5.050 s after a later one"), "{report}");
    let rest = [(6, 7050), (7, 8050), (8, 9050), (9, 10_050)];
    let report = back_and(&[0, 1, 2, 3, 5], &[[(4, 6400)].as_slice(), &rest].concat());
    assert!(report.faults.is_empty(), "{report}");
    assert_eq!((report.total.pushes.inversions, report.total.pushes.across), (0, 1));
    let report = back_and(&[0, 1, 2, 3], &[[(5, 6400), (4, 6500)].as_slice(), &rest].concat());
    assert_eq!((report.total.pushes.inversions, report.total.pushes.across), (1, 0), "{report}");
}

#[test]
fn what_nobody_sent_to_a_client_is_a_fault() {
    let mut wrong = life(&[], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 77]);
    wrong.seen.insert(4, vec![Arrival { number: 0, micros: 1 }]);
    let report = judged(vec![wrong]);
    assert_eq!((report.strays, report.total.pushes.delivered), (2, 10), "{report}");
    assert_eq!(report.faults.len(), 1, "{report}");
}

/// Clients that are closed one after the other, so far apart, and are out for half a second.
fn closed_every(millis: u64, clients: u64) -> Report {
    let lives = (0..clients).map(|n| life(&[(11_000 + n * millis, 11_500 + n * millis)], &ALL));
    judged(lives.collect())
}

#[test]
fn too_many_closes_or_reconnects_in_any_window_are_a_fault() {
    let (as_allowed, too_fast) = (closed_every(500, 25), closed_every(499, 25));
    assert!(as_allowed.faults.is_empty(), "{as_allowed}");
    let moves = &as_allowed.total.moves;
    assert_eq!((moves.closes, moves.reconnects, moves.most_closes, moves.most_reconnects), (25, 25, 10, 10));
    assert_eq!((too_fast.total.moves.most_closes, too_fast.total.moves.most_reconnects), (11, 11));
    assert!(too_fast.faults[0].starts_with("11 closes and moves within 5s"), "{too_fast}");
    assert!(too_fast.faults[1].starts_with("11 reconnects and moves within 5s"), "{too_fast}");
}

#[test]
fn reconnects_are_counted_apart_from_the_closes_before_them() {
    // Closed as slowly as allowed, but all back at the same moment.
    let report = judged((0..11).map(|n| life(&[(11_000 + n * 500, 17_000)], &ALL)).collect());
    assert_eq!((report.total.moves.most_closes, report.total.moves.most_reconnects), (10, 11));
    assert_eq!(report.faults.len(), 1, "{report}");
}

#[test]
fn a_gap_that_is_too_long_is_a_fault() {
    assert!(judged(vec![life(&[(11_000, 21_000)], &ALL)]).faults.is_empty());
    let report = judged(vec![life(&[], &ALL), life(&[(11_000, 21_001)], &ALL)]);
    assert_eq!(report.total.moves.gaps.max, at(10_001));
    assert!(report.faults[0].contains("client 1 was out for 10.0s"), "{report}");
}

#[test]
fn a_client_closed_three_times_in_a_phase_is_a_fault_and_twice_in_each_of_two_is_none() {
    let often = [(11_000, 11_500), (16_000, 16_500), (21_000, 21_500)];
    let report = judged(vec![life(&[], &ALL), life(&often, &ALL)]);
    assert_eq!(report.total.moves.worst, Some((1, 3)));
    assert!(report.faults[0].contains("client 1 was closed 3 times"), "{report}");
    let mut record = record(vec![life(&often, &ALL)]);
    record.marks = vec![Mark { at: at(16_000), name: "image changed".to_owned() }];
    let report = judge(&record, &LIMITS);
    assert!(report.faults.is_empty(), "{report}");
    assert_eq!(report.phases.iter().map(|phase| phase.moves.closes).collect::<Vec<_>>(), [1, 2]);
}

/// A client that never saw number 4, sent at 5 s, and was told of a gap then.
fn told(at_ms: u64, seen: &[u32]) -> Report {
    let mut life = life(&[], seen);
    life.told.push(Told { at: at(at_ms), reason: "missed".to_owned(), dropped: 9 });
    judged(vec![life])
}

#[test]
fn what_a_client_was_told_that_it_was_not_given_is_no_loss_and_everything_else_is() {
    let counts = |report: &Report| (report.total.pushes.told, report.total.pushes.lost, report.total.pushes.delivered);
    // Number 5 comes at 6.050 s.
    for in_time in [5000, 6000, 6049] {
        let report = told(in_time, &BUT_4);
        assert_eq!(counts(&report), (1, 0, 9), "{report}");
        assert!(!report.faults.iter().any(|fault| fault.contains("lost")), "{report}");
    }
    for other in [4999, 6050, 9000] {
        let report = told(other, &BUT_4);
        assert_eq!(counts(&report), (0, 1, 9), "told before it was sent, or after it was overtaken: {report}");
    }
    assert_eq!(counts(&told(5999, &BUT_4_AND_5)), (1, 1, 8), "number 5 was sent at 6 s");
    assert_eq!(counts(&told(7049, &BUT_4_AND_5)), (2, 0, 8));
    assert_eq!(counts(&told(7049, &ALL)), (0, 0, 10));
}

#[test]
fn who_leaves_by_himself_was_not_closed_but_is_excused() {
    let mut restless = life(&[(4500, 29_000)], &BUT_4[..4]);
    restless.stays[0].ended = Some((at(4500), End::Left));
    let report = judged(vec![restless]);
    assert!(report.faults.is_empty(), "{report}");
    let moves = &report.total.moves;
    assert_eq!((moves.left, moves.closes, moves.reconnects, moves.gaps.max), (1, 0, 0, at(0)));
    assert_eq!((report.total.pushes.excused, report.total.pushes.lost), (6, 0));
}

#[test]
fn the_table_has_a_column_per_phase_and_counts_a_push_where_it_was_sent() {
    let mut record = record(vec![life(&[(4500, 5500)], &BUT_4)]);
    record.marks = vec![
        Mark { at: at(3500), name: "scaled to 3".to_owned() },
        Mark { at: at(8500), name: "image changed".to_owned() },
    ];
    let report = judge(&record, &LIMITS);
    let of = |count: fn(&Pushes) -> u64| report.phases.iter().map(|phase| count(&phase.pushes)).collect::<Vec<_>>();
    assert_eq!((of(|p| p.accepted), of(|p| p.excused)), (vec![3, 5, 2], vec![0, 1, 0]));
    let text = report.to_string();
    let row = |name: &str| text.lines().find(|line| line.contains(name)).unwrap().split('|').count();
    assert!(["1 clients", "lost", "latency max"].iter().all(|name| row(name) == 7), "{text}");
    assert!(text.contains("scaled to 3 | image changed | all of it |") && text.ends_with("no fault"), "{text}");
}

#[test]
fn the_limits_of_a_rate_are_a_tenth_more() {
    assert_eq!(Limits::of_rate(100).moves, 550);
}
