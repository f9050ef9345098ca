//! Everything comet can be told, parsed and checked once. `--help` prints these comments: they are the manual.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::{BoolishValueParser, NonEmptyStringValueParser};
use proto::ServerId;
use proto::grpc::tls::TlsConfig;
use runtime::config::{ConfigError, FileKey, FileKeys, names};
use runtime::duration;
use runtime::pod::{POD_NAME, POD_UID, server_id};
use runtime::proxies::Network;
use runtime::settings;

use crate::transport::tls::Tls;

/// Settings of a comet.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// Where clients connect over TCP. `:3101` is every address of this machine, IPv6 and IPv4; port 0 picks a free one.
    #[arg(
        long,
        value_name = "[HOST]:PORT",
        env = "IMCLUSTER_TCP_BIND",
        value_delimiter = ',',
        default_value = ":3101"
    )]
    pub tcp_bind: Vec<Bind>,
    /// Where clients connect over WebSocket, at `/sub`.
    #[arg(
        long,
        value_name = "[HOST]:PORT",
        env = "IMCLUSTER_WEBSOCKET_BIND",
        value_delimiter = ',',
        default_value = ":3102"
    )]
    pub websocket_bind: Vec<Bind>,
    /// Also listen with TLS, on `--ws-tls-bind` and `--tcp-tls-bind`. Needs certificates.
    #[arg(long, env = "IMCLUSTER_TLS_OPEN", value_parser = BoolishValueParser::new(), default_value = "false",
        num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub tls_open: bool,
    /// Where clients connect over WebSocket with TLS.
    #[arg(
        long,
        value_name = "[HOST]:PORT",
        env = "IMCLUSTER_WS_TLS_BIND",
        value_delimiter = ',',
        default_value = ":3103"
    )]
    pub ws_tls_bind: Vec<Bind>,
    /// Where clients connect over TCP with TLS.
    #[arg(
        long,
        value_name = "[HOST]:PORT",
        env = "IMCLUSTER_TCP_TLS_BIND",
        value_delimiter = ',',
        default_value = ":3104"
    )]
    pub tcp_tls_bind: Vec<Bind>,
    /// Certificate chains (PEM), one file per name served. A client gets the one for the name it asks for (SNI), the
    /// first when none fits. Read again when they change.
    #[arg(long, value_name = "FILE", env = "IMCLUSTER_CERT_FILE", value_delimiter = ',')]
    pub cert_file: Vec<PathBuf>,
    /// The private key (PEM) of each `--cert-file`, in the same order.
    #[arg(long, value_name = "FILE", env = "IMCLUSTER_KEY_FILE", value_delimiter = ',')]
    pub key_file: Vec<PathBuf>,
    /// Where job reaches this comet (gRPC).
    #[arg(long, value_name = "[HOST]:PORT", env = "IMCLUSTER_GRPC_BIND", default_value = ":3109")]
    pub grpc_bind: Bind,
    /// Where logic is: `host:port`, several comma-separated (used in turn), or `dns:name:port` for every address of a name.
    #[arg(long, value_name = "ADDRESSES", env = "IMCLUSTER_LOGIC", default_value = "127.0.0.1:3119", value_parser = logic)]
    pub logic: String,
    /// How job and logic are known.
    #[command(flatten)]
    pub internal_tls: TlsConfig,

    /// Find dead peers between heartbeats by TCP keepalive: after 60 s of silence 4 probes, 15 s apart.
    #[arg(long, env = "IMCLUSTER_TCP_KEEPALIVE", value_parser = BoolishValueParser::new(), default_value = "false",
        num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub tcp_keepalive: bool,
    /// Close a connection when what was sent stays unacknowledged this long (TCP_USER_TIMEOUT); 0 = the kernel's rule.
    #[arg(long, value_name = "DURATION", env = "IMCLUSTER_TCP_USER_TIMEOUT", value_parser = duration::parse, default_value = "60s")]
    pub tcp_user_timeout: Duration,
    /// Bytes the kernel may hold per connection on the way out (SO_SNDBUF). Unset, the kernel sizes it to each client's
    /// path. goim's `tcp.sndbuf` has no effect: its 4096 leaves room for one small packet and halves a comet's speed.
    #[arg(long, value_name = "SIZE", env = "IMCLUSTER_TCP_SEND_BUFFER", value_parser = size)]
    pub tcp_send_buffer: Option<usize>,
    /// Bytes the kernel may hold per connection on the way in (SO_RCVBUF). Unset, the kernel decides; goim's
    /// `tcp.rcvbuf` has no effect.
    #[arg(long, value_name = "SIZE", env = "IMCLUSTER_TCP_RECEIVE_BUFFER", value_parser = size)]
    pub tcp_receive_buffer: Option<usize>,
    /// How long after the start clients are not let in while jobs have not claimed every partition of the topic here: what
    /// is pushed before might not reach them. With jobs around it takes a moment; a first push of goim's job, which claims
    /// nothing, ends it.
    #[arg(long, value_name = "DURATION", env = "IMCLUSTER_CLAIM_WAIT", value_parser = duration::parse, default_value = "10s")]
    pub claim_wait: Duration,
    /// From accept to the auth reply: TLS, WebSocket upgrade, auth packet and logic's answer must fit in it.
    #[arg(long, value_name = "DURATION", env = "IMCLUSTER_HANDSHAKE_TIMEOUT", value_parser = duration::parse, default_value = "5s")]
    pub handshake_timeout: Duration,

    /// This server's id: what sessions point to, so no two comets may share it. Default: in Kubernetes (POD_NAME and
    /// POD_UID are set) the pod's name, a dot and the first 8 of its UID, so that a pod that comes back under its name
    /// inherits no sessions; elsewhere this machine's host name.
    #[arg(long, value_name = "NAME", env = "IMCLUSTER_HOST", value_parser = NonEmptyStringValueParser::new(),
        default_value_t = identity(&variable).unwrap_or_else(hostname), hide_default_value = true)]
    pub host: String,
    /// The pod we run in.
    #[arg(skip = variable(POD_NAME))]
    pub pod_name: Option<String>,
    /// Drawn anew at every start, so that nobody takes this process for the one that had its id before.
    #[arg(skip = rand::random::<u64>())]
    pub incarnation: u64,
    /// The region this server is in; clients of the same region are sent here first.
    #[arg(long, env = "REGION", default_value = "", hide_default_value = true)]
    pub region: String,
    /// The zone this server is in.
    #[arg(long, env = "ZONE", default_value = "", hide_default_value = true)]
    pub zone: String,
    /// The environment this server is in, such as `prod`. Only shown.
    #[arg(long, env = "DEPLOY_ENV", default_value = "", hide_default_value = true)]
    pub deploy_env: String,
    /// This server's share of new clients against the other servers' weights.
    #[arg(long, env = "WEIGHT", default_value_t = 10, value_parser = clap::value_parser!(i64).range(0..))]
    pub weight: i64,
    /// Public addresses that clients are told to try, comma-separated.
    #[arg(long, value_name = "ADDRESS", env = "ADDRS", value_delimiter = ',')]
    pub addrs: Vec<String>,
    /// Leave this server out of node lists and totals.
    #[arg(long, env = "OFFLINE", value_parser = BoolishValueParser::new(), default_value = "false",
        num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub offline: bool,
    /// Log every connection at info, as `--whitelist` does for some.
    #[arg(long, env = "DEBUG", value_parser = BoolishValueParser::new(), default_value = "false",
        num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub debug: bool,
    /// Members whose connections are logged at info, comma-separated.
    #[arg(long, value_name = "MID", env = "IMCLUSTER_WHITELIST", value_delimiter = ',')]
    pub whitelist: Vec<i64>,

    /// Threads that hold connections. Default: one per core.
    #[arg(long, value_name = "COUNT", env = "IMCLUSTER_SHARDS")]
    pub shards: Option<NonZeroUsize>,
    /// Rooms one connection may be in.
    #[arg(long, value_name = "COUNT", env = "IMCLUSTER_ROOMS_PER_CONNECTION", default_value = "256")]
    pub rooms_per_connection: NonZeroUsize,
    /// Bytes that may wait for one connection that does not read.
    #[arg(long, value_name = "SIZE", env = "IMCLUSTER_QUEUE_BYTES", value_parser = size, default_value = "256KiB")]
    pub queue_bytes: usize,
    /// Bytes that may wait for all connections together.
    #[arg(long, value_name = "SIZE", env = "IMCLUSTER_QUEUE_BYTES_TOTAL", value_parser = size, default_value = "512MiB")]
    pub queue_bytes_total: usize,
    /// When told to stop: connections closed per second.
    #[arg(long, value_name = "COUNT", env = "IMCLUSTER_CLOSE_RATE", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub close_rate: u32,

    /// Packets a client may send per second, a second's worth at once; 0 = no limit.
    #[arg(long, value_name = "COUNT", env = "IMCLUSTER_FRAMES_PER_SECOND", default_value_t = 100)]
    pub frames_per_second: u32,
    /// Bytes a client may send per second, a second's worth at once; 0 = no limit.
    #[arg(long, value_name = "SIZE", env = "IMCLUSTER_BYTES_PER_SECOND", value_parser = size, default_value = "256KiB")]
    pub bytes_per_second: usize,
    /// Connections at a time; what comes beyond is closed. 0 = as many as there may be open files, less a few for
    /// everything else.
    #[arg(long, value_name = "COUNT", env = "IMCLUSTER_MAX_CONNECTIONS", default_value_t = 0)]
    pub max_connections: usize,
    /// Connections at a time from one client address; 0 = no limit. Needs `--trusted-proxies` behind a proxy. Default:
    /// 10000 for addresses of the internet, no limit for those of private networks, which are proxies more often than
    /// clients.
    #[arg(long, value_name = "COUNT", env = "IMCLUSTER_MAX_PER_ADDRESS")]
    pub max_per_address: Option<usize>,
    /// New connections per second, a second's worth at once; what comes beyond is closed. 0 = no limit.
    #[arg(long, value_name = "COUNT", env = "IMCLUSTER_HANDSHAKES_PER_SECOND", default_value_t = 20_000)]
    pub handshakes_per_second: u32,
    /// Networks whose word on the client's address is taken: X-Forwarded-For, and the PROXY header with
    /// `--proxy-protocol`. Such as `10.0.0.0/8`; comma-separated.
    #[arg(long, value_name = "CIDR", env = "IMCLUSTER_TRUSTED_PROXIES", value_delimiter = ',')]
    pub trusted_proxies: Vec<Network>,
    /// Every connection from `--trusted-proxies` begins with a PROXY header, version 1 or 2, on all client ports.
    #[arg(long, env = "IMCLUSTER_PROXY_PROTOCOL", value_parser = BoolishValueParser::new(), default_value = "false",
        num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub proxy_protocol: bool,

    /// How often room counts are reported to logic.
    #[arg(long, value_name = "DURATION", env = "IMCLUSTER_ONLINE_INTERVAL", value_parser = duration::parse, default_value = "3s")]
    pub online_interval: Duration,
    /// When told to stop: time for load balancers to forget this server, still serving.
    #[arg(long, value_name = "DURATION", env = "IMCLUSTER_DRAIN_DELAY", value_parser = duration::parse, default_value = "10s")]
    pub drain_delay: Duration,
    /// When told to stop: the least time over which clients are closed, however few.
    #[arg(long, value_name = "DURATION", env = "IMCLUSTER_DRAIN_MIN", value_parser = duration::parse, default_value = "30s")]
    pub drain_min: Duration,
    /// When told to stop: the most time over which clients are closed, even if that exceeds `--close-rate`.
    #[arg(long, value_name = "DURATION", env = "IMCLUSTER_DRAIN_MAX", value_parser = duration::parse, default_value = "300s")]
    pub drain_max: Duration,
    /// When told to stop: how long job may still deliver after the last client left.
    #[arg(long, value_name = "DURATION", env = "IMCLUSTER_FLUSH", value_parser = duration::parse, default_value = "15s")]
    pub flush: Duration,
    /// In Kubernetes: drain, as when told to stop but without ending, while the pod's annotation `imcluster.dev/drain`
    /// changed within this time; then serve again.
    #[arg(long, value_name = "DURATION", env = "IMCLUSTER_DRAIN_LEASE", value_parser = duration::parse, default_value = "60s")]
    pub drain_lease: Duration,
}

