//! The admin port: GET `/live`, `/ready`, `/metrics` and `/status`, nothing that changes anything.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::Process;

type Report = Box<dyn Fn() -> serde_json::Value + Send + Sync>;

/// What `GET /status` shows: one JSON object, a field per part that reports. Cheap to clone.
#[derive(Clone, Default)]
pub struct Status {
    parts: Arc<Mutex<Vec<(&'static str, Report)>>>,
}

impl std::fmt::Debug for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.parts.lock().iter().map(|(name, _)| name)).finish()
    }
}

impl Status {
    /// Adds a field whose value is asked for at every request.
    pub fn part(&self, name: &'static str, report: impl Fn() -> serde_json::Value + Send + Sync + 'static) {
        self.parts.lock().push((name, Box::new(report)));
    }

    /// Every part's answer.
    pub fn report(&self) -> serde_json::Value {
        self.parts.lock().iter().map(|(name, report)| ((*name).to_owned(), report())).collect()
    }
}

/// Binds the port and serves it until the process ends. Returns the address it got.
pub(crate) async fn serve(_address: SocketAddr, _process: Arc<Process>) -> anyhow::Result<SocketAddr> {
    anyhow::bail!("not served yet")
}
