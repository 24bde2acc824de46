//! A value of a unit with its path, and the readers that give it a type.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use super::diagnose::nearest;
use super::tree::{At, Entry, Node, Table, Value};
use super::{Name, Problem, Signal, foreign, quantity};

/// What reading a unit needs and collects.
pub(super) struct Context<'a> {
    /// The unit's name.
    pub name: &'a Name,
    /// For `{env:NAME}`.
    pub environment: &'a BTreeMap<String, String>,
    /// This is not a whole unit, as the daemon config's defaults alone, or what can be read of one: what a
    /// unit must have may be missing, and placeholders are not replaced.
    pub partial: bool,
    /// What was wrong up to now.
    pub problems: Vec<Problem>,
}

/// The keys of a table, at a path.
#[derive(Clone)]
pub(super) struct Fields<'t> {
    pub table: Option<&'t Table>,
    pub path: String,
}

/// A value, with its path for messages and the place of its key.
#[derive(Clone)]
pub(super) struct Field<'t> {
    pub path: String,
    pub key: &'t At,
    pub node: &'t Node,
    /// Only the defaults say it.
    pub default: bool,
}

impl Context<'_> {
    pub fn error(&mut self, at: &At, message: String, help: Option<String>) {
        self.problems.push(Problem::at(at, Some(self.name), message, help));
    }

    pub fn warning(&mut self, at: &At, message: String, help: Option<String>) {
        self.problems.push(Problem::at(at, Some(self.name), message, help).warning());
    }

    /// Replaces `{name}` and `{env:NAME}`; any other brace stays as it is.
    pub fn replace(&mut self, text: &str, at: &At) -> String {
        let (mut out, mut rest) = (String::new(), text);
        while let Some(open) = rest.find('{') {
            let (before, from) = rest.split_at(open);
            out += before;
            let inner = from[1..].find(['{', '}']).filter(|end| from.as_bytes()[*end + 1] == b'}');
            let replaced =
                inner.map(|end| &from[1..=end]).and_then(|inner| Some((inner, self.placeholder(inner, at)?)));
            match replaced {
                Some((inner, value)) => {
                    out += &value;
                    rest = &from[inner.len() + 2..];
                }
                None => {
                    out.push('{');
                    rest = &from[1..];
                }
            }
        }
        out + rest
    }

    /// The value of what stands in braces; `None` if that is no placeholder. One that has no value here is
    /// a problem, and stays.
    fn placeholder(&mut self, inner: &str, at: &At) -> Option<String> {
        if self.partial {
            return None;
        }
        if inner == "name" {
            return Some(self.name.to_string());
        }
        let padded = inner
            .strip_prefix("instance:0")
            .is_some_and(|width| !width.is_empty() && width.bytes().all(|b| b.is_ascii_digit()));
        if inner == "instance" || padded {
            let message = format!("`{{{inner}}}` has no value: the unit has no `instances`");
            self.error(at, message, Some("take it out, or write {name}".to_owned()));
            return None;
        }
        let variable = inner.strip_prefix("env:").filter(|name| is_variable(name))?;
        let value = self.environment.get(variable).cloned();
        if value.is_none() {
            let message = format!("`{{{inner}}}` has no value: {variable} is not in uphold's environment");
            self.error(at, message, Some(format!("set {variable} where uphold is started")));
        }
        value
    }
}

/// A name that a shell could use.
fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

impl<'t> Fields<'t> {
    pub fn get(&self, key: &str) -> Option<Field<'t>> {
        let entry = self.table?.get(key)?;
        Some(Field::new(super::schema::join(&self.path, key), entry))
    }

    /// The table at a key. Something else there was found by the walk over the keys.
    pub fn table(&self, key: &str) -> Fields<'t> {
        let table = self.table.and_then(|table| table.get(key)).and_then(Entry::table);
        Fields { table, path: super::schema::join(&self.path, key) }
    }

    pub fn is_empty(&self) -> bool {
        self.table.is_none()
    }
}

