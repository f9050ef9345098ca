//! What holds for every path: 404, redirects, the page, the description.

use super::*;

#[tokio::test]
async fn an_unknown_path_or_a_wrong_method_is_404_in_plain_text_without_a_charset() {
    let site = Site::start().await;
    for (method, target) in [
        ("GET", "/goim"),
        ("GET", "/goim/"),
        ("GET", "/goim/push/all"),
        ("POST", "/goim/online/total"),
        ("PUT", "/goim/push/all"),
        ("HEAD", "/goim/online/totals"),
        ("POST", "/goim/push/nobody"),
        ("GET", "/nobody.js"),
        ("GET", "/../Cargo.toml"),
        ("POST", "/"),
    ] {
        let answer = client::ask(site.address, method, target, "", b"").await;
        assert_eq!((answer.status, answer.header("Content-Type")), (404, Some("text/plain")), "{method} {target}");
        assert_eq!(answer.body, if method == "HEAD" { "" } else { "404 page not found" }, "{method} {target}");
    }
}

#[tokio::test]
async fn a_slash_too_many_redirects_a_get_for_good_and_a_post_with_its_method() {
    let site = Site::start().await;
    let answer = site.get("/goim/online/top/?type=a&limit=1").await;
    let body = "<a href=\"/goim/online/top?type=a&amp;limit=1\">Moved Permanently</a>.\n\n";
    answer.is(301, "text/html; charset=utf-8", body);
    assert_eq!(answer.header("Location"), Some("/goim/online/top?type=a&limit=1"));
    let answer = site.post("/goim/push/all/?operation=1", b"").await;
    assert_eq!((answer.status, answer.header("Location")), (307, Some("/goim/push/all?operation=1")));
    assert_eq!((answer.body.as_str(), answer.header("Content-Type")), ("", None));
}

#[tokio::test]
async fn header_names_are_written_as_go_writes_them() {
    let site = Site::start().await;
    let answer = site.get("/goim/online/total").await;
    for name in ["Content-Type", "Content-Length", "Date"] {
        assert!(answer.header(name).is_some(), "{name}: {:?}", answer.headers);
    }
}

#[tokio::test]
async fn the_page_is_served_with_its_policy_and_known_by_its_tag() {
    let site = Site::start().await;
    let answer = site.get("/").await;
    assert_eq!((answer.status, answer.header("Content-Type")), (200, Some("text/html; charset=utf-8")));
    assert!(answer.body.contains("ImCluster"));
    let policy = "default-src 'self'; connect-src 'self' ws: wss: http: https:; img-src 'self' data:";
    assert_eq!(answer.header("Content-Security-Policy"), Some(policy));
    assert_eq!(answer.header("X-Content-Type-Options"), Some("nosniff"));
    let tag = answer.header("Etag").unwrap().to_owned();
    let again = client::ask(site.address, "GET", "/index.html", &format!("If-None-Match: {tag}\r\n"), b"").await;
    assert_eq!((again.status, again.body.as_str(), again.header("Etag")), (304, "", Some(tag.as_str())));
    let head = client::ask(site.address, "HEAD", "/", "", b"").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

#[tokio::test]
async fn without_the_page_its_paths_are_404() {
    let site = Site::with("--push-auth none --no-page").await;
    site.get("/").await.is(404, "text/plain", "404 page not found");
    assert_eq!(site.get("/openapi.json").await.status, 200);
}

#[tokio::test]
async fn the_api_describes_itself() {
    let site = Site::start().await;
    site.get("/openapi.json").await.is(200, "application/json", DOCUMENT);
}

#[tokio::test]
async fn a_client_that_stays_connected_is_answered_in_order() {
    use tokio::io::AsyncWriteExt;
    let site = Site::start().await;
    let mut stream = TcpStream::connect(site.address).await.unwrap();
    let push = |op: i32, close: &str| {
        format!("POST /goim/push/all?operation={op} HTTP/1.1\r\nHost: l\r\n{close}Content-Length: 1\r\n\r\nm")
    };
    let requests = [push(1, ""), push(2, ""), push(3, "Connection: close\r\n")].concat();
    stream.write_all(requests.as_bytes()).await.unwrap();
    let answer = client::read(&mut stream).await;
    assert_eq!(answer.body.matches("HTTP/1.1 200 OK").count(), 2, "two more behind the first");
    let ops: Vec<i32> = site.queue.pushed().iter().map(|record| record.operation).collect();
    assert_eq!(ops, [1, 2, 3]);
}
