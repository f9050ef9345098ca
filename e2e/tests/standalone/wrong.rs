//! What cannot work is refused before anything starts: exit code 64 and one line that names key, value and what was
//! expected. A port that cannot be had now ends it with 1. And `--help` is a reference to work from.

use std::process::Output;

use e2e::program::binary;
use tempfile::TempDir;
use tokio::process::Command;

use super::SOON;

/// Runs the program to its end, in a folder that holds this `c.toml`.
async fn run(line: &str, file: &str) -> Output {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("c.toml"), file).unwrap();
    let mut command = Command::new(binary().unwrap());
    command.args(line.split_whitespace()).env_clear().env("IMCLUSTER_ADMIN", "127.0.0.1:0").current_dir(&folder);
    let ended = tokio::time::timeout(SOON, command.kill_on_drop(true).output()).await;
    ended.unwrap_or_else(|_| panic!("`{line}` runs instead of being refused")).unwrap()
}

async fn refused(line: &str, file: &str) -> String {
    let output = run(line, file).await;
    let (told, printed) = (String::from_utf8(output.stderr).unwrap(), String::from_utf8(output.stdout).unwrap());
    assert_eq!(output.status.code(), Some(64), "{line}: {told}");
    assert_eq!(told.trim_end_matches('\n').lines().count(), 1, "{line}: {told}");
    assert_eq!(printed, "", "{line}");
    told.trim_end().to_owned()
}

#[tokio::test]
async fn bad_configuration_ends_with_64_and_one_line_naming_key_value_and_what_was_expected() {
    let cases: &[(&str, &str, &[&str])] = &[
        // Durations.
        (
            "comet -conf c.toml",
            "[protocol]\nhandshakeTimeout = 8\n",
            &["c.toml: protocol.handshakeTimeout", "`8`", "expected a duration such as 500ms"],
        ),
        ("comet --drain-delay soon", "", &["--drain-delay", "`soon`", "expected a duration"]),
        (
            "logic --auth trust --push-auth none -conf c.toml",
            "[redis]\nexpire = \"30 minutes\"\n",
            &["c.toml: redis.expire", "`30 minutes`", "expected a duration"],
        ),
        ("job -conf c.toml", "[room]\nsignal = \"1\"\n", &["c.toml: room.signal", "`1`", "expected a duration"]),
        ("standalone --admin nowhere", "", &["--admin", "`nowhere`", "expected HOST:PORT"]),
        // Addresses.
        (
            "comet -conf c.toml",
            "[tcp]\nbind = [\"3101\"]\n",
            &["c.toml: tcp.bind", "`3101`", "expected HOST:PORT or :PORT"],
        ),
        ("comet --logic 127.0.0.1", "", &["--logic", "`127.0.0.1`", "expected host:port"]),
        ("comet --logic dns:logic", "", &["--logic", "`dns:logic`", "dns:name:port"]),
        (
            "logic --auth trust --push-auth none --http-addr here",
            "",
            &["--http-addr", "`here`", "expected HOST:PORT or :PORT"],
        ),
        (
            "logic --auth trust --push-auth none -conf c.toml",
            "[redis]\naddr = \"6379\"\n",
            &["redis-addr", "6379", "expected host:port"],
        ),
        ("job --kafka-brokers kafka", "", &["--kafka-brokers", "`kafka`", "expected host:port"]),
        (
            "logic --auth trust --push-auth none -conf c.toml",
            "[kafka]\nbrokers = [\"k1:9092\", \"k2\"]\n",
            &["c.toml: kafka.brokers", "`k2`", "expected host:port"],
        ),
        ("standalone --kafka kafka", "", &["--kafka is `kafka`", "expected host:port"]),
        ("job --comets nowhere", "", &["--comets", "nowhere", "expected"]),
        ("--bind localhost", "", &["--bind", "`localhost`", "expected ADDRESS"]),
        // Choices.
        ("logic --auth everybody --push-auth none", "", &["--auth", "`everybody`", "expected one of trust"]),
        (
            "logic --auth trust -conf c.toml",
            "[imcluster]\npushAuth = \"all\"\n",
            &["c.toml: imcluster.pushAuth", "`all`", "expected one of none"],
        ),
        (
            "job --kafka-sasl GSSAPI",
            "",
            &["--kafka-sasl", "`GSSAPI`", "expected one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512"],
        ),
        ("comet -debug=perhaps", "", &["--debug", "`perhaps`", "expected true or false"]),
        ("comet --log-format xml", "", &["--log-format", "`xml`", "expected one of plain, json"]),
        // Numbers.
        ("comet -weight many", "", &["--weight", "`many`", "expected"]),
        ("job --batch-count 0", "", &["--batch-count", "`0`", "expected"]),
        // What must be named.
        (
            "logic",
            "",
            &[
                "missing: --auth trust|jwt|webhook (or IMCLUSTER_AUTH in the environment, imcluster.auth in the file); and one of",
                "--push-auth none (or IMCLUSTER_PUSH_AUTH in the environment, imcluster.pushAuth in the file), ",
                "--push-tokens <FILE> (or",
            ],
        ),
        ("logic --auth trust", "", &["missing: one of --push-auth none (or", "--push-tokens <FILE> (or"]),
        // What must fit together.
        ("comet --tls-open", "", &["--tls-open", "expected --cert-file and --key-file"]),
        (
            "logic --auth trust --push-auth none --redis-addr a:1,b:2",
            "",
            &["--redis-addr", "a:1,b:2", "--redis-cluster or --redis-sentinel-master"],
        ),
        // Files.
        ("comet -conf c.toml", "[tcp]\nbind = = \":3101\"\n", &["c.toml: line 2", "expected TOML"]),
        ("logic -conf gone.toml", "", &["--config", "`gone.toml`", "expected a file that can be read"]),
        ("comet --tls-open --cert-file gone.pem --key-file gone.key", "", &["gone.pem"]),
        (
            "logic --auth trust --push-tokens c.toml",
            "[[token]]\nname = 1\n",
            &["--push-tokens", "`c.toml`", "expected"],
        ),
        (
            "logic --auth trust --push-auth none --kafka-ca-file gone.pem",
            "",
            &["--kafka-ca-file", "gone.pem", "expected a PEM file"],
        ),
        ("job --kafka-set no.such.property=1", "", &["no.such.property"]),
        // Names.
        (
            "job -conf c.toml",
            "[imcluster]\nbatchCuont = 7\n",
            &["c.toml: imcluster.batchCuont is not a setting of job", "`imcluster job --help`"],
        ),
        ("job --reigon sh", "", &["--reigon", "did you mean --region?"]),
        ("commet", "", &["`commet`", "expected standalone, comet, logic, job"]),
    ];
    for (line, file, parts) in cases {
        let told = refused(line, file).await;
        for part in *parts {
            assert!(told.contains(part), "{line} should name {part}: {told}");
        }
    }
}

