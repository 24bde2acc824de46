//! Threads of uphold that hang in the kernel. An exec ends all other threads first and waits for that
//! (`de_thread` of the kernel), and nothing ends this wait, not even SIGKILL: who cannot be ended, as a write to a
//! frozen file system, holds up all of uphold, so it is looked before an upgrade. A crash has no such choice.

use std::fs;
use std::time::Duration;

use nix::libc;

/// How often is looked,
const AGAIN: Duration = Duration::from_millis(50);
/// at how many looks in a row a thread is in one and the same wait until it hangs: two seconds, as a busy disk
/// keeps one waiting for less,
const LOOKS: u32 = 40;
/// and how often all that waits is found in another wait than before until that is work, and no hang.
const MOVES: u32 = 3;

/// Where FUSE waits for a server that has read the request. The state is that of a sleep that a signal ends, and
/// the wait goes on without one after that.
const FUSE: &str = "request_wait_answer";

/// A thread that a kill would not end at the moment.
#[derive(Debug, PartialEq, Eq)]
struct Wait {
    thread: String,
    name: String,
    /// As ps(1) shows it.
    state: char,
    /// The function of the kernel; `0` where it does not say.
    place: String,
    /// How often the thread has slept so far: the same number is the same wait.
    switches: String,
}

/// A thread that an exec would wait for without end, in words; none where /proc does not tell. Reads only what
/// blocks for nobody, and returns at once where no thread waits: an exec right after it goes through. Within a
/// tokio runtime.
pub async fn stuck_thread() -> Option<String> {
    let (mut stuck, mut looks, mut moves) = (look(), 1, 0);
    while moves < MOVES {
        let one = stuck.first()?;
        if looks == LOOKS {
            return Some(format!(
                "thread {} hangs in the kernel (state {}, in {}), and an exec would wait for it: see whether the \
                 file systems that uphold uses answer",
                one.name, one.state, one.place
            ));
        }
        tokio::time::sleep(AGAIN).await;
        let now = look();
        stuck.retain(|wait| now.contains(wait));
        looks += 1;
        if stuck.is_empty() {
            (stuck, looks, moves) = (now, 1, moves + 1);
        }
    }
    None
}

/// Those that are so now; who looks runs and is none of them.
fn look() -> Vec<Wait> {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    threads.filter_map(|thread| wait(thread.file_name().to_str()?)).collect()
}

/// `None`: a kill would end it, or it has ended.
fn wait(thread: &str) -> Option<Wait> {
    let read = |file: &str| fs::read_to_string(format!("/proc/self/task/{thread}/{file}"));
    let stat = read("stat").ok()?;
    let (name, state) = named(&stat)?;
    if !matches!(state, 'D' | 'S') {
        return None;
    }
    let place = read("wchan").unwrap_or_default();
    if !outlives_a_kill(state, &place, || read("syscall").unwrap_or_default()) {
        return None;
    }
    let status = read("status").unwrap_or_default();
    let switches = status.split_once("voluntary_ctxt_switches:")?.1.lines().next()?.to_owned();
    Some(Wait { thread: thread.to_owned(), name: name.to_owned(), state, place, switches })
}

/// Name and state of /proc/PID/stat; the name may hold anything.
fn named(stat: &str) -> Option<(&str, char)> {
    let (head, rest) = stat.rsplit_once(") ")?;
    Some((head.split_once(" (")?.1, rest.chars().next()?))
}

/// State D is of two kinds that only the place tells apart, for NFS by its name: in one of them a kill ends the
/// wait. Who has made a child with CLONE_VFORK is in that one until the child's exec: a start that hangs.
fn outlives_a_kill(state: char, place: &str, syscall: impl FnOnce() -> String) -> bool {
    let clones = |text: String| {
        let number = text.split(' ').next().and_then(|number| number.parse().ok());
        [Some(libc::SYS_clone), Some(libc::SYS_clone3)].contains(&number)
    };
    place == FUSE || state == 'D' && !place.ends_with("_killable") && !clones(syscall())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kill_ends_is_told_from_what_it_does_not_end() {
        let clone3 = format!("{} 0x4111 0x7f1b2c010b60 0x0 0x0 0x0 0x0 0x7f1b 0x7f1c", libc::SYS_clone3);
        for (state, place, syscall, wanted) in [
            ('D', "percpu_rwsem_wait", "257 0xffffff9c 0x7f76", true),
            ('D', "0", "257 0xffffff9c 0x7f76", true),
            ('D', "", "", true),
            ('D', "kernel_clone", &*clone3, false),
            ('D', "rpc_wait_bit_killable", "257 0xffffff9c 0x7f76", false),
            ('S', "futex_do_wait", "202 0x7f76", false),
            ('S', "request_wait_answer", "257 0xffffff9c 0x7f76", true),
        ] {
            assert_eq!(
                outlives_a_kill(state, place, || syscall.to_owned()),
                wanted,
                "{state} {place} {syscall}"
            );
        }
    }

    #[test]
    fn a_thread_may_call_itself_anything() {
        assert_eq!(named("7 (a) S (b)) D 3 4"), Some(("a) S (b)", 'D')));
        assert_eq!(named("7"), None);
    }
}
