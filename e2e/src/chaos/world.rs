//! All of it, each more than once: three brokers, Redis with a replica and sentinels, two logics, two jobs, three comets,
//! every one of them at a host of its own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use futures::future::try_join_all;
use parking_lot::Mutex;

use super::places::Places;
use super::slow::{self, Slow};
use super::{Blow, Deed, Others, Strike, Suffered, Victim};
use crate::child::Child;
use crate::client::Target;
use crate::kafka::Kafka;
use crate::network::{Harm, Network};
use crate::os;
use crate::ports::Port;
use crate::program::{Comet, Program, flags};
use crate::redis::{Redis, Sentinel};

const TOPIC: &str = "goim-push-topic";
const PARTITIONS: i32 = 12;
/// For how long after another Redis is the primary a push may find nobody: what that one never heard of is lost, until
/// it is registered again.
const FORGETFUL: Duration = Duration::from_secs(10);

/// Everything running. Fields are dropped in this order, so the programs go before what they talk to.
#[derive(Debug)]
pub struct World {
    jobs: Vec<Program>,
    comets: Vec<Comet>,
    logics: Vec<Logic>,
    kafka: Kafka,
    redis: Sentinel,
    places: Places,
    network: Arc<Network>,
    slow: Mutex<Slow>,
}

#[derive(Debug)]
struct Logic {
    program: Program,
    http: Port,
    grpc: Port,
}

impl World {
    /// How many comets.
    pub const COMETS: usize = 3;
    /// How many logics.
    pub const LOGICS: usize = 2;
    /// How many jobs.
    pub const JOBS: usize = 2;
    /// How many brokers.
    pub const BROKERS: usize = 3;

    /// Starts it all in this network, on a thread in the middle of it, and waits until everything is ready.
    ///
    /// # Errors
    /// When a part does not come up; the text names it and its log.
    pub async fn start(network: Arc<Network>) -> anyhow::Result<Self> {
        let places = Places::make(&network).await?;
        let [first, second] = places.redis.each_ref();
        let redis = Sentinel::start_at([first, second], places.sentinels.each_ref());
        let (kafka, redis) = tokio::try_join!(Kafka::at(&places.brokers), redis)?;
        kafka.create_topic(TOPIC, PARTITIONS).await?;
        let queue = flags::kafka(&kafka.brokers(), TOPIC);
        let mut logics = Vec::new();
        for host in &places.logics {
            let (http, grpc) = (host.port()?, host.port()?);
            let wiring = [flags::logic(&http, &grpc), flags::trust(), queue.clone(), flags::sentinel(&redis)].concat();
            let program = Program::spawn_at(host, "logic", &wiring)?;
            program.ready().await?;
            logics.push(Logic { program, http, grpc });
        }
        let logic: Vec<String> = logics.iter().map(|logic| logic.grpc.address().to_string()).collect();
        let logic = logic.join(",");
        let numbered = places.comets.iter().enumerate();
        let comets = numbered.map(|(number, host)| Comet::spawn_at(host, &Self::name_of(number), &logic, &[]));
        let comets = comets.collect::<anyhow::Result<Vec<_>>>()?;
        let wiring = [flags::job(comets.iter().map(Comet::grpc_port), &logic), queue].concat();
        let jobs = places.jobs.iter().map(|host| Program::spawn_at(host, "job", &wiring));
        let jobs = jobs.collect::<anyhow::Result<Vec<_>>>()?;
        // A comet is ready when a push came back through a job.
        for program in jobs.iter().chain(comets.iter().map(|comet| &comet.program)) {
            program.ready().await?;
        }
        Ok(Self { jobs, comets, logics, kafka, redis, places, network, slow: Mutex::default() })
    }

    /// Where clients connect: half of them over WebSocket, half over TCP, one after the other at another comet.
    pub fn targets(&self) -> Vec<Target> {
        let schemes = ["ws", "tcp"].into_iter().cycle();
        let target = |(comet, scheme): (&Comet, &str)| {
            let address = if scheme == "ws" { comet.websocket() } else { comet.tcp() };
            format!("{scheme}://{address}/{}", if scheme == "ws" { "sub" } else { "" }).parse()
        };
        let all = self.comets.iter().cycle().zip(schemes).take(2 * Self::COMETS);
        all.map(|pair| target(pair).expect("an address and a scheme that it knows")).collect()
    }

    /// The comet behind a target, counted from 0.
    pub fn comet_of(target: usize) -> usize {
        target % Self::COMETS
    }

    /// The name of a comet, counted from 0.
    pub fn name_of(comet: usize) -> String {
        format!("comet{}", comet + 1)
    }

    /// The Redis that is the primary right now.
    ///
    /// # Errors
    /// When no sentinel answers.
    pub async fn store(&self) -> anyhow::Result<&Redis> {
        Ok(self.redis.both().await?.0)
    }

    /// Where backends push: each logic.
    pub fn https(&self) -> impl Iterator<Item = SocketAddr> {
        self.logics.iter().map(|logic| logic.http.address())
    }

