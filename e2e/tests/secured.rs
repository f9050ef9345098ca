//! The services know each other by certificate: who has none reaches nobody, and certificates that are replaced while
//! pushes flow cost none of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use e2e::certs::Authority;
use e2e::client::{Client, Dial};
use e2e::eventually;
use e2e::program::{Comet, Options, Program, Stack, flags, post};
use proto::comet::BroadcastReq;
use proto::comet::comet_client::CometClient;
use proto::delivery::HelloReq;
use proto::delivery::delivery_client::DeliveryClient;
use proto::grpc::channel_over;
use proto::grpc::tls::{Tls, TlsConfig};
use proto::logic::ConnectReq;
use proto::logic::logic_client::LogicClient;
use proto::protocol::Proto;
use proto::sessions::RegisterReq;
use proto::sessions::sessions_client::SessionsClient;

const SOON: Duration = Duration::from_secs(90);
const NAME: &str = "imcluster.internal";
const ROOM: &str = "/goim/push/room?operation=1000&type=live&room=1";

/// A Secret as the kubelet mounts it: the files are reached through a link, which is swapped when they change.
struct Mounted {
    folder: tempfile::TempDir,
    versions: u32,
}

impl Mounted {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), versions: 0 }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Replaces all files: a new certificate by the first authority, and all of them to be trusted.
    fn put(&mut self, authorities: &[&Authority]) {
        self.versions += 1;
        let version = self.folder.path().join(self.versions.to_string());
        std::fs::create_dir(&version).unwrap();
        let issued = authorities[0].issue("ours", &[NAME]).unwrap();
        let trusted: Vec<String> =
            authorities.iter().map(|authority| std::fs::read_to_string(authority.ca()).unwrap()).collect();
        std::fs::write(version.join("ca.crt"), trusted.concat()).unwrap();
        std::fs::copy(&issued.cert, version.join("tls.crt")).unwrap();
        std::fs::copy(&issued.key, version.join("tls.key")).unwrap();
        let next = self.folder.path().join("next");
        std::os::unix::fs::symlink(&version, &next).unwrap();
        std::fs::rename(&next, self.path()).unwrap();
    }
}

async fn start(folder: &Path) -> Stack {
    let tls = flags::internal_tls(folder);
    let options = Options { comets: 2, logic: tls.clone(), job: tls.clone(), comet: tls, ..Options::default() };
    Stack::start(options).await.unwrap()
}

