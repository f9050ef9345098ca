//! Whose request it is: the socket's peer, or what a trusted proxy says of it.
//!
//! goim believes `X-Forwarded-For` from anybody, so that any client can pick its address. Here it counts only from the
//! networks of `--trusted-proxies`, read from its end: the last address that is no trusted proxy.

use std::net::IpAddr;
use std::str::FromStr;

use http::HeaderMap;

/// A network such as `10.0.0.0/8`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// Whether the address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (ours, theirs, width) = match (self.address, address.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => (u128::from(ours.to_bits()), u128::from(theirs.to_bits()), 32),
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => (ours.to_bits(), theirs.to_bits(), 128),
            _ => return false,
        };
        (ours ^ theirs).checked_shr(width - u32::from(self.bits)).unwrap_or(0) == 0
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("expected an address or a network such as 10.0.0.0/8, not `{text}`");
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| expected())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(width), str::parse).map_err(|_| expected())?;
        if bits > width { Err(expected()) } else { Ok(Self { address, bits }) }
    }
}

/// The client's address, as far as it can be trusted.
pub fn client_ip(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let trusts = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    if !trusts(peer) {
        return peer;
    }
    let mut client = None;
    let forwarded = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
    let hops: Vec<&str> = forwarded.flat_map(|value| value.split(',')).map(str::trim).collect();
    for hop in hops.iter().rev() {
        let Ok(address) = hop.parse::<IpAddr>() else { break };
        client = Some(address);
        if !trusts(address) {
            break;
        }
    }
    let real = || headers.get("x-real-ip")?.to_str().ok()?.trim().parse().ok();
    client.or_else(real).unwrap_or(peer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn seen(peer: &str, forwarded: &[&str], real: Option<&str>) -> IpAddr {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", value.parse().unwrap());
        }
        if let Some(real) = real {
            headers.insert("x-real-ip", real.parse().unwrap());
        }
        client_ip(ip(peer), &headers, &["10.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()])
    }

    #[test]
    fn a_stranger_cannot_choose_its_address() {
        assert_eq!(seen("192.0.2.1", &["198.51.100.1"], Some("198.51.100.2")), ip("192.0.2.1"));
    }

    #[test]
    fn behind_trusted_proxies_the_last_untrusted_address_counts() {
        assert_eq!(seen("10.0.0.1", &["198.51.100.1"], None), ip("198.51.100.1"));
        assert_eq!(seen("10.0.0.1", &["203.0.113.9, 198.51.100.1, 10.9.9.9"], None), ip("198.51.100.1"));
        assert_eq!(seen("10.0.0.1", &["203.0.113.9", "198.51.100.1"], None), ip("198.51.100.1"));
        assert_eq!(seen("::1", &["10.1.1.1, 10.2.2.2"], None), ip("10.1.1.1"));
        assert_eq!(seen("::ffff:10.0.0.1", &["198.51.100.1"], None), ip("198.51.100.1"));
    }

    #[test]
    fn the_real_ip_header_counts_when_nothing_was_forwarded() {
        assert_eq!(seen("10.0.0.1", &[], Some("198.51.100.2")), ip("198.51.100.2"));
        assert_eq!(seen("10.0.0.1", &["nonsense"], None), ip("10.0.0.1"));
    }

    #[test]
    fn networks_are_checked_when_they_are_read() {
        for text in ["10.0.0.0/33", "10.0.0", "::/129", "a/8", "10.0.0.0/x"] {
            assert!(text.parse::<Network>().unwrap_err().contains("expected"), "{text}");
        }
        let all: Network = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains(ip("203.0.113.7")));
        assert!(!all.contains(ip("2001:db8::1")));
    }
}
