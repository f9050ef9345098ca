//! Any requests in any pieces over any transport: every one is answered, in order, with its seq.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::support::*;

/// One request and the body of its answer: the op of the answer is known from that of the request.
#[derive(Clone, Debug)]
struct Ask {
    op: i32,
    seq: i32,
    ver: i16,
    body: Vec<u8>,
}

impl Ask {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        proto::packet::encode(self.ver, self.op, self.seq, &self.body, &mut bytes);
        bytes
    }

    /// The answer, but for the count in a heartbeat's.
    fn answer(&self, ws: bool) -> Option<Vec<u8>> {
        let (op, body) = match self.op {
            2 | 3 => (3, &[0; 4][..]),
            op @ (12 | 14 | 16) => (op + 1, &self.body[..]),
            9 if !ws => return None,
            op => (op, &[][..]),
        };
        let mut bytes = Vec::new();
        proto::packet::encode(self.ver, op, self.seq, body, &mut bytes);
        Some(bytes)
    }
}

fn ask() -> impl Strategy<Value = Ask> {
    let op = prop_oneof![
        3 => Just(2), 1 => Just(3), 2 => Just(12), 2 => Just(14), 2 => Just(16), 1 => Just(9), 1 => Just(7),
        2 => any::<i32>(),
    ];
    let body = prop_oneof![
        3 => Just(Vec::new()),
        2 => proptest::collection::vec(any::<u8>(), 0..40),
        1 => proptest::collection::vec(any::<u8>(), 4000..=4096),
        1 => Just(b"1000,1001".to_vec()),
    ];
    (op, any::<i32>(), any::<i16>(), body).prop_map(|(op, seq, ver, body)| Ask { op, seq, ver, body })
}

/// How a message stands in frames: whole, or cut once with a ping between the parts.
fn framed(packet: &[u8], cut: Option<usize>) -> Vec<u8> {
    let Some(cut) = cut.map(|cut| cut % packet.len()) else {
        return masked(2, packet);
    };
    let mut first = masked(2, &packet[..cut]);
    first[0] = 0x02;
    let mut last = masked(0, &packet[cut..]);
    last[0] = 0x80;
    [first, masked(10, b"pong"), last].concat()
}

#[test]
fn whatever_is_asked_in_whatever_pieces_is_answered_in_order_with_its_seq() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (comet, _) = runtime.block_on(comet(&[]));
    let mut runner = TestRunner::new(Config { cases: 60, failure_persistence: None, ..Config::default() });
    let asks = proptest::collection::vec((ask(), proptest::option::of(any::<usize>())), 1..40);
    let cuts = proptest::collection::vec(1usize..3000, 1..20);
    let outcome = runner.run(&(asks, cuts, any::<bool>(), any::<bool>()), |(asks, cuts, ws, behind_auth)| {
        let stream: Vec<u8> =
            asks.iter().flat_map(|(ask, cut)| if ws { framed(&ask.bytes(), *cut) } else { ask.bytes() }).collect();
        let expected: Vec<_> = asks.iter().filter_map(|(ask, _)| ask.answer(ws)).collect();
        let answers = runtime.block_on(async {
            let mut client = Client::on(&comet, ws).await;
            let auth = packet(7, 1, r#"{"key":"random"}"#);
            let auth = if ws { masked(2, &auth) } else { auth };
            let mut rest = match behind_auth {
                true => [auth, stream].concat(),
                false => {
                    client.write(&auth).await;
                    client.expect(&packet(8, 1, "")).await;
                    stream
                }
            };
            let mut sizes = cuts.iter().cycle();
            while !rest.is_empty() {
                let left = rest.split_off(rest.len().min(*sizes.next().expect("there is a cut")));
                client.write(&rest).await;
                rest = left;
            }
            if behind_auth {
                client.expect(&packet(8, 1, "")).await;
            }
            let mut answers = Vec::new();
            for _ in &expected {
                let mut answer = client.next().await;
                if answer[8..12] == [0, 0, 0, 3] {
                    answer.truncate(16);
                    answer.extend([0; 4]);
                }
                answers.push(answer);
            }
            client.got_nothing().await;
            answers
        });
        prop_assert_eq!(answers, expected);
        Ok(())
    });
    outcome.unwrap();
    runtime.block_on(comet.stop());
}

