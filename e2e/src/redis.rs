//! Real Redis on loopback: alone, with TLS and users, watched by sentinels, or as a cluster.

mod cluster;
mod sentinel;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use tempfile::TempDir;

use crate::certs::{Authority, Issued};
use crate::child::{self, Child};
use crate::eventually;
use crate::host::Host;
use crate::kafka::fill;
use crate::planted;
use crate::ports::Port;
pub use cluster::Cluster;
pub use sentinel::{SENTINELS, Sentinel};

const SERVER: &str = include_str!("../redis/server.conf");
const SECURE: &str = include_str!("../redis/secure.conf");
const INSTALL: &str = "apt-get install redis-server";
const READY: Duration = Duration::from_secs(30);

/// A Redis server that lives as long as this value and keeps nothing on disk: a restart forgets.
#[derive(Debug)]
pub struct Redis {
    child: Child,
    port: Port,
    secure: Option<Secure>,
    _scratch: TempDir,
}

/// What a client of a secured Redis needs.
#[derive(Clone, Debug)]
pub struct Secure {
    /// The only user.
    pub user: String,
    /// The user's secret.
    pub password: String,
    /// A file that holds the user's name and nothing else.
    pub user_file: PathBuf,
    /// A file that holds the secret and a line's end.
    pub password_file: PathBuf,
    /// PEM file of the authority to trust.
    pub ca: PathBuf,
    /// A certificate that the server takes for a client's; it asks for none.
    pub client: Issued,
}

impl Redis {
    /// One server, ready to be used.
    ///
    /// # Errors
    /// When Redis is missing (the text says what to install) or does not come up.
    pub async fn start() -> anyhow::Result<Self> {
        Self::launch("redis", &Host::loopback(), |port, _| Ok((format!("port {}\n", port.number()), None))).await
    }

    /// One server that speaks only TLS and knows only one user: [`secure`](Self::secure).
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn with_tls_and_acl() -> anyhow::Result<Self> {
        Self::launch("redis-secure", &Host::loopback(), |port, folder| {
            let (secure, server) = Secure::new(folder)?;
            let values = [
                ("port", port.number().to_string()),
                ("cert", server.cert.display().to_string()),
                ("key", server.key.display().to_string()),
                ("ca", secure.ca.display().to_string()),
                ("user", secure.user.clone()),
                ("password", secure.password.clone()),
            ];
            Ok((fill(SECURE, &values), Some(secure)))
        })
        .await
    }

    /// `more` gives the lines that differ, and the secrets when there are any.
    async fn launch(
        name: &str,
        host: &Host,
        more: impl FnOnce(&Port, &Path) -> anyhow::Result<(String, Option<Secure>)>,
    ) -> anyhow::Result<Self> {
        let scratch = tempfile::Builder::new().prefix("imcluster-redis-").tempdir()?;
        let (config, port) = (scratch.path().join("redis.conf"), host.port()?);
        let (lines, secure) = more(&port, scratch.path())?;
        let values = [("host", host.address().to_string()), ("dir", scratch.path().display().to_string())];
        let text = fill(SERVER, &values) + &lines;
        std::fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
        let child = server(name, host, config, &[])?;
        let redis = Self { child, port, secure, _scratch: scratch };
        redis.ready().await?;
        Ok(redis)
    }

    /// `127.0.0.1:port`, or that of its host.
    pub fn address(&self) -> String {
        self.port.address().to_string()
    }

    /// The user, password and certificates.
    ///
    /// # Panics
    /// When it was not started by [`with_tls_and_acl`](Self::with_tls_and_acl).
    pub fn secure(&self) -> &Secure {
        self.secure.as_ref().expect("started by with_tls_and_acl")
    }

    /// Runs one command with `redis-cli`, as somebody who may, and returns what it prints.
    ///
    /// # Errors
    /// When the server does not answer or answers an error.
    pub async fn cli(&self, command: &[&str]) -> anyhow::Result<String> {
        let mut login = Vec::new();
        if let Some(secure) = &self.secure {
            let ca = secure.ca.display().to_string();
            login = vec!["--tls".to_owned(), "--cacert".to_owned(), ca, "--user".to_owned(), secure.user.clone()];
            login.extend(["--pass".to_owned(), secure.password.clone(), "--no-auth-warning".to_owned()]);
        }
        ask(&self.port, &login, command).await
    }

