//! What the log thread itself removes of the directory of FIFOs, for who watches that for what somebody else does.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// So many wait to be heard of. Where nobody watches all are forgotten then: to look in vain does no harm.
const MOST: usize = 4096;

/// Names of files that were removed, or are being removed; each is heard of once.
#[derive(Debug, Default)]
pub(super) struct Removals(Mutex<BTreeSet<OsString>>);

impl Removals {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<OsString>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has this file removed; `remove` says whether it was.
    pub(super) fn of(&self, path: &Path, remove: impl FnOnce(&Path) -> bool) {
        let name = path.file_name().unwrap_or_default();
        {
            let mut all = self.lock();
            if all.len() >= MOST {
                all.clear();
            }
            // It may be heard of before it is known to be done.
            all.insert(name.to_owned());
        }
        if !remove(path) {
            self.lock().remove(name);
        }
    }

    /// The removal of this was one of them.
    pub(super) fn hear(&self, name: &OsStr) -> bool {
        self.lock().remove(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_heard_of_once_and_what_was_not_there_never() {
        let removals = Removals::default();
        removals.of(Path::new("/there/web.1.out"), |_| true);
        removals.of(Path::new("/there/web.2.out"), |_| false);
        for (name, heard) in [("web.2.out", false), ("web.1.out", true), ("web.1.out", false)] {
            assert_eq!(removals.hear(name.as_ref()), heard, "{name}");
        }
        for number in 0..=MOST {
            removals.of(&Path::new("/there").join(number.to_string()), |_| true);
        }
        assert!(removals.lock().len() <= MOST);
    }
}
