//! A cluster with the images of this tree on its nodes and the operator's charts installed.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use e2e::cluster::{Cluster, Entry, Inside, NODE, Namespace};
use e2e::eventually;
use e2e::image::{Image, Labels};
use e2e::smoke::{Route, one_push};
use serde_json::{Value, json};

/// The host of the Ingress.
pub const HOST: &str = "im.example.com";
/// How long an ImCluster may take to be Ready here: its Kafka alone needs half a minute on a busy machine.
pub const READY: Duration = Duration::from_secs(240);
/// Where the operator is.
pub const SYSTEM: &str = "imcluster-system";
/// How long a push may take to arrive, and a client to be let in.
const PATIENCE: Duration = Duration::from_secs(30);
/// The image of Kafka that these nodes have.
pub const KAFKA: &str = "imcluster.test/kafka:1";
/// The image of Redis that these nodes have.
pub const REDIS: &str = "imcluster.test/redis:1";
/// What the operator's account is called in the audit log.
const ACCOUNT: &str = "system:serviceaccount:imcluster-system:imcluster-operator";
const OURS: &str = "imcluster/imcluster";

/// The folder of this tree.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("e2e is a folder of the workspace")
}

pub struct Rig {
    pub cluster: Cluster,
    client: Inside,
}

impl Rig {
    /// A cluster that runs the operator of this tree, which looks after the ImClusters of the namespace `default`.
    pub async fn start() -> anyhow::Result<Self> {
        let began = Instant::now();
        let images = tempfile::tempdir()?;
        Image::Imcluster.pack(&format!("{OURS}:0.1.0"), &Labels::new(), &images.path().join("imcluster.tar")).await?;
        for (image, name, file) in [(Image::Kafka, KAFKA, "kafka.tar"), (Image::Redis, REDIS, "redis.tar")] {
            let archive = image.cached(name).await?;
            std::os::unix::fs::symlink(archive, images.path().join(file))?;
        }
        println!("images packed after {:.1} s", began.elapsed().as_secs_f64());
        let cluster = Cluster::with_images(images.path()).await?;
        println!("cluster up after {:.1} s", began.elapsed().as_secs_f64());
        let rig = Self { client: Namespace::Client.inside()?, cluster };
        rig.install().await?;
        println!("charts installed after {:.1} s", began.elapsed().as_secs_f64());
        Ok(rig)
    }

    async fn install(&self) -> anyhow::Result<()> {
        let definition = root().join("charts/imcluster-crds");
        let namespace = ["--namespace", SYSTEM, "--create-namespace", "--wait", "--timeout=2m"];
        let install = ["install", "imcluster-crds", &definition.to_string_lossy()];
        self.cluster.helm(&[&install[..], &namespace].concat()).await?;
        let operator = root().join("charts/imcluster-operator");
        let (operator, namespace) = (operator.to_string_lossy(), ["--namespace", SYSTEM, "--wait", "--timeout=2m"]);
        let images = [format!("--set=helmTest.kafkaImage={KAFKA}"), format!("--set=helmTest.redisImage={REDIS}")];
        let values = ["--set=watchNamespaces={default}", "--set=resync=5s", &images[0], &images[1]];
        self.cluster.helm(&[&["install", "imcluster-operator", &operator], &namespace[..], &values].concat()).await?;
        Ok(())
    }

    /// What a user writes, with the images that these nodes have.
    pub fn twelve_lines(&self, name: &str) -> String {
        format!(
            "apiVersion: imcluster.dev/v1alpha1\nkind: ImCluster\nmetadata: {{name: {name}}}\nspec:\n  version: 0.1.0\n  \
             auth: {{trust: {{}}}}\n  kafka: {{dev: {{image: '{KAFKA}'}}}}\n  redis: {{dev: {{image: '{REDIS}'}}}}\n  \
             logic:\n    ingress: {{host: {HOST}}}\n"
        )
    }

    /// The same with short waits, so that a test of changes ends.
    pub fn quick(&self, name: &str) -> String {
        format!(
            "{}  comet:\n    drain: {{delaySeconds: 2, minSeconds: 5, maxSeconds: 20, flushSeconds: 2}}\n    \
             rollout: {{minReadySeconds: 2, pauseSeconds: 2}}\n",
            self.twelve_lines(name)
        )
    }

