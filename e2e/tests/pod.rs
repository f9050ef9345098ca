//! A comet as a process in a pod: who it is, what it says of itself, and what it is told through the pod's files.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use e2e::eventually;
use e2e::ports::Port;
use e2e::program::{binary, get};
use runtime::pod::{self, DRAIN_ANNOTATION};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;

const SOON: Duration = Duration::from_secs(60);

/// A comet whose logic is away, with the files of a pod in a folder of its own.
struct Pod {
    process: Child,
    admin: Port,
    tcp: Port,
    folder: tempfile::TempDir,
    _others: [Port; 2],
}

impl Pod {
    fn start() -> Self {
        let [admin, tcp, web_socket, grpc] = [(); 4].map(|()| Port::free().unwrap());
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(binary().unwrap());
        command
            .env_clear()
            .env(pod::POD_NAME, "prod-comet-0")
            .env(pod::POD_UID, "1f0c2d3e-0000-4000-8000-000000000000");
        command.arg("comet").args([
            "--logic",
            "127.0.0.1:1",
            "--drain-delay",
            "0s",
            "--flush",
            "0s",
            "--claim-wait",
            "0s",
            "--handshake-timeout",
            "1h",
        ]);
        command.arg("--live").arg(folder.path().join(pod::LIVE_FILE));
        command.arg("--annotations").arg(folder.path().join(pod::ANNOTATIONS_FILE));
        for (flag, port) in
            [("--admin", &admin), ("--tcp-bind", &tcp), ("--websocket-bind", &web_socket), ("--grpc-bind", &grpc)]
        {
            command.args([flag, &port.address().to_string()]);
        }
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Self { process, admin, tcp, folder, _others: [web_socket, grpc] }
    }

    fn write(&self, name: &str, text: &str) {
        replace(&self.folder.path().join(name), text);
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.process.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    /// Waits until `/status` is so, and returns it.
    async fn status(&self, what: &str, so: impl Fn(&Value) -> bool) -> Value {
        let asked = eventually(SOON, what, || async {
            let (_, body) = get(self.admin.address(), pod::STATUS_PATH).await.map_err(|error| error.to_string())?;
            let status: Value = serde_json::from_str(&body).map_err(|error| error.to_string())?;
            if so(&status) { Ok(status) } else { Err(body) }
        });
        asked.await.unwrap()
    }

    fn tcp(&self) -> SocketAddr {
        self.tcp.address()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // Gone already when the test went well.
        let _gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}

/// As the kubelet does, at once.
fn replace(path: &Path, text: &str) {
    let new = PathBuf::from(format!("{}.new", path.display()));
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path).unwrap();
}

#[tokio::test]
async fn a_comet_in_a_pod_says_who_and_how_it_is() {
    let pod = Pod::start();
    let status = pod.status("logic to be away", |status| status["dependencies"]["logic"]["error"].is_string()).await;
    let said = |name: &str| status[name].clone();
    assert_eq!(
        ["component", "server", "flow"].map(said),
        [json!("comet"), json!("prod-comet-0.1f0c2d3e"), json!("waiting")]
    );
    assert_eq!(["ready", "draining", "drained"].map(said), [false; 3].map(Value::from));
    assert_eq!((said("connections"), said("version")), (json!(0), json!(runtime::VERSION)));
    assert_eq!(status["dependencies"]["logic"]["up"], false);
    assert_eq!((status.get("lag"), status.get("configHash"), status.get("topic")), (None, None, None));
}

#[tokio::test]
async fn live_settings_are_taken_up_and_a_bad_file_is_named_and_changes_nothing() {
    let pod = Pod::start();
    pod.status("it to run", |status| status["component"] == "comet").await;
    // Without annotations nothing is looked at until a hang-up.
    let good = "maxConnections = 1\n";
    pod.write(pod::LIVE_FILE, good);
    pod.signal("HUP");
    let hash = pod::live_hash(good.as_bytes());
    pod.status("the hash", |status| status["configHash"] == hash.as_str()).await;
    let (_, metrics) = get(pod.admin.address(), pod::METRICS_PATH).await.unwrap();
    assert!(metrics.contains(&format!("imcluster_config_hash{{hash=\"{hash}\"}} 1\n")), "{metrics}");
    let mut one = tokio::net::TcpStream::connect(pod.tcp()).await.unwrap();
    let mut other = tokio::net::TcpStream::connect(pod.tcp()).await.unwrap();
    // Each of two acceptors may have one of them: it is not said which is the first.
    let closed = async {
        tokio::select! {
            closed = one.read_u8() => (closed, &mut other),
            closed = other.read_u8() => (closed, &mut one),
        }
    };
    let (closed, stays) = tokio::time::timeout(SOON, closed).await.expect("one is the limit now");
    assert!(closed.is_err());

    pod.write(pod::ANNOTATIONS_FILE, "imcluster.dev/restart=\"x\"\n");
    pod.write(pod::LIVE_FILE, "maxConnections = 1\nshards = 3\n");
    let status = pod.status("the error", |status| status["reloadError"].is_string()).await;
    assert!(
        status["reloadError"].as_str().unwrap().contains("shards cannot change while this service runs"),
        "{status}"
    );
    assert_eq!(status["configHash"], hash.as_str());
    pod.write(pod::LIVE_FILE, "log = \"info,comet=debug\"\n");
    let hash = pod::live_hash(b"log = \"info,comet=debug\"\n");
    let status = pod.status("the new hash", |status| status["configHash"] == hash.as_str()).await;
    assert_eq!(status.get("reloadError"), None);
    let open = tokio::time::timeout(Duration::from_millis(100), stays.read_u8()).await;
    assert!(open.is_err(), "nobody is disconnected");
}

#[tokio::test]
async fn the_pods_annotation_has_it_drain_and_serve_again_and_a_signal_ends_it() {
    let mut pod = Pod::start();
    pod.status("it to run", |status| status["component"] == "comet").await;
    let annotations = |number: u32| format!("imcluster.dev/restart=\"x\"\n{DRAIN_ANNOTATION}=\"{number}\"\n");
    for number in [1, 2] {
        pod.write(pod::ANNOTATIONS_FILE, &annotations(number));
        pod.status("it to be drained", |status| status["drained"] == true && status["draining"] == true).await;
        assert!(tokio::net::TcpStream::connect(pod.tcp()).await.is_err());
        let (_, ready) = get(pod.admin.address(), pod::READY_PATH).await.unwrap();
        assert!(ready.starts_with("draining: asked to by the pod's annotation\n"), "{ready}");
        pod.write(pod::ANNOTATIONS_FILE, "imcluster.dev/restart=\"x\"\n");
        pod.status("it to serve again", |status| status["draining"] == false).await;
        tokio::net::TcpStream::connect(pod.tcp()).await.unwrap();
    }
    pod.signal("TERM");
    let ended = eventually(SOON, "its end", || {
        let ended = pod.process.try_wait().unwrap();
        async move { ended.ok_or("it still runs") }
    });
    assert_eq!(ended.await.unwrap().code(), Some(0));
}
