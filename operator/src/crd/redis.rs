//! The Redis of the sessions.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bounds;
use super::pods::{DevServer, NameRef};

/// The Redis that holds the sessions: which comet each client is on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "has(self.external) != has(self.dev)",
        "message": "redis needs exactly one of external and dev: set redis.external to use your Redis, or redis.dev to {} to try things out",
    },
    {
        "rule": "has(self.dev) == has(oldSelf.dev)",
        "message": "redis.external and redis.dev cannot replace each other, the sessions would be lost: make a new ImCluster",
    },
]))]
pub struct RedisSpec {
    /// A Redis that is there already, 6.2 or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalRedis>,
    /// A single Redis server run beside the pods, for trying things out: a restart loses the sessions. Shown by the
    /// condition `NonProduction`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dev: Option<DevServer>,
    /// Put before every key, so that several clusters can share one Redis. Default: `<namespace>:<name>:`. Empty (`""`)
    /// shares goim's keys with a Go logic. A change restarts logic and forgets the sessions: clients that are
    /// connected get no pushes by key or member until they connect again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128), regex(pattern = r"^[!-z|~]*$"))]
    pub key_prefix: Option<String>,
}

/// A Redis that is there already.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "(self.mode == 'Sentinel') == has(self.masterName)",
        "message": "masterName goes with mode Sentinel: set both, or neither",
    },
    {
        "rule": "self.mode == 'Sentinel' || !has(self.sentinelCredentialsSecretRef)",
        "message": "sentinelCredentialsSecretRef goes with mode Sentinel: leave it out, or set mode to Sentinel",
    },
    {
        "rule": "self.mode != 'Cluster' || self.database == 0",
        "message": "a Redis Cluster has only database 0: leave database out, or set mode to Standalone or Sentinel",
    },
    {
        "rule": "self.mode != 'Standalone' || self.addresses.size() == 1",
        "message": "mode Standalone takes one address: leave one in addresses, or set mode to Sentinel or Cluster",
    },
]))]
pub struct ExternalRedis {
    /// What answers at `addresses`: one server, Sentinels that know the primary, or nodes of a Redis Cluster.
    #[serde(default)]
    pub mode: RedisMode,
    /// `host:port` of the server, of the Sentinels, or of some nodes of the Cluster. A change restarts logic.
    #[schemars(
        length(min = 1, max = 32),
        inner(length(min = 3, max = 261), regex(pattern = bounds::ADDRESS)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub addresses: Vec<String>,
    /// The name under which the Sentinels know the primary.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[-._0-9A-Za-z]+$"))]
    pub master_name: Option<String>,
    /// The database to select.
    #[serde(default)]
    #[schemars(range(min = 0, max = 255))]
    pub database: i32,
    /// Speak TLS to Redis and to the Sentinels; `{}` trusts the certificate authorities of the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<RedisTls>,
    /// A Secret with the keys `username` and `password`; without ACL users `username` is `default`. Read when a
    /// logic starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<NameRef>,
    /// The same for the Sentinels, when they ask for a password: a Secret with the keys `username` and `password`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sentinel_credentials_secret_ref: Option<NameRef>,
}

/// What answers at the addresses of Redis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RedisMode {
    /// One server.
    #[default]
    Standalone,
    /// Sentinels that know the primary.
    Sentinel,
    /// Nodes of a Redis Cluster.
    Cluster,
}

/// TLS to Redis.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RedisTls {
    /// A Secret with the key `ca.crt`: the certificate authorities (PEM) that Redis is checked against. Unset, those of
    /// the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<NameRef>,
}
