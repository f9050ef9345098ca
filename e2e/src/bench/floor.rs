//! What the kernel alone costs: one thread, many loopback connections, a bare `send()` to each in turn.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command};
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

/// Connections whose both ends fit in one process of 20 000 open files.
const ALONE: usize = 9000;

/// CPU microseconds per send. Beyond 9 000 connections the receivers are another `imcluster` process.
///
/// # Errors
/// When the connections cannot be made or a receiver does not keep up with a full buffer.
pub fn measure(connections: usize, window: Duration) -> anyhow::Result<f64> {
    let most = ALONE * 2;
    anyhow::ensure!((1..=most).contains(&connections), "--connections {connections}: expected 1 to {most}");
    let listener = listen()?;
    let address = listener.local_addr()?;
    let pinned = cost::cores() > 1;
    let stop = Arc::new(AtomicBool::new(false));
    let drain = if connections > ALONE {
        let mut child = drain_elsewhere(address, connections)?;
        std::thread::spawn(move || drop(child.wait()))
    } else {
        let stop = stop.clone();
        std::thread::spawn(move || drop(drain(address, connections, &stop, pinned)))
    };
    let senders = accept(&listener, connections, &drain)?;
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
                sender.write_all(&bytes).context("sending to a receiver")?;
                sends += 1;
            }
        }
    }
    Ok((os::thread_cpu() - cpu).as_secs_f64() * 1e6 / sends as f64)
}

/// Connects, then reads everything away, connection after connection, until told to stop or all are closed.
///
/// # Errors
/// When there are not so many connections to be had.
pub fn drain(address: SocketAddr, connections: usize, stop: &AtomicBool, pinned: bool) -> anyhow::Result<()> {
    // Without a second core both share one, and the figure says so by being higher.
    let _ = pinned && os::pin(0, 1).is_ok();
    let receivers = (0..connections).map(|_| {
        let receiver = TcpStream::connect(address).context("connecting to the sender")?;
        receiver.set_nonblocking(true)?;
        Ok(receiver)
    });
    let receivers = receivers.collect::<anyhow::Result<Vec<_>>>()?;
    let mut buffer = vec![0; 64 * 1024];
    while !stop.load(Ordering::SeqCst) {
        let (mut idle, mut closed) = (true, 0);
        for mut receiver in &receivers {
            loop {
                match receiver.read(&mut buffer) {
                    Ok(0) => closed += 1,
                    Ok(read) if read == buffer.len() => {
                        idle = false;
                        continue;
                    }
                    Ok(_) => idle = false,
                    Err(_) => {}
                }
                break;
            }
        }
        if closed == receivers.len() {
            return Ok(());
        }
        if idle {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(())
}

/// The other half as a process of its own, which ends when we close.
fn drain_elsewhere(address: SocketAddr, connections: usize) -> anyhow::Result<Child> {
    let mut command = Command::new(crate::program::binary()?);
    command.args(["bench", "floor", "--drain", &address.to_string(), "--connections", &connections.to_string()]);
    command.spawn().context("starting the receiving process")
}

/// With a queue that holds everybody: std's is 128 long, and who finds it full tries again after a second.
fn listen() -> anyhow::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

fn accept(
    listener: &TcpListener,
    connections: usize,
    receivers: &std::thread::JoinHandle<()>,
) -> anyhow::Result<Vec<TcpStream>> {
    listener.set_nonblocking(true)?;
    let mut senders = Vec::with_capacity(connections);
    while senders.len() < connections {
        match listener.accept() {
            Ok((sender, _)) => {
                sender.set_nonblocking(false)?;
                sender.set_nodelay(true)?;
                senders.push(sender);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                anyhow::ensure!(!receivers.is_finished(), "the receivers ended after {} connections", senders.len());
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(senders)
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
