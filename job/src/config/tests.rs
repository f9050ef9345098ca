use std::ffi::OsString;

use runtime::config::{Loaded, load};

use super::*;

/// goim's sample file for job, with its tuning keys.
const SAMPLE: &str = r#"
[discovery]
nodes = ["127.0.0.1:7171"]
[kafka]
topic = "their-topic"
group = "their-group"
brokers = ["10.0.0.1:9092", "10.0.0.2:9092"]
[comet]
routineChan = 1024
routineSize = 32
[room]
batch = 30
signal = "1s"
idle = "15m"
[env]
zone = "z1"
"#;

fn read(line: &str) -> Loaded<Config> {
    load("job", "Carries pushes", line.split_whitespace().map(OsString::from), &|_| None).unwrap()
}

#[test]
fn goims_file_sets_what_it_did_and_names_what_has_no_effect() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("job.toml");
    std::fs::write(&path, SAMPLE).unwrap();
    let Loaded { service, notices, .. } = read(&format!("-conf {}", path.display()));
    assert_eq!((service.kafka.topic.as_str(), service.group.as_str()), ("their-topic", "their-group"));
    assert_eq!(service.kafka.brokers, ["10.0.0.1:9092", "10.0.0.2:9092"]);
    let batching = service.limits().batching;
    assert_eq!((batching.count, batching.window), (30, Duration::from_secs(1)));
    assert_eq!(service.zone.as_deref(), Some("z1"));
    let said = |text: &str| notices.iter().any(|notice| format!("{notice:?}").contains(text));
    for key in ["--comets", "room.idle", "comet.routine"] {
        assert!(said(key), "{key}: {notices:?}");
    }
}

#[test]
fn defaults_are_goims_names_and_our_limits() {
    let config = read("").service;
    assert_eq!((config.kafka.topic.as_str(), config.group.as_str()), ("goim-push-topic", "goim-push-group-job"));
    let limits = config.limits();
    assert_eq!((limits.batching.count, limits.batching.bytes), (20, 65_536));
    assert_eq!((limits.batching.window, limits.stall), (Duration::from_millis(20), Duration::from_secs(10)));
    assert_eq!(limits.backlog, 64 << 20);
}

#[test]
fn goims_one_dash_flags_are_taken() {
    let config = read("-region sh -zone sh001 -deploy.env dev -host h1 --comets go1=127.0.0.1:3109").service;
    assert_eq!((config.region.as_deref(), config.deploy_env.as_deref()), (Some("sh"), Some("dev")));
    assert!(matches!(&config.comets, peers::Source::Fixed(list) if list[0].id == Some("go1".into())));
}

#[test]
fn a_value_that_is_none_is_named_with_what_was_expected() {
    let fails = |line: &str| {
        let argv = line.split_whitespace().map(OsString::from);
        load::<Config>("job", "Carries pushes", argv, &|_| None).unwrap_err().to_string()
    };
    assert!(fails("--batch-window 20").contains("expected a duration such as"));
    assert!(fails("--comets nonsense").contains("expected host:port"));
    assert!(fails("--batch-count 0").contains("batch-count"));
    assert!(fails("--internal-tls-cert a").contains("--internal-tls-ca go together"));
    assert!(fails("--internal-tls-name 127.0.0.1").contains("expected a DNS name such as imcluster.internal"));
}

#[derive(clap::Parser)]
struct Whole {
    #[command(flatten)]
    _service: Config,
    #[command(flatten)]
    _process: runtime::config::ProcessConfig,
}

#[test]
fn every_setting_that_the_cluster_shows_is_one_of_ours() {
    let command = <Whole as clap::CommandFactory>::command();
    let known: Vec<String> =
        command.get_arguments().filter_map(clap::Arg::get_long).map(|long| long.replace('-', "")).collect();
    let shown = [names::<settings::job::Fixed>(), names::<settings::job::Live>()].concat();
    assert!(shown.len() > 5 && shown.contains(&"log".to_owned()), "{shown:?}");
    for name in shown {
        assert!(known.contains(&name.to_lowercase()), "{name}");
    }
}
