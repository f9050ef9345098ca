//! Does what a plan says. Every write asks first whether this operator still leads, and carries what it was decided on.
//!
//! Never adopts: what is not in the caches is asked for, and what has a child's name without being ours is left alone.

use std::collections::HashMap;

use k8s_openapi::api::core::v1 as core;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams, Preconditions,
};
use kube::{Api, Client};
use parking_lot::Mutex;
use runtime::pod::{CONFIG_ANNOTATION, Component, DRAIN_ANNOTATION};
use serde_json::{Value, json};

use crate::build::push_token_secret;
use crate::crd::{ImCluster, ImClusterStatus};
use crate::lease::Leadership;
use crate::observe::object::{MANAGER, hash};
use crate::observe::pod::{DRAIN_BEGAN, DRAIN_CLIENTS};
use crate::observe::{Key, Observed, Seen};
use crate::plan::{Action, Apply, Delete, Plan};

/// Who holds `replicas` when our body does not name them.
const REPLICAS_MANAGER: &str = "imcluster-operator-replicas";
/// Who writes the status.
const STATUS_MANAGER: &str = "imcluster-operator-status";

/// Why a plan was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another operator acts now.
    #[error("another operator leads")]
    NotLeading,
    /// The API server did not do it.
    #[error("{what}: {error}")]
    Api {
        /// What was tried.
        what: String,
        /// What came back.
        #[source]
        error: kube::Error,
    },
}

impl Error {
    fn api(what: impl std::fmt::Display) -> impl FnOnce(kube::Error) -> Self {
        let what = what.to_string();
        move |error| Self::Api { what, error }
    }
}

/// What came of the applies.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Objects that are somebody else's.
    pub foreign: Vec<Key>,
    /// Objects that the API server would not take.
    pub refused: Vec<(Key, String)>,
    /// Whether anything else went wrong and is to be tried again.
    pub failed: Option<Error>,
}

/// What was applied last, and how the object looked before and after.
#[derive(Clone, Debug, PartialEq)]
struct Applied {
    body: String,
    before: Option<String>,
    after: String,
}

/// What was reported last: the version of the ImCluster before, and the status.
type Reported = (Option<String>, ImClusterStatus);

/// Writes to the API server.
pub struct Hands {
    client: Client,
    leadership: Leadership,
    applied: Mutex<HashMap<(String, Key), Applied>>,
    reported: Mutex<HashMap<String, Reported>>,
}

impl Hands {
    /// Hands that act only while `leadership` holds.
    pub fn new(client: Client, leadership: Leadership) -> Self {
        Self { client, leadership, applied: Mutex::default(), reported: Mutex::default() }
    }

    /// Forgets a cluster that is gone.
    pub fn forget(&self, uid: &str) {
        self.applied.lock().retain(|(owner, _), _| owner != uid);
        self.reported.lock().remove(uid);
    }

    fn leads(&self) -> Result<(), Error> {
        if self.leadership.holds() { Ok(()) } else { Err(Error::NotLeading) }
    }

    fn api(&self, observed: &Observed, object: &DynamicObject) -> (Api<DynamicObject>, ApiResource) {
        let types = object.types.clone().unwrap_or_default();
        let kind = resource(&types.api_version, &types.kind);
        (Api::namespaced_with(self.client.clone(), observed.namespace(), &kind), kind)
    }

    /// Applies in order. What the API server refuses holds up the stages after it and nothing else.
    pub async fn apply(&self, plan: &Plan, observed: &Observed) -> Outcome {
        let mut outcome = Outcome::default();
        let mut reached = None;
        for apply in &plan.applies {
            if reached.is_some_and(|stage| stage < apply.stage) {
                break;
            }
            match self.apply_one(apply, observed).await {
                Ok(true) => {}
                Ok(false) => outcome.foreign.push(apply.key.clone()),
                Err(Error::Api { error: kube::Error::Api(status), .. }) if matches!(status.code, 400 | 422) => {
                    outcome.refused.push((apply.key.clone(), status.message.clone()));
                    reached = Some(apply.stage);
                }
                Err(error) => {
                    reached = Some(apply.stage);
                    outcome.failed.get_or_insert(error);
                }
            }
        }
        outcome
    }

