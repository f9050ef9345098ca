//! goim's API as a client sees it on a socket: status, headers and body.

mod client;
mod limits;
mod online;
mod pushes;
mod shape;

use std::collections::HashMap;
use std::net::SocketAddr;

use clap::Parser;
use proto::logic::CometInfo;
use runtime::proxies::TrustedProxies;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use self::client::Answer;
use super::*;
use crate::config::Config;
use crate::fakes::{FakeQueue, pair};
use crate::metrics::HttpMetrics;
use crate::nodes::Nodes;
use crate::online::Online;
use crate::push::Pusher;
use crate::store::memory::MemoryStore;
use crate::tokens::Tokens;

const JSON: &str = "application/json; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

#[derive(Parser)]
struct Program {
    #[command(flatten)]
    config: Config,
}

/// The API on a port of its own, over the store in memory and a queue that is told what to do.
struct Site {
    address: SocketAddr,
    store: Arc<MemoryStore>,
    queue: Arc<FakeQueue>,
    online: Online,
    api: Arc<Api>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Site {
    async fn start() -> Self {
        Self::with("--push-auth none").await
    }

    async fn with(flags: &str) -> Self {
        let argv = ["logic", "--auth", "trust"].into_iter().chain(flags.split_whitespace());
        let config = Program::parse_from(argv).config;
        let (store, queue) = pair();
        let online = Online::default();
        let api = Arc::new(Api {
            pusher: Pusher::new(store.clone(), queue.clone()),
            online: online.clone(),
            nodes: Nodes::new(config.node.clone(), crate::places::Places::new(online.clone(), None)),
            tokens: config.push_tokens.as_deref().map(|path| Tokens::open(path).unwrap()),
            deploy_env: config.deploy_env.clone(),
            metrics: HttpMetrics::register(&runtime::Metrics::default()),
            slots: Arc::new(Semaphore::new(config.http.http_in_flight)),
            trusted: TrustedProxies::new(&config.http.trusted_proxies),
            limits: arc_swap::ArcSwap::from_pointee(config.http),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let stopped = async move { stopped.await.unwrap_or_default() };
        let task = tokio::spawn(serve(listener, api.clone(), stopped, Duration::from_secs(60)));
        Self { address, store, queue, online, api, stop: Some(stop), task }
    }

    async fn get(&self, target: &str) -> Answer {
        client::ask(self.address, "GET", target, "", b"").await
    }

    async fn post(&self, target: &str, body: &[u8]) -> Answer {
        client::ask(self.address, "POST", target, "", body).await
    }

    fn rooms(&self, rooms: &[(&str, i32)], comets: Vec<(&str, CometInfo)>) {
        let rooms: HashMap<String, i32> = rooms.iter().map(|(room, count)| ((*room).to_owned(), *count)).collect();
        self.online.set(rooms, comets.into_iter().map(|(server, info)| (server.into(), info)).collect());
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.task.abort();
    }
}
