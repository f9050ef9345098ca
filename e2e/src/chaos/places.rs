//! Where in the network everybody of a world lives, each at a host of its own; comets have clocks of their own
//! there. Kafka's client, in logic and job, waits inside of libc until a time of day that it read through the clock that is
//! not the machine's (`cnd_timedwait`): it would wait for as long as that is ahead, which no jump of a real clock makes it do.

use std::net::Ipv4Addr;

use futures::future::try_join_all;

use super::{Victim, World};
use crate::host::{Clock, Host};
use crate::network::Network;
use crate::redis::SENTINELS;

/// Everybody's host.
#[derive(Debug)]
pub(super) struct Places {
    pub comets: Vec<Host>,
    pub logics: Vec<Host>,
    pub jobs: Vec<Host>,
    pub brokers: Vec<Host>,
    /// The first primary and the first replica.
    pub redis: [Host; 2],
    pub sentinels: [Host; SENTINELS],
}

impl Places {
    pub async fn make(network: &Network) -> anyhow::Result<Self> {
        let some = |count: usize| try_join_all((0..count).map(|_| network.host()));
        Ok(Self {
            comets: timed(some(World::COMETS).await?)?,
            logics: some(World::LOGICS).await?,
            jobs: some(World::JOBS).await?,
            brokers: some(World::BROKERS).await?,
            redis: [network.host().await?, network.host().await?],
            sentinels: [network.host().await?, network.host().await?, network.host().await?],
        })
    }

    /// The clock of one who has his own.
    pub fn clock(&self, victim: Victim) -> Option<&Clock> {
        match victim {
            Victim::Comet(number) => self.comets[number].clock(),
            _ => None,
        }
    }

    /// Where this one lives; Redis while the primary is there.
    pub fn of(&self, victim: Victim, primary: Ipv4Addr) -> Ipv4Addr {
        match victim {
            Victim::Comet(number) => self.comets[number].address(),
            Victim::Logic(number) => self.logics[number].address(),
            Victim::Job(number) => self.jobs[number].address(),
            Victim::Broker(number) => self.brokers[number].address(),
            Victim::Redis => primary,
        }
    }

    /// Where everybody else lives.
    pub fn but(&self, one: Ipv4Addr) -> Vec<Ipv4Addr> {
        let kinds = [&self.comets[..], &self.logics, &self.jobs, &self.brokers, &self.redis, &self.sentinels];
        let all = kinds.into_iter().flatten().map(Host::address);
        all.filter(|address| *address != one).collect()
    }
}

fn timed(hosts: Vec<Host>) -> anyhow::Result<Vec<Host>> {
    hosts.into_iter().map(|host| Ok(host.with_clock(Clock::new()?))).collect()
}
