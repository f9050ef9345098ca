//! How much of this server anyone may take: connections in all and per address, new connections per second, and what
//! one connection may send. Every place taken is a guard; dropping it gives the place back.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;

use crate::config::Config;

/// Connections of one address of the internet, when nothing else is said: more than any household, office or operator's
/// gateway has at one comet, and a hundredth of what a comet can hold.
const MOST_PER_ADDRESS: usize = 10_000;
/// Locks that the addresses are spread over, so that shards rarely meet.
const PARTS: usize = 16;

/// What was refused or went wrong before a connection had a session. Cheap to clone: clones count together.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Sockets accepted.
    pub accepted: Counter,
    /// Times that accepting failed.
    pub accept_errors: Counter,
    /// Closed at once: too many connections in all.
    pub over_connections: Counter,
    /// Closed at once: too many new connections in a second.
    pub over_handshakes: Counter,
    /// Refused after the handshake: too many from one address.
    pub over_address: Counter,
}

/// The limits of one comet and how much of them is taken. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Limits {
    shared: Arc<Shared>,
    /// What was refused.
    pub counts: Counts,
}

#[derive(Debug)]
struct Shared {
    max_connections: AtomicUsize,
    max_per_address: AtomicUsize,
    max_per_private_address: AtomicUsize,
    connections: AtomicUsize,
    /// `None` = no limit.
    handshakes: Mutex<Option<Bucket>>,
    started: Instant,
    distinct: AtomicUsize,
    addresses: [Mutex<ahash::HashMap<IpAddr, usize>>; PARTS],
}

impl Limits {
    /// The limits that `config` names.
    pub fn new(config: &Config) -> Self {
        let limits = Self {
            shared: Arc::new(Shared {
                max_connections: AtomicUsize::new(0),
                max_per_address: AtomicUsize::new(0),
                max_per_private_address: AtomicUsize::new(0),
                connections: AtomicUsize::new(0),
                handshakes: Mutex::new(None),
                started: Instant::now(),
                distinct: AtomicUsize::new(0),
                addresses: Default::default(),
            }),
            counts: Counts::default(),
        };
        limits.apply(config);
        limits
    }

    /// From now on these; whoever is here stays.
    pub fn apply(&self, config: &Config) {
        let limit = |count| if count == 0 { usize::MAX } else { count };
        let files = runtime::admin::max_fds().and_then(|files| usize::try_from(files).ok());
        let connections = if config.max_connections == 0 { for_files(files) } else { config.max_connections };
        self.shared.max_connections.store(connections, Ordering::Relaxed);
        let (public, private) = match config.max_per_address {
            Some(most) => (limit(most), limit(most)),
            None => (MOST_PER_ADDRESS, usize::MAX),
        };
        self.shared.max_per_address.store(public, Ordering::Relaxed);
        self.shared.max_per_private_address.store(private, Ordering::Relaxed);
        let rate = config.handshakes_per_second;
        let mut handshakes = self.shared.handshakes.lock();
        // The same rate again gives nobody a fresh second.
        if handshakes.map_or(0, |bucket| bucket.rate) != rate {
            let now = self.shared.started.elapsed().as_millis() as u32;
            *handshakes = (rate > 0).then(|| Bucket { at_ms: now, ..Bucket::full(rate) });
        }
    }

    /// A place for one more connection; `None`, counted, when there is none or when they come too fast.
    pub fn enter(&self) -> Option<Permit> {
        let shared = &self.shared;
        if shared.connections.fetch_add(1, Ordering::Relaxed) >= shared.max_connections.load(Ordering::Relaxed) {
            shared.connections.fetch_sub(1, Ordering::Relaxed);
            self.counts.over_connections.inc();
            return None;
        }
        let permit = Permit { shared: shared.clone() };
        if let Some(handshakes) = &mut *shared.handshakes.lock() {
            let now = shared.started.elapsed().as_millis() as u32;
            if !handshakes.take(now, 1) {
                self.counts.over_handshakes.inc();
                return None;
            }
        }
        Some(permit)
    }

    /// A place for one more connection of this client address; `None`, counted, when it has all it may have.
    pub fn admit(&self, address: IpAddr) -> Option<AddressPermit> {
        let shared = &self.shared;
        let limit = if is_private(address) { &shared.max_per_private_address } else { &shared.max_per_address };
        let mut part = shared.part(address).lock();
        let count = part.entry(address).or_insert(0);
        if *count >= limit.load(Ordering::Relaxed) {
            self.counts.over_address.inc();
            return None;
        }
        if *count == 0 {
            shared.distinct.fetch_add(1, Ordering::Relaxed);
        }
        *count += 1;
        Some(AddressPermit { shared: shared.clone(), address })
    }

