//! A broker that tells clients a name instead of an address, as one does whose pod comes back with another address.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::Context;

use super::Kafka;
use crate::ports::Port;

/// The only broker of a [`Kafka`], with a listener beside its plain one that it tells by a name.
#[derive(Debug)]
pub struct Named {
    kafka: Kafka,
    name: String,
    port: Port,
    properties: PathBuf,
    /// What stands there without that listener.
    plain: String,
}

impl Named {
    /// Has the broker tell this name, at first for 127.0.0.1, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not come up again.
    ///
    /// # Panics
    /// When there is more than one broker.
    pub async fn new(kafka: Kafka, name: &str) -> anyhow::Result<Self> {
        assert_eq!(kafka.nodes.len(), 1, "one broker");
        let properties = kafka._scratch.path().join("1.properties");
        let plain = std::fs::read_to_string(&properties).context("read the broker's properties")?;
        let named = Self { kafka, name: name.to_owned(), port: Port::free()?, properties, plain };
        named.move_to(Ipv4Addr::LOCALHOST).await?;
        Ok(named)
    }

    /// Kills the broker and starts it with its listener at another address; the name is to lead there.
    ///
    /// # Errors
    /// When it does not come up again.
    pub async fn move_to(&self, address: Ipv4Addr) -> anyhow::Result<()> {
        self.kafka.kill();
        let more = |key: &str, more: String| -> anyhow::Result<String> {
            let line = self.plain.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            // The last line of a key counts.
            Ok(format!("{key}={},{more}\n", line.with_context(|| format!("the broker's {key}"))?))
        };
        let lines = [
            more("listeners", format!("NAMED://{}", SocketAddr::from((address, self.port.number()))))?,
            more("advertised.listeners", format!("NAMED://{}", self.brokers()))?,
            more("listener.security.protocol.map", "NAMED:PLAINTEXT".to_owned())?,
        ];
        std::fs::write(&self.properties, format!("{}\n{}", self.plain, lines.concat()))
            .context("write the broker's properties")?;
        self.kafka.restart().await
    }

    /// Where clients start: the name, and the port there.
    pub fn brokers(&self) -> String {
        format!("{}:{}", self.name, self.port.number())
    }

    /// The same broker by its other address, which stays.
    pub fn kafka(&self) -> &Kafka {
        &self.kafka
    }
}