#[test]
fn no_bytes_whatever_bring_a_comet_down() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (comet, _) = runtime.block_on(comet(&["--handshake-timeout", "500ms"]));
    let mut runner = TestRunner::new(Config { cases: 60, failure_persistence: None, ..Config::default() });
    let junk = proptest::collection::vec(any::<u8>(), 1..300);
    let outcome = runner.run(&(junk, any::<bool>(), 0..3), |(junk, ws, dressed)| {
        runtime.block_on(async {
            let mut client = Client::signed_in(&comet, ws, r#"{"key":"junk","caps":[]}"#).await;
            let bytes = match (dressed, ws) {
                (1, true) => masked(2, &junk),
                (2, true) => [masked(2, &packet(12, 1, junk.clone())), masked(junk[0] & 15, &junk)].concat(),
                (1 | 2, false) => [packet(14, 1, junk.clone()), junk.clone()].concat(),
                _ => junk,
            };
            client.try_write(&bytes).await;
            drop(client);
            let mut before_auth = Client::on(&comet, ws).await;
            before_auth.try_write(&bytes).await;
            Client::signed_in(&comet, !ws, r#"{"key":"well"}"#).await.got_nothing().await;
        });
        prop_assert_eq!(comet.closed("panic"), 0.0);
        Ok(())
    });
    outcome.unwrap();
    runtime.block_on(comet.stop());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn after_any_coming_and_going_nothing_is_left_behind() {
    let (comet, logic) = comet(&["--shards", "3", "--queue-bytes", "8KiB", "--tcp-send-buffer", "4096"]).await;
    let comet = std::sync::Arc::new(comet);
    let pushing = tokio::spawn({
        let comet = comet.clone();
        async move {
            let body = "x".repeat(3000);
            for round in 0..400 {
                comet.push_room(["a", "b", "c"][round % 3], &[&body, "m"]).await;
                comet.push_all(1000, if round % 50 == 0 { 5 } else { 0 }, raw(&[&body])).await;
                comet.push_keys(&["k0", "k1", "k2", "k3"], 1000, raw(&[&body]), vec![]).await;
            }
        }
    });
    let clients = (0..8usize).map(|index| {
        let comet = comet.clone();
        tokio::spawn(async move {
            for round in 0..12 {
                let number = index * 7 + round;
                let mut client = Client::narrow(&comet, number % 2 == 0).await;
                let caps = if number % 3 == 0 { r#","caps":["rooms"]"# } else { "" };
                // Half of the keys meet each other.
                let token = format!(r#"{{"key":"k{}","room_id":"a","accepts":[1000]{caps}}}"#, number % 6);
                client.send(&packet(7, 1, token)).await;
                let one = |packet: Vec<u8>| if number % 2 == 0 { masked(2, &packet) } else { packet };
                let asks = [packet(12, 2, "b"), packet(19, 3, r#"["c","a"]"#), packet(2, 4, ""), packet(4, 5, "up")];
                for ask in asks {
                    client.try_write(&one(ask)).await;
                }
                match number % 4 {
                    0 => drop(client),
                    1 => tokio::time::sleep(std::time::Duration::from_millis(30)).await,
                    2 => {
                        client.try_write(&one(vec![0; 16])).await;
                        client.rest().await;
                    }
                    _ => {
                        let _ = tokio::time::timeout(std::time::Duration::from_millis(50), client.rest()).await;
                    }
                }
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        within(client).await.unwrap();
    }
    within(pushing).await.unwrap();
    eventually("everybody is gone", || comet.metric("connections") == 0.0).await;
    eventually("nothing waits", || comet.metric("queue_bytes") == 0.0).await;
    eventually("every session is ended", || logic.sessions().is_empty()).await;
    eventually("every room is empty", || comet.metric("rooms") == 0.0).await;
    assert_eq!(comet.closed("panic"), 0.0);
    let mut alive = Client::signed_in(&comet, false, r#"{"key":"k0","room_id":"a"}"#).await;
    comet.push_room("a", &["m"]).await;
    assert_eq!(alive.pushed().await, [(1000, "m".into())]);
    std::sync::Arc::into_inner(comet).unwrap().stop().await;
}
