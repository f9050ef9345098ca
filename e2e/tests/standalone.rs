//! The program as a newcomer and as a goim user first meet it: one command, goim's own files and flags, and what it
//! says when it is told something wrong.

mod goim;
mod wrong;

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use e2e::child::{self, Child};
use e2e::client::{Client, Dial};
use e2e::eventually;
use e2e::planted;
use e2e::ports::Port;
use e2e::program::{Program, binary, get, post};
use e2e::smoke::{Route, one_push};

const SOON: Duration = Duration::from_secs(60);
const PUSH: &str = "/goim/push/room?operation=1000&type=live&room=1000";

/// `imcluster` without a sub-command.
struct Standalone {
    child: Child,
    ports: [Port; 4],
}

impl Standalone {
    async fn start(more: &[&str]) -> Self {
        let ports = [(); 4].map(|()| Port::free().unwrap());
        let names = ["--http-port", "--client-tcp-port", "--client-ws-port"];
        let mut line: Vec<_> =
            names.iter().zip(&ports).flat_map(|(name, port)| [(*name).to_owned(), port.number().to_string()]).collect();
        line.extend(["--admin".to_owned(), ports[3].address().to_string()]);
        line.extend(more.iter().map(|&flag| flag.to_owned()));
        let binary = binary().unwrap();
        let child = Child::start("standalone", "cargo build --release --bin imcluster", move || {
            let mut command = Command::new(&binary);
            command.args(&line).env_clear();
            command
        });
        let started = Self { child: child.unwrap(), ports };
        let ready = eventually(SOON, "standalone to be ready", || async {
            anyhow::ensure!(started.child.output().contains("\nmetrics  "), "it has not printed all");
            let (status, text) = get(started.ports[3].address(), "/ready").await?;
            anyhow::ensure!(status == 200, "{status} {text}");
            anyhow::Ok(())
        });
        ready.await.unwrap();
        started
    }

    fn http(&self) -> SocketAddr {
        self.ports[0].address()
    }

    /// What stands behind this word in the lines it printed.
    fn printed(&self, word: &str) -> String {
        let output = self.child.output();
        let mut lines = output.lines().filter_map(|line| line.strip_prefix(word)?.strip_prefix(' '));
        let found = lines.next().unwrap_or_else(|| panic!("no line begins with {word}:\n{output}")).trim().to_owned();
        assert_eq!(lines.next(), None, "{word} is said once:\n{output}");
        found
    }

    /// One client on each of the client ports, in the room that the page opens in and the printed line pushes to.
    async fn clients(&self) -> [Client; 2] {
        let tcp = format!("tcp://{}", self.ports[1].address());
        let web_socket = format!("ws://{}/sub", self.ports[2].address());
        let mut clients = Vec::new();
        for target in [tcp, web_socket] {
            let mut client = Client::connect(&target.parse().unwrap(), &Dial::default()).await.unwrap();
            let token = r#"{"mid":7,"key":"","room_id":"live://1000","platform":"test","accepts":[1000]}"#;
            client.auth(token).await.unwrap();
            clients.push(client);
        }
        clients.try_into().ok().unwrap()
    }

    /// Types the printed line into a shell.
    async fn push_as_printed(&self) -> String {
        let line = self.printed("push");
        assert!(line.starts_with("curl "), "{line}");
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("curl() {{ command curl --silent --show-error --noproxy '*' \"$@\"; }}; {line}")]);
        child::run("apt-get install curl", shell).await.unwrap()
    }

    async fn ends_well(&self) {
        assert_eq!(self.child.terminate(SOON).await.unwrap().code(), Some(0), "{}", self.child.output());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_command_prints_where_to_look_and_the_printed_push_reaches_clients_of_both_kinds() {
    let standalone = Standalone::start(&[]).await;
    assert_eq!(standalone.printed("page"), format!("http://{}/", standalone.http()));
    let admin = standalone.ports[3].address();
    assert_eq!(standalone.printed("metrics"), format!("http://{admin}/metrics"));

    let (status, page) = get(standalone.http(), "/").await.unwrap();
    assert!(status == 200 && page.contains("<title>ImCluster</title>"), "{status} {page}");
    for part in ["/app.js", "/client.js", "/style.css"] {
        assert_eq!(get(standalone.http(), part).await.unwrap().0, 200, "{part}");
    }

    let mut clients = standalone.clients().await;
    let answer = standalone.push_as_printed().await;
    assert!(answer.starts_with(r#"{"code":0"#), "{answer}");
    for client in &mut clients {
        let (op, body) = client.push_within(SOON).await.unwrap();
        assert_eq!((op, &body[..]), (1000, &b"hello"[..]));
    }

    let (status, metrics) = get(admin, "/metrics").await.unwrap();
    assert!(status == 200 && metrics.contains("imcluster_comet_connections 2"), "{status} {metrics}");
    standalone.ends_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logic_says_in_its_log_what_it_waits_for_and_where_it_looks() {
    let ports = [(); 4].map(|()| Port::free().unwrap());
    let [http, rpc, kafka, redis] = ports.each_ref().map(Port::address);
    let password = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(password.path(), planted::secret("redis-password")).unwrap();
    let line = format!(
        "--auth trust --push-auth none --http-addr {http} --rpc-addr {rpc} --kafka-brokers {kafka} --redis-addr {redis} \
         --redis-password-file {}",
        password.path().display()
    );
    let line: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    let logic = Program::spawn("logic", &line).unwrap();
    let said = eventually(SOON, "logic to say what it waits for", || async {
        let log = logic.process().output();
        for (dependency, address) in [("kafka", kafka), ("redis", redis)] {
            let line = format!("waiting for a dependency dependency=\"{dependency}\" address=\"{address}\"");
            anyhow::ensure!(log.contains(&line), "{line} is not in:\n{log}");
        }
        anyhow::Ok(log)
    });
    assert!(!said.await.unwrap().contains("hunter2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_loopback_a_push_takes_the_token_in_the_printed_line() {
    let standalone = Standalone::start(&["--bind", "0.0.0.0"]).await;
    let mut clients = standalone.clients().await;
    let (status, answer) = post(standalone.http(), PUSH, "let me in").await.unwrap();
    assert!(status == 401 && answer.starts_with(r#"{"code":-401"#), "{status} {answer}");

    assert!(standalone.printed("push").contains("Authorization: Bearer "));
    let answer = standalone.push_as_printed().await;
    assert!(answer.starts_with(r#"{"code":0"#), "{answer}");
    for client in &mut clients {
        let (op, body) = client.push_within(SOON).await.unwrap();
        assert_eq!((op, &body[..]), (1000, &b"hello"[..]), "and nothing of the push that was refused");
    }
    standalone.ends_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_push_goes_in_at_logic_and_comes_out_at_a_web_socket_if_the_token_is_right() {
    let standalone = Standalone::start(&["--bind", "0.0.0.0"]).await;
    let line = standalone.printed("push");
    let (_, token) = line.split_once("Authorization: Bearer ").unwrap();
    let mut route = Route {
        clients: format!("ws://localhost:{}/sub", standalone.ports[2].number()),
        backends: format!("localhost:{}", standalone.http().port()),
        host: None,
        token: token.split('\'').next().unwrap().to_owned(),
    };
    let took = one_push(&route, SOON).await.unwrap();
    assert!(took > Duration::ZERO);

    route.token.push('x');
    let refused = format!("{:#}", one_push(&route, SOON).await.unwrap_err());
    assert!(refused.contains("401") && refused.contains(&route.backends), "{refused}");
    standalone.ends_well().await;
}