    /// Connections now, handshakes included.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Distinct client addresses now: goim's `ip_count`.
    pub fn addresses(&self) -> usize {
        self.shared.distinct.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn part(&self, address: IpAddr) -> &Mutex<ahash::HashMap<IpAddr, usize>> {
        let hash = match address {
            IpAddr::V4(four) => u64::from(four.to_bits()),
            IpAddr::V6(six) => (six.to_bits() >> 64) as u64 ^ six.to_bits() as u64,
        };
        // Fibonacci hashing: neighbours go to different parts.
        &self.addresses[(hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60) as usize % PARTS]
    }
}

/// As many connections as there may be open files, less what everything else needs.
fn for_files(files: Option<usize>) -> usize {
    files.map_or(usize::MAX, |files| files - files.min((files / 10).clamp(64, 1024)))
}

/// Whether an address is of no one client: of a private network, where it is a proxy's or a node's more often.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(four) => {
            let is_shared = four.octets()[0] == 100 && four.octets()[1] & 0xc0 == 64; // RFC 6598
            four.is_private() || four.is_loopback() || four.is_link_local() || is_shared
        }
        IpAddr::V6(six) => six.is_loopback() || six.is_unique_local() || six.is_unicast_link_local(),
    }
}

/// One connection's place; dropping it gives it back.
#[derive(Debug)]
pub struct Permit {
    shared: Arc<Shared>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shared.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One connection's place among those of its address; dropping it gives it back.
#[derive(Debug)]
pub struct AddressPermit {
    shared: Arc<Shared>,
    address: IpAddr,
}

impl Drop for AddressPermit {
    fn drop(&mut self) {
        let mut part = self.shared.part(self.address).lock();
        let Some(count) = part.get_mut(&self.address) else { return };
        *count -= 1;
        if *count == 0 {
            part.remove(&self.address);
            self.shared.distinct.fetch_sub(1, Ordering::Relaxed);
            // Memory of a flood of addresses is given back.
            if part.capacity() > 1024 && part.len() < part.capacity() / 8 {
                part.shrink_to_fit();
            }
        }
    }
}

/// Tokens that come back at a rate per second; a second's worth at most.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Thousandths of a token.
    left: u64,
    rate: u32,
    at_ms: u32,
}

impl Bucket {
    fn full(rate: u32) -> Self {
        Self { left: u64::from(rate) * 1000, rate, at_ms: 0 }
    }

    fn take(&mut self, now_ms: u32, tokens: u64) -> bool {
        let most = u64::from(self.rate) * 1000;
        let elapsed = u64::from(now_ms.wrapping_sub(self.at_ms));
        self.at_ms = now_ms;
        self.left = most.min(self.left + elapsed * u64::from(self.rate));
        let Some(left) = self.left.checked_sub(tokens * 1000) else { return false };
        self.left = left;
        true
    }
}

/// What one connection may send per second, in packets and in bytes; a second's worth at most at once. 24 bytes.
#[derive(Clone, Copy, Debug)]
pub struct FrameBudget {
    /// Thousandths of a byte.
    bytes_left: u64,
    /// Thousandths of a packet.
    frames_left: u32,
    frames_rate: u32,
    bytes_rate: u32,
    at_ms: u32,
}

impl FrameBudget {
    /// A full budget; a rate of 0 is no limit. At least one packet of the greatest length always fits.
    pub fn new(frames_per_second: u32, bytes_per_second: usize, now_ms: u32) -> Self {
        let frames_rate = frames_per_second.min(u32::MAX / 1000);
        let bytes_rate = u32::try_from(bytes_per_second).unwrap_or(u32::MAX);
        let budget = Self { bytes_left: 0, frames_left: frames_rate * 1000, frames_rate, bytes_rate, at_ms: now_ms };
        Self { bytes_left: budget.most_bytes(), ..budget }
    }

    /// Takes one packet of `bytes` at `now_ms` (any clock that starts anywhere and wraps); false = it is too much.
    pub fn take(&mut self, now_ms: u32, bytes: usize) -> bool {
        let elapsed = u64::from(now_ms.wrapping_sub(self.at_ms));
        self.at_ms = now_ms;
        let frames = u64::from(self.frames_left) + elapsed * u64::from(self.frames_rate);
        // The rate is bounded so that a second's worth fits.
        self.frames_left = frames.min(u64::from(self.frames_rate) * 1000) as u32;
        self.bytes_left = self.most_bytes().min(self.bytes_left + elapsed * u64::from(self.bytes_rate));
        if self.frames_rate > 0 {
            let Some(left) = self.frames_left.checked_sub(1000) else { return false };
            self.frames_left = left;
        }
        if self.bytes_rate > 0 {
            let Some(left) = self.bytes_left.checked_sub(bytes as u64 * 1000) else { return false };
            self.bytes_left = left;
        }
        true
    }

