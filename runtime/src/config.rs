//! Where settings come from: flag, then environment, then file, then default. Parsed and checked once, typed.
//!
//! A service describes its settings as clap arguments and, beside them, which key of goim's TOML files each one is
//! ([`FileKeys`]). Any argument can also be set under `[imcluster]` by its name in camelCase. What environment and file
//! set is handed to clap as flags before the ones that were typed, so every check of clap's holds for all three.

mod argv;
mod file;
mod problem;
mod secret;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::builder::ValueParser;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, Command, CommandFactory, FromArgMatches};

pub use argv::normalise;
pub use secret::SecretFile;

use crate::settings;

/// What every process has, whatever it serves.
#[derive(Clone, Debug, clap::Args)]
pub struct ProcessConfig {
    /// A TOML file, goim's or ours. Flags and environment win over it.
    #[arg(long = "config", value_name = "FILE", env = "IMCLUSTER_CONFIG")]
    pub file: Option<PathBuf>,
    /// Where GET /live, /ready, /metrics and /status are served.
    #[arg(long, value_name = "HOST:PORT", env = "IMCLUSTER_ADMIN", default_value = "0.0.0.0:3131")]
    pub admin: SocketAddr,
    /// A TOML file of settings that may change while the process runs: read at the start and again on SIGHUP, in a pod
    /// also whenever it changes. It wins over `--config`; a bad one changes nothing. It need not be there.
    #[arg(long, value_name = "FILE", env = "IMCLUSTER_LIVE", default_value = LIVE)]
    pub live: PathBuf,
    /// Where the pod's annotations are (downward API); outside Kubernetes there is no such file.
    #[arg(long, value_name = "FILE", env = "IMCLUSTER_ANNOTATIONS", default_value = ANNOTATIONS)]
    pub annotations: PathBuf,
    #[arg(skip)]
    pub(crate) origin: Origin,
    /// What to log: a level, or directives such as `info,comet=debug`.
    #[arg(long, value_name = "FILTER", env = "IMCLUSTER_LOG", default_value = "info", value_parser = crate::telemetry::check_filter)]
    pub log: String,
    /// Log as `plain` lines or as `json` objects.
    #[arg(long, value_name = "FORMAT", env = "IMCLUSTER_LOG_FORMAT", default_value = "plain")]
    pub log_format: LogFormat,
    /// Send traces to this OTLP/gRPC collector, such as `http://127.0.0.1:4317`.
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_parser = url)]
    pub otlp_endpoint: Option<String>,
    /// The share of pushes that are traced, 0 to 1.
    #[arg(long, value_name = "SHARE", env = "IMCLUSTER_TRACE_RATIO", default_value = "0.01", value_parser = share)]
    pub trace_ratio: f64,
}

/// [`crate::pod::LIVE_FILE`] where pods have it.
const LIVE: &str = "/etc/imcluster/live/live.toml";
/// [`crate::pod::ANNOTATIONS_FILE`] where pods have it.
const ANNOTATIONS: &str = "/etc/imcluster/pod/annotations";

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Plain,
    /// For collectors.
    Json,
}

/// How the process was started, to read its settings once more.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origin {
    command: &'static str,
    argv: Vec<OsString>,
}

/// What a key of goim's files means here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKey {
    /// The argument with this id (the field's name).
    Arg(&'static str),
    /// Tunes goim's inside: accepted, named in one info line.
    NoEffect,
    /// Not taken any more: warns, naming what to use instead.
    Replaced(&'static str),
}

/// A service's settings and the file keys that set them.
pub trait FileKeys: clap::Args {
    /// Lower-case dotted key, such as `tcp.bind`, or a prefix ending in `.*`; and what it means. The most exact wins.
    /// Under `[imcluster]` are arguments' names and nothing else.
    /// A list sets its argument once per element. Keys under a prefix each set it once, to `rest=value`, a list as
    /// `rest=first,second`.
    const KEYS: &'static [(&'static str, FileKey)];

    /// Arguments of [`ProcessConfig`] that have another default here: the argument's id and that default.
    const DEFAULTS: &'static [(&'static str, &'static str)] = &[];
    /// The arguments that may change while the process runs, by their names in camelCase ([`names`]).
    fn live() -> Vec<String> {
        names::<settings::Live>()
    }

    /// Checks what no single setting can say, and the files that settings name, before the process starts.
    ///
    /// # Errors
    /// One line naming setting, value and what was expected.
    fn check(&self) -> Result<(), ConfigError> {
        Ok(())
    }
}

/// The names of the settings in a type of [`settings`].
pub fn names<T: schemars::JsonSchema>() -> Vec<String> {
    let schema = schemars::schema_for!(T);
    let properties = schema.get("properties").and_then(serde_json::Value::as_object);
    properties.into_iter().flatten().map(|(name, _)| name.clone()).collect()
}

