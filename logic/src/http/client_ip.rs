//! Whose request it is: the socket's peer, or what a trusted proxy says of it.
//!
//! goim believes `X-Forwarded-For` from anybody, so that any client can pick its address. Here it counts only from the
//! networks of `--trusted-proxies`, and of a chain the last address that is no trusted proxy ([`runtime::proxies`]).

use std::net::IpAddr;

use http::HeaderMap;
use runtime::proxies::TrustedProxies;

/// The client's address, as far as it can be trusted.
pub fn client_ip(peer: IpAddr, headers: &HeaderMap, trusted: &TrustedProxies) -> IpAddr {
    let forwarded = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
    let client = trusted.client(peer, forwarded);
    if client != peer || !trusted.trust(peer) {
        return client;
    }
    let real = || headers.get("x-real-ip")?.to_str().ok()?.trim().parse().ok();
    real().unwrap_or(peer)
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
        let trusted = TrustedProxies::new(&["10.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()]);
        client_ip(ip(peer), &headers, &trusted)
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
}
