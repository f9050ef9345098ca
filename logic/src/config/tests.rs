use clap::Parser;

use super::*;

/// A file as goim's users have it, every key of its documentation, none at its default.
const GOIM: &str = r#"
    [discovery]
    nodes = ["127.0.0.1:7171"]
    [env]
    region = "sh"
    host = "logic-1"
    [regions]
    "bj" = ["北京", "天津"]
    "sh" = ["上海"]
    [node]
    defaultDomain = "conn.example.org"
    hostDomain = ".example.org"
    heartbeat = "2m"
    heartbeatMax = 3
    tcpPort = 4101
    wsPort = 4102
    wssPort = 4103
    regionWeight = 2.5
    [backoff]
    maxDelay = 301
    baseDelay = 4
    factor = 1.9
    jitter = 0.4
    [rpcServer]
    network = "tcp"
    addr = ":4119"
    timeout = "1s"
    [rpcClient]
    dial = "1s"
    timeout = "1s"
    [httpServer]
    network = "tcp"
    addr = ":4111"
    readTimeout = "1s"
    writeTimeout = "1s"
    [kafka]
    topic = "t"
    brokers = ["k1:9092", "k2:9092"]
    [redis]
    network = "tcp"
    addr = "127.0.0.1:6380"
    active = 60000
    idle = 1024
    dialTimeout = "200ms"
    readTimeout = "500ms"
    writeTimeout = "500ms"
    idleTimeout = "120s"
    expire = "10m"
"#;

#[derive(Debug, Parser)]
struct Program {
    #[command(flatten)]
    config: Config,
}

fn parse(flags: &str) -> Result<Config, String> {
    let argv = std::iter::once("logic").chain(flags.split_whitespace());
    Program::try_parse_from(argv).map(|program| program.config).map_err(|error| error.to_string())
}

#[test]
fn auth_and_push_auth_must_be_named() {
    let error = parse("").unwrap_err();
    for flag in ["--auth", "--push-auth", "--push-tokens"] {
        assert!(error.contains(flag), "{flag}: {error}");
    }
    assert!(parse("--push-auth none").unwrap_err().contains("--auth"));
    assert!(parse("--auth trust").unwrap_err().contains("--push-tokens"));
    assert!(parse("--auth trust --push-auth none").is_ok());
    assert!(parse("--auth trust --push-tokens x.toml").is_ok());
    assert!(parse("--auth trust --push-tokens x.toml --push-auth none").is_err());
    assert!(parse("--auth other --push-auth none").unwrap_err().contains("trust, jwt, webhook"));
}

#[test]
fn jwt_needs_keys_and_keys_need_jwt() {
    let check = |flags: &str| {
        let config = parse(&format!("--push-auth none {flags}")).unwrap_or_else(|error| panic!("{error}"));
        config.check().map_err(|error| error.to_string())
    };
    let missing = check("--auth jwt").unwrap_err();
    for flag in ["--jwt-secret-file", "--jwt-keys-file", "--jwt-jwks-url"] {
        assert!(missing.contains(flag), "{flag}: {missing}");
    }
    assert!(check("--auth trust --jwt-jwks-url https://id.example/keys").unwrap_err().contains("--auth jwt"));
    check("--auth jwt --jwt-jwks-url https://id.example/keys").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    let with = |text: &str| {
        std::fs::write(&path, text).unwrap();
        check(&format!("--auth jwt --jwt-secret-file {}", path.display()))
    };
    with(&"s".repeat(32)).unwrap();
    for (text, expected) in [
        ("hush-hush", "at least 32 bytes"),
        ("-----BEGIN PUBLIC KEY-----\nhush-hush-hush-hush-hush-hush\n", "--jwt-keys-file"),
        ("{\"keys\":[\"hush-hush-hush-hush-hush-hush\"]}", "--jwt-keys-file"),
    ] {
        let error = with(text).unwrap_err();
        assert!(error.starts_with("--jwt-secret-file is `") && error.contains(expected), "{error}");
        assert!(!error.contains("hush"), "{error}");
    }
    assert!(check("--auth jwt --jwt-keys-file /nowhere").unwrap_err().contains("can be read"));
    let two = format!("--auth jwt --push-auth none --jwt-secret-file {0} --jwt-keys-file {0}", path.display());
    assert!(parse(&two).unwrap_err().contains("cannot be used with"));
    assert!(parse("--auth jwt --push-auth none --jwt-jwks-refresh 0s").unwrap_err().contains("at least 1s"));
    assert!(parse("--auth jwt --push-auth none --jwt-leeway 1h").unwrap_err().contains("at most 5m"));
}