    /// The pods in `default` with this label, each with its uid and how often its container was restarted.
    pub async fn pods(&self, label: &str) -> anyhow::Result<BTreeSet<String>> {
        let each = "{.metadata.name} {.metadata.uid} {.status.containerStatuses[*].restartCount}{\"\\n\"}";
        let output = format!("--output=jsonpath={{range .items[*]}}{each}{{end}}");
        let said = self.cluster.kubectl(&["get", "pods", &format!("--selector={label}"), &output]).await?;
        Ok(said.lines().map(str::to_owned).collect())
    }

    /// What each comet has under this path, by ordinal.
    pub async fn of_comets(&self, name: &str, path: &str) -> anyhow::Result<Vec<String>> {
        let output = format!("--output=jsonpath={{.items[*]{path}}}");
        let selector = format!("--selector=app.kubernetes.io/instance={name},app.kubernetes.io/component=comet");
        let said = self.cluster.kubectl(&["get", "pods", &selector, "--sort-by=.metadata.name", &output]).await?;
        Ok(said.split_whitespace().map(str::to_owned).collect())
    }

    /// The token that the operator made.
    pub async fn push_token(&self, name: &str) -> anyhow::Result<String> {
        let template = "--output=go-template={{.data.token | base64decode}}";
        self.cluster.kubectl(&["get", "secret", &format!("{name}-push-token"), template]).await
    }

    /// Connects a client that has a way to the node's address only, pushes to it through the Ingress, and returns how
    /// long that took.
    pub async fn push_through_the_ingress(&self, clients: &str, host: &str, token: &str) -> anyhow::Result<Duration> {
        let route = Route { clients: clients.to_owned(), ..Self::through_the_ingress(host, token) };
        self.client.run(async move { one_push(&route, PATIENCE).await }).await?
    }

    /// The way through the Ingress for clients and backends of the ImCluster with this host.
    pub fn through_the_ingress(host: &str, token: &str) -> Route {
        Route {
            clients: format!("ws://{NODE}:80/sub"),
            backends: format!("{NODE}:80"),
            host: Some(host.to_owned()),
            token: token.to_owned(),
        }
    }

    /// Where a client is that has a way to the node's address only.
    pub fn client(&self) -> &Inside {
        &self.client
    }

    /// The same with a client that comes through the Ingress, too.
    pub async fn a_push_arrives(&self, host: &str, token: &str) -> anyhow::Result<Duration> {
        self.push_through_the_ingress(&format!("ws://{NODE}:80/sub"), host, token).await
    }

    /// Waits for a condition to hold this reason at the newest generation and its message all these words.
    pub async fn condition(
        &self,
        name: &str,
        kind: &str,
        reason: &str,
        words: &[&str],
        deadline: Duration,
    ) -> anyhow::Result<Value> {
        eventually(deadline, &format!("{kind} of {name} to be {reason} and to say {words:?}"), || async {
            let cluster = self.cluster.get(&["imcluster", name]).await?;
            let generation = &cluster["metadata"]["generation"];
            let listed = cluster["status"]["conditions"].as_array().context("no conditions")?;
            let found = listed.iter().find(|listed| listed["type"] == kind).context("no such condition")?;
            ensure!(found["reason"] == reason && found["observedGeneration"] == *generation, "{found}");
            let said = found["message"].as_str().unwrap_or_default();
            ensure!(words.iter().all(|word| said.contains(word)), "{found}");
            anyhow::Ok(found.clone())
        })
        .await
    }

    /// Waits until as many comets as asked for are ready and nothing is on its way.
    pub async fn settled(&self, name: &str) -> anyhow::Result<()> {
        self.settled_within(READY, name).await
    }