/// What a running comet takes up: for connections that come after the change.
#[derive(Clone, Copy, Debug)]
pub struct Live {
    /// [`Config::handshake_timeout`].
    pub handshake_timeout: Duration,
    /// [`Config::frames_per_second`].
    pub frames_per_second: u32,
    /// [`Config::bytes_per_second`].
    pub bytes_per_second: usize,
    /// [`Config::rooms_per_connection`].
    pub rooms_per_connection: usize,
}

impl From<&Config> for Live {
    fn from(config: &Config) -> Self {
        Self {
            handshake_timeout: config.handshake_timeout,
            frames_per_second: config.frames_per_second,
            bytes_per_second: config.bytes_per_second,
            rooms_per_connection: config.rooms_per_connection.get(),
        }
    }
}

impl Config {
    /// This server's id.
    pub fn server(&self) -> ServerId {
        self.host.as_str().into()
    }

    /// The name browsers are told to try, before logic appends its `--host-domain`: the pod's, whose id is told apart
    /// from it by its UID, or else the id.
    pub fn public_host(&self) -> &str {
        let is_id = |name: &&str| self.host.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
        self.pod_name.as_deref().filter(is_id).unwrap_or(&self.host)
    }

    /// The addresses clients are told to try. goim takes an empty `ADDRS` for one empty address; it is none.
    pub fn public_addresses(&self) -> Vec<String> {
        self.addrs.iter().filter(|address| !address.trim().is_empty()).cloned().collect()
    }

