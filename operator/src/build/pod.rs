//! The pods of our three services: the template all share, what the user lays over it, and what stays ours all the same.

use std::collections::BTreeMap;

use k8s_openapi::DeepMerge;
use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec};
use runtime::pod::{self, Component};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{config, meta};
use crate::validate::{Cluster, PUSH_TOKENS, PushToken, Workload};

/// Whom our image and its files belong to.
const USER: i64 = 65532;
/// What stands for the restart hash while it is computed.
const UNKNOWN: &str = "unknown";

/// What is a service's own in its pod template.
pub(super) struct Shape<'a> {
    /// Its pods.
    pub(super) workload: &'a Workload,
    /// Ports besides the admin port, by name.
    pub(super) ports: Vec<(&'static str, u16)>,
    /// Variables besides those of the downward API.
    pub(super) env: Vec<Value>,
    /// Files besides its settings.
    pub(super) mounts: Vec<Mount>,
    /// Whether it asks the API server anything.
    pub(super) has_token: bool,
}

/// A folder in the container and the volume that fills it.
pub(super) struct Mount {
    /// The volume's name.
    pub(super) name: String,
    /// The folder.
    pub(super) path: String,
    /// Where it comes from, such as `{"configMap": {…}}`.
    pub(super) source: Value,
}

impl Mount {
    /// Some keys of a Secret as files in `/etc/imcluster/secrets/<what>`. A key that is missing keeps the pod from
    /// starting, and the kubelet says so in an Event.
    pub(super) fn secret(what: &str, secret: &str, keys: &[&str]) -> Self {
        let items: Vec<Value> = keys.iter().map(|key| json!({"key": key, "path": key})).collect();
        let source = json!({"secret": {"secretName": secret, "items": items}});
        Self { name: what.to_owned(), path: pod::secret_dir(what), source }
    }

    /// The push tokens as hashes, alone. The Secret that we make may come after the pod; that of a user has to be
    /// there: without it logic would let nobody push.
    pub(super) fn push_tokens(tokens: &PushToken) -> Self {
        let mut mount = Self::secret(PUSH_TOKENS, &tokens.secret, &[pod::TOKENS_FILE]);
        if tokens.is_ours {
            mount.source["secret"]["optional"] = json!(true);
        }
        mount
    }

    /// A ConfigMap as a folder, whole.
    pub(super) fn config_map(volume: &str, path: &str, name: &str) -> Self {
        Self { name: volume.to_owned(), path: path.to_owned(), source: json!({"configMap": {"name": name}}) }
    }

    fn of_the_pod() -> Self {
        let field =
            |path: &str, field: &str| json!({"path": path, "fieldRef": {"apiVersion": "v1", "fieldPath": field}});
        let items = [field(pod::ANNOTATIONS_FILE, "metadata.annotations"), field(pod::LABELS_FILE, "metadata.labels")];
        let source = json!({"downwardAPI": {"items": items}});
        Self { name: "pod".to_owned(), path: pod::POD_DIR.to_owned(), source }
    }
}

/// The hash of everything whose change restarts the pods of a service: its settings that are read once, and its template.
/// It names the immutable ConfigMap, and stands on every pod as `imcluster.dev/restart`.
pub fn restart_hash(cluster: &Cluster, component: Component) -> String {
    match component {
        Component::Comet => hash(cluster, &super::comet::shape(cluster)),
        Component::Logic => hash(cluster, &super::logic::shape(cluster)),
        Component::Job => hash(cluster, &super::job::shape(cluster)),
        Component::Kafka | Component::Redis => super::dev::restart_hash(cluster, component),
    }
}

fn hash(cluster: &Cluster, shape: &Shape<'_>) -> String {
    let template = with_hash(cluster, shape, UNKNOWN);
    let config = config::fixed(cluster, shape.workload.component);
    short_hash(&[config.as_bytes(), template.to_string().as_bytes()])
}

/// The first 10 hex digits of the SHA-256 of several parts, each with its length before it.
pub(super) fn short_hash(parts: &[&[u8]]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.finalize().iter().take(5).map(|byte| format!("{byte:02x}")).collect()
}

