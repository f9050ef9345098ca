//! Who the client is when a proxy stands in front that says it in a header of its own: the PROXY protocol, versions 1 and
//! 2 (haproxy's `proxy-protocol.txt`). Whose word is taken is decided in [`runtime::proxies`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::close::Close;

/// What a version 2 header begins with.
const V2_SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The longest version 1 line, its end included.
const V1_MAX: usize = 107;
/// The longest version 2 header body we take: addresses and room for a load balancer's TLVs.
const V2_MAX: usize = 4096;

/// Reads exactly the PROXY header, not a byte more. `Ok(None)` = the proxy speaks for itself (health check) or for a
/// client it cannot name.
///
/// # Errors
/// [`Close::Handshake`] when the stream does not begin with a header.
pub async fn read_header(socket: &mut TcpStream) -> Result<Option<IpAddr>, Close> {
    let mut start = [0; V2_SIGNATURE.len()];
    socket.read_exact(&mut start).await?;
    if start == V2_SIGNATURE {
        return read_v2(socket).await;
    }
    if !start.starts_with(b"PROXY ") {
        return Err(Close::Handshake);
    }
    // Only what was peeked at and belongs to the line is taken, so the bytes after it stay in the socket.
    let mut line = start.to_vec();
    let mut ahead = [0; V1_MAX];
    while !line.ends_with(b"\r\n") {
        let room = V1_MAX - line.len();
        let seen = if room == 0 { 0 } else { socket.peek(&mut ahead[..room]).await? };
        if seen == 0 {
            return Err(Close::Handshake);
        }
        let take = ahead[..seen].iter().position(|byte| *byte == b'\n').map_or(seen, |end| end + 1);
        socket.read_exact(&mut ahead[..take]).await?;
        line.extend_from_slice(&ahead[..take]);
    }
    parse_v1(&line).ok_or(Close::Handshake)
}

/// `PROXY TCP4 <source> <destination> <port> <port>`, TCP6 likewise, or `PROXY UNKNOWN …`.
fn parse_v1(line: &[u8]) -> Option<Option<IpAddr>> {
    let mut words = std::str::from_utf8(line).ok()?.trim_end_matches("\r\n").split(' ');
    words.next().filter(|word| *word == "PROXY")?;
    let family = words.next()?;
    if family == "UNKNOWN" {
        return Some(None);
    }
    let [source, _, _, _] = words.collect::<Vec<_>>().try_into().ok()?;
    match family {
        "TCP4" => source.parse::<Ipv4Addr>().ok().map(|four| Some(four.into())),
        "TCP6" => source.parse::<Ipv6Addr>().ok().map(|six| Some(IpAddr::from(six).to_canonical())),
        _ => None,
    }
}

async fn read_v2(socket: &mut TcpStream) -> Result<Option<IpAddr>, Close> {
    let mut head = [0; 4];
    socket.read_exact(&mut head).await?;
    let [version_command, family, high, low] = head;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > V2_MAX {
        return Err(Close::Handshake);
    }
    let mut body = vec![0; length];
    socket.read_exact(&mut body).await?;
    parse_v2(version_command, family, &body).ok_or(Close::Handshake)
}

fn parse_v2(version_command: u8, family: u8, body: &[u8]) -> Option<Option<IpAddr>> {
    match (version_command, family) {
        // LOCAL: the proxy's own connection.
        (0x20, _) => Some(None),
        // PROXY over IPv4, IPv6; TCP and, as some balancers write, UDP.
        (0x21, 0x11 | 0x12) if body.len() >= 12 => {
            body.first_chunk::<4>().map(|four| Some(Ipv4Addr::from(*four).into()))
        }
        (0x21, 0x21 | 0x22) if body.len() >= 36 => {
            body.first_chunk::<16>().map(|six| Some(IpAddr::from(Ipv6Addr::from(*six)).to_canonical()))
        }
        // PROXY from nowhere IP knows, such as a Unix socket.
        (0x21, 0x00 | 0x31 | 0x32) => Some(None),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn version_1_lines_name_the_source() {
        for (line, expected) in [
            ("PROXY TCP4 9.9.9.9 10.0.0.1 1234 443\r\n", Some(Some(ip("9.9.9.9")))),
            ("PROXY TCP6 2001:db8::1 ::1 1234 443\r\n", Some(Some(ip("2001:db8::1")))),
            ("PROXY UNKNOWN\r\n", Some(None)),
            ("PROXY UNKNOWN ff:: ff:: 1 2\r\n", Some(None)),
            ("PROXY TCP4 2001:db8::1 ::1 1 2\r\n", None),
            ("PROXY TCP4 9.9.9.9\r\n", None),
            ("PROXY UDP4 9.9.9.9 10.0.0.1 1 2\r\n", None),
            ("PROXYTCP4 9.9.9.9 10.0.0.1 1 2\r\n", None),
        ] {
            assert_eq!(parse_v1(line.as_bytes()), expected, "{line}");
        }
    }

    #[test]
    fn version_2_headers_name_the_source() {
        let four = [9, 9, 9, 9, 10, 0, 0, 1, 4, 210, 1, 187];
        let mut six = [0; 36];
        six[..16].copy_from_slice(&"2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        for (head, body, expected) in [
            ([0x21, 0x11], &four[..], Some(Some(ip("9.9.9.9")))),
            ([0x21, 0x21], &six, Some(Some(ip("2001:db8::1")))),
            ([0x20, 0x00], &[], Some(None)),
            ([0x21, 0x00], &[], Some(None)),
            ([0x21, 0x11], &four[..11], None),
            ([0x11, 0x11], &four, None),
            ([0x22, 0x11], &four, None),
        ] {
            assert_eq!(parse_v2(head[0], head[1], body), expected, "{head:?}");
        }
    }
}