    /// Whether the object is ours and as it should be now.
    async fn apply_one(&self, apply: &Apply, observed: &Observed) -> Result<bool, Error> {
        let owner = observed.uid().to_owned();
        let body = serde_json::to_value(&apply.object).unwrap_or_default();
        let body_hash = hash(&body);
        let memory = self.applied.lock().get(&(owner.clone(), apply.key.clone())).cloned();
        let is_as_it_was = |seen: &Seen| !is_needed(memory.as_ref(), &body_hash, seen, &body);
        let cached = observed.ours(&apply.key.kind, &apply.key.name).filter(|_| apply.uid.is_some());
        if apply.release.is_none() && cached.is_some_and(is_as_it_was) {
            return Ok(true);
        }
        self.leads()?;
        let (api, kind) = self.api(observed, &apply.object);
        let (mut uid, mut release, mut replicas) = (apply.uid.clone(), apply.release, apply.first_replicas);
        let mut before = cached.map(|seen| seen.resource_version.clone());
        if uid.is_none() {
            let found = api.get_opt(&apply.key.name).await.map_err(Error::api(format!("cannot read {}", apply.key)))?;
            if let Some(found) = found.map(|found| Seen::of(&found, &kind)) {
                if found.owner.as_deref() != Some(&owner) {
                    return Ok(false);
                }
                if found.is_deleting || is_as_it_was(&found) {
                    return Ok(true);
                }
                // The caches are behind: it is there and ours.
                replicas = None;
                release = release.or_else(|| to_release(&found, &body));
                before = Some(found.resource_version);
                uid = Some(found.uid);
            }
        }
        if let (Some(replicas), Some(uid)) = (release, &uid) {
            let held = json!({
                "apiVersion": kind.api_version, "kind": kind.kind,
                "metadata": { "name": apply.key.name, "uid": uid }, "spec": { "replicas": replicas },
            });
            let params = PatchParams::apply(REPLICAS_MANAGER).force();
            let held = api.patch(&apply.key.name, &params, &Patch::Apply(held)).await;
            held.map_err(Error::api(format!("cannot keep the replicas of {}", apply.key)))?;
        }
        let mut sent = body;
        if let Some(uid) = &uid {
            sent["metadata"]["uid"] = json!(uid);
        } else if let Some(replicas) = replicas {
            sent["spec"]["replicas"] = json!(replicas);
        }
        let params = PatchParams::apply(MANAGER).force();
        let mut after = api.patch(&apply.key.name, &params, &Patch::Apply(sent.clone())).await;
        if uid.is_some() && matches!(&after, Err(kube::Error::Api(status)) if status.code == 422) {
            // An apply leaves what somebody else put into a list, such as another port by our port's name. A merge patch
            // replaces lists as a whole (RFC 7386).
            let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
            after = api.patch(&apply.key.name, &params, &Patch::Merge(sent)).await;
        }
        let after = Seen::of(&after.map_err(Error::api(format!("cannot apply {}", apply.key)))?, &kind);
        tracing::debug!(object = %apply.key, changed = before.as_ref() != Some(&after.resource_version), "applied");
        let before = before.filter(|before| *before != after.resource_version);
        self.applied
            .lock()
            .insert((owner, apply.key.clone()), Applied { body: body_hash, before, after: after.fingerprint });
        Ok(true)
    }