/// The pod template of a service.
pub(super) fn template(cluster: &Cluster, shape: &Shape<'_>) -> Value {
    with_hash(cluster, shape, &hash(cluster, shape))
}

fn with_hash(cluster: &Cluster, shape: &Shape<'_>, hash: &str) -> Value {
    let ours = ours(cluster, shape, hash);
    let mut merged = ours.clone();
    merged.merge_from(shape.workload.template.clone());
    protect(&mut merged, ours);
    serde_json::to_value(merged).expect("a pod template has only text for keys")
}

/// The template before the user's.
fn ours(cluster: &Cluster, shape: &Shape<'_>, hash: &str) -> PodTemplateSpec {
    let component = shape.workload.component;
    let mut labels = meta::labels(cluster, Some(component));
    labels.insert("app.kubernetes.io/version".to_owned(), cluster.version.clone());
    let mounts = mounts(cluster, shape, hash);
    let volumes: Vec<Value> = mounts.iter().map(Mount::volume).collect();
    let pull_secrets: Vec<Value> = cluster.image.pull_secrets.iter().map(|name| json!({"name": name})).collect();
    let template = json!({
        "metadata": {"labels": labels, "annotations": {pod::RESTART_ANNOTATION: hash}},
        "spec": {
            "serviceAccountName": meta::child_name(cluster, component),
            "automountServiceAccountToken": shape.has_token,
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": shape.workload.grace_seconds,
            "imagePullSecrets": (!pull_secrets.is_empty()).then_some(pull_secrets),
            "securityContext": pod_security(USER),
            "topologySpreadConstraints": spread(&meta::selector(cluster, component)),
            "containers": [container(cluster, shape, &mounts)],
            "volumes": volumes,
        },
    });
    serde_json::from_value(template).expect("our own template is one")
}

fn container(cluster: &Cluster, shape: &Shape<'_>, mounts: &[Mount]) -> Value {
    let component = shape.workload.component;
    let config = format!("{}/{}", pod::CONFIG_DIR, component.config_file());
    let field = |(name, path): (&str, &str)| json!({"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}});
    let env: Vec<Value> = pod::ENV.map(field).into_iter().chain(shape.env.iter().cloned()).collect();
    let ports: Vec<Value> = shape
        .ports
        .iter()
        .chain(&[(pod::port_name::ADMIN, pod::ADMIN)])
        .map(|(name, port)| json!({"name": name, "containerPort": port, "protocol": "TCP"}))
        .collect();
    let mounts: Vec<Value> =
        mounts.iter().map(|mount| json!({"name": mount.name, "mountPath": mount.path, "readOnly": true})).collect();
    let ask = |path: &str| json!({"path": path, "port": pod::port_name::ADMIN, "scheme": "HTTP"});
    json!({
        "name": component.name(),
        "image": cluster.image.reference,
        "imagePullPolicy": cluster.image.pull_policy,
        "args": [component.name(), "--config", config],
        "env": env,
        "ports": ports,
        "resources": shape.workload.resources,
        // A dependency that is not there yet is no reason to start again: only readiness waits for it.
        "startupProbe": {"httpGet": ask(pod::LIVE_PATH), "periodSeconds": 1, "timeoutSeconds": 3, "failureThreshold": 60},
        "readinessProbe": {"httpGet": ask(pod::READY_PATH), "periodSeconds": 1, "timeoutSeconds": 3, "failureThreshold": 2},
        "livenessProbe": {"httpGet": ask(pod::LIVE_PATH), "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 3},
        "securityContext": container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    })
}

fn mounts(cluster: &Cluster, shape: &Shape<'_>, hash: &str) -> Vec<Mount> {
    let component = shape.workload.component;
    let mut mounts = vec![
        Mount::config_map("config", pod::CONFIG_DIR, &config::fixed_name(cluster, component, hash)),
        Mount::config_map("live", pod::LIVE_DIR, &config::live_name(cluster, component)),
        Mount::of_the_pod(),
    ];
    mounts.extend(shape.mounts.iter().map(|mount| Mount {
        name: mount.name.clone(),
        path: mount.path.clone(),
        source: mount.source.clone(),
    }));
    mounts
}

impl Mount {
    fn volume(&self) -> Value {
        let mut volume = self.source.clone();
        volume["name"] = json!(self.name);
        volume
    }
}

/// What the `restricted` profile asks of a pod.
pub(super) fn pod_security(user: i64) -> Value {
    json!({
        "runAsNonRoot": true,
        "runAsUser": user,
        "runAsGroup": user,
        "fsGroup": user,
        "seccompProfile": {"type": "RuntimeDefault"},
    })
}

/// What the `restricted` profile asks of a container, and a root that cannot be written.
pub(super) fn container_security() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "runAsNonRoot": true,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    })
}