/// Why the process does not start. The text is one line naming key, value and what was expected.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Exit code 64 (`EX_USAGE`).
    #[error("{0}")]
    Invalid(String),
    /// `--help` or `--version` was asked for: print it and exit 0.
    #[error("{0}")]
    Shown(String),
}

impl ConfigError {
    /// What the process ends with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Invalid(_) => 64,
            Self::Shown(_) => 0,
        }
    }
}

/// Something to say about the settings once the log is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Nothing to do.
    Info(String),
    /// Probably not what was meant.
    Warn(String),
}

impl Notice {
    /// Writes it to the log.
    pub fn log(&self) {
        match self {
            Self::Info(text) => tracing::info!("{text}"),
            Self::Warn(text) => tracing::warn!("{text}"),
        }
    }
}

/// The settings of one sub-command.
#[derive(Clone, Debug)]
pub struct Loaded<C> {
    /// What every process has.
    pub process: ProcessConfig,
    /// What this service has.
    pub service: C,
    /// What to log after [`crate::Process::start`].
    pub notices: Vec<Notice>,
}

#[derive(clap::Parser)]
struct Cli<C: clap::Args> {
    #[command(flatten)]
    service: C,
    #[command(flatten)]
    process: ProcessConfig,
}

/// Where the value of an argument was read.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Env(String),
    File { path: PathBuf, key: String },
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Env(name) => f.write_str(name),
            Self::File { path, key } => write!(f, "{}: {key}", path.display()),
        }
    }
}

/// The command line of one sub-command as clap describes it.
struct Reading<'a> {
    command: Command,
    keys: &'static [(&'static str, FileKey)],
    env: &'a dyn Fn(&str) -> Option<OsString>,
    places: BTreeMap<String, Place>,
    notices: Vec<Notice>,
}

