//! The real cluster is what the other tests take it for: it serves, it refuses, it loses a node, and it goes without a trace.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use e2e::cluster::{Cluster, NODE, NODE2, Namespace};
use e2e::{artefacts, child, eventually};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SOON: Duration = Duration::from_secs(120);
const WEB: &str = include_str!("kubernetes/web.yaml");
const KEEPER: &str = "system:serviceaccount:demo:keeper";
const LOCK: &str = "/run/lock/imcluster-cluster.lock";

/// What curl prints inside a namespace: the body, a space and the status code; or why there was no answer.
async fn curl(from: Namespace, host: &str, url: &str) -> anyhow::Result<String> {
    let mut command = from.command("curl");
    command.args(["-sS", "--max-time", "5", "--write-out", "%{http_code}", "--header"]);
    command.arg(format!("Host: {host}")).arg(url);
    Ok(child::run("apt-get install curl", command).await?.replace('\n', " "))
}

async fn both_pods_answer(from: Namespace, host: &str, url: &str) {
    for pod in ["web-0 200", "web-1 200"] {
        let what = format!("{pod} at {url} for {host}");
        let answered = eventually(SOON, &what, || async {
            let said = curl(from, host, url).await?;
            anyhow::ensure!(said == pod, "{said}");
            Ok(())
        });
        answered.await.unwrap();
    }
}

async fn there_are_two_nodes(cluster: &Cluster) {
    let nodes = cluster.get(&["nodes"]).await.unwrap();
    let seen: Vec<_> = nodes["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| {
            let ready = node["status"]["conditions"]
                .as_array()
                .unwrap()
                .iter()
                .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            (
                text(&node["metadata"]["name"]),
                text(&node["metadata"]["labels"]["topology.kubernetes.io/zone"]),
                text(&node["status"]["nodeInfo"]["kubeletVersion"]),
                ready,
            )
        })
        .collect();
    let version = "v1.35.4".to_owned();
    assert_eq!(
        seen,
        [("node1".into(), "zone-1".into(), version.clone(), true), ("node2".into(), "zone-2".into(), version, true)]
    );
}

async fn pods_are_reached_by_every_way_in(cluster: &Cluster) {
    cluster.apply(WEB).await.unwrap();
    cluster.wait(SOON, "statefulset/web", "jsonpath={.status.readyReplicas}=2", &["--namespace=demo"]).await.unwrap();
    let pods = cluster.get(&["pods", "--namespace=demo", "--selector=app=web"]).await.unwrap();
    let mut nodes: Vec<_> = (0..2).map(|pod| pods["items"][pod]["spec"]["nodeName"].as_str().unwrap()).collect();
    nodes.sort_unstable();
    assert_eq!(nodes, ["node1", "node2"], "one pod in each zone");
    both_pods_answer(Namespace::Cluster, "any", "http://10.96.77.77/").await;
    both_pods_answer(Namespace::Node2, "any", "http://10.96.77.77/").await;
    let node = format!("http://{NODE}/");
    both_pods_answer(Namespace::Client, "ingress.example.com", &node).await;
    both_pods_answer(Namespace::Client, "route.example.com", &node).await;
    for address in [NODE, NODE2] {
        both_pods_answer(Namespace::Client, "any", &format!("http://{address}:30080/")).await;
    }
    cluster
        .wait(SOON, "ingress/web", "jsonpath={.status.loadBalancer.ingress[0].ip}=198.18.0.1", &["--namespace=demo"])
        .await
        .unwrap();
}

async fn a_client_has_a_way_to_the_nodes_and_nowhere_else(cluster: &Cluster) {
    let unknown = curl(Namespace::Client, "unknown.example.com", &format!("http://{NODE}/")).await.unwrap();
    assert!(unknown.ends_with(" 404"), "{unknown}");
    let pods = cluster.get(&["pods", "--namespace=demo", "--selector=app=web"]).await.unwrap();
    let pod = pods["items"][0]["status"]["podIP"].as_str().unwrap();
    for elsewhere in ["10.96.77.77", &format!("{pod}:8080"), "192.0.2.1"] {
        let error = curl(Namespace::Client, "any", &format!("http://{elsewhere}/")).await.unwrap_err();
        assert!(error.to_string().contains("curl: (7)"), "{error}");
    }
    let inside = Namespace::Client.inside().unwrap();
    let answer = inside.run(async {
        let mut socket = TcpStream::connect((NODE, 80)).await.unwrap();
        socket.write_all(b"GET / HTTP/1.1\r\nHost: ingress.example.com\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer
    });
    let answer = answer.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("web-"), "{answer}");
}

