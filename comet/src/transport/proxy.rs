//! Who the client is when a proxy stands in front: the PROXY protocol (versions 1 and 2, haproxy's `proxy-protocol.txt`)
//! and `X-Forwarded-For`. Only networks named by `--trusted-proxies` are believed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::close::Close;

/// What a version 2 header begins with.
const V2_SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The longest version 1 line, its end included.
const V1_MAX: usize = 107;
/// The longest version 2 header body we take: addresses and room for a load balancer's TLVs.
const V2_MAX: usize = 4096;

/// A network, such as `10.0.0.0/8`; an address alone is a network of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// Whether the address is in it. IPv4 in IPv6 (`::ffff:10.0.0.1`) counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
                network.to_bits() & mask == address.to_bits() & mask
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                network.to_bits() & mask == address.to_bits() & mask
            }
            _ => false,
        }
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("expected a network such as 10.0.0.0/8 or 2001:db8::/32, not `{text}`");
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| expected())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(most), str::parse).map_err(|_| expected())?;
        if prefix > most {
            return Err(expected());
        }
        Ok(Self { address, prefix })
    }
}

/// The networks whose word is taken. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies {
    networks: Arc<[Cidr]>,
}

impl TrustedProxies {
    /// These and no others.
    pub fn new(networks: &[Cidr]) -> Self {
        Self { networks: networks.into() }
    }

    /// Whether this address is one of them.
    pub fn trust(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(address))
    }

    /// The client behind a chain of proxies: from the right, the first hop that is not itself trusted. `peer` is who
    /// sent the headers; when it is not trusted they say nothing.
    pub fn client<'a>(&self, peer: IpAddr, forwarded: impl DoubleEndedIterator<Item = &'a str>) -> IpAddr {
        let mut client = peer;
        for hop in forwarded.rev().flat_map(|value| value.rsplit(',')) {
            if !self.trust(client) {
                break;
            }
            let Some(address) = parse_hop(hop.trim()) else { break };
            client = address;
        }
        client
    }
}

/// An address as proxies write it: bare, in brackets, or with a port.
fn parse_hop(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip())).ok();
    address.map(|address: IpAddr| address.to_canonical())
}

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

    fn trusted(networks: &[&str]) -> TrustedProxies {
        TrustedProxies::new(&networks.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>())
    }

    #[test]
    fn a_network_holds_its_addresses_and_no_others() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("10.0.0.1", "10.0.0.1", "10.0.0.2"),
            ("0.0.0.0/0", "255.1.2.3", "::1"),
            ("2001:db8::/32", "2001:db8:1::", "2001:db9::"),
            ("::/0", "::1", "1.2.3.4"),
            ("10.0.0.0/8", "::ffff:10.0.0.1", "::ffff:11.0.0.1"),
        ] {
            let network: Cidr = network.parse().unwrap();
            assert!(network.contains(ip(inside)) && !network.contains(ip(outside)), "{network:?}");
        }
        for text in ["10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/x", "", "a/8"] {
            assert!(text.parse::<Cidr>().unwrap_err().contains("10.0.0.0/8"), "{text}");
        }
    }

    #[test]
    fn forwarded_addresses_count_only_from_trusted_hops() {
        let proxies = trusted(&["10.0.0.0/8", "fd00::/8"]);
        for (peer, forwarded, client) in [
            ("1.1.1.1", &["9.9.9.9"][..], "1.1.1.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["9.9.9.9"], "9.9.9.9"),
            ("10.0.0.1", &["6.6.6.6, 9.9.9.9, 10.0.0.2"], "9.9.9.9"),
            ("10.0.0.1", &["6.6.6.6", "9.9.9.9"], "9.9.9.9"),
            ("10.0.0.1", &["[2001:db8::1]:443"], "2001:db8::1"),
            ("10.0.0.1", &["2001:db8::1"], "2001:db8::1"),
            ("10.0.0.1", &["9.9.9.9:1234"], "9.9.9.9"),
            ("10.0.0.1", &["6.6.6.6, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["fd00::1, 10.0.0.2"], "fd00::1"),
        ] {
            assert_eq!(proxies.client(ip(peer), forwarded.iter().copied()), ip(client), "{forwarded:?}");
        }
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
