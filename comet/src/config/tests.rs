use clap::{CommandFactory, Parser};

use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    config: Config,
}

fn parse(flags: &[&str]) -> Result<Config, clap::Error> {
    Line::try_parse_from(std::iter::once(&"comet").chain(flags)).map(|line| line.config)
}

pub(super) fn loopback() -> Config {
    loopback_with(&[])
}

pub(super) fn loopback_with(flags: &[&str]) -> Config {
    let free = || vec!["127.0.0.1:0".parse().unwrap()];
    Config {
        tcp_bind: free(),
        websocket_bind: free(),
        ws_tls_bind: free(),
        tcp_tls_bind: free(),
        grpc_bind: "127.0.0.1:0".parse().unwrap(),
        shards: NonZeroUsize::new(2),
        ..parse(flags).unwrap()
    }
}

#[test]
fn every_setting_is_documented_and_every_file_key_names_one() {
    let mut command = Line::command();
    command.build();
    for argument in command.get_arguments().filter(|argument| argument.get_id() != "help") {
        assert!(argument.get_help().is_some(), "{}", argument.get_id());
    }
    for (key, meaning) in Config::KEYS {
        assert_eq!(*key, key.to_lowercase());
        if let FileKey::Arg(id) = meaning {
            assert!(command.get_arguments().any(|argument| argument.get_id() == *id), "{key} names {id}");
        }
    }
}

#[test]
fn the_defaults_are_goims_ports_and_its_handshake_timeout() {
    let config = parse(&[]).unwrap();
    let any = |port| Bind { ip: None, port };
    assert_eq!(config.tcp_bind, [any(3101)]);
    assert_eq!(config.websocket_bind, [any(3102)]);
    assert_eq!(config.ws_tls_bind, [any(3103)]);
    assert_eq!(config.tcp_tls_bind, [any(3104)]);
    assert_eq!(config.grpc_bind, any(3109));
    assert_eq!(config.handshake_timeout, Duration::from_secs(5));
    assert_eq!(config.queue_bytes, 256 * 1024);
    assert_eq!(config.queue_bytes_total, 512 * 1024 * 1024);
    assert_eq!(config.drain_lease, runtime::pod::DRAIN_LEASE);
    assert!(!config.host.is_empty() && !config.tls_open && !config.offline);
    config.check().unwrap();
}

#[test]
fn an_address_may_be_a_port_alone_an_address_or_a_name() {
    assert_eq!(":3101".parse(), Ok(Bind { ip: None, port: 3101 }));
    assert_eq!("127.0.0.1:0".parse(), Ok(Bind { ip: Some([127, 0, 0, 1].into()), port: 0 }));
    assert_eq!("[::1]:80".parse(), Ok(Bind { ip: Some("::1".parse().unwrap()), port: 80 }));
    assert_eq!("localhost:80".parse::<Bind>().unwrap().port, 80);
    for text in ["3101", ":", ":70000", "", "1.2.3.4"] {
        assert_eq!(text.parse::<Bind>(), Err(format!("expected HOST:PORT or :PORT, not `{text}`")));
    }
}

#[test]
fn sizes_have_units_and_bad_ones_are_named() {
    for (text, bytes) in [("4096", 4096), ("256KiB", 262_144), ("2 MiB", 2_097_152), ("0", 0)] {
        assert_eq!(size(text), Ok(bytes));
    }
    for text in ["", "1GB", "-1", "99999999999999999999", "18446744073709551615KiB"] {
        assert!(size(text).unwrap_err().contains("expected a size such as"), "{text}");
    }
}

#[test]
fn in_a_pod_the_id_is_its_name_and_the_start_of_its_uid_and_browsers_get_the_name() {
    let pod = |name: &str| match name {
        POD_NAME => Some("prod-comet-0".to_owned()),
        POD_UID => Some("1f0c2d3e-0000-0000-0000-000000000000".to_owned()),
        _ => None,
    };
    let host = identity(&pod).unwrap();
    assert_eq!(host, "prod-comet-0.1f0c2d3e");
    assert_eq!(identity(&|name| pod(name).filter(|_| name != POD_UID)), None, "both are needed");
    let config = Config { host, pod_name: pod(POD_NAME), ..parse(&[]).unwrap() };
    assert_eq!(config.public_host(), "prod-comet-0");
    let told = Config { pod_name: pod(POD_NAME), ..parse(&["--host", "h1"]).unwrap() };
    assert_eq!(told.public_host(), "h1");
}

