//! TOML text as a tree in which every key and value knows where it was written, and the merging of trees.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Name, Problem, foreign, schema};

/// A file's text.
#[derive(Debug)]
pub(super) struct Source {
    /// Where it was read.
    pub path: PathBuf,
    /// What it says.
    pub text: String,
    /// Its place in the merging: 0 for the daemon config, 1 for the unit's file, then its drop-ins.
    pub rank: usize,
}

/// A stretch of a file.
#[derive(Debug, Clone)]
pub(super) struct At {
    /// Of which.
    pub source: Arc<Source>,
    /// In bytes.
    pub span: Range<usize>,
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// Where it stands; for a table its header or braces.
    pub at: At,
    /// What it is.
    pub value: Value,
}

/// A TOML value.
#[derive(Debug, Clone)]
pub(super) enum Value {
    String(String),
    /// Saturated, where it is beyond 128 bits.
    Integer(i128),
    Float(f64),
    Boolean(bool),
    Datetime,
    Array(Vec<Node>),
    Table(Table),
}

/// A table. Iterated in the order in which it was written: [`Table::in_order`].
#[derive(Debug, Clone, Default)]
pub(super) struct Table(BTreeMap<String, Entry>);

/// A key with its value.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// Where the key stands.
    pub key: At,
    /// Its value.
    pub node: Node,
}

impl At {
    fn start(&self) -> usize {
        // A parser's span may lie behind the end, at the end of the text, or, from an error, in a character.
        let text = &self.source.text;
        let mut start = self.span.start.min(text.len());
        while !text.is_char_boundary(start) {
            start -= 1;
        }
        start
    }

    fn line_start(&self) -> usize {
        self.source.text[..self.start()].rfind('\n').map_or(0, |at| at + 1)
    }

    /// 1-based, the column in characters.
    pub fn line_column(&self) -> (usize, usize) {
        let (text, from) = (&self.source.text, self.line_start());
        let line = text[..from].matches('\n').count() + 1;
        (line, text[from..self.start()].chars().count() + 1)
    }

    /// The whole line that it begins on.
    pub fn line(&self) -> &str {
        self.source.text[self.line_start()..].lines().next().unwrap_or_default()
    }

    /// How many characters of that line it covers, at least 1.
    pub fn width(&self) -> usize {
        let rest = self.source.text[self.start()..].lines().next().unwrap_or_default();
        let bytes = self.span.end.saturating_sub(self.start());
        rest.char_indices().take_while(|(at, _)| *at < bytes).count().max(1)
    }

    /// `web.toml:7:1`
    pub fn place(&self) -> String {
        let (line, column) = self.line_column();
        let path = &self.source.path;
        let file = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        format!("{file}:{line}:{column}")
    }
}

impl Value {
    /// With its article.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::String(_) => "a string",
            Value::Integer(_) => "a whole number",
            Value::Float(_) => "a decimal number",
            Value::Boolean(_) => "a boolean",
            Value::Datetime => "a date or time",
            Value::Array(_) => "a list",
            Value::Table(_) => "a table",
        }
    }
}

impl Table {
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.0.get(key)
    }

    /// Everything in it, as written: files in the order of their merging, each from its top.
    pub fn in_order(&self) -> Vec<(&str, &Entry)> {
        let mut entries: Vec<_> = self.0.iter().map(|(key, entry)| (key.as_str(), entry)).collect();
        entries.sort_unstable_by_key(|(_, entry)| (entry.key.source.rank, entry.key.span.start));
        entries
    }

    /// The entry at a path with dots (`restart.delay`).
    pub fn find(&self, path: &str) -> Option<&Entry> {
        match path.split_once('.') {
            None => self.get(path),
            Some((first, rest)) => self.get(first)?.table()?.find(rest),
        }
    }

    /// Tables merge key by key, everything else is replaced.
    pub fn merge(&mut self, over: &Table) {
        for (key, entry) in &over.0 {
            match (self.0.get_mut(key), &entry.node.value) {
                (
                    Some(Entry { key: at, node: Node { at: node_at, value: Value::Table(table) } }),
                    Value::Table(over),
                ) => {
                    // The place is that of the last file that speaks of the table: it tells what only
                    // the defaults speak of.
                    *at = entry.key.clone();
                    *node_at = entry.node.at.clone();
                    table.merge(over);
                }
                _ => {
                    self.0.insert(key.clone(), entry.clone());
                }
            }
        }
    }
}