    /// Deletes what nothing needs. What is gone already, or is another by now, is no failure.
    pub async fn delete(&self, deletes: &[Delete], observed: &Observed) -> Result<(), Error> {
        for delete in deletes {
            self.leads()?;
            let kind = resource(&delete.api_version, &delete.key.kind);
            let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), observed.namespace(), &kind);
            let precondition = Preconditions { uid: Some(delete.uid.clone()), resource_version: None };
            let params = DeleteParams::background().preconditions(precondition);
            match api.delete(&delete.key.name, &params).await {
                Ok(_) => tracing::info!(object = %delete.key, "deleted: nothing needs it"),
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                Err(error) => return Err(Error::api(format!("cannot delete {}", delete.key))(error)),
            }
            self.applied.lock().remove(&(observed.uid().to_owned(), delete.key.clone()));
        }
        Ok(())
    }

    /// Makes the push token's Secret, unless it is there.
    pub async fn make_push_token(&self, plan: &Plan, observed: &Observed) -> Result<(), Error> {
        let Some(made) = &plan.push_token else { return Ok(()) };
        self.leads()?;
        let token: String = rand::random::<[u8; 32]>().iter().map(|byte| format!("{byte:02x}")).collect();
        let secret = push_token_secret(&made.0, &made.1, &token);
        let api: Api<core::Secret> = Api::namespaced(self.client.clone(), observed.namespace());
        match api.create(&PostParams { field_manager: Some(MANAGER.to_owned()), dry_run: false }, &secret).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(error) => Err(Error::api("cannot make the push token's secret")(error)),
        }
    }

    /// Tells pods to read their live settings.
    pub async fn reload(&self, plan: &Plan, observed: &Observed) -> Result<(), Error> {
        for reload in &plan.reloads {
            let annotations = json!({ CONFIG_ANNOTATION: reload.hash });
            self.annotate(observed, &reload.pod, &reload.uid, annotations).await?;
        }
        Ok(())
    }

    async fn annotate(&self, observed: &Observed, pod: &str, uid: &str, annotations: Value) -> Result<bool, Error> {
        self.leads()?;
        let pods: Api<core::Pod> = Api::namespaced(self.client.clone(), observed.namespace());
        let patch = json!({ "metadata": { "uid": uid, "annotations": annotations } });
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        done(pods.patch(pod, &params, &Patch::Merge(patch)).await, format!("cannot annotate pod {pod}"))
    }

    /// Does the one disruptive thing; whether it was done. What it was decided on may be no longer so: then it is not.
    pub async fn act(&self, plan: &Plan, observed: &Observed) -> Result<bool, Error> {
        let Some(action) = &plan.action else { return Ok(false) };
        self.leads()?;
        match action {
            Action::DrainLease { pod, uid, n, began, clients } => {
                let annotations = json!({
                    DRAIN_ANNOTATION: n.to_string(),
                    DRAIN_BEGAN: began.to_string(),
                    DRAIN_CLIENTS: clients.to_string(),
                });
                self.annotate(observed, pod, uid, annotations).await
            }
            Action::LowerPartition { to, resource_version, .. } => {
                let name = Component::Comet.of(observed.name());
                let is_comet = |apply: &&Apply| apply.key.kind == "StatefulSet" && apply.key.name == name;
                let Some(comet) = plan.applies.iter().find(is_comet) else { return Ok(false) };
                let (api, _) = self.api(observed, &comet.object);
                let mut body = serde_json::to_value(&comet.object).unwrap_or_default();
                body["metadata"]["uid"] = json!(comet.uid);
                body["metadata"]["resourceVersion"] = json!(resource_version);
                body["spec"]["updateStrategy"]["rollingUpdate"]["partition"] = json!(to);
                let params = PatchParams::apply(MANAGER).force();
                let lowered = api.patch(&comet.key.name, &params, &Patch::Apply(body)).await;
                done(lowered, format!("cannot lower the partition of {}", comet.key))
            }
            Action::ScaleIn { to, resource_version, .. } | Action::ScaleOut { to, resource_version } => {
                let name = Component::Comet.of(observed.name());
                let kind = crate::observe::live::stateful_sets();
                let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), observed.namespace(), &kind);
                let patch = json!({ "metadata": { "resourceVersion": resource_version }, "spec": { "replicas": to } });
                let params = PatchParams { field_manager: Some(REPLICAS_MANAGER.to_owned()), ..PatchParams::default() };
                let scaled = api.patch_scale(&name, &params, &Patch::Merge(patch)).await;
                done(scaled, format!("cannot scale {name} to {to}"))
            }
            Action::ForceDelete { pod, uid } => {
                let api: Api<core::Pod> = Api::namespaced(self.client.clone(), observed.namespace());
                let precondition = Preconditions { uid: Some(uid.clone()), resource_version: None };
                let params = DeleteParams::default().grace_period(0).preconditions(precondition);
                done(api.delete(pod, &params).await, format!("cannot delete pod {pod}"))
            }
        }
    }

    /// What is known to be reported, also while the caches have not seen it.
    pub fn reported(&self, cluster: &ImCluster) -> Option<ImClusterStatus> {
        let uid = cluster.metadata.uid.as_deref().unwrap_or_default();
        let reported = self.reported.lock();
        let (before, status) = reported.get(uid)?;
        (*before == cluster.metadata.resource_version).then(|| status.clone())
    }

    /// Reports, if it is news.
    pub async fn report(&self, observed: &Observed, status: &ImClusterStatus) -> Result<bool, Error> {
        let cluster = &observed.cluster;
        if cluster.status.as_ref() == Some(status) {
            return Ok(false);
        }
        self.leads()?;
        let (meta, name) = (&cluster.metadata, observed.name());
        let api: Api<ImCluster> = Api::namespaced(self.client.clone(), observed.namespace());
        let body = json!({
            "apiVersion": "imcluster.dev/v1alpha1", "kind": "ImCluster",
            "metadata": { "name": name, "uid": meta.uid }, "status": status,
        });
        let params = PatchParams::apply(STATUS_MANAGER).force();
        api.patch_status(name, &params, &Patch::Apply(body)).await.map_err(Error::api("cannot write the status"))?;
        let uid = meta.uid.clone().unwrap_or_default();
        self.reported.lock().insert(uid, (meta.resource_version.clone(), status.clone()));
        Ok(true)
    }
}

/// Kind and version as a path knows them.
pub fn resource(api_version: &str, kind: &str) -> ApiResource {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

/// A precondition that no longer holds is no failure: look again.
fn done<T>(written: kube::Result<T>, what: String) -> Result<bool, Error> {
    match written {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
            tracing::info!(what, why = status.message, "the world has moved on, looking again");
            Ok(false)
        }
        Err(error) => Err(Error::api(what)(error)),
    }
}

/// Whether an object has to be applied: the body changed, or somebody changed the object since.
fn is_needed(memory: Option<&Applied>, body_hash: &str, seen: &Seen, body: &Value) -> bool {
    let Some(applied) = memory else { return true };
    let is_stale = applied.before.as_ref() == Some(&seen.resource_version);
    let wanted = body.pointer("/spec/replicas").and_then(Value::as_i64);
    let found = seen.workload.as_ref().map(|workload| i64::from(workload.replicas));
    let is_scaled = wanted.is_some() && found.is_some() && wanted != found;
    applied.body != body_hash || (!is_stale && (applied.after != seen.fingerprint || is_scaled))
}

fn to_release(found: &Seen, body: &Value) -> Option<i32> {
    let workload = found.workload.as_ref()?;
    let is_ours = workload.we_own_replicas && !workload.others_own_replicas;
    (is_ours && body.pointer("/spec/replicas").is_none()).then_some(workload.replicas)
}

#[cfg(test)]
mod tests;