/// Reads the settings of the sub-command `command`; `argv` is what follows its name, `env` looks a variable up.
///
/// # Errors
/// One line naming key, value and what was expected; or the text of `--help` and `--version`.
pub fn load<C: FileKeys>(
    command: &'static str,
    about: &'static str,
    argv: impl IntoIterator<Item = OsString>,
    env: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Loaded<C>, ConfigError> {
    let origin = Origin { command, argv: argv.into_iter().collect() };
    read(about, &origin, None, env)
}

/// Reads the settings once more, with those of a live file in the place they have beside the others.
///
/// # Errors
/// One line naming key, value and what was expected.
pub(crate) fn reload<C: FileKeys>(origin: &Origin, path: &Path, live: &str) -> Result<Loaded<C>, ConfigError> {
    read("", origin, Some((path, live)), &|name| std::env::var_os(name))
}

fn read<C: FileKeys>(
    about: &'static str,
    origin: &Origin,
    live: Option<(&Path, &str)>,
    env: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Loaded<C>, ConfigError> {
    let command = origin.command;
    let (typed, notices) = normalise(origin.argv.iter().cloned());
    let command = Cli::<C>::command()
        .name(command)
        .bin_name(format!("imcluster {command}"))
        .about(about)
        .long_about(None)
        .version(crate::VERSION);
    let command = C::DEFAULTS.iter().fold(command, |command, (id, value)| {
        debug_assert!(command.get_arguments().any(|arg| arg.get_id() == id), "{id} is an argument");
        command.mut_arg(id, |arg| arg.default_value(value))
    });
    debug_assert!(
        C::KEYS.iter().all(|(key, meaning)| match meaning {
            FileKey::Arg(id) => command.get_arguments().any(|arg| arg.get_id() == id) && *key == key.to_lowercase(),
            _ => *key == key.to_lowercase(),
        }),
        "every file key is in lower case and names an argument"
    );
    let live = match live {
        Some((path, text)) => file::live(path, text, &command, &C::live())?,
        None => BTreeMap::new(),
    };
    let mut reading = Reading { command, keys: C::KEYS, env, places: BTreeMap::new(), notices };
    let args = reading.complete(&typed, live)?;
    let parsed = flexible(reading.command.clone())
        .try_get_matches_from(args)
        .and_then(|mut matches| Cli::<C>::from_arg_matches_mut(&mut matches));
    match parsed {
        Ok(Cli { mut process, service }) => {
            process.origin = origin.clone();
            service.check()?;
            Ok(Loaded { process, service, notices: reading.notices })
        }
        Err(error) => Err(problem::explain(&error, &reading)),
    }
}

impl Reading<'_> {
    /// What environment and files set, as flags, and then what was typed.
    fn complete(
        &mut self,
        typed: &[OsString],
        live: BTreeMap<String, file::Setting>,
    ) -> Result<Vec<OsString>, ConfigError> {
        let with_name = |rest: &[OsString]| [&["imcluster".into()], rest].concat();
        let given = flexible(self.command.clone())
            .mut_args(|arg| arg.required(false))
            .ignore_errors(true)
            .try_get_matches_from(with_name(typed))
            .map_err(|error| self.shown(&error, with_name(typed)))?;
        let is_typed = |id: &str| given.value_source(id) == Some(ValueSource::CommandLine);
        let path = if is_typed("file") {
            given.get_one::<PathBuf>("file").cloned()
        } else {
            self.variable("IMCLUSTER_CONFIG").map(PathBuf::from)
        };
        let mut from_file = match &path {
            Some(path) => file::read(path, &self.command, self.keys, &mut self.notices)?,
            None => BTreeMap::new(),
        };
        from_file.extend(live);
        let mut args: Vec<OsString> = vec!["imcluster".into()];
        let arguments: Vec<Arg> = self.command.get_arguments().cloned().collect();
        for (arg, long) in arguments.iter().filter_map(|arg| Some((arg, arg.get_long()?))) {
            let id = arg.get_id().as_str();
            let name = arg.get_env().and_then(OsStr::to_str);
            let value = name.and_then(|name| Some((name, self.variable(name)?)));
            let setting = from_file.remove(id);
            let winner = match (is_typed(id), &value) {
                (true, _) => Some(format!("--{long}")),
                (false, Some((name, _))) => Some((*name).to_owned()),
                (false, None) => None,
            };
            if let (Some(winner), Some(setting)) = (&winner, &setting) {
                let (path, key) = (setting.path.display(), &setting.key);
                self.notices.push(Notice::Warn(format!("{winner} and {path}: {key} both set --{long}; {winner} wins")));
            }
            match (is_typed(id), value, setting) {
                (true, ..) => {}
                (false, Some((name, value)), _) => {
                    args.push(flag(long, &value));
                    self.places.insert(id.to_owned(), Place::Env(name.to_owned()));
                }
                (false, None, Some(setting)) => {
                    args.extend(setting.values.iter().map(|value| flag(long, value.as_ref())));
                    self.places.insert(id.to_owned(), Place::File { path: setting.path, key: setting.key });
                }
                (false, None, None) => {}
            }
        }
        args.extend_from_slice(typed);
        Ok(args)
    }

    /// A variable that is set and not empty.
    fn variable(&self, name: &str) -> Option<OsString> {
        (self.env)(name).filter(|value| !value.is_empty())
    }

    /// Help as the command itself prints it, with variables and defaults.
    fn shown(&self, error: &clap::Error, argv: Vec<OsString>) -> ConfigError {
        let text = match self.command.clone().try_get_matches_from(argv) {
            Err(error) if !error.use_stderr() => error.render().to_string(),
            _ => error.render().to_string(),
        };
        ConfigError::Shown(text)
    }

    /// The argument that clap calls `--name <VALUE>`.
    fn argument(&self, shown: &str) -> Option<&Arg> {
        let long = shown.split([' ', '=', '[']).next()?.strip_prefix("--")?;
        self.command.get_arguments().find(|arg| arg.get_long() == Some(long))
    }
}

fn flag(long: &str, value: &OsStr) -> OsString {
    let mut flag = OsString::from(format!("--{long}="));
    flag.push(value);
    flag
}

/// Booleans take `=true` and `=false`, as goim's do, and the environment is left to us.
fn flexible(command: Command) -> Command {
    command.mut_args(|arg| {
        let arg = arg.env(None::<&str>);
        if !matches!(arg.get_action(), ArgAction::SetTrue) {
            return arg;
        }
        arg.action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .default_value("false")
            .value_parser(ValueParser::from(go_bool as fn(&str) -> Result<bool, String>))
    })
}

fn share(text: &str) -> Result<f64, String> {
    let expected = "expected a number from 0 to 1";
    text.parse().ok().filter(|share| (0.0..=1.0).contains(share)).ok_or(expected.to_owned())
}

fn url(text: &str) -> Result<String, String> {
    let is_url = text.parse::<http::Uri>().is_ok_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")));
    let expected = "expected a URL such as http://127.0.0.1:4317";
    is_url.then(|| text.to_owned()).ok_or(expected.to_owned())
}

/// What Go's `strconv.ParseBool` takes.
fn go_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("expected true or false".to_owned()),
    }
}

/// The `[imcluster]` key of an argument: its name in camelCase.
fn camel(long: &str) -> String {
    let mut words = long.split('-');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |mut name, word| {
        let mut letters = word.chars();
        name.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        name.push_str(letters.as_str());
        name
    })
}

fn unreadable(path: &Path, error: &std::io::Error) -> ConfigError {
    ConfigError::Invalid(format!("--config is `{}`: expected a file that can be read ({error})", path.display()))
}

#[cfg(test)]
mod tests;
