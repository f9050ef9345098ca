//! Where the comets are and which of them take clients: what they say of themselves, what discovery says of their pods,
//! and what the topology file says of zones.
//!
//! Discovery can only take comets off the list: those whose pod is listed and not ready, or on its way out, or not listed
//! at all. Where it names no pods (a fixed list, DNS), or nothing at all, the comets' own word stands.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use proto::ServerId;
use proto::logic::CometInfo;
use proto::peers::{Followed, Peer};
use runtime::pod::{Topology, server_id};
use runtime::watched::Watched;

use crate::online::Online;

/// How often the topology file is looked at.
const LOOK: Duration = Duration::from_millis(500);

type Comets = Arc<Vec<(ServerId, CometInfo)>>;

/// The comets and where they are. Cheap to clone; all clones see the same.
#[derive(Clone, Debug)]
pub struct Places {
    online: Online,
    discovery: Option<Followed>,
    listed: Arc<ArcSwap<Listed>>,
    topology: Arc<ArcSwap<Topology>>,
}

/// A list of discovery, and by server id what it says.
#[derive(Debug, Default)]
struct Listed {
    peers: Option<Arc<[Peer]>>,
    pods: HashMap<String, usize>,
}

/// What was known at one moment.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Every comet that keeps telling of itself.
    pub comets: Comets,
    listed: Arc<Listed>,
    /// What the file says.
    pub topology: Arc<Topology>,
}

impl Places {
    /// The comets that `online` knows, as far as discovery, if there is any, lists them.
    pub fn new(online: Online, discovery: Option<Followed>) -> Self {
        Self { online, discovery, listed: Arc::default(), topology: Arc::default() }
    }

    /// What is known now.
    pub fn seen(&self) -> Seen {
        let mut listed = self.listed.load_full();
        let peers = self.discovery.as_ref().map(|discovery| discovery.peers.borrow().clone());
        let is_news = match (&listed.peers, &peers) {
            (Some(before), Some(now)) => !Arc::ptr_eq(before, now),
            (before, now) => before.is_some() != now.is_some(),
        };
        if is_news {
            listed = Arc::new(Listed::new(peers));
            self.listed.store(listed.clone());
        }
        Seen { comets: self.online.comets(), listed, topology: self.topology.load_full() }
    }

