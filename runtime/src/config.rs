//! Where settings come from: flag, then environment, then file, then default. Parsed and checked once, typed.
//!
//! A service describes its settings as clap arguments and, beside them, which key of goim's TOML files each one is
//! ([`FileKeys`]). Any argument can also be set under `[imcluster]` by its name in camelCase.

use std::ffi::OsString;
use std::net::SocketAddr;

/// What every process has, whatever it serves.
#[derive(Clone, Debug, clap::Args)]
pub struct ProcessConfig {
    /// A TOML file, goim's or ours. Flags and environment win over it.
    #[arg(long = "config", value_name = "FILE", env = "IMCLUSTER_CONFIG")]
    pub file: Option<std::path::PathBuf>,
    /// Where GET /live, /ready, /metrics and /status are served.
    #[arg(long, value_name = "HOST:PORT", env = "IMCLUSTER_ADMIN", default_value = "0.0.0.0:3131")]
    pub admin: SocketAddr,
    /// What to log: a level, or directives such as `info,comet=debug`.
    #[arg(long, env = "IMCLUSTER_LOG", default_value = "info")]
    pub log: String,
    /// Log as `plain` lines or as `json` objects.
    #[arg(long, env = "IMCLUSTER_LOG_FORMAT", default_value = "plain")]
    pub log_format: LogFormat,
    /// Send traces to this OTLP/gRPC collector, such as `http://127.0.0.1:4317`.
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,
    /// The share of pushes that are traced, 0 to 1.
    #[arg(long, env = "IMCLUSTER_TRACE_RATIO", default_value_t = 0.01)]
    pub trace_ratio: f64,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Plain,
    /// For collectors.
    Json,
}

/// What a key of goim's files means here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKey {
    /// The argument with this id (the field's name).
    Arg(&'static str),
    /// Tunes goim's inside: accepted, named in one info line.
    NoEffect,
    /// Not taken any more: warns, naming what to use instead.
    Replaced(&'static str),
}

/// A service's settings and the file keys that set them.
pub trait FileKeys: clap::Args {
    /// Lower-case dotted key, such as `tcp.bind`, or a prefix ending in `.*`; and what it means. The most exact wins.
    const KEYS: &'static [(&'static str, FileKey)];
}

/// Why the process does not start. The text is one line naming key, value and what was expected.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Exit code 64 (`EX_USAGE`).
    #[error("{0}")]
    Invalid(String),
    /// `--help` or `--version` was asked for: print it and exit 0.
    #[error("{0}")]
    Shown(String),
}

/// Rewrites goim's command line into ours: `-conf` is `--config`, one-dash names become `--name`, glog's flags go.
pub fn normalise(argv: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    argv.into_iter().collect()
}
