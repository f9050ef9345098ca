//! Who acts: of several operators the one that holds the Lease.
//!
//! Every write names the `resourceVersion` it was decided on, so two never take the Lease at once. Others' clocks are not
//! believed: a Lease has expired when *we* saw it unchanged for its duration. A holder counts from before it asked, and
//! stops acting earlier than anyone may take over. Losing the Lease ends no process: a leader that comes back goes on.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

/// Others may take over when the Lease was not renewed for this long.
pub const DURATION: Duration = Duration::from_secs(15);
/// A leader acts for this long after it began its last renewal.
const HOLD: Duration = Duration::from_secs(12);
/// How often the leader renews, and the others look.
const EVERY: Duration = Duration::from_secs(3);
/// How long one look may take.
const PATIENCE: Duration = Duration::from_secs(4);

/// Whether this process may act, now. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Leadership {
    until: Arc<Mutex<Option<Instant>>>,
    gained: Arc<watch::Sender<u64>>,
}

impl Leadership {
    /// Whether this process may act: ask before every write.
    pub fn holds(&self) -> bool {
        self.until.lock().is_some_and(|until| Instant::now() < until)
    }

    /// A number that grows each time this process becomes the leader.
    pub fn gained(&self) -> watch::Receiver<u64> {
        self.gained.subscribe()
    }

    /// A process that needs no Lease: for tests.
    #[cfg(test)]
    pub(crate) fn always() -> Self {
        let leadership = Self::default();
        leadership.renewed(Instant::now() + Duration::from_secs(86_400));
        leadership
    }

    fn renewed(&self, until: Instant) {
        let held = self.holds();
        *self.until.lock() = Some(until);
        if !held {
            tracing::info!("this operator leads");
            self.gained.send_modify(|times| *times += 1);
        }
    }

    fn lost(&self) {
        if self.given_up() {
            tracing::warn!("another operator leads");
        }
    }

    /// Whether it held until now.
    fn given_up(&self) -> bool {
        self.until.lock().take().is_some_and(|until| Instant::now() < until)
    }
}

/// The Lease as another's, and since when we have seen it so.
#[derive(Debug)]
struct Others {
    spec: LeaseSpec,
    since: Instant,
}

/// One operator's part in the election.
pub struct Election {
    api: Api<Lease>,
    name: String,
    identity: String,
    others: Option<Others>,
    leadership: Leadership,
    metric: prometheus_client::metrics::gauge::Gauge,
}

impl Election {
    /// `identity` is different for every process, also for one that is restarted in the same pod.
    pub fn new(
        api: Api<Lease>,
        name: &str,
        identity: String,
        metric: prometheus_client::metrics::gauge::Gauge,
    ) -> Self {
        let (name, leadership) = (name.to_owned(), Leadership::default());
        Self { api, name, identity, others: None, leadership, metric }
    }

    /// What the rest of the process asks.
    pub fn leadership(&self) -> Leadership {
        self.leadership.clone()
    }

    /// Takes part until `shutdown`, then gives the Lease back.
    pub async fn run(mut self, shutdown: runtime::Shutdown) {
        let stop = shutdown.begun();
        tokio::pin!(stop);
        loop {
            let began = Instant::now();
            match tokio::time::timeout(PATIENCE, self.turn()).await {
                Ok(Ok(true)) => self.leadership.renewed(began + HOLD),
                Ok(Ok(false)) => self.leadership.lost(),
                Ok(Err(error)) => tracing::warn!(%error, lease = self.name, "cannot read or write the lease"),
                Err(_) => tracing::warn!(lease = self.name, "the API server takes too long for the lease"),
            }
            self.metric.set(i64::from(self.leadership.holds()));
            tokio::select! {
                () = &mut stop => break,
                () = tokio::time::sleep(EVERY) => {}
            }
        }
        if self.leadership.given_up() {
            tracing::info!(lease = self.name, "this operator stops and hands the lead over");
            match tokio::time::timeout(PATIENCE, self.release()).await {
                Ok(Ok(())) => tracing::info!(lease = self.name, "gave the lease back"),
                Ok(Err(error)) => tracing::warn!(%error, lease = self.name, "cannot give the lease back"),
                Err(_) => tracing::warn!(lease = self.name, "cannot give the lease back in time"),
            }
        }
    }

    /// Looks once; whether the Lease is ours now.
    async fn turn(&mut self) -> kube::Result<bool> {
        let Some(lease) = self.api.get_opt(&self.name).await? else {
            let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(self.taken(None)) };
            return taken(self.api.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        if holder != self.identity && !holder.is_empty() && !self.expired(&spec) {
            return Ok(false);
        }
        let lease = Lease { spec: Some(self.taken(Some(&spec))), ..lease };
        taken(self.api.replace(&self.name, &PostParams::default(), &lease).await)
    }

    /// Whether another's Lease has not changed for its duration, as seen from here.
    fn expired(&mut self, spec: &LeaseSpec) -> bool {
        let seen = self.others.take().filter(|others| others.spec == *spec);
        let others = seen.unwrap_or_else(|| Others { spec: spec.clone(), since: Instant::now() });
        let lasts = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let expired = others.since.elapsed() >= lasts.map_or(DURATION, Duration::from_secs);
        self.others = Some(others);
        expired
    }

    /// The Lease as ours; `before` is what it was.
    fn taken(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = Some(MicroTime(Timestamp::now()));
        let ours = before.filter(|spec| spec.holder_identity.as_ref() == Some(&self.identity));
        let times = before.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: ours.map_or(now.clone(), |spec| spec.acquire_time.clone()),
            renew_time: now,
            lease_transitions: Some(if before.is_some() && ours.is_none() { times + 1 } else { times }),
            ..LeaseSpec::default()
        }
    }

    async fn release(&self) -> kube::Result<()> {
        let lease = self.api.get(&self.name).await?;
        let mut spec = lease.spec.clone().unwrap_or_default();
        if spec.holder_identity.as_ref() == Some(&self.identity) {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            let lease = Lease { spec: Some(spec), ..lease };
            self.api.replace(&self.name, &PostParams::default(), &lease).await?;
        }
        Ok(())
    }
}

/// Another was faster: not an error.
fn taken(written: kube::Result<Lease>) -> kube::Result<bool> {
    match written {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
