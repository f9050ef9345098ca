//! The four push routes.

use proto::comet::OnFull;
use proto::logic::push_msg::Type;

use super::*;
use crate::fakes::Mood;

const OP: &str = "Key: 'Op' Error:Field validation for 'Op' failed on the 'required' tag";
const TYPE: &str = "Key: 'Type' Error:Field validation for 'Type' failed on the 'required' tag";
const ROOM: &str = "Key: 'Room' Error:Field validation for 'Room' failed on the 'required' tag";

fn bad(message: &str) -> String {
    format!(r#"{{"code":-400,"message":"{}"}}"#, message.replace('"', "\\\"").replace('\n', "\\n"))
}

#[tokio::test]
async fn an_accepted_push_is_code_0_and_says_how_many_records() {
    let site = Site::start().await;
    site.store.put(7, "k1", "h1").await;
    for (target, records) in [
        ("/goim/push/keys?operation=1000&keys=k1", 1),
        ("/goim/push/mids?operation=1000&mids=7", 1),
        ("/goim/push/room?operation=1000&type=test&room=1", 1),
        ("/goim/push/all?operation=1000&speed=64", 1),
        ("/goim/push/keys?keys=k1", 1),
        ("/goim/push/keys?operation=1000&keys=nobody", 0),
        ("/goim/push/mids?operation=1000&mids=8&mids=9", 0),
    ] {
        let body = format!(r#"{{"code":0,"message":"","data":{{"records":{records}}}}}"#);
        site.post(target, b"m1").await.is(200, JSON, &body);
    }
    assert_eq!(site.queue.pushed().len(), 5);
}

#[tokio::test]
async fn a_push_is_read_from_the_query_and_its_body_is_any_bytes() {
    let site = Site::start().await;
    let answer = client::ask(
        site.address,
        "POST",
        "/goim/push/room?operation=1000&type=test&room=a%20b+c&ttl=90&onFull=drop&priority=3",
        "Content-Type: application/x-www-form-urlencoded\r\n",
        b"operation=1&\x00\xff",
    )
    .await;
    assert_eq!(answer.status, 200);
    let record = &site.queue.pushed()[0];
    assert_eq!((record.r#type(), record.operation, record.room.as_str()), (Type::Room, 1000, "test://a b c"));
    assert_eq!(record.msg, &b"operation=1&\x00\xff"[..]);
    assert_eq!(record.expires_ms, record.created_ms + 90_000);
    assert_eq!((record.on_full(), record.priority), (OnFull::Drop, 3));
}

#[tokio::test]
async fn list_parameters_repeat_commas_stay_and_the_first_scalar_wins() {
    let site = Site::start().await;
    site.store.put(0, "a,b", "h1").await;
    site.store.put(0, "c", "h2").await;
    site.post("/goim/push/keys?operation=5&operation=6&keys=a,b&keys=c", b"m").await;
    let mut pushed: Vec<_> = site.queue.pushed().into_iter().map(|record| (record.operation, record.keys)).collect();
    pushed.sort();
    assert_eq!(pushed, [(5, vec!["a,b".to_owned()]), (5, vec!["c".to_owned()])]);
}

#[tokio::test]
async fn a_missing_or_zero_parameter_is_400_as_plain_text_naming_every_field_in_order() {
    let site = Site::start().await;
    for (target, message) in [
        ("/goim/push/room", format!("{OP}\n{TYPE}\n{ROOM}")),
        ("/goim/push/room?operation=0&type=a&room=b", OP.to_owned()),
        ("/goim/push/room?operation=1&room=b", TYPE.to_owned()),
        ("/goim/push/room?operation=1&type=&room=", format!("{TYPE}\n{ROOM}")),
        ("/goim/push/all", OP.to_owned()),
        ("/goim/push/all?operation=&speed=3", OP.to_owned()),
    ] {
        site.post(target, b"m").await.is(400, PLAIN, &bad(&message));
    }
    assert!(site.queue.pushed().is_empty());
}

#[tokio::test]
async fn a_number_that_is_none_is_400_in_gos_words_before_anything_is_missing() {
    let site = Site::start().await;
    let syntax = |text: &str| bad(&format!("strconv.ParseInt: parsing \"{text}\": invalid syntax"));
    let range = |text: &str| bad(&format!("strconv.ParseInt: parsing \"{text}\": value out of range"));
    for (target, body) in [
        ("/goim/push/room?operation=x", syntax("x")),
        ("/goim/push/keys?operation=1.5&keys=a", syntax("1.5")),
        ("/goim/push/keys?operation=2147483648&keys=a", range("2147483648")),
        ("/goim/push/mids?mids=7&mids=x", syntax("x")),
        ("/goim/push/mids?mids=9223372036854775808", range("9223372036854775808")),
        ("/goim/push/all?speed=x", syntax("x")),
        ("/goim/push/all?operation=%3Ca%26b%3E", syntax(r"\u003ca\u0026b\u003e")),
    ] {
        site.post(target, b"m").await.is(400, PLAIN, &body);
    }
}

#[tokio::test]
async fn a_parameter_of_ours_that_is_wrong_is_400_as_well() {
    let site = Site::start().await;
    for (query, message) in [
        ("ttl=soon", "ttl: expected a duration such as 500ms, 4m or 1h30m, not `soon`, or seconds"),
        ("ttl=-1s", "ttl: expected a duration such as 500ms, 4m or 1h30m, not `-1s`, or seconds"),
        ("onFull=wait", "onFull: expected drop or close, not `wait`"),
        ("priority=-1", "priority: expected 0 or more"),
    ] {
        site.post(&format!("/goim/push/all?operation=1&{query}"), b"m").await.is(400, PLAIN, &bad(message));
    }
}

#[tokio::test]
async fn no_keys_at_all_is_goims_minus_400_and_one_empty_value_is_nothing_to_send() {
    let site = Site::start().await;
    site.post("/goim/push/keys?operation=1", b"m").await.is(200, JSON, r#"{"code":-400,"message":""}"#);
    let nothing = r#"{"code":0,"message":"","data":{"records":0}}"#;
    for target in ["/goim/push/keys?keys=", "/goim/push/mids?mids=", "/goim/push/mids?operation=1"] {
        site.post(target, b"m").await.is(200, JSON, nothing);
    }
    assert!(site.queue.pushed().is_empty());
}

#[tokio::test]
async fn a_key_named_twice_is_pushed_to_twice() {
    let site = Site::start().await;
    site.store.put(0, "k", "h1").await;
    site.post("/goim/push/keys?keys=k&keys=k", b"m").await;
    assert_eq!(site.queue.pushed()[0].keys, ["k", "k"]);
}

#[tokio::test]
async fn a_record_too_large_is_goims_answer() {
    let site = Site::start().await;
    site.store.put(7, "k", "h1").await;
    let body = vec![b'x'; 1_000_000];
    let message = "kafka server: Message was too large, server rejected it to avoid allocation error.";
    let large = format!(r#"{{"code":-500,"message":"{message}"}}"#);
    site.post("/goim/push/keys?keys=k", &body).await.is(200, JSON, r#"{"code":-400,"message":""}"#);
    site.post("/goim/push/mids?mids=7", &body).await.is(200, JSON, &large);
    site.post("/goim/push/room?operation=1&type=a&room=b", &body).await.is(200, JSON, &large);
    site.post("/goim/push/all?operation=1", &body).await.is(200, JSON, &large);
    assert!(site.queue.pushed().is_empty());
}

#[tokio::test]
async fn a_queue_or_store_that_is_away_is_503_with_goims_code_and_when_to_come_back() {
    let site = Site::start().await;
    site.store.put(7, "k", "h1").await;
    let away = |answer: Answer, body: &str| {
        answer.is(503, JSON, body);
        assert_eq!(answer.header("Retry-After"), Some("1"));
    };
    *site.queue.mood.lock() = Mood::Away;
    let queue = r#"{"code":-500,"message":"push queue: all brokers are down"}"#;
    away(site.post("/goim/push/keys?keys=k", b"m").await, r#"{"code":-400,"message":""}"#);
    away(site.post("/goim/push/mids?mids=7", b"m").await, queue);
    away(site.post("/goim/push/room?operation=1&type=a&room=b", b"m").await, queue);
    away(site.post("/goim/push/all?operation=1", b"m").await, queue);
    site.store.set_away(true);
    let store = r#"{"code":-500,"message":"session store: connection refused"}"#;
    away(site.post("/goim/push/mids?mids=7", b"m").await, store);
    away(site.post("/goim/push/keys?keys=k", b"m").await, r#"{"code":-400,"message":""}"#);
}

#[tokio::test]
async fn a_handler_that_panics_is_500_without_a_body_and_the_next_request_is_served() {
    let site = Site::start().await;
    *site.queue.mood.lock() = Mood::Panicking;
    let answer = site.post("/goim/push/all?operation=1", b"m").await;
    assert_eq!((answer.status, answer.body.as_str(), answer.header("Content-Type")), (500, "", None));
    assert_eq!((site.api.metrics.panics.get(), site.api.metrics.in_flight.get()), (1, 0));
    *site.queue.mood.lock() = Mood::Well;
    assert_eq!(site.post("/goim/push/all?operation=1", b"m").await.status, 200);
}
