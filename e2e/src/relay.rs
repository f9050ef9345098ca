//! An address in front of a server that stays when the server becomes another one, as a Service's does, and a line that
//! breaks where a test wants it to.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Carries bytes there and back until it is dropped.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    /// What a client says that is not to hear the answer.
    cut: Option<&'static str>,
}

impl Relay {
    /// Listens on a port that the kernel gives and leads to this address.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn start(target: SocketAddr) -> std::io::Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0").await?;
        let address = port.local_addr()?;
        let shared = Arc::new(Mutex::new(Shared { target, cut: None }));
        let accepting = tokio::spawn(accept(port, shared.clone()));
        Ok(Self { address, shared, accepting })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Who connects from now on gets there. Connections that are there stay, and are told nothing.
    pub fn lead_to(&self, target: SocketAddr) {
        self.shared.lock().target = target;
    }

    /// The next client that says this is heard, and its connection breaks when the answer comes.
    pub fn cut_answer_to(&self, text: &'static str) {
        self.shared.lock().cut = Some(text);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(port: TcpListener, shared: Arc<Mutex<Shared>>) {
    // A port that accepts nothing any more shows in what the test waits for.
    while let Ok((client, _)) = port.accept().await {
        tokio::spawn(carry(client, shared.clone()));
    }
}

/// Either end gone, or the cut: both connections are dropped.
async fn carry(mut client: TcpStream, shared: Arc<Mutex<Shared>>) -> std::io::Result<()> {
    let target = shared.lock().target;
    let mut server = TcpStream::connect(target).await?;
    let (mut asked, mut answered) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    let mut is_cut = false;
    loop {
        tokio::select! {
            read = client.read(&mut asked) => match read? {
                0 => return Ok(()),
                read => {
                    let said = String::from_utf8_lossy(&asked[..read]);
                    is_cut |= shared.lock().cut.take_if(|text| said.contains(*text)).is_some();
                    server.write_all(&asked[..read]).await?;
                }
            },
            read = server.read(&mut answered) => match read? {
                0 => return Ok(()),
                _ if is_cut => return Ok(()),
                read => client.write_all(&answered[..read]).await?,
            },
        }
    }
}
