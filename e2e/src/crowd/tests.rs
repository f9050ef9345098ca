use std::collections::BTreeSet;

use super::*;
use crate::bench::stream::Address;
use crate::scripted::{Fault, ScriptedComet};

const SOON: Duration = Duration::from_secs(30);
const STREAM: u32 = 0;

/// Ten clients of one room.
fn plan(comet: &ScriptedComet, scheme: &str) -> Plan {
    Plan { patience: SOON, ..Plan::new(vec![comet.target(scheme)], 10, 1) }
}

/// Gives push `number` to everybody who is in, and says so.
fn push(comet: &ScriptedComet, number: u32) -> Pushed {
    let now = os::monotonic();
    comet.push(1, STREAM, number, now);
    Pushed { stream: STREAM, number, due: now, sent: now, answered: now, accepted: true, records: 1 }
}

async fn arrived(crowd: &Crowd, wanted: u64) {
    eventually(SOON, &format!("{wanted} arrivals"), || async { crowd.arrivals() >= wanted }).await.unwrap();
}

#[tokio::test]
async fn who_is_closed_comes_back_and_lost_only_what_was_sent_meanwhile() {
    for (scheme, code) in [("tcp", None), ("ws", Some(1012))] {
        let comet = ScriptedComet::start(Fault::None).await;
        let crowd = Crowd::connect(plan(&comet, scheme), &Handle::current()).await.unwrap();
        assert_eq!(crowd.inside(), 10);
        let mut pushed = vec![push(&comet, 0)];
        arrived(&crowd, 10).await;
        crowd.mark("closed");
        comet.close();
        eventually(SOON, "all to be out or in again", || async { comet.auths() > 10 }).await.unwrap();
        pushed.push(push(&comet, 1));
        eventually(SOON, "all to be in again", || async { crowd.inside() == 10 && comet.auths() == 20 }).await.unwrap();
        crowd.settle(Duration::from_millis(200)).await;
        let before = crowd.arrivals();
        pushed.push(push(&comet, 2));
        arrived(&crowd, before + 10).await;
        let record = crowd.finish(pushed).await.unwrap();
        let ends = record.lives.iter().map(|life| life.stays[0].ended.unwrap().1).collect::<Vec<_>>();
        assert_eq!(ends, [End::Closed(code); 10], "{scheme}");
        let report = judge(&record, &Limits::of_rate(100));
        assert!(report.faults.is_empty(), "{report}");
        let (moves, pushes) = (&report.phases[1].moves, &report.phases[1].pushes);
        assert_eq!((moves.closes, moves.reconnects, report.phases[0].moves.closes), (10, 10, 0), "{report}");
        assert_eq!((pushes.expected, pushes.delivered + pushes.excused), (20, 20), "{report}");
        assert!(pushes.excused > 0, "{report}");
    }
}

#[tokio::test]
async fn what_a_server_loses_repeats_and_reorders_is_found() {
    for (fault, wanted) in [(Fault::Lose, "lost"), (Fault::Repeat, "repeated"), (Fault::Swap, "out of order")] {
        let comet = ScriptedComet::start(fault).await;
        let crowd = Crowd::connect(plan(&comet, "ws"), &Handle::current()).await.unwrap();
        let pushed = (0..20).map(|number| push(&comet, number)).collect();
        arrived(&crowd, if fault == Fault::Lose { 190 } else { 200 }).await;
        crowd.settle(Duration::from_millis(200)).await;
        let report = judge(&crowd.finish(pushed).await.unwrap(), &Limits::of_rate(100));
        assert_eq!(report.faults.len(), 1, "{report}");
        assert!(report.faults[0].contains(&format!("10 deliveries {wanted}")), "{report}");
    }
}

#[tokio::test]
async fn who_is_refused_tries_again_and_it_is_noted() {
    let comet = ScriptedComet::start(Fault::Busy).await;
    let crowd = Crowd::connect(plan(&comet, "ws"), &Handle::current()).await.unwrap();
    let record = crowd.finish(Vec::new()).await.unwrap();
    assert!(record.lives.iter().all(|life| life.refusals.len() == 2 && life.stays.len() == 1), "{record:#?}");
    let (reason, count) = record.reasons.first_key_value().unwrap();
    assert!(reason.contains("not let in: closed with Some(1013)") && *count == 20, "{:?}", record.reasons);
}

