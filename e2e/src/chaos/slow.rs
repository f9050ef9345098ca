//! Readers that do not read: they come in, are sent more than the kernel and comet keep for them, and leave at the end.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
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

/// Clogs a comet by its number; returns how many of them were cut off. Those that are not let in, and pushes that are
/// refused, because something else is broken at the time, are done without.
pub(super) async fn readers(comet: usize, target: &Target, logic: SocketAddr, lasts: Duration) -> usize {
    let mut readers = Vec::new();
    for number in 0..READERS {
        let mid = 1_000_000 + comet * READERS + number;
        let token = format!(r#"{{"mid":{mid},"key":"slow-{mid}","room_id":"slow://{comet}","accepts":[{OPERATION}]}}"#);
        let enter = async {
            let mut client = Client::connect(target, &Dial::default()).await?;
            client.auth(token).await?;
            anyhow::Ok(client)
        };
        readers.extend(timeout(PATIENCE, enter).await.ok().and_then(Result::ok));
    }
    // Whatever comes of the pushes, they stay for as long.
    let (_, ()) = tokio::join!(push(comet, logic), sleep(lasts));
    let mut cut = 0;
    for mut reader in readers {
        cut += usize::from(is_cut(&mut reader).await);
    }
    cut
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

/// Reads at last what is there; whether the connection ends before everything was.
async fn is_cut(reader: &mut Client) -> bool {
    for _ in 0..BODIES {
        match timeout(PATIENCE, reader.next()).await {
            Ok(Ok(Received::Closed(_)) | Err(_)) => return true,
            Ok(Ok(_)) => {}
            Err(_) => return false,
        }
    }
    false
}
