//! A cluster on one machine: Kafka, Redis, one logic, one job and some comets, each its own process.

use std::net::SocketAddr;

use super::{Program, flags};
use crate::host::Host;
use crate::kafka::Kafka;
use crate::ports::Port;
use crate::redis::Redis;

/// What a stack is to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many comets.
    pub comets: usize,
    /// How many brokers.
    pub brokers: usize,
    /// Whether Kafka (one broker then) and Redis speak TLS and want a user: SCRAM and an ACL.
    pub secure: bool,
    /// The topic, which is made first.
    pub topic: String,
    /// Its partitions.
    pub partitions: i32,
    /// Where logic finds its store; none = at a Redis of the stack's own.
    pub store: Vec<String>,
    /// How clients and backends prove to logic who they are.
    pub identity: Vec<String>,
    /// Further arguments for logic.
    pub logic: Vec<String>,
    /// Further arguments for job.
    pub job: Vec<String>,
    /// Further arguments for every comet.
    pub comet: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            comets: 1,
            brokers: 1,
            secure: false,
            topic: "goim-push-topic".to_owned(),
            partitions: 9,
            store: Vec::new(),
            identity: flags::trust(),
            logic: Vec::new(),
            job: Vec::new(),
            comet: Vec::new(),
        }
    }
}

/// Everything running. Fields are dropped in this order, so the programs go before what they talk to.
#[derive(Debug)]
pub struct Stack {
    /// Kafka → comets.
    pub job: Program,
    /// The connections.
    pub comets: Vec<Comet>,
    /// HTTP → Kafka.
    pub logic: Program,
    /// The log.
    pub kafka: Kafka,
    /// The store, unless another was named.
    pub redis: Redis,
    http: Port,
    grpc: Port,
    /// What job was told.
    job_wiring: Vec<String>,
}

/// A comet and where it listens.
#[derive(Debug)]
pub struct Comet {
    /// The process.
    pub program: Program,
    /// Its server id.
    pub name: String,
    tcp: Port,
    websocket: Port,
    grpc: Port,
}

impl Stack {
    /// Starts it all and waits until everything is ready.
    ///
    /// # Errors
    /// When a part does not come up; the text names it and its log.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let (kafka, redis) = match options.secure {
            false => tokio::try_join!(Kafka::cluster(options.brokers), Redis::start())?,
            true => tokio::try_join!(Kafka::with_sasl_tls(), Redis::with_tls_and_acl())?,
        };
        kafka.create_topic(&options.topic, options.partitions).await?;
        let (mut queue, mut store) = (flags::kafka(&kafka.brokers(), &options.topic), flags::redis(&redis.address()));
        if options.secure {
            let secure = kafka.secure();
            queue = flags::kafka(&secure.sasl_brokers(), &options.topic);
            queue.extend(flags::kafka_sasl(secure, secure.scram()));
            store.extend(flags::redis_secure(redis.secure()));
        }
        if !options.store.is_empty() {
            store = options.store;
        }
        let (http, grpc) = (Port::free()?, Port::free()?);
        let wiring = [flags::logic(&http, &grpc), options.identity, queue.clone(), store, options.logic].concat();
        let logic = Program::start("logic", &wiring).await?;
        let mut comets = Vec::new();
        for number in 1..=options.comets {
            comets.push(Comet::spawn(&format!("comet{number}"), &grpc.address().to_string(), &options.comet)?);
        }
        let wiring = flags::job(comets.iter().map(|comet| &comet.grpc), &grpc.address().to_string());
        let job_wiring = [wiring, queue, options.job].concat();
        let job = Program::start("job", &job_wiring).await?;
        // A comet is ready when a push came back through job, so it cannot be before job is.
        for comet in &comets {
            comet.program.ready().await?;
        }
        Ok(Self { job, comets, logic, kafka, redis, http, grpc, job_wiring })
    }

    /// Where backends push.
    pub fn http(&self) -> SocketAddr {
        self.http.address()
    }

    /// Where logic serves comets.
    pub fn logic_grpc(&self) -> SocketAddr {
        self.grpc.address()
    }

    /// Starts another job beside the first, which shares its partitions, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn another_job(&self) -> anyhow::Result<Program> {
        Program::start("job", &self.job_wiring).await
    }

    /// One of the comets, counted from 0.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn comet(&self, index: usize) -> &Comet {
        &self.comets[index]
    }
}

impl Comet {
    /// Starts one, told where logic is, without waiting.
    ///
    /// # Errors
    /// When it is not built or cannot be started.
    pub fn spawn(name: &str, logic: &str, more: &[String]) -> anyhow::Result<Self> {
        Self::spawn_at(&Host::loopback(), name, logic, more)
    }

    /// The same at a host.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn).
    pub fn spawn_at(host: &Host, name: &str, logic: &str, more: &[String]) -> anyhow::Result<Self> {
        let (tcp, websocket, grpc) = (host.port()?, host.port()?, host.port()?);
        let wiring = flags::comet(name, &tcp, &websocket, &grpc, logic);
        let program = Program::spawn_at(host, "comet", &[wiring, more.to_vec()].concat())?;
        Ok(Self { program, name: name.to_owned(), tcp, websocket, grpc })
    }

    /// Where clients connect over TCP.
    pub fn tcp(&self) -> SocketAddr {
        self.tcp.address()
    }

    /// Where clients connect over WebSocket, at `/sub`.
    pub fn websocket(&self) -> SocketAddr {
        self.websocket.address()
    }

    /// Where job pushes.
    pub fn grpc(&self) -> SocketAddr {
        self.grpc.address()
    }

    /// The same as a port.
    pub(crate) fn grpc_port(&self) -> &Port {
        &self.grpc
    }
}
