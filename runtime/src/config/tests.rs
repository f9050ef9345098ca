use super::*;

#[derive(clap::Args, Debug)]
struct Sample {
    /// Where clients connect.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', default_value = "0.0.0.0:3101")]
    tcp_bind: Vec<SocketAddr>,
    /// How long a client has to authenticate.
    #[arg(long, value_parser = crate::duration::parse, default_value = "5s")]
    handshake_timeout: std::time::Duration,
    #[arg(long, env = "REGION")]
    region: Option<String>,
    #[arg(long, env = "OFFLINE")]
    offline: bool,
    #[arg(long, env = "IMCLUSTER_AUTH")]
    auth: String,
    #[arg(long, conflicts_with = "auth_url")]
    auth_file: Option<String>,
    #[arg(long)]
    auth_url: Option<String>,
    #[arg(long)]
    regions: Vec<String>,
}

impl FileKeys for Sample {
    const KEYS: &'static [(&'static str, FileKey)] = &[
        ("tcp.bind", FileKey::Arg("tcp_bind")),
        ("tcp.reader", FileKey::NoEffect),
        ("tcp.*", FileKey::NoEffect),
        ("protocol.handshaketimeout", FileKey::Arg("handshake_timeout")),
        ("env.region", FileKey::Arg("region")),
        ("env.offline", FileKey::Arg("offline")),
        ("discovery.*", FileKey::Replaced("--comets")),
        ("regions.*", FileKey::Arg("regions")),
    ];
}

struct Given {
    dir: tempfile::TempDir,
}

impl Given {
    fn file(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("x.toml"), text).unwrap();
        Self { dir }
    }

    fn path(&self) -> String {
        self.dir.path().join("x.toml").display().to_string()
    }

    fn load(&self, line: &str, env: &[(&str, &str)]) -> Result<Loaded<Sample>, ConfigError> {
        load_line(&format!("-conf {} --auth=trust {line}", self.path()), env)
    }
}

fn load_line(line: &str, env: &[(&str, &str)]) -> Result<Loaded<Sample>, ConfigError> {
    let variable = |name: &str| env.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(*value));
    load("comet", "Holds the connections", line.split_whitespace().map(OsString::from), &variable)
}

fn refused(found: Result<Loaded<Sample>, ConfigError>) -> String {
    let error = found.unwrap_err();
    assert_eq!(error.exit_code(), 64);
    let line = error.to_string();
    assert!(!line.contains('\n'), "{line}");
    line
}

#[test]
fn a_flag_wins_over_the_environment_over_the_file_over_the_default() {
    let given = Given::file("[env]\nregion = \"file\"\n");
    let region = |line: &str, env: &[(&str, &str)]| given.load(line, env).unwrap().service.region;
    assert_eq!(region("-region flag", &[("REGION", "env")]).as_deref(), Some("flag"));
    assert_eq!(region("", &[("REGION", "env")]).as_deref(), Some("env"));
    assert_eq!(region("", &[("REGION", "")]).as_deref(), Some("file"));
    assert_eq!(load_line("--auth trust", &[]).unwrap().service.region, None);
}

#[test]
fn a_clash_between_flag_and_file_is_said_once() {
    let given = Given::file("[env]\nregion = \"file\"\n");
    let notices = given.load("-region flag", &[]).unwrap().notices;
    let text = format!("--region and {}: env.region both set --region; --region wins", given.path());
    assert_eq!(notices, [Notice::Warn(text)]);
    let notices = given.load("", &[("REGION", "env")]).unwrap().notices;
    assert!(matches!(&notices[..], [Notice::Warn(text)] if text.ends_with("REGION wins")), "{notices:?}");
}

