//! goim's files and flags as they are start our services.

use std::path::PathBuf;

use e2e::client::{Client, Dial};
use e2e::eventually;
use e2e::kafka::Kafka;
use e2e::ports::Port;
use e2e::program::{Program, get, post};
use e2e::redis::Redis;
use tempfile::TempDir;

use super::SOON;

const TOPIC: &str = "goim-push-topic";

/// A goim installation: its three files, with the ports of this machine in the place of goim's.
struct Installation {
    folder: TempDir,
    /// What stands in the files, and what instead.
    changes: Vec<(String, String)>,
}

impl Installation {
    fn new(ports: &[(u16, &Port)], kafka: &str, redis: &str) -> Self {
        let mut changes = vec![("127.0.0.1:9092".to_owned(), kafka.to_owned())];
        changes.push(("127.0.0.1:6379".to_owned(), redis.to_owned()));
        for (theirs, ours) in ports {
            changes.push((format!("\":{theirs}\""), format!("\"{}\"", ours.address())));
            changes.push((format!("Port = {theirs}"), format!("Port = {}", ours.number())));
        }
        Self { folder: tempfile::tempdir().unwrap(), changes }
    }

    fn file(&self, service: &str, more: &str) -> String {
        let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/goim")).join(format!("{service}.toml"));
        let text = std::fs::read_to_string(path).unwrap();
        let text = self.changes.iter().fold(text, |text, (theirs, ours)| text.replace(theirs, ours));
        let path = self.folder.path().join(format!("{service}.toml"));
        std::fs::write(&path, text + more).unwrap();
        path.display().to_string()
    }
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn goims_own_files_and_flags_start_the_services_and_a_push_arrives() {
    let (kafka, redis) = tokio::try_join!(Kafka::start(), Redis::start()).unwrap();
    kafka.create_topic(TOPIC, 9).await.unwrap();
    let [tcp, web_socket, comet_grpc, http, logic_grpc] = [(); 5].map(|()| Port::free().unwrap());
    let ports = [(3101, &tcp), (3102, &web_socket), (3109, &comet_grpc), (3111, &http), (3119, &logic_grpc)];
    let goim = Installation::new(&ports, &kafka.brokers(), &redis.address());

    let named = "\n[imcluster]\nauth = \"trust\"\npushAuth = \"none\"\n";
    let line = "-region sh -zone sh001 -deploy.env dev -host logic-1 -weight 10 -alsologtostderr -stderrthreshold INFO";
    let line = format!("-conf {} {line}", goim.file("logic", named));
    let logic = Program::start("logic", &words(&line)).await.unwrap();
    for (dependency, address) in [("kafka", kafka.brokers()), ("redis", redis.address())] {
        let line = format!("the dependency answers dependency=\"{dependency}\" address=\"{address}\"");
        eventually(SOON, "logic to say that it answers", || async {
            let log = logic.process().output();
            anyhow::ensure!(log.contains(&line), "{line} is not in:\n{log}");
            anyhow::Ok(())
        })
        .await
        .unwrap();
    }

    let line = "-region sh -zone sh001 -deploy.env dev -host comet-1 -addrs 127.0.0.1,192.0.2.1 -weight=7 -debug=true \
                -offline=false -logtostderr -v 5 -log_dir=/var/log/goim";
    let line = format!("-conf={} {line} --logic {}", goim.file("comet", ""), logic_grpc.address());
    let comet = Program::spawn("comet", &words(&line)).unwrap();

    let line = "-region sh -zone sh001 -deploy.env dev -host job-1 -v=5 -vmodule=job=2 -log_backtrace_at job.go:1";
    let line = format!("--conf {} {line} --comets {}", goim.file("job", ""), comet_grpc.address());
    let job = Program::start("job", &words(&line)).await.unwrap();
    comet.ready().await.unwrap();

    for (target, key) in
        [(format!("tcp://{}", tcp.address()), "a"), (format!("ws://{}/sub", web_socket.address()), "b")]
    {
        let mut client = Client::connect(&target.parse().unwrap(), &Dial::default()).await.unwrap();
        let token = format!(r#"{{"mid":123,"key":"{key}","room_id":"live://1000","platform":"web","accepts":[1000]}}"#);
        client.auth(&token).await.unwrap();
        for (path, body) in [
            ("room?operation=1000&type=live&room=1000".to_owned(), "to the room"),
            (format!("keys?operation=1000&keys={key}"), "to the key"),
            ("all?operation=1000&speed=1".to_owned(), "to all"),
        ] {
            let (status, answer) = post(http.address(), &format!("/goim/push/{path}"), body).await.unwrap();
            assert!(status == 200 && answer.starts_with(r#"{"code":0"#), "{status} {answer}");
            let (op, got) = client.push_within(SOON).await.unwrap();
            assert_eq!((op, &got[..]), (1000, body.as_bytes()));
        }
    }

    // What the flags and files said is what clients and operators are told.
    let nodes = eventually(SOON, "the comet in the node list", || async {
        let (_, text) = get(http.address(), "/goim/nodes/weighted?platform=web").await?;
        anyhow::ensure!(text.contains("comet-1.example.org"), "{text}");
        Ok(text)
    });
    let nodes: serde_json::Value = serde_json::from_str(&nodes.await.unwrap()).unwrap();
    assert_eq!(nodes["data"]["heartbeat"], 240);
    assert_eq!(nodes["data"]["domain"], "conn.example.org");
    assert_eq!(nodes["data"]["ws_port"], web_socket.number());
    let (_, instances) = get(http.address(), "/goim/nodes/instances").await.unwrap();
    for said in ["comet-1", "sh001", "dev", "192.0.2.1"] {
        assert!(instances.contains(said), "{said} in {instances}");
    }

    let without_effect = "settings of goim without effect here";
    for (program, notices) in [
        (
            &logic,
            [without_effect, "discovery.nodes is not taken any more", "logging flags of goim without effect here"],
        ),
        (
            &comet,
            [
                without_effect,
                "use --logic",
                "logging flags of goim without effect here: -logtostderr -v 5 -log_dir=/var/log/goim",
            ],
        ),
        (&job, [without_effect, "use --comets", "logging flags of goim without effect here: -v=5"]),
    ] {
        let log = program.process().output();
        for notice in notices {
            assert_eq!(log.matches(notice).count(), 1, "{notice}\n{log}");
        }
        assert!(!log.contains("is not a setting"), "goim's own keys are all known:\n{log}");
    }
    for program in [job, comet, logic] {
        assert_eq!(program.terminate().await.unwrap().code(), Some(0), "{}", program.process().output());
    }
}
