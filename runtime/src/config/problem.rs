//! clap's errors as one line: where the value was given, the value, and what was expected.

use std::error::Error as _;

use clap::Arg;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::{ConfigError, FileKey, Reading, camel};

/// Folds the error into one line.
pub(super) fn explain(error: &clap::Error, reading: &Reading<'_>) -> ConfigError {
    if !error.use_stderr() {
        return ConfigError::Shown(error.render().to_string());
    }
    let shown = texts(error, ContextKind::InvalidArg);
    let arg = shown.first().map_or("the command line", String::as_str);
    let found = reading.argument(arg);
    let flag = found.and_then(Arg::get_long).map_or(arg.to_owned(), |long| format!("--{long}"));
    let place =
        found.and_then(|arg| reading.places.get(arg.get_id().as_str())).map_or(flag.clone(), ToString::to_string);
    let value = texts(error, ContextKind::InvalidValue).concat();
    let expected = found.and_then(|arg| arg.get_value_names()).map_or("a value".to_owned(), |names| names.join(" "));
    let line = match error.kind() {
        ErrorKind::InvalidValue => {
            let one_of = texts(error, ContextKind::ValidValue).join(", ");
            let expected = if one_of.is_empty() { expected } else { format!("one of {one_of}") };
            format!("{place} is `{value}`: expected {expected}")
        }
        ErrorKind::ValueValidation => {
            let why = error.source().map(ToString::to_string).unwrap_or_default();
            let why = if why.contains("expected") { why } else { format!("expected {expected} ({why})") };
            format!("{place} is `{value}`: {why}")
        }
        ErrorKind::MissingRequiredArgument => {
            format!("missing: {}", missing(&shown, reading).join("; and "))
        }
        ErrorKind::UnknownArgument => {
            let like = texts(error, ContextKind::SuggestedArg).concat();
            let hint = if like.is_empty() { "see --help".to_owned() } else { format!("did you mean {like}?") };
            format!("{arg}: expected a setting of this command, {hint}")
        }
        ErrorKind::ArgumentConflict => match texts(error, ContextKind::PriorArg) {
            other if other.first().is_none_or(|other| other == arg) => {
                format!("{place}: expected one value, it is given several")
            }
            other => format!("{place}: expected without {}", other.join(", ")),
        },
        ErrorKind::NoEquals => format!("{place}: expected {flag}=true or {flag}=false"),
        _ => error.render().to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned(),
    };
    ConfigError::Invalid(line.replace('\n', " "))
}

/// What to set, one text for each thing that is missing: an argument, or one of several that exclude each other.
fn missing(shown: &[String], reading: &Reading<'_>) -> Vec<String> {
    let mut choices: Vec<Vec<&str>> = Vec::new();
    for arg in shown {
        let excluded = |choice: &&mut Vec<&str>| choice.iter().all(|other| exclude(arg, other, reading));
        match choices.iter_mut().find(excluded) {
            Some(choice) => choice.push(arg),
            None => choices.push(vec![arg]),
        }
    }
    let texts = choices.into_iter().map(|choice| {
        let ways: Vec<String> = choice.iter().map(|arg| ways(arg, reading)).collect();
        if ways.len() > 1 { format!("one of {}", ways.join(", ")) } else { ways.concat() }
    });
    texts.collect()
}

/// Whether one of the two forbids the other.
fn exclude(one: &str, other: &str, reading: &Reading<'_>) -> bool {
    let (Some(one), Some(other)) = (reading.argument(one), reading.argument(other)) else {
        return false;
    };
    let forbids = |by: &Arg, arg: &Arg| {
        reading.command.get_arg_conflicts_with(by).iter().any(|conflict| conflict.get_id() == arg.get_id())
    };
    forbids(one, other) || forbids(other, one)
}

/// Every way to set a missing argument, the flag first, with the values it takes where there are only some.
fn ways(shown: &str, reading: &Reading<'_>) -> String {
    let Some(arg) = reading.argument(shown) else {
        return shown.to_owned();
    };
    let values = arg.get_possible_values();
    let values: Vec<&str> = values.iter().filter(|value| !value.is_hide_set()).map(|value| value.get_name()).collect();
    let flag = match arg.get_long() {
        Some(long) if !values.is_empty() => format!("--{long} {}", values.join("|")),
        _ => shown.to_owned(),
    };
    let mut others = Vec::new();
    others.extend(arg.get_env().map(|name| format!("{} in the environment", name.to_string_lossy())));
    let sets = |key: &FileKey| matches!(key, FileKey::Arg(id) if arg.get_id() == id);
    others.extend(reading.keys.iter().filter(|(_, key)| sets(key)).map(|(key, _)| in_file(key)));
    others.extend(arg.get_long().map(|long| in_file(&format!("imcluster.{}", camel(long)))));
    if others.is_empty() { flag } else { format!("{flag} (or {})", others.join(", ")) }
}

fn in_file(key: &str) -> String {
    format!("{key} in the file")
}

fn texts(error: &clap::Error, kind: ContextKind) -> Vec<String> {
    match error.get(kind) {
        Some(ContextValue::String(text)) => vec![text.clone()],
        Some(ContextValue::Strings(texts)) => texts.clone(),
        _ => Vec::new(),
    }
}
