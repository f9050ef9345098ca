//! Holds packets back: what the kernel routes into a device (TUN) of ours is given back to it a moment later, in order.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until};

/// The longest packet there is.
const PACKET: usize = 65_535;

/// Gives each packet back so much later, until the task is aborted. What is held is bounded by the windows of those who
/// talk.
///
/// # Errors
/// When the device is gone.
pub(super) async fn hold(device: AsyncFd<File>, late: Duration) -> io::Result<()> {
    let (mut held, mut packet) = (VecDeque::<(Instant, Vec<u8>)>::new(), vec![0; PACKET]);
    loop {
        let due = held.front().map_or_else(Instant::now, |(due, _)| *due);
        tokio::select! {
            ready = device.readable() => {
                let read = ready?.try_io(|device| device.get_ref().read(&mut packet));
                if let Ok(read) = read {
                    held.push_back((Instant::now() + late, packet[..read?].to_vec()));
                }
            }
            () = sleep_until(due), if !held.is_empty() => {
                if let Some((_, packet)) = held.pop_front() {
                    // What the kernel does not take is lost, as on any line.
                    let _ = device.get_ref().write(&packet);
                }
            }
        }
    }
}