    /// Every `key_*` in it, and the server that it names.
    ///
    /// # Errors
    /// As [`cli`](Self::cli).
    pub async fn sessions(&self) -> anyhow::Result<BTreeMap<String, String>> {
        self.named("key_*", "table.insert(all, key .. '=' .. (redis.call('GET', key) or ''))").await
    }

    /// Every connection in every `mid_*` in it, as `mid_7 key`, and the server that it names.
    ///
    /// # Errors
    /// As [`cli`](Self::cli).
    pub async fn members(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let each = "local of = redis.call('HGETALL', key) \
            for n = 1, #of, 2 do table.insert(all, key .. ' ' .. of[n] .. '=' .. of[n + 1]) end";
        self.named("mid_*", each).await
    }

    async fn named(&self, pattern: &str, each: &str) -> anyhow::Result<BTreeMap<String, String>> {
        let keys = format!("redis.call('KEYS', '{pattern}')");
        let script = format!("local all = {{}} for _, key in ipairs({keys}) do {each} end return all");
        let lines = self.cli(&["eval", &script, "0"]).await?;
        let pairs = lines.lines().filter_map(|line| line.split_once('='));
        Ok(pairs.map(|(name, server)| (name.to_owned(), server.to_owned())).collect())
    }

    /// Waits until it answers.
    ///
    /// # Errors
    /// When it does not in time, or has ended.
    pub async fn ready(&self) -> anyhow::Result<()> {
        eventually(READY, &format!("Redis to answer, see {}", self.child.log().display()), || async {
            let answer = self.cli(&["ping"]).await?;
            anyhow::ensure!(answer == "PONG", "it says {answer}");
            Ok(())
        })
        .await
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Kills it (SIGKILL).
    pub fn kill(&self) {
        self.child.kill();
    }

    /// Starts it again on the same port, empty, and waits until it answers.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn restart(&self) -> anyhow::Result<()> {
        self.child.restart()?;
        self.ready().await
    }

    /// Freezes it (SIGSTOP).
    pub fn stop(&self) {
        self.child.stop();
    }

    /// Lets it go on (SIGCONT).
    pub fn cont(&self) {
        self.child.cont();
    }
}

impl Secure {
    fn new(folder: &Path) -> anyhow::Result<(Self, Issued)> {
        let authority = Authority::new(folder)?;
        let server = authority.issue("redis", &["localhost", "127.0.0.1"])?;
        let (user, password) = ("imcluster".to_owned(), planted::secret("redis-password"));
        let (user_file, password_file) = (folder.join("user"), folder.join("password"));
        std::fs::write(&user_file, &user).context("write the user's name")?;
        std::fs::write(&password_file, format!("{password}\n")).context("write the password")?;
        let client = authority.issue("client", &["client.test"])?;
        Ok((Self { user, password, user_file, password_file, ca: authority.ca(), client }, server))
    }
}

/// Starts `redis-server` at a host with this file and these arguments.
fn server(name: &str, host: &Host, config: PathBuf, arguments: &'static [&str]) -> anyhow::Result<Child> {
    let host = host.clone();
    Child::start(name, INSTALL, move || {
        let mut command = Command::new("redis-server");
        command.arg(&config).args(arguments);
        host.inside(command)
    })
}

/// One command with `redis-cli`. It prints errors as answers unless told not to (`-e`).
async fn ask(port: &Port, login: &[String], command: &[&str]) -> anyhow::Result<String> {
    let (mut cli, address) = (Command::new("redis-cli"), port.address());
    cli.args(["-h", &address.ip().to_string(), "-e", "-p", &address.port().to_string()]).args(login).args(command);
    Ok(child::run(INSTALL, cli).await?.trim_end().to_owned())
}
