//! `docs/goim.md` names the test behind every row: a row without one, a name that is no test, and a defect that is
//! passed over fail here. `docs/identity.md` names the tests of what nobody gets past. The other pages name flags that
//! exist and every metric. Nothing is run; whoever renames a test, a flag or a metric changes the page with it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const PAGE: &str = "docs/goim.md";
/// How many defects of goim there are.
const DEFECTS: u32 = 32;
/// The only test that may stand for the first of them beside those of the same name in other crates.
const FIRST: &str = "length_beyond_the_message_";

/// Source files by their path from the root of the repository.
struct Sources(BTreeMap<String, String>);

impl Sources {
    /// Everything that holds tests.
    fn read(root: &Path) -> Self {
        let mut files = BTreeMap::new();
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                if path.is_dir() && !name.starts_with('.') && !matches!(&*name, "target" | "node_modules" | "dist") {
                    folders.push(path);
                } else if matches!(path.extension().and_then(|end| end.to_str()), Some("rs" | "ts")) {
                    let from_root = path.strip_prefix(root).unwrap().display().to_string();
                    files.insert(from_root, std::fs::read_to_string(&path).unwrap());
                }
            }
        }
        Self(files)
    }

    /// Says what is wrong with a citation, if anything is.
    fn miss(&self, citation: &str) -> Option<String> {
        if let Some(name) = citation.strip_prefix("clients/js: ") {
            let call = format!("test({name},");
            let tests = self.0.iter().filter(|(path, _)| path.starts_with("clients/js/test/"));
            let found = tests.into_iter().any(|(_, text)| text.contains(&call));
            return (!found).then(|| format!("`{citation}` is no test of clients/js"));
        }
        let (place, name) = citation.rsplit_once("::").expect("what is cited has a path");
        if files(place).iter().any(|file| self.0.get(file).is_some_and(|text| is_test(file, text, name))) {
            return None;
        }
        let elsewhere = self.0.iter().filter(|(file, text)| is_test(file, text, name));
        let elsewhere: Vec<&str> = elsewhere.map(|(file, _)| file.as_str()).collect();
        Some(match elsewhere[..] {
            [] => format!("`{citation}` is no test"),
            _ => format!("`{citation}` is not there but in {}", elsewhere.join(", ")),
        })
    }
}

/// The files a module may be in: `comet::listen::tests` is `comet/src/listen/tests.rs` or within `comet/src/listen.rs`.
fn files(place: &str) -> Vec<String> {
    if place.ends_with(".rs") {
        return vec![place.to_owned()];
    }
    let mut parts: Vec<&str> = place.split("::").collect();
    let source = match parts.remove(0) {
        "imcluster" => "src".to_owned(),
        krate => format!("{krate}/src"),
    };
    let mut found = vec![format!("{source}/{}.rs", parts.join("/"))];
    if parts.last() == Some(&"tests") {
        parts.pop();
        found.push(format!("{source}/{}.rs", parts.join("/")));
        if parts.is_empty() {
            found.extend(["lib", "main"].map(|root| format!("{source}/{root}.rs")));
        }
    }
    found
}

/// Whether `fn name` has a test's attribute, or is a step that its suite calls.
fn is_test(file: &str, text: &str, name: &str) -> bool {
    let function = format!("fn {name}(");
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let Some(at) = lines.iter().position(|line| line.contains(&function)) else {
        return false;
    };
    if file.ends_with("/suite.rs") {
        return text.matches(&format!("{name}(")).count() > 1;
    }
    let above = lines[..at].iter().rev().take_while(|line| line.starts_with("#[") || line.starts_with("//"));
    above.into_iter().any(|line| *line == "#[test]" || line.starts_with("#[tokio::test"))
}

/// The rows of all tables: line number, first cell, the other cells.
fn rows(page: &str) -> Vec<(usize, &str, &str)> {
    let lines: Vec<&str> = page.lines().collect();
    let is_rule = |line: &str| line.starts_with("|--");
    let is_head = |at: usize| lines.get(at + 1).is_some_and(|next| is_rule(next));
    let rows = lines.iter().enumerate().filter(|(at, line)| line.starts_with('|') && !is_rule(line) && !is_head(*at));
    let cells = rows.map(|(at, line)| {
        let (first, rest) = line.trim_matches('|').split_once('|').unwrap_or((line, ""));
        (at + 1, first.trim(), rest.trim())
    });
    cells.collect()
}

/// What stands in backticks and has the shape of a citation.
fn citations(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2).filter(|code| code.contains("::") || code.starts_with("clients/js: "))
}

/// Whether a cell says one of the two words that need no test, and then why.
fn is_explained(cell: &str) -> bool {
    let words: String = cell.split('`').step_by(2).collect::<String>().to_lowercase();
    let why = ["deliberately different", "cannot occur here"].iter().find_map(|words_of_ours| {
        let (_, why) = words.split_once(words_of_ours)?;
        Some(why.chars().filter(|c| c.is_alphabetic()).count() > 15)
    });
    why == Some(true)
}

