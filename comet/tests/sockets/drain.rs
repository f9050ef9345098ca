//! The end of a comet that was told to stop.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use comet::logic::memory::MemoryLogic;
use proto::comet::{BroadcastRoomReq, Id, Owner, PushMsgReq};
use proto::delivery::down::Frame;
use proto::delivery::{Down, KickReq, Mark, Marks};
use proto::envelope::Move;
use runtime::Process;
use runtime::pod::DRAIN_ANNOTATION;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::support::*;

/// Who may write the annotations of a comet's pod.
#[derive(Clone)]
struct Operator(watch::Sender<Arc<BTreeMap<String, String>>>);

impl Operator {
    /// A process in a pod, and who may write its annotations.
    fn of_a_pod() -> (Self, Process) {
        let (sender, annotations) = watch::channel(Arc::default());
        (Self(sender), Process { annotations, ..Process::quiet() })
    }

    fn write(&self, number: Option<u32>) {
        let pair = number.map(|number| (DRAIN_ANNOTATION.to_owned(), number.to_string()));
        self.0.send_replace(Arc::new(pair.into_iter().collect()));
    }

    /// Keeps a lease up until aborted.
    fn hold(&self) -> JoinHandle<()> {
        let this = self.clone();
        tokio::spawn(async move {
            for number in 1.. {
                this.write(Some(number));
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn told_to_stop_it_closes_clients_at_the_rate_while_pushes_still_arrive() {
    let flags = ["--close-rate", "20", "--drain-max", "1m", "--flush", "1s", "--drain-delay", "300ms"];
    let (comet, logic) = comet(&flags).await;
    let mut clients = Vec::new();
    for index in 0..40 {
        let token = format!(r#"{{"key":"{index}","room_id":"r"}}"#);
        clients.push((index, Client::signed_in(&comet, index % 2 == 0, &token).await));
    }
    let began = Instant::now();
    comet.process.shutdown.begin();
    let ends = clients
        .into_iter()
        .map(|(index, mut client)| tokio::spawn(async move { (client.rest().await, index, began.elapsed()) }));
    let ends: Vec<_> = ends.collect();
    eventually("it is not ready", || !comet.process.readiness.is_ready()).await;
    eventually("some are closed", || comet.closed("drain") >= 5.0).await;
    let half = comet.closed("drain");
    assert!(half < 40.0, "not all at once");
    comet.push_room("r", &["still"]).await;
    let mut got = 0;
    let mut order = Vec::new();
    for end in ends {
        let (bytes, index, at) = within(end).await.unwrap();
        got += u32::from(bytes.windows(5).any(|window| window == b"still"));
        if index % 2 == 0 {
            assert_eq!(bytes[bytes.len() - 4..], [0x88, 2, 0x03, 0xf4], "a WebSocket is told 1012");
        }
        order.push((at, index));
    }
    assert!(got >= 1 && f64::from(got) <= 40.0 - half, "{got} of those left got the push");
    let last = order.iter().max().unwrap().0;
    assert!(last >= Duration::from_millis(1900), "40 clients at 20 a second were closed within {last:?}");
    order.sort();
    assert!(!order.is_sorted_by_key(|(_, index)| *index), "in random order");
    eventually("every session is ended", || disconnected(&logic).len() == 40).await;
    assert!(
        tokio::net::TcpStream::connect(comet.tcp).await.is_err() || comet.running.is_finished() || {
            let mut late = Client::tcp(&comet).await;
            late.rest().await.is_empty()
        }
    );
    assert_eq!(comet.closed("drain"), 40.0);
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn capable_clients_are_told_to_connect_to_another() {
    let (comet, _) = comet(&[]).await;
    let mut client = Client::tcp(&comet).await;
    client.send(&packet(7, 1, r#"{"key":"c","caps":["envelope"]}"#)).await;
    client.packet().await;
    comet.process.shutdown.begin();
    assert_eq!(
        client.rest().await,
        packet(24, 0, &br#"{"code":"drain","reason":"this server is leaving: connect to another"}"#[..])
    );
    comet.stop().await;
}

/// What a job sends: a push to room `r`, or how far this comet was sent everything.
async fn job(
    comet: &Comet,
) -> (tokio::sync::mpsc::UnboundedSender<Down>, impl Fn(u64) -> Frame + use<>, impl Fn(u64) -> Frame + use<>) {
    let (frames, sent) = tokio::sync::mpsc::unbounded_channel();
    let mut up = comet.delivery().deliver(UnboundedReceiverStream::new(sent)).await.unwrap().into_inner();
    tokio::spawn(async move { while let Ok(Some(_)) = up.message().await {} });
    let room = |offset: u64| {
        let owner = Some(Owner { group: "g".into(), generation: 1, floor: Some(0) });
        let proto = Some(raw(&[&offset.to_string()]));
        let ids = vec![Id { epoch: 7, partition: 3, offset, ..Id::default() }];
        Frame::Room(BroadcastRoomReq { room_id: "r".into(), proto, ids, owner })
    };
    let mark = |through: u64| {
        let marks = vec![Mark { partition: 3, from: 0, through, floor: 0, sent: through }];
        Frame::Marks(Marks { group: "g".into(), epoch: 7, generation: 1, marks })
    };
    (frames, room, mark)
}

fn down(frame: Frame) -> Down {
    Down { frame: Some(frame), ..Down::default() }
}

/// Logic has noted key `k` elsewhere, by a record behind all that it had sent here for it.
fn noted_elsewhere() -> Frame {
    Frame::Kick(KickReq { keys: vec!["k".into()], reason: "moving".into(), ..Default::default() })
}

#[tokio::test(flavor = "multi_thread")]
async fn who_can_move_is_told_to_and_is_let_go_once_it_was_given_what_is_before_its_new_connection() {
    let (comet, logic) = comet(&["--flush", "1s"]).await;
    let (frames, room, mark) = job(&comet).await;
    frames.send(down(mark(0))).unwrap();
    let mut client = Client::tcp(&comet).await;
    client.send(&packet(7, 1, r#"{"key":"k","room_id":"r","caps":["move"]}"#)).await;
    assert_eq!(client.packet().await.op, 8);
    comet.process.shutdown.begin();
    let order = client.packet().await;
    let told: Move = serde_json::from_slice(&order.body).unwrap();
    // Until a second before the flush is over, five after the last client was told.
    assert!(order.op == 18 && (4000..=5000).contains(&told.within_ms) && told.nodes.is_empty(), "{told:?}");
    client.send(&packet(18, 2, r#"[{"3":1},{"3":2}]"#)).await;
    frames.send(down(noted_elsewhere())).unwrap();
    frames.send(down(room(0))).unwrap();
    frames.send(down(mark(1))).unwrap();
    assert_eq!(client.packet().await.op, 25);
    // Were it let go now, it would be told so before the next push.
    tokio::time::sleep(Duration::from_millis(300)).await;
    frames.send(down(room(1))).unwrap();
    frames.send(down(mark(2))).unwrap();
    let pushed = client.packet().await;
    assert_eq!((pushed.op, pushed.body.last()), (25, Some(&b'1')));
    assert_eq!(client.rest().await, packet(18, 2, ""));
    eventually("logic is told", || disconnected(&logic).len() == 1).await;
    assert_eq!((comet.closed("moved"), comet.closed("drain")), (1.0, 0.0));
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_moves_is_not_let_go_before_all_that_was_sent_here_for_its_key_came() {
    let (comet, _) = comet(&["--flush", "1s"]).await;
    let (frames, _, mark) = job(&comet).await;
    frames.send(down(mark(1))).unwrap();
    let mut client = Client::tcp(&comet).await;
    client.send(&packet(7, 1, r#"{"key":"k","accepts":[1000],"caps":["move"]}"#)).await;
    assert_eq!(client.packet().await.op, 8);
    comet.process.shutdown.begin();
    assert_eq!(client.packet().await.op, 18);
    // It was let in elsewhere when that had not seen what is still on its way to here.
    client.send(&packet(18, 2, r#"[{"3":1}]"#)).await;
    // Were it let go now, it would be told so before the next push.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let owner = Some(Owner { group: "g".into(), generation: 1, floor: Some(0) });
    let ids = vec![Id { epoch: 7, partition: 3, offset: 5, ..Id::default() }];
    let keys = PushMsgReq { keys: vec!["k".into()], proto: Some(raw(&["m"])), proto_op: 1000, ids, owner };
    frames.send(down(Frame::Keys(keys))).unwrap();
    frames.send(down(noted_elsewhere())).unwrap();
    let pushed = client.packet().await;
    assert_eq!((pushed.op, pushed.body.last()), (25, Some(&b'm')));
    assert_eq!(client.rest().await, packet(18, 2, ""));
    assert_eq!((comet.closed("moved"), comet.closed("kicked")), (1.0, 0.0));
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_moves_is_given_at_once_what_slow_broadcasts_would_have_given_it_later() {
    let (comet, _) = comet(&["--shards", "1"]).await;
    let mut others = Vec::new();
    for index in 0..30 {
        others.push(Client::signed_in(&comet, false, &format!(r#"{{"key":"{index}","accepts":[1000]}}"#)).await);
    }
    let mut moving = Client::tcp(&comet).await;
    moving.send(&packet(7, 1, r#"{"key":"k","accepts":[1000],"caps":["move"]}"#)).await;
    assert_eq!(moving.packet().await.op, 8);
    // Half a minute each, and it is the last to get them.
    comet.push_all(1000, 1, raw(&["first"])).await;
    comet.push_all(1000, 1, raw(&["second"])).await;
    comet.process.shutdown.begin();
    assert_eq!(moving.packet().await.op, 18);
    let Frame::Kick(elsewhere) = noted_elsewhere() else { unreachable!("it is one") };
    comet.delivery().kick(elsewhere).await.unwrap();
    moving.send(&packet(18, 2, "[]")).await;
    let (first, second) = (moving.packet().await.body, moving.packet().await.body);
    assert!(first.ends_with(b"first") && second.ends_with(b"second"), "{first:?} {second:?}");
    assert_eq!(moving.rest().await, packet(18, 2, ""));
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_can_move_and_does_not_is_told_of_a_gap_and_closed() {
    let (comet, _) = comet(&[]).await;
    let mut client = Client::tcp(&comet).await;
    client.send(&packet(7, 1, r#"{"key":"k","caps":["move"]}"#)).await;
    assert_eq!(client.packet().await.op, 8);
    // An offset that nobody will ever vouch for: it would wait for ever.
    client.send(&packet(18, 2, r#"[{"0":9223372036854775807}]"#)).await;
    let refused = client.packet().await;
    assert_eq!((refused.op, refused.seq), (24, 2));
    assert!(refused.body.starts_with(br#"{"code":"unexpected_op""#), "it was not told to");
    comet.process.shutdown.begin();
    assert_eq!(client.packet().await.op, 18);
    client.send(&packet(18, 3, "{}")).await;
    assert_eq!((client.packet().await.op), 24, "a body that is no list");
    let gap = client.packet().await;
    assert_eq!((gap.op, &gap.body[..]), (23, &br#"{"reason":"drain","dropped":0,"ranges":[]}"#[..]));
    assert_eq!(client.packet().await.op, 24);
    client.closes().await;
    assert_eq!(comet.closed("drain"), 1.0);
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_authenticates_while_the_others_are_closed_is_closed_too() {
    let (comet, _) = comet(&["--flush", "5s"]).await;
    let mut late = Client::tcp(&comet).await;
    eventually("its transport is up", || comet.metric("handshakes_total") == 1.0).await;
    comet.process.shutdown.begin();
    tokio::time::sleep(Duration::from_millis(300)).await;
    late.sign_in(r#"{"key":"late"}"#).await;
    late.closes().await;
    assert_eq!(comet.closed("drain"), 1.0);
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_nobody_there_it_is_gone_at_once() {
    let (comet, _) = comet(&["--drain-delay", "1h", "--drain-min", "1h", "--drain-max", "1h"]).await;
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_pushed_before_the_close_is_still_delivered_and_who_left_holds_up_nothing() {
    let (comet, _) = comet(&["--tcp-send-buffer", "4096", "--queue-bytes", "8MiB"]).await;
    let mut reading = Client::narrow(&comet, true).await;
    reading.sign_in(r#"{"key":"reading","room_id":"r"}"#).await;
    let mut leaving = Client::narrow(&comet, false).await;
    leaving.sign_in(r#"{"key":"leaving","room_id":"r"}"#).await;
    let body = "x".repeat(1 << 20);
    comet.push_room("r", &[&body]).await;
    comet.push_room("r", &["last"]).await;
    drop(leaving);
    comet.process.shutdown.begin();
    assert_eq!(reading.pushed().await, [(1000, body)]);
    assert_eq!(reading.pushed().await, [(1000, "last".into())]);
    reading.closes_with(1012).await;
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn asked_by_a_lease_it_drains_stays_empty_and_serves_again_when_the_lease_runs_out() {
    let (operator, process) = Operator::of_a_pod();
    let logic = Arc::new(MemoryLogic::default());
    let flags = ["--drain-delay", "2s", "--drain-lease", "5s"];
    let comet = Comet::start_as(&flags, logic.clone(), process).await;
    eventually("it waits for its probe", || comet.status("flow") == "waiting").await;
    comet.prove(&logic).await;
    assert_eq!((comet.status("flow"), comet.status("server")), ("proven".into(), "h1".into()));
    let mut early = Client::signed_in(&comet, true, r#"{"key":"early"}"#).await;

    let lease = operator.hold();
    eventually("it is not ready", || !comet.process.readiness.is_ready()).await;
    assert_eq!((comet.status("draining"), comet.status("drained")), (true.into(), false.into()));
    assert!(comet.process.readiness.report().starts_with("draining: asked to by the pod's annotation\n"));
    // Whoever has not heard of it yet is still let in.
    let mut late = Client::signed_in(&comet, false, r#"{"key":"late","room_id":"r"}"#).await;
    comet.push_room("r", &["still"]).await;
    assert_eq!(late.pushed().await, [(1000, "still".into())]);
    early.closes_with(1012).await;
    late.closes().await;
    eventually("it is drained", || comet.status("drained") == true).await;
    assert_eq!((comet.status("connections"), comet.status("draining")), (0.into(), true.into()));
    assert!(TcpStream::connect(comet.tcp).await.is_err(), "its ports are closed");
    assert!(comet.process.metrics.encode().contains("imcluster_drain_seconds_count 1\n"));
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(comet.status("drained"), true, "for as long as the lease is kept up");
    comet.delivery().hello(proto::delivery::HelloReq {}).await.expect("job still reaches it");

    lease.abort();
    eventually("it is ready again", || comet.process.readiness.is_ready()).await;
    assert_eq!((comet.status("draining"), comet.status("drained")), (false.into(), false.into()));
    let mut again = Client::signed_in(&comet, true, r#"{"key":"again","room_id":"r"}"#).await;
    Client::signed_in(&comet, false, r#"{"key":"other"}"#).await.got_nothing().await;
    comet.push_room("r", &["back"]).await;
    assert_eq!(again.pushed().await, [(1000, "back".into())]);
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_is_called_off_keeps_whoever_is_left_and_takes_new_clients() {
    let (operator, process) = Operator::of_a_pod();
    let logic = Arc::new(MemoryLogic::default());
    let flags = ["--drain-min", "60s", "--drain-max", "60s", "--drain-lease", "1h"];
    let comet = Comet::start_as(&flags, logic.clone(), process).await;
    comet.prove(&logic).await;
    let mut clients = Vec::new();
    for index in 0..100 {
        clients.push(Client::signed_in(&comet, index % 2 == 0, &format!(r#"{{"key":"{index}"}}"#)).await);
    }
    operator.write(Some(1));
    eventually("some are closed", || comet.closed("drain") >= 3.0).await;
    operator.write(None);
    eventually("it is ready again", || comet.process.readiness.is_ready()).await;
    assert_eq!(comet.status("draining"), false);
    let mut new = Client::signed_in(&comet, true, r#"{"key":"new"}"#).await;
    let closed = comet.closed("drain");
    assert!(closed < 100.0);
    eventually("nobody else left", || comet.status("connections") == 101 - closed as u64).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(comet.closed("drain"), closed, "and nobody is closed any more");
    new.got_nothing().await;
    // Nobody is waited for who has left by himself.
    drop((clients, new));
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_told_to_move_by_a_drain_that_is_called_off_stays_or_comes_back_without_being_taken_for_another() {
    let (operator, process) = Operator::of_a_pod();
    let logic = Arc::new(MemoryLogic::default());
    let comet = Comet::start_as(&["--drain-lease", "1h"], logic.clone(), process).await;
    comet.prove(&logic).await;
    let mut movers = Vec::new();
    for key in ["stays", "comes back"] {
        let mut client = Client::tcp(&comet).await;
        client.send(&packet(7, 1, format!(r#"{{"key":"{key}","room_id":"r","caps":["move"]}}"#))).await;
        assert_eq!(client.packet().await.op, 8);
        movers.push(client);
    }
    operator.write(Some(1));
    for client in &mut movers {
        assert_eq!(client.packet().await.op, 18);
    }
    operator.write(None);
    eventually("it is ready again", || comet.process.readiness.is_ready()).await;
    let mut back = Client::tcp(&comet).await;
    back.send(&packet(7, 1, r#"{"key":"comes back","room_id":"r","caps":["move"],"moving":true}"#)).await;
    assert_eq!(back.packet().await.op, 8);
    assert_eq!(movers[1].rest().await, [0; 0], "it is not told that another has taken its place");
    tokio::time::sleep(comet::moving::WITHIN + Duration::from_millis(500)).await;
    comet.push_room("r", &["still"]).await;
    for client in [&mut movers[0], &mut back] {
        assert_eq!(client.packet().await.op, 25);
    }
    assert_eq!(disconnected(&logic), [""; 0]);
    assert_eq!((comet.closed("moved"), comet.closed("replaced"), comet.closed("drain")), (1.0, 0.0, 0.0));
    // Told again, it may move again.
    operator.write(Some(2));
    assert_eq!(movers[0].packet().await.op, 18);
    drop((movers, back));
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn told_to_stop_in_the_middle_of_a_lease_it_goes_on_and_ends_and_after_it_ends_at_once() {
    for drained in [false, true] {
        let (operator, process) = Operator::of_a_pod();
        let flags = ["--drain-min", "2s", "--drain-delay", if drained { "0s" } else { "500ms" }, "--drain-lease", "1s"];
        let comet = Comet::start_as(&flags, Arc::new(MemoryLogic::default()), process).await;
        let mut clients = Vec::new();
        for index in 0..20 {
            clients.push(Client::signed_in(&comet, false, &format!(r#"{{"key":"{index}"}}"#)).await);
        }
        let lease = operator.hold();
        let phase = if drained { "drained" } else { "draining" };
        eventually(phase, || comet.status(phase) == true).await;
        let began = Instant::now();
        comet.process.shutdown.begin();
        lease.abort();
        let running = comet.running;
        within(running).await.unwrap().unwrap();
        for client in &mut clients {
            client.closes().await;
        }
        assert!(began.elapsed() < Duration::from_secs(if drained { 2 } else { 30 }), "{drained} {:?}", began.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_have_to_be_closed_faster_than_the_rate_are_counted() {
    let (comet, _) = comet(&["--close-rate", "10", "--drain-max", "1s"]).await;
    let mut clients = Vec::new();
    for index in 0..25 {
        clients.push(Client::signed_in(&comet, false, &format!(r#"{{"key":"{index}"}}"#)).await);
    }
    comet.process.shutdown.begin();
    for client in &mut clients {
        client.closes().await;
    }
    assert!(comet.process.metrics.encode().contains("imcluster_drain_forced_total 15\n"));
    comet.stop().await;
}
