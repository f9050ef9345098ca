//! What a user wrote → [`Cluster`], nothing left to decide. Pure. Pod shape has its defaults here; behaviour has them in
//! the services, which are told only what the spec sets.
//!
//! The API server has checked what a schema and CEL can say. Here is what they cannot: whether this operator knows the
//! version, whether free-form parts fit, and what may not be overridden.

mod cluster;
mod overlay;
mod services;
mod settings;

use std::collections::BTreeMap;

pub use cluster::*;
use runtime::pod::{self, Component};
pub(crate) use settings::{AUTH_CA, CLIENT_TLS, INTERNAL_TLS, JWT, JWT_KEYS, JWT_SECRET, LOGIC_PEERS, PUSH_TOKENS};

use crate::crd::{ImCluster, ImClusterSpec, ManageTopic, RedisMode};

/// What the operator brings along.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operand {
    /// The repository of our image.
    pub image: String,
    /// The operator's own version.
    pub version: String,
}

/// Why a spec cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Another operator would have to run it: nothing is written.
    #[error("spec.version {wanted} cannot be run by this operator: {why}")]
    Version {
        /// As the spec has it.
        wanted: String,
        /// What to do instead.
        why: String,
    },
    /// A part of the spec does not fit.
    #[error("{field}: {why}")]
    Spec {
        /// Which, such as `spec.comet.podTemplate`.
        field: String,
        /// What was expected.
        why: String,
    },
}

impl Invalid {
    fn spec(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Spec { field: field.into(), why: why.into() }
    }
}

/// Decides everything that a spec leaves open.
///
/// # Errors
/// [`Invalid`], naming the field and what to change.
pub fn validate(cluster: &ImCluster, operand: &Operand) -> Result<Cluster, Invalid> {
    let missing = |field: &str| Invalid::spec(field, "is missing, so this object does not come from an API server");
    let name = cluster.metadata.name.clone().ok_or_else(|| missing("metadata.name"))?;
    let namespace = cluster.metadata.namespace.clone().ok_or_else(|| missing("metadata.namespace"))?;
    let spec = &cluster.spec;
    supported(&spec.version, &operand.version)?;
    let auth = auth(&spec.auth)?;
    let secret = spec.push.as_ref().and_then(|push| push.tokens_secret_ref.as_ref());
    let push_token = PushToken {
        secret: secret.map_or_else(|| format!("{name}-push-token"), |given| given.name.clone()),
        is_ours: secret.is_none(),
    };
    let whole = Whole {
        kafka: kafka(spec, &name, &namespace)?,
        redis: redis(spec, &name, &namespace)?,
        group: spec.job.consumer_group.clone().unwrap_or_else(|| format!("{namespace}.{name}.job")),
        name,
        namespace,
        auth,
        spec,
    };
    let comet = services::comet(&whole)?;
    Ok(Cluster {
        paused: spec.paused,
        version: spec.version.clone(),
        image: image(spec, operand),
        logic: services::logic(&whole, &comet)?,
        comet,
        job: services::job(&whole)?,
        network_policy: spec.network_policy.enabled.then(|| spec.network_policy.monitoring_namespaces.clone()),
        service_monitor: service_monitor(spec),
        name: whole.name,
        namespace: whole.namespace,
        auth: whole.auth,
        push_token,
        internal_tls: spec.internal_tls.as_ref().map(|tls| tls.secret_name.clone()),
        kafka: whole.kafka,
        redis: whole.redis,
    })
}

/// What the parts of a cluster need to know of the whole.
struct Whole<'a> {
    name: String,
    namespace: String,
    spec: &'a ImClusterSpec,
    auth: Auth,
    kafka: Kafka,
    redis: Redis,
    group: String,
}

fn auth(spec: &crate::crd::Auth) -> Result<Auth, Invalid> {
    match (&spec.trust, &spec.jwt, &spec.webhook) {
        (Some(_), None, None) => Ok(Auth::Trust),
        (None, Some(jwt), None) => Ok(Auth::Jwt(keys(jwt)?, Box::new(jwt.clone()))),
        (None, None, Some(webhook)) => Ok(Auth::Webhook(webhook.clone())),
        _ => Err(Invalid::spec("spec.auth", "expected one of trust: {} (each client is who it says), jwt and webhook")),
    }
}

fn keys(jwt: &crate::crd::Jwt) -> Result<KeysOf, Invalid> {
    match (&jwt.secret_ref, &jwt.keys_secret_ref, &jwt.jwks_url) {
        (Some(secret), None, None) => Ok(KeysOf::Secret(secret.name.clone())),
        (None, Some(secret), None) => Ok(KeysOf::Keys(secret.name.clone())),
        (None, None, Some(url)) => Ok(KeysOf::Url(url.clone())),
        _ => Err(Invalid::spec("spec.auth.jwt", "expected one of secretRef, keysSecretRef and jwksUrl")),
    }
}

/// Any patch of the operator's own minor version and of the one before: what our pods of those versions need is known.
fn supported(wanted: &str, own: &str) -> Result<(), Invalid> {
    let refused = |why: String| Invalid::Version { wanted: wanted.to_owned(), why };
    let (Some(version), Some((major, minor))) = (minor(wanted), minor(own)) else {
        return Err(refused("expected a version such as 0.1.0".to_owned()));
    };
    let before = minor.checked_sub(1);
    if version == (major, minor) || before.is_some_and(|before| version == (major, before)) {
        return Ok(());
    }
    let known = before
        .map_or_else(|| format!("{major}.{minor}.x"), |before| format!("{major}.{minor}.x and {major}.{before}.x"));
    Err(refused(format!("the operator {own} runs {known}; set one of those or upgrade the operator first")))
}

