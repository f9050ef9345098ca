//! All of it, each more than once: three brokers, Redis with a replica and sentinels, two logics, two jobs, three comets.

use std::net::SocketAddr;

use anyhow::ensure;

use super::{Blow, Deed, Victim};
use crate::child::Child;
use crate::kafka::Kafka;
use crate::ports::Port;
use crate::program::{Comet, Program, flags};
use crate::redis::Sentinel;

const TOPIC: &str = "goim-push-topic";
const PARTITIONS: i32 = 12;

/// Everything running. Fields are dropped in this order, so the programs go before what they talk to.
#[derive(Debug)]
pub struct World {
    jobs: Vec<Program>,
    comets: Vec<Comet>,
    logics: Vec<Logic>,
    kafka: Kafka,
    redis: Sentinel,
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

    /// Starts it all and waits until everything is ready.
    ///
    /// # Errors
    /// When a part does not come up; the text names it and its log.
    pub async fn start() -> anyhow::Result<Self> {
        let (kafka, redis) = tokio::try_join!(Kafka::cluster(Self::BROKERS), Sentinel::start())?;
        kafka.create_topic(TOPIC, PARTITIONS).await?;
        let queue = flags::kafka(&kafka.brokers(), TOPIC);
        let mut logics = Vec::new();
        for _ in 0..Self::LOGICS {
            let (http, grpc) = (Port::free()?, Port::free()?);
            let wiring = [flags::logic(&http, &grpc), flags::trust(), queue.clone(), flags::sentinel(&redis)].concat();
            logics.push(Logic { program: Program::start("logic", &wiring).await?, http, grpc });
        }
        let logic: Vec<String> = logics.iter().map(|logic| logic.grpc.address().to_string()).collect();
        let names = (1..=Self::COMETS).map(|number| format!("comet{number}"));
        let comets =
            names.map(|name| Comet::spawn(&name, &logic.join(","), &[])).collect::<anyhow::Result<Vec<_>>>()?;
        let wiring = [flags::job(comets.iter().map(Comet::grpc_port)), queue].concat();
        let jobs = (0..Self::JOBS).map(|_| Program::spawn("job", &wiring)).collect::<anyhow::Result<Vec<_>>>()?;
        // A comet is ready when a push came back through a job.
        for program in jobs.iter().chain(comets.iter().map(|comet| &comet.program)) {
            program.ready().await?;
        }
        Ok(Self { jobs, comets, logics, kafka, redis })
    }

    /// Where clients connect over WebSocket.
    pub fn websockets(&self) -> impl Iterator<Item = SocketAddr> {
        self.comets.iter().map(Comet::websocket)
    }

    /// Where backends push: each logic.
    pub fn https(&self) -> impl Iterator<Item = SocketAddr> {
        self.logics.iter().map(|logic| logic.http.address())
    }

    /// Our own processes, by name.
    pub fn processes(&self) -> impl Iterator<Item = (String, &Child)> {
        let logics = self.logics.iter().map(|logic| ("logic", &logic.program));
        let comets = self.comets.iter().map(|comet| ("comet", &comet.program));
        let all = logics.chain(comets).chain(self.jobs.iter().map(|job| ("job", job)));
        all.map(|(name, program)| (name.to_owned(), program.process()))
    }

    /// Does it, waits, and makes it good.
    ///
    /// # Errors
    /// When what was struck does not come back.
    pub async fn suffer(&self, blow: Blow) -> anyhow::Result<()> {
        match blow.victim {
            Victim::Comet(number) => strike(&self.comets[number].program, blow).await,
            Victim::Logic(number) => strike(&self.logics[number].program, blow).await,
            Victim::Job(number) => strike(&self.jobs[number], blow).await,
            Victim::Broker(number) => {
                let broker = self.kafka.node(number);
                if blow.deed == Deed::Freeze {
                    broker.stop();
                    tokio::time::sleep(blow.lasts).await;
                    broker.cont();
                    return Ok(());
                }
                broker.kill();
                tokio::time::sleep(blow.lasts).await;
                broker.restart()?;
                self.kafka.ready().await
            }
            Victim::Redis => self.redis.fail_over(blow.lasts).await,
        }
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
