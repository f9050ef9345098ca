//! Ports to listen on that nobody else has: below the range the kernel takes for outgoing connections, and locked
//! against test processes that look for one at the same time.

use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::Context;

const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// A port of 127.0.0.1, or of a host of its own, that is ours until this is dropped, whether something listens on it or
/// not.
#[derive(Debug)]
pub struct Port {
    host: Ipv4Addr,
    number: u16,
    _lock: File,
}

impl Port {
    /// Takes the next free one.
    ///
    /// # Errors
    /// When none of 20000–31999 is free.
    pub fn free() -> anyhow::Result<Self> {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let offset = (std::process::id() % u32::from(COUNT)) as u16;
        let locks = std::env::temp_dir().join("imcluster-ports");
        std::fs::create_dir_all(&locks).with_context(|| format!("make {}", locks.display()))?;
        for _ in 0..COUNT {
            let step = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
            if let Some(port) = Self::take(FIRST + (offset + step) % COUNT, &locks)? {
                return Ok(port);
            }
        }
        anyhow::bail!("no free port in {FIRST}..{}: end what listens there", FIRST + COUNT)
    }

    /// This one, unless somebody has it or listens on it.
    fn take(number: u16, locks: &Path) -> anyhow::Result<Option<Self>> {
        let path = locks.join(number.to_string());
        let lock = OpenOptions::new().create(true).append(true).open(&path);
        let lock = lock.with_context(|| format!("open {}", path.display()))?;
        let free = lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok();
        Ok(free.then_some(Self { host: Ipv4Addr::LOCALHOST, number, _lock: lock }))
    }

    /// The same one of another host, where nobody else listens.
    pub(crate) fn of(self, host: Ipv4Addr) -> Self {
        Self { host, ..self }
    }

    /// The number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// The port on its host.
    pub fn address(&self) -> SocketAddr {
        (self.host, self.number).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_given_once_and_below_the_outgoing_range() {
        let ports: Vec<_> = (0..50).map(|_| Port::free().unwrap()).collect();
        let mut numbers: Vec<_> = ports.iter().map(Port::number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 50);
        assert!(numbers.iter().all(|n| *n < 32_768));
    }

    #[test]
    fn a_port_is_taken_when_somebody_has_it_or_listens_on_it() {
        let locks = tempfile::tempdir().unwrap();
        let ours = Port::free().unwrap();
        let number = ours.number();
        let had = Port::take(number, locks.path()).unwrap().unwrap();
        assert!(Port::take(number, locks.path()).unwrap().is_none());
        drop(had);
        let listens = TcpListener::bind((Ipv4Addr::LOCALHOST, number)).unwrap();
        assert!(Port::take(number, locks.path()).unwrap().is_none());
        drop(listens);
        assert!(Port::take(number, locks.path()).unwrap().is_some());
    }
}