/// Over zones, then over nodes, as far as there is room.
fn spread(selector: &BTreeMap<String, String>) -> Value {
    let over = |key: &str| {
        json!({
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": selector},
        })
    };
    json!([over("topology.kubernetes.io/zone"), over("kubernetes.io/hostname")])
}

/// Puts back what no overlay may change: the operator and the process rely on it.
fn protect(merged: &mut PodTemplateSpec, ours: PodTemplateSpec) {
    let ours_meta = ours.metadata.unwrap_or_default();
    let metadata = merged.metadata.get_or_insert_default();
    metadata.labels.get_or_insert_default().extend(ours_meta.labels.unwrap_or_default());
    metadata.annotations.get_or_insert_default().extend(ours_meta.annotations.unwrap_or_default());
    let (Some(spec), Some(ours)) = (&mut merged.spec, ours.spec) else {
        return;
    };
    protect_pod(spec, &ours);
    if let (Some(container), Some(ours)) = (
        spec.containers.iter_mut().find(|container| container.name == ours.containers[0].name),
        ours.containers.first(),
    ) {
        protect_container(container, ours);
    }
}

fn protect_pod(spec: &mut PodSpec, ours: &PodSpec) {
    spec.service_account_name.clone_from(&ours.service_account_name);
    spec.automount_service_account_token = ours.automount_service_account_token;
    spec.termination_grace_period_seconds = ours.termination_grace_period_seconds;
    spec.restart_policy.clone_from(&ours.restart_policy);
    let security = spec.security_context.get_or_insert_default();
    if let Some(ours) = &ours.security_context {
        security.run_as_non_root = ours.run_as_non_root;
        security.run_as_user = ours.run_as_user;
        security.seccomp_profile.clone_from(&ours.seccomp_profile);
    }
    let volumes = spec.volumes.get_or_insert_default();
    for own in ours.volumes.iter().flatten() {
        match volumes.iter_mut().find(|volume| volume.name == own.name) {
            Some(volume) => volume.clone_from(own),
            None => volumes.push(own.clone()),
        }
    }
}

fn protect_container(container: &mut Container, ours: &Container) {
    container.image.clone_from(&ours.image);
    container.image_pull_policy.clone_from(&ours.image_pull_policy);
    container.command.clone_from(&ours.command);
    container.args.clone_from(&ours.args);
    container.ports.clone_from(&ours.ports);
    container.startup_probe.clone_from(&ours.startup_probe);
    container.readiness_probe.clone_from(&ours.readiness_probe);
    container.liveness_probe.clone_from(&ours.liveness_probe);
    container.lifecycle.clone_from(&ours.lifecycle);
    container.security_context.clone_from(&ours.security_context);
    let env = container.env.get_or_insert_default();
    for own in ours.env.iter().flatten() {
        env.retain(|variable| variable.name != own.name);
    }
    // Ours come first, so that the user's may refer to them.
    env.splice(0..0, ours.env.iter().flatten().cloned());
    let mounts = container.volume_mounts.get_or_insert_default();
    for own in ours.volume_mounts.iter().flatten() {
        mounts.retain(|mount| mount.mount_path != own.mount_path);
    }
    mounts.splice(0..0, ours.volume_mounts.iter().flatten().cloned());
}
