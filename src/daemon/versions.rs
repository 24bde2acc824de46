//! Versions of the state: which of them this uphold reads, which one it has in common with another, and what a
//! line looks like in each. Here, and nowhere else, one is made of another.
//!
//! A version stands for all that one uphold hands to the next in its private directory. The head of the state is
//! the same in every version, but for what later ones add: who does not read the rest still knows whose it is.
//!
//! There is one so far. So that tests can play an uphold of a later release, and one of an earlier, a build for
//! debugging takes the versions that it reads from the file that UPHOLD_STATE_VERSIONS names, once, when its
//! image begins; from 2 on they look differently from 1. Compiled out of releases.

use serde::Serialize;

use crate::engine::Saved;

/// Those that this uphold reads, in ascending order; it writes each of them, and the last one where nobody asks
/// for another.
#[cfg(not(debug_assertions))]
pub fn known() -> &'static [u32] {
    &KNOWN
}

#[cfg(debug_assertions)]
pub use played::known;

const KNOWN: [u32; 1] = [1];

/// What is written where nobody asks for another.
pub fn newest() -> u32 {
    known().last().copied().unwrap_or_default()
}

/// The highest that both of them know.
pub fn common(ours: &[u32], theirs: &[u32]) -> Option<u32> {
    ours.iter().copied().filter(|version| theirs.contains(version)).max()
}

/// Versions in a sentence: `state versions 1 and 2`.
pub fn shown(versions: &[u32]) -> String {
    let words: Vec<String> = versions.iter().map(u32::to_string).collect();
    match words.split_last() {
        None => "no state version".to_owned(),
        Some((only, [])) => format!("state version {only}"),
        Some((last, rest)) => format!("state versions {} and {last}", rest.join(", ")),
    }
}

/// A line of the state in a version.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Line<'a> {
    /// Version 1: as it is.
    Plain(&'a Saved<'a>),
    /// A later one, as tests have it.
    #[cfg(debug_assertions)]
    Later {
        /// All of it.
        later: &'a Saved<'a>,
    },
}

/// What is written for this in a version that is [`known`].
pub fn write<'a>(version: u32, saved: &'a Saved<'a>) -> Line<'a> {
    match version {
        #[cfg(debug_assertions)]
        2.. => Line::Later { later: saved },
        _ => Line::Plain(saved),
    }
}

/// What a line says in a version that is [`known`]. An error says why that is not what one of it looks like.
pub fn read(version: u32, json: &[u8]) -> serde_json::Result<Saved<'static>> {
    match version {
        #[cfg(debug_assertions)]
        2.. => played::read(json),
        _ => serde_json::from_slice(json),
    }
}

#[cfg(debug_assertions)]
mod played {
    use std::sync::OnceLock;

    use serde::Deserialize;

    use super::{KNOWN, Saved};

    static PLAYED: OnceLock<Vec<u32>> = OnceLock::new();

    /// As a test has it, else as a release has it.
    pub fn known() -> &'static [u32] {
        let versions = PLAYED.get_or_init(|| {
            let path = std::env::var_os("UPHOLD_STATE_VERSIONS");
            let text = path.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
            text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
        });
        if versions.is_empty() { &KNOWN } else { versions }
    }

    #[derive(Deserialize)]
    struct Later {
        later: Saved<'static>,
    }

    pub(super) fn read(json: &[u8]) -> serde_json::Result<Saved<'static>> {
        serde_json::from_slice(json).map(|Later { later }| later)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Engine, Input, Settings};

    #[test]
    fn the_highest_that_both_know_is_taken() {
        for (ours, theirs, both) in [
            (&[1][..], &[1][..], Some(1)),
            (&[1], &[1, 2], Some(1)),
            (&[1, 2], &[1], Some(1)),
            (&[1, 2], &[1, 2], Some(2)),
            (&[2, 3], &[1, 2], Some(2)),
            // Whoever made the other one may list them as they like.
            (&[1, 2, 3], &[4, 3, 1], Some(3)),
            (&[1, 2], &[3, 4], None),
            (&[1], &[], None),
        ] {
            assert_eq!(common(ours, theirs), both, "{ours:?} {theirs:?}");
        }
    }

    #[test]
    fn versions_are_said_in_words() {
        assert_eq!(shown(&[]), "no state version");
        assert_eq!(shown(&[1]), "state version 1");
        assert_eq!(shown(&[1, 2, 3]), "state versions 1, 2 and 3");
    }

    #[test]
    fn what_is_written_in_a_version_is_read_in_it_and_in_no_other() {
        let mut engine = Engine::new(Settings::default());
        let input = Input::Own { reason: "Said", warning: false, message: "one".to_owned() };
        engine.handle(crate::host::now(), input, &mut Vec::new());
        let json = |saved: &Saved<'_>| serde_json::to_string(saved).unwrap();
        let saved = engine.state();
        for version in [1, 2] {
            let line = serde_json::to_vec(&write(version, &saved)).unwrap();
            assert_eq!(json(&read(version, &line).unwrap()), json(&saved));
        }
        let plain = serde_json::to_vec(&write(1, &saved)).unwrap();
        assert!(read(2, &plain).is_err());
    }
}
