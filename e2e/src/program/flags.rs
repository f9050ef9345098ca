//! How the services are told where the others are: every flag that the tests pass to `imcluster` stands here once.

use crate::ports::Port;

fn pairs(flags: &[(&str, String)]) -> Vec<String> {
    flags.iter().flat_map(|(name, value)| [(*name).to_owned(), value.clone()]).collect()
}

/// Any process: where its admin port is.
pub fn admin(port: &Port) -> Vec<String> {
    pairs(&[("--admin", port.address().to_string())])
}

/// Logic and job: the log between them.
pub fn kafka(brokers: &str, topic: &str) -> Vec<String> {
    pairs(&[("--kafka-brokers", brokers.to_owned()), ("--kafka-topic", topic.to_owned())])
}

/// Logic: its own ports, its store, and goim's trust in everybody.
pub fn logic(http: &Port, grpc: &Port, redis: &str) -> Vec<String> {
    pairs(&[
        ("--http-bind", http.address().to_string()),
        ("--grpc-bind", grpc.address().to_string()),
        ("--redis-addr", redis.to_owned()),
        ("--auth", "trust".to_owned()),
        ("--push-auth", "none".to_owned()),
    ])
}

/// Comet: its name, its own ports, and where logic is.
pub fn comet(name: &str, tcp: &Port, websocket: &Port, grpc: &Port, logic: &Port) -> Vec<String> {
    pairs(&[
        ("--host", name.to_owned()),
        ("--addrs", "127.0.0.1".to_owned()),
        ("--tcp-bind", tcp.address().to_string()),
        ("--websocket-bind", websocket.address().to_string()),
        ("--grpc-bind", grpc.address().to_string()),
        ("--logic", logic.address().to_string()),
    ])
}

/// Job: the comets there are, by their gRPC ports.
pub fn job<'a>(comets: impl Iterator<Item = &'a Port>) -> Vec<String> {
    let comets: Vec<_> = comets.map(|port| port.address().to_string()).collect();
    pairs(&[("--comets", comets.join(","))])
}
