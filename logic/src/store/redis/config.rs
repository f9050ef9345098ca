//! How to reach Redis: one server, Sentinel or Cluster, with TLS and ACL. Secrets come from files.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fred::clients::Pool;
use fred::rustls::pki_types::pem::PemObject;
use fred::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use fred::rustls::{ClientConfig, RootCertStore, crypto};
use fred::types::Builder;
use fred::types::config::{
    ClusterDiscoveryPolicy, Config, ReconnectError, ReconnectPolicy, Server, ServerConfig, TlsConfig,
    UnresponsiveConfig,
};
use runtime::config::FileKey;

/// goim's keys for Redis and what they mean here. `redis.expire` belongs to sessions.
pub const FILE_KEYS: &[(&str, FileKey)] = &[
    ("redis.network", FileKey::NoEffect),
    ("redis.addr", FileKey::Arg("redis_addr")),
    ("redis.auth", FileKey::Arg("redis_auth")),
    ("redis.active", FileKey::NoEffect),
    ("redis.idle", FileKey::NoEffect),
    ("redis.dialtimeout", FileKey::Arg("redis_dial_timeout")),
    ("redis.readtimeout", FileKey::Arg("redis_timeout")),
    ("redis.writetimeout", FileKey::NoEffect),
    ("redis.idletimeout", FileKey::NoEffect),
];

/// How many commands may wait in each connection.
const WAITING: usize = 10_000;

