//! Rooms go to the comets that have them, and still every push that is made after the reply to a join arrives.

use std::collections::HashSet;
use std::time::Duration;

use e2e::client::{Client, Dial, Received};
use e2e::program::{Options, Stack, post};
use proto::envelope::{Move, PushId, Through, Welcome};
use proto::op;
use tokio::task::JoinSet;

const SOON: Duration = Duration::from_secs(90);
const CLIENTS: usize = 20;
const ROUNDS: usize = 500;

async fn connect(stack: &Stack, comet: usize) -> Client {
    let target = format!("ws://{}/sub", stack.comet(comet).websocket()).parse().unwrap();
    Client::connect(&target, &Dial::default()).await.unwrap()
}

async fn push(http: std::net::SocketAddr, room: &str, body: &str) {
    push_to(http, &format!("room?operation=1000&type=live&room={room}"), body).await;
}

async fn push_to(http: std::net::SocketAddr, whom: &str, body: &str) {
    let (status, answer) = post(http, &format!("/goim/push/{whom}"), body.to_owned()).await.unwrap();
    assert!(status == 200 && answer.contains("\"code\":0"), "{status} {answer}");
}

/// Joins, pushes once that is confirmed, and must be given it, again and again.
async fn race(mut client: Client, http: std::net::SocketAddr, index: usize) {
    for round in 0..ROUNDS {
        // Rooms that this client was in before come up again, and one that others are in at times.
        let name = if round % 5 == 0 { "shared".to_owned() } else { format!("{index}-{}", round % 7) };
        let room = format!("live://{name}");
        let joined = client.join(&[&room]).await.unwrap();
        assert_eq!(joined.rooms[&room], "ok");
        let body = format!("{index}/{round}");
        push(http, &name, &body).await;
        loop {
            match client.next_within(SOON).await {
                Ok(Received::Message { body: got, .. }) if got == body.as_bytes() => break,
                Ok(Received::Message { room: of, .. }) => assert_eq!(of, "live://shared", "a room that it has left"),
                other => panic!("client {index} in round {round}: {other:?}"),
            }
        }
        client.leave(&[&room]).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_made_after_the_reply_to_a_join_arrives_ten_thousand_times_also_while_job_stands_still_now_and_then() {
    let comet = vec!["--frames-per-second=1000".to_owned()];
    let stack = Stack::start(Options { comets: 2, comet, ..Options::default() }).await.unwrap();
    let mut races = JoinSet::new();
    for index in 0..CLIENTS {
        let mut client = connect(&stack, index % 2).await;
        client.auth(format!(r#"{{"key":"racer-{index}","caps":["rooms"]}}"#)).await.unwrap();
        races.spawn(race(client, stack.http(), index));
    }
    let stalls = async {
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            stack.job.stop();
            tokio::time::sleep(Duration::from_secs(1)).await;
            stack.job.cont();
        }
    };
    tokio::select! {
        () = stalls => {}
        () = async { while let Some(done) = races.join_next().await { done.unwrap(); } } => {}
    }
}

/// What a client was given: bodies in their order, and what came twice over its connections.
#[derive(Default)]
struct Given {
    bodies: Vec<String>,
    seen: HashSet<PushId>,
    twice: usize,
}

impl Given {
    fn take(&mut self, id: PushId, body: &[u8]) {
        match self.seen.insert(id) {
            true => self.bodies.push(String::from_utf8(body.to_vec()).unwrap()),
            false => self.twice += 1,
        }
    }
}

/// A client that moves when it is told to, until it is given the last push of both rooms and to its key.
async fn movable(mut here: Client, there: std::sync::Arc<str>, index: usize) -> (usize, Given) {
    let mut given = Given::default();
    while given.bodies.iter().filter(|body| body.ends_with("end")).count() < 3 {
        match here.next_within(SOON).await.unwrap() {
            Received::Message { id, body, .. } => given.take(id, &body),
            Received::Packet(packet) if packet.op == op::MOVE => {
                let order: Move = serde_json::from_slice(&packet.body).unwrap();
                assert!(order.within_ms > 0);
                let mut next = Client::connect(&there.parse().unwrap(), &Dial::default()).await.unwrap();
                let body = next.auth(token(index, true)).await.unwrap().body;
                let welcome: Welcome = serde_json::from_slice(&body).unwrap();
                let joined = next.join(&["live://two"]).await.unwrap();
                let through: Vec<Through> = vec![welcome.through, joined.through];
                here.send(op::MOVE, &serde_json::to_vec(&through).unwrap()).await.unwrap();
                leave(&mut here, &mut given).await;
                here = next;
            }
            other => panic!("client {index}: {other:?}"),
        }
    }
    (index, given)
}

/// Takes what is left on a connection until the server says that this was all, and closes.
async fn leave(old: &mut Client, given: &mut Given) {
    let mut is_done = false;
    loop {
        match old.next_within(SOON).await.unwrap() {
            Received::Message { id, body, .. } => given.take(id, &body),
            Received::Packet(packet) if packet.op == op::MOVE => is_done = true,
            Received::Closed(_) => return assert!(is_done, "it was closed before it was told that this was all"),
            other => panic!("{other:?}"),
        }
    }
}

fn token(index: usize, moving: bool) -> String {
    let caps = r#""accepts":[1000],"caps":["rooms","move"]"#;
    format!(r#"{{"key":"mover-{index}","room_id":"live://one",{caps},"moving":{moving}}}"#)
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_can_move_lose_nothing_and_see_nothing_twice_while_their_comet_is_told_to_end() {
    const MOVERS: usize = 60;
    let comet = ["--drain-delay=1s", "--drain-min=3s", "--flush=1s"].map(str::to_owned).to_vec();
    let stack = Stack::start(Options { comets: 2, comet, ..Options::default() }).await.unwrap();
    let there: std::sync::Arc<str> = format!("ws://{}/sub", stack.comet(1).websocket()).into();
    let mut movers = JoinSet::new();
    for index in 0..MOVERS {
        let mut client = connect(&stack, 0).await;
        client.auth(token(index, false)).await.unwrap();
        client.join(&["live://two"]).await.unwrap();
        movers.spawn(movable(client, there.clone(), index));
    }
    let process = stack.comet(0).program.process();
    let (mut pushed, mut to_keys) = (Vec::new(), vec![Vec::new(); MOVERS]);
    let everybody = (0..MOVERS).map(|index| format!("keys=mover-{index}")).collect::<Vec<_>>().join("&");
    for number in 0..1200 {
        if number == 100 {
            process.signal(libc::SIGTERM);
        }
        // What logic sent to where a key was is still on its way when the key is elsewhere, and so is something later.
        match number % 100 {
            20 => stack.job.stop(),
            50 => stack.job.cont(),
            21 | 49 => {
                let body = format!("key all {number}");
                push_to(stack.http(), &format!("keys?operation=1000&{everybody}"), &body).await;
                to_keys.iter_mut().for_each(|of_key| of_key.push(body.clone()));
            }
            _ => {}
        }
        let index = number % MOVERS;
        let body = format!("key {number}");
        push_to(stack.http(), &format!("keys?operation=1000&keys=mover-{index}"), &body).await;
        to_keys[index].push(body);
        let room = ["one", "two"][number % 2];
        let body = format!("{room} {number}");
        push(stack.http(), room, &body).await;
        pushed.push(body);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(process.wait(SOON).await.unwrap().code(), Some(0), "{}", process.output());
    for room in ["one", "two"] {
        let last = format!("{room} end");
        push(stack.http(), room, &last).await;
        pushed.push(last);
    }
    push_to(stack.http(), &format!("keys?operation=1000&{everybody}"), "key end").await;
    to_keys.iter_mut().for_each(|of_key| of_key.push("key end".to_owned()));
    let mut twice = 0;
    let of = |room: &str, bodies: &[String]| -> Vec<String> {
        bodies.iter().filter(|body| body.starts_with(room)).cloned().collect()
    };
    while let Some(given) = movers.join_next().await {
        let (index, given) = given.unwrap();
        twice += given.twice;
        assert_eq!(of("key", &given.bodies), to_keys[index], "mover {index}");
        assert_eq!(of("one", &given.bodies), of("one", &pushed));
        assert_eq!(of("two", &given.bodies), of("two", &pushed));
    }
    println!("{twice} of {} deliveries came on both connections", MOVERS * pushed.len());
}
