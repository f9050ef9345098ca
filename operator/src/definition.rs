//! Whether the cluster's definition of `ImCluster` has every field of this operator's. A field that it lacks is dropped by
//! the API server without a word, and what a user wrote there never arrives: so it is said. It stops nothing.
//!
//! Asked is what every account may read, the published schema; a namespaced Role may not read the definition itself.

use std::time::Duration;

use kube::{Client, Resource as _};
use prometheus_client::metrics::gauge::Gauge;
use serde_json::Value;

use crate::crd::{self, ImCluster};

/// Compares again and again, every `pause`, and says what is new. `lacking` is how many fields there are not.
pub async fn follow(client: Client, lacking: Gauge, pause: Duration) {
    let ours = crd::schema();
    let mut said = Vec::new();
    loop {
        match served(&client).await {
            Ok(Some(theirs)) => {
                let found = missing(&ours, &theirs);
                lacking.set(i64::try_from(found.len()).unwrap_or(i64::MAX));
                if found != said {
                    say(&found);
                }
                said = found;
            }
            Ok(None) => tracing::debug!("the API server does not serve ImClusters yet"),
            Err(error) => tracing::warn!(%error, "cannot read the definition of ImCluster, comparing it later"),
        }
        tokio::time::sleep(pause).await;
    }
}

fn say(found: &[String]) {
    if found.is_empty() {
        tracing::info!("the definition of ImCluster in this cluster has every field now");
        return;
    }
    tracing::error!(
        fields = found.join(" "),
        "the definition of ImCluster in this cluster is older than this operator, and the API server drops these \
         fields: upgrade the chart imcluster-crds"
    );
}

/// The schema of `ImCluster` as the API server publishes it; `None` while there is none.
///
/// # Errors
/// When the API server does not answer, or not with a schema.
async fn served(client: &Client) -> kube::Result<Option<Value>> {
    let path = format!("/openapi/v3/apis/{}", ImCluster::api_version(&()));
    let request = http::Request::get(path).header(http::header::ACCEPT, "application/json").body(Vec::new());
    let document: Value = match client.request(request.map_err(kube::Error::HttpError)?).await {
        Ok(document) => document,
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(None),
        Err(error) => return Err(error),
    };
    let schemas = document.pointer("/components/schemas").and_then(Value::as_object);
    let is_ours = |schema: &&Value| {
        let kinds = schema["x-kubernetes-group-version-kind"].as_array();
        kinds.into_iter().flatten().any(|kind| kind["kind"] == *ImCluster::kind(&()))
    };
    Ok(schemas.and_then(|schemas| schemas.values().find(is_ours)).cloned())
}

/// The fields of `ours` that `theirs` drops, by their paths; of an object that it lacks whole, the object alone.
/// `metadata` is not ours to define.
pub fn missing(ours: &Value, theirs: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for part in ["spec", "status"] {
        below(part, &ours["properties"][part], &theirs["properties"][part], &mut found);
    }
    found
}

fn below(path: &str, ours: &Value, theirs: &Value, found: &mut Vec<String>) {
    if ours.is_null() || theirs["x-kubernetes-preserve-unknown-fields"] == true {
        return;
    }
    if theirs.is_null() {
        found.push(path.to_owned());
        return;
    }
    for (name, field) in ours["properties"].as_object().into_iter().flatten() {
        below(&format!("{path}.{name}"), field, &theirs["properties"][name], found);
    }
    for (key, mark) in [("items", "[]"), ("additionalProperties", ".*")] {
        if ours[key].is_object() {
            below(&format!("{path}{mark}"), &ours[key], &theirs[key], found);
        }
    }
}

#[cfg(test)]
mod tests;