async fn names_of_pods_are_found_and_others_are_not(cluster: &Cluster) {
    let pod = cluster.get(&["pod", "web-1", "--namespace=demo"]).await.unwrap();
    let address = pod["status"]["podIP"].as_str().unwrap();
    let lookup = |name: &'static str| curl(Namespace::Client, "ingress.example.com", name);
    let url = concat!("http://198.18.0.1/lookup?", "web-1.web-pods.demo.svc.cluster.local");
    let found = eventually(SOON, "the pod's name", || async {
        let said = lookup(url).await?;
        anyhow::ensure!(said == format!("{address} 200"), "{said}");
        Ok(())
    });
    found.await.unwrap();
    let denied = lookup("http://198.18.0.1/lookup?im.example.com").await.unwrap();
    assert!(denied.ends_with(" 404") && denied.contains("no such host"), "{denied}");
}

/// kubectl as an account that has few rights.
async fn as_keeper(cluster: &Cluster, arguments: &[&str]) -> anyhow::Result<String> {
    let keeper = format!("--as={KEEPER}");
    cluster.kubectl(&[arguments, &["--namespace=demo", &keeper]].concat()).await
}

async fn accounts_do_what_they_may_and_the_audit_log_has_it(cluster: &Cluster) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("object.yaml");
    let path = file.to_str().unwrap();
    let lease =
        "apiVersion: coordination.k8s.io/v1\nkind: Lease\nmetadata: {name: turn}\nspec: {holderIdentity: one}\n";
    std::fs::write(&file, lease).unwrap();
    as_keeper(cluster, &["create", "--filename", path]).await.unwrap();
    let patch = r#"--patch={"spec":{"holderIdentity":"two"}}"#;
    as_keeper(cluster, &["patch", "lease", "turn", "--type=merge", patch]).await.unwrap();
    let denied = as_keeper(cluster, &["delete", "pod", "web-0"]).await.unwrap_err().to_string();
    assert!(denied.contains("Forbidden"), "{denied}");

    // Who may not put an owner's end off may not make an object that does.
    let set = cluster.get(&["statefulset", "web", "--namespace=demo"]).await.unwrap();
    let owner = format!(
        "{{apiVersion: apps/v1, kind: StatefulSet, name: web, uid: {}, blockOwnerDeletion: true}}",
        set["metadata"]["uid"]
    );
    let owned = format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: owned, ownerReferences: [{owner}]}}\n");
    std::fs::write(&file, owned).unwrap();
    let refused = as_keeper(cluster, &["create", "--filename", path]).await.unwrap_err().to_string();
    assert!(refused.contains("cannot set blockOwnerDeletion"), "{refused}");

    let log = cluster.audit_log().unwrap();
    let asked: Vec<_> = log
        .iter()
        .filter(|entry| entry.account() == KEEPER && entry.writes())
        .map(|entry| {
            let object = entry.object_ref.clone().unwrap();
            (entry.verb.as_str(), object.resource, entry.code(), entry.denied())
        })
        .collect();
    assert_eq!(
        asked,
        [
            ("create", "leases".into(), 201, false),
            ("patch", "leases".into(), 200, false),
            ("delete", "pods".into(), 403, true),
            ("create", "configmaps".into(), 403, true),
        ]
    );
    assert!(!log.iter().any(|entry| entry.is_about("leases") && entry.account().starts_with("system:node:")));
}

async fn charts_are_installed_and_images_are_brought(cluster: &Cluster) {
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("other.tar");
    let mut pack = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/cluster/pack"));
    pack.arg(&archive)
        .arg("imcluster.test/other:1")
        .arg(format!("{}=/other", cluster.state().join("bin/web").display()));
    child::run("it is part of this tree", pack).await.unwrap();
    assert_eq!(cluster.import_image(&archive).await.unwrap(), ["imcluster.test/other:1"]);
    let chart = folder.path().join("chart");
    std::fs::create_dir_all(chart.join("templates")).unwrap();
    std::fs::write(
        chart.join("Chart.yaml"),
        "apiVersion: v2\nname: other\nversion: 1.0.0\nkubeVersion: '>=1.35.0-0'\n",
    )
    .unwrap();
    std::fs::write(chart.join("templates/pod.yaml"), "apiVersion: v1\nkind: Pod\nmetadata: {name: '{{ .Release.Name }}'}\nspec:\n  nodeName: node2\n  containers: [{name: other, image: imcluster.test/other:1, imagePullPolicy: Never}]\n").unwrap();
    cluster.helm(&["install", "other", &chart.to_string_lossy(), "--wait", "--timeout=120s"]).await.unwrap();
    cluster.wait(SOON, "pod/other", "condition=Ready", &[]).await.unwrap();
    cluster.helm(&["uninstall", "other", "--wait"]).await.unwrap();
    assert!(cluster.kubectl(&["get", "pod", "other"]).await.unwrap_err().to_string().contains("NotFound"));
}

