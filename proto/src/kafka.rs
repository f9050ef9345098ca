//! How to reach Kafka: brokers, topic, TLS and SASL, as flags and as librdkafka's properties. What a producer or a
//! consumer needs beyond that is theirs: logic's queue and job's consumer add it.
//!
//! goim's keys are `kafka.brokers` and `kafka.topic`. Secrets come from files, never from a flag or the environment.

use std::fs;
use std::path::{Path, PathBuf};

use crate::push;

/// Properties that delivery rests on, or that have a flag of their own: `--kafka-set` may not touch them.
const RESERVED: [&str; 23] = [
    "acks",
    "auto.offset.reset",
    "bootstrap.servers",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "group.id",
    "group.instance.id",
    "group.protocol",
    "metadata.broker.list",
    "partition.assignment.strategy",
    "partitioner",
    "request.required.acks",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.password",
    "sasl.username",
    "security.protocol",
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.key.location",
    "ssl.key.password",
    "transactional.id",
];

/// Where the push topic is and how to be let in.
#[derive(Clone, Debug, clap::Args)]
pub struct KafkaConfig {
    /// Kafka brokers to ask first, as `host:port`, comma-separated. The others are learnt from them.
    #[arg(
        id = "kafka_brokers",
        long = "kafka-brokers",
        value_name = "HOST:PORT,…",
        env = "IMCLUSTER_KAFKA_BROKERS",
        value_delimiter = ',',
        value_parser = broker,
        default_value = "127.0.0.1:9092"
    )]
    pub brokers: Vec<String>,
    /// The topic of push records. It must exist: its number of partitions is a decision.
    #[arg(
        id = "kafka_topic",
        long = "kafka-topic",
        value_name = "TOPIC",
        env = "IMCLUSTER_KAFKA_TOPIC",
        default_value = push::TOPIC
    )]
    pub topic: String,
    /// Speak TLS to the brokers. Implied by any of the three files below.
    #[arg(id = "kafka_tls", long = "kafka-tls", env = "IMCLUSTER_KAFKA_TLS")]
    pub tls: bool,
    /// PEM file of the certificate authorities that brokers are checked against; the system's when absent.
    #[arg(id = "kafka_ca_file", long = "kafka-ca-file", value_name = "FILE", env = "IMCLUSTER_KAFKA_CA_FILE")]
    pub ca_file: Option<PathBuf>,
    /// PEM file of our certificate, for brokers that want one (mutual TLS). Needs --kafka-key-file.
    #[arg(
        id = "kafka_cert_file",
        long = "kafka-cert-file",
        value_name = "FILE",
        env = "IMCLUSTER_KAFKA_CERT_FILE",
        requires = "kafka_key_file"
    )]
    pub cert_file: Option<PathBuf>,
    /// PEM file of the private key to that certificate.
    #[arg(
        id = "kafka_key_file",
        long = "kafka-key-file",
        value_name = "FILE",
        env = "IMCLUSTER_KAFKA_KEY_FILE",
        requires = "kafka_cert_file"
    )]
    pub key_file: Option<PathBuf>,
    /// How to log in to the brokers. Needs --kafka-username-file and --kafka-password-file.
    #[arg(
        id = "kafka_sasl",
        long = "kafka-sasl",
        value_name = "MECHANISM",
        env = "IMCLUSTER_KAFKA_SASL",
        requires_all = ["kafka_username_file", "kafka_password_file"]
    )]
    pub sasl: Option<Sasl>,
    /// File that holds the user name and nothing else; a line feed at its end is dropped.
    #[arg(
        id = "kafka_username_file",
        long = "kafka-username-file",
        value_name = "FILE",
        env = "IMCLUSTER_KAFKA_USERNAME_FILE",
        requires = "kafka_sasl"
    )]
    pub username_file: Option<PathBuf>,
    /// File that holds the password and nothing else; a line feed at its end is dropped.
    #[arg(
        id = "kafka_password_file",
        long = "kafka-password-file",
        value_name = "FILE",
        env = "IMCLUSTER_KAFKA_PASSWORD_FILE",
        requires = "kafka_sasl"
    )]
    pub password_file: Option<PathBuf>,
    /// Any other property of librdkafka, such as `client.rack=eu-1`; may be repeated. What delivery rests on is refused.
    #[arg(id = "kafka_set", long = "kafka-set", value_name = "KEY=VALUE", value_parser = extra)]
    pub set: Vec<(String, String)>,
}

/// A SASL mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Sasl {
    /// User and password as they are; over TLS only, if they are worth anything.
    #[value(name = "PLAIN", alias = "plain")]
    Plain,
    /// Challenge and response with SHA-256.
    #[value(name = "SCRAM-SHA-256", alias = "scram-sha-256")]
    ScramSha256,
    /// Challenge and response with SHA-512.
    #[value(name = "SCRAM-SHA-512", alias = "scram-sha-512")]
    ScramSha512,
}

/// A file of the Kafka settings cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("--{flag} {}: expected {expected}: {why}", path.display())]
pub struct KafkaConfigError {
    flag: &'static str,
    path: PathBuf,
    expected: &'static str,
    why: String,
}

