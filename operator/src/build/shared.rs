//! What belongs to several: accounts and their rights, budgets, the ServiceMonitor, the Secrets that pods mount, and the
//! Secret of the push token.

use k8s_openapi::api::core::v1::Secret;
use kube::api::ObjectMeta;
use runtime::pod::{self, Component, port_name};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::meta::{self, Place, child_name, selector};
use super::pod::Mount;
use super::{Child, Facts, Stage};
use crate::validate::{AUTH_CA, Auth, ClientTls, Cluster, INTERNAL_TLS, JWT, JWT_KEYS, JWT_SECRET, KeysOf};

pub(super) fn build(cluster: &Cluster, facts: &Facts, children: &mut Vec<Child>) {
    for component in Component::SERVICES {
        let place = Place::new(cluster, facts, Stage::Shared, component);
        children.push(account(place, component));
        if component != Component::Comet {
            children.extend([role(place, component), role_binding(place, component)]);
        }
        children.extend(budget(place, component));
    }
    if let (Some(labels), true) = (&cluster.service_monitor, facts.has_service_monitor) {
        let mut monitor = service_monitor(Place::of_all(cluster, facts, Stage::Shared));
        let ours = monitor.object.metadata.labels.take().unwrap_or_default();
        monitor.object.metadata.labels = Some(labels.clone().into_iter().chain(ours).collect());
        children.push(monitor);
    }
}

/// Its pods ask for the token themselves, or have none.
fn account(place: Place<'_>, component: Component) -> Child {
    let name = child_name(place.cluster, component);
    place.child("v1", "ServiceAccount", &name, json!({"automountServiceAccountToken": false}))
}

/// All that discovery needs.
fn role(place: Place<'_>, component: Component) -> Child {
    let rules = json!([{
        "apiGroups": ["discovery.k8s.io"],
        "resources": ["endpointslices"],
        "verbs": ["get", "list", "watch"],
    }]);
    let name = child_name(place.cluster, component);
    place.child("rbac.authorization.k8s.io/v1", "Role", &name, json!({"rules": rules}))
}

fn role_binding(place: Place<'_>, component: Component) -> Child {
    let name = child_name(place.cluster, component);
    place.child(
        "rbac.authorization.k8s.io/v1",
        "RoleBinding",
        &name,
        json!({
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": place.cluster.namespace}],
        }),
    )
}

/// Pods that are not ready may always be evicted: the default policy keeps even those.
fn budget(place: Place<'_>, component: Component) -> Option<Child> {
    let most = place.cluster.workload(component).budget.as_ref()?;
    Some(place.child(
        "policy/v1",
        "PodDisruptionBudget",
        &child_name(place.cluster, component),
        json!({"spec": {
            "maxUnavailable": most,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": selector(place.cluster, component)},
        }}),
    ))
}

fn service_monitor(place: Place<'_>) -> Child {
    let cluster = place.cluster;
    let ours = selector(cluster, Component::Comet);
    let of_all: serde_json::Map<String, Value> = ours
        .into_iter()
        .filter(|(key, _)| key != "app.kubernetes.io/component")
        .map(|(key, value)| (key, value.into()))
        .collect();
    place.child(
        "monitoring.coreos.com/v1",
        "ServiceMonitor",
        &cluster.name,
        json!({"spec": {
            "selector": {"matchLabels": of_all},
            "endpoints": [{"port": port_name::ADMIN, "path": pod::METRICS_PATH}],
        }}),
    )
}

/// What the Deployments of logic and job have in common: nobody goes before who comes in their place is ready.
pub(super) fn deployment_spec(cluster: &Cluster) -> Value {
    let min_ready = cluster.comet.rollout.min_ready_seconds;
    json!({
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "minReadySeconds": min_ready,
        // The API server wants it to be more than that.
        "progressDeadlineSeconds": min_ready + 600,
    })
}

/// The Secrets with which clients are told.
pub(super) fn auth_secrets(cluster: &Cluster) -> Vec<Mount> {
    let (keys, ca) = match &cluster.auth {
        Auth::Trust => return Vec::new(),
        Auth::Webhook(webhook) => (None, &webhook.ca_secret_ref),
        Auth::Jwt(KeysOf::Secret(secret), jwt) => (Some((secret, JWT_SECRET)), &jwt.ca_secret_ref),
        Auth::Jwt(KeysOf::Keys(secret), jwt) => (Some((secret, JWT_KEYS)), &jwt.ca_secret_ref),
        Auth::Jwt(KeysOf::Url(_), jwt) => (None, &jwt.ca_secret_ref),
    };
    let keys = keys.into_iter().map(|(secret, key)| Mount::secret(JWT, secret, &[key]));
    keys.chain(ca.iter().map(|secret| Mount::secret(AUTH_CA, &secret.name, &["ca.crt"]))).collect()
}

/// The Secret by which our pods know each other.
pub(super) fn internal_tls_secret(cluster: &Cluster) -> Option<Mount> {
    let secret = cluster.internal_tls.as_ref()?;
    Some(Mount::secret(INTERNAL_TLS, secret, &["tls.crt", "tls.key", "ca.crt"]))
}

/// The Secrets with which Kafka is reached.
pub(super) fn kafka_secrets(cluster: &Cluster) -> Vec<Mount> {
    let mut mounts = tls_secrets("kafka", cluster.kafka.tls.as_ref());
    let sasl = cluster.kafka.sasl.iter();
    mounts.extend(sasl.map(|sasl| Mount::secret("kafka-sasl", &sasl.secret, &["username", "password"])));
    mounts
}

/// The Secrets with which Redis is reached.
pub(super) fn redis_secrets(cluster: &Cluster) -> Vec<Mount> {
    let redis = &cluster.redis;
    let login = |what: &str, secret: &String| Mount::secret(what, secret, &["username", "password"]);
    let mut mounts = tls_secrets("redis", redis.tls.as_ref());
    mounts.extend(redis.credentials.iter().map(|secret| login("redis-login", secret)));
    mounts.extend(redis.sentinel_credentials.iter().map(|secret| login("redis-sentinel-login", secret)));
    mounts
}

fn tls_secrets(of: &str, tls: Option<&ClientTls>) -> Vec<Mount> {
    let Some(tls) = tls else {
        return Vec::new();
    };
    let ca = tls.ca.iter().map(|secret| Mount::secret(&format!("{of}-ca"), secret, &["ca.crt"]));
    let certificate = tls
        .certificate
        .iter()
        .map(|secret| Mount::secret(&format!("{of}-certificate"), secret, &["tls.crt", "tls.key"]));
    ca.chain(certificate).collect()
}

/// The Secret of a token that may push everything: the token for the user, its hash for logic. To be posted once, never
/// applied: nobody but the user reads it back.
pub fn push_token_secret(cluster: &Cluster, facts: &Facts, token: &str) -> Secret {
    let hash: String = Sha256::digest(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    let file = format!("[[token]]\nname = \"{}\"\nsha256 = \"{hash}\"\nroutes = [\"*\"]\n", cluster.name);
    Secret {
        metadata: ObjectMeta {
            name: Some(cluster.push_token.secret.clone()),
            namespace: Some(cluster.namespace.clone()),
            labels: Some(meta::labels(cluster, Some(Component::Logic))),
            owner_references: Some(vec![facts.owner.clone()]),
            ..ObjectMeta::default()
        },
        type_: Some("Opaque".to_owned()),
        string_data: Some([(pod::TOKEN_KEY.to_owned(), token.to_owned()), (pod::TOKENS_FILE.to_owned(), file)].into()),
        ..Secret::default()
    }
}
