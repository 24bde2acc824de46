//! Places at which a test may have uphold fail. Compiled out of releases.
//!
//! UPHOLD_FAILPOINTS names a file of lines `POINT COUNT ACTION`: the count goes down each time the point is
//! reached, and at 0 the line is gone and the action follows: `kill` (SIGKILL to uphold), `panic`, `abort`,
//! `segv`. A test may write the file at any time.

/// Here is the point of that name.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn reach(_point: &str) {}

#[cfg(debug_assertions)]
pub use armed::reach;

/// How the actions are done: this module touches nothing of the system.
pub type Act = fn(action: &str);

/// Sets it, once.
#[cfg_attr(not(debug_assertions), expect(unused_variables, reason = "there are no points"))]
pub fn arm(act: Act) {
    #[cfg(debug_assertions)]
    armed::arm(act);
}

#[cfg(debug_assertions)]
mod armed {
    use std::fs;
    use std::path::PathBuf;
    use std::sync::{Mutex, OnceLock, PoisonError};

    use super::Act;

    static PLAN: OnceLock<Option<(PathBuf, Act)>> = OnceLock::new();
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

    pub(super) fn arm(act: Act) {
        PLAN.get_or_init(|| std::env::var_os("UPHOLD_FAILPOINTS").map(|path| (path.into(), act)));
    }

    /// Here is the point of that name.
    pub fn reach(point: &str) {
        let Some((path, act)) = PLAN.get().and_then(Option::as_ref) else { return };
        let lock = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(text) = fs::read_to_string(path) else { return };
        let mut action = None;
        let mut left = String::new();
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let [name, count, what] = words[..] else { continue };
            let count = count.parse::<u64>().unwrap_or(1);
            if name != point || count > 1 {
                let count = if name == point { count - 1 } else { count };
                left.push_str(&format!("{name} {count} {what}\n"));
            } else {
                action = Some(what.to_owned());
            }
        }
        if left != text {
            // A reader sees the old text or the new one.
            let new = path.with_extension("new");
            let _ = fs::write(&new, left).and_then(|()| fs::rename(new, path));
        }
        drop(lock);
        match action.as_deref() {
            Some("panic") => panic!("the test wants a panic at {point}"),
            Some(action) => act(action),
            None => {}
        }
    }
}
