//! A network for the processes of a test, whose lines the kernel cuts and holds up where the test wants it.
//!
//! Each process lives on a [`Host`]: a network namespace with one address and one line (veth), to a namespace in the middle
//! that routes. A rule of the middle's routing policy *cuts* two hosts off from each other: the kernel drops their packets
//! and tells nobody, as a broken switch does. Another one leads their packets through [`late`], which holds each back
//! for a moment. (`tc netem` would do both, but is in few kernels.) Nothing has a way out of the machine, and all of it is
//! gone when the value is dropped or the process dies: the namespaces have no name.
//!
//! What the test itself does to them, it does on threads in the middle, whose own lines are never struck.

mod late;

use std::io::Write;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Context;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::child;
use crate::cluster::Inside;
use crate::host::Host;
use crate::os;

/// How long a packet is held back, on its way there and again on its way back: within what every deadline allows, and
/// long beside what things take otherwise.
pub const LATE: Duration = Duration::from_millis(250);
/// The middle's address, on all of its lines.
const MIDDLE: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 1);
/// The last byte of the first host's address.
const FIRST: u8 = 10;
/// The device that [`late`] holds the other end of.
const DEVICE: &str = "late";
const INSTALL: &str = "apt-get install iproute2";
const ROOT: &str = "make a network namespace: run it as root, or in `unshare --user --map-root-user --net`";
const TUN: &str = "open /dev/net/tun: it takes root and a kernel with CONFIG_TUN (modprobe tun)";

/// What befalls a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// Nothing arrives.
    Cut,
    /// Everything arrives a quarter of a second later.
    Late,
}

/// The middle, and the lines to it.
#[derive(Debug)]
pub struct Network {
    middle: Host,
    inside: Inside,
    hosts: AtomicU8,
    rules: AtomicU32,
    holding: JoinHandle<std::io::Result<()>>,
}

impl Network {
    /// Makes it, with nobody in it.
    ///
    /// # Errors
    /// When we are not root or the kernel lacks something; the text says what.
    pub async fn start() -> anyhow::Result<Self> {
        let namespace = Arc::new(os::new_network().context(ROOT)?);
        let inside = Inside::of(namespace.clone())?;
        let middle = Host::apart(MIDDLE, namespace);
        let device = inside.run(async { route_everything().and_then(|()| os::tun(DEVICE).context(TUN)) }).await??;
        let lines = [
            "link set lo up".to_owned(),
            format!("link set {DEVICE} up"),
            format!("route add default dev {DEVICE} table {}", Harm::TABLE),
            // What was held back goes on.
            format!("rule add iif {DEVICE} pref 10 lookup main"),
        ];
        ip(&middle, &lines).await?;
        let holding = inside.threads().spawn(async { late::hold(os::watched(device)?, LATE).await });
        Ok(Self { middle, inside, hosts: AtomicU8::new(FIRST), rules: AtomicU32::new(0), holding })
    }

    /// Adds a host that reaches all others.
    ///
    /// # Errors
    /// When there are too many.
    pub async fn host(&self) -> anyhow::Result<Host> {
        let number = self.hosts.fetch_add(1, Ordering::Relaxed);
        anyhow::ensure!(number >= FIRST, "a network has {} hosts at most", u8::MAX - FIRST + 1);
        let [a, b, c, _] = MIDDLE.octets();
        let (address, namespace) = (Ipv4Addr::new(a, b, c, number), Arc::new(os::new_network().context(ROOT)?));
        let path = format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd());
        let line = [
            format!("link add host{number} type veth peer name eth0 netns {path}"),
            format!("addr add {MIDDLE}/32 dev host{number}"),
            format!("link set host{number} up"),
            format!("route add {address}/32 dev host{number}"),
        ];
        ip(&self.middle, &line).await?;
        let host = Host::apart(address, namespace);
        let end = [
            "link set lo up".to_owned(),
            format!("addr add {address}/32 dev eth0"),
            "link set eth0 up".to_owned(),
            format!("route add {MIDDLE}/32 dev eth0"),
            format!("route add default via {MIDDLE}"),
        ];
        ip(&host, &end).await?;
        Ok(host)
    }

    /// Harms every line between one of these and one of those for so long. What two harms have in common is cut if either
    /// cuts it.
    ///
    /// # Errors
    /// When the kernel does not take the rules.
    pub async fn harm(
        &self,
        harm: Harm,
        these: &[Ipv4Addr],
        those: &[Ipv4Addr],
        lasts: Duration,
    ) -> anyhow::Result<()> {
        let number = self.rules.fetch_add(1, Ordering::Relaxed);
        let pairs = these.iter().flat_map(|one| those.iter().map(move |other| (one, other)));
        let ways = pairs.flat_map(|(one, other)| [(one, other), (other, one)]);
        let rules: Vec<_> = ways.map(|(from, to)| harm.rule(*from, *to, number)).collect();
        let each = |verb| rules.iter().map(|rule| format!("rule {verb} {rule}")).collect::<Vec<_>>();
        ip(&self.middle, &each("add")).await?;
        tokio::time::sleep(lasts).await;
        ip(&self.middle, &each("del")).await
    }

    /// Where to spawn tasks that run in the middle: they reach every host, and hosts reach them.
    pub fn threads(&self) -> &Handle {
        self.inside.threads()
    }

    /// Runs a task in the middle and waits for what it returns.
    ///
    /// # Errors
    /// When the task panicked.
    pub async fn run<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> anyhow::Result<T> {
        self.inside.run(task).await
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.holding.abort();
    }
}

impl Harm {
    /// The routing table in which everything leads through [`late`].
    const TABLE: u32 = 77;

    /// As `ip rule` has it. The lower preference is asked first, and each number is used once, so that harms that overlap
    /// are taken away one by one.
    fn rule(self, from: Ipv4Addr, to: Ipv4Addr, number: u32) -> String {
        match self {
            Self::Cut => format!("from {from} to {to} pref {} blackhole", 1_000 + number % 10_000),
            Self::Late => format!("from {from} to {to} pref {} lookup {}", 20_000 + number % 10_000, Self::TABLE),
        }
    }
}

/// The calling thread's namespace carries packets of others, whichever way their answers would take.
fn route_everything() -> anyhow::Result<()> {
    for (name, value) in [("ip_forward", "1"), ("conf/all/rp_filter", "0"), ("conf/default/rp_filter", "0")] {
        let path = format!("/proc/sys/net/ipv4/{name}");
        std::fs::write(&path, value).with_context(|| format!("write {path}: is /proc/sys mounted read-only?"))?;
    }
    Ok(())
}

/// Does several things with `ip` at a host.
async fn ip(host: &Host, lines: &[String]) -> anyhow::Result<()> {
    let mut batch = tempfile::Builder::new().prefix("imcluster-ip-").tempfile()?;
    batch.write_all((lines.join("\n") + "\n").as_bytes())?;
    let mut command = Command::new("ip");
    command.arg("-batch").arg(batch.path());
    child::run(INSTALL, host.inside(command)).await.with_context(|| format!("ip, at {}", host.address()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_is_asked_for_before_a_delay() {
        let (from, to) = (Ipv4Addr::new(198, 19, 0, 10), Ipv4Addr::new(198, 19, 0, 11));
        assert_eq!(Harm::Cut.rule(from, to, 7), "from 198.19.0.10 to 198.19.0.11 pref 1007 blackhole");
        assert_eq!(Harm::Late.rule(from, to, 7), "from 198.19.0.10 to 198.19.0.11 pref 20007 lookup 77");
    }
}