#[test]
fn the_webhook_needs_a_url_and_a_url_the_webhook() {
    let check = |flags: &str| {
        let config = parse(&format!("--push-auth none {flags}")).unwrap_or_else(|error| panic!("{error}"));
        config.check().map_err(|error| error.to_string())
    };
    let url = "--auth-webhook-url https://backend.example/who";
    check(&format!("--auth webhook {url}")).unwrap();
    assert!(check("--auth webhook").unwrap_err().contains("--auth-webhook-url"));
    for other in ["trust", "jwt --jwt-jwks-url https://id.example/keys"] {
        assert!(check(&format!("--auth {other} {url}")).unwrap_err().contains("--auth webhook"));
    }
    let keys = "--jwt-jwks-url https://id.example/keys";
    assert!(check(&format!("--auth webhook {url} {keys}")).unwrap_err().contains("--auth jwt"));
    let nowhere = check(&format!("--auth webhook {url} --auth-ca-file /nowhere")).unwrap_err();
    assert!(nowhere.starts_with("--auth-ca-file is `/nowhere`: expected a file of PEM certificates"), "{nowhere}");
    for (wrong, expected) in [("5s", "at most 4s"), ("0s", "more than 0s")] {
        assert!(parse(&format!("--auth webhook {url} --auth-webhook-timeout {wrong}")).unwrap_err().contains(expected));
    }
}

#[test]
fn addresses_are_taken_as_goim_writes_them() {
    let config = parse("--auth trust --push-auth none --http-addr 3111 --rpc-addr 127.0.0.1:0").unwrap();
    assert_eq!((config.http_addr.as_str(), config.rpc_addr.as_str()), ("0.0.0.0:3111", "127.0.0.1:0"));
    assert!(parse("--auth trust --push-auth none --http-addr host").unwrap_err().contains("expected HOST:PORT"));
}

#[test]
fn defaults_are_goims() {
    let config = parse("--auth trust --push-auth none").unwrap();
    assert_eq!((config.http_addr.as_str(), config.rpc_addr.as_str()), ("0.0.0.0:3111", "0.0.0.0:3119"));
    let node = config.node;
    assert_eq!((node.tcp_port, node.ws_port, node.wss_port), (3101, 3102, 3103));
    assert_eq!((node.heartbeat, node.heartbeat_max), (Duration::from_secs(240), 2));
    assert_eq!((node.max_delay, node.base_delay, node.factor, node.jitter), (300, 3, 1.8, 0.3));
}

#[test]
fn the_keys_of_every_part_are_taken() {
    let parts = [crate::store::redis::FILE_KEYS, crate::queue::kafka::FILE_KEYS, crate::session::FILE_KEYS];
    for key in parts.concat() {
        assert!(Config::KEYS.contains(&key), "{key:?}");
    }
}