#[tokio::test]
async fn a_crowd_that_is_not_let_in_says_why() {
    let comet = ScriptedComet::start(Fault::Refuse).await;
    let plan = Plan { patience: Duration::from_secs(2), ..plan(&comet, "tcp") };
    let error = Crowd::connect(plan, &Handle::current()).await.err().unwrap();
    assert!(format!("{error:#}").contains("0 have; {\"not let in: closed with None"), "{error:#}");
}

#[tokio::test]
async fn who_comes_and_goes_is_not_closed_and_takes_the_next_server() {
    let comets = [ScriptedComet::start(Fault::None).await, ScriptedComet::start(Fault::None).await];
    let stay = Some(Duration::from_millis(10)..Duration::from_millis(50));
    let targets = comets.iter().map(|comet| comet.target("ws")).collect();
    let crowd = Crowd::connect(Plan { stay, targets, ..plan(&comets[0], "ws") }, &Handle::current()).await.unwrap();
    eventually(SOON, "everybody to have come back", || async { comets.iter().all(|comet| comet.auths() >= 20) })
        .await
        .unwrap();
    let report = judge(&crowd.finish(Vec::new()).await.unwrap(), &Limits::of_rate(100));
    assert!(report.faults.is_empty() && report.total.moves.left >= 20, "{report}");
    assert_eq!((report.total.moves.closes, report.total.moves.reconnects), (0, 0), "{report}");
}

#[tokio::test]
async fn everybody_begins_with_the_same_server_when_the_plan_says_so() {
    let comets = [ScriptedComet::start(Fault::None).await, ScriptedComet::start(Fault::None).await];
    let targets = comets.iter().map(|comet| comet.target("tcp")).collect();
    let plan = Plan { first: Some(1), sources: 3, targets, ..plan(&comets[0], "tcp") };
    let crowd = Crowd::connect(plan, &Handle::current()).await.unwrap();
    assert!(crowd.whereabouts().values().all(|target| *target == 1));
    assert_eq!((comets[0].auths(), comets[1].auths()), (0, 10));
    comets[1].close();
    let elsewhere = || async { crowd.whereabouts().values().filter(|target| **target == 0).count() == 10 };
    eventually(SOON, "all to be in again, at the other", elsewhere).await.unwrap();
    let lives = crowd.finish(Vec::new()).await.unwrap().lives;
    assert!(lives.iter().flat_map(|life| &life.stays).all(|stay| stay.took > Duration::ZERO));
}

#[tokio::test]
async fn clients_live_on_the_threads_they_are_given_and_send_heartbeats() {
    let comet = ScriptedComet::start(Fault::None).await;
    let threads = tokio::runtime::Builder::new_multi_thread().thread_name("elsewhere").enable_all().build().unwrap();
    let (seen, members) = (Arc::new(Mutex::new(BTreeSet::new())), stream::members(1));
    let (names, heartbeat) = (seen.clone(), Duration::from_secs(1));
    let member = Arc::new(move |index| {
        names.lock().insert(std::thread::current().name().map(str::to_owned));
        members(index)
    });
    let crowd = Crowd::connect(Plan { member, heartbeat, ..plan(&comet, "tcp") }, threads.handle()).await.unwrap();
    eventually(SOON, "heartbeats", || async { comet.heartbeats() >= 20 }).await.unwrap();
    assert_eq!(crowd.inside(), 10);
    assert!(crowd.finish(Vec::new()).await.unwrap().lives.iter().all(|life| life.gaps().is_empty()));
    assert_eq!(*seen.lock(), BTreeSet::from([Some("elsewhere".to_owned())]));
    threads.shutdown_background();
}

#[tokio::test]
async fn a_server_that_falls_silent_is_left() {
    // It accepts the connection and the auth packet, and never says anything more.
    let mute = ScriptedComet::start(Fault::Mute).await;
    let heartbeat = Duration::from_millis(100);
    let crowd = Crowd::connect(Plan { heartbeat, ..plan(&mute, "ws") }, &Handle::current()).await.unwrap();
    eventually(SOON, "everybody to have come back", || async { mute.auths() >= 20 }).await.unwrap();
    let record = crowd.finish(Vec::new()).await.unwrap();
    assert!(record.lives.iter().any(|life| life.gaps().first().is_some_and(|gap| gap.after == End::Broken)));
}

