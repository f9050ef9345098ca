//! Whom job asks where keys are: logic over gRPC, or memory.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use proto::grpc::MAX_MESSAGE;
use proto::grpc::tls::Tls;
use proto::peers::Source;
use proto::pool::Pool;
use proto::sessions::LocateReq;
use proto::sessions::sessions_client::SessionsClient;

/// How long one question may take.
const DEADLINE: Duration = Duration::from_secs(3);

/// Knows which comet each key is on.
#[async_trait]
pub trait Locate: Send + Sync + 'static {
    /// The servers of these keys; keys that are nowhere are left out. An error is why there is no answer.
    async fn locate(&self, keys: Vec<String>) -> Result<HashMap<String, String>, String>;
}

/// The logic servers behind a list of addresses.
#[derive(Debug)]
pub struct LogicClient {
    pool: Pool,
}

impl LogicClient {
    /// A client that connects on its first call; with `tls` logic knows us by our certificate. Must be made within a tokio
    /// runtime.
    ///
    /// # Errors
    /// When an address is not one; the text names it.
    pub fn lazy(source: Source, tls: Option<Tls>) -> anyhow::Result<Self> {
        let pool = Pool::lazy(source, DEADLINE, tls).map_err(|error| anyhow::anyhow!("--logic {error}"))?;
        Ok(Self { pool })
    }
}

#[async_trait]
impl Locate for LogicClient {
    async fn locate(&self, keys: Vec<String>) -> Result<HashMap<String, String>, String> {
        let make = |channel, request| async move {
            SessionsClient::new(channel).max_decoding_message_size(MAX_MESSAGE).locate(request).await
        };
        let reply = self.pool.call(DEADLINE, LocateReq { keys }, make).await;
        reply.map(|reply| reply.servers).map_err(|status| status.to_string())
    }
}

/// A logic of one process; clones are the same. It answers nothing before it is told something.
#[derive(Clone, Debug, Default)]
pub struct MemoryLogic {
    servers: Arc<Mutex<Option<HashMap<String, String>>>>,
    asked: Arc<Mutex<Vec<Vec<String>>>>,
}

impl MemoryLogic {
    /// From now on these keys are there, and no others are anywhere.
    pub fn set(&self, servers: &[(&str, &str)]) {
        let servers = servers.iter().map(|(key, server)| ((*key).to_owned(), (*server).to_owned()));
        *self.servers.lock() = Some(servers.collect());
    }

    /// What was asked, in order.
    pub fn asked(&self) -> Vec<Vec<String>> {
        self.asked.lock().clone()
    }
}

#[async_trait]
impl Locate for MemoryLogic {
    async fn locate(&self, keys: Vec<String>) -> Result<HashMap<String, String>, String> {
        self.asked.lock().push(keys.clone());
        let servers = self.servers.lock();
        let servers = servers.as_ref().ok_or_else(|| "connection refused".to_owned())?;
        Ok(keys.into_iter().filter_map(|key| Some((key.clone(), servers.get(&key)?.clone()))).collect())
    }
}

#[cfg(test)]
mod tests;
