//! Whether unit files differ from what was loaded. They are looked at on the disk's thread, where at most one
//! look is under way, however many ask and however long the disk takes; until it answers, what it said last
//! stands.

use std::collections::BTreeSet;

use tokio::sync::watch;

use crate::unit::Name;

/// What is known, and what is to be looked at.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// How many looks have come to their end.
    over: watch::Sender<u64>,
    under_way: bool,
    /// What the next look is for, once somebody wants one.
    next: Option<BTreeSet<Name>>,
    changed: BTreeSet<Name>,
}

/// A look that somebody waits for.
#[derive(Debug)]
pub(super) struct Look {
    over: watch::Receiver<u64>,
    number: u64,
}

impl Look {
    /// Waits for its end, as long as that takes.
    pub(super) async fn ended(mut self) {
        let number = self.number;
        // An error is the end of the loop: there is nothing to wait for.
        drop(self.over.wait_for(|over| *over >= number).await);
    }
}

impl Looks {
    /// Somebody wants these looked at. The look is one that begins after this: what was written before is
    /// seen by it. `Some`: it is to be begun now, for these.
    pub(super) fn want(&mut self, names: impl IntoIterator<Item = Name>) -> (Look, Option<BTreeSet<Name>>) {
        self.next.get_or_insert_default().extend(names);
        let ahead = if self.under_way { 2 } else { 1 };
        let number = *self.over.borrow() + ahead;
        (Look { over: self.over.subscribe(), number }, self.begin())
    }

    /// The look under way has come to its end: these units could be looked at, and differ or not. `Some`:
    /// another is to be begun now, for these.
    pub(super) fn ended(&mut self, found: Vec<(Name, bool)>) -> Option<BTreeSet<Name>> {
        for (name, changed) in found {
            if changed {
                self.changed.insert(name);
            } else {
                self.changed.remove(&name);
            }
        }
        self.under_way = false;
        self.over.send_modify(|over| *over += 1);
        self.begin()
    }

    fn begin(&mut self) -> Option<BTreeSet<Name>> {
        let names = if self.under_way { None } else { self.next.take() };
        self.under_way |= names.is_some();
        names
    }

    /// The files were just read: nothing differs.
    pub(super) fn loaded(&mut self) {
        self.changed.clear();
    }

    /// Whether its files differed when they were last looked at.
    pub(super) fn changed(&self, name: &Name) -> bool {
        self.changed.contains(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn names(text: &[&str]) -> Option<BTreeSet<Name>> {
        Some(text.iter().map(|text| name(text)).collect())
    }

    fn is_over(look: &Look) -> bool {
        *look.over.borrow() >= look.number
    }

    #[test]
    fn of_many_who_ask_a_disk_that_does_not_answer_there_is_one_look_and_one_for_all_others_after_it() {
        let mut looks = Looks::default();
        let (first, begun) = looks.want([name("a")]);
        assert_eq!(begun, names(&["a"]));
        let mut waiting = Vec::new();
        for ask in ["b", "a", "b", "c"].repeat(1000) {
            let (look, begun) = looks.want([name(ask)]);
            assert_eq!(begun, None);
            waiting.push(look);
        }
        assert_eq!(looks.ended(vec![(name("a"), true)]), names(&["a", "b", "c"]));
        assert!(is_over(&first) && looks.changed(&name("a")));
        assert!(
            !waiting.iter().any(is_over),
            "what was written after the first look began is not seen by it"
        );
        assert_eq!(looks.ended(vec![(name("a"), false), (name("c"), true)]), None);
        assert!(waiting.iter().all(is_over) && !looks.changed(&name("a")) && looks.changed(&name("c")));
    }

    #[test]
    fn what_could_not_be_looked_at_stays_what_it_was_and_a_look_for_nobody_ends_too() {
        let mut looks = Looks::default();
        assert_eq!(looks.want([name("a")]).1, names(&["a"]));
        looks.ended(vec![(name("a"), true)]);
        assert_eq!(looks.want([name("a")]).1, names(&["a"]));
        looks.ended(Vec::new());
        assert!(looks.changed(&name("a")));
        let (look, begun) = looks.want([]);
        assert_eq!(begun, names(&[]));
        looks.ended(Vec::new());
        assert!(is_over(&look));
        looks.loaded();
        assert!(!looks.changed(&name("a")));
    }
}
