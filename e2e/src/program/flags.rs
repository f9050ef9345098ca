//! How the services are told where the others are: every flag that the tests pass to `imcluster` stands here once.

use std::path::Path;

use crate::certs::Issued;
use crate::kafka;
use crate::ports::Port;
use crate::redis;

fn pairs(flags: &[(&str, String)]) -> Vec<String> {
    flags.iter().flat_map(|(name, value)| [(*name).to_owned(), value.clone()]).collect()
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

/// Any process: where its admin port is.
pub fn admin(port: &Port) -> Vec<String> {
    pairs(&[("--admin", port.address().to_string())])
}

/// Logic: its own ports.
pub fn logic(http: &Port, grpc: &Port) -> Vec<String> {
    pairs(&[("--http-addr", http.address().to_string()), ("--rpc-addr", grpc.address().to_string())])
}

/// Logic: goim's trust in everybody.
pub fn trust() -> Vec<String> {
    pairs(&[("--auth", "trust".to_owned()), ("--push-auth", "none".to_owned())])
}

/// Logic: clients by tokens signed with this secret, backends by the tokens of this file.
pub fn tokens(secret: &Path, push_tokens: &Path) -> Vec<String> {
    pairs(&[("--auth", "jwt".to_owned()), ("--jwt-secret-file", path(secret)), ("--push-tokens", path(push_tokens))])
}

/// Comet: its name, its own ports, and where logic is: one address, or several.
pub fn comet(name: &str, tcp: &Port, websocket: &Port, grpc: &Port, logic: &str) -> Vec<String> {
    pairs(&[
        ("--host", name.to_owned()),
        ("--addrs", tcp.address().ip().to_string()),
        ("--tcp-bind", tcp.address().to_string()),
        ("--websocket-bind", websocket.address().to_string()),
        ("--grpc-bind", grpc.address().to_string()),
        ("--logic", logic.to_owned()),
    ])
}

/// Comet: there is no job that it should wait for.
pub fn no_job() -> Vec<String> {
    pairs(&[("--claim-wait", "0s".to_owned())])
}

/// Job: the comets there are, by their gRPC ports, and where logic is: one address, or several.
pub fn job<'a>(comets: impl Iterator<Item = &'a Port>, logic: &str) -> Vec<String> {
    let comets: Vec<_> = comets.map(|port| port.address().to_string()).collect();
    pairs(&[("--comets", comets.join(",")), ("--logic", logic.to_owned())])
}

/// Logic, comet and job: with what they know each other, from files in this folder named as in a Secret.
pub fn internal_tls(folder: &Path) -> Vec<String> {
    let file = |name: &str| path(&folder.join(name));
    pairs(&[
        ("--internal-tls-cert", file("tls.crt")),
        ("--internal-tls-key", file("tls.key")),
        ("--internal-tls-ca", file("ca.crt")),
    ])
}

/// Logic and job: the log between them.
pub fn kafka(brokers: &str, topic: &str) -> Vec<String> {
    pairs(&[("--kafka-brokers", brokers.to_owned()), ("--kafka-topic", topic.to_owned())])
}

/// Beside [`kafka()`]: a user of the broker, over TLS.
pub fn kafka_sasl(secure: &kafka::Secure, login: &kafka::Login) -> Vec<String> {
    pairs(&[
        ("--kafka-ca-file", path(secure.ca())),
        ("--kafka-sasl", login.mechanism.to_owned()),
        ("--kafka-username-file", path(&login.user_file)),
        ("--kafka-password-file", path(&login.password_file)),
    ])
}

/// Beside [`kafka()`]: a client certificate.
pub fn kafka_mtls(secure: &kafka::Secure, client: &Issued) -> Vec<String> {
    pairs(&[
        ("--kafka-ca-file", path(secure.ca())),
        ("--kafka-cert-file", path(&client.cert)),
        ("--kafka-key-file", path(&client.key)),
    ])
}

/// Logic: the store.
pub fn redis(address: &str) -> Vec<String> {
    pairs(&[("--redis-addr", address.to_owned())])
}

/// Beside [`redis()`]: its user, over TLS.
pub fn redis_secure(secure: &redis::Secure) -> Vec<String> {
    pairs(&[
        ("--redis-ca-file", path(&secure.ca)),
        ("--redis-username-file", path(&secure.user_file)),
        ("--redis-password-file", path(&secure.password_file)),
    ])
}

/// Logic: the store whose primary these sentinels know.
pub fn sentinel(sentinel: &redis::Sentinel) -> Vec<String> {
    let addresses = sentinel.addresses().join(",");
    pairs(&[("--redis-addr", addresses), ("--redis-sentinel-master", sentinel.name().to_owned())])
}

/// Logic: the store on several nodes.
pub fn cluster(cluster: &redis::Cluster) -> Vec<String> {
    [redis(&cluster.addresses().join(",")), vec!["--redis-cluster".to_owned()]].concat()
}
