//! Chromium as a test drives it: commands to `e2e/page/drive.mjs`, one line each.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use e2e::child;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};

const DRIVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/page");
const CHROMIUM: &str = "/usr/bin/chromium";
const NODE: &str = "install Node.js 20 or newer";
/// Longer than the driver itself waits for anything.
const ANSWER: Duration = Duration::from_secs(60);

/// A screen to look at the page with.
#[derive(Clone, Copy)]
pub struct Screen {
    pub width: u32,
    pub height: u32,
    pub mobile: bool,
    pub dark: bool,
}

pub const DESKTOP: Screen = Screen { width: 1280, height: 800, mobile: false, dark: false };
pub const PHONE: Screen = Screen { width: 390, height: 844, mobile: true, dark: true };

/// One Chromium; it ends with this value.
pub struct Browser {
    driver: Child,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    /// Profiles and whatever else Chromium writes.
    _scratch: TempDir,
}

impl Browser {
    /// Installs the driver's one package and starts Chromium, empty.
    pub async fn start() -> anyhow::Result<Self> {
        if !Path::new(CHROMIUM).is_file() {
            bail!("no browser at {CHROMIUM}: apt-get install chromium");
        }
        let mut install = Command::new("npm");
        install.args(["ci", "--prefer-offline", "--no-audit", "--no-fund"]).current_dir(DRIVER);
        child::run(NODE, install).await?;
        let scratch = tempfile::Builder::new().prefix("imcluster-page-").tempdir()?;
        let mut driver = tokio::process::Command::new("node")
            .arg("drive.mjs")
            .current_dir(DRIVER)
            .env("CHROMIUM", CHROMIUM)
            .env("TMPDIR", scratch.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context(NODE)?;
        let commands = driver.stdin.take().context("its input is piped")?;
        let answers = BufReader::new(driver.stdout.take().context("its output is piped")?).lines();
        Ok(Self { driver, commands, answers, _scratch: scratch })
    }

    /// Opens a page in a fresh profile.
    pub async fn open(&mut self, url: &str, screen: Screen) -> anyhow::Result<()> {
        let Screen { width, height, mobile, dark } = screen;
        let open = json!({"do": "open", "url": url, "width": width, "height": height, "mobile": mobile, "dark": dark});
        self.command(open).await.map(drop)
    }

    /// What an expression says in the page.
    pub async fn evaluate<T: DeserializeOwned>(&mut self, script: &str) -> anyhow::Result<T> {
        let value = self.command(json!({"do": "evaluate", "script": script})).await?;
        serde_json::from_value(value.clone()).with_context(|| format!("{script} is {value}"))
    }

    pub async fn click(&mut self, selector: &str) -> anyhow::Result<()> {
        self.command(json!({"do": "click", "selector": selector})).await.map(drop)
    }

    pub async fn fill(&mut self, selector: &str, text: &str) -> anyhow::Result<()> {
        self.command(json!({"do": "fill", "selector": selector, "text": text})).await.map(drop)
    }

    pub async fn select(&mut self, selector: &str, value: &str) -> anyhow::Result<()> {
        self.command(json!({"do": "select", "selector": selector, "value": value})).await.map(drop)
    }

    /// Keeps a picture of what the screen shows among the artefacts.
    pub async fn screenshot(&mut self, name: &str) -> anyhow::Result<PathBuf> {
        let folder = e2e::artefacts::folder()?.join("screenshots");
        std::fs::create_dir_all(&folder)?;
        let path = folder.canonicalize()?.join(format!("{name}.png"));
        self.command(json!({"do": "screenshot", "path": path})).await?;
        Ok(path)
    }

    /// Errors of the page, and what it fetched from elsewhere.
    pub async fn problems(&mut self) -> anyhow::Result<Vec<String>> {
        Ok(serde_json::from_value(self.command(json!({"do": "problems"})).await?)?)
    }

    /// Ends Chromium in good order.
    pub async fn close(self) -> anyhow::Result<()> {
        let Self { mut driver, commands, .. } = self;
        drop(commands);
        let status = tokio::time::timeout(ANSWER, driver.wait()).await.context("the driver did not end")??;
        anyhow::ensure!(status.success(), "the driver ended with {status}");
        Ok(())
    }

    async fn command(&mut self, command: Value) -> anyhow::Result<Value> {
        let exchange = async {
            self.commands.write_all(format!("{command}\n").as_bytes()).await?;
            self.answers.next_line().await?.context("the driver ended")
        };
        let line =
            tokio::time::timeout(ANSWER, exchange).await.with_context(|| format!("no answer to {command}"))??;
        let mut answer: Value = serde_json::from_str(&line)?;
        match answer.get("error") {
            Some(error) => bail!("{command}: {error}"),
            None => Ok(answer["value"].take()),
        }
    }
}
