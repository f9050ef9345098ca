//! The least of an HTTP client: bytes out, bytes in.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Names as they were written.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    /// The header of exactly this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Status, content type and body, which must be all of it.
    #[track_caller]
    pub fn is(&self, status: u16, content_type: &str, body: &str) {
        assert_eq!(
            (self.status, self.header("Content-Type").unwrap_or_default(), self.body.as_str()),
            (status, content_type, body)
        );
        assert_eq!(self.header("Content-Length"), Some(body.len().to_string().as_str()));
    }
}

/// One request on a connection of its own.
pub async fn ask(address: SocketAddr, method: &str, target: &str, headers: &str, body: &[u8]) -> Answer {
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: logic\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    );
    raw(address, &[head.as_bytes(), body].concat()).await
}

/// These bytes on a connection of their own, and what comes back until it is closed.
pub async fn raw(address: SocketAddr, bytes: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // A server that answers before the body is in may close while we still write.
    let _early = stream.write_all(bytes).await;
    read(&mut stream).await
}

/// What comes back until the connection is closed.
pub async fn read(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    let _reset = stream.read_to_end(&mut bytes).await;
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").expect("an answer");
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.map(|line| line.split_once(": ").unwrap()).map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
    Answer { status, headers, body: body.to_owned() }
}
