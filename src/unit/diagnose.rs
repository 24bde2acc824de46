//! The walk over a file's keys: unknown ones, refused ones, and values where tables go.

use super::schema::{self, Key, Shape, join};
use super::tree::{Entry, Table, Value};
use super::{Name, Problem, foreign};

/// Finds what is wrong with the keys of a file. `root` is everything that the file may hold.
pub(super) fn keys(table: &Table, root: &'static [Key], unit: Option<&Name>, problems: &mut Vec<Problem>) {
    Walk { root, unit, problems }.table(table, root, "");
}

/// An unknown key in a table with these keys, at this path of a file.
pub(super) fn unknown(
    key: &str,
    entry: &Entry,
    keys: &'static [Key],
    path: &str,
    root: &'static [Key],
    unit: Option<&Name>,
) -> Problem {
    let message = match path {
        "" => format!("unknown key `{key}`"),
        path => format!("unknown key `{key}` in [{path}]"),
    };
    Problem::at(&entry.key, unit, message, suggestion(key, keys, path, root))
}

/// The nearest of some words, if it is near.
pub(super) fn nearest<'w>(word: &str, words: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let word = word.to_lowercase().replace('-', "_");
    let score = |other: &str| match strsim::damerau_levenshtein(&word, other) {
        0 => 1.0,
        1 if other.len() > 2 => 0.95,
        2 if other.len() > 4 => 0.9,
        _ => strsim::jaro_winkler(&word, other),
    };
    words
        .into_iter()
        .map(|other| (score(other), other))
        .filter(|(score, _)| *score >= 0.87)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, other)| other)
}

fn suggestion(key: &str, keys: &'static [Key], path: &str, root: &'static [Key]) -> Option<String> {
    if let Some(meaning) = foreign::meaning(key, path, true) {
        return Some(meaning);
    }
    let all = schema::all(root);
    let places = |name: &str| -> Vec<String> {
        let here = |other: &str| {
            let below = |a: &str, b: &str| a.strip_prefix(b).is_some_and(|rest| rest.starts_with('.'));
            !other.is_empty() && (below(path, other) || below(other, path))
        };
        let known = all.iter().filter(|(_, key)| key.name == name && !matches!(key.shape, Shape::Later));
        let mut paths: Vec<&str> = known.map(|(path, _)| path.as_str()).collect();
        // The table around it, or one in it, is meant before any other.
        if paths.iter().any(|path| here(path)) {
            paths.retain(|path| here(path));
        }
        let mut places: Vec<String> = paths.into_iter().map(place).collect();
        // A file of defaults knows every key twice; the first is the one meant.
        places.sort_by_key(|place| place.len());
        places.truncate(5);
        places
    };
    let exact = places(key);
    if !exact.is_empty() {
        return Some(format!("it belongs {}", exact.join(" or ")));
    }
    if let Some(near) = nearest(key, keys.iter().map(|key| key.name)) {
        return Some(format!("did you mean `{near}`?"));
    }
    if let Some(meaning) = foreign::meaning(key, path, false) {
        return Some(meaning);
    }
    if let Some(near) = nearest(key, all.iter().map(|(_, key)| key.name)) {
        return Some(format!("did you mean `{near}`? it belongs {}", places(near).join(" or ")));
    }
    let known: Vec<_> =
        keys.iter().filter(|key| !matches!(key.shape, Shape::Later)).map(|key| key.name).collect();
    (!path.is_empty()).then(|| format!("known here: {}", known.join(", ")))
}

fn place(path: &str) -> String {
    match path {
        "" => "above the first table".to_owned(),
        path => format!("in [{path}]"),
    }
}

struct Walk<'a> {
    root: &'static [Key],
    unit: Option<&'a Name>,
    problems: &'a mut Vec<Problem>,
}

impl Walk<'_> {
    fn table(&mut self, table: &Table, keys: &'static [Key], path: &str) {
        for (name, entry) in table.in_order() {
            match keys.iter().find(|key| key.name == name) {
                None => self.unknown(name, entry, keys, path),
                Some(Key { shape: Shape::Value, .. }) => {}
                Some(Key { shape: Shape::Later, .. }) => {
                    let message = format!("not supported yet: {}", self.path(path, name));
                    self.problems.push(Problem::at(
                        &entry.key,
                        self.unit,
                        message,
                        Some("take it out".to_owned()),
                    ));
                }
                Some(Key { shape: Shape::Table(below), .. }) => match &entry.node.value {
                    Value::Table(table) => self.table(table, below, &join(path, name)),
                    other => {
                        let full = join(path, name);
                        let message = format!("`{full}` is a table, not {}", other.kind());
                        let help = Some(how_to_write(&full, other));
                        self.problems.push(Problem::at(&entry.key, self.unit, message, help));
                    }
                },
            }
        }
    }

    fn path(&self, path: &str, name: &str) -> String {
        join(path.strip_prefix("defaults").map_or(path, |rest| rest.trim_start_matches('.')), name)
    }

    fn unknown(&mut self, name: &str, entry: &Entry, keys: &'static [Key], path: &str) {
        self.problems.push(unknown(name, entry, keys, path, self.root, self.unit));
        // A foreign table that is one of ours under another name may have more to say.
        let ours = foreign::table(name).and_then(|ours| keys.iter().find(|key| key.name == ours));
        if let (Some(Key { name, shape: Shape::Table(below) }), Some(table)) = (ours, entry.table()) {
            self.table(table, below, &join(path, name));
        }
    }
}

/// What to write where a value stands in the place of a table.
fn how_to_write(path: &str, value: &Value) -> String {
    let name = path.rsplit('.').next().unwrap_or(path);
    match (name, value) {
        ("restart", Value::String(policy)) => {
            let policy = match policy.as_str() {
                "on-failure" => "on-failure",
                "no" | "never" => "never",
                _ => "always",
            };
            format!("write [{path}] and below it policy = \"{policy}\"")
        }
        ("restart", Value::Boolean(restart)) => {
            let policy = if *restart { "always" } else { "never" };
            format!("write [{path}] and below it policy = \"{policy}\"")
        }
        ("http" | "tcp", Value::Integer(port)) => format!("write {name} = {{ port = {port} }}"),
        ("http" | "tcp", _) => format!("write {name} = {{ port = 80 }}"),
        ("exec", _) => "write exec = { command = [\"…\"] }".to_owned(),
        _ => format!("write [{path}] and its keys below it"),
    }
}
