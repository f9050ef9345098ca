//! The WebSocket upgrade (RFC 6455 §4.2), read by hyper's parser and answered in goim's four lines. Frames are
//! `proto::frame`'s.
//!
//! The request is parsed once, when its end has arrived, whatever the pieces it came in. A whole HTTP server would spell
//! `Sec-Websocket-Accept` its own way, allocate its connection state for one request, and need an owned stream.
//!
//! | request | answer |
//! |---|---|
//! | `GET /sub` or `/sub?…`, HTTP/1.1, proper upgrade | 101 and the connection goes on |
//! | another path | 404 |
//! | another `Sec-WebSocket-Version`, or none | 426, naming 13 |
//! | anything else that is HTTP, and what is not | 400 |
//! | more than 16 KiB or 64 headers | 431 |
//!
//! Every failure closes. goim closes without an answer; clients and proxies can tell ours apart.

use std::net::IpAddr;

use runtime::proxies::TrustedProxies;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::close::Close;

/// The longest request, in bytes: cookies are the long part, and proxies in front allow no more.
const MAX_REQUEST: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;
/// What is appended to the client's key before hashing (RFC 6455 §1.3).
const ACCEPT_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What an upgrade leaves behind.
#[derive(Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// Bytes after the request: frames of a client in a hurry.
    pub leftover: Vec<u8>,
    /// The first `Cookie` header, verbatim.
    pub cookie: String,
    /// The client, as trusted proxies say it.
    pub address: IpAddr,
}

/// Reads the request and answers it.
///
/// # Errors
/// [`Close::Handshake`] after a refusal was sent; [`Close::Gone`] or [`Close::Io`] when the client left.
pub async fn upgrade<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    peer: IpAddr,
    proxies: &TrustedProxies,
) -> Result<Upgrade, Close> {
    let mut input = Vec::with_capacity(1024);
    let answer = match read_request(stream, &mut input).await? {
        Some(length) => match parse(&input[..length], peer, proxies) {
            Ok(request) => {
                stream.write_all(&success(&request.accept)).await?;
                stream.flush().await?;
                return Ok(Upgrade {
                    leftover: input.split_off(length),
                    cookie: request.cookie,
                    address: request.address,
                });
            }
            Err(refusal) => refusal,
        },
        None => Refusal::TooLong,
    };
    stream.write_all(answer.bytes()).await?;
    stream.flush().await?;
    Err(Close::Handshake)
}

/// Reads until the empty line; returns the request's length, or `None` when it does not end within the limit.
async fn read_request<S: AsyncRead + Unpin>(stream: &mut S, input: &mut Vec<u8>) -> Result<Option<usize>, Close> {
    let mut searched = 0;
    loop {
        if stream.read_buf(input).await? == 0 {
            return Err(Close::Gone);
        }
        if let Some(length) = end_of_request(input, searched) {
            return Ok((length <= MAX_REQUEST).then_some(length));
        }
        if input.len() >= MAX_REQUEST {
            return Ok(None);
        }
        searched = input.len();
    }
}

/// Where the first empty line ends. Everything before `searched` was looked at in an earlier call. Lines may end in a
/// bare LF, as goim and RFC 9112 §2.2 take them.
fn end_of_request(input: &[u8], searched: usize) -> Option<usize> {
    let start = searched.saturating_sub(2);
    let ends = input.iter().enumerate().skip(start).filter(|(_, byte)| **byte == b'\n');
    for (end, _) in ends {
        match input[end + 1..] {
            [b'\n', ..] => return Some(end + 2),
            [b'\r', b'\n', ..] => return Some(end + 3),
            _ => {}
        }
    }
    None
}

struct Request {
    accept: [u8; 28],
    cookie: String,
    address: IpAddr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    NotAnUpgrade,
    OtherPath,
    OtherVersion,
    TooLong,
}

impl Refusal {
    fn bytes(self) -> &'static [u8] {
        match self {
            Self::NotAnUpgrade => b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            Self::OtherPath => b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            Self::OtherVersion => {
                b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: Upgrade, close\r\n\
                  Sec-WebSocket-Version: 13\r\nContent-Length: 0\r\n\r\n"
            }
            Self::TooLong => {
                b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            }
        }
    }
}

fn parse(input: &[u8], peer: IpAddr, proxies: &TrustedProxies) -> Result<Request, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(input) {
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::TooLong),
        Ok(httparse::Status::Partial) | Err(_) => return Err(Refusal::NotAnUpgrade),
    }
    let target = request.path.unwrap_or_default();
    if target.split('?').next() != Some("/sub") {
        return Err(Refusal::OtherPath);
    }
    let headers = &*request.headers;
    let all = |name: &'static str| {
        headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
    };
    let first = |name| all(name).next();
    let upgrades = all("Upgrade").any(|value| value.trim_ascii().eq_ignore_ascii_case(b"websocket"));
    // Any place in the header, as goim looks for it: `keep-alive, Upgrade` is what some browsers send.
    let connection =
        all("Connection").any(|value| value.to_ascii_lowercase().windows(7).any(|word| word == b"upgrade"));
    if request.method != Some("GET") || request.version != Some(1) || !upgrades || !connection {
        return Err(Refusal::NotAnUpgrade);
    }
    if first("Sec-WebSocket-Version") != Some(b"13") {
        return Err(Refusal::OtherVersion);
    }
    let key = first("Sec-WebSocket-Key").filter(|key| !key.is_empty()).ok_or(Refusal::NotAnUpgrade)?;
    let forwarded: Vec<_> = all("X-Forwarded-For").filter_map(|value| std::str::from_utf8(value).ok()).collect();
    Ok(Request {
        accept: accept(key),
        cookie: first("Cookie").map(|cookie| String::from_utf8_lossy(cookie).into_owned()).unwrap_or_default(),
        address: proxies.client(peer, forwarded.into_iter()),
    })
}

fn success(accept: &[u8; 28]) -> Vec<u8> {
    const START: &[u8] =
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ";
    [START, accept, b"\r\n\r\n"].concat()
}

/// The answer to a client's key: base64 of the SHA-1 of key and GUID.
fn accept(key: &[u8]) -> [u8; 28] {
    let mut hash = sha1_smol::Sha1::new();
    hash.update(key);
    hash.update(ACCEPT_GUID);
    base64(&hash.digest().bytes())
}

/// Base64 of the only length needed here.
fn base64(bytes: &[u8; 20]) -> [u8; 28] {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = [b'='; 28];
    for (group, out) in bytes.chunks(3).zip(out.chunks_mut(4)) {
        let mut bits = [0; 4];
        bits[1..=group.len()].copy_from_slice(group);
        let bits = u32::from_be_bytes(bits);
        for (index, symbol) in out.iter_mut().enumerate().take(group.len() + 1) {
            *symbol = ALPHABET[(bits >> (18 - 6 * index)) as usize & 63];
        }
    }
    out
}

#[cfg(test)]
mod tests;
