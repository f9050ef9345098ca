use std::time::Duration;

use proto::log::MemoryLog;

use crate::comet::Comet as _;
use crate::comet::memory::{MemoryComet, Mood};
use crate::rig::{LIMITS, Rig, bodies, until as took};

const DROPPED: &str = "imcluster_job_dropped_total";

fn dropped(rig: &Rig, reason: &str) -> u64 {
    rig.count(&format!("{DROPPED}{{reason=\"{reason}\"}}"))
}

#[tokio::test(start_paused = true)]
async fn one_hung_comet_holds_up_nobody_else() {
    let (a, b) = (MemoryComet::new("a"), MemoryComet::new("b"));
    let rig = Rig::start(&[("h:1", &a), ("h:2", &b)]).await;
    b.set(Mood::Hangs);
    rig.keys("b", &["k"], "stuck");
    let begun = tokio::time::Instant::now();
    for n in 0..200 {
        rig.room("a://1", &n.to_string());
        rig.keys("a", &["k"], &n.to_string());
    }
    took(&a, 400).await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_comet_that_does_not_answer_is_let_go_in_time_and_used_again_when_it_answers() {
    let (a, b) = (MemoryComet::new("a"), MemoryComet::new("b"));
    let rig = Rig::start(&[("h:1", &a), ("h:2", &b)]).await;
    b.set(Mood::Away);
    rig.room("a://1", "lost");
    tokio::time::sleep(LIMITS.stall - Duration::from_secs(2)).await;
    assert_eq!(rig.committed(), 0);
    rig.until_committed(1).await;
    assert_eq!((dropped(&rig, "stall"), rig.count("imcluster_job_comets_let_go_total")), (1, 1));
    rig.room("a://1", "lost too");
    rig.until_committed(2).await;
    assert_eq!(dropped(&rig, "let_go"), 1);
    b.set(Mood::Fine);
    tokio::time::sleep(Duration::from_secs(4)).await;
    rig.room("a://1", "heard");
    took(&b, 1).await;
    assert_eq!(bodies(&b), ["heard"]);
    assert_eq!(bodies(&a).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_stood_still_takes_that_for_no_comets_silence() {
    let a = MemoryComet::new("a");
    let rig = Rig::start(&[("h:1", &a)]).await;
    a.set(Mood::Hangs);
    rig.room("a://1", "m");
    rig.settle().await;
    // Whatever wakes first finds no answer yet.
    tokio::time::advance(LIMITS.stall * 2).await;
    rig.settle().await;
    a.set(Mood::Fine);
    rig.until_committed(1).await;
    assert_eq!((bodies(&a), rig.count("imcluster_job_comets_let_go_total")), (vec!["m".to_owned()], 0));
}

#[tokio::test(start_paused = true)]
async fn a_comet_that_hangs_in_a_call_is_let_go_as_one_that_is_away() {
    let (a, b) = (MemoryComet::new("a"), MemoryComet::new("b"));
    let rig = Rig::start(&[("h:1", &a), ("h:2", &b)]).await;
    b.set(Mood::Hangs);
    rig.room("a://1", "lost");
    rig.until_committed(1).await;
    assert_eq!(dropped(&rig, "stall"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_comet_over_its_backlog_is_let_go_at_once() {
    let (a, b) = (MemoryComet::new("a"), MemoryComet::new("b"));
    let rig = Rig::start(&[("h:1", &a), ("h:2", &b)]).await;
    b.set(Mood::Hangs);
    let body = "x".repeat(900_000);
    for _ in 0..20 {
        rig.room("a://1", &body);
    }
    took(&a, 20).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(rig.committed(), 20);
    assert_eq!(dropped(&rig, "backlog") + dropped(&rig, "let_go"), 20);
    assert_eq!(rig.count("imcluster_job_comet_queue_bytes"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_backlog_is_read_at_the_pace_of_the_comets_and_nothing_of_it_is_dropped() {
    let a = MemoryComet::new("a");
    let rig = Rig::start(&[("h:1", &a)]).await;
    let body = "x".repeat(900_000);
    for _ in 0..60 {
        rig.room("a://1", &body);
    }
    took(&a, 60).await;
    rig.until_committed(60).await;
    assert_eq!(rig.count("imcluster_job_comets_let_go_total"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_backlog_of_rooms_that_are_spread_over_many_comets_is_read_at_their_pace_and_none_is_let_go() {
    let names = ["a", "b", "c", "d", "e", "f"];
    let rooms = names.map(|name| format!("a://{name}"));
    let comets = names.map(MemoryComet::new);
    comets.iter().zip(&rooms).for_each(|(comet, room)| comet.has_rooms(&[room]));
    let addresses = names.map(|name| format!("h:{name}"));
    let listed: Vec<_> = addresses.iter().map(String::as_str).zip(&comets).collect();
    let rig = Rig::start(&listed).await;
    comets.iter().for_each(|comet| comet.set(Mood::Hangs));
    let body = "x".repeat(900_000);
    for _ in 0..10 {
        for room in &rooms {
            rig.room(room, &body);
        }
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    comets.iter().for_each(|comet| comet.set(Mood::Fine));
    rig.until_committed(60).await;
    assert_eq!(rig.count("imcluster_job_comets_let_go_total"), 0);
    assert_eq!(comets.map(|comet| bodies(&comet).len()), [10; 6]);
}

#[tokio::test(start_paused = true)]
async fn a_comet_that_answers_and_takes_little_sets_the_pace_of_the_others_for_a_while_and_no_longer() {
    let (fast, slow) = (MemoryComet::new("fast"), MemoryComet::new("slow"));
    let rig = Rig::over(MemoryLog::new(1, 128 << 20), &[("h:1", &fast), ("h:2", &slow)]).await;
    slow.set(Mood::Slow(Duration::from_millis(300)));
    let began = tokio::time::Instant::now();
    let body = "x".repeat(900_000);
    for _ in 0..70 {
        rig.room("a://1", &body);
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(bodies(&fast).len() < 35, "{}", bodies(&fast).len());
    took(&fast, 70).await;
    assert!(began.elapsed() < Duration::from_secs(18), "{:?}", began.elapsed());
    rig.until_committed(70).await;
    assert_eq!((bodies(&fast).len(), rig.count("imcluster_job_comets_let_go_total")), (70, 1), "the slow one alone");
}

#[tokio::test(start_paused = true)]
async fn a_backlog_is_dropped_for_no_comet_that_is_a_little_slower() {
    let (one, other) = (MemoryComet::new("one"), MemoryComet::new("other"));
    let rig = Rig::over(MemoryLog::new(1, 128 << 20), &[("h:1", &one), ("h:2", &other)]).await;
    one.set(Mood::Slow(Duration::from_millis(300)));
    other.set(Mood::Slow(Duration::from_millis(350)));
    let body = "x".repeat(900_000);
    for _ in 0..60 {
        rig.room("a://1", &body);
    }
    rig.until_committed(60).await;
    assert_eq!((bodies(&one).len(), bodies(&other).len()), (60, 60));
    assert_eq!(rig.count("imcluster_job_comets_let_go_total"), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_owed_is_sent_again_until_the_comet_answers() {
    let a = MemoryComet::new("a");
    let rig = Rig::start(&[("h:1", &a)]).await;
    a.set(Mood::Away);
    for n in 0..3 {
        rig.keys("a", &["k"], &n.to_string());
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    a.set(Mood::Fine);
    took(&a, 3).await;
    assert_eq!(bodies(&a), ["0", "1", "2"]);
    rig.until_committed(3).await;
    assert!(rig.count("imcluster_job_retries_total") >= 1);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_final_counted_and_holds_nothing_up() {
    let go = MemoryComet::go();
    let rig = Rig::start(&[("go=h:1", &go)]).await;
    go.set(Mood::Refuses("signal channel full, msg dropped".into()));
    rig.keys("go", &["k"], "full");
    rig.until_committed(1).await;
    assert_eq!(rig.count("imcluster_job_undeliverable_total{reason=\"unknown\"}"), 1);
    assert_eq!(rig.count("imcluster_job_retries_total"), 0);
}

#[tokio::test(start_paused = true)]
async fn keys_that_are_not_there_are_counted() {
    let a = MemoryComet::new("a");
    let rig = Rig::start(&[("h:1", &a)]).await;
    a.holds(&["here"]);
    rig.keys("a", &["here", "gone"], "m");
    rig.until_committed(1).await;
    assert_eq!(rig.count("imcluster_job_undeliverable_total{reason=\"not_here\"}"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_go_comet_is_known_by_the_list() {
    let go = MemoryComet::go();
    let rig = Rig::start(&[("go1=h:1", &go)]).await;
    rig.keys("go1", &["k"], "m");
    rig.room("a://1", "r");
    took(&go, 2).await;
    rig.until_committed(2).await;
}

#[tokio::test(start_paused = true)]
async fn partitions_are_claimed_at_every_comet_before_their_first_record() {
    let a = MemoryComet::new("a");
    let rig = Rig::start(&[("h:1", &a)]).await;
    rig.settle().await;
    assert_eq!(a.claimed("g", 0), Some(1));
    let b = MemoryComet::new("b");
    rig.list(&[("h:1", &a), ("h:2", &b)]);
    rig.settle().await;
    assert_eq!(b.claimed("g", 0), Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_comet_is_told_how_many_partitions_there_are_whichever_way_it_is_told_of_them() {
    let (a, older) = (MemoryComet::new("a"), MemoryComet::older("older"));
    let _rig = Rig::over(proto::log::MemoryLog::new(3, 1 << 20), &[("h:1", &a), ("h:2", &older)]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((a.in_topic(), older.in_topic()), (3, 3));
    assert!((0..3).all(|partition| a.claimed("g", partition) == Some(1)));
}

#[tokio::test(start_paused = true)]
async fn a_partition_with_a_later_owner_is_neither_sent_nor_committed() {
    let a = MemoryComet::new("a");
    let rig = Rig::start(&[("h:1", &a)]).await;
    let claim = proto::delivery::ClaimReq {
        group: "g".into(),
        epoch: 1,
        partitions: vec![0],
        generation: 2,
        ..Default::default()
    };
    crate::comet::Comet::claim(&a, claim).await.unwrap();
    rig.room("a://1", "m");
    rig.room("a://1", "n");
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(rig.committed(), 0);
    assert_eq!((bodies(&a).len(), rig.count("imcluster_job_fenced_total")), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_the_queue_goes_on_to_say_is_ours_is_taken_over_from_an_owner_of_long_ago() {
    let (a, away) = (MemoryComet::new("a"), MemoryComet::new("away"));
    let rig = Rig::start(&[("h:1", &a), ("h:2", &away)]).await;
    for comet in [&a, &away] {
        let claim = proto::delivery::ClaimReq {
            group: "g".into(),
            epoch: 1,
            partitions: vec![0],
            generation: 700,
            ..Default::default()
        };
        comet.claim(claim).await.unwrap();
    }
    away.set(Mood::Away);
    rig.keys("a", &["k"], "m");
    took(&a, 1).await;
    rig.keys("away", &["k"], "n");
    away.set(Mood::Fine);
    took(&away, 1).await;
    rig.until_committed(2).await;
    assert_eq!((a.claimed("g", 0), away.claimed("g", 0)), (Some(1), Some(1)));
    assert_eq!((bodies(&a), rig.count("imcluster_job_fenced_total")), (vec!["m".to_owned()], 1));
}

#[tokio::test(start_paused = true)]
async fn records_for_a_server_wait_until_discovery_names_it() {
    let a = MemoryComet::new("a");
    let rig = Rig::start(&[]).await;
    rig.keys("a", &["k"], "1");
    rig.keys("a", &["k"], "2");
    tokio::time::sleep(LIMITS.stall / 2).await;
    rig.list(&[("h:1", &a)]);
    took(&a, 2).await;
    assert_eq!(bodies(&a), ["1", "2"]);
    rig.until_committed(2).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_discovery_never_names_is_remembered_and_let_go_at_once_until_it_does() {
    let a = MemoryComet::new("a");
    let rig = Rig::start(&[]).await;
    rig.keys("a", &["k"], "lost");
    tokio::time::sleep(LIMITS.stall / 2).await;
    assert_eq!(rig.committed(), 0);
    rig.until_committed(1).await;
    rig.keys("a", &["k"], "lost at once");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!((rig.committed(), dropped(&rig, "unknown_server")), (2, 1));
    rig.list(&[("h:1", &a)]);
    rig.settle().await;
    rig.keys("a", &["k"], "heard");
    took(&a, 1).await;
    assert_eq!(bodies(&a), ["heard"]);
}

#[tokio::test(start_paused = true)]
async fn a_new_address_under_an_old_id_is_picked_up_with_what_is_owed() {
    let (old, new) = (MemoryComet::new("a"), MemoryComet::new("a"));
    let rig = Rig::start(&[("h:1", &old)]).await;
    old.set(Mood::Away);
    rig.keys("a", &["k"], "1");
    rig.room("a://1", "r");
    tokio::time::sleep(Duration::from_secs(1)).await;
    rig.list(&[("h:2", &new)]);
    took(&new, 2).await;
    rig.keys("a", &["k"], "2");
    took(&new, 3).await;
    rig.until_committed(3).await;
    assert!(old.calls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_go_comets_new_address_is_picked_up_from_the_list() {
    let (old, new) = (MemoryComet::go(), MemoryComet::go());
    let rig = Rig::start(&[("go=h:1", &old)]).await;
    old.set(Mood::Away);
    rig.keys("go", &["k"], "1");
    tokio::time::sleep(Duration::from_secs(1)).await;
    rig.list(&[("go=h:2", &new)]);
    took(&new, 1).await;
    rig.until_committed(1).await;
}

#[tokio::test(start_paused = true)]
async fn an_unlisted_comet_is_served_while_it_answers_and_owed_nothing_when_it_does_not() {
    let (a, b) = (MemoryComet::new("a"), MemoryComet::new("b"));
    let rig = Rig::start(&[("h:1", &a), ("h:2", &b)]).await;
    rig.list(&[("h:1", &a)]);
    rig.room("a://1", "still heard");
    took(&b, 1).await;
    b.set(Mood::Away);
    rig.room("a://1", "not heard");
    let begun = tokio::time::Instant::now();
    rig.until_committed(2).await;
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(dropped(&rig, "gone"), 1);
    rig.keys("b", &["k"], "for nobody");
    rig.until_committed(3).await;
    assert!(begun.elapsed() < Duration::from_secs(8));
    assert_eq!(dropped(&rig, "unknown_server"), 1);
    let status = rig.process.status.report();
    assert_eq!(status["comets"].as_array().unwrap().len(), 1, "{status}");
    b.set(Mood::Fine);
    rig.list(&[("h:1", &a), ("h:2", &b)]);
    rig.settle().await;
    rig.keys("b", &["k"], "heard again");
    took(&b, 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_comet_that_was_started_again_is_claimed_again_and_gets_what_is_owed() {
    let a = MemoryComet::new("a");
    let rig = Rig::start(&[("h:1", &a)]).await;
    a.set(Mood::Away);
    rig.room("a://1", "m");
    tokio::time::sleep(Duration::from_secs(1)).await;
    a.restart();
    a.set(Mood::Fine);
    took(&a, 1).await;
    assert_eq!(a.claimed("g", 0), Some(1));
    rig.until_committed(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_comet_without_a_stream_is_made_calls_one_at_a_time() {
    let older = MemoryComet::older("older");
    let rig = Rig::start(&[("h:1", &older)]).await;
    older.set(Mood::Hangs);
    for n in 0..30 {
        rig.room(&format!("a://{}", n % 3), &n.to_string());
    }
    rig.settle().await;
    older.set(Mood::Fine);
    took(&older, 30).await;
    rig.until_committed(30).await;
    assert_eq!((older.most_open(), older.claimed("g", 0)), (1, Some(1)));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_is_opened_again_and_what_was_out_on_it_comes_once_more_in_order() {
    let a = MemoryComet::new("a");
    let rig = Rig::start(&[("h:1", &a)]).await;
    a.set(Mood::Hangs);
    for n in 0..5 {
        rig.keys("a", &[&format!("k{n}")], &n.to_string());
    }
    rig.settle().await;
    a.set(Mood::Away);
    rig.settle().await;
    rig.keys("a", &["k"], "5");
    a.set(Mood::Fine);
    took(&a, 6).await;
    assert_eq!(bodies(&a), ["0", "1", "2", "3", "4", "5"]);
    assert!(rig.count("imcluster_job_retries_total") >= 5);
    rig.until_committed(6).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_while_the_comet_is_asked_who_it_is_is_opened_again_before_anything_is_committed() {
    let a = MemoryComet::new("a");
    let rig = Rig::start(&[("h:1", &a)]).await;
    a.set(Mood::Hangs);
    tokio::time::sleep(Duration::from_secs(4)).await;
    a.hang_up();
    rig.settle().await;
    a.set(Mood::Fine);
    rig.keys("a", &["k"], "m");
    rig.until_committed(1).await;
    assert_eq!(a.marks().last().map(|mark| mark.through), Some(1), "{:?}", a.marks());
}

#[tokio::test(start_paused = true)]
async fn a_later_owner_of_a_partition_ends_what_is_sent_for_it_on_a_stream() {
    let a = MemoryComet::new("a");
    let rig = Rig::start(&[("h:1", &a)]).await;
    rig.keys("a", &["k"], "ours");
    took(&a, 1).await;
    a.claim(proto::delivery::ClaimReq {
        group: "g".into(),
        epoch: 1,
        partitions: vec![0],
        generation: 9,
        ..Default::default()
    })
    .await
    .unwrap();
    rig.keys("a", &["k"], "theirs");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(bodies(&a), ["ours"]);
    assert_eq!(rig.count("imcluster_job_fenced_total"), 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_committed_that_a_comet_was_not_told_of_although_it_is_owed_nothing() {
    let (a, b) = (MemoryComet::new("a"), MemoryComet::new("b"));
    let rig = Rig::start(&[("h:1", &a), ("h:2", &b)]).await;
    b.set(Mood::Hangs);
    rig.keys("a", &["k"], "m");
    took(&a, 1).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(rig.committed(), 0);
    b.set(Mood::Fine);
    rig.until_committed(1).await;
    let last = b.marks().pop().unwrap();
    assert_eq!((last.from, last.through), (0, 1));
    assert_eq!(rig.count("imcluster_job_comets_let_go_total"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_comet_that_was_let_go_is_told_where_it_goes_on_before_anything_else() {
    let (a, b) = (MemoryComet::new("a"), MemoryComet::new("b"));
    let rig = Rig::start(&[("h:1", &a), ("h:2", &b)]).await;
    rig.room("a://1", "heard");
    took(&b, 1).await;
    rig.until_committed(1).await;
    b.set(Mood::Away);
    for _ in 0..3 {
        rig.room("a://1", "lost");
    }
    rig.until_committed(4).await;
    b.set(Mood::Fine);
    tokio::time::sleep(Duration::from_secs(4)).await;
    rig.room("a://1", "heard again");
    took(&b, 1).await;
    rig.until_committed(5).await;
    assert_eq!(bodies(&b), ["heard", "heard again"]);
    let froms: Vec<u64> = b.marks().iter().map(|mark| mark.from).collect();
    let hole = b.marks().windows(2).position(|pair| pair[0].through < pair[1].from).unwrap();
    assert_eq!((b.marks()[hole].through, b.marks()[hole + 1].from), (1, 4), "{froms:?}");
}

#[tokio::test(start_paused = true)]
async fn a_comet_that_comes_later_is_vouched_for_from_then_on() {
    let (a, late) = (MemoryComet::new("a"), MemoryComet::new("late"));
    let rig = Rig::start(&[("h:1", &a)]).await;
    for _ in 0..3 {
        rig.room("a://1", "before");
    }
    took(&a, 3).await;
    rig.list(&[("h:1", &a), ("h:2", &late)]);
    rig.settle().await;
    rig.room("a://1", "after");
    took(&late, 1).await;
    rig.until_committed(4).await;
    assert_eq!(bodies(&late), ["after"]);
    assert!(late.marks().iter().all(|mark| mark.from >= 3), "{:?}", late.marks());
}