/// Where the sessions are and how to be let in. Redis 6.2 or later.
#[derive(Clone, Debug, clap::Args)]
pub struct RedisConfig {
    /// Redis as `host:port`; several, comma-separated, are Cluster nodes or Sentinels to ask first.
    #[arg(
        id = "redis_addr",
        long = "redis-addr",
        value_name = "HOST:PORT,…",
        env = "IMCLUSTER_REDIS_ADDR",
        value_delimiter = ',',
        default_value = "127.0.0.1:6379"
    )]
    pub addr: Vec<String>,
    /// The addresses are nodes of a Redis Cluster.
    #[arg(
        id = "redis_cluster",
        long = "redis-cluster",
        env = "IMCLUSTER_REDIS_CLUSTER",
        conflicts_with = "redis_sentinel_master"
    )]
    pub cluster: bool,
    /// The addresses are Sentinels, and this is the name of the primary they watch.
    #[arg(
        id = "redis_sentinel_master",
        long = "redis-sentinel-master",
        value_name = "NAME",
        env = "IMCLUSTER_REDIS_SENTINEL_MASTER"
    )]
    pub sentinel_master: Option<String>,
    /// File that holds the ACL user name; without it the password is that of the default user.
    #[arg(
        id = "redis_username_file",
        long = "redis-username-file",
        value_name = "FILE",
        env = "IMCLUSTER_REDIS_USERNAME_FILE"
    )]
    pub username_file: Option<PathBuf>,
    /// File that holds the password and nothing else; a line feed at its end is dropped.
    #[arg(
        id = "redis_password_file",
        long = "redis-password-file",
        value_name = "FILE",
        env = "IMCLUSTER_REDIS_PASSWORD_FILE"
    )]
    pub password_file: Option<PathBuf>,
    /// The password itself, for goim's files (`redis.auth`). On a command line everyone could read it.
    #[arg(id = "redis_auth", long = "redis-auth", hide = true, conflicts_with = "redis_password_file")]
    pub auth: Option<String>,
    /// File that holds the ACL user name for the Sentinels, when they have their own.
    #[arg(
        id = "redis_sentinel_username_file",
        long = "redis-sentinel-username-file",
        value_name = "FILE",
        env = "IMCLUSTER_REDIS_SENTINEL_USERNAME_FILE",
        requires = "redis_sentinel_master"
    )]
    pub sentinel_username_file: Option<PathBuf>,
    /// File that holds the password for the Sentinels, when they ask for one.
    #[arg(
        id = "redis_sentinel_password_file",
        long = "redis-sentinel-password-file",
        value_name = "FILE",
        env = "IMCLUSTER_REDIS_SENTINEL_PASSWORD_FILE",
        requires = "redis_sentinel_master"
    )]
    pub sentinel_password_file: Option<PathBuf>,
    /// The database to select; Cluster has only 0.
    #[arg(
        id = "redis_db",
        long = "redis-db",
        value_name = "NUMBER",
        env = "IMCLUSTER_REDIS_DB",
        default_value_t = 0,
        conflicts_with = "redis_cluster"
    )]
    pub db: u8,
    /// Put before every key, so that two clusters can share one Redis. With one, a Go logic finds nothing.
    #[arg(
        id = "redis_prefix",
        long = "redis-prefix",
        value_name = "TEXT",
        env = "IMCLUSTER_REDIS_PREFIX",
        default_value = "",
        hide_default_value = true
    )]
    pub prefix: String,
    /// Speak TLS to Redis and to the Sentinels. Implied by any of the three files below.
    #[arg(id = "redis_tls", long = "redis-tls", env = "IMCLUSTER_REDIS_TLS")]
    pub tls: bool,
    /// PEM file of the certificate authorities that Redis is checked against; the system's when absent.
    #[arg(id = "redis_ca_file", long = "redis-ca-file", value_name = "FILE", env = "IMCLUSTER_REDIS_CA_FILE")]
    pub ca_file: Option<PathBuf>,
    /// PEM file of our certificate, when Redis wants one. Needs --redis-key-file.
    #[arg(
        id = "redis_cert_file",
        long = "redis-cert-file",
        value_name = "FILE",
        env = "IMCLUSTER_REDIS_CERT_FILE",
        requires = "redis_key_file"
    )]
    pub cert_file: Option<PathBuf>,
    /// PEM file of the private key to that certificate.
    #[arg(
        id = "redis_key_file",
        long = "redis-key-file",
        value_name = "FILE",
        env = "IMCLUSTER_REDIS_KEY_FILE",
        requires = "redis_cert_file"
    )]
    pub key_file: Option<PathBuf>,
    /// How long connecting may take.
    #[arg(
        id = "redis_dial_timeout",
        long = "redis-dial-timeout",
        value_name = "DURATION",
        env = "IMCLUSTER_REDIS_DIAL_TIMEOUT",
        value_parser = runtime::duration::parse,
        default_value = "1s"
    )]
    pub dial_timeout: Duration,
    /// How long an answer may take; then the request that needed it is refused and may be tried again.
    #[arg(
        id = "redis_timeout",
        long = "redis-timeout",
        value_name = "DURATION",
        env = "IMCLUSTER_REDIS_TIMEOUT",
        value_parser = runtime::duration::parse,
        default_value = "1s"
    )]
    pub timeout: Duration,
    /// How many connections to keep open.
    #[arg(
        id = "redis_connections",
        long = "redis-connections",
        value_name = "COUNT",
        env = "IMCLUSTER_REDIS_CONNECTIONS",
        default_value_t = 4,
        value_parser = clap::value_parser!(u16).range(1..=1024)
    )]
    pub connections: u16,
}

/// A Redis setting, or a file that one names, cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("--{flag} {value}: expected {expected}")]
pub struct RedisConfigError {
    flag: &'static str,
    value: String,
    expected: String,
}

impl RedisConfig {
    /// A pool that connects when told to and again for ever.
    /// Checks the addresses and the files, without connecting.
    ///
    /// # Errors
    /// When one cannot be used.
    pub fn check(&self) -> Result<(), RedisConfigError> {
        read_if("redis-username-file", self.username_file.as_deref())?;
        read_if("redis-password-file", self.password_file.as_deref())?;
        self.server()?;
        self.tls().map(drop)
    }