#[tokio::test]
async fn who_can_move_is_in_elsewhere_before_it_leaves_and_hands_out_once_what_comes_again() {
    for scheme in ["tcp", "ws"] {
        let comets = [ScriptedComet::start(Fault::None).await, ScriptedComet::start(Fault::None).await];
        let targets = comets.iter().map(|comet| comet.target(scheme)).collect();
        let plan = Plan { targets, movable: |_| true, ..plan(&comets[0], scheme) };
        let crowd = Crowd::connect(plan, &Handle::current()).await.unwrap();
        let mut pushed = vec![push(&comets[0], 0)];
        comets[1].push(1, STREAM, 0, pushed[0].due);
        arrived(&crowd, 10).await;
        comets[0].leave();
        eventually(SOON, "all to be at the other", || async {
            crowd.whereabouts().values().all(|server| *server == 1)
        })
        .await
        .unwrap();
        assert_eq!((crowd.inside(), comets[0].auths(), comets[1].auths()), (10, 5, 10));
        pushed.push(push(&comets[1], 1));
        arrived(&crowd, 20).await;
        let record = crowd.finish(pushed).await.unwrap();
        assert!(record.lives.iter().all(|life| life.movable && life.gaps().is_empty()), "{record:#?}");
        let report = judge(&record, &Limits::of_rate(100));
        assert!(report.faults.is_empty(), "{report}");
        let (moves, pushes) = (&report.total.moves, &report.total.pushes);
        assert_eq!((moves.moved, moves.closes, moves.reconnects), (5, 0, 0), "{report}");
        assert_eq!((pushes.expected, pushes.delivered), (20, 20), "{report}");
        // Both comets give who moves the first push once more.
        assert_eq!(report.wire, Wire { given: 30, again: 10 });
    }
}

#[tokio::test]
async fn who_can_move_and_is_closed_all_the_same_is_a_fault_and_comes_back() {
    let comet = ScriptedComet::start(Fault::None).await;
    let plan = Plan { movable: |index| index < 4, ..plan(&comet, "ws") };
    let crowd = Crowd::connect(plan, &Handle::current()).await.unwrap();
    comet.close();
    eventually(SOON, "all to be in again", || async { crowd.inside() == 10 && comet.auths() == 20 }).await.unwrap();
    let report = judge(&crowd.finish(Vec::new()).await.unwrap(), &Limits::of_rate(100));
    assert_eq!((report.total.moves.closes, report.total.moves.cut, report.total.moves.moved), (10, 4, 0), "{report}");
    assert!(report.faults[0].contains("4 closes of clients that can move"), "{report}");
    assert_eq!(report.reasons.get("closed who can move with 1012"), Some(&4), "{report}");
}

#[test]
fn every_target_and_every_room_has_both_kinds_of_clients() {
    for of in [2, 3, 18, 28, 360] {
        let (movable, plain): (Vec<usize>, Vec<usize>) = (0..of * 50).partition(|index| half(*index));
        for kind in [movable, plain] {
            assert_eq!(kind.into_iter().map(|index| index % of).collect::<BTreeSet<_>>().len(), of);
        }
    }
    assert_eq!((0..900).filter(|index| half(*index)).count(), 450);
}

#[test]
fn half_of_the_pushes_go_to_keys_or_members_and_one_in_twenty_to_everybody() {
    let count = |streams: &[u32], kind: fn(Address) -> bool| streams.iter().filter(|s| kind(Address::of(**s))).count();
    let counts = |streams: &[u32]| {
        [
            count(streams, |a| matches!(a, Address::Key(_))),
            count(streams, |a| matches!(a, Address::Mid(_))),
            count(streams, |a| matches!(a, Address::Room(_))),
            count(streams, |a| a == Address::All),
        ]
    };
    let (halved, all) = (half_to_keys(100, 7), to_all_kinds(100, 7));
    assert_eq!((counts(&halved), counts(&all)), ([1000, 0, 900, 100], [500, 500, 900, 100]));
    assert_eq!(count(&halved, |a| a == Address::Key(42)), 10);
    assert_eq!((count(&all, |a| a == Address::Key(42)), count(&all, |a| a == Address::Mid(42))), (5, 5));
}
