//! The parameters of a query, each taken once by who knows it; what is left over is unknown.

use std::time::Duration;

use percent_encoding::percent_decode_str;

use crate::engine::Wall;
use crate::unit::Name;
use crate::unit::quantity::duration_or_seconds;

/// The parameters that were given, and those that were asked for. Errors are sentences that say what would
/// do.
#[derive(Debug)]
pub(super) struct Query {
    given: Vec<(String, String)>,
    known: Vec<&'static str>,
}

impl Query {
    /// Splits and decodes. A `+` is a plus sign, as RFC 3986 has it, not a blank as in a form: times hold
    /// one.
    pub(super) fn parse(text: Option<&str>) -> Result<Query, String> {
        let mut given = Vec::new();
        for part in text.unwrap_or_default().split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            given.push((decode(name)?, decode(value)?));
        }
        Ok(Query { given, known: Vec::new() })
    }

    /// All values of a parameter that may be repeated.
    pub(super) fn all(&mut self, name: &'static str) -> Vec<String> {
        self.known.push(name);
        let taken = self.given.extract_if(.., |(given, _)| given == name);
        taken.map(|(_, value)| value).collect()
    }

    fn one(&mut self, name: &'static str) -> Result<Option<String>, String> {
        let mut values = self.all(name);
        if values.len() > 1 {
            return Err(format!("`{name}` is given {} times; give it once", values.len()));
        }
        Ok(values.pop())
    }

    /// One value, made into something by `make`; `would_do` says what it makes something of.
    pub(super) fn value<T>(
        &mut self,
        name: &'static str,
        would_do: &str,
        make: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, String> {
        let Some(text) = self.one(name)? else { return Ok(None) };
        match make(&text) {
            Some(value) => Ok(Some(value)),
            None => Err(format!("`{name}` cannot be `{text}`; {would_do}")),
        }
    }

    /// Any text.
    pub(super) fn text(&mut self, name: &'static str) -> Result<Option<String>, String> {
        self.one(name)
    }

    /// A switch; absent is `false`.
    pub(super) fn switch(&mut self, name: &'static str) -> Result<bool, String> {
        let value = self.value(name, "use true or false", |text| text.parse().ok())?;
        Ok(value.unwrap_or(false))
    }

    /// A whole number.
    pub(super) fn number<T: std::str::FromStr>(&mut self, name: &'static str) -> Result<Option<T>, String> {
        self.value(name, "use a whole number, not negative", |text| {
            text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
        })
    }

    /// A length of time.
    pub(super) fn duration(&mut self, name: &'static str) -> Result<Option<Duration>, String> {
        self.value(name, "use a duration, as 30s or 1m30s, or a number of seconds", |text| {
            duration_or_seconds(text).ok()
        })
    }

    /// A point in time.
    pub(super) fn wall(&mut self, name: &'static str) -> Result<Option<Wall>, String> {
        self.value(name, "use a time as RFC 3339 has it, as 2026-01-01T12:00:00Z", |text| {
            Wall::try_from(text.to_owned()).ok()
        })
    }

    /// All units that are named.
    pub(super) fn units(&mut self, name: &'static str) -> Result<Vec<Name>, String> {
        let make = |text: String| Name::new(&text).map_err(|bad| format!("`{name}` is no unit: {bad}"));
        self.all(name).into_iter().map(make).collect()
    }

    /// One unit.
    pub(super) fn unit(&mut self, name: &'static str) -> Result<Option<Name>, String> {
        let Some(text) = self.one(name)? else { return Ok(None) };
        Name::new(&text).map(Some).map_err(|bad| format!("`{name}` is no unit: {bad}"))
    }

    /// Nothing may be left over.
    pub(super) fn finish(self) -> Result<(), String> {
        let names: Vec<String> = self.given.iter().map(|(name, _)| format!("`{name}`")).collect();
        if names.is_empty() {
            return Ok(());
        }
        let would_do = match self.known.as_slice() {
            [] => "it takes none".to_owned(),
            known => format!("it takes {}", known.join(", ")),
        };
        Err(format!("unknown query parameter {}; {would_do}", names.join(", ")))
    }
}

/// Percent-decodes one part of a path or query.
pub(super) fn decode(text: &str) -> Result<String, String> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(String::from).map_err(|_| format!("`{text}` is not UTF-8 once it is percent-decoded"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plus_is_a_plus() {
        let mut query = Query::parse(Some("since=2026-01-01T12:00:00+02:00")).unwrap();
        assert_eq!(query.wall("since").unwrap().unwrap().to_string(), "2026-01-01T10:00:00.000Z");
    }

    #[test]
    fn what_is_unknown_or_twice_is_named() {
        let mut query = Query::parse(Some("lines=1&x=1&y&follow=true&follow=true")).unwrap();
        assert_eq!(query.number::<usize>("lines"), Ok(Some(1)));
        assert!(query.switch("follow").unwrap_err().contains("`follow` is given 2 times"));
        assert_eq!(query.finish().unwrap_err(), "unknown query parameter `x`, `y`; it takes lines, follow");
    }
}