    pub(super) fn pool(&self) -> Result<Pool, RedisConfigError> {
        let config = Config {
            fail_fast: false,
            username: read_if("redis-username-file", self.username_file.as_deref())?,
            password: read_if("redis-password-file", self.password_file.as_deref())?.or_else(|| self.auth.clone()),
            server: self.server()?,
            database: (self.db != 0).then_some(self.db),
            tls: self.tls()?,
            ..Config::default()
        };
        Builder::from_config(config)
            .with_performance_config(|performance| performance.default_command_timeout = self.timeout)
            .with_connection_config(|connection| {
                connection.connection_timeout = self.dial_timeout;
                connection.internal_command_timeout = self.timeout;
                connection.max_command_attempts = self.attempts();
                // While Redis is away, what was asked in vain stays in this buffer; a full one refuses at once.
                connection.max_command_buffer_len = WAITING;
                connection.auto_client_setname = false;
                connection.reconnect_on_auth_error = true;
                // A connection that answers nothing for this long is made anew: its host may be gone without a word. The
                // kernel sees that also while somebody writes to it, but not when only the process is frozen: the store
                // asks over each, see `watch`.
                connection.tcp.user_timeout = Some(self.timeout * 3);
                connection.unresponsive =
                    UnresponsiveConfig { max_timeout: Some(self.timeout * 3), interval: Duration::from_secs(1) };
                connection.reconnect_errors = vec![
                    ReconnectError::ClusterDown,
                    ReconnectError::Loading,
                    ReconnectError::MasterDown,
                    ReconnectError::ReadOnly,
                ];
                connection.tcp.nodelay = Some(true);
            })
            .set_policy(ReconnectPolicy::new_exponential(0, 50, 2000, 2))
            .build_pool(usize::from(self.connections))
            .map_err(|error| RedisConfigError {
                flag: "redis-addr",
                value: self.addr.join(","),
                expected: format!("a Redis that can be connected to: {error}"),
            })
    }

    /// How often a command is written: again only to the Cluster node that it is sent on to. What Redis did not answer it
    /// may have carried out, and would then say that the key was here before.
    pub(super) fn attempts(&self) -> u32 {
        if self.cluster { 2 } else { 1 }
    }

    fn server(&self) -> Result<ServerConfig, RedisConfigError> {
        let mut hosts = self.addr.iter().map(|address| self.address(address)).collect::<Result<Vec<_>, _>>()?;
        if self.cluster {
            return Ok(ServerConfig::Clustered { hosts, policy: ClusterDiscoveryPolicy::default() });
        }
        if let Some(service_name) = self.sentinel_master.clone() {
            let username = read_if("redis-sentinel-username-file", self.sentinel_username_file.as_deref())?;
            let password = read_if("redis-sentinel-password-file", self.sentinel_password_file.as_deref())?;
            return Ok(ServerConfig::Sentinel { hosts, service_name, username, password });
        }
        match (hosts.pop(), hosts.is_empty()) {
            (Some(server), true) => Ok(ServerConfig::Centralized { server }),
            _ => Err(RedisConfigError {
                flag: "redis-addr",
                value: self.addr.join(","),
                expected: "one address, or --redis-cluster or --redis-sentinel-master beside several".to_owned(),
            }),
        }
    }

    fn address(&self, address: &str) -> Result<Server, RedisConfigError> {
        let parts = address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
        let (host, port) = parts.filter(|(host, _)| !host.is_empty()).ok_or_else(|| RedisConfigError {
            flag: "redis-addr",
            value: address.to_owned(),
            expected: "host:port, such as 127.0.0.1:6379".to_owned(),
        })?;
        Ok(Server::new(host.trim_start_matches('[').trim_end_matches(']'), port))
    }