async fn a_node_is_lost_and_comes_back(cluster: &Cluster) {
    for (lost, found) in [("cut", "mend"), ("down", "up")] {
        cluster.node(lost).await.unwrap();
        cluster.wait(SOON, "node/node2", "condition=Ready=Unknown", &[]).await.unwrap();
        cluster.node(found).await.unwrap();
        cluster.wait(SOON, "node/node2", "condition=Ready", &[]).await.unwrap();
    }
    cluster.wait(SOON, "statefulset/web", "jsonpath={.status.readyReplicas}=2", &["--namespace=demo"]).await.unwrap();
    both_pods_answer(Namespace::Client, "ingress.example.com", &format!("http://{NODE}/")).await;
}

/// The machine's settings that a kubelet changes, as the lines `vm.panic_on_oom = 0` of `before` name them.
fn machine(before: &str) -> String {
    let now = |line: &str| {
        let name = line.split(" = ").next().unwrap();
        let value = std::fs::read_to_string(Path::new("/proc/sys").join(name.replace('.', "/"))).unwrap();
        format!("{name} = {value}")
    };
    before.lines().map(now).collect()
}

#[tokio::test]
async fn the_cluster_serves_refuses_survives_and_leaves_nothing_behind() {
    let began = Instant::now();
    let cluster = Cluster::start().await.unwrap();
    println!("up in {:.1?}", began.elapsed());
    let traces = cluster.traces().unwrap();
    assert!(traces.left().unwrap().len() > 20, "{:?}", traces.left());
    there_are_two_nodes(&cluster).await;
    pods_are_reached_by_every_way_in(&cluster).await;
    a_client_has_a_way_to_the_nodes_and_nowhere_else(&cluster).await;
    names_of_pods_are_found_and_others_are_not(&cluster).await;
    accounts_do_what_they_may_and_the_audit_log_has_it(&cluster).await;
    charts_are_installed_and_images_are_brought(&cluster).await;
    a_node_is_lost_and_comes_back(&cluster).await;

    let mut second = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/cluster/cluster"));
    second.arg("up").env("IMCLUSTER_CLUSTER_WAIT", "0");
    let refused = child::run("it is part of this tree", second).await.unwrap_err().to_string();
    assert!(refused.contains("a cluster is there already: tied "), "{refused}");

    let ending = Instant::now();
    cluster.end().await.unwrap();
    println!("gone in {:.1?}", ending.elapsed());
    assert_eq!(traces.left().unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_cluster_whose_owner_is_killed_dies_with_it_and_the_next_one_tidies_up() {
    let lost = Cluster::start().await.unwrap();
    let before = std::fs::read_to_string(lost.state().join("sysctls")).unwrap();
    assert!(before.contains("kernel.panic = "), "{before}");
    let traces = lost.traces().unwrap();
    let holder = std::fs::read_to_string(LOCK).unwrap().split(' ').nth(1).unwrap().to_owned();
    let mut kill = Command::new("kill");
    kill.args(["-KILL", &holder]);
    child::run("it is part of every system", kill).await.unwrap();
    let processes = eventually(SOON, "the end of all its processes", || async {
        let left = traces.left()?;
        let process = left.into_iter().find(|line| line.starts_with("/proc/"));
        process.map_or(Ok(()), |process| Err(anyhow::anyhow!("{process}")))
    });
    processes.await.unwrap();

    let next = Cluster::start().await.unwrap();
    assert!(!lost.state().exists());
    let others = next.traces().unwrap();
    next.apply(WEB).await.unwrap();
    let name = next.state().to_string_lossy().rsplit('-').next().unwrap().to_owned();

    // Not ended, but dropped, as when a test fails.
    drop(next);
    assert_eq!(traces.left().unwrap(), Vec::<String>::new());
    assert_eq!(others.left().unwrap(), Vec::<String>::new());
    assert_eq!(machine(&before), before);
    let kept = std::fs::read_dir(artefacts::folder().unwrap().join("cluster")).unwrap();
    let kept = kept.map(|entry| entry.unwrap().path()).find(|path| path.to_string_lossy().ends_with(&name)).unwrap();
    let timeline = std::fs::read_to_string(kept.join("timeline.txt")).unwrap();
    assert!(timeline.contains("\tevent\tStatefulSet/demo/web\tSuccessfulCreate\t"), "{timeline}");
    assert!(timeline.contains("\tcreate\tstatefulsets/demo/web\t201\tadmin\n"), "{timeline}");
    for file in ["objects.txt", "pods.txt", "nodes.txt", "apiserver.log", "kubelet-node2.log", "audit.log"] {
        assert!(std::fs::metadata(kept.join(file)).unwrap().len() > 0, "{file} is empty");
    }
    std::fs::remove_dir_all(kept).unwrap();
}
