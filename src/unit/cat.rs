//! A merged unit as TOML again, each value with the file and line it came from.

use std::fmt::Write;

use serde_json::{Map, Value as Json};

use super::Unit;
use super::schema::join;
use super::tree::{Entry, Node, Table, Value};

/// Renders. What it says is valid TOML, and means the same unit.
pub(super) fn render(table: &Table) -> String {
    let mut out = String::new();
    tables(&mut out, table, "");
    out
}

/// What is in effect of a unit that no file says: in comments, key by key as uphold's own state has it, without
/// what has its default.
pub(super) fn of_before(unit: &Unit) -> String {
    let mut out =
        "# not from its file, but as it was before uphold was started again, in the words of its state:\n"
            .to_owned();
    let json = |unit: &Unit| -> Map<String, Json> {
        let mut text = Vec::new();
        // As the state has it (`journal`), and by the same code.
        let writer: &mut dyn std::io::Write = &mut text;
        let written = serde_json::to_writer(writer, unit);
        written.and_then(|()| serde_json::from_slice(&text)).unwrap_or_default()
    };
    let (now, defaults) = (json(unit), json(&Unit::new(unit.name.clone())));
    for (key, value) in now {
        if defaults.get(&key) != Some(&value) {
            let _ = writeln!(out, "# {key} = {value}");
        }
    }
    out
}

fn tables(out: &mut String, table: &Table, path: &str) {
    let entries = table.in_order();
    let (below, leaves): (Vec<_>, Vec<_>) =
        entries.into_iter().partition(|(_, entry)| entry.table().is_some());
    // A table with nothing of its own but tables needs no header; an empty one does, to be there at all.
    if !path.is_empty() && (!leaves.is_empty() || below.is_empty()) {
        let gap = if out.is_empty() { "" } else { "\n" };
        let _ = writeln!(out, "{gap}[{path}]");
    }
    for (key, entry) in leaves {
        let _ = writeln!(out, "{} = {}  # {}", bare(key), value(&entry.node), origin(entry));
    }
    for (key, entry) in below {
        if let Some(table) = entry.table() {
            tables(out, table, &join(path, &bare(key)));
        }
    }
}

fn origin(entry: &Entry) -> String {
    let (line, _) = entry.key.line_column();
    let file: String = entry
        .key
        .source
        .path
        .to_string_lossy()
        .chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    format!("{file}:{line}")
}

fn bare(key: &str) -> String {
    let good = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if good { key.to_owned() } else { quoted(key) }
}

fn value(node: &Node) -> String {
    match &node.value {
        Value::String(text) => quoted(text),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) if number.is_nan() => "nan".to_owned(),
        Value::Float(number) => format!("{number:?}"),
        Value::Boolean(value) => value.to_string(),
        // No key takes one, so no unit that loads holds one.
        Value::Datetime => "\"\"".to_owned(),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(value).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Table(table) => {
            let pairs = table.in_order();
            let pairs: Vec<_> =
                pairs.iter().map(|(key, entry)| format!("{} = {}", bare(key), value(&entry.node))).collect();
            if pairs.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", pairs.join(", ")) }
        }
    }
}

/// A text as a basic string of TOML.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out += "\\\"",
            '\\' => out += "\\\\",
            '\n' => out += "\\n",
            '\t' => out += "\\t",
            '\r' => out += "\\r",
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
