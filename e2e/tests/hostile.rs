//! Hostile clients: the limits answer them, and everybody else is served as before.

use std::time::Duration;

use e2e::bench::logic::StandInLogic;
use e2e::client::{Client, Dial, Target};
use e2e::ports::Port;
use e2e::program::{Program, flags};
use e2e::{eventually, os};
use proto::{frame, op, packet};

const SOON: Duration = Duration::from_secs(30);

/// A comet that trusts everybody, and one client that must not notice anything.
struct Scene {
    comet: Program,
    _logic: StandInLogic,
    tcp: Port,
    websocket: Port,
    _grpc: Port,
    bystander: Client,
}

impl Scene {
    async fn start(more: &[&str]) -> Self {
        let logic = StandInLogic::start().await.unwrap();
        let (tcp, websocket, grpc) = (Port::free().unwrap(), Port::free().unwrap(), Port::free().unwrap());
        let mut arguments = flags::comet("hostile", &tcp, &websocket, &grpc, &logic.port().address().to_string());
        arguments.extend(flags::no_job());
        arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        let comet = Program::start("comet", &arguments).await.unwrap();
        let bystander = enter(&target("ws", &websocket), 0).await.unwrap();
        Self { comet, _logic: logic, tcp, websocket, _grpc: grpc, bystander }
    }

    fn target(&self, scheme: &str) -> Target {
        target(scheme, if scheme == "ws" { &self.websocket } else { &self.tcp })
    }

    async fn connect(&self, scheme: &str) -> Client {
        Client::connect(&self.target(scheme), &Dial::default()).await.unwrap()
    }

    async fn others_are_served(&mut self) {
        self.bystander.heartbeat().await.unwrap();
        enter(&self.target("tcp"), 1).await.unwrap().heartbeat().await.unwrap();
    }
}

fn target(scheme: &str, port: &Port) -> Target {
    format!("{scheme}://{}", port.address()).parse().unwrap()
}

fn token(n: usize) -> String {
    (e2e::bench::stream::members(1))(n).token
}

async fn enter(target: &Target, n: usize) -> anyhow::Result<Client> {
    let mut client = Client::connect(target, &Dial::default()).await?;
    client.auth(token(n)).await?;
    Ok(client)
}

/// The value of one line of the metrics page.
async fn metric(comet: &Program, name: &str) -> u64 {
    let (_, page) = comet.get("/metrics").await.unwrap();
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
}

/// A packet whose header says what it likes.
fn header(length: i32, header_length: i16) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet::encode(1, op::AUTH, 1, b"{}", &mut bytes);
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    bytes[4..6].copy_from_slice(&header_length.to_be_bytes());
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_packets_end_their_own_connection_only() {
    let mut scene = Scene::start(&[]).await;
    let http = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec();
    for bytes in [http, header(18, 17), header(-1, 16), header(i32::MAX, 16), header(4113, 16), vec![0xff; 4096]] {
        let mut client = scene.connect("tcp").await;
        client.send_bytes(&bytes).await.unwrap();
        client.closed_within(SOON).await.unwrap();
        scene.others_are_served().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_break_the_rules_are_answered_with_their_close_code() {
    let mut scene = Scene::start(&[]).await;
    let huge = [0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4];
    let cases: [(&[u8], u16); 4] = [
        (&[0x82, 0x02, 1, 2], 1002),       // not masked
        (&[0xf2, 0x80, 1, 2, 3, 4], 1002), // reserved bits
        (&[0x83, 0x80, 1, 2, 3, 4], 1002), // an opcode that does not exist
        (&huge, 1009),
    ];
    for (bytes, code) in cases {
        let mut client = scene.connect("ws").await;
        client.send_bytes(bytes).await.unwrap();
        assert_eq!(client.closed_within(SOON).await.unwrap(), Some(code), "{bytes:x?}");
    }
    let mut client = enter(&scene.target("ws"), 2).await.unwrap();
    client.send_frame(frame::BINARY, &header(64, 16)).await.unwrap();
    assert_eq!(client.closed_within(SOON).await.unwrap(), Some(1002), "a packet longer than its message");
    scene.others_are_served().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_says_nothing_or_too_much_is_closed() {
    let mut scene = Scene::start(&["--handshake-timeout", "1s", "--frames-per-second", "20"]).await;
    for scheme in ["tcp", "ws"] {
        let mut silent = scene.connect(scheme).await;
        silent.closed_within(SOON).await.unwrap();
        let mut loud = enter(&scene.target(scheme), 3).await.unwrap();
        let flood = async {
            // Ends when the server has closed and the socket says so.
            while loud.send(op::HEARTBEAT, b"").await.is_ok() {}
        };
        tokio::time::timeout(SOON, flood).await.expect("a flood goes on unanswered");
    }
    scene.others_are_served().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_connects_takes_the_places_there_are_for_a_while_and_is_counted_beyond() {
    let limits = ["--max-connections", "300", "--handshake-timeout", "15s", "--handshakes-per-second", "0"];
    let mut scene = Scene::start(&limits).await;
    // Half of them upgrade, none authenticates; the bystander has a place already.
    let mut flood = Vec::new();
    for number in 0..299 {
        let scheme = if number % 2 == 0 { "ws" } else { "tcp" };
        flood.push(Client::connect(&scene.target(scheme), &Dial::default()).await.unwrap());
    }
    for scheme in ["tcp", "ws"].repeat(50) {
        // Beyond the limit a connect is accepted and closed, without a byte.
        let mut beyond = Client::open(&scene.target(scheme), &Dial::default()).await.unwrap();
        assert_eq!(beyond.closed_within(SOON).await.unwrap(), None);
        scene.bystander.heartbeat().await.unwrap();
    }
    let refused = metric(&scene.comet, "imcluster_comet_over_connections_total").await;
    assert!(refused >= 100, "{refused}");
    for mut client in flood {
        client.closed_within(SOON).await.unwrap();
    }
    let target = scene.target("tcp");
    eventually(SOON, "the places to be free", || enter(&target, 6)).await.unwrap();
    scene.others_are_served().await;
    assert!(metric(&scene.comet, "imcluster_comet_closed_total{reason=\"auth_timeout\"}").await >= 299);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comet_out_of_files_serves_who_is_in_and_takes_new_clients_once_it_has_files_again() {
    let mut scene = Scene::start(&[]).await;
    let pid = scene.comet.process().pid();
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() as u64;
    let before = os::limit_files(pid, open + 8).unwrap();
    let dial = Dial::default();
    let mut crowd = Vec::new();
    for _ in 0..32 {
        // Beyond the limit the kernel still completes connects, from its backlog; nobody is accepted.
        crowd.push(Client::open(&scene.target("tcp"), &dial).await.unwrap());
    }
    scene.bystander.heartbeat().await.unwrap();
    let late = tokio::time::timeout(Duration::from_secs(2), enter(&scene.target("tcp"), 4)).await;
    assert!(!matches!(late, Ok(Ok(_))), "there were no files, and yet somebody got in");
    drop(crowd);
    os::limit_files(pid, before).unwrap();
    let target = scene.target("tcp");
    eventually(SOON, "a new client to get in", || enter(&target, 5)).await.unwrap();
    scene.others_are_served().await;
}
