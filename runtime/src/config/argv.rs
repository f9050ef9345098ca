//! goim's command line: Go flags with one dash or two, dots and underscores in names, and glog's own flags.

use std::ffi::OsString;

use super::Notice;

/// glog's flags, and whether each takes its value as an argument of its own.
const GLOG: &[(&str, bool)] = &[
    ("log-dir", true),
    ("logtostderr", false),
    ("alsologtostderr", false),
    ("stderrthreshold", true),
    ("v", true),
    ("vmodule", true),
    ("log-backtrace-at", true),
];

/// Rewrites goim's command line into ours: `-conf` is `--config`, one-dash names become `--name`, dots and underscores in
/// names dashes, glog's flags go. Doing it twice changes nothing more. `-h`, `-V` and what follows `--` stay.
pub fn normalise(argv: impl IntoIterator<Item = OsString>) -> (Vec<OsString>, Vec<Notice>) {
    let mut argv = argv.into_iter();
    let mut kept = Vec::new();
    let mut dropped = Vec::new();
    while let Some(arg) = argv.next() {
        let Some((name, value)) = arg.to_str().and_then(split) else {
            kept.push(arg);
            if kept.last().is_some_and(|arg| arg == "--") {
                kept.extend(argv.by_ref());
            }
            continue;
        };
        if let Some((_, takes_value)) = GLOG.iter().find(|(glog, _)| *glog == name) {
            dropped.push(arg.to_string_lossy().into_owned());
            if *takes_value && value.is_none() {
                dropped.extend(argv.next().map(|value| value.to_string_lossy().into_owned()));
            }
            continue;
        }
        let name = if name == "conf" { "config" } else { &name };
        kept.push(match value {
            Some(value) => format!("--{name}={value}").into(),
            None => format!("--{name}").into(),
        });
    }
    let notice = format!("logging flags of goim without effect here: {}", dropped.join(" "));
    (kept, if dropped.is_empty() { Vec::new() } else { vec![Notice::Info(notice)] })
}

/// Name (dashed) and value of a flag; `None` for everything that stays as it is.
fn split(arg: &str) -> Option<(String, Option<&str>)> {
    let bare = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-'))?;
    let (name, value) = bare.split_once('=').map_or((bare, None), |(name, value)| (name, Some(value)));
    let is_short = !arg.starts_with("--") && name.len() == 1 && name != "v";
    if is_short || !name.starts_with(|first: char| first.is_ascii_alphabetic()) {
        return None;
    }
    Some((name.replace(['.', '_'], "-"), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(line: &str) -> (String, Vec<Notice>) {
        let (argv, notices) = normalise(line.split(' ').map(OsString::from));
        (argv.join(" ".as_ref()).into_string().unwrap(), notices)
    }

    #[test]
    fn goims_flags_become_ours() {
        for (theirs, ours) in [
            ("-conf comet.toml", "--config comet.toml"),
            ("-conf=comet.toml", "--config=comet.toml"),
            ("--conf comet.toml", "--config comet.toml"),
            ("-region sh -zone sh001 -deploy.env dev", "--region sh --zone sh001 --deploy-env dev"),
            ("-debug -offline=false", "--debug --offline=false"),
            ("-weight -1", "--weight -1"),
            ("-h", "-h"),
            ("-V", "-V"),
            ("--addrs a,b -- -conf", "--addrs a,b -- -conf"),
        ] {
            assert_eq!(rewritten(theirs), (ours.to_owned(), vec![]), "{theirs}");
            assert_eq!(rewritten(ours).0, ours, "twice changes nothing");
        }
    }

    #[test]
    fn glog_flags_are_dropped_with_their_values_and_named_once() {
        let (argv, notices) =
            rewritten("-logtostderr -v 5 -log_dir=/x -host h1 -stderrthreshold ERROR -alsologtostderr");
        assert_eq!(argv, "--host h1");
        let expected = "-logtostderr -v 5 -log_dir=/x -stderrthreshold ERROR -alsologtostderr";
        assert!(matches!(&notices[..], [Notice::Info(text)] if text.ends_with(expected)), "{notices:?}");
    }
}