#[tokio::test]
async fn a_port_that_cannot_be_had_ends_with_1_and_a_line_naming_setting_value_and_what_to_change() {
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = held.local_addr().unwrap();
    let port = taken.port();
    let in_use = "address in use: end what listens there, or choose another port";
    let cases = [
        (
            format!("logic --auth trust --push-auth none --http-addr {taken}"),
            format!("--http-addr is `{taken}`: {in_use}"),
        ),
        (format!("comet --tcp-bind {taken}"), format!("--tcp-bind is `{taken}`: {in_use}")),
        (format!("job --admin {taken}"), format!("--admin is `{taken}`: {in_use}")),
        (format!("standalone --http-port {port}"), format!("--http-port is `{port}`: {in_use}")),
        (
            format!("standalone --http-port 0 --client-tcp-port {port}"),
            format!("--client-tcp-port is `{port}`: {in_use}"),
        ),
        (
            "standalone --bind 192.0.2.1".to_owned(),
            "--bind is `192.0.2.1`: address not available: choose one that an interface of this machine has".to_owned(),
        ),
    ];
    for (line, expected) in cases {
        let output = run(&line, "").await;
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{line}: {told}");
        assert_eq!(told.lines().last(), Some(&*format!("imcluster: {expected}")), "{line}: {told}");
    }
}

#[tokio::test]
async fn the_help_of_every_command_is_a_reference_with_flag_variable_and_default() {
    for (line, parts) in [
        ("--help", &["standalone", "comet", "logic", "job", "bench"][..]),
        ("standalone --help", &["--bind", "IMCLUSTER_BIND", "127.0.0.1", "[default: 127.0.0.1:3131]"]),
        ("comet --help", &["--handshake-timeout", "IMCLUSTER_HANDSHAKE_TIMEOUT", "[default: 5s]", "[env: REGION"]),
        ("logic --help", &["--auth", "trust", "--push-tokens", "IMCLUSTER_PUSH_TOKENS"]),
        ("job --help", &["--batch-window", "IMCLUSTER_BATCH_WINDOW", "[default: 20ms]"]),
        ("bench --help", &["--"]),
    ] {
        let output = run(line, "").await;
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{line}");
        for part in parts {
            assert!(text.contains(part), "{line} should name {part}:\n{text}");
        }
    }
}
