use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::*;

/// RFC 6455 §1.3's example: its key, and the four lines that answer it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const SUCCESS: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const BAD_REQUEST: &str = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
const NOT_FOUND: &str = "HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
const OTHER_VERSION: &str = "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: Upgrade, close\r\n\
                             Sec-WebSocket-Version: 13\r\nContent-Length: 0\r\n\r\n";
const TOO_LONG: &str = "HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

fn request() -> String {
    format!(
        "GET /sub HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: {KEY}\r\n\r\n"
    )
}

fn with(extra: &str) -> String {
    request().replacen("\r\n\r\n", &format!("\r\n{extra}\r\n\r\n"), 1)
}

fn peer() -> IpAddr {
    [127, 0, 0, 1].into()
}

/// What the client is answered until the connection ends, and what the server made of it.
async fn exchange(pieces: &[&[u8]]) -> (String, Result<Upgrade, Close>) {
    exchange_with(pieces, &TrustedProxies::default()).await
}

async fn exchange_with(pieces: &[&[u8]], proxies: &TrustedProxies) -> (String, Result<Upgrade, Close>) {
    let (mut client, mut server) = duplex(64 * 1024);
    let serve = async {
        let result = upgrade(&mut server, peer(), proxies).await;
        drop(server);
        result
    };
    let ask = async {
        for piece in pieces {
            // The server may have had enough and closed.
            if client.write_all(piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    };
    let (result, answer) = tokio::join!(serve, ask);
    (answer, result)
}

async fn answer(request: &str) -> String {
    exchange(&[request.as_bytes()]).await.0
}

#[tokio::test]
async fn an_upgrade_is_answered_with_exactly_four_lines() {
    let (answer, result) = exchange(&[request().as_bytes()]).await;
    assert_eq!(answer, SUCCESS);
    assert_eq!(result, Ok(Upgrade { leftover: Vec::new(), cookie: String::new(), address: peer() }));
}

#[tokio::test]
async fn offered_protocols_extensions_and_compression_are_not_answered() {
    let offer = "Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Extensions: permessage-deflate";
    assert_eq!(answer(&with(offer)).await, SUCCESS);
}

#[tokio::test]
async fn only_sub_is_served_with_or_without_a_query() {
    for path in ["/sub?", "/sub?x=1", "/sub?a=/b?c"] {
        assert_eq!(answer(&request().replace("/sub", path)).await, SUCCESS, "{path}");
    }
    for path in ["/", "/sub/", "/subs", "/SUB", "//sub", "/a/sub", "*"] {
        let (answer, result) = exchange(&[request().replace("/sub", path).as_bytes()]).await;
        assert_eq!((answer.as_str(), result), (NOT_FOUND, Err(Close::Handshake)), "{path}");
    }
}

#[tokio::test]
async fn the_method_must_be_get() {
    for method in ["POST", "HEAD", "get"] {
        assert_eq!(answer(&request().replace("GET", method)).await, BAD_REQUEST, "{method}");
    }
}

#[tokio::test]
async fn another_websocket_version_is_answered_426_naming_13() {
    for version in ["Sec-WebSocket-Version: 12", "Sec-WebSocket-Version: 13, 8", "X: 13"] {
        let request = request().replace("Sec-WebSocket-Version: 13", version);
        let (answer, result) = exchange(&[request.as_bytes()]).await;
        assert_eq!((answer.as_str(), result), (OTHER_VERSION, Err(Close::Handshake)), "{version}");
    }
}

#[tokio::test]
async fn upgrade_must_be_websocket_in_any_case() {
    assert_eq!(answer(&request().replace("Upgrade: websocket", "Upgrade: WebSocket")).await, SUCCESS);
    for other in ["Upgrade: h2c", "Upgrade: websockets", "X: websocket"] {
        assert_eq!(answer(&request().replace("Upgrade: websocket", other)).await, BAD_REQUEST, "{other}");
    }
}

#[tokio::test]
async fn connection_must_contain_upgrade_in_any_case() {
    for fine in
        ["Connection: keep-alive, UPGRADE", "Connection: upgrade", "Connection: keep-alive\r\nConnection: Upgrade"]
    {
        assert_eq!(answer(&request().replace("Connection: Upgrade", fine)).await, SUCCESS, "{fine}");
    }
    for other in ["Connection: close", "X: Upgrade", "Connection:"] {
        assert_eq!(answer(&request().replace("Connection: Upgrade", other)).await, BAD_REQUEST, "{other}");
    }
}

#[tokio::test]
async fn the_clients_key_must_not_be_empty_and_may_be_anything_else() {
    let key = format!("Sec-WebSocket-Key: {KEY}");
    assert!(answer(&request().replace(&key, "Sec-WebSocket-Key: x")).await.starts_with("HTTP/1.1 101 "));
    for other in ["Sec-WebSocket-Key:", "X: y"] {
        assert_eq!(answer(&request().replace(&key, other)).await, BAD_REQUEST, "{other}");
    }
}

#[tokio::test]
async fn host_and_origin_are_not_looked_at() {
    assert_eq!(answer(&request().replace("Host: a\r\n", "")).await, SUCCESS);
    assert_eq!(answer(&with("Origin: https://elsewhere.example")).await, SUCCESS);
}

#[tokio::test]
async fn header_names_may_be_in_any_case() {
    assert_eq!(
        answer(&request().replace("Sec-WebSocket-", "sec-websocket-").replace("Upgrade:", "UPGRADE:")).await,
        SUCCESS
    );
}

#[tokio::test]
async fn lines_may_end_in_a_bare_line_feed() {
    assert_eq!(answer(&request().replace("\r\n", "\n")).await, SUCCESS);
}

#[tokio::test]
async fn http_1_0_is_refused() {
    assert_eq!(answer(&request().replace("HTTP/1.1", "HTTP/1.0")).await, BAD_REQUEST);
}

#[tokio::test]
async fn what_is_not_http_is_refused_once_it_looks_like_a_request() {
    for text in ["\x16\x03\x01\r\n\r\n", "GET /sub\r\n\r\n", "a b c d\r\n\r\n", "GET /sub HTTP/1.1\r\nno colon\r\n\r\n"]
    {
        let (answer, result) = exchange(&[text.as_bytes()]).await;
        assert_eq!((answer.as_str(), result), (BAD_REQUEST, Err(Close::Handshake)), "{text:?}");
    }
}

#[tokio::test]
async fn the_first_cookie_is_kept_verbatim() {
    let (_, result) = exchange(&[with("Cookie: a=1; b=\"2 ;\"\r\nCookie: c=3").as_bytes()]).await;
    assert_eq!(result.unwrap().cookie, "a=1; b=\"2 ;\"");
    let (_, result) = exchange(&[with("cookie: sid=x").as_bytes()]).await;
    assert_eq!(result.unwrap().cookie, "sid=x");
}

#[tokio::test]
async fn a_request_may_arrive_byte_by_byte() {
    for text in [request(), request().replace("\r\n", "\n")] {
        let pieces: Vec<_> = text.as_bytes().chunks(1).collect();
        assert_eq!(exchange(&pieces).await.0, SUCCESS);
    }
}

#[tokio::test]
async fn frames_sent_behind_the_request_are_not_lost() {
    let all = [request().as_bytes(), &[0x82, 0x80, 1, 2, 3, 4], b"\r\n\r\n"].concat();
    for cut in [all.len(), 20, request().len() - 1, request().len() + 2] {
        let (first, rest) = all.split_at(cut);
        let (_, result) = exchange(&[first, rest]).await;
        let leftover = result.unwrap().leftover;
        assert!(all[request().len()..].starts_with(&leftover), "{cut}");
        if cut == all.len() {
            assert_eq!(leftover, all[request().len()..]);
        }
    }
}

#[tokio::test]
async fn a_flood_of_headers_is_refused() {
    let one = format!("GET /sub HTTP/1.1\r\nCookie: {}", "x".repeat(1 << 20));
    let many = format!("GET /sub HTTP/1.1\r\n{}", "a: b\r\n".repeat(200_000));
    for flood in [one, many] {
        let pieces: Vec<_> = flood.as_bytes().chunks(4096).collect();
        let (answer, result) = exchange(&pieces).await;
        assert_eq!((answer.as_str(), result), (TOO_LONG, Err(Close::Handshake)));
    }
    let headers = with("a: b\r\n".repeat(65).trim_end());
    assert_eq!(answer(&headers).await, TOO_LONG);
}

#[tokio::test]
async fn a_client_that_leaves_before_the_end_of_its_request_is_gone() {
    let (client, mut server) = duplex(1024);
    drop(client);
    assert_eq!(upgrade(&mut server, peer(), &TrustedProxies::default()).await, Err(Close::Gone));
}

#[tokio::test]
async fn x_forwarded_for_counts_only_from_a_trusted_proxy() {
    let request = with("X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 9.9.9.9");
    let trusted = TrustedProxies::new(&["127.0.0.0/8".parse().unwrap()]);
    let (_, result) = exchange_with(&[request.as_bytes()], &trusted).await;
    assert_eq!(result.unwrap().address, IpAddr::from([9, 9, 9, 9]));
    let (_, result) = exchange(&[request.as_bytes()]).await;
    assert_eq!(result.unwrap().address, peer());
}

#[test]
fn base64_is_rfc_4648s() {
    assert_eq!(&base64(&[0; 20]), b"AAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    assert_eq!(&base64(&[255; 20]), b"//////////////////////////8=");
    assert_eq!(&accept(KEY.as_bytes()), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

proptest::proptest! {
    #[test]
    fn the_end_of_a_request_is_found_wherever_it_is_cut(text in "[a\r\n]{0,40}", cut in 0..40_usize) {
        let bytes = text.as_bytes();
        let cut = cut.min(bytes.len());
        let whole = end_of_request(bytes, 0);
        let pieces = end_of_request(&bytes[..cut], 0).or_else(|| end_of_request(bytes, cut));
        proptest::prop_assert_eq!(whole, pieces);
    }

    #[test]
    fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
        let _ = parse(&bytes, peer(), &TrustedProxies::default());
    }
}