#[test]
fn goims_keys_are_read_in_any_case_and_lists_become_several_values() {
    let given = Given::file(
        "[TCP]\nBind = [\"127.0.0.1:1\", \"127.0.0.1:2\"]\nreader = 32\nWriteBuf = 1\n\
         [protocol]\nhandshakeTimeout = \"8s\"\n[env]\noffline = true\n\
         [regions]\nsh = [\"a\", \"b\"]\nbj = [\"c\"]\n",
    );
    let loaded = given.load("", &[]).unwrap();
    assert_eq!(loaded.service.tcp_bind, ["127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap()]);
    assert_eq!(loaded.service.handshake_timeout.as_secs(), 8);
    assert!(loaded.service.offline);
    assert_eq!(loaded.service.regions, ["bj=c", "sh=a,b"]);
    let text = format!("{}: settings of goim without effect here: TCP.WriteBuf TCP.reader", given.path());
    assert_eq!(loaded.notices, [Notice::Info(text)]);
}

#[test]
fn our_own_table_sets_any_argument_by_its_camel_case_name() {
    let given = Given::file("[imcluster]\nauth = \"trust\"\nlogFormat = \"json\"\nauthUrl = \"u\"\n");
    let loaded = load_line(&format!("--config {}", given.path()), &[]).unwrap();
    assert_eq!(loaded.service.auth, "trust");
    assert_eq!(loaded.service.auth_url.as_deref(), Some("u"));
    assert_eq!(loaded.process.log_format, LogFormat::Json);
    assert_eq!(loaded.notices, []);
}

#[test]
fn replaced_and_unknown_keys_warn() {
    let given = Given::file("what = 1\n[discovery]\nnodes = [\"127.0.0.1:7171\"]\n");
    let file = given.path();
    let expected = [
        Notice::Warn(format!("{file}: discovery.nodes is not taken any more, use --comets")),
        Notice::Warn(format!("{file}: what is not a setting of this service, ignored")),
    ];
    assert_eq!(given.load("", &[]).unwrap().notices, expected);
}

#[test]
fn in_our_own_table_a_name_that_nobody_knows_is_refused() {
    let given = Given::file("[imcluster]\nauthFiel = \"a\"\nauthUrl = \"u\"\n");
    let expected =
        "imcluster.authFiel is not a setting of comet: expected a name of `imcluster comet --help` in camelCase";
    assert_eq!(refused(given.load("", &[])), format!("{}: {expected}", given.path()));
    let given = Given::file("[imcluster]\nwhat = 1\never = 2\n");
    let expected = "imcluster.ever, imcluster.what are not settings of comet: expected a name of `imcluster comet --help` \
                    in camelCase";
    assert_eq!(refused(given.load("", &[])), format!("{}: {expected}", given.path()));
}

#[test]
fn the_file_may_be_named_by_the_environment() {
    let given = Given::file("[imcluster]\nauth = \"trust\"\n");
    assert_eq!(load_line("", &[("IMCLUSTER_CONFIG", &given.path())]).unwrap().service.auth, "trust");
}

#[test]
fn booleans_are_goims() {
    for (line, env, expected) in [
        ("-offline", None, true),
        ("-offline=true", None, true),
        ("-offline=false", Some("true"), false),
        ("", Some("1"), true),
        ("", None, false),
    ] {
        let env: Vec<_> = env.map(|value| ("OFFLINE", value)).into_iter().collect();
        let loaded = load_line(&format!("--auth trust {line}"), &env).unwrap();
        assert_eq!(loaded.service.offline, expected, "{line} {env:?}");
    }
}

#[test]
fn a_bad_value_is_one_line_with_place_value_and_expectation() {
    assert_eq!(
        refused(load_line("--auth trust --admin nowhere", &[])),
        "--admin is `nowhere`: expected HOST:PORT (invalid socket address syntax)"
    );
    assert_eq!(
        refused(load_line("--auth trust", &[("OFFLINE", "maybe")])),
        "OFFLINE is `maybe`: expected true or false"
    );
    assert_eq!(
        refused(load_line("--auth trust --log-format xml", &[])),
        "--log-format is `xml`: expected one of plain, json"
    );
    let given = Given::file("[protocol]\nhandshakeTimeout = 8\n");
    assert_eq!(
        refused(given.load("", &[])),
        format!(
            "{}: protocol.handshakeTimeout is `8`: expected a duration such as 500ms, 4m or 1h30m, not `8`",
            given.path()
        )
    );
    let given = Given::file("[env]\nregion = [\"a\", \"b\"]\n");
    assert_eq!(
        refused(given.load("", &[])),
        format!("{}: env.region: expected one value, it is given several", given.path())
    );
    let given = Given::file("[env]\nregion = 1979-05-27\n");
    assert!(refused(given.load("", &[])).ends_with("env.region is `1979-05-27`: expected a value or a list of values"));
}

#[test]
fn a_missing_setting_names_flag_variable_and_file_key() {
    assert_eq!(
        refused(load_line("", &[])),
        "missing: --auth <AUTH> (or IMCLUSTER_AUTH in the environment, imcluster.auth in the file)"
    );
}

#[derive(clap::Args, Debug)]
struct OnADesk {}

impl FileKeys for OnADesk {
    const KEYS: &'static [(&'static str, FileKey)] = &[];
    const DEFAULTS: &'static [(&'static str, &'static str)] = &[("admin", "127.0.0.1:3131")];
}

