//! What the kernel alone costs: one thread, many loopback connections, a bare `send()` to each in turn.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;

use super::cost;
use crate::os;

/// Bytes per send: a header and 64 bytes of body.
const BYTES: usize = 80;
/// Rounds between two looks at the clock need at least this many sends.
const SLICE: usize = 1000;

/// CPU microseconds per send.
///
/// # Errors
/// When the connections cannot be made or a receiver does not keep up with a full buffer.
pub fn measure(connections: usize, window: Duration) -> anyhow::Result<f64> {
    let (senders, receivers) = pairs(connections)?;
    let stop = Arc::new(AtomicBool::new(false));
    let pinned = cost::cores() > 1;
    let drain = std::thread::spawn({
        let stop = stop.clone();
        move || drain(receivers, &stop, pinned)
    });
    let sender = std::thread::spawn(move || {
        if pinned {
            os::pin(0, 0).context("pinning the sender to core 0")?;
        }
        send(&senders, window)
    });
    let answer = sender.join().map_err(|_| anyhow::anyhow!("the sending thread panicked"))?;
    stop.store(true, Ordering::SeqCst);
    drain.join().map_err(|_| anyhow::anyhow!("the draining thread panicked"))?;
    answer
}

fn send(senders: &[TcpStream], window: Duration) -> anyhow::Result<f64> {
    let (bytes, mut sends) = ([b'.'; BYTES], 0_u64);
    let (start, cpu) = (Instant::now(), os::thread_cpu());
    let rounds = SLICE.div_ceil(senders.len());
    while start.elapsed() < window {
        for _ in 0..rounds {
            for mut sender in senders {
                sender.write_all(&bytes).context("a receiver does not keep up")?;
                sends += 1;
            }
        }
    }
    Ok((os::thread_cpu() - cpu).as_secs_f64() * 1e6 / sends as f64)
}

/// Reads everything away, connection after connection, without sleeping: a full buffer would stop the sender.
fn drain(receivers: Vec<TcpStream>, stop: &AtomicBool, pinned: bool) {
    // Without a second core both share one, and the figure says so by being higher.
    let _ = pinned && os::pin(0, 1).is_ok();
    let mut buffer = vec![0; 64 * 1024];
    while !stop.load(Ordering::SeqCst) {
        let mut idle = true;
        for mut receiver in &receivers {
            while matches!(receiver.read(&mut buffer), Ok(read) if read == buffer.len()) {
                idle = false;
            }
        }
        if idle {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn pairs(connections: usize) -> anyhow::Result<(Vec<TcpStream>, Vec<TcpStream>)> {
    anyhow::ensure!(
        (1..=9500).contains(&connections),
        "--connections {connections}: expected 1 to 9500, both ends are ours"
    );
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address: SocketAddr = listener.local_addr()?;
    let (mut senders, mut receivers) = (Vec::new(), Vec::new());
    for _ in 0..connections {
        let receiver = TcpStream::connect(address).context("connecting to ourselves")?;
        receiver.set_nonblocking(true)?;
        receivers.push(receiver);
        let (sender, _) = listener.accept()?;
        sender.set_nodelay(true)?;
        senders.push(sender);
    }
    Ok((senders, receivers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_send_costs_something_and_not_a_second() {
        let cost = measure(10, Duration::from_millis(200)).unwrap();
        assert!(cost > 0.1 && cost < 1e6, "{cost}");
        assert!(measure(0, Duration::ZERO).is_err());
    }
}
