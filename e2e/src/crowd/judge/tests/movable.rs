//! Clients that can move.

use super::*;
use crate::crowd::{Told, Wire};

/// A client that saw these 50 ms after they were sent, and went on elsewhere: it was let in there 100 ms before number 4 was
/// sent, and that took over 100 ms after.
fn mover(numbers: &[u32]) -> Life {
    let mut life = Life { movable: true, ..life(&[], numbers) };
    life.move_to(1, at(4900), at(0), at(5100));
    life
}

/// The same, and then it sees these at these times.
fn and_then(mut mover: Life, later: &[(u32, u64)]) -> Life {
    let later = later.iter().map(|(number, millis)| {
        let micros = (at(*millis) - push(*number).due).as_micros() as u32;
        Arrival { number: *number, micros }
    });
    mover.seen.get_mut(&STREAM).unwrap().extend(later);
    mover
}

#[test]
fn who_moves_was_never_out() {
    let report = judged(vec![mover(&ALL)]);
    assert!(report.faults.is_empty(), "{report}");
    let (moves, pushes) = (&report.total.moves, &report.total.pushes);
    assert_eq!((moves.moved, moves.closes, moves.reconnects, moves.cut), (1, 0, 0, 0));
    assert_eq!((moves.gaps.max, moves.out), (at(0), at(0)));
    assert_eq!((pushes.expected, pushes.delivered, pushes.excused, pushes.across), (10, 10, 0, 0));
}

#[test]
fn what_who_moves_was_not_given_is_lost_whenever_it_was_sent() {
    for missing in 0..10_u32 {
        let numbers: Vec<u32> = (0..10).filter(|number| *number != missing).collect();
        let report = judged(vec![mover(&numbers), life(&[], &ALL)]);
        assert_eq!((report.total.pushes.lost, report.total.pushes.excused), (1, 0), "{missing}: {report}");
        assert!(report.faults[0].contains("1 deliveries lost"), "{report}");
    }
}

#[test]
fn what_who_moves_hands_out_again_where_it_goes_on_is_a_repeat() {
    let rest = [(5, 6050), (6, 7050), (7, 8050), (8, 9050), (9, 10_050)];
    for again in [&[(4, 5150)][..], &[(2, 5150)], &[(2, 5150), (3, 5160)]] {
        let report = judged(vec![and_then(mover(&[0, 1, 2, 3, 4]), &[again, &rest].concat())]);
        let pushes = &report.total.pushes;
        assert_eq!((pushes.repeats as usize, pushes.across, pushes.delivered), (again.len(), 0, 10), "{report}");
        assert!(report.faults[0].contains("deliveries repeated"), "{report}");
        assert!(report.to_string().contains("at server 1: Room(3) number"), "{report}");
    }
}

#[test]
fn what_was_left_behind_and_is_handed_out_after_what_followed_is_an_inversion() {
    let rest = [(6, 7050), (7, 8050), (8, 9050), (9, 10_050)];
    let report = judged(vec![and_then(mover(&[0, 1, 2, 3, 5]), &[[(4, 6100)].as_slice(), &rest].concat())]);
    assert_eq!((report.total.pushes.inversions, report.total.pushes.lost), (1, 0), "{report}");
    assert!(report.faults[0].contains("1 deliveries out of order"), "{report}");
}

#[test]
fn who_can_move_and_is_closed_is_a_fault_though_what_it_missed_is_excused() {
    let closed = Life { movable: true, ..life(&[(4500, 5500)], &BUT_4) };
    let report = judged(vec![closed.clone(), life(&[(4500, 5500)], &BUT_4)]);
    let moves = &report.total.moves;
    assert_eq!((moves.closes, moves.cut, moves.moved), (2, 1, 0), "{report}");
    assert_eq!((report.total.pushes.excused, report.total.pushes.lost), (2, 0), "{report}");
    assert_eq!(report.faults.len(), 1, "{report}");
    assert!(report.faults[0].contains("1 closes of clients that can move: at most 0 are allowed"), "{report}");
    let allowed = judge(&record(vec![closed]), &Limits { cut: 1, ..LIMITS });
    assert!(allowed.faults.is_empty(), "{allowed}");
}

