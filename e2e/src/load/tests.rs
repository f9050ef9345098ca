use std::time::Duration;

use super::*;
use crate::checker::{Offered, Verdict, judge};
use crate::scripted::{Fault, ScriptedComet};

const RUN: u32 = 5;
const PATIENCE: Duration = Duration::from_secs(20);

fn plan(target: Target, connections: usize) -> Plan {
    Plan {
        target,
        connections,
        stalled: 0,
        sources: 3,
        threads: 2,
        core: None,
        heartbeat: None,
        run: RUN,
        member: Arc::new(|index| Member { token: format!(r#"{{"mid":{index}}}"#), streams: vec![1] }),
    }
}

/// Twenty pushes to ten clients of a comet with this fault.
async fn verdict(scheme: &str, fault: Fault) -> Verdict {
    let comet = ScriptedComet::start(fault).await;
    let farm = Farm::connect(plan(comet.target(scheme), 10)).await.unwrap();
    let mut offered = Offered::default();
    for _ in 0..20 {
        let number = offered.number(1);
        comet.push(RUN, 1, number, os::monotonic());
    }
    farm.settle(200, Duration::from_millis(300)).await;
    let harvest = farm.finish().await.unwrap();
    judge(&offered, &harvest.receivers, &harvest.tally)
}

#[tokio::test]
async fn a_faultless_comet_is_found_faultless_over_tcp_and_websocket() {
    for scheme in ["tcp", "ws"] {
        let verdict = verdict(scheme, Fault::None).await;
        assert_eq!((verdict.expected, verdict.delivered, verdict.lost), (200, 200, 0), "{scheme}");
        assert_eq!((verdict.repeats, verdict.inversions, verdict.strays), (0, 0, 0), "{scheme}");
        assert!(verdict.latency.max_us > 0);
    }
}

#[tokio::test]
async fn what_a_comet_loses_repeats_and_reorders_is_found() {
    for scheme in ["tcp", "ws"] {
        // The script drops, repeats or swaps number 7 for every client.
        assert_eq!(verdict(scheme, Fault::Lose).await.lost, 10, "{scheme}");
        assert_eq!(verdict(scheme, Fault::Repeat).await.repeats, 10, "{scheme}");
        assert_eq!(verdict(scheme, Fault::Swap).await.inversions, 10, "{scheme}");
    }
}

#[tokio::test]
async fn packets_split_over_many_reads_are_put_together() {
    for scheme in ["tcp", "ws"] {
        let verdict = verdict(scheme, Fault::Trickle).await;
        assert_eq!((verdict.delivered, verdict.lost, verdict.inversions), (200, 0, 0), "{scheme}");
    }
}

#[tokio::test]
async fn everybody_sends_heartbeats() {
    let comet = ScriptedComet::start(Fault::None).await;
    let plan = Plan { heartbeat: Some(Duration::from_millis(100)), ..plan(comet.target("ws"), 10) };
    let farm = Farm::connect(plan).await.unwrap();
    let served = async {
        while comet.heartbeats() < 20 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, served).await.unwrap();
    assert!(farm.finish().await.unwrap().heartbeats > 0);
}

#[tokio::test]
async fn stalled_clients_stay_open_and_are_not_judged() {
    let comet = ScriptedComet::start(Fault::None).await;
    let farm = Farm::connect(Plan { stalled: 4, ..plan(comet.target("tcp"), 10) }).await.unwrap();
    let mut offered = Offered::default();
    comet.push(RUN, 1, offered.number(1), os::monotonic());
    assert!(farm.until(6, PATIENCE).await);
    assert_eq!(farm.closed(), 0);
    let harvest = farm.finish().await.unwrap();
    let verdict = judge(&offered, &harvest.receivers, &harvest.tally);
    assert_eq!((verdict.expected, verdict.delivered, verdict.lost), (6, 6, 0));
}

#[tokio::test]
async fn a_refused_client_fails_the_farm_with_its_reason() {
    let comet = ScriptedComet::start(Fault::Refuse).await;
    let error = Farm::connect(plan(comet.target("ws"), 10)).await.err().unwrap();
    assert!(format!("{error:#}").contains("tried 5 times: closed instead of answering the auth packet"), "{error:#}");
}

#[tokio::test]
async fn a_client_that_is_closed_on_its_way_in_comes_again_and_is_counted() {
    for scheme in ["tcp", "ws"] {
        let comet = ScriptedComet::start(Fault::Busy).await;
        let farm = Farm::connect(plan(comet.target(scheme), 10)).await.unwrap();
        comet.push(RUN, 1, 0, os::monotonic());
        assert!(farm.until(10, PATIENCE).await, "{scheme}");
        let harvest = farm.finish().await.unwrap();
        assert_eq!((comet.auths(), harvest.retries, harvest.closed), (30, 20, 0), "{scheme}");
        assert_eq!(harvest.receivers.len(), 10, "{scheme}");
    }
}

#[tokio::test]
async fn a_client_tries_five_times_and_no_more() {
    let comet = ScriptedComet::start(Fault::Refuse).await;
    assert!(Farm::connect(plan(comet.target("tcp"), 1)).await.is_err());
    assert_eq!(comet.auths(), 5);
}

#[tokio::test]
async fn an_answer_that_is_no_packet_is_no_reason_to_come_again() {
    for scheme in ["tcp", "ws"] {
        let comet = ScriptedComet::start(Fault::Garbage).await;
        let error = Farm::connect(plan(comet.target(scheme), 1)).await.err().unwrap();
        assert!(format!("{error:#}").contains("bytes that are no packet instead of answering"), "{error:#}");
        assert_eq!(comet.auths(), 1, "{scheme}");
    }
}
