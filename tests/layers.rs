//! Who may know whom (DESIGN section 3), as the source has it.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each module, and the modules that it may name. `main`, `lib`, `cli` and `daemon` join all the others.
const LAYERS: [(&str, &[&str]); 15] = [
    ("alone", &[]),
    ("failpoint", &[]),
    ("file_id", &[]),
    ("task", &[]),
    ("unit", &[]),
    ("wire", &[]),
    ("plan", &["unit"]),
    ("engine", &["plan", "unit"]),
    ("api", &["engine", "unit"]),
    ("host", &["alone", "api", "engine", "failpoint", "file_id", "plan", "task", "unit"]),
    ("probe", &["api", "engine", "plan", "unit", "wire"]),
    ("logs", &["alone", "api", "engine", "failpoint", "file_id", "plan", "unit"]),
    ("control", &["api", "engine", "plan", "task", "unit", "wire"]),
    ("ctl", &["alone", "api", "engine", "plan", "task", "unit", "wire"]),
    ("lib", &[]),
];
const JOINTS: [&str; 3] = ["main", "cli", "daemon"];

/// One file of source: its module, and its text without comments and strings.
struct Source {
    path: PathBuf,
    module: String,
    code: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut dirs = vec![root.clone()];
    let mut sources = Vec::new();
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let code = bare(&fs::read_to_string(&path).unwrap());
                let path = path.strip_prefix(&root).unwrap().to_owned();
                let first = path.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
                let module = first.trim_end_matches(".rs").to_owned();
                sources.push(Source { path, module, code });
            }
        }
    }
    assert!(sources.len() > 20, "the source was not found");
    sources
}

/// The text without comments and what stands between quotes. Good enough for this house: no nested block
/// comments, no raw string with a quote and a hash inside.
fn bare(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(raw) = rest.strip_prefix("r#\"") {
            3 + raw.find("\"#").map_or(raw.len(), |end| end + 2)
        } else if rest.starts_with("'\"'") {
            3
        } else if rest.starts_with("'\\\"'") {
            4
        } else if let Some(string) = rest.strip_prefix('"') {
            1 + end_of_string(string)
        } else {
            code.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        code.push(' ');
        rest = &rest[skipped..];
    }
    code
}

fn end_of_string(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// What follows each `word` that stands by itself.
fn after<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = &'a str> {
    code.match_indices(word)
        .filter(|(at, _)| !code[..*at].ends_with(is_word))
        .map(move |(at, _)| &code[at + word.len()..])
        .filter(move |rest| word.ends_with(':') || !rest.starts_with(is_word))
}

/// The modules that `crate::` leads to, in `crate::engine::X` and in `crate::{api, engine::X}`.
fn known(code: &str) -> BTreeSet<String> {
    let word = |text: &str| text.trim_start().split(|c| !is_word(c)).next().unwrap_or_default().to_owned();
    let mut found = BTreeSet::new();
    for rest in after(code, "crate::") {
        let Some(list) = rest.strip_prefix('{') else {
            found.insert(word(rest));
            continue;
        };
        let (mut depth, mut start) = (0, 0);
        for (at, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                ',' | '}' if depth == 0 => {
                    found.insert(word(&list[start..at]));
                    start = at + 1;
                    if c == '}' {
                        break;
                    }
                }
                _ => {}
            }
        }
    }
    found.remove("");
    found
}

#[test]
fn each_module_knows_only_those_below_it() {
    let mut broken = Vec::new();
    for source in sources() {
        if JOINTS.contains(&source.module.as_str()) {
            continue;
        }
        let layer = LAYERS.iter().find(|(module, _)| *module == source.module);
        let (_, below) = layer.unwrap_or_else(|| panic!("{} has no place in LAYERS", source.path.display()));
        for module in known(&source.code) {
            if module != source.module && !below.contains(&module.as_str()) {
                broken.push(format!("{} knows {module}", source.path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn unsafe_and_nix_are_in_host_only() {
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| source.module != "host") {
        for word in ["unsafe", "nix::"] {
            if after(&source.code, word).next().is_some() {
                broken.push(format!("{}: {word}", source.path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn what_decides_has_no_clock_and_no_contact_with_the_world() {
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| source.module == "engine" || source.module == "plan") {
        let world = ["std::fs", "std::net", "std::process", "std::thread", "std::env", "std::io", "tokio::"];
        for word in world.into_iter().chain(["Instant", "SystemTime"]) {
            if after(&source.code, word).next().is_some() {
                broken.push(format!("{}: {word}", source.path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn the_reader_of_this_test_reads_as_rust_does() {
    let code = bare(
        "use crate::{api, engine::{A, plan}, logs}; // crate::host\n let _ = \"crate::ctl \\\" unsafe\";",
    );
    assert_eq!(known(&code).into_iter().collect::<Vec<_>>(), ["api", "engine", "logs"]);
    assert_eq!(known("pub(in crate::unit) fn f() -> crate::plan::Plan").len(), 2);
    assert_eq!(after(&code, "unsafe").count(), 0);
    assert_eq!(after("unix:: nix:: x_nix::", "nix::").count(), 1);
    assert_eq!(after("undocumented_unsafe_blocks unsafe {", "unsafe").count(), 1);
}
