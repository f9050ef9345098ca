//! One namespace, or the whole cluster: its watches, and the queue of ImClusters to look at.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use k8s_openapi::api::core::v1 as core;
use kube::api::{ApiResource, DynamicObject};
use kube::core::DeserializeGuard;
use kube::runtime::controller::{Action, Config as Queue};
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::watcher::{self, watcher};
use kube::runtime::{Controller, WatchStreamExt as _, predicates};
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::task::{AbortHandle, JoinHandle};

use super::Context;
use super::reconcile::{failed, look};
use crate::apply::resource;
use crate::crd::ImCluster;
use crate::observe::cache::{Cache, Touched, follow};
use crate::observe::{Kinds, Pod, Seen};

/// Kinds that every API server has.
const KINDS: [(&str, &str); 11] = [
    ("v1", "ServiceAccount"),
    ("v1", "Service"),
    ("v1", "ConfigMap"),
    ("rbac.authorization.k8s.io/v1", "Role"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("networking.k8s.io/v1", "Ingress"),
    ("policy/v1", "PodDisruptionBudget"),
    ("autoscaling/v2", "HorizontalPodAutoscaler"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "StatefulSet"),
];
/// Kinds that come with somebody's CRDs. Watched only once the API server shows them.
const HTTP_ROUTE: (&str, &str) = ("gateway.networking.k8s.io/v1", "HTTPRoute");
const SERVICE_MONITOR: (&str, &str) = ("monitoring.coreos.com/v1", "ServiceMonitor");
/// What ImClusters and pods are called in paths and metrics.
const CLUSTERS: &str = "imclusters";
const ALL_PODS: &str = "pods";
/// What we look at: our children, and every cluster's pods.
const CHILDREN: &str = "app.kubernetes.io/managed-by=imcluster-operator";
const PODS: &str = "app.kubernetes.io/name=imcluster";
/// Events that come together make one look.
const TOGETHER: Duration = Duration::from_millis(50);

/// An ImCluster, or what could not be read as one.
pub type Guarded = DeserializeGuard<ImCluster>;

/// A cache and the watch that fills it.
type Watched = (Cache<Seen>, AbortHandle);

/// What a look sees.
pub struct Caches {
    /// One per kind.
    children: Vec<Cache<Seen>>,
    /// Of the optional kinds: the cache and its watch, while the API server has them.
    optional: Mutex<[Option<Watched>; 2]>,
    pods: Cache<Pod>,
}

impl Caches {
    /// The children of one ImCluster.
    pub fn children(&self, namespace: &str, name: &str) -> Vec<Seen> {
        let mut found: Vec<Seen> = self.children.iter().flat_map(|cache| cache.of(namespace, name)).collect();
        for (cache, _) in self.optional.lock().iter().flatten() {
            found.extend(cache.of(namespace, name));
        }
        found
    }

    /// Its pods.
    pub fn pods(&self, namespace: &str, name: &str) -> Vec<Pod> {
        self.pods.of(namespace, name)
    }

    /// Which optional kinds there are and have been listed.
    pub fn kinds(&self) -> Kinds {
        let optional = self.optional.lock();
        let is_there = |index: usize| optional[index].as_ref().is_some_and(|(cache, _)| cache.is_filled());
        Kinds { http_route: is_there(0), service_monitor: is_there(1) }
    }

    /// Waits until everything has been listed once.
    pub async fn filled(&self) {
        for cache in &self.children {
            cache.filled().await;
        }
        self.pods.filled().await;
    }
}

/// One running scope.
pub struct Scope {
    caches: Arc<Caches>,
    queue: JoinHandle<()>,
    watches: Vec<AbortHandle>,
}

impl Scope {
    /// Starts watches and queue for `namespace`, `None` for all.
    pub fn start(context: Arc<Context>, namespace: Option<String>, shutdown: runtime::Shutdown) -> Self {
        let (tell, told) = unbounded();
        let mut watches = Vec::new();
        let mut children = Vec::new();
        let known = &context.metrics.read.watches;
        known.begin(CLUSTERS, true);
        known.begin(ALL_PODS, true);
        for (api_version, kind) in KINDS {
            let (cache, kind) = (Cache::default(), resource(api_version, kind));
            known.begin(&kind.plural, true);
            watches.push(watch(&context, namespace.as_deref(), kind, &cache, &tell));
            children.push(cache);
        }
        let pods = Cache::default();
        let api: Api<core::Pod> = namespaced(&context.client, namespace.as_deref());
        let config = watcher::Config::default().labels(PODS);
        let follow_pods =
            follow(api, config, ALL_PODS.to_owned(), Pod::of, pods.clone(), tell.clone(), context.metrics.clone());
        watches.push(tokio::spawn(follow_pods).abort_handle());
        let caches = Arc::new(Caches { children, optional: Mutex::default(), pods });
        let discover = discover(context.clone(), namespace.clone(), caches.clone(), tell);
        watches.push(tokio::spawn(discover).abort_handle());
        let queue = tokio::spawn(queue(context, namespace, caches.clone(), told, shutdown));
        Self { caches, queue, watches }
    }

    /// Waits until everything has been listed once.
    pub fn filled(&self) -> impl Future<Output = ()> + Send + 'static {
        let caches = self.caches.clone();
        async move { caches.filled().await }
    }

    /// Waits until the last look has ended.
    pub async fn ended(self) {
        if let Err(error) = self.queue.await {
            tracing::error!(%error, "a queue broke");
        }
        self.watches.iter().for_each(AbortHandle::abort);
        for (_, watch) in self.caches.optional.lock().iter().flatten() {
            watch.abort();
        }
    }
}