#[test]
fn goims_own_file_starts_logic_once_auth_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("logic.toml");
    std::fs::write(&path, GOIM).unwrap();
    let argv = ["-conf", path.to_str().unwrap(), "-zone", "sh001", "-deploy.env=dev", "-weight=10", "-logtostderr"];
    let none = |_: &str| None;
    let load = |extra: &[&str]| {
        let argv = argv.iter().chain(extra).map(std::ffi::OsString::from);
        runtime::config::load::<Config>("logic", "", argv, &none)
    };
    let missing = load(&[]).unwrap_err();
    assert_eq!(missing.exit_code(), 64);
    let missing = missing.to_string();
    for part in ["--auth trust|jwt", "imcluster.auth", "; and one of --push-auth none (", "imcluster.pushAuth"] {
        assert!(missing.contains(part), "{part}: {missing}");
    }
    assert!(missing.contains("), --push-tokens <FILE> ("), "{missing}");
    assert!(!missing.contains('\n'));

    let config = load(&["--auth", "trust", "--push-auth", "none"]).unwrap().service;
    assert_eq!((config.http_addr.as_str(), config.rpc_addr.as_str()), ("0.0.0.0:4111", "0.0.0.0:4119"));
    let node = &config.node;
    assert_eq!((node.default_domain.as_str(), node.host_domain.as_str()), ("conn.example.org", ".example.org"));
    assert_eq!((node.tcp_port, node.ws_port, node.wss_port), (4101, 4102, 4103));
    assert_eq!((node.heartbeat, node.heartbeat_max, node.region_weight), (Duration::from_secs(120), 3, 2.5));
    assert_eq!((node.max_delay, node.base_delay, node.factor, node.jitter), (301, 4, 1.9, 0.4));
    let mut regions = node.regions.clone();
    regions.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(regions[0], region("bj=北京,天津").unwrap());
    assert_eq!(regions[1], region("sh=上海").unwrap());
    assert_eq!(
        (config.kafka.topic.as_str(), &config.kafka.brokers[..]),
        ("t", &["k1:9092".to_owned(), "k2:9092".into()][..])
    );
    assert_eq!(config.redis.addr, ["127.0.0.1:6380"]);
    assert_eq!(config.session.expire, Duration::from_secs(600));
    assert_eq!((config.region.as_str(), config.zone.as_str(), config.deploy_env.as_str()), ("sh", "sh001", "dev"));
    assert_eq!((config.weight, config.host.as_str()), (10, "logic-1"));
}

#[test]
fn ours_in_a_file_are_set_by_their_names() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("logic.toml");
    let text = "[imcluster]\nauth = \"trust\"\npushAuth = \"none\"\ndrainDelay = \"1s\"\nnoPage = true\n";
    std::fs::write(&path, text).unwrap();
    let argv = ["--config", path.to_str().unwrap()].map(std::ffi::OsString::from);
    let config = runtime::config::load::<Config>("logic", "", argv, &|_| None).unwrap().service;
    assert_eq!((config.auth, config.push_auth), (Auth::Trust, Some(PushAuth::None)));
    assert!(config.http.no_page && config.drain_delay == Duration::from_secs(1));
}

#[test]
fn every_file_key_sets_an_argument_that_exists() {
    let command = <Program as clap::CommandFactory>::command();
    for (key, meaning) in Config::KEYS {
        assert_eq!(*key, key.to_lowercase(), "keys are compared in lower case");
        if let FileKey::Arg(id) = meaning {
            assert!(command.get_arguments().any(|arg| arg.get_id() == id), "{key} → {id}");
        }
    }
}

#[derive(Parser)]
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
    let shown = [names::<settings::logic::Fixed>(), names::<settings::logic::Live>()].concat();
    assert!(shown.len() > 5 && shown.contains(&"log".to_owned()), "{shown:?}");
    for name in shown {
        assert!(known.contains(&name.to_lowercase()), "{name}");
    }
}

#[test]
fn the_topology_is_where_pods_have_it_and_comets_are_followed_only_when_named() {
    use runtime::pod::{TOPOLOGY_DIR, TOPOLOGY_FILE};
    let parse = |flags: &[&str]| {
        let fixed = ["logic", "--auth", "trust", "--push-auth", "none"];
        Program::parse_from(fixed.iter().chain(flags)).config
    };
    let config = parse(&[]);
    assert_eq!(config.topology, std::path::Path::new(TOPOLOGY_DIR).join(TOPOLOGY_FILE));
    assert_eq!(config.comets, None);
    let slices = parse(&["--comets", "endpointslices:im/prod-comet"]).comets;
    assert!(matches!(slices, Some(peers::Source::EndpointSlices { .. })), "{slices:?}");
}
