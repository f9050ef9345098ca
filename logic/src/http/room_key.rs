//! The part of a room key that `/online/top` shows: goim takes the key for a URL and reports its host, so the room
//! `live://a/b` shows as `a`, and a key that is no URL by Go's `net/url` is left out.

use super::query::unescape;

/// What Go's `url.Parse` gives as host; `None` where it gives an error.
pub fn shown(key: &str) -> Option<String> {
    let (url, fragment) = key.split_once('#').unwrap_or((key, ""));
    unescape(fragment, false)?;
    if url.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
        return None;
    }
    let (scheme, rest) = scheme(url)?;
    let rest = rest.split_once('?').map_or(rest, |(rest, _query)| rest);
    if !rest.starts_with('/') {
        if scheme {
            return Some(String::new()); // opaque, such as `mailto:a`
        }
        if rest.split('/').next().is_some_and(|segment| segment.contains(':')) {
            return None;
        }
    }
    let (host, path) = match rest.strip_prefix("//") {
        Some(rest) if scheme || !rest.starts_with('/') => {
            let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
            (authority_host(authority)?, path)
        }
        _ => (String::new(), rest),
    };
    unescape(path, false)?;
    Some(host)
}

/// Whether there is a scheme, and what is behind it; `None` when it is missing before a colon.
fn scheme(url: &str) -> Option<(bool, &str)> {
    for (i, byte) in url.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if i > 0 => {}
            b':' if i == 0 => return None,
            b':' => return Some((true, &url[i + 1..])),
            _ => break,
        }
    }
    Some((false, url))
}

/// The host of `user@host:port`, port included.
fn authority_host(authority: &str) -> Option<String> {
    let host = match authority.rsplit_once('@') {
        Some((user, host)) => {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%@".contains(&byte);
            if !user.bytes().all(allowed) {
                return None;
            }
            unescape(user, false)?;
            host
        }
        None => authority,
    };
    let port = if host.starts_with('[') {
        &host[host.rfind(']')? + 1..]
    } else {
        &host[host.rfind(':').unwrap_or(host.len())..]
    };
    let valid_port = port.is_empty() || port.strip_prefix(':').is_some_and(|p| p.bytes().all(|b| b.is_ascii_digit()));
    if !valid_port {
        return None;
    }
    let allowed =
        |byte: u8| !byte.is_ascii() || byte.is_ascii_alphanumeric() || b"-_.~!$&'()*+,;=:[]<>\"%".contains(&byte);
    if !host.bytes().all(allowed) {
        return None;
    }
    // In a host Go takes only escapes of bytes beyond ASCII, and `%25`.
    let ascii_escape = |at: usize| host.as_bytes().get(at + 1).is_some_and(|b| b.is_ascii_digit() && *b < b'8');
    if host.match_indices('%').any(|(at, _)| ascii_escape(at) && host.get(at..at + 3) != Some("%25")) {
        return None;
    }
    Some(String::from_utf8_lossy(&unescape(host, false)?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_shows_as_the_host_of_its_key() {
        for (key, host) in [
            ("test://1", Some("1")),
            ("live://a/b", Some("a")),
            ("live://a?x=1", Some("a")),
            ("live://a#b", Some("a")),
            ("live://user@a:80/b", Some("a:80")),
            ("live://群", Some("群")),
            ("live://%E7%BE%A4", Some("群")),
            ("live:///a", Some("")),
            ("live:a", Some("")),
            ("plain", Some("")),
            ("//a/b", Some("a")),
        ] {
            assert_eq!(shown(key).as_deref(), host, "{key}");
        }
    }

    #[test]
    fn a_key_that_is_no_url_is_left_out() {
        for key in [
            "://1",
            "1live://x",
            "群://x",
            "live://a b",
            "live://a:b",
            "live://a/%zz",
            "live://a%20b",
            "live://[a",
            "live://a\nb",
            "live://a#%z",
            "a_b://1",
            "live://a b@c",
        ] {
            assert_eq!(shown(key), None, "{key}");
        }
    }
}
