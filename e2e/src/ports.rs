//! Ports to listen on that nobody else has: below the range the kernel takes for outgoing connections, and locked
//! against test processes that look for one at the same time.

use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::Context;

const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// A port of 127.0.0.1 that is ours until this is dropped, whether something listens on it or not.
#[derive(Debug)]
pub struct Port {
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
            let number = FIRST + (offset + step) % COUNT;
            let path = locks.join(number.to_string());
            let lock = OpenOptions::new().create(true).append(true).open(&path);
            let lock = lock.with_context(|| format!("open {}", path.display()))?;
            if lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Ok(Self { number, _lock: lock });
            }
        }
        anyhow::bail!("no free port in {FIRST}..{}: end what listens there", FIRST + COUNT)
    }

    /// The number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// The port on 127.0.0.1.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.number).into()
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
    fn a_port_somebody_listens_on_is_not_given() {
        let port = Port::free().unwrap();
        let _held = TcpListener::bind(port.address()).unwrap();
        let number = port.number();
        drop(port);
        assert!((0..COUNT / 100).all(|_| Port::free().unwrap().number() != number));
    }
}
