//! Which comets a client should try: goim's weighted choice (`internal/logic/balancer.go`), rotating as it is asked.
//!
//! Unlike goim's, a list that shrinks by more than half is believed, a comet without a weight counts as 1, and one
//! without addresses adds no empty node.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use proto::ServerId;
use proto::logic::{Backoff, CometInfo, NodesReply};

use crate::config::NodeConfig;
use crate::places::{Places, Seen};

/// How many comets a client is told of.
const FIRST: usize = 5;
const MIN_SCORE: i64 = 1;
const MAX_SCORE: i64 = 1 << 20;

/// The comets, by how much each should get. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Nodes {
    config: Arc<ArcSwap<NodeConfig>>,
    /// Province → region: `[regions]` turned around.
    regions: Arc<HashMap<String, String>>,
    places: Places,
    balance: Arc<Mutex<Balance>>,
}

/// The comets as last seen, each with the clients we have sent there since. Locked for a few microseconds, never
/// across an await.
#[derive(Debug, Default)]
struct Balance {
    seen: Option<Seen>,
    comets: Vec<Weighed>,
}

#[derive(Clone, Debug)]
struct Weighed {
    server: ServerId,
    info: CometInfo,
    weight: i64,
    conns: i64,
    score: i64,
    /// It runs the newest revision while others are still to be replaced: whoever goes there is not sent away again.
    is_updated: bool,
}

impl Nodes {
    /// Over the comets that `places` knows.
    pub fn new(config: NodeConfig, places: Places) -> Self {
        let regions = config
            .regions
            .iter()
            .flat_map(|region| region.provinces.iter().map(|province| (province.clone(), region.name.clone())));
        let regions = Arc::new(regions.collect());
        Self { regions, config: Arc::new(ArcSwap::from_pointee(config)), places, balance: Arc::default() }
    }

    /// From now on clients are told this.
    pub fn apply(&self, config: NodeConfig) {
        self.config.store(Arc::new(config));
    }

    /// After how long without a heartbeat a client is closed.
    pub fn session_timer(&self) -> Duration {
        let config = self.config.load();
        config.heartbeat * config.heartbeat_max.unsigned_abs()
    }

    /// What a client on this platform at this address should know: ports, timers, and the comets to try in order.
    /// `web` gets host names, anything else addresses.
    pub fn weighted(&self, platform: &str, client_ip: IpAddr) -> NodesReply {
        let config = self.config.load();
        let region = self.region(client_ip);
        let best = self.balance.lock().choose(self.places.seen(), region, config.region_weight);
        let names =
            || best.iter().map(|comet| format!("{}{}", hostname(&comet.server, &comet.info), config.host_domain));
        let addresses = || best.iter().flat_map(|comet| &comet.info.addrs).filter(|address| !address.is_empty());
        let mut nodes: Vec<String> = match platform {
            // A host name without a domain leads nowhere when there is a domain for all.
            "web" if config.host_domain.is_empty() && !config.default_domain.is_empty() => Vec::new(),
            "web" => names().collect(),
            _ => addresses().cloned().collect(),
        };
        if nodes.is_empty() && !config.host_domain.is_empty() {
            nodes.extend(names());
        }
        if nodes.is_empty() && !config.default_domain.is_empty() {
            nodes.push(config.default_domain.clone());
        }
        NodesReply {
            domain: config.default_domain.clone(),
            tcp_port: i32::from(config.tcp_port),
            ws_port: i32::from(config.ws_port),
            wss_port: i32::from(config.wss_port),
            heartbeat: i32::try_from(config.heartbeat.as_secs()).unwrap_or(i32::MAX),
            nodes,
            backoff: Some(Backoff {
                max_delay: config.max_delay,
                base_delay: config.base_delay,
                factor: config.factor,
                jitter: config.jitter,
            }),
            heartbeat_max: config.heartbeat_max,
            tcps_port: i32::from(config.tcps_port),
        }
    }

