//! An ImCluster that this operator cannot read, as one that an older or newer CRD let in. It says so and harms no other.

use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::error_boundary::InvalidObject;
use kube::runtime::controller::Action;
use serde_json::json;

use super::Context;
use super::reconcile::{Failed, remember};
use crate::apply::resource;

/// Reports it once per version of the object.
pub async fn report(context: &Context, invalid: &InvalidObject) -> Result<Action, Failed> {
    let meta = &invalid.metadata;
    let (namespace, name) = (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
    let uid = meta.uid.clone().unwrap_or_default();
    let said = Some(format!("{} {}", meta.generation.unwrap_or(0), invalid.error));
    if remember(context, &uid, |memory| memory.malformed == said) {
        return Ok(Action::await_change());
    }
    tracing::warn!(namespace, name, error = invalid.error, "cannot read an ImCluster, leaving it alone");
    let now = k8s_openapi::jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let text = format!("this operator cannot read the object: {}", invalid.error);
    let condition = |kind: &str| {
        json!({
            "type": kind, "status": "False", "reason": "InvalidSpec", "message": text,
            "observedGeneration": meta.generation, "lastTransitionTime": now,
        })
    };
    let body = json!({
        "apiVersion": "imcluster.dev/v1alpha1", "kind": "ImCluster",
        "metadata": { "name": name, "uid": uid },
        "status": { "observedGeneration": meta.generation, "conditions": [condition("Progressing"), condition("Ready")] },
    });
    let kind = resource("imcluster.dev/v1alpha1", "ImCluster");
    let api: Api<DynamicObject> = Api::namespaced_with(context.client.clone(), &namespace, &kind);
    let params = PatchParams::apply("imcluster-operator-status").force();
    api.patch_status(&name, &params, &Patch::Apply(body)).await?;
    remember(context, &uid, |memory| memory.malformed = said);
    Ok(Action::await_change())
}