    fn most_bytes(&self) -> u64 {
        let largest = (proto::packet::HEADER_LEN + proto::packet::MAX_BODY) as u64;
        u64::from(self.bytes_rate).max(largest) * 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(max_connections: usize, max_per_address: usize, handshakes_per_second: u32) -> Limits {
        let config = crate::config::for_tests();
        let max_per_address = Some(max_per_address);
        Limits::new(&Config { max_connections, max_per_address, handshakes_per_second, ..config })
    }

    #[test]
    fn with_nothing_said_there_are_places_for_the_files_there_are_and_one_address_cannot_have_all() {
        for (files, places) in [(1024, 922), (20_000, 18_976), (1_048_576, 1_047_552), (100, 36), (10, 0)] {
            assert_eq!(for_files(Some(files)), places, "{files}");
        }
        assert_eq!(for_files(None), usize::MAX);
        let limits = Limits::new(&crate::config::for_tests());
        let connections = limits.shared.max_connections.load(Ordering::Relaxed);
        assert_eq!(Some(connections), runtime::admin::max_fds().map(|files| for_files(Some(files as usize))));
        let admitted = |address: &str| {
            let address = address.parse().unwrap();
            (0..MOST_PER_ADDRESS + 1).map_while(|_| limits.admit(address)).collect::<Vec<_>>().len()
        };
        for address in ["9.9.9.9", "172.32.0.1", "100.128.0.1", "192.169.0.1", "2001:db8::1", "::2"] {
            assert_eq!(admitted(address), MOST_PER_ADDRESS, "{address}");
        }
        for address in ["10.0.0.1", "172.16.0.1", "192.168.1.1", "127.0.0.1", "100.64.0.1", "169.254.1.1", "fd00::1"] {
            assert_eq!(admitted(address), MOST_PER_ADDRESS + 1, "{address}: a proxy, more often than not");
        }
    }

    #[test]
    fn limits_may_change_and_whoever_is_here_stays() {
        let config = crate::config::for_tests_with;
        let limits = Limits::new(&config(&["--max-connections", "1"]));
        let first = limits.enter().unwrap();
        assert!(limits.enter().is_none());
        limits.apply(&config(&["--max-connections", "2", "--max-per-address", "1", "--handshakes-per-second", "1"]));
        let second = limits.enter().unwrap();
        let here = limits.admit([10, 0, 0, 1].into()).unwrap();
        assert!(limits.admit([10, 0, 0, 1].into()).is_none());
        drop(second);
        assert!(limits.enter().is_none(), "one a second");
        assert_eq!((limits.counts.over_connections.get(), limits.counts.over_handshakes.get()), (1, 1));
        limits.apply(&config(&["--handshakes-per-second", "0"]));
        let more: Vec<_> = (0..10).map(|_| limits.enter().unwrap()).collect();
        assert_eq!((limits.connections(), limits.addresses()), (11, 1));
        drop((first, here, more));
    }

    #[test]
    fn a_place_is_free_again_when_its_connection_is_gone() {
        let limits = limits(2, 0, 0);
        let first = limits.enter().unwrap();
        let _second = limits.enter().unwrap();
        assert!(limits.enter().is_none());
        assert_eq!((limits.connections(), limits.counts.over_connections.get()), (2, 1));
        drop(first);
        assert!(limits.enter().is_some());
    }

    #[test]
    fn an_address_has_its_own_limit_and_addresses_are_counted_once() {
        let limits = limits(0, 2, 0);
        let [one, two]: [IpAddr; 2] = [[10, 0, 0, 1].into(), "2001:db8::1".parse().unwrap()];
        let places = [limits.admit(one), limits.admit(one), limits.admit(two)];
        assert!(places.iter().all(Option::is_some));
        assert!(limits.admit(one).is_none());
        assert_eq!((limits.addresses(), limits.counts.over_address.get()), (2, 1));
        drop(places);
        assert_eq!(limits.addresses(), 0);
        assert!(limits.admit(one).is_some());
    }

    #[test]
    fn a_second_of_handshakes_may_come_at_once_and_no_more() {
        let limits = limits(0, 0, 3);
        let entered: Vec<_> = (0..5).map(|_| limits.enter()).collect();
        assert_eq!(entered.iter().flatten().count(), 3);
        assert_eq!(limits.connections(), 3, "what was refused holds no place");
        assert_eq!(limits.counts.over_handshakes.get(), 2);
    }

    #[test]
    fn tokens_come_back_at_the_rate_also_in_steps_of_a_millisecond() {
        let mut bucket = Bucket::full(100);
        assert!((0..100).all(|_| bucket.take(0, 1)) && !bucket.take(0, 1));
        let taken = (1..=1000).filter(|now| bucket.take(*now, 1)).count();
        assert_eq!(taken, 100);
    }

    #[test]
    fn a_frame_budget_bounds_packets_and_bytes_and_survives_a_wrapping_clock() {
        assert!(size_of::<FrameBudget>() <= 24);
        let start = u32::MAX - 10;
        let mut frames = FrameBudget::new(10, 0, start);
        assert!((0..10).all(|_| frames.take(start, 5000)) && !frames.take(start, 0));
        assert!(frames.take(start.wrapping_add(100), 0) && !frames.take(start.wrapping_add(100), 0));

        let mut bytes = FrameBudget::new(0, 1000, 0);
        assert!(bytes.take(0, 4112), "one packet of the greatest length always fits");
        assert!(!bytes.take(0, 1));
        assert!(bytes.take(1000, 1000) && !bytes.take(1000, 1));

        let mut free = FrameBudget::new(0, 0, 0);
        assert!((0..10_000).all(|_| free.take(0, 1 << 30)));
    }
}
