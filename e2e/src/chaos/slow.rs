//! Readers that do not read: they come in, are sent more than the kernel and comet keep for them, and leave at the end.
//! Those that can be told of a gap are, the others are cut off.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use proto::op;
use tokio::time::{sleep, timeout};

use crate::bench::push::{http, post};
use crate::bench::stream::OPERATION;
use crate::client::{Client, Dial, Received, Target};

/// How many come.
const READERS: usize = 5;
/// What each of them is sent: 64 times 128 KiB. The kernel keeps up to some MiB for a connection, comet 256 KiB.
const BODY: usize = 128 << 10;
const BODIES: usize = 64;
/// How long one of them waits for anything.
const PATIENCE: Duration = Duration::from_secs(5);

/// What became of readers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slow {
    /// They were closed.
    pub cut: usize,
    /// They were told of a gap (op 23).
    pub told: usize,
}

/// Clogs a comet by its number. Readers that are not let in, and pushes that are refused, because something else is broken
/// at the time, are done without.
pub(super) async fn readers(comet: usize, target: &Target, logic: SocketAddr, lasts: Duration) -> Slow {
    let mut readers = Vec::new();
    for number in 0..READERS {
        let mid = 1_000_000 + comet * READERS + number;
        let caps = if number % 2 == 0 { "" } else { r#","caps":["rooms"]"# };
        let room = format!("slow://{comet}");
        let token = format!(r#"{{"mid":{mid},"key":"slow-{mid}","room_id":"{room}","accepts":[{OPERATION}]{caps}}}"#);
        let enter = async {
            let mut client = Client::connect(target, &Dial::default()).await?;
            client.auth(token).await?;
            anyhow::Ok(client)
        };
        readers.extend(timeout(PATIENCE, enter).await.ok().and_then(Result::ok));
    }
    // Whatever comes of the pushes, they stay for as long.
    let (_, ()) = tokio::join!(push(comet, logic), sleep(lasts));
    let mut all = Slow::default();
    for reader in readers {
        let one = read(reader).await;
        all = Slow { cut: all.cut + one.cut, told: all.told + one.told };
    }
    all
}

async fn push(comet: usize, logic: SocketAddr) -> anyhow::Result<()> {
    let path = format!("/goim/push/room?operation={OPERATION}&type=slow&room={comet}");
    let body = bytes::Bytes::from(vec![b'.'; BODY]);
    let mut sender = http(logic).await?;
    for _ in 0..BODIES {
        let pushed = post(&mut sender, "logic", None, &path, body.clone());
        timeout(PATIENCE, pushed).await.context("no answer")??;
    }
    Ok(())
}

/// Reads at last what is there, until the connection ends, a gap is told, or everything was.
async fn read(mut reader: Client) -> Slow {
    for _ in 0..BODIES {
        match timeout(PATIENCE, reader.next()).await {
            Ok(Ok(Received::Closed(_)) | Err(_)) => return Slow { cut: 1, told: 0 },
            Ok(Ok(Received::Packet(packet))) if packet.op == op::GAP => return Slow { cut: 0, told: 1 },
            Ok(Ok(_)) => {}
            Err(_) => break,
        }
    }
    Slow::default()
}