    /// How many threads hold connections.
    pub fn shard_count(&self) -> usize {
        self.shards.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get)
    }
}

impl FileKeys for Config {
    const KEYS: &'static [(&'static str, FileKey)] = &[
        ("debug", FileKey::Arg("debug")),
        ("env.region", FileKey::Arg("region")),
        ("env.zone", FileKey::Arg("zone")),
        ("env.deployenv", FileKey::Arg("deploy_env")),
        ("env.host", FileKey::Arg("host")),
        ("env.weight", FileKey::Arg("weight")),
        ("env.offline", FileKey::Arg("offline")),
        ("env.addrs", FileKey::Arg("addrs")),
        ("discovery.*", FileKey::Replaced("--logic for comet, --comets for logic and job")),
        ("rpcserver.addr", FileKey::Arg("grpc_bind")),
        ("rpcserver.*", FileKey::NoEffect),
        ("rpcclient.*", FileKey::NoEffect),
        ("tcp.bind", FileKey::Arg("tcp_bind")),
        ("tcp.keepalive", FileKey::Arg("tcp_keepalive")),
        ("tcp.*", FileKey::NoEffect),
        ("websocket.bind", FileKey::Arg("websocket_bind")),
        ("websocket.tlsopen", FileKey::Arg("tls_open")),
        ("websocket.tlsbind", FileKey::Arg("ws_tls_bind")),
        ("websocket.certfile", FileKey::Arg("cert_file")),
        ("websocket.privatefile", FileKey::Arg("key_file")),
        ("protocol.handshaketimeout", FileKey::Arg("handshake_timeout")),
        ("protocol.*", FileKey::NoEffect),
        ("bucket.*", FileKey::NoEffect),
        ("whitelist.whitelist", FileKey::Arg("whitelist")),
        ("whitelist.whitelog", FileKey::NoEffect),
    ];

    fn live() -> Vec<String> {
        names::<settings::comet::Live>()
    }

    fn check(&self) -> Result<(), ConfigError> {
        let invalid = |text: String| Err(ConfigError::Invalid(text));
        if self.cert_file.len() != self.key_file.len() {
            return invalid(format!(
                "--key-file names {} files: expected one for each of the {} in --cert-file",
                self.key_file.len(),
                self.cert_file.len()
            ));
        }
        if self.tls_open && self.cert_file.is_empty() {
            return invalid("--tls-open true: expected --cert-file and --key-file with it".into());
        }
        if self.proxy_protocol && self.trusted_proxies.is_empty() {
            return invalid("--proxy-protocol true: expected --trusted-proxies to name the proxies' networks".into());
        }
        if self.drain_min > self.drain_max {
            return invalid(format!(
                "--drain-min {:?}: expected at most --drain-max, {:?}",
                self.drain_min, self.drain_max
            ));
        }
        for (name, value) in [
            ("--handshake-timeout", self.handshake_timeout),
            ("--online-interval", self.online_interval),
            ("--drain-lease", self.drain_lease),
        ] {
            if value.is_zero() {
                return invalid(format!("{name} 0: expected a duration above zero"));
            }
        }
        for (name, value) in [("--queue-bytes", self.queue_bytes), ("--queue-bytes-total", self.queue_bytes_total)] {
            if value < 8 * 1024 {
                return invalid(format!("{name} {value}: expected at least 8KiB, room for one packet of a client"));
            }
        }
        if self.tls_open {
            Tls::load(&self.cert_file, &self.key_file).map_err(|error| ConfigError::Invalid(format!("{error:#}")))?;
        }
        self.internal_tls.open().map(drop).map_err(|error| ConfigError::Invalid(error.to_string()))
    }
}