impl KafkaConfig {
    /// Everything a client needs to connect, as librdkafka's properties. Reads the user name and the password;
    /// certificates are read by librdkafka, here only looked for.
    ///
    /// # Errors
    /// When a file is not there or cannot be read.
    pub fn properties(&self) -> Result<Vec<(String, String)>, KafkaConfigError> {
        let mut properties = vec![("bootstrap.servers".to_owned(), self.brokers.join(","))];
        let mut set = |key: &str, value: String| properties.push((key.to_owned(), value));
        let files = [
            ("ssl.ca.location", "kafka-ca-file", &self.ca_file),
            ("ssl.certificate.location", "kafka-cert-file", &self.cert_file),
            ("ssl.key.location", "kafka-key-file", &self.key_file),
        ];
        let tls = self.tls || files.iter().any(|(_, _, path)| path.is_some());
        let protocol = match (tls, self.sasl.is_some()) {
            (false, false) => "PLAINTEXT",
            (true, false) => "SSL",
            (false, true) => "SASL_PLAINTEXT",
            (true, true) => "SASL_SSL",
        };
        set("security.protocol", protocol.to_owned());
        for (key, flag, path) in files {
            if let Some(path) = path {
                read(flag, path, "a PEM file")?;
                set(key, path.display().to_string());
            }
        }
        if let Some(mechanism) = self.sasl {
            set("sasl.mechanism", mechanism.name().to_owned());
        }
        if let Some(path) = &self.username_file {
            set("sasl.username", read("kafka-username-file", path, "a file that holds the user name")?);
        }
        if let Some(path) = &self.password_file {
            set("sasl.password", read("kafka-password-file", path, "a file that holds the password")?);
        }
        properties.extend(self.set.iter().cloned());
        Ok(properties)
    }
}

impl Sasl {
    /// As librdkafka spells it.
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

fn read(flag: &'static str, path: &Path, expected: &'static str) -> Result<String, KafkaConfigError> {
    let failed = |why: String| KafkaConfigError { flag, path: path.to_owned(), expected, why };
    let text = fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    let text = text.trim_end_matches(['\n', '\r']);
    if text.is_empty() {
        return Err(failed("it is empty".to_owned()));
    }
    Ok(text.to_owned())
}

/// Checks that a broker is `host:port`: without a port librdkafka would take its own default and say nothing.
///
/// # Errors
/// What was expected.
pub fn broker(text: &str) -> Result<String, String> {
    let text = text.trim();
    let fits = text.rsplit_once(':').is_some_and(|(host, port)| {
        let is_bare = !host.is_empty() && !host.contains(['[', ']', ':', '/']);
        let is_v6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).is_some_and(|host| !host.is_empty());
        (is_bare || is_v6) && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    fits.then(|| text.to_owned()).ok_or_else(|| "expected host:port, several comma-separated".to_owned())
}

fn extra(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE, such as client.rack=eu-1")?;
    if RESERVED.contains(&key) {
        return Err(format!("`{key}` has a flag of its own or is what delivery rests on"));
    }
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        kafka: KafkaConfig,
    }

    fn parse(flags: &[&str]) -> Result<KafkaConfig, String> {
        let argv = std::iter::once("x").chain(flags.iter().copied());
        Program::try_parse_from(argv).map(|program| program.kafka).map_err(|error| error.to_string())
    }

    fn has(properties: &[(String, String)], key: &str, value: &str) -> bool {
        properties.iter().any(|(k, v)| k == key && v == value)
    }

    #[test]
    fn brokers_alone_mean_plain_text_and_goims_topic() {
        let config = parse(&["--kafka-brokers", "a:1,b:2"]).unwrap();
        assert_eq!(config.topic, "goim-push-topic");
        let expected = [("bootstrap.servers", "a:1,b:2"), ("security.protocol", "PLAINTEXT")];
        assert_eq!(config.properties().unwrap(), expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }

    #[test]
    fn a_broker_is_a_host_and_a_port() {
        let all = ["kafka:9092", "10.0.0.1:9092", "[::1]:9092", "a.b-c.example.com:1"];
        let config = parse(&["--kafka-brokers", &all.join(", ")]).unwrap();
        assert_eq!(config.brokers, all);
        for wrong in ["kafka", "kafka:", ":9092", "kafka:0", "kafka:99999", "::1", "SSL://kafka:9092", "a:1,b", "a:1,"]
        {
            let error = parse(&["--kafka-brokers", wrong]).unwrap_err();
            assert!(error.contains("expected host:port"), "{wrong}: {error}");
        }
    }

    #[test]
    fn tls_and_sasl_come_from_files() {
        let folder = std::env::temp_dir().join(format!("kafka-config-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.join(name);
            fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let (ca, user, password) = (file("ca.pem", "pem"), file("user", "alice\n"), file("password", "s3cret\n"));
        let flags = ["--kafka-ca-file", &ca, "--kafka-sasl", "SCRAM-SHA-512"];
        let secrets = ["--kafka-username-file", &user, "--kafka-password-file", &password];
        let properties = parse(&[&flags[..], &secrets[..]].concat()).unwrap().properties().unwrap();
        assert!(has(&properties, "security.protocol", "SASL_SSL"));
        assert!(has(&properties, "ssl.ca.location", &ca));
        assert!(has(&properties, "sasl.mechanism", "SCRAM-SHA-512"));
        assert!(has(&properties, "sasl.username", "alice"));
        assert!(has(&properties, "sasl.password", "s3cret"));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_missing_file_is_named_with_its_flag() {
        let error = parse(&["--kafka-ca-file", "/nowhere/ca.pem"]).unwrap().properties().unwrap_err().to_string();
        assert!(error.starts_with("--kafka-ca-file /nowhere/ca.pem: expected a PEM file"), "{error}");
    }

    #[test]
    fn other_properties_pass_but_not_those_delivery_rests_on() {
        let config = parse(&["--kafka-set", "client.rack=eu-1"]).unwrap();
        assert!(has(&config.properties().unwrap(), "client.rack", "eu-1"));
        assert!(parse(&["--kafka-set", "acks=0"]).unwrap_err().contains("what delivery rests on"));
        assert!(parse(&["--kafka-sasl", "PLAIN"]).unwrap_err().contains("--kafka-username-file"));
    }
}
