//! What logic is told, and when: sessions that begin, go on, end, and come back out of order.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use comet::logic::memory::{MemoryLogic, Said};
use comet::logic::{Held, Identity, Logic, LogicError, Noted, Renewed};
use proto::logic::CometInfo;
use proto::{Key, Mid, Packet};
use tokio::sync::Semaphore;

use crate::support::*;

/// Memory, but every Disconnect waits until the test lets it through, and op 666 makes it panic.
#[derive(Debug)]
struct Odd {
    memory: MemoryLogic,
    ends: Semaphore,
    /// While set, no Register is answered.
    slow: AtomicBool,
    registering: AtomicBool,
}

impl Odd {
    fn new(ends: usize) -> Arc<Self> {
        Arc::new(Self {
            memory: MemoryLogic::default(),
            ends: Semaphore::new(ends),
            slow: AtomicBool::default(),
            registering: AtomicBool::default(),
        })
    }
}

#[async_trait]
impl Logic for Odd {
    async fn connect(&self, cookie: &str, token: Bytes, address: IpAddr) -> Result<Identity, LogicError> {
        assert_ne!(token, "panic");
        self.memory.connect(cookie, token, address).await
    }
    async fn disconnect(&self, mid: Mid, key: &Key) -> Result<bool, LogicError> {
        self.ends.acquire().await.unwrap().forget();
        self.memory.disconnect(mid, key).await
    }
    async fn heartbeat(&self, held: Held) -> Result<(), LogicError> {
        self.memory.heartbeat(held).await
    }
    async fn renew_online(&self, rooms: HashMap<String, i32>, info: CometInfo) -> Result<Renewed, LogicError> {
        self.memory.renew_online(rooms, info).await
    }
    async fn register(&self, held: Vec<Held>) -> Result<(), LogicError> {
        self.registering.store(true, Ordering::Relaxed);
        while self.slow.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.memory.register(held).await
    }
    async fn noted(&self, cursor: &str) -> Result<Noted, LogicError> {
        self.memory.noted(cursor).await
    }
    async fn receive(&self, mid: Mid, key: &Key, packet: Packet) -> Result<(), LogicError> {
        assert_ne!(packet.op, 666);
        self.memory.receive(mid, key, packet).await
    }
    async fn probe(&self, key: &str) -> Result<(), LogicError> {
        self.memory.probe(key).await
    }
}