async fn client(stack: &Stack, key: &str) -> Client {
    let target = format!("ws://{}/sub", stack.comet(0).websocket()).parse().unwrap();
    let mut client = Client::connect(&target, &Dial::default()).await.unwrap();
    client.auth(&format!(r#"{{"key":"{key}","room_id":"live://1"}}"#)).await.unwrap();
    client
}

fn programs(stack: &Stack) -> [&Program; 4] {
    [&stack.logic, &stack.job, &stack.comets[0].program, &stack.comets[1].program]
}

/// The sum of a counter over its labels.
async fn counter(program: &Program, name: &str) -> u64 {
    let (_, page) = program.get("/metrics").await.unwrap();
    let of = page.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
    of.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

/// Waits until every service has taken changed files up so often.
async fn reloaded(stack: &Stack, times: u64) {
    for program in programs(stack) {
        eventually(SOON, "changed certificates to be taken up", || async {
            let seen = counter(program, "imcluster_internal_tls_reloads_total").await;
            anyhow::ensure!(seen >= times, "{seen} of {times}, see {}", program.process().log().display());
            anyhow::Ok(())
        })
        .await
        .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_and_their_authority_are_replaced_under_load_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (folder.path().join("old"), folder.path().join("new"));
    for path in [&old, &new] {
        std::fs::create_dir(path).unwrap();
    }
    let (old, new) = (Authority::new(&old).unwrap(), Authority::new(&new).unwrap());
    let mut mounted = Mounted::new();
    mounted.put(&[&old]);
    let stack = start(&mounted.path()).await;

    let mut reader = client(&stack, "reader").await;
    let read = tokio::spawn(async move {
        let mut bodies = Vec::new();
        loop {
            match reader.push_within(SOON).await.unwrap().1 {
                end if end == "end" => return bodies,
                body => bodies.push(body),
            }
        }
    });
    let (http, is_over) = (stack.http(), Arc::new(AtomicBool::new(false)));
    let pushing = tokio::spawn({
        let is_over = is_over.clone();
        async move {
            let mut pushed = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                let body = Bytes::from(pushed.len().to_string());
                let (status, answer) = post(http, ROOM, body.clone()).await.unwrap();
                assert_eq!(status, 200, "{answer}");
                pushed.push(body);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            pushed
        }
    });

    // Another certificate; then both authorities, the new one's certificate, and the new one alone.
    let steps: [&[&Authority]; 4] = [&[&old], &[&old, &new], &[&new, &old], &[&new]];
    for (step, authorities) in (1..).zip(steps) {
        mounted.put(authorities);
        reloaded(&stack, step).await;
    }

    // Who is started again finds the others by what is there now, and is found.
    stack.comet(1).program.restart().await.unwrap();

    is_over.store(true, Ordering::Relaxed);
    let pushed = pushing.await.unwrap();
    post(http, ROOM, "end").await.unwrap();
    let bodies = read.await.unwrap();
    assert!(pushed.len() > 100, "{} pushes are no load", pushed.len());
    assert!(bodies == pushed, "{} pushed, {} arrived", pushed.len(), bodies.len());
    for program in programs(&stack) {
        let (_, status) = program.get("/status").await.unwrap();
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        assert_eq!(status["internalTls"], serde_json::json!({"ok": true}));
    }
}

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    tls: TlsConfig,
}

/// What a process of others has, with files that are good for them.
fn of_others() -> (Mounted, Tls) {
    let folder = tempfile::tempdir().unwrap();
    let mut mounted = Mounted::new();
    mounted.put(&[&Authority::new(folder.path()).unwrap()]);
    let flags = flags::internal_tls(&mounted.path());
    let tls = Line::parse_from(std::iter::once("x".to_owned()).chain(flags)).tls.open().unwrap().unwrap();
    (mounted, tls)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_connects_registers_and_delivers_nothing_and_is_told_why() {
    let folder = tempfile::tempdir().unwrap();
    let mut mounted = Mounted::new();
    mounted.put(&[&Authority::new(folder.path()).unwrap()]);
    let stack = start(&mounted.path()).await;
    let mut ours = client(&stack, "ours").await;
    let (their_files, theirs) = of_others();

    for tls in [None, Some(&theirs)] {
        let channel = |address: std::net::SocketAddr| channel_over(&address.to_string(), SOON, tls).unwrap();
        let (logic, comet) = (channel(stack.logic_grpc()), channel(stack.comet(0).grpc()));
        let token = Bytes::from_static(br#"{"mid":1,"key":"ours"}"#);
        let connect = ConnectReq { server: "stranger".into(), token, ..ConnectReq::default() };
        LogicClient::new(logic.clone()).connect(connect).await.unwrap_err();
        let register = RegisterReq { server: "stranger".into(), ..RegisterReq::default() };
        SessionsClient::new(logic).register(register).await.unwrap_err();
        let proto = Some(Proto { ver: 1, op: 1000, seq: 0, body: Bytes::from_static(b"a stranger's") });
        let all = BroadcastReq { proto_op: 1000, proto, ..BroadcastReq::default() };
        CometClient::new(comet.clone()).broadcast(all).await.unwrap_err();
        DeliveryClient::new(comet.clone()).hello(HelloReq {}).await.unwrap_err();
        let frames = futures::stream::pending();
        let error = DeliveryClient::new(comet).deliver(frames).await.unwrap_err();
        if tls.is_some() {
            let told = error.message();
            assert!(told.starts_with("internal TLS with 127.0.0.1:") && told.contains("--internal-tls-ca"), "{told}");
        }
    }
    for program in [&stack.logic, &stack.comet(0).program] {
        assert!(counter(program, "imcluster_internal_tls_refused_total").await >= 2);
        let log = program.process().output();
        assert!(log.contains("refused a caller on the internal port"), "{}", program.process().log().display());
    }

    // A comet of others is never ready, and says what it lacks.
    let logic = stack.logic_grpc().to_string();
    let stranger = Comet::spawn("stranger", &logic, &flags::internal_tls(&their_files.path())).unwrap();
    eventually(SOON, "the stranger to say what it lacks", || async {
        let (status, text) = stranger.program.get("/ready").await?;
        anyhow::ensure!(
            status == 503 && text.contains("internal TLS with") && text.contains("--internal-tls-ca"),
            "{text}"
        );
        anyhow::Ok(())
    })
    .await
    .unwrap();

    // Nobody heard the stranger, and those who belong together go on.
    let (status, answer) = post(stack.http(), ROOM, "ours").await.unwrap();
    assert_eq!(status, 200, "{answer}");
    assert_eq!(ours.push_within(SOON).await.unwrap(), (1000, Bytes::from_static(b"ours")));
}