impl Entry {
    pub fn table(&self) -> Option<&Table> {
        match &self.node.value {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }

    /// The place of the item of a list whose text is the wanted one; else that of the value.
    pub fn item(&self, wanted: impl Fn(&str) -> bool) -> &At {
        let is_it = |value: &Value| match value {
            Value::String(text) => wanted(text),
            Value::Integer(number) => wanted(&number.to_string()),
            _ => false,
        };
        match &self.node.value {
            Value::Array(items) => {
                items.iter().find(|node| is_it(&node.value)).map_or(&self.node.at, |node| &node.at)
            }
            _ => &self.node.at,
        }
    }

    /// Only the daemon config's defaults say it, not the unit itself.
    pub fn is_default(&self) -> bool {
        self.key.source.rank == 0
    }
}

/// Parses a text. With syntax errors there is no tree, and they are all in the problems.
pub(super) fn parse(source: &Arc<Source>, unit: Option<&Name>, problems: &mut Vec<Problem>) -> Option<Table> {
    let (root, errors) = DeTable::parse_recoverable(&source.text);
    if errors.is_empty() {
        let mut builder = Builder { source, unit, problems };
        return Some(builder.table(root.get_ref()));
    }
    let mut lines = Vec::new();
    for error in errors {
        let end = source.text.len();
        let at = At { source: source.clone(), span: error.span().unwrap_or(end..end) };
        // What follows an error on the same line is mostly its echo.
        let (line, _) = at.line_column();
        if lines.contains(&line) {
            continue;
        }
        lines.push(line);
        let word = at.line().split('=').next().unwrap_or_default().trim();
        let ours = schema::all(schema::CONFIG).iter().any(|(_, key)| key.name == word);
        let help =
            Some(word).filter(|_| !ours).and_then(|word| foreign::meaning(word, "", false)).or_else(|| {
                if error.message().contains("duplicate") {
                    return Some("it stands above already: keep one".to_owned());
                }
                at.line()
                    .contains('=')
                    .then(|| "this is TOML: strings stand in quotes, lists in [ ]".to_owned())
            });
        problems.push(Problem::at(
            &at,
            unit,
            format!("cannot be read as TOML: {}", lower(error.message())),
            help,
        ));
    }
    None
}

fn lower(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

struct Builder<'a> {
    source: &'a Arc<Source>,
    unit: Option<&'a Name>,
    problems: &'a mut Vec<Problem>,
}

impl Builder<'_> {
    fn at(&self, span: Range<usize>) -> At {
        At { source: self.source.clone(), span }
    }

    /// No key and no string of a unit may hold a NUL byte: none of them could be passed to a process.
    fn refuse_nul(&mut self, text: &str, span: Range<usize>) {
        if text.contains('\0') {
            let at = self.at(span);
            self.problems.push(Problem::at(
                &at,
                self.unit,
                "there is a NUL byte in this text".to_owned(),
                None,
            ));
        }
    }

    fn table(&mut self, table: &DeTable<'_>) -> Table {
        let mut entries = BTreeMap::new();
        for (key, value) in table.iter() {
            self.refuse_nul(key.get_ref(), key.span());
            let entry = Entry { key: self.at(key.span()), node: self.node(value) };
            entries.insert(key.get_ref().to_string(), entry);
        }
        Table(entries)
    }

    fn node(&mut self, value: &Spanned<DeValue<'_>>) -> Node {
        let at = self.at(value.span());
        let value = match value.get_ref() {
            DeValue::String(text) => {
                self.refuse_nul(text, value.span());
                Value::String(text.to_string())
            }
            DeValue::Integer(number) => {
                let out_of_range = if number.as_str().starts_with('-') { i128::MIN } else { i128::MAX };
                let parsed = i128::from_str_radix(number.as_str(), number.radix());
                Value::Integer(parsed.unwrap_or(out_of_range))
            }
            DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Boolean(value) => Value::Boolean(*value),
            DeValue::Datetime(_) => Value::Datetime,
            DeValue::Array(items) => Value::Array(items.iter().map(|item| self.node(item)).collect()),
            DeValue::Table(table) => Value::Table(self.table(table)),
        };
        Node { at, value }
    }
}
