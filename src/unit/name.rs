//! The name of a unit.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A unit's name: `[A-Za-z0-9_.@-]`, no leading dot, 1 to 64 bytes. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Arc<str>);

/// Why a text is no unit name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no unit name: use 1 to 64 of A-Z a-z 0-9 _ . @ - with no leading dot")]
pub struct BadName(pub String);

impl Name {
    /// The longest name, in bytes.
    pub const MAX: usize = 64;

    /// Checks a text.
    pub fn new(text: &str) -> Result<Name, BadName> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'@' | b'-');
        let good =
            (1..=Name::MAX).contains(&text.len()) && !text.starts_with('.') && text.bytes().all(allowed);
        if good { Ok(Name(text.into())) } else { Err(BadName(text.to_owned())) }
    }

    /// What is not of a unit but of uphold itself goes by this.
    pub fn uphold() -> Name {
        Name("uphold".into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::ops::Deref for Name {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl TryFrom<String> for Name {
    type Error = BadName;
    fn try_from(text: String) -> Result<Name, BadName> {
        Name::new(&text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.0.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_a_file_can_be_called() {
        for good in ["web", "a", "web@2", "A-b_c.d", &"x".repeat(64)] {
            assert_eq!(Name::new(good).map(|n| n.to_string()), Ok(good.to_owned()));
        }
        for bad in ["", ".web", "we b", "a/b", "ü", &"x".repeat(65)] {
            assert!(Name::new(bad).is_err(), "{bad:?} was taken");
        }
    }
}
