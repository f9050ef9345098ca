//! job's settings, goim's `job.toml` among them.

use std::num::NonZeroUsize;
use std::time::Duration;

use proto::grpc::tls::TlsConfig;
use proto::kafka::KafkaConfig;
use proto::peers;
use runtime::config::{ConfigError, FileKey, FileKeys, names};
use runtime::settings;
use url::Url;

use crate::comet::queue::Limits;
use crate::consumer;
use crate::room::Batching;

/// Everything job can be told.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// Where the records are.
    #[command(flatten)]
    pub kafka: KafkaConfig,
    /// The consumer group. goim's name takes over where a Go job stopped; never run Go and our jobs in one group.
    #[arg(long, value_name = "GROUP", env = "IMCLUSTER_GROUP", default_value = proto::push::GROUP)]
    pub group: String,
    /// The comets: `host:port` or `id=host:port` (a Go comet), several comma-separated; `dns:host:port`; or
    /// `endpointslices:[namespace/]service`.
    #[arg(long, value_name = "COMETS", env = "IMCLUSTER_COMETS", default_value = "127.0.0.1:3109")]
    pub comets: peers::Source,
    /// How comets are known.
    #[command(flatten)]
    pub internal_tls: TlsConfig,
    /// Ask logic where keys went that a comet does not have: `host:port`, several comma-separated, or `dns:name:port`. What
    /// they were to get is sent there, three times within ten seconds; without it, it is undeliverable at once.
    #[arg(long, value_name = "ADDRESSES", env = "IMCLUSTER_LOGIC", value_parser = proto::pool::source)]
    pub logic: Option<peers::Source>,
    /// POST what could not be delivered to a key to this URL, as a JSON list: key, server, partition, offset, id, op,
    /// reason, createdMs. The message itself is not told.
    #[arg(long, value_name = "URL", env = "IMCLUSTER_UNDELIVERABLE_WEBHOOK", value_parser = runtime::web::url)]
    pub undeliverable_webhook: Option<Url>,
    /// Merge at most so many packets of a room into one.
    #[arg(long, value_name = "N", env = "IMCLUSTER_BATCH_COUNT", default_value = "20")]
    pub batch_count: NonZeroUsize,
    /// How long a room that has just sent gathers packets. The first packet of a quiet room never waits.
    #[arg(
        long,
        value_name = "DURATION",
        env = "IMCLUSTER_BATCH_WINDOW",
        default_value = "20ms",
        value_parser = runtime::duration::parse
    )]
    pub batch_window: Duration,
    /// Merge at most so many bytes of a room into one.
    #[arg(long, value_name = "BYTES", env = "IMCLUSTER_BATCH_BYTES", default_value = "65536")]
    pub batch_bytes: NonZeroUsize,
    /// A comet that is owed more bytes than this is let go until it answers: what it is owed is dropped and counted.
    #[arg(long, value_name = "BYTES", env = "IMCLUSTER_COMET_BACKLOG", default_value = "67108864")]
    pub comet_backlog: NonZeroUsize,
    /// A comet that owes an answer for this long is let go until it answers.
    #[arg(
        long,
        value_name = "DURATION",
        env = "IMCLUSTER_COMET_STALL",
        default_value = "10s",
        value_parser = runtime::duration::parse
    )]
    pub comet_stall: Duration,
    /// How long to finish what is owed when told to stop.
    #[arg(
        long,
        value_name = "DURATION",
        env = "IMCLUSTER_FLUSH",
        default_value = "10s",
        value_parser = runtime::duration::parse
    )]
    pub flush: Duration,
    /// goim's region of this process; has no effect on job.
    #[arg(long, env = "REGION", hide = true)]
    pub region: Option<String>,
    /// goim's zone of this process. With `endpointslices:` only the comets of this zone are served, as goim's job does:
    /// then every zone needs a job with a consumer group of its own. Otherwise it has no effect.
    #[arg(long, env = "ZONE")]
    pub zone: Option<String>,
    /// goim's deployment environment; has no effect.
    #[arg(long, env = "DEPLOY_ENV", hide = true)]
    pub deploy_env: Option<String>,
    /// goim's name of this process; job has none.
    #[arg(long, hide = true)]
    pub host: Option<String>,
}

impl FileKeys for Config {
    const KEYS: &'static [(&'static str, FileKey)] = &[
        ("kafka.brokers", FileKey::Arg("kafka_brokers")),
        ("kafka.topic", FileKey::Arg("kafka_topic")),
        ("kafka.group", FileKey::Arg("group")),
        ("room.batch", FileKey::Arg("batch_count")),
        ("room.signal", FileKey::Arg("batch_window")),
        ("room.idle", FileKey::NoEffect),
        ("comet.routinechan", FileKey::NoEffect),
        ("comet.routinesize", FileKey::NoEffect),
        ("env.region", FileKey::Arg("region")),
        ("env.zone", FileKey::Arg("zone")),
        ("env.deployenv", FileKey::Arg("deploy_env")),
        ("env.host", FileKey::Arg("host")),
        ("discovery.*", FileKey::Replaced("--comets")),
    ];
    fn live() -> Vec<String> {
        names::<settings::job::Live>()
    }

    fn check(&self) -> Result<(), ConfigError> {
        consumer::kafka::check(&self.kafka, &self.group).map_err(|error| ConfigError::Invalid(format!("{error:#}")))?;
        self.internal_tls.open().map(drop).map_err(|error| ConfigError::Invalid(error.to_string()))
    }
}

impl Config {
    /// When packets merge and when a comet is let go.
    pub fn limits(&self) -> Limits {
        Limits {
            batching: Batching {
                count: self.batch_count.get(),
                bytes: self.batch_bytes.get(),
                window: self.batch_window,
            },
            backlog: self.comet_backlog.get(),
            stall: self.comet_stall,
        }
    }
}

#[cfg(test)]
mod tests;
