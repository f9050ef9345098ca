//! Bursts, repeats, speed, and what clients of each kind see of one push.

use std::time::{Duration, Instant};

use proto::comet::{BroadcastReq, BroadcastRoomReq, Owner, PushMsgReq};
use proto::delivery::Remark;
use proto::delivery::down::Frame;

use crate::stream::Job;
use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_200_pushes_arrives_whole_and_in_order() {
    let (comet, _) = comet(&[]).await;
    for ws in [false, true] {
        let mut client = Client::signed_in(&comet, ws, r#"{"key":"k","room_id":"r","accepts":[1000]}"#).await;
        let mut job = comet.job();
        for number in 0..200 {
            let proto = Some(raw(&[&number.to_string()]));
            job.broadcast_room(BroadcastRoomReq { room_id: "r".into(), proto, ..Default::default() }).await.unwrap();
        }
        for number in 0..200 {
            assert_eq!(client.pushed().await, [(1000, number.to_string())]);
        }
        for number in 0..200 {
            comet.push_keys(&["k"], 1000, raw(&[&number.to_string()]), vec![]).await;
        }
        for number in 0..200 {
            assert_eq!(client.pushed().await, [(1000, number.to_string())]);
        }
    }
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_packets_interleave_between_replies_that_keep_their_order() {
    let (comet, _) = comet(&[]).await;
    let mut client = Client::signed_in(&comet, false, r#"{"key":"k","room_id":"r"}"#).await;
    let pushing = async {
        for number in 0..100 {
            comet.push_room("r", &[&number.to_string()]).await;
        }
    };
    let asking = async {
        let (mut replies, mut pushes) = (0, 0);
        for seq in 0..100 {
            client.send(&packet(2, seq, "")).await;
        }
        while replies + pushes < 200 {
            let packet = client.packet().await;
            match packet.op {
                3 => {
                    assert_eq!(packet.seq, replies);
                    replies += 1;
                }
                _ => {
                    assert_eq!(packet.body, pushes.to_string());
                    pushes += 1;
                }
            }
        }
    };
    tokio::join!(pushing, asking);
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_push_sent_twice_is_delivered_once() {
    let (comet, _) = comet(&[]).await;
    let mut client = Client::signed_in(&comet, true, r#"{"key":"k","room_id":"r"}"#).await;
    comet.push_room_as("r", raw(&["1", "2"]), vec![id(1), id(2)]).await;
    comet.push_room_as("r", raw(&["2", "3"]), vec![id(2), id(3)]).await;
    comet.push_room_as("r", raw(&["1"]), vec![id(1)]).await;
    comet.push_room_as("r", raw(&["0"]), vec![id(0)]).await;
    assert_eq!(client.pushed().await, [(1000, "1".into()), (1000, "2".into())]);
    assert_eq!(client.pushed().await, [(1000, "3".into())]);
    assert_eq!(client.pushed().await, [(1000, "0".into())], "an offset below others is no repeat by itself");
    client.got_nothing().await;
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broadcast_sent_twice_is_delivered_once() {
    let (comet, _) = comet(&[]).await;
    let mut client = Client::signed_in(&comet, false, r#"{"key":"k","accepts":[1000]}"#).await;
    for (offset, speed) in [(1, 0), (1, 0), (2, 100), (1, 100), (2, 0)] {
        let proto = Some(raw(&[&offset.to_string()]));
        let request = BroadcastReq { proto_op: 1000, proto, speed, ids: vec![id(offset)], owner: None };
        comet.job().broadcast(request).await.unwrap();
    }
    assert_eq!(client.pushed().await, [(1000, "1".into())]);
    assert_eq!(client.pushed().await, [(1000, "2".into())]);
    client.got_nothing().await;
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_not_here_gets_the_record_when_it_comes_back_and_the_others_do_not() {
    let (comet, _) = comet(&["--shards", "1"]).await;
    let mut early = Client::signed_in(&comet, false, r#"{"key":"early","accepts":[1000]}"#).await;
    assert_eq!(comet.push_keys(&["early", "late"], 1000, raw(&["m"]), vec![id(5)]).await, ["late"]);
    let mut late = Client::signed_in(&comet, false, r#"{"key":"late","accepts":[1000]}"#).await;
    assert!(comet.push_keys(&["early", "late"], 1000, raw(&["m"]), vec![id(5)]).await.is_empty());
    assert!(comet.push_keys(&["early", "late"], 1000, raw(&["m"]), vec![id(5)]).await.is_empty());
    for client in [&mut early, &mut late] {
        assert_eq!(client.pushed().await, [(1000, "m".into())]);
        client.got_nothing().await;
    }
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_too_late_for_a_key_is_dropped_where_the_key_has_had_a_later_record_and_nowhere_else() {
    let (comet, _) = comet(&["--shards", "1"]).await;
    let mut clients = [
        Client::signed_in(&comet, false, r#"{"key":"ahead","accepts":[1000]}"#).await,
        Client::signed_in(&comet, true, r#"{"key":"behind","accepts":[1000]}"#).await,
    ];
    assert!(comet.push_keys(&["ahead"], 1000, raw(&["7"]), vec![id(7)]).await.is_empty());
    let keys = ["ahead", "behind"].map(str::to_owned).to_vec();
    // With what is late comes what waited behind it.
    let (proto, ids) = (Some(raw(&["5", "6", "8"])), vec![id(5), id(6), id(8)]);
    let late = PushMsgReq { keys, proto, proto_op: 1000, ids, owner: None };
    assert!(comet.job().push_msg(late).await.unwrap().into_inner().not_here.is_empty());
    let [ahead, behind] = &mut clients;
    for (client, wanted) in [(ahead, vec!["7", "8"]), (behind, vec!["5", "6", "8"])] {
        let mut got = Vec::new();
        while got.len() < wanted.len() {
            got.extend(client.pushed().await);
        }
        assert_eq!(got, wanted.into_iter().map(|body| (1000, body.into())).collect::<Vec<_>>());
        client.got_nothing().await;
    }
    assert_eq!(comet.metric("dropped_total{reason=\"overtaken\"}"), 2.0);
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_goes_without_what_came_late_is_told_and_so_is_job() {
    let (comet, _) = comet(&[]).await;
    let mut client = Client::tcp(&comet).await;
    client.send(&packet(7, 1, r#"{"key":"k","accepts":[1000],"caps":["envelope"]}"#)).await;
    assert_eq!(client.packet().await.op, 8);
    assert!(comet.push_keys(&["k"], 1000, raw(&["7"]), vec![id(7)]).await.is_empty());
    assert_eq!(client.packet().await.op, 25);
    let mut job = Job::open(&comet).await;
    for op in [1001, 1000] {
        let (keys, proto, ids) = (vec!["k".into()], Some(raw(&["5", "6"])), vec![id(5), id(6)]);
        job.send(Frame::Keys(PushMsgReq { keys, proto, proto_op: op, ids, owner: None }));
    }
    job.taken(2).await;
    let overtaken = |frame| Remark { frame, overtaken: vec!["k".into()], ..Remark::default() };
    assert_eq!(job.remarks, [overtaken(1), overtaken(2)]);
    for offset in [5, 6] {
        let gap = client.packet().await;
        let ranges = format!(r#"[{{"partition":3,"from":{offset},"to":{offset}}}]"#);
        let said = format!(r#"{{"reason":"overtaken","dropped":1,"ranges":{ranges}}}"#);
        assert_eq!((gap.op, std::str::from_utf8(&gap.body).unwrap()), (23, said.as_str()));
    }
    client.got_nothing().await;
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broadcast_with_a_speed_takes_as_long_as_that_speed_takes() {
    let (comet, _) = comet(&[]).await;
    let mut clients = Vec::new();
    for index in 0..40 {
        let token = format!(r#"{{"key":"{index}","accepts":[1000]}}"#);
        clients.push(Client::signed_in(&comet, index % 2 == 0, &token).await);
    }
    let began = Instant::now();
    comet.push_all(1000, 20, raw(&["slow"])).await;
    comet.push_all(1000, 0, raw(&["at once"])).await;
    let mut seen = Vec::new();
    for client in &mut clients {
        let pushed = [client.pushed().await, client.pushed().await].concat();
        assert!(pushed.contains(&(1000, "slow".into())) && pushed.contains(&(1000, "at once".into())));
        seen.push(began.elapsed());
    }
    let took = seen.into_iter().max().unwrap();
    assert!(took > Duration::from_millis(1500), "40 clients at 20 a second took only {took:?}");
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_broadcast_holds_up_no_other_push_and_nobody_that_leaves() {
    let (comet, _) = comet(&["--shards", "1"]).await;
    let mut clients = Vec::new();
    let keys: Vec<String> = (0..30).map(|index| index.to_string()).collect();
    for index in &keys {
        clients.push(Client::signed_in(&comet, false, &format!(r#"{{"key":"{index}","accepts":[1000]}}"#)).await);
    }
    comet.push_all(1000, 1, raw(&["takes half a minute"])).await;
    let all: Vec<&str> = keys.iter().map(String::as_str).collect();
    comet.push_keys(&all, 1000, raw(&["now"]), vec![]).await;
    let began = Instant::now();
    comet.delivery().kick(proto::delivery::KickReq { keys, ..Default::default() }).await.unwrap();
    for client in &mut clients {
        let got = client.rest().await;
        assert!(got.windows(3).any(|window| window == b"now"), "{got:?}");
    }
    assert!(began.elapsed() < Duration::from_secs(20), "their sockets closed at once");
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_broadcasts_leave_room_for_every_other_push_and_those_that_are_too_many_come_at_once() {
    let (comet, _) = comet(&["--shards", "1"]).await;
    let mut other = Client::signed_in(&comet, true, r#"{"key":"other","room_id":"r"}"#).await;
    let mut clients = Vec::new();
    for index in 0..60 {
        let token = format!(r#"{{"key":"{index}","accepts":[1000]}}"#);
        clients.push(Client::signed_in(&comet, index % 2 == 0, &token).await);
    }
    // One takes a minute: those that are let in are far from done when there is no room for more.
    let body = "x".repeat(200_000);
    let mut slow = 0;
    while comet.metric("unpaced_total") == 0.0 {
        comet.push_all(1000, 1, raw(&[&body])).await;
        slow += 1;
    }
    assert_eq!(slow - 1, (32 << 20) / (200_000 + 16 + 61 * 8));
    let last = clients.last_mut().expect("sixty");
    assert_eq!(last.pushed().await, [(1000, body)]);
    comet.push_room("r", &["m"]).await;
    assert_eq!(other.pushed().await, [(1000, "m".into())]);
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_floor_that_job_tells_decides_what_is_a_repeat_and_what_is_too_far_ahead() {
    let (comet, _) = comet(&[]).await;
    let mut client = Client::signed_in(&comet, true, r#"{"key":"k","room_id":"r"}"#).await;
    let mut job = comet.job();
    let mut push = async |offset: u64, floor: u64| {
        let owner = Some(Owner { group: "g".into(), generation: 1, floor: Some(floor) });
        let proto = Some(raw(&[&offset.to_string()]));
        job.broadcast_room(BroadcastRoomReq { room_id: "r".into(), proto, ids: vec![id(offset)], owner }).await
    };
    push(70_000, 70_000).await.unwrap();
    push(69_999, 70_000).await.unwrap();
    push(70_000, 60_000).await.unwrap();
    push(70_001, 60_000).await.unwrap();
    let refused = push(70_000 + 65_536, 70_000).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::OutOfRange, "{refused}");
    assert!(refused.message().contains("record 135536 of partition 3"), "{refused}");
    for expected in ["70000", "70001"] {
        assert_eq!(client.pushed().await, [(1000, expected.into())]);
    }
    client.got_nothing().await;
    comet.stop().await;
}