    /// Every usable comet in the shape of goim's discovery; `None` before the first one is known. Without gRPC
    /// addresses, which goim shows to anybody who asks.
    pub fn instances(&self, env: &str) -> Option<Vec<Instance>> {
        let seen = self.places.seen();
        let usable = seen.comets.iter().filter(|(_, info)| !info.offline);
        let list: Vec<Instance> =
            usable.map(|(server, info)| Instance::new(server, &seen.placed(server, info), env)).collect();
        (!list.is_empty()).then_some(list)
    }

    /// The region of a client, empty when nobody knows. Where an address is, goim does not know either; a geolocation
    /// would be asked here for the province.
    fn region(&self, _client_ip: IpAddr) -> &str {
        let province = "";
        self.regions.get(province).map_or("", String::as_str)
    }
}

/// What a browser's host name is made of.
fn hostname<'a>(server: &'a ServerId, info: &'a CometInfo) -> &'a str {
    if info.host.is_empty() { server.as_str() } else { &info.host }
}

impl Balance {
    /// Takes over what is new of the comets, and returns the first of them for a client of this region.
    fn choose(&mut self, seen: Seen, region: &str, gain: f64) -> Vec<Weighed> {
        if !self.seen.as_ref().is_some_and(|before| before.is(&seen)) {
            let usable = seen.comets.iter().filter(|(server, info)| seen.takes_clients(server, info));
            self.comets = usable.map(|(server, info)| Weighed::new(server, info, &seen)).collect();
            self.seen = Some(seen);
        }
        let weights: i64 = self.comets.iter().map(|comet| comet.weight).sum();
        let conns: i64 = self.comets.iter().map(|comet| comet.conns).sum();
        for comet in &mut self.comets {
            let gain = if comet.info.region == region { gain } else { 1.0 };
            comet.score = score(comet.weight, comet.conns, weights, conns, gain);
        }
        self.comets.sort_by_key(|comet| std::cmp::Reverse((comet.is_updated, comet.score)));
        let best = self.comets.iter().take(FIRST).cloned().collect();
        if let Some(first) = self.comets.first_mut() {
            first.conns += 1; // the client that asks goes there: the next one is sent elsewhere in time
        }
        best
    }
}

impl Weighed {
    fn new(server: &ServerId, info: &CometInfo, seen: &Seen) -> Self {
        let info = seen.placed(server, info);
        let weight = if info.weight > 0 { info.weight } else { 1 };
        let is_updated = seen.topology.updated.iter().any(|updated| updated == server.as_str());
        Self { server: server.clone(), weight, conns: i64::from(info.conn_count), score: 0, info, is_updated }
    }
}

/// By how much a comet lacks connections for its weight; 0 for all while there are none.
fn score(weight: i64, conns: i64, all_weights: i64, all_conns: i64, gain: f64) -> i64 {
    if all_conns == 0 {
        return 0;
    }
    let fixed = weight as f64 * gain;
    let total = all_weights + fixed as i64 - weight;
    let lack = fixed / total as f64 - conns as f64 / all_conns as f64 * 0.5;
    let clients = lack * all_conns as f64;
    let rounded = if clients.floor() - clients >= -0.5 { clients.floor() } else { clients.ceil() };
    let score = (fixed + rounded) as i64;
    if lack < 0.0 { score.max(MIN_SCORE) } else { score.min(MAX_SCORE) }
}

/// One comet as goim's discovery shows it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Instance {
    region: String,
    zone: String,
    env: String,
    appid: &'static str,
    hostname: String,
    addrs: Vec<String>,
    version: &'static str,
    latest_timestamp: i64,
    metadata: BTreeMap<&'static str, String>,
}

impl Instance {
    fn new(server: &ServerId, info: &CometInfo, env: &str) -> Self {
        let metadata = [
            ("addrs", info.addrs.join(",")),
            ("conn_count", info.conn_count.to_string()),
            ("ip_count", info.ip_count.to_string()),
            ("offline", info.offline.to_string()),
            ("weight", info.weight.to_string()),
        ];
        Self {
            region: info.region.clone(),
            zone: info.zone.clone(),
            env: env.to_owned(),
            appid: "goim.comet",
            hostname: server.to_string(),
            addrs: Vec::new(),
            version: "",
            latest_timestamp: 0,
            metadata: metadata.into(),
        }
    }
}

#[cfg(test)]
mod tests;
