use std::time::Duration;

use proto::log::MemoryLog;
use proto::logic::PushMsg;

use super::logic::MemoryLogic;
use super::*;
use crate::comet::Call;
use crate::comet::memory::{MemoryComet, Mood};
use crate::rig::{Rig, bodies, until as took};

/// A comet on which nobody is.
fn deserted(server: &str) -> MemoryComet {
    let comet = MemoryComet::new(server);
    comet.holds(&["nobody"]);
    comet
}

/// The keys of every call to keys that a comet took.
fn to_keys(comet: &MemoryComet) -> Vec<String> {
    let keys = |call: &Call| match call {
        Call::Push(request) => Some(request.keys.join(",")),
        _ => None,
    };
    comet.calls().iter().filter_map(keys).collect()
}

fn undeliverable(rig: &Rig, reason: &str) -> u64 {
    rig.count(&format!("imcluster_job_undeliverable_total{{reason=\"{reason}\"}}"))
}

#[tokio::test(start_paused = true)]
async fn a_push_whose_key_has_moved_comes_to_where_it_is_and_is_committed_then() {
    let (a, b, logic) = (deserted("a"), MemoryComet::new("b"), MemoryLogic::default());
    let rig = Rig::seeking(&logic, &[("h:1", &a), ("h:2", &b)]).await;
    rig.keys("a", &["k"], "m");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((rig.committed(), bodies(&b).len()), (0, 0));
    logic.set(&[("k", "b")]);
    took(&b, 1).await;
    rig.until_committed(1).await;
    assert_eq!((to_keys(&a), to_keys(&b)), (vec!["k".to_owned()], vec!["k".to_owned()]));
    assert_eq!(undeliverable(&rig, "not_here"), 0);
    rig.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_comes_for_a_key_that_is_sought_waits_behind_it_and_other_keys_do_not() {
    let (a, b, logic) = (MemoryComet::new("a"), MemoryComet::new("b"), MemoryLogic::default());
    a.holds(&["here"]);
    let rig = Rig::seeking(&logic, &[("h:1", &a), ("h:2", &b)]).await;
    rig.keys("a", &["k", "here"], "1");
    took(&a, 1).await;
    rig.settle().await;
    rig.keys("a", &["k", "here"], "2");
    rig.keys("b", &["k"], "3");
    rig.keys("b", &["another"], "beside");
    took(&a, 2).await;
    took(&b, 1).await;
    assert_eq!(bodies(&b), ["beside"]);
    logic.set(&[("k", "b")]);
    took(&b, 4).await;
    assert_eq!(bodies(&b), ["beside", "1", "2", "3"]);
    rig.keys("b", &["k"], "4");
    took(&b, 5).await;
    rig.until_committed(5).await;
    assert_eq!(to_keys(&a), ["k,here", "here"]);
    assert_eq!(bodies(&b)[4], "4");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_cannot_be_found_is_undeliverable_within_ten_seconds_for_the_reason_that_it_has() {
    for (reason, known) in [("nowhere", Some(vec![])), ("logic_away", None), ("not_here", Some(vec![("k", "a")]))] {
        let (a, logic) = (deserted("a"), MemoryLogic::default());
        if let Some(known) = known {
            logic.set(&known);
        }
        let rig = Rig::seeking(&logic, &[("h:1", &a)]).await;
        rig.keys("a", &["k"], "m");
        tokio::time::sleep(Duration::from_secs(7)).await;
        assert_eq!((undeliverable(&rig, reason), rig.committed()), (0, 0), "{reason}");
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(undeliverable(&rig, reason), 1, "{reason}");
        rig.until_committed(1).await;
        assert_eq!(logic.asked(), vec![vec!["k".to_owned()]; 3], "{reason}");
        assert_eq!(to_keys(&a).len(), if reason == "not_here" { 4 } else { 1 });
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_key_goes_without_because_it_had_something_later_is_undeliverable() {
    let (a, b, logic) = (deserted("a"), MemoryComet::new("b"), MemoryLogic::default());
    logic.set(&[("k", "b")]);
    b.is_ahead(&["k"]);
    let rig = Rig::seeking(&logic, &[("h:1", &a), ("h:2", &b)]).await;
    rig.keys("a", &["k"], "m");
    rig.until_committed(1).await;
    assert_eq!((undeliverable(&rig, "overtaken"), undeliverable(&rig, "not_here")), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn without_logic_a_key_that_is_not_here_is_undeliverable_at_once() {
    let a = deserted("a");
    let rig = Rig::start(&[("h:1", &a)]).await;
    rig.keys("a", &["k", "l"], "m");
    rig.until_committed(1).await;
    assert_eq!(undeliverable(&rig, "not_here"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_comet_that_was_listed_later_is_told_no_floor_above_what_may_still_come_to_it() {
    let (a, b, logic) = (deserted("a"), MemoryComet::new("b"), MemoryLogic::default());
    let rig = Rig::seeking(&logic, &[("h:1", &a)]).await;
    for _ in 0..3 {
        rig.room("a://1", "r");
    }
    let sought = rig.keys("a", &["k"], "m");
    rig.room("a://1", "r");
    took(&a, 5).await;
    rig.list(&[("h:1", &a), ("h:2", &b)]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!b.marks().is_empty());
    logic.set(&[("k", "b")]);
    took(&b, 1).await;
    assert!(b.marks().iter().all(|mark| mark.floor <= sought), "{:?}", b.marks());
    rig.until_committed(5).await;
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_sought_on_a_server_that_nobody_knows_holds_nothing_up_for_ever() {
    let (a, logic) = (deserted("a"), MemoryLogic::default());
    logic.set(&[("k", "nobody has heard of it")]);
    let rig = Rig::seeking(&logic, &[("h:1", &a)]).await;
    rig.keys("a", &["k"], "m");
    rig.until_committed(1).await;
    assert_eq!(logic.asked().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_expires_while_its_key_is_sought_is_not_sent() {
    let (a, b, logic) = (deserted("a"), MemoryComet::new("b"), MemoryLogic::default());
    logic.set(&[("k", "b")]);
    let rig = Rig::seeking(&logic, &[("h:1", &a), ("h:2", &b)]).await;
    a.set(Mood::Hangs);
    // By the clock of the world, which stands still for nobody.
    let expires_ms = now_ms() + 200;
    let (server, keys) = ("a".into(), vec!["k".into()]);
    rig.append(&PushMsg { server, keys, msg: "m".into(), expires_ms, ..Default::default() });
    rig.settle().await;
    std::thread::sleep(Duration::from_millis(250));
    a.set(Mood::Fine);
    rig.until_committed(1).await;
    assert!(bodies(&b).is_empty());
    assert_eq!(rig.count("imcluster_job_dropped_total{reason=\"expired\"}"), 1);
}

#[tokio::test(start_paused = true)]
async fn an_heir_reads_again_what_was_sought_when_its_job_died() {
    let (a, b, logic) = (deserted("a"), MemoryComet::new("b"), MemoryLogic::default());
    let log = MemoryLog::new(1, 1 << 20);
    let both = [("h:1", &a), ("h:2", &b)];
    let rig = Rig::seeking_over(log.clone(), &logic, &both).await;
    rig.keys("a", &["k"], "m");
    took(&a, 1).await;
    rig.task.abort();
    assert!(rig.task.await.unwrap_err().is_cancelled());
    logic.set(&[("k", "b")]);
    let rig = Rig::seeking_over(log, &logic, &both).await;
    took(&b, 1).await;
    rig.until_committed(1).await;
}

#[tokio::test(start_paused = true)]
async fn the_probe_of_a_comet_that_was_started_again_is_not_looked_for() {
    let (a, logic) = (deserted("a"), MemoryLogic::default());
    let rig = Rig::seeking(&logic, &[("h:1", &a)]).await;
    rig.keys("a", &["imcluster-probe-0000000000000007"], "probe");
    rig.until_committed(1).await;
    assert!(logic.asked().is_empty());
}
