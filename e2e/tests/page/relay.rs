//! A wire between page and comet that a test can cut.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Passes bytes on, both ways, until it is cut.
pub struct Relay {
    cuts: watch::Sender<u32>,
    accepting: JoinHandle<()>,
}

impl Relay {
    /// Listens at `here` and passes every connection on to `there`.
    pub async fn start(here: SocketAddr, there: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(here).await?;
        let cuts = watch::Sender::new(0);
        let of_ours = cuts.clone();
        let accepting = tokio::spawn(async move {
            loop {
                let Ok((mut near, _)) = listener.accept().await else { continue };
                let mut cut = of_ours.subscribe();
                tokio::spawn(async move {
                    // Without the far side the near one is closed by being dropped, as a dead host's would be.
                    let Ok(mut far) = TcpStream::connect(there).await else { return };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Ok(Self { cuts, accepting })
    }

    /// Cuts every connection there is. Returns how many there were.
    pub fn cut(&self) -> usize {
        let open = self.cuts.receiver_count();
        self.cuts.send_modify(|cuts| *cuts += 1);
        open
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
