use proto::comet::Id;
use proto::log::MemoryLog;
use proto::logic::PushMsg;
use proto::logic::push_msg::Type;
use proto::peers::Peer;
use runtime::Process;

use super::*;
use crate::comet::memory::{MemoryComet, Mood};
use crate::comet::queue::Way;
use crate::comet::{Call, Comet};
use crate::consumer::memory::MemorySource;
use crate::push::tests::record;
use crate::rig::{LIMITS, Rig, bodies, until as took};

fn broadcast(speed: i32, body: &'static str) -> PushMsg {
    PushMsg { r#type: Type::Broadcast.into(), operation: 1000, speed, msg: body.into(), ..Default::default() }
}

#[tokio::test(start_paused = true)]
async fn keys_go_to_the_comet_the_record_names_and_to_no_other() {
    let (a, b) = (MemoryComet::new("a"), MemoryComet::new("b"));
    let rig = Rig::start(&[("h:1", &a), ("h:2", &b)]).await;
    rig.keys("b", &["k1", "k2"], "m1");
    took(&b, 1).await;
    let [Call::Push(request)] = &b.calls()[..] else { panic!("{:?}", b.calls()) };
    assert_eq!((&request.keys[..], request.proto_op), (&["k1".to_owned(), "k2".to_owned()][..], 1000));
    let inner = b"\0\0\0\x12\0\x10\0\x01\0\0\x03\xe8\0\0\0\0m1";
    assert_eq!(request.proto.as_ref().unwrap().body, &inner[..]);
    rig.until_committed(1).await;
    assert!(a.calls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_comet_that_takes_no_clients_is_served_all_the_same() {
    let (starting, leaving) = (MemoryComet::new("starting"), MemoryComet::new("leaving"));
    let rig = Rig::start(&[("h:1", &starting), ("h:2", &leaving)]).await;
    let listed = |address: &str, terminating| Peer { ready: false, terminating, ..Peer::at(address) };
    rig.peers.send_replace([listed("h:1", false), listed("h:2", true)].into());
    rig.settle().await;
    rig.keys("starting", &["imcluster-probe-1"], "probe");
    rig.room("live://1", "r");
    took(&starting, 2).await;
    took(&leaving, 1).await;
    assert_eq!((bodies(&starting), bodies(&leaving)), (vec!["probe".to_owned(), "r".to_owned()], vec!["r".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn a_record_that_the_queue_holds_twice_is_delivered_once_and_goims_look_alikes_as_often_as_they_come() {
    let comet = MemoryComet::new("a");
    let rig = Rig::start(&[("h:1", &comet)]).await;
    let (named, goims) = (PushMsg { id: vec![7; 16].into(), ..broadcast(0, "named") }, broadcast(0, "goims"));
    for message in [&named, &goims, &named, &goims] {
        rig.append(message);
    }
    rig.append(&PushMsg { id: vec![8; 16].into(), ..named });
    rig.until_committed(5).await;
    assert_eq!(bodies(&comet), ["named", "goims", "goims", "named"]);
    assert_eq!(rig.count("imcluster_job_dropped_total{reason=\"copy\"}"), 1);
}

#[tokio::test(start_paused = true)]
async fn the_status_says_how_many_records_are_not_committed() {
    let comet = MemoryComet::new("a");
    let rig = Rig::start(&[("h:1", &comet)]).await;
    let lag = || rig.process.status.report()["lag"].as_u64();
    comet.set(Mood::Hangs);
    for _ in 0..3 {
        rig.keys("a", &["k"], "m");
    }
    tokio::time::sleep(COMMIT * 2).await;
    assert_eq!(lag(), Some(3));
    comet.set(Mood::Fine);
    rig.until_committed(3).await;
    tokio::time::sleep(COMMIT * 2).await;
    assert_eq!(lag(), Some(0));
}

#[tokio::test(start_paused = true)]
async fn rooms_and_broadcasts_go_to_every_comet() {
    let (a, b) = (MemoryComet::new("a"), MemoryComet::new("b"));
    let rig = Rig::start(&[("h:1", &a), ("h:2", &b)]).await;
    rig.room("live://1", "r");
    rig.append(&broadcast(7, "all"));
    for comet in [&a, &b] {
        took(comet, 2).await;
        assert_eq!(bodies(comet), ["r", "all"]);
        assert!(matches!(&comet.calls()[0], Call::Room(request) if request.room_id == "live://1"));
    }
    let speed = |comet: &MemoryComet| match &comet.calls()[1] {
        Call::Broadcast(request) => (request.proto_op, request.speed),
        other => panic!("{other:?}"),
    };
    assert_eq!([speed(&a), speed(&b)], [(1000, 4), (1000, 3)]);
}

#[test]
fn a_broadcasts_speed_is_divided_exactly_and_never_becomes_unlimited() {
    let divided = |speed, comets| shares(speed, comets).collect::<Vec<_>>();
    assert_eq!(divided(64, 4), [16; 4]);
    assert_eq!(divided(10, 3), [4, 3, 3]);
    assert_eq!(divided(2, 3), [1, 1, 1]);
    assert_eq!(divided(0, 2), [0, 0]);
    assert_eq!(divided(5, 0), [0; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_broadcast_with_no_comets_is_owed_to_nobody() {
    let rig = Rig::start(&[]).await;
    rig.append(&broadcast(64, "x"));
    rig.until_committed(1).await;
}

#[tokio::test(start_paused = true)]
async fn records_that_cannot_be_read_are_skipped_and_counted() {
    let a = MemoryComet::new("a");
    let rig = Rig::start(&[("h:1", &a)]).await;
    rig.log.append("k".into(), "\u{7f}\u{7f}".into(), vec![]).unwrap();
    rig.append(&PushMsg { r#type: 9, ..Default::default() });
    rig.keys("a", &[], "nobody");
    rig.keys("a", &["k"], "m");
    took(&a, 1).await;
    rig.until_committed(4).await;
    assert_eq!(rig.count("imcluster_job_dropped_total{reason=\"undecodable\"}"), 2);
    assert_eq!(rig.count("imcluster_job_dropped_total{reason=\"no_keys\"}"), 1);
}

#[tokio::test(start_paused = true)]
async fn expired_records_are_dropped_and_counted() {
    let a = MemoryComet::new("a");
    let rig = Rig::start(&[("h:1", &a)]).await;
    let record = |expires_ms| PushMsg { r#type: 1, room: "a://1".into(), expires_ms, ..Default::default() };
    rig.append(&record(1));
    rig.append(&record(u64::MAX));
    took(&a, 1).await;
    rig.until_committed(2).await;
    assert_eq!(rig.count("imcluster_job_dropped_total{reason=\"expired\"}"), 1);
}

#[tokio::test(start_paused = true)]
async fn ids_stand_beside_the_packets_in_order_with_the_owner_of_the_partition() {
    let a = MemoryComet::new("a");
    let rig = Rig::start(&[("h:1", &a)]).await;
    a.set(Mood::Hangs);
    for n in 0..3 {
        rig.room("a://1", &n.to_string());
    }
    rig.settle().await;
    a.set(Mood::Fine);
    took(&a, 3).await;
    let (mut ids, mut generations) = (Vec::new(), Vec::new());
    for call in a.calls() {
        let Call::Room(request) = call else { panic!("{call:?}") };
        ids.extend(request.ids);
        generations.push(request.owner.map(|owner| (owner.group, owner.generation)));
    }
    let expected = (0..3).map(|offset| Id { epoch: rig.log.epoch(), offset, ..Default::default() });
    assert_eq!(ids, expected.collect::<Vec<_>>());
    assert!(generations.iter().all(|owner| *owner == Some(("g".to_owned(), 1))));
}

#[tokio::test(start_paused = true)]
async fn pushes_to_one_key_and_of_one_room_arrive_in_order_with_one_call_open_at_a_time() {
    let a = MemoryComet::new("a");
    let rig = Rig::start(&[("h:1", &a)]).await;
    for n in 0..100 {
        rig.keys("a", &["k"], &format!("k{n:03}"));
        rig.room("a://1", &format!("r{n:03}"));
    }
    took(&a, 200).await;
    let all = bodies(&a);
    for kind in ["k", "r"] {
        let of_it: Vec<_> = all.iter().filter(|body| body.starts_with(kind)).collect();
        assert_eq!(of_it.len(), 100);
        assert!(of_it.is_sorted(), "{of_it:?}");
    }
    assert_eq!(a.most_open(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_burst_to_one_room_is_merged_and_loses_nothing() {
    let a = MemoryComet::new("a");
    let rig = Rig::start(&[("h:1", &a)]).await;
    for n in 0..500 {
        rig.room("a://1", &format!("{n:03}"));
    }
    took(&a, 500).await;
    assert_eq!(bodies(&a), (0..500).map(|n| format!("{n:03}")).collect::<Vec<_>>());
    assert!(a.calls().len() <= 30, "{} calls", a.calls().len());
}

#[tokio::test(start_paused = true)]
async fn an_offset_is_committed_only_after_every_comet_has_answered() {
    let (a, b) = (MemoryComet::new("a"), MemoryComet::new("b"));
    let rig = Rig::start(&[("h:1", &a), ("h:2", &b)]).await;
    b.set(Mood::Hangs);
    rig.room("a://1", "m");
    took(&a, 1).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(rig.committed(), 0);
    b.set(Mood::Fine);
    took(&b, 1).await;
    rig.until_committed(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_dies_midway_loses_nothing() {
    let (a, b) = (MemoryComet::new("a"), MemoryComet::new("b"));
    let log = MemoryLog::new(1, 1 << 20);
    let rig = Rig::over(log.clone(), &[("h:1", &a), ("h:2", &b)]).await;
    b.set(Mood::Hangs);
    for n in 0..50 {
        rig.room(&format!("a://{}", n % 7), &format!("{n:02}"));
    }
    took(&a, 50).await;
    rig.task.abort();
    assert!(rig.task.await.unwrap_err().is_cancelled());
    b.set(Mood::Fine);
    let rig = Rig::over(log, &[("h:1", &a), ("h:2", &b)]).await;
    took(&b, 50).await;
    rig.until_committed(50).await;
    let mut got = bodies(&b);
    got.sort();
    got.dedup();
    assert_eq!(got.len(), 50);
}

#[tokio::test(start_paused = true)]
async fn stopping_delivers_what_is_owed_and_commits_it() {
    let a = MemoryComet::new("a");
    let log = MemoryLog::new(1, 1 << 20);
    let rig = Rig::over(log.clone(), &[("h:1", &a)]).await;
    a.set(Mood::Away);
    for n in 0..30 {
        rig.room("a://1", &n.to_string());
    }
    rig.settle().await;
    rig.process.shutdown.begin();
    rig.settle().await;
    a.set(Mood::Fine);
    rig.stop().await.unwrap();
    assert_eq!((bodies(&a).len(), log.bounds(0).0), (30, 30));
}

#[tokio::test(start_paused = true)]
async fn stopping_ends_in_time_although_a_comet_does_not_answer_and_commits_nothing_it_owes() {
    let a = MemoryComet::new("a");
    let log = MemoryLog::new(1, 1 << 20);
    let rig = Rig::over(log.clone(), &[("h:1", &a)]).await;
    a.set(Mood::Away);
    tokio::time::sleep(Duration::from_secs(5)).await;
    rig.room("a://1", "m");
    rig.settle().await;
    let begun = Instant::now();
    rig.stop().await.unwrap();
    assert!(begun.elapsed() <= Duration::from_secs(11));
    assert!(bodies(&a).is_empty());
}

#[tokio::test(start_paused = true)]
async fn no_offset_is_in_flight_a_window_beyond_the_oldest_unanswered_one() {
    let (a, b) = (MemoryComet::new("a"), MemoryComet::new("b"));
    let rig = Rig::start(&[("h:1", &a), ("h:2", &b)]).await;
    b.set(Mood::Hangs);
    rig.keys("b", &["k"], "held");
    for _ in 0..crate::ledger::WINDOW + 100 {
        rig.keys("a", &["k"], "");
    }
    let rest = crate::ledger::WINDOW as usize - 1;
    took(&a, rest).await;
    rig.settle().await;
    assert_eq!(bodies(&a).len(), rest);
    b.set(Mood::Fine);
    took(&a, rest + 101).await;
    rig.until_committed(crate::ledger::WINDOW + 101).await;
}

#[tokio::test(start_paused = true)]
async fn a_kick_closes_keys_at_our_comet_and_is_skipped_by_a_go_comet() {
    let (ours, go) = (MemoryComet::new("ours"), MemoryComet::go());
    let rig = Rig::start(&[("h:1", &ours), ("go=h:2", &go)]).await;
    for server in ["ours", "go"] {
        let keys = vec!["k".into()];
        rig.append(&PushMsg { r#type: Type::Kick.into(), server: server.into(), keys, ..Default::default() });
    }
    rig.until_committed(2).await;
    assert_eq!(bodies(&ours), ["kick k"]);
    assert!(go.calls().is_empty());
}

/// A dispatcher from this queue to one comet that the test drives itself.
fn by_hand(log: &MemoryLog, comet: &MemoryComet) -> Dispatcher {
    let comet = comet.clone();
    let fleet =
        Fleet::new(Arc::new(move |_| Ok(Arc::new(comet.clone()) as Arc<dyn Comet>)), LIMITS, Metrics::default());
    fleet.update(&[Peer::at("h:1")]);
    Dispatcher::new(Box::new(MemorySource::new(log.clone())), fleet, "g", Metrics::default())
}

const FIRST: Assignment = Assignment { partition: 0, generation: 1, start: 0, out_of_range: false, takeover: false };

#[tokio::test(start_paused = true)]
async fn a_partition_that_is_assigned_anew_is_not_paused_any_more() {
    let (a, log) = (MemoryComet::new("a"), MemoryLog::new(1, 1 << 20));
    a.set(Mood::Hangs);
    let mut dispatcher = by_hand(&log, &a);
    // The source says twice how it stands before it hands out records.
    for _ in 0..2 {
        dispatcher.source.next().await;
    }
    log.append("k".into(), "a record".into(), vec![]).unwrap();
    let condition = Process::quiet().readiness.condition("queue", "the first answer");
    for is_revoked in [true, false] {
        dispatcher.assigned(FIRST);
        let room = PushMsg { r#type: Type::Room.into(), room: "a://1".into(), ..Default::default() };
        let too_many = [0, crate::ledger::WINDOW].map(|offset| record(0, offset, &room));
        dispatcher.event(Event::Records(too_many.into()), &condition).await;
        let more = tokio::time::timeout(Duration::from_secs(1), dispatcher.source.next()).await;
        assert!(more.is_err(), "{more:?}");
        if is_revoked {
            let (done, _) = tokio::sync::oneshot::channel();
            dispatcher.revoked(Revocation { partitions: vec![0], lost: false, done }).await;
        }
        dispatcher.assigned(Assignment { generation: 2, out_of_range: !is_revoked, ..FIRST });
        let more = tokio::time::timeout(Duration::from_secs(1), dispatcher.source.next()).await;
        assert!(matches!(more, Ok(Event::Records(_))), "{more:?}");
        log.append("k".into(), "another".into(), vec![]).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_saturated_comets_goes_on_however_often_they_answer() {
    let (a, log) = (MemoryComet::new("a"), MemoryLog::new(1, 64 << 20));
    let dispatcher = by_hand(&log, &a);
    let progress = dispatcher.progress.clone();
    let condition = Process::quiet().readiness.condition("queue", "the first answer");
    tokio::spawn(dispatcher.run(std::future::pending(), Duration::ZERO, condition));
    tokio::time::sleep(Duration::from_millis(1)).await;
    a.set(Mood::Hangs);
    for _ in 0..10 {
        let (room, msg) = ("a://1".into(), vec![0; 900_000].into());
        let room = PushMsg { r#type: Type::Room.into(), room, msg, ..Default::default() };
        log.append("k".into(), prost::Message::encode_to_vec(&room).into(), vec![]).unwrap();
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    tokio::spawn(async move {
        loop {
            progress.notify_one();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    a.set(Mood::Fine);
    took(&a, 10).await;
}

#[tokio::test]
async fn what_is_committed_again_is_never_less_than_what_was_committed() {
    let mut dispatcher = by_hand(&MemoryLog::new(1, 1 << 20), &MemoryComet::new("a"));
    dispatcher.assigned(FIRST);
    let view = dispatcher.fleet.view();
    let queue = &view.comets[0].queue;
    dispatcher.ours[&0].partition.ledger.lock().open(0, 0);
    queue.goes_by(Way::Calls);
    dispatcher.commit();
    queue.goes_by(Way::Stream);
    assert_eq!(queue.knows(0), Some(0), "it was made calls and told nothing");
    let to_commit = |again| dispatcher.ours[&0].to_commit_now(&dispatcher.fleet, again);
    assert_eq!((to_commit(true), to_commit(false)), (Some((0, 1)), None));
}

#[tokio::test(start_paused = true)]
async fn a_partition_of_ours_that_stands_still_is_shown_until_it_is_given_to_somebody() {
    let log = MemoryLog::new(1, 1 << 20);
    let mut dispatcher = by_hand(&log, &MemoryComet::new("a"));
    let label = PartitionLabel { partition: 0 };
    let shown = |dispatcher: &Dispatcher| {
        let (fenced, lag) = (&dispatcher.metrics.partitions_fenced, &dispatcher.metrics.lag);
        (fenced.get(&label).map(|gauge| gauge.get()), lag.get(&label).map(|gauge| gauge.get()))
    };
    log.append("k".into(), "a record".into(), vec![]).unwrap();
    for is_revoked in [true, false] {
        dispatcher.assigned(FIRST);
        dispatcher.commit();
        assert_eq!(shown(&dispatcher), (None, Some(1)));
        dispatcher.ours[&0].partition.fence();
        dispatcher.progressed();
        assert_eq!(shown(&dispatcher), (Some(1), None));
        if is_revoked {
            let (done, _) = tokio::sync::oneshot::channel();
            dispatcher.revoked(Revocation { partitions: vec![0], lost: true, done }).await;
            assert_eq!(shown(&dispatcher), (None, None));
        }
    }
    dispatcher.assigned(FIRST);
    assert_eq!(shown(&dispatcher), (None, None));
}

#[tokio::test(start_paused = true)]
async fn a_room_goes_to_the_comets_that_have_somebody_in_it_and_is_committed_all_the_same() {
    let (has, lacks, silent) = (MemoryComet::new("has"), MemoryComet::new("lacks"), MemoryComet::new("silent"));
    has.has_rooms(&["live://1"]);
    lacks.has_rooms(&["live://2"]);
    let rig = Rig::start(&[("h:1", &has), ("h:2", &lacks), ("h:3", &silent)]).await;
    rig.room("live://1", "one");
    rig.room("live://2", "two");
    rig.append(&broadcast(0, "all"));
    rig.until_committed(3).await;
    assert_eq!((bodies(&has), bodies(&lacks)), (vec!["one".into(), "all".into()], vec!["two".into(), "all".into()]));
    assert_eq!(bodies(&silent), ["one", "two", "all"], "who does not say is sent everything");
}

#[tokio::test(start_paused = true)]
async fn what_was_pushed_before_job_heard_of_a_room_is_sent_when_it_hears() {
    let comet = MemoryComet::new("a");
    comet.has_rooms(&[]);
    let rig = Rig::start(&[("h:1", &comet)]).await;
    rig.room("live://1", "nobody is there");
    rig.until_committed(1).await;
    // Noted at the comet, but nothing is answered yet that would say so.
    comet.has_rooms(&["live://1"]);
    rig.room("live://1", "one");
    rig.room("live://1", "two");
    rig.until_committed(3).await;
    assert_eq!(bodies(&comet), ["one", "two"]);
}

#[tokio::test(start_paused = true)]
async fn a_room_that_began_on_a_stream_that_broke_misses_nothing() {
    let comet = MemoryComet::new("a");
    comet.has_rooms(&[]);
    let rig = Rig::start(&[("h:1", &comet)]).await;
    comet.set(Mood::Hangs);
    rig.room("live://1", "one");
    rig.settle().await;
    comet.has_rooms(&["live://1"]);
    comet.hang_up();
    rig.room("live://1", "two");
    rig.settle().await;
    comet.set(Mood::Fine);
    rig.until_committed(2).await;
    assert_eq!(bodies(&comet), ["one", "two"]);
}
