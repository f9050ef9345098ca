//! Kafka and Redis as somebody else runs them in the cluster: three brokers over SASL and TLS with access lists, a Redis
//! with TLS and an ACL user. They stay on node 1, so that what befalls node 2 is not theirs.

use std::fs::read_to_string;
use std::time::Duration;

use e2e::certs::Authority;
use e2e::planted;
use futures::future::try_join_all;
use serde_json::{Value, json};

use super::rig::{KAFKA, REDIS, Rig};

/// The namespaces whose ImClusters may use them.
const NAMESPACES: [&str; 2] = ["default", "other"];
const BROKERS: [u8; 3] = [1, 2, 3];
const USER: &str = "imcluster";
const READY: Duration = Duration::from_secs(180);
/// Any 16 bytes in base64url: all brokers of a cluster carry the same.
const KAFKA_ID: &str = "ZXh0ZXJuYWwta2Fma2EtMQ";
const JVM: [&str; 4] = ["-Xms96m", "-Xmx192m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"];
/// What the Secrets are called that an ImCluster refers to; each has its own copy in every namespace.
const CA: &str = "backends-ca";
const KAFKA_USER: &str = "kafka-user";
const REDIS_USER: &str = "redis-user";

/// They serve.
pub struct External;

impl External {
    /// Starts them in the namespace `default` and waits until they serve.
    pub async fn start(rig: &Rig) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        // Kafka takes a user only as an argument, which every description of its pod shows: no secret to be searched for.
        let (kafka_password, redis_password) = ("kafka-7c1f9e20", planted::secret("redis-password"));
        let authority = Authority::new(folder.path())?;
        let ca = read_to_string(authority.ca())?;
        let names: Vec<String> = BROKERS.iter().map(|id| host(&format!("kafka-{id}"))).collect();
        // Beside their own names, those of the Services that a test puts before them.
        let names: Vec<&str> = names.iter().map(String::as_str).chain(["*.default.svc"]).collect();
        let kafka = authority.issue("kafka", &names)?;
        let redis = authority.issue("redis", &["*.default.svc"])?;

        let mut objects = vec![json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}})];
        let mut files = json!({"ca.crt": ca, "broker.pem": read_to_string(&kafka.bundle)?, "admin.properties": ADMIN});
        for id in BROKERS {
            files[format!("{id}.properties")] = json!(properties(id));
            objects.extend([
                service(&format!("kafka-{id}"), &SASL, &json!({"broker": id.to_string()})),
                broker(id, kafka_password),
            ]);
        }
        objects.push(secret("kafka", None, &files));
        let keys = NAMESPACES.map(|namespace| format!("~{namespace}:*")).join(" ");
        let config = include_str!("../../redis/external.conf").replace("{user}", USER);
        let config = config.replace("{password}", &redis_password).replace("{keys}", &keys);
        let (cert, key) = (read_to_string(&redis.cert)?, read_to_string(&redis.key)?);
        let files = json!({"ca.crt": ca, "tls.crt": cert, "tls.key": key, "redis.conf": config});
        objects.extend([
            secret("redis", None, &files),
            service("redis", &REDIS_PORT, &json!({"app": "redis"})),
            redis_pod(),
        ]);
        let login = |password: &str| json!({"username": USER, "password": password});
        for namespace in NAMESPACES {
            let namespace = Some(namespace);
            objects.push(secret(CA, namespace, &json!({"ca.crt": ca})));
            objects.push(secret(KAFKA_USER, namespace, &login(kafka_password)));
            objects.push(secret(REDIS_USER, namespace, &login(&redis_password)));
        }
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        rig.cluster.apply(&list.to_string()).await?;
        let pods = BROKERS.iter().map(|id| format!("pod/kafka-{id}")).chain(["pod/redis".to_owned()]);
        try_join_all(pods.map(|pod| async move { rig.cluster.wait(READY, &pod, "condition=Ready", &[]).await }))
            .await?;
        allow(rig).await?;
        Ok(Self)
    }

    /// An ImCluster on them with so many pods of each component, to be changed at will. `gate` names one of
    /// [`close_gate`](Self::close_gate) through which it reaches them first.
    pub fn imcluster(&self, name: &str, replicas: u32, gate: Option<&str>) -> Value {
        let (brokers, redis) = match gate {
            None => (BROKERS.map(|id| host(&format!("kafka-{id}"))).to_vec(), host("redis")),
            Some(gate) => (vec![host(&format!("{gate}-kafka"))], host(&format!("{gate}-redis"))),
        };
        let brokers: Vec<String> = brokers.iter().map(|broker| format!("{broker}:9093")).collect();
        let tls = json!({"caSecretRef": {"name": CA}});
        let sasl = json!({"mechanism": "SCRAM-SHA-512", "secretRef": {"name": KAFKA_USER}});
        let redis = json!({
            "addresses": [format!("{redis}:6379")], "tls": tls, "credentialsSecretRef": {"name": REDIS_USER},
        });
        json!({
            "apiVersion": "imcluster.dev/v1alpha1",
            "kind": "ImCluster",
            "metadata": {"name": name},
            "spec": {
                "version": "0.1.0",
                "auth": {"trust": {}},
                "kafka": {"external": {"bootstrapServers": brokers, "tls": tls, "sasl": sasl}},
                "redis": {"external": redis},
                "comet": {
                    "replicas": replicas,
                    "drain": {"delaySeconds": 2, "minSeconds": 5, "maxSeconds": 20, "flushSeconds": 2},
                    "rollout": {"minReadySeconds": 2, "pauseSeconds": 2},
                },
                "logic": {"replicas": replicas, "ingress": {"host": format!("{name}.example.com")}},
                "job": {"replicas": replicas},
            },
        })
    }

    /// Makes the two Services of a gate, with nobody behind them.
    pub async fn close_gate(&self, rig: &Rig, name: &str) -> anyhow::Result<()> {
        gate(rig, name, &json!({"app": "nobody"}), &json!({"app": "nobody"})).await
    }

    /// Puts the brokers and Redis behind them.
    pub async fn open_gate(&self, rig: &Rig, name: &str) -> anyhow::Result<()> {
        gate(rig, name, &json!({"app": "kafka"}), &json!({"app": "redis"})).await
    }
}

