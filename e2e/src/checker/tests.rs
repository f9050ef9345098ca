use super::*;

const RUN: u32 = 1;

fn body(stream: u32, number: u32, due: Duration) -> Vec<u8> {
    let mut body = Vec::new();
    Stamp { run: RUN, stream, number, due }.encode(64, &mut body);
    body
}

/// Offers `count` pushes on stream 1 and lets one receiver see `numbers` in this order.
fn seen(count: u32, refused: &[u32], numbers: &[u32]) -> Verdict {
    let (mut offered, mut receiver, mut tally) = (Offered::default(), Receiver::new(&[1]), Tally::new(RUN));
    for _ in 0..count {
        offered.number(1);
    }
    for number in refused {
        offered.refuse(1, *number);
    }
    for number in numbers {
        receiver.note(&body(1, *number, Duration::ZERO), Duration::from_millis(2), &mut tally);
    }
    judge(&offered, [&receiver], &tally)
}

#[test]
fn everything_once_and_in_order_is_no_fault() {
    let verdict = seen(5, &[], &[0, 1, 2, 3, 4]);
    assert_eq!((verdict.expected, verdict.delivered, verdict.lost), (5, 5, 0));
    assert_eq!((verdict.repeats, verdict.inversions, verdict.strays), (0, 0, 0));
}

#[test]
fn a_number_that_never_comes_is_lost_wherever_it_stood() {
    assert_eq!(seen(5, &[], &[1, 2, 3, 4]).lost, 1);
    assert_eq!(seen(5, &[], &[0, 1, 3, 4]).lost, 1);
    assert_eq!(seen(5, &[], &[0, 1, 2, 3]).lost, 1);
    assert_eq!(seen(5, &[], &[]).lost, 5);
}

#[test]
fn a_late_number_is_an_inversion_and_not_a_loss() {
    let verdict = seen(5, &[], &[0, 4, 2, 1, 3]);
    assert_eq!((verdict.delivered, verdict.lost, verdict.inversions, verdict.repeats), (5, 0, 3, 0));
}

#[test]
fn a_number_that_comes_again_is_a_repeat_and_counts_once() {
    let verdict = seen(3, &[], &[0, 1, 1, 0, 2, 2]);
    assert_eq!((verdict.delivered, verdict.lost, verdict.inversions, verdict.repeats), (3, 0, 0, 3));
    let late = seen(3, &[], &[2, 0, 0, 1]);
    assert_eq!((late.delivered, late.inversions, late.repeats), (3, 2, 1));
}

#[test]
fn a_refused_push_is_neither_expected_nor_lost_and_may_come() {
    let verdict = seen(4, &[1, 3], &[0, 2]);
    assert_eq!((verdict.accepted, verdict.refused, verdict.expected, verdict.lost), (2, 2, 2, 0));
    assert_eq!(seen(4, &[1, 3], &[0, 1]).lost, 1);
}

#[test]
fn a_push_to_somebody_else_is_a_stray_and_another_run_is_foreign() {
    let (mut receiver, mut tally) = (Receiver::new(&[1]), Tally::new(RUN));
    receiver.note(&body(2, 0, Duration::ZERO), Duration::ZERO, &mut tally);
    receiver.note(b"hello", Duration::ZERO, &mut tally);
    let mut earlier = body(1, 0, Duration::ZERO);
    earlier[7] = 9;
    receiver.note(&earlier, Duration::ZERO, &mut tally);
    assert_eq!((tally.strays, tally.foreign, tally.delivered), (1, 2, 0));
}

#[test]
fn latency_counts_from_when_the_push_was_due() {
    let (mut receiver, mut tally) = (Receiver::new(&[1]), Tally::new(RUN));
    for number in 0..100 {
        let due = Duration::from_millis(10 * u64::from(number));
        let waited = if number < 95 { Duration::from_millis(1) } else { Duration::from_millis(50) };
        receiver.note(&body(1, number, due), due + waited, &mut tally);
    }
    let mut all = Tally::new(RUN);
    all.merge(&tally);
    let latency = all.latency();
    assert!((990..=1_010).contains(&latency.p50_us), "{latency:?}");
    assert!((49_000..=51_000).contains(&latency.p99_us), "{latency:?}");
}
