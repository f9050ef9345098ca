//! The pod's own annotations, as the downward API shows them in a file and the kubelet keeps them current
//! (<https://kubernetes.io/docs/concepts/workloads/pods/downward-api/>). Whoever may patch a pod tells its process
//! something this way: no port, no key.
//!
//! The file holds a line per annotation, `key="value"`, the value quoted as Go quotes a string. Outside Kubernetes there
//! is no file and there are no annotations.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::watched::Watched;

/// How often the file is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// The annotations as they are now, by their keys.
pub type Annotations = watch::Receiver<Arc<BTreeMap<String, String>>>;

/// No annotations, for ever.
pub fn none() -> Annotations {
    watch::channel(Arc::default()).1
}

/// Follows the file until nobody listens any more. What it holds now is known when this returns.
///
/// # Panics
/// Outside a tokio runtime.
pub fn follow(path: &Path) -> Annotations {
    let mut file = Watched::new(path);
    let (sender, receiver) = watch::channel(Arc::new(read(&mut file).unwrap_or_default()));
    tokio::spawn(async move {
        let looking = async {
            loop {
                tokio::time::sleep(LOOK).await;
                if let Some(annotations) = read(&mut file) {
                    tracing::debug!(count = annotations.len(), "annotations read");
                    sender.send_replace(Arc::new(annotations));
                }
            }
        };
        tokio::select! {
            () = looking => {}
            () = sender.closed() => {}
        }
    });
    receiver
}

/// The annotations, if they may be others than before.
fn read(file: &mut Watched) -> Option<BTreeMap<String, String>> {
    match file.news() {
        Ok(news) => Some(parse(&String::from_utf8_lossy(&news?))),
        Err(error) => {
            tracing::warn!(file = %file.path().display(), %error, "annotations cannot be read, the last ones stay");
            None
        }
    }
}

/// Reads the file's format; a line that is none is passed over.
fn parse(text: &str) -> BTreeMap<String, String> {
    let pair = |line: &str| {
        let (key, value) = line.split_once('=')?;
        Some((key.to_owned(), unquote(value)?))
    };
    text.lines().filter_map(pair).collect()
}

/// Undoes Go's `strconv.Quote`; `None` when that did not write it.
fn unquote(quoted: &str) -> Option<String> {
    let inner = quoted.strip_prefix('"')?.strip_suffix('"')?;
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner.chars();
    while let Some(next) = rest.next() {
        if next == '"' {
            return None;
        }
        if next != '\\' {
            bytes.extend_from_slice(next.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        let plain = match rest.next()? {
            'a' => '\x07',
            'b' => '\x08',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\x0b',
            'x' => {
                // One byte of text that is no UTF-8.
                bytes.push(u8::try_from(hex(&mut rest, 2)?).ok()?);
                continue;
            }
            'u' => char::from_u32(hex(&mut rest, 4)?)?,
            'U' => char::from_u32(hex(&mut rest, 8)?)?,
            same @ ('\\' | '"') => same,
            _ => return None,
        };
        bytes.extend_from_slice(plain.encode_utf8(&mut [0; 4]).as_bytes());
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn hex(rest: &mut std::str::Chars<'_>, digits: u32) -> Option<u32> {
    (0..digits).try_fold(0, |number, _| Some(number * 16 + rest.next()?.to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_keys_and_quoted_values() {
        let text =
            "imcluster.dev/drain=\"7\"\nkubernetes.io/config.source=\"api\"\nempty=\"\"\nbroken=7\n\nalso broken\n";
        let expected = [("empty", ""), ("imcluster.dev/drain", "7"), ("kubernetes.io/config.source", "api")];
        assert_eq!(parse(text), expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    }

    #[test]
    fn values_are_unquoted_as_go_quotes_them() {
        for (quoted, plain) in [
            (r#""a=b""#, "a=b"),
            (r#""{\"a\":\"b\\n\"}""#, r#"{"a":"b\n"}"#),
            (r#""\a\b\f\n\r\t\v""#, "\x07\x08\x0c\n\r\t\x0b"),
            (r#""\u00a0\U000e0001 北""#, "\u{a0}\u{e0001} 北"),
            (r#""\xff\xc3\xa4""#, "\u{fffd}ä"),
        ] {
            assert_eq!(unquote(quoted).as_deref(), Some(plain), "{quoted}");
        }
        for broken in [r#""a"#, "a", r#""\q""#, r#""\x1""#, r#""\ud800""#, r#""a"b""#, r#""\"#] {
            assert_eq!(unquote(broken), None, "{broken}");
        }
    }

    #[tokio::test]
    async fn the_kubelets_swap_of_the_files_folder_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let write = |version: &str, text: &str| {
            std::fs::create_dir(path(version)).unwrap();
            std::fs::write(path(version).join("annotations"), text).unwrap();
            std::os::unix::fs::symlink(version, path("..new")).unwrap();
            std::fs::rename(path("..new"), path("..data")).unwrap();
        };
        write("..1", "a=\"1\"\n");
        std::os::unix::fs::symlink("..data/annotations", path("annotations")).unwrap();
        let mut annotations = follow(&path("annotations"));
        assert_eq!(annotations.borrow().get("a").map(String::as_str), Some("1"));
        write("..2", "a=\"2\"\n");
        let changed = annotations.wait_for(|annotations| annotations.get("a").is_some_and(|value| value == "2"));
        tokio::time::timeout(Duration::from_secs(30), changed).await.expect("it is noticed").unwrap();
    }

    #[tokio::test]
    async fn without_a_file_there_are_none_until_it_appears() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("annotations");
        let mut annotations = follow(&path);
        assert!(annotations.borrow().is_empty());
        std::fs::write(&path, "a=\"1\"\n").unwrap();
        let appeared = annotations.wait_for(|annotations| !annotations.is_empty());
        tokio::time::timeout(Duration::from_secs(30), appeared).await.expect("it is noticed").unwrap();
    }
}