fn beats(logic: &MemoryLogic) -> usize {
    logic.said().iter().filter(|said| matches!(said, Said::Heartbeat { .. })).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_one_connections_task_ends_that_connection_alone_and_is_counted() {
    let logic = Odd::new(10);
    let comet = Comet::start(&["--shards", "1"], logic.clone()).await;
    let mut victim = Client::signed_in(&comet, false, r#"{"key":"victim","room_id":"r"}"#).await;
    let mut other = Client::signed_in(&comet, true, r#"{"key":"other","room_id":"r"}"#).await;
    victim.send(&packet(666, 1, "")).await;
    victim.closes().await;
    let mut early = Client::tcp(&comet).await;
    early.send(&packet(7, 1, "panic")).await;
    early.closes().await;
    comet.push_room("r", &["m"]).await;
    assert_eq!(other.pushed().await, [(1000, "m".into())]);
    eventually("both are counted", || comet.closed("panic") == 2.0).await;
    assert_eq!(comet.metric("connections"), 1.0);
    eventually("logic is told of the session", || disconnected(&logic.memory) == ["victim"]).await;
    eventually(
        "its room is left",
        || matches!(logic.memory.said().last(), Some(Said::RenewOnline { rooms, .. }) if rooms["r"] == 1),
    )
    .await;
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_while_its_end_is_told_is_let_in_when_logic_knows_it_again() {
    let logic = Odd::new(0);
    let comet = Comet::start(&[], logic.clone()).await;
    let token = r#"{"mid":1,"key":"k"}"#;
    let old = Client::signed_in(&comet, false, token).await;
    drop(old);
    eventually("it is gone", || comet.metric("connections") == 0.0).await;
    let mut new = Client::tcp(&comet).await;
    new.send(&packet(7, 1, token)).await;
    let connects = || logic.memory.said().iter().filter(|said| matches!(said, Said::Connect { .. })).count();
    eventually("its session is made", || connects() == 2).await;
    tokio::time::timeout(Duration::from_millis(300), new.packet()).await.expect_err("no reply yet");
    logic.ends.add_permits(1);
    new.expect(&hex("00000010 0010 0001 00000008 00000001")).await;
    assert_eq!(disconnected(&logic.memory), ["k"]);
    assert_eq!(beats(&logic.memory), 1, "the session is asserted again");
    assert_eq!(logic.memory.sessions(), [Key::from("k")]);
    new.got_nothing().await;
    comet.process.shutdown.begin();
    logic.ends.add_permits(1);
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_clients_socket_does_not_wait_for_logic() {
    let logic = Odd::new(0);
    let comet = Comet::start(&[], logic.clone()).await;
    let mut client = Client::signed_in(&comet, false, r#"{"key":"k"}"#).await;
    let began = Instant::now();
    let request = proto::delivery::KickReq { keys: vec!["k".into()], ..Default::default() };
    comet.delivery().kick(request).await.unwrap();
    client.closes().await;
    assert!(began.elapsed() < PATIENCE / 2);
    assert_eq!(disconnected(&logic.memory), [""; 0]);
    logic.ends.add_permits(1);
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_refreshed_every_third_of_its_time_to_live() {
    let (comet, logic) = comet(&[]).await;
    let began = Instant::now();
    let _client = Client::signed_in(&comet, false, r#"{"mid":9,"key":"k","session_ttl_ms":1500}"#).await;
    eventually("four refreshes", || beats(&logic) == 4).await;
    assert!(began.elapsed() >= Duration::from_millis(1900), "{:?}", began.elapsed());
    let is_whole = |said: &Said| match said {
        Said::Heartbeat { held } => held.mid == Mid(9) && held.key.as_str() == "k" && held.connected_ms != 0,
        _ => false,
    };
    assert!(logic.said().iter().any(is_whole));
    logic.set_down(true);
    eventually("one fails", || comet.metric("logic_errors_total{kind=\"heartbeat\"}") >= 2.0).await;
    logic.set_down(false);
    eventually("it goes on", || beats(&logic) > 5).await;
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_op_2_keeps_a_session_and_its_end_is_told() {
    let mut logic = MemoryLogic::default();
    logic.heartbeat = Duration::from_secs(1);
    let logic = Arc::new(logic);
    let comet = Comet::start(&[], logic.clone()).await;
    let began = Instant::now();
    let mut silent = Client::signed_in(&comet, false, r#"{"key":"silent"}"#).await;
    let mut pinging = Client::signed_in(&comet, true, r#"{"key":"pinging"}"#).await;
    let mut alive = Client::signed_in(&comet, false, r#"{"key":"alive"}"#).await;
    while comet.closed("heartbeat_timeout") < 2.0 || began.elapsed() < Duration::from_millis(2500) {
        alive.online(1).await;
        pinging.try_write(&masked(9, b"x")).await;
        pinging.try_write(&masked(2, &packet(4, 1, ""))).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    silent.closes().await;
    pinging.rest().await;
    alive.got_nothing().await;
    eventually("logic is told", || disconnected(&logic).len() == 2).await;
    assert!(began.elapsed() >= Duration::from_secs(1));
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_end_is_told_once_and_the_session_is_gone() {
    let (comet, logic) = comet(&[]).await;
    let mut clients = Vec::new();
    for index in 0..20 {
        clients.push(Client::signed_in(&comet, index % 2 == 0, &format!(r#"{{"key":"{index}"}}"#)).await);
    }
    drop(clients);
    eventually("all are told", || disconnected(&logic).len() == 20).await;
    assert_eq!(disconnected(&logic).into_iter().collect::<HashSet<_>>().len(), 20);
    assert!(logic.sessions().is_empty());
    assert_eq!(comet.metric("connections"), 0.0);
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_store_lost_is_registered_again_and_who_left_meanwhile_is_signed_off() {
    let logic = Odd::new(usize::MAX >> 4);
    let comet = Comet::start(&["--shards", "2"], logic.clone()).await;
    let mut clients = Vec::new();
    for index in 0..1200 {
        clients.push(Client::signed_in(&comet, index % 2 == 0, &format!(r#"{{"mid":5,"key":"{index}"}}"#)).await);
    }
    logic.slow.store(true, Ordering::Relaxed);
    logic.memory.lose();
    eventually("the first batch is on its way", || logic.registering.load(Ordering::Relaxed)).await;
    clients.truncate(900);
    eventually("they are gone", || comet.metric("connections") == 900.0).await;
    logic.slow.store(false, Ordering::Relaxed);
    eventually("those who stay are known, and nobody else", || logic.memory.sessions().len() == 900).await;
    eventually("all was told", || comet.metric("registered_sessions_total") >= 900.0).await;
    eventually("and stays so", || logic.memory.sessions().len() == 900).await;
    let mut known = logic.memory.sessions();
    known.sort_by_key(|key| key.as_str().parse::<u32>().unwrap());
    assert!(known.iter().enumerate().all(|(index, key)| key.as_str() == index.to_string()));
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_logic_made_without_an_answer_is_ended_and_those_of_who_is_here_stay() {
    let (comet, logic) = comet(&[]).await;
    let mut here = Vec::new();
    for index in 0..10 {
        here.push(Client::signed_in(&comet, index % 2 == 0, &format!(r#"{{"mid":5,"key":"here {index}"}}"#)).await);
    }
    logic.set_mute(true);
    for index in 0..4 {
        let mut refused = Client::tcp(&comet).await;
        refused.send(&packet(7, 1, format!(r#"{{"mid":5,"key":"refused {index}"}}"#))).await;
        refused.closes().await;
    }
    logic.set_mute(false);
    assert_eq!(logic.sessions().len(), 14);
    eventually("nobody but who is here has a session", || logic.sessions().len() == 10).await;
    assert!(logic.sessions().iter().all(|key| key.as_str().starts_with("here")));
    assert_eq!(comet.metric("stray_sessions_total"), 4.0);
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rooms_of_all_shards_are_reported_together_with_what_the_comet_is() {
    let flags = ["--shards", "3", "--region", "sh", "--zone", "z1", "--weight", "20", "--addrs", "a:1,b:2"];
    let (comet, logic) = comet(&flags).await;
    let mut clients = Vec::new();
    for index in 0..12 {
        let token = format!(r#"{{"key":"k{index}","room_id":"room{}"}}"#, index % 2);
        clients.push(Client::signed_in(&comet, index % 3 == 0, &token).await);
    }
    let expected = HashMap::from([("room0".to_owned(), 6), ("room1".to_owned(), 6)]);
    let last = || {
        logic.said().into_iter().rev().find_map(|said| match said {
            Said::RenewOnline { rooms, info } => Some((rooms, info)),
            _ => None,
        })
    };
    eventually("all are counted", || last().is_some_and(|(rooms, info)| rooms == expected && info.conn_count == 12))
        .await;
    let (_, info) = last().unwrap();
    assert_eq!((info.host.as_str(), info.region.as_str(), info.zone.as_str()), ("h1", "sh", "z1"));
    assert_eq!((info.weight, info.offline, info.ip_count), (20, false, 1));
    assert_eq!(info.addrs, ["a:1", "b:2"]);
    clients.truncate(1);
    eventually("the others are gone", || last().unwrap().0 == HashMap::from([("room0".to_owned(), 1)])).await;
    clients.clear();
    eventually("and the room", || last().unwrap().0.is_empty() && last().unwrap().1.ip_count == 0).await;
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comet_is_ready_once_logic_answered_and_a_probe_came_back() {
    let logic = Arc::new(MemoryLogic::default());
    logic.set_down(true);
    let comet = Comet::start(&[], logic.clone()).await;
    eventually("logic is asked", || comet.metric("logic_errors_total{kind=\"renew_online\"}") > 0.0).await;
    assert!(!comet.process.readiness.is_ready());
    logic.set_down(false);
    let probe =
        || logic.said().into_iter().find_map(|said| if let Said::Probe { key } = said { Some(key) } else { None });
    eventually("a probe is sent", || probe().is_some()).await;
    assert!(!comet.process.readiness.is_ready());
    assert!(comet.push_keys(&[&probe().unwrap()], 0, raw(&["echo"]), vec![]).await.is_empty());
    eventually("it is ready", || comet.process.readiness.is_ready()).await;
    logic.set_down(true);
    eventually("an outage is seen", || comet.process.readiness.report().contains("logic: down")).await;
    assert!(comet.process.readiness.is_ready(), "an outage does not make it unready");
    comet.stop().await;
}
