//! Everything about logic that can be set: flags, environment and goim's file keys (goim `internal/logic/conf`).

use std::path::PathBuf;
use std::time::Duration;

use proto::grpc::tls::TlsConfig;
use proto::kafka::KafkaConfig;
use proto::peers;
use runtime::config::{ConfigError, FileKey, FileKeys, names};
use runtime::duration;
use runtime::proxies::Network;
use runtime::settings;

use crate::auth::jwt::{Jwt, JwtConfig};
use crate::auth::webhook::{Webhook, WebhookConfig};
use crate::auth::{Auth, AuthMetrics, Authenticator};
use crate::queue;
use crate::receive::ReceiveConfig;
use crate::session::SessionConfig;
use crate::store::redis::RedisConfig;
use crate::tokens::Tokens;
use runtime::web;

/// logic's settings.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// Where the HTTP API and the page are served.
    #[arg(long, value_name = "[HOST]:PORT", env = "IMCLUSTER_HTTP_ADDR", value_parser = listen, default_value = ":3111")]
    pub http_addr: String,
    /// Where comets call, over gRPC.
    #[arg(long, value_name = "[HOST]:PORT", env = "IMCLUSTER_RPC_ADDR", value_parser = listen, default_value = ":3119")]
    pub rpc_addr: String,
    /// How comets are known.
    #[command(flatten)]
    pub internal_tls: TlsConfig,
    /// How clients prove who they are. There is no default: say `trust` to believe what each client says of itself, as
    /// goim does, `jwt` to want a signed token, `webhook` to ask a backend.
    #[arg(long, value_name = "HOW", env = "IMCLUSTER_AUTH")]
    pub auth: Auth,
    /// Which tokens are good.
    #[command(flatten)]
    pub jwt: JwtConfig,
    /// Whom to ask instead.
    #[command(flatten)]
    pub auth_webhook: WebhookConfig,
    /// PEM file of the certificate authorities that the server behind --jwt-jwks-url or --auth-webhook-url is checked
    /// against; without it the public ones. Read at the start.
    #[arg(long, value_name = "FILE", env = "IMCLUSTER_AUTH_CA_FILE")]
    pub auth_ca_file: Option<PathBuf>,
    /// Who may push, without a tokens file: `none` lets everybody who reaches the port.
    #[arg(
        long,
        value_name = "HOW",
        env = "IMCLUSTER_PUSH_AUTH",
        required_unless_present = "push_tokens",
        conflicts_with = "push_tokens"
    )]
    pub push_auth: Option<PushAuth>,
    /// TOML file of the bearer tokens that may push: tables `[[token]]` with name, sha256 (hex), routes such as
    /// "push/room" or "*", and optionally rate (pushes a second). Read again when it changes.
    #[arg(long, value_name = "FILE", env = "IMCLUSTER_PUSH_TOKENS", required_unless_present = "push_auth")]
    pub push_tokens: Option<PathBuf>,
    /// Limits of the HTTP side.
    #[command(flatten)]
    pub http: HttpConfig,
    /// What clients are told.
    #[command(flatten)]
    pub node: NodeConfig,
    /// How long sessions live.
    #[command(flatten)]
    pub session: SessionConfig,
    /// Where upstream packets go.
    #[command(flatten)]
    pub receive: ReceiveConfig,
    /// Where sessions are.
    #[command(flatten)]
    pub redis: RedisConfig,
    /// Where push records go.
    #[command(flatten)]
    pub kafka: KafkaConfig,
    /// How the topic should be.
    #[command(flatten)]
    pub topic: queue::kafka::TopicConfig,
    /// Where the comets are, to send clients to none that is not ready or on its way out: as job's `--comets`. Without
    /// it every comet that tells of itself is handed out; so it is where the source says nothing of readiness.
    #[arg(long, value_name = "COMETS", env = "IMCLUSTER_COMETS")]
    pub comets: Option<peers::Source>,
    /// TOML file that says of zones their region and weight (`[zones.NAME]`), and which servers are the newest
    /// (`updated`, listed first). Read again when it changes; it need not be there.
    #[arg(
        long,
        value_name = "FILE",
        env = "IMCLUSTER_TOPOLOGY",
        default_value = "/etc/imcluster/topology/topology.toml"
    )]
    pub topology: PathBuf,
    /// Our region, for /status.
    #[arg(long, env = "REGION", default_value = "")]
    pub region: String,
    /// Our zone, for /status.
    #[arg(long, env = "ZONE", default_value = "")]
    pub zone: String,
    /// The environment that GET /goim/nodes/instances names.
    #[arg(long, env = "DEPLOY_ENV", default_value = "")]
    pub deploy_env: String,
    /// Our name, for /status.
    #[arg(long, default_value_t = hostname(), hide_default_value = true)]
    pub host: String,
    /// Our weight among logics. Accepted as goim's; comets spread evenly.
    #[arg(long, env = "WEIGHT", default_value_t = 0, allow_negative_numbers = true)]
    pub weight: i64,
    /// How long to go on accepting once told to stop, while others take us off their lists.
    #[arg(long, value_name = "DURATION", env = "IMCLUSTER_DRAIN_DELAY", value_parser = duration::parse, default_value = "5s")]
    pub drain_delay: Duration,
    /// How long requests in flight may take to end after that.
    #[arg(long, value_name = "DURATION", env = "IMCLUSTER_DRAIN_DEADLINE", value_parser = duration::parse, default_value = "15s")]
    pub drain_deadline: Duration,
}