    /// Looks at the topology file again and again, for as long as it is polled. One that is of no use changes nothing.
    pub async fn follow(self, path: PathBuf) {
        let mut file = Watched::new(path);
        loop {
            match file.news().map_err(|error| error.to_string()).and_then(|news| news.map(parse).transpose()) {
                Ok(None) => {}
                Ok(Some(topology)) => {
                    tracing::info!(zones = topology.zones.len(), updated = topology.updated.len(), "topology read");
                    self.topology.store(Arc::new(topology));
                }
                Err(error) => {
                    tracing::error!(file = %file.path().display(), error, "topology is of no use, the old one stays");
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    #[cfg(test)]
    pub(crate) fn set_topology(&self, text: &str) {
        self.topology.store(Arc::new(parse(text.as_bytes().to_vec()).unwrap()));
    }
}

fn parse(bytes: Vec<u8>) -> Result<Topology, String> {
    let text = String::from_utf8(bytes).map_err(|_| "expected UTF-8".to_owned())?;
    toml::from_str(&text).map_err(|error| error.to_string().trim().replace('\n', " "))
}

impl Listed {
    fn new(peers: Option<Arc<[Peer]>>) -> Self {
        let list = peers.iter().flat_map(|peers| peers.iter().enumerate());
        let id = |(at, peer): (usize, &Peer)| peer.pod.as_ref().map(|pod| (server_id(&pod.name, &pod.uid), at));
        let pods = list.filter_map(id).collect();
        Self { peers, pods }
    }

    fn peer(&self, server: &ServerId) -> Option<&Peer> {
        self.peers.as_ref()?.get(*self.pods.get(server.as_str())?)
    }
}

impl Seen {
    /// Whether nothing changed between the two.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.comets, &other.comets)
            && Arc::ptr_eq(&self.listed, &other.listed)
            && Arc::ptr_eq(&self.topology, &other.topology)
    }

    /// Whether a client may be sent there.
    pub fn takes_clients(&self, server: &ServerId, info: &CometInfo) -> bool {
        let is_listed = match self.listed.peer(server) {
            Some(peer) => peer.ready && !peer.terminating,
            None => self.listed.pods.is_empty(),
        };
        is_listed && !info.offline && !info.draining
    }

    /// What a comet says of itself, with the zone its pod is in and what the file says of that.
    pub fn placed(&self, server: &ServerId, info: &CometInfo) -> CometInfo {
        let mut info = info.clone();
        if let Some(zone) = self.listed.peer(server).and_then(|peer| peer.zone.clone()) {
            info.zone = zone;
        }
        if let Some(zone) = self.topology.zones.get(&info.zone) {
            info.region = zone.region.clone().unwrap_or(info.region);
            info.weight = zone.weight.unwrap_or(info.weight);
        }
        info
    }
}

#[cfg(test)]
mod tests {
    use proto::peers::{Pod, Source};

    use super::*;

    fn info(region: &str) -> CometInfo {
        CometInfo { region: region.into(), weight: 10, ..CometInfo::default() }
    }

    fn pod(number: u32, ready: bool, terminating: bool) -> Peer {
        let pod = Pod { name: format!("c-{number}"), uid: format!("{number}2345678-rest") };
        Peer { ready, terminating, zone: Some("z1".into()), pod: Some(pod), ..Peer::at(format!("10.0.0.{number}:1")) }
    }

    fn places(peers: Option<Vec<Peer>>) -> Places {
        let _guard = tokio::runtime::Handle::current();
        Places::new(Online::default(), peers.map(|peers| proto::peers::watch(Source::Fixed(peers))))
    }

    #[tokio::test]
    async fn only_comets_whose_pod_is_listed_as_ready_and_stays_take_clients() {
        let peers = vec![pod(1, true, false), pod(2, false, false), pod(3, false, true), pod(4, true, true)];
        let seen = places(Some(peers)).seen();
        let takes = |server: &str| seen.takes_clients(&server.into(), &info(""));
        assert!(takes("c-1.12345678"));
        for other in ["c-2.22345678", "c-3.32345678", "c-4.42345678", "c-1.99999999", "c-5.52345678"] {
            assert!(!takes(other), "{other}");
        }
        let refused = [CometInfo { offline: true, ..info("") }, CometInfo { draining: true, ..info("") }];
        assert!(refused.iter().all(|info| !seen.takes_clients(&"c-1.12345678".into(), info)));
    }

    #[tokio::test]
    async fn a_source_without_pods_and_none_at_all_take_nobody_off() {
        for peers in [None, Some(vec![]), Some(vec![Peer::at("h:1")])] {
            assert!(places(peers.clone()).seen().takes_clients(&"h1".into(), &info("")), "{peers:?}");
        }
    }

    #[tokio::test]
    async fn region_and_weight_are_those_of_the_pods_zone() {
        let places = places(Some(vec![pod(1, true, false)]));
        let before = places.seen();
        places.set_topology("[zones.z1]\nregion = \"bj\"\nweight = 3\n[zones.z2]\nregion = \"sh\"\n");
        let seen = places.seen();
        assert!(!seen.is(&before) && seen.is(&places.seen()));
        let placed = seen.placed(&"c-1.12345678".into(), &info("said"));
        assert_eq!((placed.zone.as_str(), placed.region.as_str(), placed.weight), ("z1", "bj", 3));
        let elsewhere = seen.placed(&"h1".into(), &CometInfo { zone: "z2".into(), ..info("said") });
        assert_eq!((elsewhere.region.as_str(), elsewhere.weight), ("sh", 10));
        assert_eq!(seen.placed(&"h1".into(), &info("said")), info("said"));
    }

    #[tokio::test]
    async fn the_file_is_read_when_it_appears_and_a_bad_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("topology.toml");
        let places = places(None);
        let following = tokio::spawn(places.clone().follow(path.clone()));
        let updated = async |expected: &str| {
            let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
            while places.seen().topology.updated != [expected] {
                assert!(tokio::time::Instant::now() < deadline, "{expected} is never read");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let write = |text: &str| {
            std::fs::write(folder.path().join("new"), text).unwrap();
            std::fs::rename(folder.path().join("new"), &path).unwrap();
        };
        write("updated = [\"c-1\"]");
        updated("c-1").await;
        write("updated = 7");
        tokio::time::sleep(LOOK * 3).await;
        updated("c-1").await;
        write("updated = [\"c-2\"]");
        updated("c-2").await;
        following.abort();
    }
}
