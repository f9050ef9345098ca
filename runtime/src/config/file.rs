//! TOML files, goim's and ours, as values for arguments. Keys are case-insensitive, as in goim.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Command;
use toml::Value;

use super::{ConfigError, FileKey, Notice, unreadable};

/// What a file says of one argument.
#[derive(Debug)]
pub(super) struct Setting {
    /// The file.
    pub(super) path: PathBuf,
    /// The key as it stands in the file.
    pub(super) key: String,
    /// One value, or a list's.
    pub(super) values: Vec<String>,
}

/// Reads the file; the argument's id → what the file says of it.
pub(super) fn read(
    path: &Path,
    command: &Command,
    keys: &[(&str, FileKey)],
    notices: &mut Vec<Notice>,
) -> Result<BTreeMap<String, Setting>, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
    let table = table(path, &text)?;
    let mut entries = Vec::new();
    flatten("", &table, &mut entries);
    // Ours first: where `[imcluster]` and a key of goim's set the same argument, ours stands.
    entries.sort_by_key(|(key, _)| !key.to_ascii_lowercase().starts_with("imcluster."));

    let file = path.display();
    let mut settings: BTreeMap<String, Setting> = BTreeMap::new();
    let (mut without_effect, mut unknown) = (Vec::new(), Vec::new());
    for (key, value) in entries {
        let lower = key.to_ascii_lowercase();
        match meaning(&lower, command, keys) {
            None if lower.starts_with("imcluster.") => unknown.push(key),
            None => notices.push(Notice::Warn(format!("{file}: {key} is not a setting of this service, ignored"))),
            Some((Meaning::NoEffect, _)) => without_effect.push(key),
            Some((Meaning::Replaced(by), _)) => {
                notices.push(Notice::Warn(format!("{file}: {key} is not taken any more, use {by}")));
            }
            Some((Meaning::Arg(id), prefix)) => {
                let mut values = scalars(value).ok_or_else(|| {
                    ConfigError::Invalid(format!("{file}: {key} is `{value}`: expected a value or a list of values"))
                })?;
                if prefix > 0 {
                    values = vec![format!("{}={}", &key[prefix..], values.join(","))];
                }
                if values.is_empty() {
                    notices.push(Notice::Warn(format!("{file}: {key} is an empty list, the default stays")));
                    continue;
                }
                match settings.get_mut(id) {
                    Some(setting) if prefix > 0 => setting.values.extend(values),
                    Some(setting) if setting.values != values => {
                        let first = &setting.key;
                        notices.push(Notice::Warn(format!("{file}: {first} and {key} set the same, {first} wins")));
                    }
                    Some(_) => {}
                    None => {
                        settings.insert(id.to_owned(), Setting { path: path.to_owned(), key, values });
                    }
                }
            }
        }
    }
    if !unknown.is_empty() {
        return Err(not_settings(path, command, &unknown));
    }
    if !without_effect.is_empty() {
        let keys = without_effect.join(" ");
        notices.push(Notice::Info(format!("{file}: settings of goim without effect here: {keys}")));
    }
    Ok(settings)
}

/// Reads a file of live settings: arguments by their names in camelCase, at its top or under `[imcluster]`, none but
/// those that are `known`.
pub(super) fn live(
    path: &Path,
    text: &str,
    command: &Command,
    known: &[String],
) -> Result<BTreeMap<String, Setting>, ConfigError> {
    let file = path.display();
    let table = table(path, text)?;
    let mut entries = Vec::new();
    flatten("", &table, &mut entries);
    let mut settings = BTreeMap::new();
    for (key, value) in entries {
        let name = key.strip_prefix("imcluster.").unwrap_or(&key);
        let argument = known
            .iter()
            .any(|known| plain(known) == plain(name))
            .then(|| meaning(&format!("imcluster.{name}"), command, &[]))
            .flatten();
        let Some((Meaning::Arg(id), _)) = argument else {
            let known = known.join(", ");
            return Err(ConfigError::Invalid(format!(
                "{file}: {key} cannot change while this service runs: expected some of {known}"
            )));
        };
        let values = scalars(value).ok_or_else(|| {
            ConfigError::Invalid(format!("{file}: {key} is `{value}`: expected a value or a list of values"))
        })?;
        settings.insert(id.to_owned(), Setting { path: path.to_owned(), key, values });
    }
    Ok(settings)
}

/// In our own table a name that nobody knows is a mistake: ignored, it would look as if it were in force. goim's tables
/// are other people's, who may keep more in them.
fn not_settings(path: &Path, command: &Command, keys: &[String]) -> ConfigError {
    let are = if keys.len() == 1 { "is not a setting" } else { "are not settings" };
    let (file, keys, name) = (path.display(), keys.join(", "), command.get_name());
    ConfigError::Invalid(format!(
        "{file}: {keys} {are} of {name}: expected a name of `imcluster {name} --help` in camelCase"
    ))
}

/// A name without what two spellings of it may differ in.
fn plain(name: &str) -> String {
    name.replace(['-', '_', '.'], "").to_ascii_lowercase()
}

fn table(path: &Path, text: &str) -> Result<toml::Table, ConfigError> {
    text.parse().map_err(|error: toml::de::Error| {
        let line = text[..error.span().map_or(0, |span| span.start)].matches('\n').count() + 1;
        let why = error.message().replace('\n', ", ");
        ConfigError::Invalid(format!("{}: line {line}: expected TOML ({why})", path.display()))
    })
}

/// Every value that is not a table, with its dotted key.
fn flatten<'a>(prefix: &str, table: &'a toml::Table, out: &mut Vec<(String, &'a Value)>) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            Value::Table(table) => flatten(&key, table, out),
            value => out.push((key, value)),
        }
    }
}

/// [`FileKey`], with an argument's id as the command knows it.
enum Meaning<'a> {
    Arg(&'a str),
    NoEffect,
    Replaced(&'static str),
}

impl From<FileKey> for Meaning<'_> {
    fn from(key: FileKey) -> Self {
        match key {
            FileKey::Arg(id) => Self::Arg(id),
            FileKey::NoEffect => Self::NoEffect,
            FileKey::Replaced(by) => Self::Replaced(by),
        }
    }
}

/// What a lower-case key means, and the length of the prefix it was found by (0 = the whole key).
fn meaning<'a>(key: &str, command: &'a Command, keys: &[(&str, FileKey)]) -> Option<(Meaning<'a>, usize)> {
    if let Some(name) = key.strip_prefix("imcluster.") {
        return command
            .get_arguments()
            .find(|arg| arg.get_id() != "file" && arg.get_long().map(plain) == Some(plain(name)))
            .map(|arg| (Meaning::Arg(arg.get_id().as_str()), 0));
    }
    if let Some((_, meaning)) = keys.iter().find(|(known, _)| *known == key) {
        return Some(((*meaning).into(), 0));
    }
    keys.iter()
        .filter_map(|(known, meaning)| {
            let prefix = known.strip_suffix('*')?;
            key.starts_with(prefix).then_some((Meaning::from(*meaning), prefix.len()))
        })
        .max_by_key(|(_, prefix)| *prefix)
}

/// A value as text, a list as its elements; `None` for what no argument can take.
fn scalars(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Array(values) => values.iter().map(scalar).collect(),
        value => Some(vec![scalar(value)?]),
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => Some(value.to_string()),
        Value::Datetime(_) | Value::Array(_) | Value::Table(_) => None,
    }
}