/// Who may push when no tokens are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum PushAuth {
    /// Everybody.
    None,
}

/// Limits of the HTTP side.
#[derive(Clone, Debug, clap::Args)]
pub struct HttpConfig {
    /// Proxies whose X-Forwarded-For and X-Real-IP are believed: addresses or networks, comma-separated.
    #[arg(long, value_name = "NETWORK,…", env = "IMCLUSTER_TRUSTED_PROXIES", value_delimiter = ',')]
    pub trusted_proxies: Vec<Network>,
    /// The longest message that may be pushed, in bytes; longer ones are answered 413.
    #[arg(long, value_name = "BYTES", env = "IMCLUSTER_MAX_PUSH_BODY", default_value_t = 1_000_000)]
    pub max_push_body: usize,
    /// The most keys or members that one push may name; more are answered 413.
    #[arg(long, value_name = "COUNT", env = "IMCLUSTER_MAX_PUSH_KEYS", default_value_t = 10_000)]
    pub max_push_keys: usize,
    /// The most pushes handled at a time; more are answered 503.
    #[arg(long, value_name = "COUNT", env = "IMCLUSTER_HTTP_IN_FLIGHT", default_value_t = 4096)]
    pub http_in_flight: usize,
    /// The most open connections; more wait to be accepted.
    #[arg(long, value_name = "COUNT", env = "IMCLUSTER_HTTP_CONNECTIONS", default_value_t = 8192)]
    pub http_connections: usize,
    /// How long the body of a request may take to arrive; then 408.
    #[arg(long, value_name = "DURATION", env = "IMCLUSTER_HTTP_BODY_TIMEOUT", value_parser = duration::parse, default_value = "10s")]
    pub http_body_timeout: Duration,
    /// How long a connection may go without sending the whole head of a request.
    #[arg(long, value_name = "DURATION", env = "IMCLUSTER_HTTP_IDLE_TIMEOUT", value_parser = duration::parse, default_value = "75s")]
    pub http_idle_timeout: Duration,
    /// How long a push may take to be stored; then 503. It may be stored all the same.
    #[arg(long, value_name = "DURATION", env = "IMCLUSTER_PUSH_DEADLINE", value_parser = duration::parse, default_value = "10s")]
    pub push_deadline: Duration,
    /// Serve no page at /.
    #[arg(long, env = "IMCLUSTER_NO_PAGE")]
    pub no_page: bool,
}