fn namespaced<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope>,
    K::DynamicType: Default,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// Follows one kind of children in a task of its own.
fn watch(
    context: &Context,
    namespace: Option<&str>,
    kind: ApiResource,
    cache: &Cache<Seen>,
    tell: &UnboundedSender<Touched>,
) -> AbortHandle {
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(context.client.clone(), namespace, &kind),
        None => Api::all_with(context.client.clone(), &kind),
    };
    let config = watcher::Config::default().labels(CHILDREN);
    let name = kind.plural.clone();
    let read = move |object: &DynamicObject| Seen::of(object, &kind);
    let (cache, tell, metrics) = (cache.clone(), tell.clone(), context.metrics.clone());
    tokio::spawn(follow(api, config, name, read, cache, tell, metrics)).abort_handle()
}

/// Finds out, again and again, whether the optional kinds are there.
async fn discover(
    context: Arc<Context>,
    namespace: Option<String>,
    caches: Arc<Caches>,
    tell: UnboundedSender<Touched>,
) {
    loop {
        for (index, (api_version, kind)) in [HTTP_ROUTE, SERVICE_MONITOR].into_iter().enumerate() {
            let there = match context.client.list_api_group_resources(api_version).await {
                Ok(list) => list.resources.iter().any(|resource| resource.kind == kind),
                Err(kube::Error::Api(status)) if status.code == 404 => false,
                Err(error) => {
                    tracing::warn!(%error, kind, "cannot find out whether the API server knows a kind");
                    continue;
                }
            };
            let mut optional = caches.optional.lock();
            match (&optional[index], there) {
                (None, true) => {
                    tracing::info!(kind, "the API server knows it");
                    let (cache, kind) = (Cache::default(), resource(api_version, kind));
                    context.metrics.read.watches.begin(&kind.plural, false);
                    let watch = watch(&context, namespace.as_deref(), kind, &cache, &tell);
                    optional[index] = Some((cache, watch));
                }
                (Some((_, watch)), false) => {
                    tracing::info!(kind, "the API server knows it no more");
                    watch.abort();
                    context.metrics.read.watches.end(&resource(api_version, kind).plural);
                    optional[index] = None;
                }
                _ => {}
            }
        }
        tokio::time::sleep(context.config.resync).await;
    }
}

/// Looks at ImClusters as they are touched, each by one look at a time.
async fn queue(
    context: Arc<Context>,
    namespace: Option<String>,
    caches: Arc<Caches>,
    told: impl futures::Stream<Item = Touched> + Send + 'static,
    shutdown: runtime::Shutdown,
) {
    let api: Api<Guarded> = namespaced(&context.client, namespace.as_deref());
    let (reader, writer) = reflector::store::<Guarded>();
    let metrics = context.metrics.clone();
    // One failing watch must not slow the queue: its errors end here, and it has its own back-off.
    let clusters = watcher(api, watcher::Config::default())
        .default_backoff()
        .reflect(writer)
        .touched_objects()
        .predicate_filter(predicates::generation, kube::runtime::PredicateConfig::default())
        .filter_map(move |found| {
            match &found {
                Ok(_) => metrics.read.watches.well(CLUSTERS),
                Err(error) => {
                    tracing::warn!(%error, kind = CLUSTERS, "watch failed, trying again");
                    metrics.error(&format!("watch {CLUSTERS}"));
                    metrics.read.watches.failed(CLUSTERS, error);
                }
            }
            std::future::ready(found.ok().map(Ok))
        });
    let told = told.map(|(namespace, name)| ObjectRef::new(&name).within(&namespace));
    let gained = context.leadership.gained();
    let gained = futures::stream::unfold(gained, |mut gained| async move {
        gained.changed().await.ok()?;
        Some(((), gained))
    });
    let seen = Arc::new((context.clone(), caches.clone()));
    caches.filled().await;
    let config = Queue::default().debounce(TOGETHER).concurrency(context.config.concurrency);
    Controller::for_stream(clusters, reader)
        .with_config(config)
        .reconcile_on(told)
        .reconcile_all_on(gained)
        .graceful_shutdown_on(shutdown.begun())
        .run(look, failed, seen)
        .for_each(async |ended| match ended {
            Err(kube::runtime::controller::Error::ObjectNotFound(gone)) => {
                context.forget(gone.namespace.as_deref().unwrap_or_default(), &gone.name);
            }
            Err(error) => tracing::debug!(%error, "a look ended"),
            Ok(_) => {}
        })
        .await;
}

/// When to look again by itself.
pub fn later(seconds: Duration) -> Action {
    let jitter = rand::random::<f64>() * 0.1;
    Action::requeue(seconds.mul_f64(1.0 + jitter))
}