/// Where to listen: an address and a port, or a port on every address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bind {
    /// `None` = every address, IPv6 and IPv4.
    pub ip: Option<IpAddr>,
    /// 0 = any free port.
    pub port: u16,
}

impl From<SocketAddr> for Bind {
    fn from(address: SocketAddr) -> Self {
        Self { ip: Some(address.ip()), port: address.port() }
    }
}

impl FromStr for Bind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("expected HOST:PORT or :PORT, not `{text}`");
        if let Some(port) = text.strip_prefix(':') {
            return Ok(Self { ip: None, port: port.parse().map_err(|_| expected())? });
        }
        let mut found = text.to_socket_addrs().map_err(|_| expected())?;
        found.next().map(Self::from).ok_or_else(expected)
    }
}

/// Checks that every address of logic is one; whether somebody answers there shows later.
fn logic(text: &str) -> Result<String, String> {
    let fits = |address: &str| {
        address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
    };
    let all = match text.strip_prefix("dns:") {
        Some(name) => fits(name),
        None => text.split(',').all(|address| fits(address.trim())),
    };
    all.then(|| text.to_owned())
        .ok_or_else(|| "expected host:port, several comma-separated, or dns:name:port".to_owned())
}

/// Reads a number of bytes: `4096`, `256KiB` or `512MiB`.
fn size(text: &str) -> Result<usize, String> {
    let (number, unit) = match text.strip_suffix("KiB") {
        Some(number) => (number, 1 << 10),
        None => text.strip_suffix("MiB").map_or((text, 1), |number| (number, 1 << 20)),
    };
    let number: Option<usize> = number.trim_end().parse().ok();
    number
        .and_then(|number| number.checked_mul(unit))
        .ok_or_else(|| format!("expected a size such as 4096, 256KiB or 512MiB, not `{text}`"))
}

/// An environment variable that is set and not empty.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Who we are in Kubernetes.
fn identity(variable: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    Some(server_id(&variable(POD_NAME)?, &variable(POD_UID)?))
}

fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}

/// The defaults, on free ports of the loopback address.
#[cfg(test)]
pub(crate) fn for_tests() -> Config {
    tests::loopback()
}

/// The same with these flags.
#[cfg(test)]
pub(crate) fn for_tests_with(flags: &[&str]) -> Config {
    tests::loopback_with(flags)
}

#[cfg(test)]
mod tests;
