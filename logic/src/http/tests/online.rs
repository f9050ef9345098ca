//! Counts and node lists.

use super::*;

const LIMIT: &str = "Key: 'Limit' Error:Field validation for 'Limit' failed on the 'required' tag";
const TYPE: &str = "Key: 'Type' Error:Field validation for 'Type' failed on the 'required' tag";
const ROOMS: &str = "Key: 'Rooms' Error:Field validation for 'Rooms' failed on the 'required' tag";

fn comet(conns: i32, ips: i32) -> CometInfo {
    CometInfo {
        weight: 10,
        conn_count: conns,
        ip_count: ips,
        addrs: vec!["192.0.2.1".into()],
        region: "sh".into(),
        zone: "sh1".into(),
        ..CometInfo::default()
    }
}

#[tokio::test]
async fn the_top_rooms_are_found_by_prefix_and_shown_by_host() {
    let site = Site::start().await;
    let none = r#"{"code":0,"message":"","data":[]}"#;
    site.get("/goim/online/top?type=live&limit=3").await.is(200, JSON, none);
    let rooms = [("live://a/b", 3), ("live2://x", 9), ("live://c d", 99), ("test://1", 50), ("live://1", 5)];
    site.rooms(&rooms, vec![]);
    let all = r#"[{"room_id":"x","count":9},{"room_id":"1","count":5},{"room_id":"a","count":3}]"#;
    let answer = |list: &str| format!(r#"{{"code":0,"message":"","data":{list}}}"#);
    site.get("/goim/online/top?type=live&limit=10").await.is(200, JSON, &answer(all));
    let first = r#"[{"room_id":"x","count":9}]"#;
    site.get("/goim/online/top?type=live&limit=1").await.is(200, JSON, &answer(first));
    site.get("/goim/online/top?type=chat&limit=1").await.is(200, JSON, none);
}

#[tokio::test]
async fn the_counts_of_rooms_are_a_map_with_0_for_the_unknown() {
    let site = Site::start().await;
    site.rooms(&[("live://1000", 3)], vec![]);
    let answer = site.get("/goim/online/room?type=live&rooms=1000&rooms=nobody&rooms=").await;
    answer.is(200, JSON, r#"{"code":0,"message":"","data":{"":0,"1000":3,"nobody":0}}"#);
    let answer = site.get("/goim/online/room?type=live&rooms=%3C%26%3E").await;
    answer.is(200, JSON, r#"{"code":0,"message":"","data":{"\u003c\u0026\u003e":0}}"#);
}

#[tokio::test]
async fn the_total_sums_the_comets_that_are_not_offline() {
    let site = Site::start().await;
    let zero = r#"{"code":0,"message":"","data":{"conn_count":0,"ip_count":0}}"#;
    site.get("/goim/online/total").await.is(200, JSON, zero);
    let offline = CometInfo { offline: true, ..comet(100, 100) };
    site.rooms(&[], vec![("h1", comet(5, 3)), ("h2", comet(7, 4)), ("h3", offline)]);
    let sum = r#"{"code":0,"message":"","data":{"conn_count":12,"ip_count":7}}"#;
    site.get("/goim/online/total").await.is(200, JSON, sum);
}

#[tokio::test]
async fn each_comet_has_its_counts() {
    let site = Site::start().await;
    let offline = CometInfo { offline: true, ..comet(1, 1) };
    site.rooms(&[], vec![("h1", comet(5, 3)), ("h2", offline)]);
    let answer = site.get("/goim/online/servers").await;
    let h1 = r#""h1":{"conn_count":5,"ip_count":3,"offline":false,"region":"sh","zone":"sh1"}"#;
    let h2 = r#""h2":{"conn_count":1,"ip_count":1,"offline":true,"region":"sh","zone":"sh1"}"#;
    answer.is(200, JSON, &format!(r#"{{"code":0,"message":"","data":{{{h1},{h2}}}}}"#));
}

#[tokio::test]
async fn a_question_about_rooms_without_its_parameters_is_400() {
    let site = Site::start().await;
    let bad = |message: &str| format!(r#"{{"code":-400,"message":"{}"}}"#, message.replace('\n', "\\n"));
    for (target, message) in [
        ("/goim/online/top", format!("{TYPE}\n{LIMIT}")),
        ("/goim/online/top?type=live&limit=0", LIMIT.to_owned()),
        ("/goim/online/top?type=live&limit=", LIMIT.to_owned()),
        ("/goim/online/top?limit=3", TYPE.to_owned()),
        ("/goim/online/room", format!("{TYPE}\n{ROOMS}")),
        ("/goim/online/room?type=live", ROOMS.to_owned()),
        ("/goim/online/room?rooms=1", TYPE.to_owned()),
    ] {
        site.get(target).await.is(400, PLAIN, &bad(&message));
    }
    let text = r#"{"code":-400,"message":"strconv.ParseInt: parsing \"ten\": invalid syntax"}"#;
    site.get("/goim/online/top?limit=ten").await.is(400, PLAIN, text);
}

#[tokio::test]
async fn a_negative_limit_is_400_and_no_panic() {
    let site = Site::start().await;
    let text = "Key: 'Limit' Error:Field validation for 'Limit' failed on the 'min' tag";
    let body = format!(r#"{{"code":-400,"message":"{text}"}}"#);
    site.get("/goim/online/top?type=live&limit=-1").await.is(400, PLAIN, &body);
    assert_eq!(site.api.metrics.panics.get(), 0);
}

#[tokio::test]
async fn the_node_list_is_goims_json_without_zero_values() {
    let site = Site::with("--push-auth none --default-domain conn.example.org --host-domain .example.org").await;
    let reply = |nodes: &str| {
        format!(
            "{{\"code\":0,\"message\":\"\",\"data\":{{\"domain\":\"conn.example.org\",\"tcp_port\":3101,\
             \"ws_port\":3102,\"wss_port\":3103,\"heartbeat\":240,\"nodes\":[{nodes}],\"backoff\":{{\"max_delay\":300,\
             \"base_delay\":3,\"factor\":1.8,\"jitter\":0.3}},\"heartbeat_max\":2}}}}"
        )
    };
    site.get("/goim/nodes/weighted").await.is(200, JSON, &reply(r#""conn.example.org""#));
    site.rooms(&[], vec![("h1", comet(5, 3)), ("h2", comet(1, 1))]);
    site.get("/goim/nodes/weighted?platform=web").await.is(200, JSON, &reply(r#""h2.example.org","h1.example.org""#));
    site.get("/goim/nodes/weighted?platform=ios").await.is(200, JSON, &reply(r#""192.0.2.1","192.0.2.1""#));

    let bare = "--push-auth none --tcp-port 0 --ws-port 0 --wss-port 0 --tcps-port 3104 --backoff-jitter 0 \
                --backoff-factor 2";
    let site = Site::with(bare).await;
    let body = "{\"code\":0,\"message\":\"\",\"data\":{\"heartbeat\":240,\"backoff\":{\"max_delay\":300,\
                \"base_delay\":3,\"factor\":2},\"heartbeat_max\":2,\"tcps_port\":3104}}";
    site.get("/goim/nodes/weighted").await.is(200, JSON, body);
}

#[tokio::test]
async fn the_instances_are_null_before_the_first_comet_and_without_internal_addresses() {
    let site = Site::with("--push-auth none --deploy-env dev").await;
    let none = r#"{"code":0,"message":"","data":null}"#;
    site.get("/goim/nodes/instances").await.is(200, JSON, none);
    let offline = CometInfo { offline: true, ..comet(1, 1) };
    site.rooms(&[], vec![("h1", comet(5, 3)), ("h2", offline)]);
    let h1 = "{\"region\":\"sh\",\"zone\":\"sh1\",\"env\":\"dev\",\"appid\":\"goim.comet\",\"hostname\":\"h1\",\
              \"addrs\":[],\"version\":\"\",\"latest_timestamp\":0,\"metadata\":{\"addrs\":\"192.0.2.1\",\
              \"conn_count\":\"5\",\"ip_count\":\"3\",\"offline\":\"false\",\"weight\":\"10\"}}";
    let body = format!(r#"{{"code":0,"message":"","data":[{h1}]}}"#);
    site.get("/goim/nodes/instances").await.is(200, JSON, &body);
}