    fn tls(&self) -> Result<Option<TlsConfig>, RedisConfigError> {
        if !self.tls && self.ca_file.is_none() && self.cert_file.is_none() {
            return Ok(None);
        }
        let mut roots = RootCertStore::empty();
        match &self.ca_file {
            Some(path) => {
                let bad = |error: &dyn std::fmt::Display| unusable("redis-ca-file", path, "PEM certificates", error);
                for certificate in CertificateDer::pem_file_iter(path).map_err(|error| bad(&error))? {
                    roots.add(certificate.map_err(|error| bad(&error))?).map_err(|error| bad(&error))?;
                }
                if roots.is_empty() {
                    return Err(bad(&"there is none in it"));
                }
            }
            None => {
                let found = fred::rustls_native_certs::load_native_certs();
                roots.add_parsable_certificates(found.certs);
            }
        }
        let provider = std::sync::Arc::new(crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring speaks the default versions of TLS")
            .with_root_certificates(roots);
        let config = match (&self.cert_file, &self.key_file) {
            (Some(certificate), Some(key)) => {
                let chain = CertificateDer::pem_file_iter(certificate)
                    .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                    .map_err(|error| unusable("redis-cert-file", certificate, "PEM certificates", &error))?;
                let private = PrivateKeyDer::from_pem_file(key)
                    .map_err(|error| unusable("redis-key-file", key, "a PEM private key", &error))?;
                config
                    .with_client_auth_cert(chain, private)
                    .map_err(|error| unusable("redis-key-file", key, "the key of that certificate", &error))?
            }
            _ => config.with_no_client_auth(),
        };
        Ok(Some(config.into()))
    }
}

fn unusable(flag: &'static str, path: &Path, what: &str, error: &dyn std::fmt::Display) -> RedisConfigError {
    RedisConfigError { flag, value: path.display().to_string(), expected: format!("{what}: {error}") }
}

fn read_if(flag: &'static str, path: Option<&Path>) -> Result<Option<String>, RedisConfigError> {
    let Some(path) = path else {
        return Ok(None);
    };
    let what = "a file that holds it and nothing else";
    let text = fs::read_to_string(path).map_err(|error| unusable(flag, path, what, &error))?;
    match text.trim_end_matches(['\n', '\r']) {
        "" => Err(unusable(flag, path, what, &"it is empty")),
        text => Ok(Some(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        redis: RedisConfig,
    }

    fn parse(flags: &[&str]) -> RedisConfig {
        Program::try_parse_from(std::iter::once("x").chain(flags.iter().copied())).unwrap().redis
    }

    fn refused(flags: &[&str]) -> String {
        parse(flags).pool().unwrap_err().to_string()
    }

    #[test]
    fn one_address_is_a_server_and_several_need_a_word() {
        assert!(parse(&[]).pool().is_ok());
        let two = ["--redis-addr", "a:1,b:2"];
        assert!(refused(&two).contains("--redis-cluster or --redis-sentinel-master"));
        assert!(parse(&[&two[..], &["--redis-cluster"]].concat()).pool().is_ok());
        let sentinel = parse(&[&two[..], &["--redis-sentinel-master", "goim"]].concat()).server().unwrap();
        assert!(matches!(sentinel, ServerConfig::Sentinel { service_name, .. } if service_name == "goim"));
    }

    #[test]
    fn what_cannot_be_used_is_named_with_its_flag() {
        assert_eq!(refused(&["--redis-addr", "6379"]), "--redis-addr 6379: expected host:port, such as 127.0.0.1:6379");
        assert!(refused(&["--redis-ca-file", "/nowhere"]).starts_with("--redis-ca-file /nowhere: expected PEM"));
        assert!(refused(&["--redis-password-file", "/nowhere"]).starts_with("--redis-password-file /nowhere: "));
    }

    #[test]
    fn goims_password_and_timeouts_are_taken() {
        let config = parse(&["--redis-auth", "s3cret", "--redis-timeout", "500ms", "--redis-dial-timeout", "200ms"]);
        assert_eq!(config.auth.as_deref(), Some("s3cret"));
        assert_eq!((config.timeout, config.dial_timeout), (Duration::from_millis(500), Duration::from_millis(200)));
    }
}