    /// What became so far of readers that did not read.
    pub fn slow(&self) -> Slow {
        *self.slow.lock()
    }

    /// Our own processes, by name.
    pub fn processes(&self) -> Vec<(String, &Child)> {
        let logics: Vec<_> = self.logics.iter().map(|logic| &logic.program).collect();
        let comets = self.comets.iter().map(|comet| &comet.program).collect();
        let kinds = [("logic", logics), ("job", self.jobs.iter().collect()), ("comet", comets)];
        let numbered = kinds.into_iter().flat_map(|(kind, all)| {
            all.into_iter().zip(1..).map(move |(program, number)| (format!("{kind}{number}"), program.process()))
        });
        numbered.collect()
    }

    /// Does it, waits, and makes it good.
    ///
    /// # Errors
    /// When what was struck does not come back.
    pub async fn suffer(&self, strike: &Strike) -> anyhow::Result<Vec<Suffered>> {
        try_join_all(strike.blows.iter().map(|blow| self.suffer_one(*blow))).await
    }

    async fn suffer_one(&self, blow: Blow) -> anyhow::Result<Suffered> {
        let from = os::monotonic();
        let taken_over = self.deal(blow).await?;
        let to = os::monotonic();
        let replaced = matches!(blow.deed, Deed::Kill | Deed::Freeze | Deed::Cut(Others::All));
        let forgets = (blow.victim == Victim::Redis && replaced).then(|| from..taken_over.unwrap_or(to) + FORGETFUL);
        Ok(Suffered { blow, from, to, forgets })
    }

    /// Returns when another Redis was the primary, if that is known.
    async fn deal(&self, blow: Blow) -> anyhow::Result<Option<Duration>> {
        match (blow.victim, blow.deed) {
            (Victim::Comet(number), Deed::Clog) => {
                let target = &self.targets()[number];
                let logic = self.logics[number % Self::LOGICS].http.address();
                let now = slow::readers(number, target, logic, blow.lasts).await;
                let mut all = self.slow.lock();
                *all = Slow { cut: all.cut + now.cut, told: all.told + now.told };
            }
            (victim, Deed::Clog) => bail!("{victim:?} has no readers"),
            (victim, Deed::Jump(ahead)) => {
                let clock = self.places.clock(victim).with_context(|| format!("{victim:?} has no clock of its own"))?;
                clock.set(ahead)?;
                tokio::time::sleep(blow.lasts).await;
                clock.set(0)?;
            }
            (_, Deed::Cut(others)) => self.harm(Harm::Cut, others, blow).await?,
            (_, Deed::Late(others)) => self.harm(Harm::Late, others, blow).await?,
            (Victim::Comet(number), _) => strike(&self.comets[number].program, blow).await?,
            (Victim::Logic(number), _) => strike(&self.logics[number].program, blow).await?,
            (Victim::Job(number), _) => strike(&self.jobs[number], blow).await?,
            (Victim::Broker(number), Deed::Freeze) => {
                let broker = self.kafka.node(number);
                broker.stop();
                tokio::time::sleep(blow.lasts).await;
                broker.cont();
            }
            (Victim::Broker(number), Deed::Kill) => {
                let broker = self.kafka.node(number);
                broker.kill();
                tokio::time::sleep(blow.lasts).await;
                broker.restart()?;
                self.kafka.ready().await?;
            }
            (Victim::Redis, Deed::Freeze) => self.redis.freeze(blow.lasts).await?,
            (Victim::Redis, Deed::Kill) => return self.redis.fail_over(blow.lasts).await.map(Some),
        }
        Ok(None)
    }

    /// Harms the lines between the victim and these others; a Redis is over it when the sentinels are.
    async fn harm(&self, harm: Harm, others: Others, blow: Blow) -> anyhow::Result<()> {
        let primary = self.redis.primary().await?.parse::<SocketAddr>()?.ip();
        let IpAddr::V4(primary) = primary else { bail!("{primary}: expected an IPv4 address") };
        let place = |victim| self.places.of(victim, primary);
        let those: Vec<Ipv4Addr> = match others {
            Others::All => self.places.but(place(blow.victim)),
            Others::One(other) => vec![place(other)],
        };
        self.network.harm(harm, &[place(blow.victim)], &those, blow.lasts).await?;
        if blow.victim == Victim::Redis { self.redis.agree().await } else { Ok(()) }
    }

    /// Nobody has ended but those that were killed and are back.
    ///
    /// # Errors
    /// When one has.
    pub fn all_alive(&self) -> anyhow::Result<()> {
        for (name, process) in self.processes() {
            let ended = process.exited();
            ensure!(ended.is_none(), "{name} ended with {ended:?}, see {}", process.log().display());
        }
        Ok(())
    }
}

async fn strike(program: &Program, blow: Blow) -> anyhow::Result<()> {
    if blow.deed == Deed::Freeze {
        program.stop();
        tokio::time::sleep(blow.lasts).await;
        program.cont();
        return Ok(());
    }
    program.kill();
    tokio::time::sleep(blow.lasts).await;
    program.restart().await
}
