//! The process that has the cluster. It ends the cluster when its input ends, so when we end, however we do.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::{artefacts, eventually};

/// Bring-up takes 15 s; on a busy machine, and after building the programs, longer. Then somebody else may have one.
const UP: Duration = Duration::from_secs(2400);
/// How long another test's cluster is waited for.
const TURN: &str = "600";
const DOWN: Duration = Duration::from_secs(120);

/// A cluster's life.
#[derive(Debug)]
pub(super) struct Hold {
    process: Child,
    input: Option<ChildStdin>,
    state: PathBuf,
    log: PathBuf,
}

/// The script that does everything.
pub(super) fn script() -> &'static str {
    concat!(env!("CARGO_MANIFEST_DIR"), "/cluster/cluster")
}

impl Hold {
    /// Brings a cluster up.
    pub(super) async fn begin(settings: &[(&str, &Path)]) -> anyhow::Result<Self> {
        let log = artefacts::log("cluster")?;
        let mut command = Command::new(script());
        command.arg("hold").env("IMCLUSTER_ARTEFACTS", artefacts::folder()?);
        if std::env::var_os("IMCLUSTER_CLUSTER_WAIT").is_none() {
            command.env("IMCLUSTER_CLUSTER_WAIT", TURN);
        }
        command.envs(settings.iter().copied());
        let said = OpenOptions::new().create(true).append(true).open(&log)?;
        // In a group of its own: what ends us shall leave it the time to tidy up.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(said);
        let mut process = command.spawn().with_context(|| format!("start {}", script()))?;
        let (input, output) = (process.stdin.take(), process.stdout.take().expect("it is piped"));
        let mut hold = Self { process, input, state: PathBuf::new(), log };
        let mut line = String::new();
        let reading = tokio::task::spawn_blocking(move || BufReader::new(output).read_line(&mut line).map(|_| line));
        let line = tokio::time::timeout(UP, reading).await.context("bring the cluster up")???;
        let Some(state) = line.trim_end().strip_prefix("ready ") else {
            bail!("no cluster, see {}:\n{}", hold.log.display(), hold.last_words());
        };
        hold.state = state.into();
        Ok(hold)
    }

    pub(super) fn state(&self) -> &Path {
        &self.state
    }

    /// Ends a cluster that did what it should.
    pub(super) async fn end(mut self) -> anyhow::Result<()> {
        self.say_goodbye("ok");
        let status = eventually(DOWN, "the end of the cluster", || {
            let ended = self.process.try_wait();
            async move { ended.ok().flatten() }
        });
        let status = status.await?;
        anyhow::ensure!(status.success(), "{status}, see {}:\n{}", self.log.display(), self.last_words());
        Ok(())
    }

    /// The last word before the end of its input says whether all was well.
    fn say_goodbye(&mut self, word: &str) {
        if let Some(mut input) = self.input.take() {
            // When it has ended already there is nobody to tell.
            let _ = writeln!(input, "{word}");
        }
    }

    fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().ok().flatten()
    }
}

/// Waits, so that the next one finds the machine free. Who did not get as far as the end did not go well.
impl Drop for Hold {
    fn drop(&mut self) {
        self.say_goodbye("failed");
        let end = Instant::now() + DOWN;
        while self.ended().is_none() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