impl<'t> Field<'t> {
    pub fn new(path: String, entry: &'t Entry) -> Field<'t> {
        Field { path, key: &entry.key, node: &entry.node, default: entry.is_default() }
    }

    /// The error that this is not what it must be; `help` shows what would do.
    pub fn wrong(&self, cx: &mut Context<'_>, wanted: &str, help: &str) {
        let message = format!("`{}` must be {wanted}, not {}", self.path, self.node.value.kind());
        cx.error(&self.node.at, message, (!help.is_empty()).then(|| help.to_owned()));
    }

    /// An error about the value.
    pub fn error(&self, cx: &mut Context<'_>, message: String, help: impl Into<Option<String>>) {
        cx.error(&self.node.at, message, help.into());
    }

    /// A string, with its placeholders replaced.
    pub fn string(&self, cx: &mut Context<'_>, wanted: &str) -> Option<String> {
        match &self.node.value {
            // What only a unit can fill in is judged there.
            Value::String(text) if cx.partial && ["{name}", "{env:"].iter().any(|p| text.contains(p)) => None,
            Value::String(text) => Some(cx.replace(text, &self.node.at)),
            Value::Integer(number) => {
                self.wrong(cx, wanted, &format!("write it in quotes: \"{number}\""));
                None
            }
            Value::Array(_) => {
                self.wrong(cx, wanted, "write one, without [ ]");
                None
            }
            _ => {
                self.wrong(cx, wanted, "write it in quotes");
                None
            }
        }
    }

    /// The help for a number in quotes; else empty.
    fn unquoted(&self) -> String {
        match &self.node.value {
            Value::String(text) if text.parse::<f64>().is_ok() => format!("write {text} without quotes"),
            _ => String::new(),
        }
    }

    pub fn boolean(&self, cx: &mut Context<'_>) -> Option<bool> {
        match self.node.value {
            Value::Boolean(value) => Some(value),
            _ => {
                self.wrong(cx, "true or false", "write true or false, without quotes");
                None
            }
        }
    }

    /// A whole number in a range.
    pub fn integer<T: TryFrom<i128>>(
        &self,
        cx: &mut Context<'_>,
        low: i128,
        high: i128,
        range: &str,
    ) -> Option<T> {
        let Value::Integer(number) = self.node.value else {
            self.wrong(cx, "a whole number", &self.unquoted());
            return None;
        };
        let converted = T::try_from(number).ok().filter(|_| (low..=high).contains(&number));
        if converted.is_none() {
            self.error(cx, format!("`{}` {range}", self.path), None);
        }
        converted
    }

    pub fn float(&self, cx: &mut Context<'_>, low: f64, high: f64, range: &str) -> Option<f64> {
        let number = match self.node.value {
            Value::Float(number) => number,
            // Not exact beyond 2^53, where every range has ended long before.
            Value::Integer(number) => number as f64,
            _ => {
                self.wrong(cx, "a number", &self.unquoted());
                return None;
            }
        };
        if number.is_finite() && (low..=high).contains(&number) {
            return Some(number);
        }
        self.error(cx, format!("`{}` {range}", self.path), None);
        None
    }

    /// A string with a unit or a number of seconds.
    pub fn duration(&self, cx: &mut Context<'_>) -> Option<Duration> {
        let help = "write \"300ms\", \"3s\" or \"1m30s\", or a number of seconds".to_owned();
        let seconds = match &self.node.value {
            Value::String(_) => {
                let text = self.string(cx, "a duration")?;
                return match quantity::duration(&text) {
                    Ok(duration) => Some(duration),
                    Err(reason) => {
                        let help = foreign::value(&self.path, &text).map_or(help, str::to_owned);
                        self.error(cx, format!("`{}` must be a duration: {reason}", self.path), help);
                        None
                    }
                };
            }
            Value::Integer(number) => *number as f64,
            Value::Float(number) => *number,
            _ => {
                self.wrong(cx, "a duration", &help);
                return None;
            }
        };
        let duration = Duration::try_from_secs_f64(seconds).ok().filter(|d| *d <= quantity::LONGEST);
        if duration.is_none() {
            let message = format!("`{}` must be a duration from 0 to a hundred years", self.path);
            self.error(cx, message, help);
        }
        duration
    }

    /// A string with a unit or a number of bytes.
    pub fn size(&self, cx: &mut Context<'_>) -> Option<u64> {
        let help = "write \"10MiB\", or a number of bytes";
        match &self.node.value {
            Value::Integer(_) => self.integer(cx, 0, i128::from(u64::MAX), "must be 0 or more bytes"),
            Value::String(_) => {
                let text = self.string(cx, "a size")?;
                quantity::size(&text)
                    .map_err(|why| {
                        self.error(cx, format!("`{}` must be a size: {why}", self.path), help.to_owned())
                    })
                    .ok()
            }
            _ => {
                self.wrong(cx, "a size", help);
                None
            }
        }
    }

    /// One of some words.
    pub fn word<T: Copy>(&self, cx: &mut Context<'_>, words: &[(&str, T)]) -> Option<T> {
        let list: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        let list = list.join(", ");
        let Value::String(_) = self.node.value else {
            self.wrong(cx, &format!("one of {list}"), "");
            return None;
        };
        let text = self.string(cx, "a word")?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let near = || nearest(&text, words.iter().map(|(word, _)| *word));
        let help = foreign::value(&self.path, &text)
            .map(str::to_owned)
            .or_else(|| near().map(|near| format!("did you mean \"{near}\"?")));
        self.error(cx, format!("`{}` must be one of {list}, not \"{text}\"", self.path), help);
        None
    }

    /// The items of a list. A string alone is a list that lacks its brackets.
    pub fn items(&self, cx: &mut Context<'_>, wanted: &str) -> Option<Vec<Field<'t>>> {
        match &self.node.value {
            Value::Array(items) => {
                let item = |node: &'t Node| Field { node, ..self.clone() };
                Some(items.iter().map(item).collect())
            }
            Value::String(text) => {
                self.wrong(cx, wanted, &format!("write [\"{text}\"]"));
                None
            }
            _ => {
                self.wrong(cx, wanted, "");
                None
            }
        }
    }

    /// A list in which each item is read by itself. What is wrong with one does not hide the others.
    pub fn list<T>(
        &self,
        cx: &mut Context<'_>,
        wanted: &str,
        mut read: impl FnMut(&mut Context<'_>, &Field<'t>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let items = self.items(cx, wanted)?;
        Some(items.iter().filter_map(|item| read(cx, item)).collect())
    }

    /// An absolute path.
    pub fn path(&self, cx: &mut Context<'_>) -> Option<PathBuf> {
        let text = self.string(cx, "a path")?;
        self.absolute(cx, &text)
    }

    /// Checks that a text is an absolute path.
    pub fn absolute(&self, cx: &mut Context<'_>, text: &str) -> Option<PathBuf> {
        if text.starts_with('/') {
            return Some(PathBuf::from(text));
        }
        let message = format!("`{}` must be an absolute path, not \"{text}\"", self.path);
        self.error(cx, message, "begin it with /".to_owned());
        None
    }

    /// Names of units, each once.
    pub fn names(&self, cx: &mut Context<'_>) -> Option<Vec<Name>> {
        let mut names = self.list(cx, "a list of unit names", |cx, item| {
            let text = item.string(cx, "a list of unit names")?;
            match Name::new(&text) {
                Ok(name) => Some(name),
                Err(bad) => {
                    let bare = text.strip_suffix(".service").or(text.strip_suffix(".toml"));
                    item.error(cx, bad.to_string(), bare.map(|bare| format!("did you mean \"{bare}\"?")));
                    None
                }
            }
        })?;
        let mut seen = BTreeSet::new();
        names.retain(|name| seen.insert(name.clone()));
        Some(names)
    }

    /// An octal string, as chmod takes it.
    pub fn mode(&self, cx: &mut Context<'_>, high: u32) -> Option<u32> {
        let help = if high > 0o777 { "write \"0755\"" } else { "write \"022\"" };
        let Value::String(_) = self.node.value else {
            self.wrong(cx, "an octal number in quotes", help);
            return None;
        };
        let text = self.string(cx, "an octal number in quotes")?;
        let digits = text.strip_prefix("0o").unwrap_or(&text);
        let good = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        let mode = u32::from_str_radix(digits, 8).ok().filter(|mode| good && *mode <= high);
        if mode.is_none() {
            let message =
                format!("`{}` must be an octal number from 0 to {high:o}, not \"{text}\"", self.path);
            self.error(cx, message, help.to_owned());
        }
        mode
    }

    /// A user or group: a name or a number.
    pub fn account(&self, cx: &mut Context<'_>) -> Option<String> {
        if let Value::Integer(number) = self.node.value {
            // The highest is the kernel's "no change".
            let id: u32 = self.integer(
                cx,
                0,
                i128::from(u32::MAX) - 1,
                "must be a name or a number from 0 to 4294967294",
            )?;
            return (i128::from(id) == number).then(|| id.to_string());
        }
        let text = self.string(cx, "a name or a number")?;
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if digits && text.parse::<u32>().ok().is_none_or(|id| id == u32::MAX) {
            let message = format!("`{}` must be a name or a number from 0 to 4294967294", self.path);
            self.error(cx, message, None);
            return None;
        }
        if text.is_empty()
            || text.contains(|c: char| c == ':' || c == '/' || c.is_whitespace() || c.is_control())
        {
            let help = match (self.path.as_str(), text.split_once(':')) {
                ("user", Some((user, group))) => {
                    Some(format!("write user = \"{user}\" and group = \"{group}\""))
                }
                _ => None,
            };
            self.error(cx, format!("`{}` must be a name or a number, not \"{text}\"", self.path), help);
            return None;
        }
        Some(text)
    }

    /// A signal by name or number.
    pub fn signal(&self, cx: &mut Context<'_>) -> Option<Signal> {
        let (shown, signal) = match &self.node.value {
            Value::Integer(number) => {
                (number.to_string(), i32::try_from(*number).ok().and_then(Signal::from_number))
            }
            _ => {
                let text = self.string(cx, "a signal")?;
                let signal = Signal::parse(&text);
                (text, signal)
            }
        };
        if signal.is_none() {
            let names: Vec<String> = (1..=31).filter_map(Signal::from_number).map(Signal::name).collect();
            let near = names
                .iter()
                .find(|name| strsim::damerau_levenshtein(name, &shown.to_uppercase()) <= 2)
                .map(|near| format!("did you mean \"{near}\"?"));
            let help = near.unwrap_or_else(|| "write \"SIGTERM\" or a number from 1 to 64".to_owned());
            self.error(cx, format!("`{}` is no signal: {shown}", self.path), help);
        }
        signal
    }
}
