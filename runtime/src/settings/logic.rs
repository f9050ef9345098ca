//! Settings of logic that the cluster shows.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DURATION, NETWORK};

/// What logic reads when it starts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = super::restarts)]
pub struct Fixed {
    /// What every process has.
    #[serde(flatten)]
    pub process: super::Fixed,
    /// Proxies whose X-Forwarded-For and X-Real-IP are believed: addresses or networks. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 64), regex(pattern = NETWORK)))]
    pub trusted_proxies: Vec<String>,
    /// The most pushes handled at a time by one logic; more are answered 503. Default: 4096.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub http_in_flight: Option<i64>,
    /// The most open connections of one logic; more wait to be accepted. Default: 8192.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub http_connections: Option<i64>,
    /// How long the body of a request may take to arrive, as a Go duration; then 408. Default: 10s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = DURATION))]
    pub http_body_timeout: Option<String>,
    /// How long a connection may go without sending the whole head of a request, as a Go duration. Default: 75s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = DURATION))]
    pub http_idle_timeout: Option<String>,
    /// How long a session lives without being refreshed, as a Go duration; comets refresh every third of it. Default:
    /// 30m.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = DURATION))]
    pub redis_expire: Option<String>,
    /// POST what clients send upstream to this URL, one JSON object per packet: mid, key, server, op, seq, body
    /// (base64). Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048), regex(pattern = r"^https?://[^\s]+$"))]
    pub receive_url: Option<String>,
    /// How many of these calls may run at a time. Default: 16.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub receive_concurrency: Option<i32>,
    /// How many packets may wait for a call; further ones are dropped and counted. Default: 1024.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub receive_queue: Option<i32>,
    /// How long a call may take, as a Go duration. Default: 2s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = DURATION))]
    pub receive_timeout: Option<String>,
    /// Serve no page at `/`. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_page: Option<bool>,
}

/// What logic takes up while it runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = super::reloads)]
pub struct Live {
    /// What every process has.
    #[serde(flatten)]
    pub process: super::Live,
    /// The longest message that may be pushed, in bytes; longer ones are answered 413. Default: 1000000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16_777_216))]
    pub max_push_body: Option<i64>,
    /// The most keys or members that one push may name; more are answered 413. Default: 10000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_push_keys: Option<i64>,
    /// How long a push may take to be stored, as a Go duration; then 503. It may be stored all the same. Default: 10s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = DURATION))]
    pub push_deadline: Option<String>,
    /// How many connections one member may have at a time; 0 = as many as it likes. Default: 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub mid_connections: Option<i64>,
    /// What happens when a member has too many: `refuse` the new one, or close the oldest (`evict-oldest`). Default:
    /// refuse.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mid_policy: Option<MidPolicy>,
    /// How often a client should send a heartbeat, as a Go duration. Told to clients that connect after the change.
    /// Default: 4m.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = DURATION))]
    pub heartbeat: Option<String>,
    /// After how many heartbeats that did not come a client is closed. Default: 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub heartbeat_max: Option<i32>,
    /// By how much a comet of the client's own region is preferred. Default: 1.6.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1000.0))]
    pub region_weight: Option<f64>,
    /// The longest a client should wait before it connects again, in seconds. Default: 300.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86400))]
    pub backoff_max_delay: Option<i32>,
    /// The shortest, in seconds. Default: 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 86400))]
    pub backoff_base_delay: Option<i32>,
    /// By how much each wait is longer than the last. Default: 1.8.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1.0, max = 100.0))]
    pub backoff_factor: Option<f64>,
    /// The share of a wait that is left to chance, 0 to 1. Default: 0.3.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub backoff_jitter: Option<f64>,
}

/// What happens to one connection too many of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(transform = super::described_by_its_field)]
pub enum MidPolicy {
    /// The new one is refused.
    Refuse,
    /// The oldest is closed.
    EvictOldest,
}
