use super::*;
use crate::bench::stream::Address;
use crate::chaos::{Blow, Deed, Others, Victim};
use crate::crowd::{Arrival, End, Life, Limits, Stay, Told, judge};

fn at(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// From second 100 to second 105.
fn suffered(deed: Deed, victim: Victim) -> Suffered {
    let blow = Blow { deed, victim, lasts: at(5) };
    Suffered { blow, from: at(100), to: at(105), forgets: (victim == Victim::Redis).then(|| at(100)..at(115)) }
}

fn push(sent: u64, records: u64) -> Pushed {
    let (stream, sent) = (Address::Key(3).stream(), at(sent));
    Pushed { stream, number: sent.as_secs() as u32, due: sent, sent, answered: sent, accepted: true, records }
}

#[test]
fn a_push_after_a_failover_is_owed_unless_its_answer_said_that_it_is_for_nobody() {
    let failover = [suffered(Deed::Kill, Victim::Redis), suffered(Deed::Kill, Victim::Logic(0))];
    let mut pushed =
        [push(99, 0), push(100, 0), push(107, 1), push(107, 0), push(114, 0), push(114, 2), push(115, 0), push(115, 1)];
    pushed[4].accepted = false;
    assert_eq!(forgive(&mut pushed, &failover), 2);
    let owed = pushed.map(|push| push.accepted);
    assert_eq!(owed, [true, false, true, false, false, true, true, true]);
    assert_eq!(forgive(&mut [push(107, 0)], &failover[1..]), 0, "only a failover forgets");
}

#[test]
fn a_connection_may_end_by_what_befell_its_own_comet_and_by_nothing_else() {
    let (comet, job) = (Victim::Comet(1), Victim::Job(0));
    let ends = |deed, victim, time| suffered(deed, victim).ends(1, at(time));
    // At once, soon after it is over, and long after.
    for (deed, victim, wanted) in [
        (Deed::Kill, comet, [true, true, false]),
        (Deed::Freeze, comet, [true, true, true]),
        (Deed::Cut(Others::All), comet, [true, true, true]),
        (Deed::Cut(Others::All), job, [true, true, true]),
        (Deed::Cut(Others::One(job)), comet, [true, true, true]),
        (Deed::Cut(Others::One(comet)), job, [true, true, true]),
        (Deed::Cut(Others::One(Victim::Comet(0))), job, [false; 3]),
        (Deed::Cut(Others::One(Victim::Logic(0))), comet, [false; 3]),
        (Deed::Cut(Others::One(Victim::Broker(0))), job, [false; 3]),
        (Deed::Late(Others::All), comet, [false; 3]),
        (Deed::Clog, comet, [false; 3]),
        (Deed::Jump(60), comet, [false; 3]),
        (Deed::Kill, job, [false; 3]),
        (Deed::Kill, Victim::Comet(0), [false; 3]),
    ] {
        assert_eq!([101, 108, 130].map(|time| ends(deed, victim, time)), wanted, "{deed:?} {victim:?}");
        assert!(!ends(deed, victim, 99) && !ends(deed, victim, 136), "{deed:?} {victim:?}");
    }
}

/// A client at a comet from second 50 on, that has a push each second but those from 101 to 104, and was told so.
fn record(comet: usize, told: bool, pushes: u64) -> Record {
    let pushed: Vec<_> = (60..60 + pushes).map(|sent| push(sent, 1)).collect();
    let mut life = Life::new(vec![pushed[0].stream]);
    life.stays.push(Stay { server: comet, entered: at(50), took: at(0), ended: None });
    let seen = pushed.iter().filter(|push| !(101..105).contains(&push.number));
    life.seen.insert(pushed[0].stream, seen.map(|push| Arrival { number: push.number, micros: 1 }).collect());
    if told {
        life.told.push(Told { at: Duration::from_millis(104_500), reason: "missed".to_owned(), dropped: 12 });
    }
    let (marks, reasons) = (Vec::new(), BTreeMap::new());
    Record { began: at(50), ended: at(70 + pushes), marks, lives: vec![life], pushed, reasons }
}

fn judged(record: &Record, suffered: &[Suffered]) -> Vec<String> {
    let limits = Limits { on_its_way: at(30), told: usize::MAX, ..Limits::of_rate(100) };
    let report = judge(record, &limits);
    report.faults.iter().cloned().chain(faults(record, &report, suffered)).collect()
}

#[test]
fn a_gap_is_told_by_a_comet_that_was_let_go_and_by_no_other() {
    let frozen = [suffered(Deed::Freeze, Victim::Comet(1))];
    assert!(judged(&record(1, true, 100), &frozen).is_empty());
    assert!(judged(&record(1, false, 100), &frozen)[0].contains("4 deliveries lost"), "it was told nothing");
    let elsewhere = judged(&record(0, true, 100), &frozen);
    assert_eq!(elsewhere, ["client 0 was told by comet1 of a gap at 54.5 s: missed"]);
    assert_eq!(gaps(&record(1, true, 100)), ["comet2 told 1 clients at 54 s: missed, 12 messages"]);
}

#[test]
fn in_a_long_run_one_delivery_in_a_thousand_may_be_told_of() {
    let frozen = [suffered(Deed::Freeze, Victim::Comet(1))];
    assert!(judged(&record(1, true, 4000), &frozen).is_empty());
    let many = judged(&record(1, true, 3999), &frozen);
    assert_eq!(many, ["clients were told of 4 that they were not given, of 3 they may be"]);
}

#[test]
fn a_connection_that_nothing_befell_may_not_end() {
    let mut record = record(1, true, 100);
    record.lives[0].stays[0].ended = Some((at(104), End::Closed(Some(1013))));
    record.lives[0].stays.push(Stay { server: 4, entered: at(105), took: at(0), ended: None });
    record.lives[0].told.clear();
    assert!(judged(&record, &[suffered(Deed::Freeze, Victim::Comet(1))]).is_empty());
    let faults = judged(&record, &[suffered(Deed::Freeze, Victim::Comet(2))]);
    assert_eq!(faults, ["client 0 lost its connection to comet2 at 54.0 s: Closed(Some(1013))"]);
}

#[test]
fn who_came_back_may_be_told_of_what_was_sent_to_where_it_had_been() {
    let suffered = [suffered(Deed::Kill, Victim::Comet(1))];
    let told = |reason: &str, seconds: u64| {
        let mut record = record(1, false, 100);
        record.lives[0].stays[0].ended = Some((at(101), End::Broken));
        record.lives[0].stays.push(Stay { server: 3, entered: at(105), took: at(0), ended: None });
        record.lives[0].told.push(Told { at: at(seconds), reason: reason.to_owned(), dropped: 1 });
        judged(&record, &suffered)
    };
    assert_eq!(told("overtaken", 106), Vec::<String>::new());
    assert_eq!(told("overtaken", 130), ["client 0 was told by comet1 of a gap at 80.0 s: overtaken"]);
    assert_eq!(told("missed", 106), ["client 0 was told by comet1 of a gap at 56.0 s: missed"]);
}
