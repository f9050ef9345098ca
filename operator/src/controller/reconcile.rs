//! One look at one ImCluster.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::jiff::Timestamp;
use kube::Resource as _;
use kube::runtime::controller::Action;
use tokio::time::Instant;

use super::scope::{Caches, Guarded, later};
use super::{Context, malformed};
use crate::apply::Error;
use crate::crd::ImCluster;
use crate::metrics::Outcome;
use crate::observe::{Observed, live};
use crate::plan::{self, Plan, plan};

/// How long a look may take.
const DEADLINE: Duration = Duration::from_secs(30);
/// How old a pod's report may be.
const REPORT_AGE: Duration = Duration::from_secs(14);
/// How old it may be while comets change.
const FRESH: Duration = Duration::from_secs(1);
/// How often pods are asked how they are.
const POLL: Duration = Duration::from_secs(15);
/// How long to wait after a failure; doubled with each in a row.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Why a look failed.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// A write.
    #[error(transparent)]
    Write(#[from] Error),
    /// A read.
    #[error("cannot read from the API server: {0}")]
    Read(#[from] kube::Error),
    /// It took too long.
    #[error("not done within {} s", DEADLINE.as_secs())]
    Deadline,
}

/// Looks at one ImCluster, unless another operator leads.
pub async fn look(guarded: Arc<Guarded>, seen: Arc<(Arc<Context>, Arc<Caches>)>) -> Result<Action, Failed> {
    let (context, caches) = (&seen.0, &seen.1);
    if !context.leadership.holds() {
        return Ok(Action::await_change());
    }
    context.metrics.queue.inc();
    let Ok(_turn) = context.turns.acquire().await else { return Ok(Action::await_change()) };
    let began = Instant::now();
    let ended = match &guarded.0 {
        Ok(cluster) => tokio::time::timeout(DEADLINE, look_at(Arc::new(cluster.clone()), context, caches)).await,
        Err(invalid) => tokio::time::timeout(DEADLINE, malformed::report(context, invalid)).await,
    };
    context.metrics.queue.dec();
    let (result, ended) = match ended {
        Ok(Ok(action)) => ("ok", Ok(action)),
        Ok(Err(error)) => ("error", Err(error)),
        Err(_) => ("deadline", Err(Failed::Deadline)),
    };
    context.metrics.reconcile.get_or_create(&Outcome { result }).observe(began.elapsed().as_secs_f64());
    if ended.is_ok() {
        remember(context, guarded.meta().uid.as_deref().unwrap_or_default(), |memory| memory.failures = 0);
    }
    ended
}

/// How long to wait after a failure.
pub fn failed(guarded: Arc<Guarded>, error: &Failed, seen: Arc<(Arc<Context>, Arc<Caches>)>) -> Action {
    let context = &seen.0;
    let meta = guarded.meta();
    if matches!(error, Failed::Write(Error::NotLeading)) {
        return Action::await_change();
    }
    let failures = remember(context, meta.uid.as_deref().unwrap_or_default(), |memory| {
        memory.failures += 1;
        memory.failures
    });
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let name = meta.name.as_deref().unwrap_or_default();
    tracing::warn!(%error, namespace, name, failures, "cannot bring an ImCluster forward, trying again");
    context.metrics.error(match error {
        Failed::Write(_) => "write",
        Failed::Read(_) => "read",
        Failed::Deadline => "deadline",
    });
    later((FIRST_WAIT * 2_u32.pow(failures.min(6) - 1)).min(LONGEST_WAIT))
}

/// Changes what is remembered of a cluster.
pub(super) fn remember<T>(context: &Context, uid: &str, change: impl FnOnce(&mut super::Memory) -> T) -> T {
    change(context.memory.lock().entry(uid.to_owned()).or_default())
}

async fn look_at(cluster: Arc<ImCluster>, context: &Context, caches: &Caches) -> Result<Action, Failed> {
    if cluster.metadata.deletion_timestamp.is_some() {
        // Everything of ours has it as its owner: Kubernetes deletes it.
        let (namespace, name) = place(&cluster);
        context.forget(namespace, name);
        return Ok(Action::await_change());
    }
    let now = Timestamp::now();
    let mut observed = observe(cluster, context, caches, now).await;
    let mut next = plan(&observed, now);
    if next.requeue > 0 || next.action.is_some() {
        // Nothing disruptive is decided from a cache.
        live::refresh(&context.client, &mut observed).await?;
        context.reports.fill(&mut observed.pods, FRESH).await;
        next = plan(&observed, now);
    }
    carry_out(next, observed, context, now).await
}

async fn observe(cluster: Arc<ImCluster>, context: &Context, caches: &Caches, now: Timestamp) -> Observed {
    let (namespace, name) = place(&cluster);
    let mut pods = caches.pods(namespace, name);
    pods.retain(|pod| pod.came_with(&cluster));
    pods.sort_by(|one, other| one.name.cmp(&other.name));
    context.reports.fill(&mut pods, REPORT_AGE).await;
    context.warnings.fill(&context.client, &mut pods, now).await;
    if context.config.everywhere() {
        live::mark_lost(&context.client, &mut pods, now, context.config.node_lost_after).await;
    }
    let uid = cluster.metadata.uid.clone().unwrap_or_default();
    let memory = remember(context, &uid, |memory| {
        memory.place = (namespace.to_owned(), name.to_owned());
        memory.clone()
    });
    let children = caches.children(namespace, name);
    let cluster = match context.hands.reported(&cluster) {
        Some(status) => Arc::new(ImCluster { status: Some(status), ..(*cluster).clone() }),
        None => cluster,
    };
    Observed {
        cluster,
        operand: context.operand.clone(),
        operator_namespace: context.namespace.clone(),
        children,
        foreign: memory.foreign,
        refused: memory.refused,
        pods,
        counted: memory.counted,
        kinds: caches.kinds(),
    }
}

/// Writes, in order: objects, orphans, reloads, the one disruptive action, status, Events.
async fn carry_out(next: Plan, mut observed: Observed, context: &Context, now: Timestamp) -> Result<Action, Failed> {
    let hands = &context.hands;
    let uid = observed.uid().to_owned();
    // An autoscaler that is to go must not answer to the replicas that are written next.
    let (first, last): (Vec<_>, Vec<_>) =
        next.deletes.iter().cloned().partition(|delete| delete.key.kind == "HorizontalPodAutoscaler");
    hands.delete(&first, &observed).await?;
    hands.make_push_token(&next, &observed).await?;
    let outcome = hands.apply(&next, &observed).await;
    let is_clean = outcome.failed.is_none() && outcome.refused.is_empty();
    let mut notes = next.notes.clone();
    let mut status = next.status.clone();
    let is_written = !observed.cluster.spec.paused && !next.applies.is_empty();
    if is_written && (outcome.foreign != observed.foreign || outcome.refused != observed.refused) {
        observed.foreign.clone_from(&outcome.foreign);
        observed.refused.clone_from(&outcome.refused);
        remember(context, &uid, |memory| {
            memory.foreign.clone_from(&outcome.foreign);
            memory.refused.clone_from(&outcome.refused);
        });
        let again = plan(&observed, now);
        (status, notes) = (again.status, again.notes);
    }
    if is_clean {
        hands.delete(&last, &observed).await?;
        hands.reload(&next, &observed).await?;
        if hands.act(&next, &observed).await? {
            notes.extend(next.action_notes.iter().cloned());
            count(next.action.as_ref(), context, now);
        }
    }
    if hands.report(&observed, &status).await? {
        let counts = |status: &crate::crd::ImClusterStatus| {
            let connections = status.comet.as_ref().and_then(|comet| comet.connections);
            (connections, status.job.as_ref().and_then(|job| job.lag))
        };
        if observed.cluster.status.as_ref().map(counts) != Some(counts(&status)) {
            remember(context, &uid, |memory| memory.counted = Some(now.as_second()));
        }
    }
    let (namespace, name) = place(&observed.cluster);
    let held = status.conditions.iter().map(|condition| (condition.type_.clone(), condition.status == "True"));
    context.metrics.read.conditions(namespace, name, held);
    context.events.say(&reference(&observed.cluster), &notes).await;
    if let Some(error) = outcome.failed {
        return Err(error.into());
    }
    let wait = match next.requeue {
        0 => POLL.min(context.config.resync),
        seconds => Duration::from_secs(seconds),
    };
    Ok(later(wait))
}

/// Counts what a drain came to.
fn count(action: Option<&plan::Action>, context: &Context, now: Timestamp) {
    let (drained_since, is_forced) = match action {
        Some(
            plan::Action::LowerPartition { drained_since, is_forced, .. }
            | plan::Action::ScaleIn { drained_since, is_forced, .. },
        ) => (*drained_since, *is_forced),
        _ => return,
    };
    let Some(began) = drained_since else { return };
    let took = u32::try_from((now.as_second() - began).max(0)).unwrap_or(u32::MAX);
    context.metrics.drain.observe(f64::from(took));
    if is_forced {
        context.metrics.forced.inc();
    }
}

fn place(cluster: &ImCluster) -> (&str, &str) {
    let meta = &cluster.metadata;
    (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

/// The ImCluster as an Event's subject.
fn reference(cluster: &ImCluster) -> ObjectReference {
    cluster.object_ref(&())
}
