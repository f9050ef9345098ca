//! A primary, a replica and three sentinels that make the replica the primary when the primary is gone.

use std::time::Duration;

use anyhow::Context;
use tempfile::TempDir;

use super::{Redis, ask, server};
use crate::child::Child;
use crate::eventually;
use crate::host::Host;
use crate::kafka::fill;
use crate::os;
use crate::ports::Port;

const TEMPLATE: &str = include_str!("../../redis/sentinel.conf");
const NAME: &str = "goim";
/// How many sentinels, of which two must agree.
pub const SENTINELS: usize = 3;
/// Sentinels ask a primary for its replicas only every 10 s.
const READY: Duration = Duration::from_secs(60);

/// The five processes. A failover takes 2 to 15 s.
#[derive(Debug)]
pub struct Sentinel {
    primary: Redis,
    replica: Redis,
    sentinels: Vec<(Child, Port)>,
    _scratch: TempDir,
}

impl Redis {
    async fn replication(&self) -> anyhow::Result<String> {
        self.cli(&["info", "replication"]).await
    }
}

impl Sentinel {
    /// Starts them and waits until the replica is in step and every sentinel knows it and the other two.
    ///
    /// # Errors
    /// When Redis is missing (the text says what to install) or they do not find each other.
    pub async fn start() -> anyhow::Result<Self> {
        let here = Host::loopback();
        Self::start_at([&here, &here], [&here; SENTINELS]).await
    }

    /// The same with the primary, the replica and each sentinel at its host.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_at(servers: [&Host; 2], sentinels: [&Host; SENTINELS]) -> anyhow::Result<Self> {
        let [first, second] = servers;
        let primary = Redis::launch("redis", first, |port, _| Ok((format!("port {}\n", port.number()), None))).await?;
        let master = format!("{} {}", first.address(), primary.port.number());
        let replica = Redis::launch("redis-replica", second, |port, _| {
            Ok((format!("port {}\nreplicaof {master}\n", port.number()), None))
        })
        .await?;
        let scratch = tempfile::Builder::new().prefix("imcluster-sentinel-").tempdir()?;
        let mut watching = Vec::new();
        for (host, number) in sentinels.into_iter().zip(1..) {
            let port = host.port()?;
            let config = scratch.path().join(format!("sentinel{number}.conf"));
            let values = [
                ("name", NAME.to_owned()),
                ("host", host.address().to_string()),
                ("port", port.number().to_string()),
                ("dir", scratch.path().display().to_string()),
                ("primary", master.clone()),
            ];
            std::fs::write(&config, fill(TEMPLATE, &values)).context("write a sentinel's file")?;
            watching.push((server(&format!("sentinel{number}"), host, config, &["--sentinel"])?, port));
        }
        let all = Self { primary, replica, sentinels: watching, _scratch: scratch };
        eventually(READY, "the sentinels to know everybody", || all.know_each_other()).await?;
        Ok(all)
    }

    async fn know_each_other(&self) -> anyhow::Result<()> {
        let link = self.replica.replication().await?;
        anyhow::ensure!(link.contains("master_link_status:up"), "the replica is not in step");
        for (_, port) in &self.sentinels {
            let info = ask(port, &[], &["info", "sentinel"]).await?;
            anyhow::ensure!(info.contains("slaves=1,sentinels=3"), "a sentinel says {info}");
        }
        Ok(())
    }

    /// The name the sentinels know the primary by.
    pub fn name(&self) -> &'static str {
        NAME
    }

    /// `host:port` of every sentinel.
    pub fn addresses(&self) -> Vec<String> {
        self.sentinels.iter().map(|(_, port)| port.address().to_string()).collect()
    }

    /// The server that was the primary at the start.
    pub fn first(&self) -> &Redis {
        &self.primary
    }

    /// The server that was the replica at the start.
    pub fn second(&self) -> &Redis {
        &self.replica
    }

    /// One of the sentinels' processes, counted from 0.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn sentinel(&self, index: usize) -> &Child {
        &self.sentinels[index].0
    }

    /// Kills the primary; once the other one has taken over and this long after, starts it again and waits until it
    /// follows. Returns when the other one had taken over, by [`os::monotonic`].
    ///
    /// # Errors
    /// When nobody takes over, or the old one does not follow.
    pub async fn fail_over(&self, dead: Duration) -> anyhow::Result<Duration> {
        let (old, heir) = self.both().await?;
        old.kill();
        eventually(READY, "the other one to be the primary", || async {
            let now = self.primary().await?;
            anyhow::ensure!(now == heir.address(), "{now} still is");
            Ok(())
        })
        .await?;
        let taken_over = os::monotonic();
        tokio::time::sleep(dead).await;
        old.restart().await?;
        self.agree().await?;
        Ok(taken_over)
    }

    /// Freezes the primary for so long, whatever the sentinels make of it, and waits until one of the two follows the
    /// other.
    ///
    /// # Errors
    /// When neither does.
    pub async fn freeze(&self, lasts: Duration) -> anyhow::Result<()> {
        let (primary, _) = self.both().await?;
        primary.stop();
        tokio::time::sleep(lasts).await;
        primary.cont();
        self.agree().await
    }

    /// Waits until the sentinels' primary is one in its own eyes, and the other one follows it.
    ///
    /// # Errors
    /// When that does not come about.
    pub async fn agree(&self) -> anyhow::Result<()> {
        eventually(READY, "one Redis to follow the other", || async {
            let (primary, replica) = self.both().await?;
            let (leads, follows) = (primary.replication().await?, replica.replication().await?);
            let port = format!("master_port:{}", primary.port.number());
            anyhow::ensure!(leads.contains("role:master"), "{leads}");
            anyhow::ensure!(follows.contains(&port) && follows.contains("master_link_status:up"), "{follows}");
            Ok(())
        })
        .await
    }

    /// The primary and its replica, as the sentinels see it.
    ///
    /// # Errors
    /// When none answers.
    pub async fn both(&self) -> anyhow::Result<(&Redis, &Redis)> {
        let now = self.primary().await?;
        let both = (&self.primary, &self.replica);
        Ok(if both.0.address() == now { both } else { (both.1, both.0) })
    }

    /// Who the first living sentinel says is the primary, as `host:port`.
    ///
    /// # Errors
    /// When none answers.
    pub async fn primary(&self) -> anyhow::Result<String> {
        let alive = self.sentinels.iter().find(|(child, _)| child.exited().is_none()).context("no sentinel is left")?;
        let answer = ask(&alive.1, &[], &["sentinel", "get-master-addr-by-name", NAME]).await?;
        let mut lines = answer.lines();
        let (host, port) = lines.next().zip(lines.next()).with_context(|| format!("a sentinel says {answer:?}"))?;
        Ok(format!("{host}:{port}"))
    }
}
