//! What a broker with TLS adds: its two ports, its certificates, and the users it knows.

use std::path::{Path, PathBuf};

use anyhow::Context;
use rdkafka::ClientConfig;

use super::fill;
use crate::certs::{Authority, Issued};
use crate::planted;
use crate::ports::Port;

const TEMPLATE: &str = include_str!("../../kafka/secure.properties");

/// The secured side of a broker.
#[derive(Debug)]
pub struct Secure {
    sasl: Port,
    mtls: Port,
    ca: PathBuf,
    server: Issued,
    client: Issued,
    plain: Login,
    scram: Login,
}

/// A user of the broker.
#[derive(Clone, Debug)]
pub struct Login {
    /// `PLAIN` or `SCRAM-SHA-512`.
    pub mechanism: &'static str,
    /// Who.
    pub user: String,
    /// The secret itself.
    pub password: String,
    /// A file that holds the name and nothing else.
    pub user_file: PathBuf,
    /// A file that holds the secret and a line's end.
    pub password_file: PathBuf,
}

impl Secure {
    pub(super) fn new(scratch: &Path) -> anyhow::Result<Self> {
        let folder = scratch.join("secrets");
        std::fs::create_dir(&folder).context("a folder for secrets")?;
        let authority = Authority::new(&folder)?;
        Ok(Self {
            sasl: Port::free()?,
            mtls: Port::free()?,
            ca: authority.ca(),
            server: authority.issue("kafka", &["localhost", "127.0.0.1"])?,
            client: authority.issue("client", &["client.test"])?,
            plain: Login::new(&folder, "PLAIN", "plainuser")?,
            scram: Login::new(&folder, "SCRAM-SHA-512", "scramuser")?,
        })
    }

    /// `host:port` of the listener that wants a user and a password, over TLS.
    pub fn sasl_brokers(&self) -> String {
        self.sasl.address().to_string()
    }

    /// `host:port` of the listener that wants a client certificate.
    pub fn mtls_brokers(&self) -> String {
        self.mtls.address().to_string()
    }

    /// PEM file of the authority to trust.
    pub fn ca(&self) -> &Path {
        &self.ca
    }

    /// A certificate the broker takes for a client's.
    pub fn client(&self) -> &Issued {
        &self.client
    }

    /// The user who says the password as it is.
    pub fn plain(&self) -> &Login {
        &self.plain
    }

    /// The user who proves to know it.
    pub fn scram(&self) -> &Login {
        &self.scram
    }

    /// A client configuration for this user.
    pub fn sasl_client(&self, login: &Login, password: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", self.sasl_brokers())
            .set("security.protocol", "sasl_ssl")
            .set("ssl.ca.location", self.ca.to_string_lossy())
            .set("sasl.mechanism", login.mechanism)
            .set("sasl.username", &login.user)
            .set("sasl.password", password);
        config
    }

    /// A client configuration with the client certificate, or without any.
    pub fn mtls_client(&self, certificate: Option<&Issued>) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", self.mtls_brokers())
            .set("security.protocol", "ssl")
            .set("ssl.ca.location", self.ca.to_string_lossy());
        if let Some(issued) = certificate {
            config.set("ssl.certificate.location", issued.cert.to_string_lossy());
            config.set("ssl.key.location", issued.key.to_string_lossy());
        }
        config
    }

    /// The user that formatting the folder makes.
    pub(super) fn scram_to_add(&self) -> String {
        format!("{}=[name={},password={}]", self.scram.mechanism, self.scram.user, self.scram.password)
    }

    pub(super) fn listeners(&self) -> String {
        format!(",SASL://{},MTLS://{}", self.sasl.address(), self.mtls.address())
    }

    pub(super) fn properties(&self) -> String {
        fill(
            TEMPLATE,
            &[
                ("keystore", self.server.bundle.display().to_string()),
                ("ca", self.ca.display().to_string()),
                ("plain_user", self.plain.user.clone()),
                ("plain_password", self.plain.password.clone()),
            ],
        )
    }
}

impl Login {
    fn new(folder: &Path, mechanism: &'static str, user: &str) -> anyhow::Result<Self> {
        let password = planted::secret("kafka-password");
        let (user_file, password_file) = (folder.join(format!("{user}.name")), folder.join(format!("{user}.password")));
        std::fs::write(&user_file, user).context("write a user's name")?;
        std::fs::write(&password_file, format!("{password}\n")).context("write a password")?;
        Ok(Self { mechanism, user: user.to_owned(), password, user_file, password_file })
    }
}
