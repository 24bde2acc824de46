//! What lives of what an uphold before has started, for an uphold that cannot read which runs there were.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use nix::errno::Errno;

use super::{cgroup, kin, patience::patiently, slots, sys};

/// Processes that live and are of this token's line of upholds, in words: those on record in the private directory,
/// those in its cgroups, and those that carry its mark. `None`: there are none.
pub fn left_alive(private: Option<&Path>, token: &str, cgroups: Option<&Path>) -> Option<String> {
    named(of_token(private, token, cgroups))
}

/// Processes that live and are on record in the private directory, or are of the same line of upholds as these: for who
/// has no state beside the record. In words, as [`left_alive`].
pub fn recorded_alive(private: &Path) -> Option<String> {
    // Where none is on record, nothing has to be looked for.
    slots::peek(private).first()?;
    left_alive(Some(private), &slots::token(private)?, None)
}

/// Children of this process that live and carry the mark of a run: the image before has started them. In words, as
/// [`left_alive`].
pub fn own_alive() -> Option<String> {
    named(own())
}

/// So many pids are named.
const NAMED: usize = 10;

/// `pid 7`, `pids 7, 8 and 3 more`.
pub(super) fn named(found: io::Result<Vec<i32>>) -> Option<String> {
    let pids = match found {
        Ok(pids) => pids,
        Err(error) => return Some(format!("nobody can tell which: {error}")),
    };
    let words: Vec<String> = pids.iter().take(NAMED).map(i32::to_string).collect();
    let words = words.join(", ");
    match pids.len() {
        0 => None,
        1 => Some(format!("pid {words}")),
        2..=NAMED => Some(format!("pids {words}")),
        more => Some(format!("pids {words} and {} more", more - NAMED)),
    }
}

/// In ascending order. `Err`: nobody can tell at the moment.
fn of_token(private: Option<&Path>, token: &str, cgroups: Option<&Path>) -> io::Result<Vec<i32>> {
    let procs = patiently(kin::snapshot)?;
    let records = private.map(slots::peek_processes).unwrap_or_default();
    let within = cgroups.map(cgroup::pids_below).unwrap_or_default();
    let mark = format!(":{token}");
    let own = std::process::id().cast_signed();
    let living = procs.iter().filter(|proc| !proc.zombie && proc.pid != own);
    let ours = living.filter(|proc| {
        let recorded = records.contains(&(proc.pid, proc.start));
        recorded || within.contains(&proc.pid) || is_marked(proc.pid, mark.as_bytes())
    });
    Ok(ours.map(|proc| proc.pid).collect::<BTreeSet<i32>>().into_iter().collect())
}

fn own() -> io::Result<Vec<i32>> {
    if sys::wait(sys::Child::Any, true, false) == Err(Errno::ECHILD) {
        return Ok(Vec::new());
    }
    let own = std::process::id().cast_signed();
    let procs = patiently(kin::snapshot)?;
    let ours = procs.iter().filter(|proc| proc.parent == own && !proc.zombie && is_marked(proc.pid, b""));
    Ok(ours.map(|proc| proc.pid).collect::<BTreeSet<i32>>().into_iter().collect())
}

/// Its UPHOLD_RUN ends so. Of another user's process only root can tell, who alone could have started it.
fn is_marked(pid: i32, mark: &[u8]) -> bool {
    let environ = kin::read(pid, "environ").unwrap_or_default();
    let mut entries = environ.split(|byte| *byte == 0);
    entries.any(|entry| entry.starts_with(b"UPHOLD_RUN=") && entry.ends_with(mark))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_few_are_named_and_the_rest_counted() {
        let some = |count| named(Ok((1..=count).collect()));
        assert_eq!(some(0), None);
        for (count, words) in [
            (1, "pid 1"),
            (2, "pids 1, 2"),
            (10, "pids 1, 2, 3, 4, 5, 6, 7, 8, 9, 10"),
            (12, "pids 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more"),
        ] {
            assert_eq!(some(count).unwrap(), words);
        }
        assert!(named(Err(io::ErrorKind::NotFound.into())).unwrap().starts_with("nobody can tell which: "));
    }

    #[test]
    fn a_process_is_found_by_its_mark_for_as_long_as_it_lives() {
        let _alone = crate::alone::alone();
        let dir = tempfile::tempdir().unwrap();
        let token = format!("{:016x}", std::process::id());
        let found = || of_token(Some(dir.path()), &token, None).unwrap();
        assert!(found().is_empty());
        let mut command = Command::new("sleep");
        let mut child = command.arg("600").env("UPHOLD_RUN", format!("web:1:{token}")).spawn().unwrap();
        let pid = child.id().cast_signed();
        assert_eq!(found(), [pid]);
        assert!(of_token(Some(dir.path()), "0123456789abcdef", None).unwrap().is_empty());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found().is_empty());
    }
}