/// Everything that is wrong with a page, a line each.
fn check(page: &str, sources: &Sources) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut defects = BTreeSet::new();
    for (line, first, rest) in rows(page) {
        let cited: Vec<&str> = citations(rest).collect();
        wrong.extend(
            cited.iter().filter_map(|citation| sources.miss(citation)).map(|text| format!("line {line}: {text}")),
        );
        if cited.is_empty() && !is_explained(rest) {
            wrong.push(format!("line {line}: `{first}` has no test, and no word why it needs none"));
        }
        let number = first.split(' ').next().and_then(|word| word.strip_prefix('D')?.parse::<u32>().ok());
        defects.extend(number);
        if number == Some(1) && !(first == "D1" && !cited.is_empty() && cited.iter().all(|name| name.contains(FIRST))) {
            wrong.push(format!("line {line}: D1 is to be a number here, with tests called {FIRST}… and no others"));
        }
    }
    wrong.extend((1..=DEFECTS).filter(|d| !defects.contains(d)).map(|d| format!("D{d} is missing")));
    wrong
}

#[test]
fn every_row_about_goim_names_a_test_that_exists_or_says_why_not() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let page = std::fs::read_to_string(root.join(PAGE)).unwrap();
    assert!(rows(&page).len() > 150, "{PAGE} has lost its rows");
    let wrong = check(&page, &Sources::read(root));
    assert!(wrong.is_empty(), "{PAGE}:\n{}", wrong.join("\n"));
}

#[test]
fn what_nobody_gets_past_is_tried_by_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let page = std::fs::read_to_string(root.join("docs/identity.md")).unwrap();
    let sources = Sources::read(root);
    let wrong: Vec<String> = citations(&page).filter_map(|citation| sources.miss(citation)).collect();
    assert!(citations(&page).count() > 15, "docs/identity.md has lost its rows");
    assert!(wrong.is_empty(), "docs/identity.md:\n{}", wrong.join("\n"));
}

/// A page with one fault of each kind, over sources made up for it.
#[test]
fn a_page_with_faults_is_told_each_of_them() {
    let file = |path: &str, text: &str| (path.to_owned(), text.to_owned());
    let sources = Sources(BTreeMap::from([
        file("a/src/b.rs", "#[cfg(test)]\nmod tests {\n    #[test]\n    fn it_holds() {}\n    fn a_helper() {}\n}\n"),
        file("a/src/c/tests.rs", "/// Said.\n#[tokio::test(start_paused = true)]\nasync fn it_waits() {}\n"),
        file("a/src/suite.rs", "async fn run() {\n    a_step(1);\n}\nfn a_step(n: u8) {}\nfn never_run() {}\n"),
        file("a/tests/d/e.rs", "#[test]\nfn length_beyond_the_message_closes() {}\n"),
        file("clients/js/test/x.test.ts", "test(\"it's heard\", async (t) => {});\n"),
    ]));
    let defects: String = (2..=DEFECTS).map(|d| format!("| D{d} it | `a::b::tests::it_holds` |\n")).collect();
    let table = |rows: &str| format!("| goim | here |\n|---|---|\n{rows}");
    let good = table(&format!(
        "| 1 `x::y` | `a::b::tests::it_holds`, `a::c::tests::it_waits`, `--flag` |\n| 2 | `a::suite::a_step` |\n\
         | 3 | `clients/js: \"it's heard\"` |\n| 4 | Deliberately different: it is better for everybody. |\n\
         | 5 | Cannot occur here: there is nothing like it |\n\
         | D1 | It is closed. `a/tests/d/e.rs::length_beyond_the_message_closes` |\n{defects}"
    ));
    assert_eq!(check(&good, &sources), [""; 0]);
    for (from, to, told) in [
        ("it_holds`, ", "it_held`, ", "line 3: `a::b::tests::it_held` is no test"),
        ("it_holds`, ", "a_helper`, ", "line 3: `a::b::tests::a_helper` is no test"),
        (
            "`a::c::tests::it_waits",
            "`a::b::tests::it_waits",
            "line 3: `a::b::tests::it_waits` is not there but in a/src/c/tests.rs",
        ),
        ("suite::a_step", "suite::never_run", "line 4: `a::suite::never_run` is no test"),
        ("it's heard", "it is heard", "line 5: `clients/js: \"it is heard\"` is no test of clients/js"),
        ("better for everybody", "so", "line 6: `4` has no test, and no word why it needs none"),
        ("Cannot occur here", "It is fine", "line 7: `5` has no test, and no word why it needs none"),
        (
            "| D1 |",
            "| D1 because |",
            "line 8: D1 is to be a number here, with tests called length_beyond_the_message_… and no others",
        ),
        ("| D7 it", "| 7 it", "D7 is missing"),
    ] {
        assert!(good.contains(from), "{from}");
        assert_eq!(check(&good.replacen(from, to, 1), &sources), [told]);
    }
}