/// What clients are told about where and how to connect.
#[derive(Clone, Debug, clap::Args)]
pub struct NodeConfig {
    /// The domain clients are told, and their only node while no comet is known.
    #[arg(long, value_name = "DOMAIN", env = "IMCLUSTER_DEFAULT_DOMAIN", default_value = "")]
    pub default_domain: String,
    /// What is appended to a comet's host name for browsers, such as `.example.org`.
    #[arg(long, value_name = "DOMAIN", env = "IMCLUSTER_HOST_DOMAIN", default_value = "")]
    pub host_domain: String,
    /// How often a client should send a heartbeat.
    #[arg(long, value_name = "DURATION", env = "IMCLUSTER_HEARTBEAT", value_parser = duration::parse, default_value = "4m")]
    pub heartbeat: Duration,
    /// After how many heartbeats that did not come a client is closed.
    #[arg(long, value_name = "COUNT", env = "IMCLUSTER_HEARTBEAT_MAX", default_value_t = 2, value_parser = clap::value_parser!(i32).range(1..))]
    pub heartbeat_max: i32,
    /// The port clients are told for TCP, 0 to tell none.
    #[arg(long, value_name = "PORT", env = "IMCLUSTER_TCP_PORT", default_value_t = 3101)]
    pub tcp_port: u16,
    /// The port clients are told for WebSocket, 0 to tell none.
    #[arg(long, value_name = "PORT", env = "IMCLUSTER_WS_PORT", default_value_t = 3102)]
    pub ws_port: u16,
    /// The port clients are told for WebSocket over TLS, 0 to tell none.
    #[arg(long, value_name = "PORT", env = "IMCLUSTER_WSS_PORT", default_value_t = 3103)]
    pub wss_port: u16,
    /// The port clients are told for TCP over TLS, 0 to tell none.
    #[arg(long, value_name = "PORT", env = "IMCLUSTER_TCPS_PORT", default_value_t = 0)]
    pub tcps_port: u16,
    /// By how much a comet of the client's own region is preferred.
    #[arg(long, value_name = "FACTOR", env = "IMCLUSTER_REGION_WEIGHT", default_value_t = 1.6)]
    pub region_weight: f64,
    /// The longest a client should wait before it connects again, in seconds.
    #[arg(
        long = "backoff-max-delay",
        value_name = "SECONDS",
        env = "IMCLUSTER_BACKOFF_MAX_DELAY",
        default_value_t = 300
    )]
    pub max_delay: i32,
    /// The shortest, in seconds.
    #[arg(
        long = "backoff-base-delay",
        value_name = "SECONDS",
        env = "IMCLUSTER_BACKOFF_BASE_DELAY",
        default_value_t = 3
    )]
    pub base_delay: i32,
    /// By how much each wait is longer than the last.
    #[arg(long = "backoff-factor", value_name = "FACTOR", env = "IMCLUSTER_BACKOFF_FACTOR", default_value_t = 1.8)]
    pub factor: f32,
    /// The share of a wait that is left to chance.
    #[arg(long = "backoff-jitter", value_name = "SHARE", env = "IMCLUSTER_BACKOFF_JITTER", default_value_t = 0.3)]
    pub jitter: f32,
    /// A region and its provinces, as `sh=上海,江苏`; may be repeated.
    #[arg(long, value_name = "REGION=PROVINCE,…", value_parser = region)]
    pub regions: Vec<Region>,
}

impl Config {
    /// The tokens that may push; `None` when everybody may.
    pub(crate) fn tokens(&self) -> Result<Option<Tokens>, ConfigError> {
        let opened = self.push_tokens.as_ref().map(|path| {
            let invalid = |error| ConfigError::Invalid(format!("--push-tokens is `{}`: {error}", path.display()));
            Tokens::open(path).map_err(invalid)
        });
        opened.transpose()
    }

    /// What tells who clients are.
    pub(crate) fn authenticator(&self, metrics: &AuthMetrics) -> Result<Authenticator, ConfigError> {
        let invalid = |why: &str| Err(ConfigError::Invalid(why.to_owned()));
        // Whoever names keys or a webhook means them to be asked.
        if self.auth != Auth::Jwt && self.jwt.is_named() {
            return invalid("keys of tokens are named, which only --auth jwt looks at: say so, or leave the keys out");
        }
        if self.auth != Auth::Webhook && self.auth_webhook.auth_webhook_url.is_some() {
            return invalid("--auth-webhook-url is named, which only --auth webhook asks: say so, or leave it out");
        }
        let client = match &self.auth_ca_file {
            None => web::client(),
            Some(path) => web::trusting(path)
                .map_err(|error| ConfigError::Invalid(format!("--auth-ca-file is `{}`: {error}", path.display())))?,
        };
        match (self.auth, &self.auth_webhook.auth_webhook_url) {
            (Auth::Trust, _) => Ok(Authenticator::Trust),
            (Auth::Jwt, _) => {
                let keys = self.jwt.keys(client, metrics.clone()).map_err(ConfigError::Invalid)?;
                Ok(Authenticator::Jwt(Jwt::new(self.jwt.clone(), keys)))
            }
            (Auth::Webhook, Some(url)) => {
                Ok(Authenticator::Webhook(Webhook::new(&self.auth_webhook, url.clone(), client, metrics.clone())))
            }
            (Auth::Webhook, None) => invalid("--auth webhook needs to know whom to ask: --auth-webhook-url"),
        }
    }
}

