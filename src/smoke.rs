//! `imcluster smoke`: makes an ImCluster, waits until it is Ready, pushes one message through it and removes it again,
//! whatever happened. `helm test` runs it as a Job; from a shell it takes the kubeconfig.
//!
//! What a push is, is [`e2e::smoke`]'s; here is what it takes of the Kubernetes API.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use e2e::smoke::{Route, one_push};
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, PostParams, Preconditions};
use kube::{Client, Error, ResourceExt};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

/// On what this command makes: what a run that was killed has left is known by it.
const MADE_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "imcluster-smoke");
/// How often the ImCluster is looked at.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a client tries to connect, and a push may take, once the ImCluster is Ready.
const PATIENCE: Duration = Duration::from_secs(30);

/// Makes the ImCluster of a file, waits until it is Ready, pushes one message through it, removes it.
#[derive(Debug, clap::Parser)]
#[command(name = "imcluster smoke", version)]
pub struct Config {
    /// The ImCluster to make, as YAML. Its namespace has to be one that the operator watches.
    #[arg(long, value_name = "FILE")]
    cluster: PathBuf,
    /// The push token in clear: the counterpart of what `spec.push.tokensSecretRef` names.
    #[arg(long, value_name = "FILE")]
    token_file: PathBuf,
    /// How long it may take to be Ready, and again to be gone.
    #[arg(long, value_name = "DURATION", default_value = "4m", value_parser = runtime::duration::parse)]
    timeout: Duration,
}

/// Runs the command.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let read = |path: &PathBuf| std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()));
    let cluster: DynamicObject =
        serde_saphyr::from_str(&read(&config.cluster)?).with_context(|| config.cluster.display().to_string())?;
    let token = read(&config.token_file)?.trim_end().to_owned();
    let client = Client::try_default().await.context("no Kubernetes: is there a kubeconfig, or a pod around this?")?;
    let namespace = cluster.namespace().unwrap_or_else(|| client.default_namespace().to_owned());
    let route = Route {
        clients: format!("ws://{}-comet-public.{namespace}:3102/sub", cluster.name_any()),
        backends: format!("{}-logic.{namespace}:3111", cluster.name_any()),
        host: None,
        token,
    };
    let (mut told, mut left) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let push = async {
        let took = one_push(&route, PATIENCE).await?;
        println!("one push arrived after {} ms", took.as_millis());
        Ok(())
    };
    let interrupted = async {
        tokio::select! { _ = told.recv() => {}, _ = left.recv() => {} }
    };
    smoke(&imclusters(client, &namespace), cluster, config.timeout, push, interrupted).await
}

fn imclusters(client: Client, namespace: &str) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("imcluster.dev", "v1alpha1", "ImCluster");
    Api::namespaced_with(client, namespace, &ApiResource::from_gvk_with_plural(&kind, "imclusters"))
}

/// Makes it, waits for Ready, does `push`, and removes it also when one of these failed or was interrupted.
async fn smoke(
    api: &Api<DynamicObject>,
    mut cluster: DynamicObject,
    timeout: Duration,
    push: impl Future<Output = anyhow::Result<()>>,
    interrupted: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let name = cluster.name_any();
    if let Some(left) = api.get_opt(&name).await? {
        let ours = left.labels().get(MADE_BY.0).is_some_and(|value| value == MADE_BY.1);
        ensure!(ours, "ImCluster {name} exists and was not made by this command: use another name, or delete it");
        println!("removing ImCluster {name}, which an earlier run has left");
        remove(api, &left, timeout).await?;
    }
    cluster.labels_mut().insert(MADE_BY.0.to_owned(), MADE_BY.1.to_owned());
    let made =
        api.create(&PostParams::default(), &cluster).await.with_context(|| format!("making ImCluster {name}"))?;
    println!("made ImCluster {name}");
    let tried = tokio::select! {
        tried = async { ready(api, &made, timeout).await?; push.await } => tried,
        () = interrupted => Err(anyhow::anyhow!("interrupted")),
    };
    let removed = remove(api, &made, timeout).await;
    tried?;
    removed?;
    println!("removed ImCluster {name}");
    Ok(())
}

/// Waits until the condition Ready is True at the generation that was made.
async fn ready(api: &Api<DynamicObject>, made: &DynamicObject, timeout: Duration) -> anyhow::Result<()> {
    let (name, began, mut said) = (made.name_any(), Instant::now(), String::new());
    loop {
        let now = api.get(&name).await.with_context(|| format!("looking at ImCluster {name}"))?;
        ensure!(now.uid() == made.uid(), "somebody else has replaced ImCluster {name}");
        if is_ready(&now) {
            println!("Ready after {} s", began.elapsed().as_secs());
            return Ok(());
        }
        let conditions = conditions(&now);
        if said != conditions {
            println!("not Ready: {conditions}");
            said = conditions;
        }
        if began.elapsed() >= timeout {
            bail!("ImCluster {name} is not Ready after {} s: {said}", timeout.as_secs());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn is_ready(cluster: &DynamicObject) -> bool {
    let is = |condition: &Value| condition["type"] == "Ready" && condition["status"] == "True";
    let of_this = |condition: &Value| condition["observedGeneration"].as_i64() == cluster.metadata.generation;
    listed(cluster).iter().any(|condition| is(condition) && of_this(condition))
}

fn listed(cluster: &DynamicObject) -> &[Value] {
    cluster.data["status"]["conditions"].as_array().map_or(&[], Vec::as_slice)
}

/// Every condition, as a person reads them in one line.
fn conditions(cluster: &DynamicObject) -> String {
    let text = |condition: &Value, field: &str| condition[field].as_str().unwrap_or_default().to_owned();
    let line = |condition: &Value| {
        let [kind, status, reason, message] =
            ["type", "status", "reason", "message"].map(|field| text(condition, field));
        format!("{kind}={status} {reason} ({message})")
    };
    match listed(cluster) {
        [] => "no condition yet; does the operator run, and does it watch this namespace?".to_owned(),
        some => some.iter().map(line).collect::<Vec<_>>().join("; "),
    }
}

/// Deletes it and waits until it and everything it owned is gone.
async fn remove(api: &Api<DynamicObject>, cluster: &DynamicObject, timeout: Duration) -> anyhow::Result<()> {
    let (name, began) = (cluster.name_any(), Instant::now());
    let ours = Preconditions { uid: cluster.uid(), ..Preconditions::default() };
    match api.delete(&name, &DeleteParams::foreground().preconditions(ours)).await {
        Ok(_) => {}
        Err(Error::Api(status)) if status.code == 404 || status.code == 409 => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("removing ImCluster {name}: delete it by hand")),
    }
    while api.get_opt(&name).await?.is_some_and(|now| now.uid() == cluster.uid()) {
        ensure!(began.elapsed() < timeout, "ImCluster {name} is not gone {} s after its deletion", timeout.as_secs());
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
