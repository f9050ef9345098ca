//! Three primaries without replicas: enough to be sent from one to the other by slot.

use std::process::Command;
use std::time::Duration;

use anyhow::Context;

use super::{INSTALL, Redis};
use crate::child;
use crate::eventually;
use crate::host::Host;
use crate::ports::Port;

const READY: Duration = Duration::from_secs(60);

/// A Redis Cluster of three.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Redis>,
    _buses: Vec<Port>,
}

impl Cluster {
    /// Starts it and waits until every node says the cluster is whole.
    ///
    /// # Errors
    /// When Redis is missing (the text says what to install) or the nodes do not find each other.
    pub async fn start() -> anyhow::Result<Self> {
        let (mut nodes, mut buses, here) = (Vec::new(), Vec::new(), Host::loopback());
        for number in 1..=3 {
            let bus = Port::free()?;
            let name = format!("redis-cluster{number}");
            let node = Redis::launch(&name, &here, |port, _| {
                let (port, bus) = (port.number(), bus.number());
                let lines = "cluster-enabled yes\ncluster-node-timeout 2000\ncluster-require-full-coverage no\n";
                Ok((format!("port {port}\ncluster-port {bus}\n{lines}"), None))
            });
            nodes.push(node.await?);
            buses.push(bus);
        }
        let mut create = Command::new("redis-cli");
        create.args(["--cluster", "create"]).args(nodes.iter().map(Redis::address)).arg("--cluster-yes");
        child::run(INSTALL, create).await.context("make a cluster of them")?;
        let cluster = Self { nodes, _buses: buses };
        eventually(READY, "the cluster to be whole", || cluster.whole()).await?;
        Ok(cluster)
    }

    async fn whole(&self) -> anyhow::Result<()> {
        for node in &self.nodes {
            let info = node.cli(&["cluster", "info"]).await?;
            anyhow::ensure!(info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3"), "{info}");
        }
        Ok(())
    }

    /// `host:port` of every node.
    pub fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(Redis::address).collect()
    }

    /// One of the nodes, counted from 0. A restarted node remembers its slots, not its data.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn node(&self, index: usize) -> &Redis {
        &self.nodes[index]
    }
}