/// A region and the provinces that belong to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// As comets name theirs.
    pub name: String,
    /// As a geolocation names them.
    pub provinces: Vec<String>,
}

impl FileKeys for Config {
    const KEYS: &'static [(&'static str, FileKey)] = &[
        ("backoff.basedelay", FileKey::Arg("base_delay")),
        ("backoff.factor", FileKey::Arg("factor")),
        ("backoff.jitter", FileKey::Arg("jitter")),
        ("backoff.maxdelay", FileKey::Arg("max_delay")),
        ("discovery.*", FileKey::Replaced("--comets, or nothing: comets report themselves to logic")),
        ("env.deployenv", FileKey::Arg("deploy_env")),
        ("env.host", FileKey::Arg("host")),
        ("env.region", FileKey::Arg("region")),
        ("env.weight", FileKey::Arg("weight")),
        ("env.zone", FileKey::Arg("zone")),
        // goim reads the timeouts of these three tables and never uses them; taking them seriously now, at the 1 s of
        // its sample file, would fail requests that go well there.
        ("httpserver.*", FileKey::NoEffect),
        ("httpserver.addr", FileKey::Arg("http_addr")),
        ("kafka.brokers", FileKey::Arg("kafka_brokers")),
        ("kafka.topic", FileKey::Arg("kafka_topic")),
        ("node.defaultdomain", FileKey::Arg("default_domain")),
        ("node.heartbeat", FileKey::Arg("heartbeat")),
        ("node.heartbeatmax", FileKey::Arg("heartbeat_max")),
        ("node.hostdomain", FileKey::Arg("host_domain")),
        ("node.regionweight", FileKey::Arg("region_weight")),
        ("node.tcpport", FileKey::Arg("tcp_port")),
        ("node.wsport", FileKey::Arg("ws_port")),
        ("node.wssport", FileKey::Arg("wss_port")),
        ("redis.active", FileKey::NoEffect),
        ("redis.addr", FileKey::Arg("redis_addr")),
        ("redis.auth", FileKey::Arg("redis_auth")),
        ("redis.dialtimeout", FileKey::Arg("redis_dial_timeout")),
        ("redis.expire", FileKey::Arg("redis_expire")),
        ("redis.idle", FileKey::NoEffect),
        ("redis.idletimeout", FileKey::NoEffect),
        ("redis.network", FileKey::NoEffect),
        ("redis.readtimeout", FileKey::Arg("redis_timeout")),
        ("redis.writetimeout", FileKey::NoEffect),
        ("regions.*", FileKey::Arg("regions")),
        ("rpcclient.*", FileKey::NoEffect),
        ("rpcserver.*", FileKey::NoEffect),
        ("rpcserver.addr", FileKey::Arg("rpc_addr")),
    ];

    fn live() -> Vec<String> {
        names::<settings::logic::Live>()
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.redis.check().map_err(|error| ConfigError::Invalid(error.to_string()))?;
        queue::kafka::check(&self.kafka).map_err(|error| ConfigError::Invalid(error.to_string()))?;
        self.internal_tls.open().map_err(|error| ConfigError::Invalid(error.to_string()))?;
        self.authenticator(&AuthMetrics::default())?;
        self.tokens().map(drop)
    }
}

/// The machine's name, as the kernel has it.
fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned()).unwrap_or_default()
}

/// An address to listen on: `:3111`, goim's bare `3111`, or with a host.
fn listen(text: &str) -> Result<String, String> {
    let expected = || format!("expected HOST:PORT or :PORT, not `{text}`");
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    port.parse::<u16>().map_err(|_| expected())?;
    Ok(if host.is_empty() { format!("0.0.0.0:{port}") } else { text.to_owned() })
}

fn region(text: &str) -> Result<Region, String> {
    let expected = || format!("expected a region and its provinces such as sh=上海,江苏, not `{text}`");
    let (name, provinces) = text.split_once('=').ok_or_else(expected)?;
    let provinces = provinces.split(',').map(str::trim).filter(|province| !province.is_empty()).map(str::to_owned);
    Ok(Region { name: name.to_owned(), provinces: provinces.collect() })
}

#[cfg(test)]
mod tests;