#[test]
fn goims_boolean_flags_work_with_and_without_a_value() {
    for (flags, expected) in [(["--debug"], true), (["--debug=true"], true), (["--debug=false"], false)] {
        assert_eq!(parse(&flags).unwrap().debug, expected, "{flags:?}");
    }
}

#[test]
fn lists_are_separated_by_commas() {
    let config = parse(&["--addrs=1.1.1.1,2.2.2.2", "--whitelist", "1,2", "--tcp-bind", ":1,127.0.0.1:2"]).unwrap();
    assert_eq!(config.addrs, ["1.1.1.1", "2.2.2.2"]);
    assert_eq!(config.public_addresses(), ["1.1.1.1", "2.2.2.2"]);
    assert!(parse(&["--addrs="]).unwrap().public_addresses().is_empty());
    assert_eq!(config.whitelist, [1, 2]);
    assert_eq!(config.tcp_bind.len(), 2);
}

#[test]
fn settings_that_contradict_each_other_are_refused_with_what_was_expected() {
    for (flags, text) in [
        (&["--tls-open"][..], "--tls-open true: expected --cert-file and --key-file with it"),
        (
            &["--cert-file", "a,b", "--key-file", "c"],
            "--key-file names 1 files: expected one for each of the 2 in --cert-file",
        ),
        (
            &["--internal-tls-cert", "a", "--internal-tls-ca", "b"],
            "--internal-tls-cert, --internal-tls-key and --internal-tls-ca go together: name all three, or none",
        ),
        (&["--proxy-protocol"], "--proxy-protocol true: expected --trusted-proxies to name the proxies' networks"),
        (&["--drain-min", "2s", "--drain-max", "1s"], "--drain-min 2s: expected at most --drain-max, 1s"),
        (&["--handshake-timeout", "0"], "--handshake-timeout 0: expected a duration above zero"),
        (&["--queue-bytes", "1"], "--queue-bytes 1: expected at least 8KiB, room for one packet of a client"),
    ] {
        assert_eq!(parse(flags).unwrap().check().unwrap_err().to_string(), text);
    }
}