    /// The same, when that may take longer.
    pub async fn settled_within(&self, deadline: Duration, name: &str) -> anyhow::Result<()> {
        eventually(deadline, &format!("{name} to be Ready with nothing on its way"), || async {
            let cluster = self.cluster.get(&["imcluster", name]).await?;
            let (spec, status) = (&cluster["spec"], &cluster["status"]);
            ensure!(status["observedGeneration"] == cluster["metadata"]["generation"], "an older generation");
            let (comets, comet) = (&spec["comet"]["replicas"], &status["comet"]);
            ensure!(comet["replicas"] == *comets && comet["readyReplicas"] == *comets, "{status}");
            let held = |kind: &str, value: &str| {
                let listed = status["conditions"].as_array().into_iter().flatten();
                listed.into_iter().any(|held| held["type"] == kind && held["status"] == value)
            };
            ensure!(held("Ready", "True") && held("Progressing", "False"), "{status}");
            anyhow::Ok(())
        })
        .await
    }

    /// The uids of the Ready pods of a component: who serves.
    pub async fn serving(&self, name: &str, component: &str) -> anyhow::Result<BTreeSet<String>> {
        let selector = format!("app.kubernetes.io/instance={name},app.kubernetes.io/component={component}");
        let pods = self.cluster.get(&["pods", "--selector", &selector]).await?;
        let ready = json!({"type": "Ready", "status": "True"});
        let is_ready = |pod: &&Value| {
            let held = pod["status"]["conditions"].as_array().into_iter().flatten();
            let mut held = held.into_iter().map(|held| json!({"type": held["type"], "status": held["status"]}));
            pod["metadata"]["deletionTimestamp"].is_null() && held.any(|held| held == ready)
        };
        let pods = pods["items"].as_array().into_iter().flatten().filter(is_ready);
        Ok(pods.filter_map(|pod| pod["metadata"]["uid"].as_str().map(str::to_owned)).collect())
    }

    pub async fn patch(&self, name: &str, patch: Value) -> anyhow::Result<()> {
        let patch = format!("--patch={patch}");
        self.cluster.kubectl(&["patch", &format!("imcluster/{name}"), "--type=merge", &patch]).await?;
        Ok(())
    }

    /// The port on every node of a Service's port, once it has one.
    pub async fn node_port(&self, service: &str, port: &str) -> anyhow::Result<u16> {
        eventually(PATIENCE, "a NodePort", || async {
            let service = self.cluster.get(&["service", service]).await?;
            let ports = service["spec"]["ports"].as_array().context("no ports")?;
            let found = ports.iter().find(|listed| listed["name"] == port);
            let found = found.and_then(|listed| listed["nodePort"].as_u64());
            anyhow::Ok(u16::try_from(found.context("no node port")?)?)
        })
        .await
    }

    /// Waits until no object of this ImCluster is there any more.
    pub async fn nothing_is_left_of(&self, name: &str, deadline: Duration) -> anyhow::Result<()> {
        let kinds = "all,configmaps,secrets,serviceaccounts,roles,rolebindings,poddisruptionbudgets,\
                     networkpolicies,ingresses,horizontalpodautoscalers";
        let selector = format!("--selector=app.kubernetes.io/instance={name},app.kubernetes.io/name=imcluster");
        eventually(deadline, "nothing of the ImCluster to be left", || async {
            let left = self.cluster.kubectl(&["get", kinds, &selector, "--output=name"]).await?;
            anyhow::ensure!(left.trim().is_empty(), "{left}");
            anyhow::Ok(())
        })
        .await
    }

    /// Packs another version: the same files under another label.
    pub async fn another_version(&self, version: &str) -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let archive = folder.path().join("imcluster.tar");
        let labels = Labels::from([("org.opencontainers.image.revision".to_owned(), version.to_owned())]);
        Image::Imcluster.pack(&format!("{OURS}:{version}"), &labels, &archive).await?;
        self.cluster.import_image(&archive).await.map(drop)
    }

    /// What the operator's account asked the API server for so far.
    pub fn requests_of_the_operator(&self) -> Vec<Entry> {
        let entries = self.cluster.audit_log().expect("the log of a cluster that is up");
        entries.into_iter().filter(|entry| entry.account() == ACCOUNT).collect()
    }

    /// What the chart's Role allows was enough.
    pub fn nothing_was_denied(&self) {
        let denied: Vec<Entry> = self.requests_of_the_operator().into_iter().filter(Entry::denied).collect();
        assert!(denied.is_empty(), "{denied:#?}");
    }

    pub async fn end(self) -> anyhow::Result<()> {
        self.cluster.end().await
    }
}