/// What a person is not told of cannot be run into by surprise only if all of it is in the manual.
#[test]
fn every_limit_says_how_it_is_set_what_lies_beyond_and_where_that_is_counted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let page = std::fs::read_to_string(root.join("docs/operations.md")).unwrap();
    let (_, limits) = page.split_once("\n## Limits\n").unwrap();
    let (limits, _) = limits.split_once("\n## ").unwrap();
    let sources = Sources::read(root);
    let all: BTreeSet<String> = ["comet", "logic", "job"].iter().flat_map(|of| metrics(&sources, of)).collect();
    let mut uncounted = Vec::new();
    for (line, what, rest) in rows(limits) {
        let cells: Vec<&str> = rest.split(" | ").map(str::trim).collect();
        let [how, default, beyond, counted] = cells[..] else { panic!("line {line}: {rest}") };
        assert!(how == "fixed" || how.contains("`--"), "{what}: {how}");
        assert!(!default.is_empty() && !beyond.is_empty(), "{what}");
        let named = named(counted, "imcluster_");
        assert!(named.iter().all(|name| all.contains(*name)), "{what}: {named:?}");
        if named.is_empty() {
            uncounted.push(what);
        }
    }
    // Of these two the HTTP library alone knows.
    assert_eq!(uncounted, ["request target", "head on its way, or idle"]);
    for flag in named(&page, "--").iter().filter(|flag| flag.starts_with("--max-") || flag.ends_with("-per-second")) {
        assert!(limits.contains(*flag), "{flag} is a limit and not among them");
    }
}

/// The metrics that the sources of a service register, by the name they have on the page.
fn metrics(sources: &Sources, service: &str) -> BTreeSet<String> {
    let files = sources.0.iter().filter(|(path, _)| path.starts_with(&format!("{service}/src/")));
    let mut names = BTreeSet::new();
    for (_, text) in files {
        let mut group = service;
        let calls = text.split("register(").skip(1);
        for (name, rest) in calls.filter_map(|call| call.trim_start().strip_prefix('"')?.split_once('"')) {
            if rest.starts_with(", |") {
                group = name;
            } else {
                names.insert(format!("imcluster_{group}_{name}"));
            }
        }
    }
    names
}

/// Whether some setting is called so: as clap derives it from a field, or as an attribute says.
fn is_flag(sources: &Sources, flag: &str) -> bool {
    let name = flag.trim_start_matches('-');
    let said = format!("long = \"{name}\"");
    let field = format!("pub {}:", name.replace('-', "_"));
    let derived = |text: &str| {
        let above = text.split_once(&field).map(|(above, _)| above);
        above
            .and_then(|above| above.rsplit("pub ").next())
            .and_then(|above| above.rsplit_once("#[arg("))
            .is_some_and(|(_, how)| how.contains("long,") || how.contains("long)"))
    };
    sources.0.iter().any(|(path, text)| path.contains("/src/") && (text.contains(&said) || derived(text)))
}

/// The words of a page that begin so and go on with a letter: flags, or metrics.
fn named<'a>(page: &'a str, prefix: &str) -> BTreeSet<&'a str> {
    let is_part = |c: char| c.is_ascii_lowercase() || c == '-' || c == '_';
    let goes_on = |word: &&str| word.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(char::is_alphabetic));
    page.split(|c: char| !is_part(c)).filter(goes_on).collect()
}

#[test]
fn the_manual_names_every_metric_and_only_flags_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let sources = Sources::read(root);
    let pages = ["operations", "protocol", "goim", "identity"].map(|name| format!("docs/{name}.md"));
    let text = pages.map(|page| std::fs::read_to_string(root.join(page)).unwrap());
    let flags: BTreeSet<&str> = text.iter().flat_map(|page| named(page, "--")).collect();
    let unknown: Vec<&str> = flags.into_iter().filter(|flag| !is_flag(&sources, flag)).collect();
    assert_eq!(unknown, ["--help"], "flags that nothing takes");
    assert!(!is_flag(&sources, "--queue") && !is_flag(&sources, "--incarnation"), "anything is taken for a flag");

    let registered: BTreeSet<String> =
        ["comet", "logic", "job"].iter().flat_map(|service| metrics(&sources, service)).collect();
    let of_a_service = |name: &&str| {
        ["comet_", "drain_", "logic_", "job_"].iter().any(|of| name["imcluster_".len()..].starts_with(of))
    };
    let told: BTreeSet<String> =
        named(&text[0], "imcluster_").into_iter().filter(of_a_service).map(str::to_owned).collect();
    assert!(registered.len() > 30, "{registered:?}");
    assert_eq!(told, registered);
}