#[test]
fn who_leaves_by_himself_need_not_move() {
    let mut restless = Life { movable: true, ..life(&[(4500, 5500)], &BUT_4) };
    restless.stays[0].ended = Some((at(4500), End::Left));
    let report = judged(vec![restless, life(&[], &ALL)]);
    assert!(report.faults.is_empty() && report.total.moves.cut == 0, "{report}");
}

#[test]
fn the_gap_of_who_moved_before_excuses_what_touches_it_and_what_it_saw_before_may_come_again() {
    let mut life = mover(&[0, 1, 2, 3, 4, 5, 6]);
    life.stays[1].ended = Some((at(7800), End::Closed(Some(1012))));
    life.stays.push(Stay { server: 0, entered: at(8200), took: at(0), ended: None });
    assert_eq!((life.visit(0), life.visit(1), life.visit(2), life.gaps().len()), (0, 0, 1, 1));
    // Number 7 is sent in the gap; number 6 was there before it.
    let report = judged(vec![and_then(life, &[(6, 8300), (8, 9050), (9, 10_050)])]);
    let pushes = &report.total.pushes;
    assert_eq!((pushes.excused, pushes.lost, pushes.repeats, pushes.across), (1, 0, 0, 1), "{report}");
    assert_eq!((report.total.moves.moved, report.total.moves.cut), (1, 1), "{report}");
}

#[test]
fn being_told_of_a_gap_is_a_fault_of_its_phase() {
    let mut told = life(&[], &ALL);
    told.told = [2000, 4000].map(|millis| Told { at: at(millis), reason: "slow".to_owned(), dropped: 1 }).to_vec();
    let mut record = record(vec![told]);
    record.marks = vec![Mark { at: at(3000), name: "scaled to 2".to_owned() }];
    let report = judge(&record, &LIMITS);
    assert_eq!((report.phases[1].moves.told, report.total.moves.told), (1, 2));
    assert!(report.faults[1].starts_with("scaled to 2: 1 times clients were told of a gap"), "{report}");
}

#[test]
fn moves_count_beside_closes_and_reconnects_in_any_window() {
    let moves_at = |millis: u64| {
        let mut life = Life { movable: true, ..life(&[], &ALL) };
        life.move_to(1, at(millis), at(0), at(millis + 500));
        life
    };
    let crowd = |apart: u64| -> Vec<Life> {
        let each = |n: u64| match n % 2 {
            0 => moves_at(11_000 + n * apart),
            _ => life(&[(11_000 + n * apart, 11_000 + n * apart)], &ALL),
        };
        (0..25).map(each).collect()
    };
    let (as_allowed, too_fast) = (judged(crowd(500)), judged(crowd(499)));
    assert!(as_allowed.faults.is_empty(), "{as_allowed}");
    let moves = &as_allowed.total.moves;
    assert_eq!((moves.moved, moves.closes, moves.most_closes, moves.most_reconnects), (13, 12, 10, 10));
    assert!(too_fast.faults[0].starts_with("11 closes and moves within 5s"), "{too_fast}");
    assert!(too_fast.faults[1].starts_with("11 reconnects and moves within 5s"), "{too_fast}");
}

#[test]
fn what_came_again_and_was_dropped_is_told_and_is_no_fault() {
    let report = judged(vec![Life { again: 2, ..mover(&ALL) }, life(&[], &ALL)]);
    assert_eq!(report.wire, Wire { given: 12, again: 2 });
    assert!(report.faults.is_empty(), "{report}");
    assert!(report.to_string().contains("2 of 12 came again to clients that can move (16.667 %)"), "{report}");
}