#[test]
fn a_default_of_the_process_can_be_another_one_for_a_command_and_everything_given_wins_over_it() {
    let given = Given::file("[imcluster]\nadmin = \"127.0.0.1:4\"\n");
    let load = |line: &str, env: &[(&str, &str)]| {
        let variable =
            |name: &str| env.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(*value));
        load::<OnADesk>("standalone", "All", line.split_whitespace().map(OsString::from), &variable)
    };
    let admin = |line: &str, env: &[(&str, &str)]| load(line, env).unwrap().process.admin.to_string();
    assert_eq!(load_line("--auth trust", &[]).unwrap().process.admin.to_string(), "0.0.0.0:3131");
    assert_eq!(admin("", &[]), "127.0.0.1:3131");
    assert_eq!(admin(&format!("--config {}", given.path()), &[]), "127.0.0.1:4");
    assert_eq!(admin("", &[("IMCLUSTER_ADMIN", "127.0.0.1:5")]), "127.0.0.1:5");
    assert_eq!(admin("--admin 127.0.0.1:6", &[]), "127.0.0.1:6");
    assert!(load("--help", &[]).unwrap_err().to_string().contains("[default: 127.0.0.1:3131]"));
}

#[derive(clap::Args, Debug)]
struct Choice {
    #[arg(long, value_parser = ["trust", "ask"])]
    auth: String,
    #[arg(long, value_parser = ["none"], required_unless_present = "push_tokens", conflicts_with = "push_tokens")]
    push_auth: Option<String>,
    #[arg(long, value_name = "FILE", required_unless_present = "push_auth")]
    push_tokens: Option<String>,
}

impl FileKeys for Choice {
    const KEYS: &'static [(&'static str, FileKey)] = &[];
}

#[test]
fn settings_that_exclude_each_other_are_missing_as_one_of_them() {
    let load = |line: &str| {
        let argv = line.split_whitespace().map(OsString::from);
        load::<Choice>("logic", "Decides", argv, &|_| None).map(drop).map_err(|error| error.to_string())
    };
    let one_of = "one of --push-auth none (or imcluster.pushAuth in the file), \
                  --push-tokens <FILE> (or imcluster.pushTokens in the file)";
    assert_eq!(load("--auth ask"), Err(format!("missing: {one_of}")));
    let auth = "--auth trust|ask (or imcluster.auth in the file)";
    assert_eq!(load(""), Err(format!("missing: {auth}; and {one_of}")));
    assert_eq!(load("--push-auth none"), Err(format!("missing: {auth}")));
    assert_eq!(load("--auth trust --push-tokens t"), Ok(()));
}

#[test]
fn unknown_flags_and_conflicts_are_one_line() {
    let line = refused(load_line("--auth trust --reigon x", &[]));
    assert_eq!(line, "--reigon: expected a setting of this command, did you mean --region?");
    let given = Given::file("[imcluster]\nauthFile = \"f\"\n");
    let line = refused(given.load("--auth-url u", &[]));
    assert!(line.contains("auth") && line.contains("expected without"), "{line}");
}

#[test]
fn a_file_that_is_not_there_or_not_toml_is_named_with_its_line() {
    assert_eq!(
        refused(load_line("--auth trust -conf /nonexistent/x.toml", &[])),
        "--config is `/nonexistent/x.toml`: expected a file that can be read (No such file or directory (os error 2))"
    );
    let given = Given::file("a = 1\nb = = 2\n");
    let line = refused(given.load("", &[]));
    assert!(line.starts_with(&format!("{}: line 2: expected TOML", given.path())), "{line}");
}

#[test]
fn help_shows_every_setting_with_its_variable_and_is_no_error() {
    let error = load_line("--help", &[]).unwrap_err();
    assert_eq!(error.exit_code(), 0);
    let text = error.to_string();
    for part in ["imcluster comet", "--tcp-bind <HOST:PORT>", "[env: REGION", "[default: 5s]", "--otlp-endpoint"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(load_line("-V", &[]).unwrap_err().to_string().contains(crate::VERSION));
}

#[test]
fn the_files_of_a_pod_are_where_pods_have_them() {
    use crate::pod::{ANNOTATIONS_FILE, LIVE_DIR, LIVE_FILE, POD_DIR};
    let process = load_line("--auth trust", &[]).unwrap().process;
    assert_eq!(process.live, Path::new(LIVE_DIR).join(LIVE_FILE));
    assert_eq!(process.annotations, Path::new(POD_DIR).join(ANNOTATIONS_FILE));
}