/// Major and minor of `major.minor.patch[-pre]`.
fn minor(version: &str) -> Option<(u64, u64)> {
    let (numbers, _) = version.split_once('-').unwrap_or((version, ""));
    let mut parts = numbers.split('.').map(|part| part.parse::<u64>().ok());
    let (major, minor, patch) = (parts.next()??, parts.next()??, parts.next()?);
    (patch.is_some() && parts.next().is_none()).then_some((major, minor))
}

fn image(spec: &ImClusterSpec, operand: &Operand) -> Image {
    let given = spec.image.clone().unwrap_or_default();
    let repository = given.repository.unwrap_or_else(|| operand.image.clone());
    let reference = match &given.digest {
        Some(digest) => format!("{repository}@{digest}"),
        None => format!("{repository}:{}", spec.version),
    };
    Image {
        reference,
        pull_policy: given.pull_policy.map(|policy| format!("{policy:?}")),
        pull_secrets: given.pull_secrets.into_iter().map(|secret| secret.name).collect(),
    }
}

fn kafka(spec: &ImClusterSpec, name: &str, namespace: &str) -> Result<Kafka, Invalid> {
    let asked = &spec.kafka;
    let topic = |replication: i32| Topic {
        name: asked.topic.name.clone().unwrap_or_else(|| format!("{namespace}.{name}.push")),
        partitions: asked.topic.partitions,
        replication: asked.topic.replication_factor.unwrap_or(replication),
        create: asked.topic.manage == ManageTopic::CreateIfMissing,
    };
    match (&asked.external, &asked.dev) {
        (None, Some(dev)) => Ok(Kafka {
            brokers: vec![dev_address(name, namespace, Component::Kafka, pod::KAFKA)],
            dev: Some(dev_server(dev, "apache/kafka:4.1.1")),
            tls: None,
            sasl: None,
            topic: topic(1),
        }),
        (Some(external), None) => Ok(Kafka {
            brokers: external.bootstrap_servers.clone(),
            dev: None,
            tls: external.tls.as_ref().map(|tls| ClientTls {
                ca: tls.ca_secret_ref.as_ref().map(|secret| secret.name.clone()),
                certificate: tls.client_cert_secret_ref.as_ref().map(|secret| secret.name.clone()),
            }),
            sasl: external.sasl.as_ref().map(|sasl| Sasl {
                mechanism: serde_json::to_value(sasl.mechanism)
                    .ok()
                    .and_then(|name| name.as_str().map(str::to_owned))
                    .unwrap_or_default(),
                secret: sasl.secret_ref.name.clone(),
            }),
            topic: topic(3),
        }),
        _ => Err(Invalid::spec("spec.kafka", "expected exactly one of external and dev")),
    }
}

fn redis(spec: &ImClusterSpec, name: &str, namespace: &str) -> Result<Redis, Invalid> {
    let asked = &spec.redis;
    let prefix = asked.key_prefix.clone().unwrap_or_else(|| format!("{namespace}:{name}:"));
    match (&asked.external, &asked.dev) {
        (None, Some(dev)) => Ok(Redis {
            addresses: vec![dev_address(name, namespace, Component::Redis, pod::REDIS)],
            dev: Some(dev_server(dev, "redis:7")),
            is_cluster: false,
            sentinel_master: None,
            database: None,
            tls: None,
            credentials: None,
            sentinel_credentials: None,
            prefix,
        }),
        (Some(external), None) => {
            let name = |secret: &Option<crate::crd::NameRef>| secret.as_ref().map(|secret| secret.name.clone());
            Ok(Redis {
                addresses: external.addresses.clone(),
                dev: None,
                is_cluster: external.mode == RedisMode::Cluster,
                sentinel_master: external.master_name.clone().filter(|_| external.mode == RedisMode::Sentinel),
                database: (external.database != 0).then_some(external.database),
                tls: external.tls.as_ref().map(|tls| ClientTls { ca: name(&tls.ca_secret_ref), certificate: None }),
                credentials: name(&external.credentials_secret_ref),
                sentinel_credentials: name(&external.sentinel_credentials_secret_ref),
                prefix,
            })
        }
        _ => Err(Invalid::spec("spec.redis", "expected exactly one of external and dev")),
    }
}

/// The name of a development server's Service, as DNS and the server itself say it.
fn dev_address(name: &str, namespace: &str, component: Component, port: u16) -> String {
    format!("{name}-{}.{namespace}.svc:{port}", component.name())
}

fn dev_server(asked: &crate::crd::DevServer, image: &str) -> Dev {
    Dev { image: asked.image.clone().unwrap_or_else(|| image.to_owned()), resources: asked.resources.clone() }
}

fn service_monitor(spec: &ImClusterSpec) -> Option<BTreeMap<String, String>> {
    let asked = spec.monitoring.as_ref()?.service_monitor.as_ref()?;
    asked.enabled.then(|| asked.labels.clone())
}

#[cfg(test)]
mod tests;
