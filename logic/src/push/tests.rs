use std::collections::BTreeSet;

use super::*;
use crate::fakes::{FakeQueue, Mood, pair};
use crate::store::memory::MemoryStore;

fn pusher() -> (Pusher, Arc<MemoryStore>, Arc<FakeQueue>) {
    let (store, queue) = pair();
    (Pusher::new(store.clone(), queue.clone()), store, queue)
}

fn strings<const N: usize>(keys: [&str; N]) -> Vec<String> {
    keys.map(str::to_owned).into()
}

/// A record as goim would have written it: without what is ours.
fn goims(record: &PushMsg) -> PushMsg {
    PushMsg { id: Bytes::new(), created_ms: 0, expires_ms: 0, ..record.clone() }
}

fn hex(record: &PushMsg) -> String {
    record.encode_to_vec().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn keys_become_one_record_per_comet_and_partition() {
    let (pusher, store, queue) = pusher();
    let keys: Vec<String> = (0..200).map(|i| format!("k{i}")).collect();
    for (i, key) in keys.iter().enumerate() {
        store.put(0, key, ["h1", "h2"][i % 2]).await;
    }
    let count = pusher.keys(1000, keys.clone(), "m1".into(), &Options::default()).await.unwrap();
    let pushed = queue.pushed();
    assert_eq!((count, pushed.len()), (18, 18), "2 comets on 9 partitions");
    let mut seen = BTreeSet::new();
    let mut reached = Vec::new();
    for (record, new) in pushed.iter().zip(queue.records.lock().iter()) {
        assert_eq!(new.key(), record.keys[0].as_bytes(), "goim's record key");
        let partitions: BTreeSet<u32> = record.keys.iter().map(|key| partition(key.as_bytes(), 9)).collect();
        assert_eq!(partitions.len(), 1, "all keys of a record share a partition");
        assert!(seen.insert((record.server.clone(), partitions)));
        assert_eq!((record.r#type(), record.operation, &record.msg[..]), (Type::Push, 1000, &b"m1"[..]));
        reached.extend(record.keys.clone());
    }
    reached.sort();
    let mut keys = keys;
    keys.sort();
    assert_eq!(reached, keys);
}

#[tokio::test]
async fn records_are_goims_bytes_and_ours_behind_them() {
    let (pusher, store, queue) = pusher();
    store.put(0, "k1", "h1").await;
    let none = Options::default();
    pusher.keys(1000, strings(["k1"]), "m1".into(), &none).await.unwrap();
    pusher.room(1000, &RoomId::from_parts("test", "1"), "m1".into(), &none).await.unwrap();
    pusher.all(1000, 64, "m1".into(), &none).await.unwrap();
    let pushed = queue.pushed();
    assert_eq!(hex(&goims(&pushed[0])), "10e8072202683132026b313a026d31");
    assert_eq!(hex(&goims(&pushed[1])), "080110e8072a08746573743a2f2f313a026d31");
    assert_eq!(hex(&goims(&pushed[2])), "080210e80718403a026d31");
    let keys: Vec<Bytes> = queue.records.lock().iter().map(|record| record.key().clone()).collect();
    assert_eq!(keys, ["k1", "test://1", "1000"]);
}

#[tokio::test]
async fn a_push_says_who_it_is_when_it_was_made_and_when_it_is_worthless() {
    let (pusher, _, queue) = pusher();
    let options = Options { ttl: Some(Duration::from_secs(30)), on_full: OnFull::Close, priority: 7 };
    pusher.all(1000, 0, "m".into(), &options).await.unwrap();
    let record = &queue.pushed()[0];
    let id = uuid::Uuid::from_slice(&record.id).unwrap();
    assert_eq!(id.get_version_num(), 7);
    let now = millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap());
    assert!(record.created_ms <= now && record.created_ms + 600_000 > now);
    assert_eq!(record.expires_ms, record.created_ms + 30_000);
    assert_eq!((record.priority, record.on_full()), (7, OnFull::Close));
}

#[tokio::test]
async fn keys_that_are_nowhere_and_empty_keys_are_passed_over() {
    let (pusher, store, queue) = pusher();
    store.put(0, "here", "h1").await;
    let none = Options::default();
    assert_eq!(pusher.keys(1, strings(["gone", ""]), "m".into(), &none).await.unwrap(), 0);
    assert_eq!(pusher.keys(1, strings([""]), "m".into(), &none).await.unwrap(), 0);
    assert_eq!(pusher.keys(1, strings(["gone", "here"]), "m".into(), &none).await.unwrap(), 1);
    assert_eq!(queue.pushed()[0].keys, ["here"]);
    assert!(matches!(pusher.keys(1, vec![], "m".into(), &none).await, Err(PushError::NoKeys)));
}

#[tokio::test]
async fn a_key_named_twice_is_written_twice() {
    let (pusher, store, queue) = pusher();
    store.put(0, "k", "h1").await;
    pusher.keys(1, strings(["k", "k"]), "m".into(), &Options::default()).await.unwrap();
    assert_eq!(queue.pushed()[0].keys, ["k", "k"]);
}

#[tokio::test]
async fn a_member_is_reached_on_every_device_once() {
    let (pusher, store, queue) = pusher();
    store.put(7, "phone", "h1").await;
    store.put(7, "web", "h2").await;
    store.put(8, "other", "h1").await;
    let none = Options::default();
    assert_eq!(pusher.mids(1, &[7, 7], "m".into(), &none).await.unwrap(), 2);
    let mut reached: Vec<(String, Vec<String>)> =
        queue.pushed().into_iter().map(|record| (record.server, record.keys)).collect();
    reached.sort();
    assert_eq!(reached, [("h1".to_owned(), strings(["phone"])), ("h2".to_owned(), strings(["web"]))]);
    assert_eq!(pusher.mids(1, &[], "m".into(), &none).await.unwrap(), 0);
    assert_eq!(pusher.mids(1, &[0, -1, 99], "m".into(), &none).await.unwrap(), 0);
}

#[tokio::test]
async fn a_list_of_keys_too_long_for_one_record_is_cut_and_keeps_its_order() {
    let (pusher, store, queue) = pusher();
    let keys: Vec<String> = (0..60).map(|i| format!("{i:0>60000}")).collect();
    for key in &keys {
        store.put(0, key, "h1").await;
    }
    let count = pusher.keys(1, keys.clone(), vec![0; 700_000].into(), &Options::default()).await.unwrap();
    let records = queue.records.lock().clone();
    assert_eq!(count, records.len());
    assert!(count > 9, "some partition needed a second record");
    for record in &records {
        assert!(record.key().len() + record.value().len() + OVERHEAD <= MAX_RECORD);
    }
    for wanted in 0..9 {
        let of = |key: &&String| partition(key.as_bytes(), 9) == wanted;
        let expected: Vec<String> = keys.iter().filter(of).cloned().collect();
        let pushed = queue.pushed().into_iter().flat_map(|record| record.keys);
        assert_eq!(pushed.filter(|key| of(&key)).collect::<Vec<_>>(), expected);
    }
}

#[tokio::test]
async fn a_message_too_large_for_any_record_is_refused_before_anything_is_stored() {
    let (pusher, store, queue) = pusher();
    store.put(0, "k", "h1").await;
    let body = Bytes::from(vec![0; MAX_RECORD]);
    let none = Options::default();
    for refused in [
        pusher.keys(1, strings(["k"]), body.clone(), &none).await,
        pusher.room(1, &"a://1".into(), body.clone(), &none).await,
    ] {
        assert!(matches!(refused, Err(PushError::Queue(QueueError::TooLarge))));
    }
    assert!(queue.pushed().is_empty());
}

#[tokio::test]
async fn pushes_made_one_after_the_other_are_handed_over_in_that_order() {
    let (pusher, store, queue) = pusher();
    store.put(0, "k", "h1").await;
    for i in 0..50 {
        pusher.keys(i, strings(["k"]), "m".into(), &Options::default()).await.unwrap();
    }
    let ops: Vec<i32> = queue.pushed().iter().map(|record| record.operation).collect();
    assert_eq!(ops, (0..50).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_store_or_a_queue_that_is_away_is_an_error() {
    let (pusher, store, queue) = pusher();
    store.put(1, "k", "h1").await;
    let none = Options::default();
    *queue.mood.lock() = Mood::Away;
    let error = pusher.keys(1, strings(["k"]), "m".into(), &none).await.unwrap_err();
    assert_eq!(error.to_string(), "push queue: all brokers are down");
    store.set_away(true);
    assert!(matches!(pusher.mids(1, &[1], "m".into(), &none).await, Err(PushError::Store(_))));
}
