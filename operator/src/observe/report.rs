//! What a pod says of itself on its admin port.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use anyhow::Context as _;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use runtime::pod::{ADMIN, STATUS_PATH};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::Pod;

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many pods are asked at a time, over all clusters.
const AT_A_TIME: usize = 64;
/// How long an answer may be.
const LARGEST: usize = 64 * 1024;
/// What is not asked for again is forgotten after this.
const FORGET: Duration = Duration::from_secs(600);

/// `GET /status` of a pod. What a pod does not say is not there.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Report {
    /// The version of its program.
    pub version: Option<String>,
    /// comet's id.
    pub server: Option<String>,
    /// The hash of the live file that it runs with.
    pub config_hash: Option<String>,
    /// Why it could not take up the live file.
    pub reload_error: Option<String>,
    /// Whether what it depends on answers.
    pub dependencies: BTreeMap<String, Dependency>,
    /// Clients on comet.
    pub connections: Option<i64>,
    /// Whether comet moves its clients away.
    pub draining: Option<bool>,
    /// Whether they are all gone.
    pub drained: Option<bool>,
    /// `proven`, `unproven` or `waiting`: whether a push reached comet.
    pub flow: Option<String>,
    /// Records that job has not delivered.
    pub lag: Option<i64>,
    /// logic: `present` or `missing`.
    pub push_tokens: Option<String>,
    /// Whether the topic is as it should be.
    pub topic: Option<Topic>,
}

/// What a pod depends on.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Dependency {
    /// Whether it answers.
    pub up: bool,
    /// Why not.
    pub error: Option<String>,
}

/// The topic.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Topic {
    /// Whether it is as it should be.
    pub ok: bool,
    /// How it is not.
    pub error: Option<String>,
}

/// The last answers of all pods.
pub struct Reports {
    answers: Mutex<HashMap<String, (Instant, Option<Report>)>>,
    turns: Semaphore,
}

impl Default for Reports {
    fn default() -> Self {
        Self { answers: Mutex::default(), turns: Semaphore::new(AT_A_TIME) }
    }
}

impl Reports {
    /// Gives each pod of ours its report, asking for those that are older than `age`.
    pub async fn fill(&self, pods: &mut [Pod], age: Duration) {
        let ours = |pod: &&mut Pod| pod.component.is_some_and(|one| runtime::pod::Component::SERVICES.contains(&one));
        let asked = pods.iter_mut().filter(ours).map(async |pod| pod.report = self.report(pod, age).await);
        futures::future::join_all(asked).await;
        self.answers.lock().retain(|_, (at, _)| at.elapsed() < FORGET);
    }

    async fn report(&self, pod: &Pod, age: Duration) -> Option<Report> {
        let address: IpAddr = pod.address.as_ref()?.parse().ok()?;
        if let Some((at, report)) = self.answers.lock().get(&pod.uid)
            && at.elapsed() < age
        {
            return report.clone();
        }
        let _turn = self.turns.acquire().await.ok()?;
        let answer = match tokio::time::timeout(PATIENCE, ask(address)).await {
            Ok(Ok(report)) => Some(report),
            Ok(Err(error)) => {
                tracing::debug!(pod = pod.name, error = format!("{error:#}"), "a pod does not say how it is");
                None
            }
            Err(_) => None,
        };
        self.answers.lock().insert(pod.uid.clone(), (Instant::now(), answer.clone()));
        answer
    }
}

async fn ask(address: IpAddr) -> anyhow::Result<Report> {
    let stream = TcpStream::connect((address, ADMIN)).await.context("cannot connect")?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let host = std::net::SocketAddr::new(address, ADMIN).to_string();
    let request = http::Request::get(STATUS_PATH).header(http::header::HOST, host).body(Empty::<&[u8]>::new())?;
    let answer = async {
        let answer = sender.send_request(request).await?;
        anyhow::ensure!(answer.status().is_success(), "answered {}", answer.status());
        let body = Limited::new(answer.into_body(), LARGEST).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("{error}"))?;
        serde_json::from_slice(&body.to_bytes()).context("not a status")
    };
    let answer = answer.await;
    driver.abort();
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_also_when_it_says_more_or_less() {
        let text = r#"{"component":"comet","version":"0.1.0","ready":true,"uptimeSeconds":3,"connections":12,
            "dependencies":{"kafka":{"up":false,"error":"refused"}},"flow":"proven","draining":true}"#;
        let report: Report = serde_json::from_str(text).unwrap();
        assert_eq!((report.connections, report.draining, report.drained), (Some(12), Some(true), None));
        assert_eq!(report.dependencies["kafka"].error.as_deref(), Some("refused"));
        assert_eq!(serde_json::from_str::<Report>("{}").unwrap(), Report::default());
    }
}
