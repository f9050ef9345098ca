//! Real Kafka on loopback: one KRaft node or several, plain or with TLS and SASL.

pub(crate) mod jars;
mod named;
mod secure;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use futures::future::try_join_all;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::types::RDKafkaErrorCode;
use tempfile::TempDir;

use crate::child::{self, Child};
use crate::eventually;
use crate::ports::Port;
pub use named::Named;
pub use secure::{Login, Secure};

const TEMPLATE: &str = include_str!("../kafka/server.properties");
/// Any 16 bytes in base64url: all brokers of a cluster carry the same.
const CLUSTER: &str = "aW1jbHVzdGVyLWUyZS0wMQ";
/// A JVM without these takes both cores and gigabytes to start.
const JVM: [&str; 6] = [
    "-Xms128m",
    "-Xmx256m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:MaxDirectMemorySize=128m",
    "-Dlog4j2.level=WARN",
];
const JAVA: &str = "apt-get install default-jre-headless";
const READY: Duration = Duration::from_secs(120);

/// Brokers that live as long as this value. What they write is gone with it; their logs stay among the artefacts.
#[derive(Debug)]
pub struct Kafka {
    nodes: Vec<Node>,
    secure: Option<Secure>,
    _scratch: TempDir,
}

/// One broker.
#[derive(Debug)]
pub struct Node {
    child: Child,
    plain: Port,
    _controller: Port,
}

impl Kafka {
    /// One broker, ready to be used.
    ///
    /// # Errors
    /// When Java or Maven is missing (the text says what to install) or the broker does not come up.
    pub async fn start() -> anyhow::Result<Self> {
        Self::launch(1, false).await
    }

    /// So many brokers; topics are kept on up to three of them, and two must acknowledge.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn cluster(nodes: usize) -> anyhow::Result<Self> {
        Self::launch(nodes, false).await
    }

    /// One broker that beside its plain port has one for SASL over TLS and one for client certificates: [`secure`](Self::secure).
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn with_sasl_tls() -> anyhow::Result<Self> {
        Self::launch(1, true).await
    }

    async fn launch(count: usize, with_tls: bool) -> anyhow::Result<Self> {
        anyhow::ensure!(count > 0, "a cluster of no brokers");
        let libs = jars::folder().await?;
        let scratch = tempfile::Builder::new().prefix("imcluster-kafka-").tempdir()?;
        let ports = (0..count).map(|_| Ok((Port::free()?, Port::free()?))).collect::<anyhow::Result<Vec<_>>>()?;
        let secure = with_tls.then(|| Secure::new(scratch.path())).transpose()?;
        let voters: Vec<_> =
            ports.iter().zip(1..).map(|((_, controller), id)| format!("{id}@{}", controller.address())).collect();
        let voters = voters.join(",");
        let started = ports.into_iter().zip(1..).map(|((plain, controller), id)| {
            let spec = Spec { id, count, voters: &voters, libs: &libs, scratch: scratch.path() };
            spec.start(plain, controller, secure.as_ref())
        });
        let nodes = try_join_all(started).await?;
        let kafka = Self { nodes, secure, _scratch: scratch };
        kafka.ready().await?;
        Ok(kafka)
    }

    /// Where clients start: `host:port` of every broker, separated by commas.
    pub fn brokers(&self) -> String {
        let addresses: Vec<_> = self.nodes.iter().map(|node| node.plain.address().to_string()).collect();
        addresses.join(",")
    }

    /// The secured ports, certificates and users.
    ///
    /// # Panics
    /// When it was not started by [`with_sasl_tls`](Self::with_sasl_tls).
    pub fn secure(&self) -> &Secure {
        self.secure.as_ref().expect("started by with_sasl_tls")
    }

    /// A client configuration with nothing but the brokers in it.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.brokers());
        config
    }

    /// Makes a topic and waits until every broker knows it.
    ///
    /// # Errors
    /// When it exists already or the brokers do not answer.
    pub async fn create_topic(&self, name: &str, partitions: i32) -> anyhow::Result<()> {
        self.ask_for_topic(name, partitions, false).await?;
        eventually(READY, &format!("leaders of topic {name}"), || async {
            let (admin, name) = (self.admin()?, name.to_owned());
            let known = move || admin.inner().fetch_metadata(Some(&name), Duration::from_secs(5));
            let metadata = tokio::task::spawn_blocking(known).await??;
            let led = metadata.topics().iter().flat_map(|topic| topic.partitions()).filter(|part| part.leader() >= 0);
            anyhow::ensure!(led.count() == partitions.cast_unsigned() as usize, "some have none");
            Ok(())
        })
        .await
    }

    /// Waits until every broker is part of the cluster.
    ///
    /// # Errors
    /// When they are not in time.
    pub async fn ready(&self) -> anyhow::Result<()> {
        let logs =
            || self.nodes.iter().map(|node| node.child.log().display().to_string()).collect::<Vec<_>>().join(" ");
        eventually(READY, "Kafka to be ready", || self.ask_for_topic("ready", 1, true))
            .await
            .with_context(|| format!("see {}", logs()))
    }

    /// A topic on every broker can be made only when all are there, so asking "would you?" is the readiness check.
    async fn ask_for_topic(&self, name: &str, partitions: i32, only_ask: bool) -> anyhow::Result<()> {
        if let Some(ended) = self.nodes.iter().find_map(|node| node.child.exited().filter(|_| only_ask)) {
            anyhow::bail!("a broker has ended: {ended}");
        }
        let replicas = replicas(self.nodes.len());
        let wanted = if only_ask { self.nodes.len() } else { replicas };
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(i32::try_from(wanted)?));
        let options = AdminOptions::new()
            .request_timeout(Some(Duration::from_secs(10)))
            .operation_timeout(Some(Duration::from_secs(10)))
            .validate_only(only_ask);
        match self.admin()?.create_topics([&topic], &options).await?.pop() {
            Some(Ok(_)) => Ok(()),
            Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) if only_ask => Ok(()),
            Some(Err((name, code))) => anyhow::bail!("create topic {name}: {code}"),
            None => anyhow::bail!("create topic {name}: no answer"),
        }
    }

    fn admin(&self) -> anyhow::Result<AdminClient<DefaultClientContext>> {
        Ok(self.client().create()?)
    }

    /// One of the brokers, counted from 0.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn node(&self, index: usize) -> &Node {
        &self.nodes[index]
    }

    /// The first broker's process id.
    pub fn pid(&self) -> u32 {
        self.nodes[0].pid()
    }

    /// Kills every broker (SIGKILL).
    pub fn kill(&self) {
        self.nodes.iter().for_each(Node::kill);
    }

    /// Starts every broker again on its old data and waits until they are ready.
    ///
    /// # Errors
    /// When they do not come up.
    pub async fn restart(&self) -> anyhow::Result<()> {
        self.nodes.iter().try_for_each(Node::restart)?;
        self.ready().await
    }

    /// Freezes every broker (SIGSTOP).
    pub fn stop(&self) {
        self.nodes.iter().for_each(Node::stop);
    }

    /// Lets every broker go on (SIGCONT).
    pub fn cont(&self) {
        self.nodes.iter().for_each(Node::cont);
    }
}