#[test]
fn a_bad_value_is_named_with_its_flag() {
    for (flags, parts) in [
        (&["--tcp-bind", "3101"], ["--tcp-bind", "HOST:PORT"]),
        (&["--trusted-proxies", "10.0.0.0/40"], ["--trusted-proxies", "10.0.0.0/8"]),
        (&["--online-interval", "3"], ["--online-interval", "500ms"]),
    ] {
        let error = parse(flags).unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
}

/// A file as goim's users have it, every key of its documentation, none at its default.
const GOIM: &str = r#"
    debug = true
    [discovery]
    nodes = ["127.0.0.1:7171"]
    [env]
    region = "sh"
    zone = "sh001"
    deployEnv = "dev"
    host = "comet-1"
    weight = 20
    offline = true
    addrs = ["192.0.2.1", "192.0.2.2"]
    [rpcServer]
    network = "tcp"
    addr = ":4109"
    timeout = "1s"
    idleTimeout = "60s"
    maxLifeTime = "2h"
    forceCloseWait = "20s"
    keepAliveInterval = "60s"
    keepAliveTimeout = "20s"
    [rpcClient]
    dial = "1s"
    timeout = "1s"
    [tcp]
    bind = [":4101"]
    sndbuf = 4096
    rcvbuf = 4096
    keepalive = true
    reader = 32
    readBuf = 1024
    readBufSize = 8192
    writer = 32
    writeBuf = 1024
    writeBufSize = 8192
    [websocket]
    bind = [":4102"]
    tlsOpen = true
    tlsBind = [":4103"]
    certFile = "a.pem,b.pem"
    privateFile = "a.key,b.key"
    [protocol]
    timer = 32
    timerSize = 2048
    svrProto = 10
    cliProto = 5
    handshakeTimeout = "8s"
    [bucket]
    size = 32
    channel = 1024
    room = 1024
    routineAmount = 32
    routineSize = 1024
    [whitelist]
    whitelist = [123]
    whiteLog = "white.log"
"#;

#[test]
fn goims_own_file_starts_comet() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("comet.toml");
    let file = |name: &str| dir.path().join(name);
    for name in ["a", "b"] {
        let made = rcgen::generate_simple_self_signed([format!("{name}.example.org")]).unwrap();
        std::fs::write(file(&format!("{name}.pem")), made.cert.pem()).unwrap();
        std::fs::write(file(&format!("{name}.key")), made.signing_key.serialize_pem()).unwrap();
    }
    let here = |text: &str| text.replace("a.pem,b.pem", "@/a.pem,@/b.pem").replace("a.key,b.key", "@/a.key,@/b.key");
    std::fs::write(&path, here(GOIM).replace('@', dir.path().to_str().unwrap())).unwrap();
    let load = |extra: &[&str]| {
        let argv = ["-conf", path.to_str().unwrap(), "-alsologtostderr"].into_iter().chain(extra.iter().copied());
        runtime::config::load::<Config>("comet", "", argv.map(std::ffi::OsString::from), &|_| None).unwrap()
    };
    let loaded = load(&[]);
    let config = loaded.service;
    config.check().unwrap();
    let any = |port| [Bind { ip: None, port }];
    assert_eq!((&config.tcp_bind[..], &config.websocket_bind[..]), (&any(4101)[..], &any(4102)[..]));
    assert_eq!((&config.ws_tls_bind[..], config.grpc_bind), (&any(4103)[..], any(4109)[0]));
    assert!(config.debug && config.offline && config.tcp_keepalive && config.tls_open);
    assert_eq!(config.cert_file, [file("a.pem"), file("b.pem")]);
    assert_eq!(config.key_file, [file("a.key"), file("b.key")]);
    assert_eq!(config.handshake_timeout, Duration::from_secs(8));
    assert_eq!((config.region.as_str(), config.zone.as_str()), ("sh", "sh001"));
    assert_eq!((config.deploy_env.as_str(), config.host.as_str()), ("dev", "comet-1"));
    assert_eq!((config.weight, config.public_addresses()), (20, vec!["192.0.2.1".into(), "192.0.2.2".into()]));
    assert_eq!(config.whitelist, [123]);
    assert_eq!((config.tcp_send_buffer, config.tcp_receive_buffer), (None, None), "sndbuf and rcvbuf have no effect");
    let said = format!("{:?}", loaded.notices);
    for key in ["tcp.sndbuf", "protocol.svrProto", "bucket.routineAmount", "--logic"] {
        assert!(said.contains(key), "{key}: {said}");
    }
    let flags = ["-region=bj", "-zone", "bj001", "-deploy.env", "prod", "-host=h2", "-weight=5", "-addrs=1.2.3.4"];
    let config = load(&[&flags[..], &["-offline=false", "-debug=false"]].concat()).service;
    assert_eq!((config.region.as_str(), config.zone.as_str()), ("bj", "bj001"));
    assert_eq!((config.deploy_env.as_str(), config.host.as_str(), config.weight), ("prod", "h2", 5));
    assert_eq!(config.addrs, ["1.2.3.4"]);
    assert!(!config.offline && !config.debug);
}

#[test]
fn unset_the_weight_is_10_and_rooms_are_reported_every_3_seconds() {
    let config = parse(&[]).unwrap();
    assert_eq!((config.weight, config.online_interval), (10, Duration::from_secs(3)));
    assert_eq!((config.frames_per_second, config.bytes_per_second), (100, 256 * 1024));
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
    let shown = [names::<settings::comet::Fixed>(), names::<settings::comet::Live>()].concat();
    assert!(shown.len() > 5 && shown.contains(&"log".to_owned()), "{shown:?}");
    for name in shown {
        assert!(known.contains(&name.to_lowercase()), "{name}");
    }
}
