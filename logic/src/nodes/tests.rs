use std::net::Ipv4Addr;

use clap::Parser;

use super::*;
use crate::online::Online;

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[derive(Parser)]
struct Program {
    #[command(flatten)]
    node: NodeConfig,
}

fn nodes(flags: &[&str], comets: Vec<(&str, CometInfo)>) -> (Nodes, Online) {
    let config = Program::parse_from(std::iter::once("logic").chain(flags.iter().copied())).node;
    let online = Online::default();
    set(&online, comets);
    (Nodes::new(config, Places::new(online.clone(), None)), online)
}

fn set(online: &Online, comets: Vec<(&str, CometInfo)>) {
    online.set(HashMap::new(), comets.into_iter().map(|(server, info)| (server.into(), info)).collect());
}

fn comet(region: &str, weight: i64, conns: i32) -> CometInfo {
    CometInfo {
        region: region.into(),
        weight,
        conn_count: conns,
        addrs: vec![format!("{region}.addr")],
        ..CometInfo::default()
    }
}

fn three() -> Vec<(&'static str, CometInfo)> {
    vec![("bj", comet("bj", 10, 240_590)), ("sh", comet("sh", 10, 375_420)), ("gz", comet("gz", 10, 293_430))]
}

fn scores(nodes: &Nodes, region: &str) -> Vec<(String, i64)> {
    let best = nodes.balance.lock().choose(nodes.places.seen(), region, 1.6);
    best.iter().map(|comet| (comet.server.to_string(), comet.score)).collect()
}

fn owned<const N: usize>(scores: [(&str, i64); N]) -> Vec<(String, i64)> {
    scores.map(|(server, score)| (server.to_owned(), score)).into()
}

#[test]
fn scores_are_goims_and_the_chosen_comet_steps_back() {
    let (nodes, _) = nodes(&[], three());
    assert_eq!(scores(&nodes, "sh"), owned([("sh", 216_502), ("bj", 182_862), ("gz", 156_442)]));
    assert_eq!(scores(&nodes, "sh")[0], ("sh".to_owned(), 216_501));
}

#[test]
fn without_a_region_the_emptiest_comet_leads() {
    let (nodes, _) = nodes(&[], three());
    assert_eq!(scores(&nodes, ""), owned([("bj", 182_862), ("gz", 156_442), ("sh", 115_447)]));
}

#[test]
fn a_comet_without_a_region_gains_for_clients_without_one() {
    let (nodes, _) = nodes(&[], vec![("a", comet("x", 10, 100)), ("b", comet("", 10, 100))]);
    assert_eq!(nodes.weighted("web", CLIENT).nodes, ["b", "a"]);
}

#[test]
fn scores_are_rounded_and_kept_in_bounds() {
    assert_eq!(score(10, 5, 10, 0, 1.0), 0);
    assert_eq!(score(1, 1, 2, 1, 1.0), 1, "a lack of exactly 0 is kept");
    assert_eq!(score(1, 3, 4, 4, 1.0), MIN_SCORE, "below nothing there is one");
    assert_eq!(score(10, 0, 10, i64::from(i32::MAX), 1.0), MAX_SCORE);
    assert_eq!(score(1, 0, 2, 5, 1.0), 3, "an exact half goes down: 1 + 2.5");
}

#[test]
fn asked_again_and_again_the_comets_take_turns() {
    let (nodes, _) = nodes(&[], vec![("a", comet("a", 10, 0)), ("b", comet("b", 10, 0))]);
    let mut first = BTreeMap::new();
    for _ in 0..100 {
        *first.entry(nodes.weighted("web", CLIENT).nodes[0].clone()).or_insert(0) += 1;
    }
    assert!(first["a"] > 40 && first["b"] > 40, "{first:?}");
}

#[test]
fn fresh_counts_replace_our_own() {
    let (nodes, online) = nodes(&[], vec![("a", comet("x", 10, 10)), ("b", comet("x", 10, 11))]);
    assert_eq!(nodes.weighted("web", CLIENT).nodes[0], "a");
    set(&online, vec![("a", comet("x", 10, 50)), ("b", comet("x", 10, 11))]);
    assert_eq!(nodes.weighted("web", CLIENT).nodes[0], "b");
}

#[test]
fn a_list_that_shrinks_below_half_is_believed() {
    let (nodes, online) = nodes(&[], three());
    set(&online, vec![("bj", comet("bj", 10, 1))]);
    assert_eq!(nodes.weighted("web", CLIENT).nodes, ["bj"]);
}

#[test]
fn a_comet_without_a_weight_counts_as_one() {
    let (nodes, _) = nodes(&[], vec![("a", comet("x", 0, 1)), ("b", comet("x", 0, 3))]);
    assert_eq!(scores(&nodes, ""), owned([("a", 2), ("b", 1)]));
}

#[test]
fn a_client_is_told_of_five_comets_at_most_and_of_none_that_is_offline() {
    let mut comets: Vec<_> = ["a", "b", "c", "d", "e", "f"].map(|name| (name, comet(name, 10, 1))).into();
    comets[1].1.offline = true;
    let (nodes, online) = nodes(&[], comets.clone());
    let told = nodes.weighted("web", CLIENT).nodes;
    assert_eq!(told.len(), 5);
    assert!(!told.contains(&"b".to_owned()));
    comets[1].1.offline = false;
    set(&online, comets);
    assert_eq!(nodes.weighted("web", CLIENT).nodes.len(), 5);
}