/// A port by name.
type Port = (&'static str, u16);
const SASL: [Port; 3] = [("sasl", 9093), ("internal", 9094), ("controller", 9095)];
const REDIS_PORT: [Port; 1] = [("redis", 6379)];

/// For the tool that sets access lists: the brokers' own certificate is that of a super user.
const ADMIN: &str = "security.protocol=SSL\nssl.keystore.type=PEM\nssl.keystore.location=/config/broker.pem\n\
                     ssl.truststore.type=PEM\nssl.truststore.location=/config/ca.crt\n";

/// What docs/kubernetes/production.md says that logic and job need, on the topics and groups of these namespaces.
async fn allow(rig: &Rig) -> anyhow::Result<()> {
    let mut tool = vec!["exec", "kafka-1", "--container=kafka", "--"];
    let (principal, server) = (format!("User:{USER}"), format!("{}:9094", host("kafka-1")));
    tool.extend(["java", "-Xmx64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", "/opt/kafka/libs/*"]);
    tool.extend(["org.apache.kafka.tools.AclCommand", "--bootstrap-server", &server]);
    tool.extend(["--command-config", "/config/admin.properties", "--add", "--allow-principal", &principal]);
    tool.extend(["--resource-pattern-type", "prefixed", "--producer", "--consumer"]);
    let prefixes = NAMESPACES.map(|namespace| format!("{namespace}."));
    for prefix in &prefixes {
        tool.extend(["--topic", prefix, "--group", prefix]);
    }
    rig.cluster.kubectl(&tool).await?;
    Ok(())
}

async fn gate(rig: &Rig, name: &str, kafka: &Value, redis: &Value) -> anyhow::Result<()> {
    let items =
        [service(&format!("{name}-kafka"), &SASL, kafka), service(&format!("{name}-redis"), &REDIS_PORT, redis)];
    rig.cluster.apply(&json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()).await?;
    Ok(())
}

fn host(service: &str) -> String {
    format!("{service}.default.svc")
}

fn secret(name: &str, namespace: Option<&str>, files: &Value) -> Value {
    let namespace = namespace.unwrap_or("default");
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace}, "stringData": files})
}

/// Names a broker before it is ready, too: they have to find each other first.
fn service(name: &str, ports: &[Port], selector: &Value) -> Value {
    let ports: Vec<Value> = ports.iter().map(|(name, port)| json!({"name": name, "port": port})).collect();
    let spec = json!({"selector": selector, "ports": ports, "publishNotReadyAddresses": true});
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"}, "spec": spec})
}

fn properties(id: u8) -> String {
    let voters = BROKERS.map(|id| format!("{id}@{}:9095", host(&format!("kafka-{id}")))).join(",");
    let text = include_str!("../../kafka/external.properties").replace("{id}", &id.to_string());
    text.replace("{voters}", &voters).replace("{host}", &host(&format!("kafka-{id}")))
}

fn broker(id: u8, password: &str) -> Value {
    let java = |class: &'static str| ["java"].into_iter().chain(JVM).chain(["-cp", "/opt/kafka/libs/*", class]);
    let file = format!("/config/{id}.properties");
    let user = format!("SCRAM-SHA-512=[name={USER},password={password}]");
    let format = ["format", "--ignore-formatted", "-t", KAFKA_ID, "-c", &file, "--add-scram", &user];
    let format: Vec<&str> = java("kafka.tools.StorageTool").chain(format).collect();
    let serve: Vec<&str> = java("kafka.Kafka").chain([file.as_str()]).collect();
    let mut pod = pod(&format!("kafka-{id}"), "kafka", &json!({"app": "kafka", "broker": id.to_string()}));
    pod["spec"]["initContainers"] = json!([container("format", KAFKA, &format)]);
    let mut kafka = container("kafka", KAFKA, &serve);
    kafka["readinessProbe"] = json!({"tcpSocket": {"port": 9093}, "periodSeconds": 2});
    pod["spec"]["containers"] = json!([kafka]);
    pod
}

fn redis_pod() -> Value {
    let mut pod = pod("redis", "redis", &json!({"app": "redis"}));
    let mut redis = container("redis", REDIS, &["redis-server", "/config/redis.conf"]);
    redis["readinessProbe"] = json!({"tcpSocket": {"port": 6379}, "periodSeconds": 1});
    pod["spec"]["containers"] = json!([redis]);
    pod
}

fn pod(name: &str, secret: &str, labels: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": labels},
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": "node1"},
            "automountServiceAccountToken": false,
            "volumes": [
                {"name": "config", "secret": {"secretName": secret}},
                {"name": "data", "emptyDir": {}},
                {"name": "tmp", "emptyDir": {}},
            ],
        },
    })
}

fn container(name: &str, image: &str, command: &[&str]) -> Value {
    json!({
        "name": name,
        "image": image,
        "command": command,
        "volumeMounts": [
            {"name": "config", "mountPath": "/config", "readOnly": true},
            {"name": "data", "mountPath": "/data"},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    })
}