impl Node {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Kills it (SIGKILL).
    pub fn kill(&self) {
        self.child.kill();
    }

    /// Starts it again on its old data. [`Kafka::ready`] waits until it is back.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn restart(&self) -> anyhow::Result<()> {
        self.child.restart()
    }

    /// Freezes it (SIGSTOP).
    pub fn stop(&self) {
        self.child.stop();
    }

    /// Lets it go on (SIGCONT).
    pub fn cont(&self) {
        self.child.cont();
    }
}

fn replicas(nodes: usize) -> usize {
    nodes.min(3)
}

/// What one broker is made from.
struct Spec<'a> {
    id: usize,
    count: usize,
    voters: &'a str,
    libs: &'a Path,
    scratch: &'a Path,
}

impl Spec<'_> {
    /// Writes its properties, formats its folder and starts it.
    async fn start(self, plain: Port, controller: Port, secure: Option<&Secure>) -> anyhow::Result<Node> {
        let properties = self.scratch.join(format!("{}.properties", self.id));
        let text = self.properties(&plain, &controller, secure);
        std::fs::write(&properties, text).with_context(|| format!("write {}", properties.display()))?;
        let mut format = java(self.libs, "kafka.tools.StorageTool");
        format.args(["format", "-t", CLUSTER, "-c"]).arg(&properties);
        format.args(secure.map(Secure::scram_to_add).iter().flat_map(|user| ["--add-scram", user]));
        child::run(JAVA, format).await.context("format Kafka's folder")?;
        let libs = self.libs.to_owned();
        let child = Child::start(&format!("kafka{}", self.id), JAVA, move || {
            let mut command = java(&libs, "kafka.Kafka");
            command.arg(&properties);
            command
        })?;
        Ok(Node { child, plain, _controller: controller })
    }

    fn properties(&self, plain: &Port, controller: &Port, secure: Option<&Secure>) -> String {
        let mut listeners = format!("PLAINTEXT://{}", plain.address());
        listeners.extend(secure.map(Secure::listeners));
        let replicas = replicas(self.count);
        let text = fill(
            TEMPLATE,
            &[
                ("id", self.id.to_string()),
                ("voters", self.voters.to_owned()),
                ("listeners", listeners),
                ("controller", controller.number().to_string()),
                ("data", self.data().display().to_string()),
                ("replicas", replicas.to_string()),
                ("in_sync", replicas.div_ceil(2).to_string()),
            ],
        );
        text + &secure.map(Secure::properties).unwrap_or_default()
    }

    fn data(&self) -> PathBuf {
        self.scratch.join(format!("data{}", self.id))
    }
}

fn java(libs: &Path, class: &str) -> Command {
    let mut command = Command::new("java");
    // The JVM expands the star itself.
    command.args(JVM).arg("-cp").arg(libs.join("*")).arg(class);
    command
}

/// Puts values in place of `{name}`.
pub(crate) fn fill(template: &str, values: &[(&str, String)]) -> String {
    values.iter().fold(template.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
}