#[test]
fn web_gets_host_names_and_others_addresses() {
    let mut comets = vec![("id-1", comet("x", 10, 1)), ("id-2", comet("x", 10, 2))];
    comets[0].1.host = "h1".into();
    comets[0].1.addrs = vec!["192.0.2.1".into(), "192.0.2.2".into()];
    comets[1].1.addrs = vec![String::new()];
    let (nodes, _) = nodes(&["--host-domain", ".example.org"], comets);
    assert_eq!(nodes.weighted("web", CLIENT).nodes, ["h1.example.org", "id-2.example.org"]);
    assert_eq!(nodes.weighted("android", CLIENT).nodes, ["192.0.2.1", "192.0.2.2"]);
    assert_eq!(nodes.weighted("", CLIENT).nodes, ["192.0.2.1", "192.0.2.2"]);
}

#[test]
fn a_host_name_without_a_domain_is_not_handed_out_where_one_name_is_for_all() {
    let comets = || vec![("prod-comet-0", comet("x", 10, 1))];
    let (one, _) = nodes(&["--default-domain", "im.example.org"], comets());
    assert_eq!(one.weighted("web", CLIENT).nodes, ["im.example.org"]);
    assert_eq!(one.weighted("", CLIENT).nodes, ["x.addr"]);
    let (each, _) = nodes(&["--default-domain", "im.example.org", "--host-domain", ".im.example.org"], comets());
    assert_eq!(each.weighted("web", CLIENT).nodes, ["prod-comet-0.im.example.org"]);
}

#[test]
fn where_no_comet_has_an_address_its_name_under_the_domain_is_one() {
    let mut comets = vec![("a", comet("x", 10, 1)), ("b", comet("x", 10, 2))];
    comets.iter_mut().for_each(|(_, info)| info.addrs = vec![]);
    let (nodes, _) = nodes(&["--host-domain", ".example.org", "--default-domain", "example.org"], comets);
    assert_eq!(nodes.weighted("android", CLIENT).nodes, ["a.example.org", "b.example.org"]);
}

#[test]
fn during_a_roll_updated_comets_come_first_among_themselves_by_their_scores() {
    let comets = ["a", "b", "c", "d"].map(|name| (name, comet("x", 10, 100 + i32::from(name.as_bytes()[0]))));
    let (nodes, _) = nodes(&["--host-domain", ".o"], comets.into());
    assert_eq!(nodes.weighted("web", CLIENT).nodes, ["a.o", "b.o", "c.o", "d.o"]);
    nodes.places.set_topology("updated = [\"d\", \"c\", \"gone\"]");
    assert_eq!(nodes.weighted("web", CLIENT).nodes, ["c.o", "d.o", "a.o", "b.o"]);
    nodes.places.set_topology("");
    assert_eq!(nodes.weighted("web", CLIENT).nodes, ["a.o", "b.o", "c.o", "d.o"]);
}

#[test]
fn a_comet_that_drains_is_told_to_nobody_and_still_counts() {
    let mut comets = vec![("a", comet("x", 10, 1)), ("b", comet("x", 10, 2))];
    comets[0].1.draining = true;
    let (nodes, online) = nodes(&[], comets);
    assert_eq!(nodes.weighted("web", CLIENT).nodes, ["b"]);
    assert_eq!(online.totals(), (0, 3));
}

#[test]
fn what_clients_are_told_may_change() {
    let (nodes, _) = nodes(&[], vec![]);
    assert_eq!(nodes.session_timer(), Duration::from_secs(480));
    let flags = ["logic", "--heartbeat", "1m", "--heartbeat-max", "3", "--backoff-max-delay", "9"];
    nodes.apply(Program::parse_from(flags).node);
    let reply = nodes.weighted("", CLIENT);
    assert_eq!((reply.heartbeat, reply.heartbeat_max, reply.backoff.unwrap().max_delay), (60, 3, 9));
    assert_eq!(nodes.session_timer(), Duration::from_secs(180));
}

#[test]
fn without_nodes_the_default_domain_is_the_node() {
    let (with, _) = nodes(&["--default-domain", "conn.example.org"], vec![]);
    assert_eq!(with.weighted("", CLIENT).nodes, ["conn.example.org"]);
    assert_eq!(with.weighted("web", CLIENT).nodes, ["conn.example.org"]);
    let (without, _) = nodes(&[], vec![]);
    assert!(without.weighted("", CLIENT).nodes.is_empty());
}

#[test]
fn the_reply_says_what_the_settings_say() {
    let (nodes, _) = nodes(&["--default-domain", "d", "--tcps-port", "3104"], vec![]);
    let reply = nodes.weighted("", CLIENT);
    assert_eq!((reply.domain.as_str(), reply.tcp_port, reply.ws_port, reply.wss_port), ("d", 3101, 3102, 3103));
    assert_eq!((reply.heartbeat, reply.heartbeat_max, reply.tcps_port), (240, 2, 3104));
    assert_eq!(reply.backoff, Some(Backoff { max_delay: 300, base_delay: 3, factor: 1.8, jitter: 0.3 }));
}

#[test]
fn regions_are_turned_around() {
    let (nodes, _) = nodes(&["--regions", "bj=北京,天津", "--regions", "sh=上海"], vec![]);
    assert_eq!(nodes.regions.get("天津").map(String::as_str), Some("bj"));
    assert_eq!(nodes.regions.get("上海").map(String::as_str), Some("sh"));
    assert_eq!(nodes.region(CLIENT), "");
}
