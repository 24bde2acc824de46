//! Which calls fail, and how: every error that the man page of the call lists, at its first, second and tenth call,
//! and at every one for as long as the fault lasts. strace counts the calls of each thread, and of each child, apart.

use super::bench::{Bench, Case};
use super::strace::{CHILD, Fault};

/// The first, the second and the tenth call, and all.
const TIMES: [&str; 4] = ["1", "2", "10", "1+"];

/// All, of a call that is made again at once: without an end to it, its thread would do nothing else. And a strace that
/// goes meanwhile would leave ENOSYS behind, which epoll_wait never answers.
const MANY: &str = "1..200";

/// What comes of an error.
#[derive(Clone, Copy)]
enum Then {
    /// What was to be done is not done, and that is said.
    Said,
    /// It is done all the same: nothing is lost, and nothing has to be said.
    Done,
    /// The same: the call is made again at once, for as long as that takes.
    Again,
    /// It is not provoked: this is why it cannot come.
    Never(&'static str),
}

use Then::{Again, Done, Never, Said};

/// Errors of a call.
type Errors = &'static [(&'static str, Then)];

/// clone(2) and fork(2). Those that mean that this kernel has no such call, or a filter forbids it, or that there is
/// no way into the cgroup: the older call does it then.
const CLONE3: Errors = &[
    ("EACCES", Done),
    ("EAGAIN", Said),
    ("EBUSY", Done),
    ("EEXIST", Never("of set_tid, which uphold does not use")),
    ("EINVAL", Done),
    ("ENOMEM", Said),
    ("ENOSPC", Never("of new namespaces, which uphold does not make")),
    ("ENOSYS", Done),
    ("EOPNOTSUPP", Done),
    ("EPERM", Done),
    ("ERESTARTNOINTR", Never("only a tracer sees it: the kernel makes the call again")),
    ("EUSERS", Never("of new user namespaces, which uphold does not make")),
];

/// The same of the older call, where there is no newer one.
const CLONE: Errors = &[
    ("EACCES", Never("of clone3 only")),
    ("EAGAIN", Said),
    ("EBUSY", Never("of clone3 only")),
    ("EEXIST", Never("of clone3 only")),
    ("EINVAL", Said),
    ("ENOMEM", Said),
    ("ENOSPC", Never("of new namespaces, which uphold does not make")),
    ("ENOSYS", Said),
    ("EOPNOTSUPP", Never("of clone3 only")),
    ("EPERM", Said),
    ("ERESTARTNOINTR", Never("only a tracer sees it: the kernel makes the call again")),
    ("EUSERS", Never("of new user namespaces, which uphold does not make")),
];

/// execve(2).
const EXECVE: Errors = &[
    ("E2BIG", Said),
    ("EAGAIN", Said),
    ("EFAULT", Never("the strings are uphold's own, and it sleeps until they are read")),
    ("EINVAL", Said),
    ("EIO", Said),
    ("EISDIR", Said),
    ("ELIBBAD", Said),
    ("ELOOP", Said),
    ("EMFILE", Said),
    ("ENAMETOOLONG", Said),
    ("ENFILE", Said),
    ("ENOEXEC", Said),
    ("ENOMEM", Said),
    ("EPERM", Said),
    ("ETXTBSY", Said),
];
/// Those that make uphold go on with the next of PATH, as execvp(3) does: at the last, that is said.
const EXECVE_OF_ONE_IN_PATH: Errors = &[("EACCES", Said), ("ENOENT", Said), ("ENOTDIR", Said)];

/// open(2).
const OPENAT: Errors = &[
    ("EACCES", Said),
    // EWOULDBLOCK on the page.
    ("EAGAIN", Said),
    ("EBADF", Never("all paths are absolute, or in the working directory")),
    ("EBUSY", Never("of block devices")),
    ("EDQUOT", Said),
    ("EEXIST", Said),
    ("EFAULT", Never("the paths are uphold's own")),
    ("EFBIG", Never("of 32-bit programs")),
    ("EINVAL", Said),
    ("EISDIR", Said),
    ("ELOOP", Said),
    ("EMFILE", Said),
    ("ENAMETOOLONG", Said),
    ("ENFILE", Said),
    ("ENODEV", Said),
    ("ENOENT", Said),
    ("ENOMEM", Said),
    ("ENOSPC", Said),
    ("ENOTDIR", Said),
    ("ENXIO", Said),
    ("EOPNOTSUPP", Never("of O_TMPFILE, which uphold does not use")),
    ("EOVERFLOW", Never("of 32-bit programs")),
    ("EPERM", Said),
    ("EROFS", Said),
    ("ETXTBSY", Said),
];
/// Of a file it is opened again. A reload that had to open a directory is refused, and says so.
const OPENAT_INTERRUPTED: Errors = &[("EINTR", Again)];

/// write(2), and pwrite(2), which has no further ones that may come.
const WRITE: Errors = &[
    ("EAGAIN", Never("of descriptors that do not block")),
    ("EBADF", Never("the descriptor is uphold's own, and open")),
    ("EDESTADDRREQ", Never("of datagram sockets")),
    ("EDQUOT", Said),
    ("EFAULT", Never("the memory is uphold's own")),
    ("EFBIG", Said),
    ("EINTR", Again),
    ("EINVAL", Said),
    ("EIO", Said),
    ("ENOSPC", Said),
    ("EPERM", Said),
    ("EPIPE", Never("of pipes and sockets")),
];

/// The same of what uphold got from who started it, which may be anything.
const WRITE_TO_A_STREAM: Errors = &[
    ("EAGAIN", Done),
    ("EBADF", Never("the descriptor is open: uphold's first act is to see to that")),
    ("EDESTADDRREQ", Said),
    ("EDQUOT", Said),
    ("EFAULT", Never("the memory is uphold's own")),
    ("EFBIG", Said),
    ("EINTR", Again),
    ("EINVAL", Said),
    ("EIO", Said),
    ("ENOSPC", Said),
    ("EPERM", Said),
    ("EPIPE", Said),
];

/// The same of a client of the control API. It hears of it; nobody else has lost anything.
const WRITE_TO_A_CLIENT: Errors = &[
    ("EAGAIN", Never("there is room for an answer, and for what is followed epoll tells when there is")),
    ("EBADF", Never("the descriptor is uphold's own, and open")),
    ("EDESTADDRREQ", Never("of datagram sockets")),
    ("EDQUOT", Never("of files")),
    ("EFAULT", Never("the memory is uphold's own")),
    ("EFBIG", Never("of files")),
    ("EINTR", Done),
    ("EINVAL", Done),
    ("EIO", Never("of files")),
    ("ENOSPC", Never("of files")),
    ("EPERM", Done),
    ("EPIPE", Done),
    // Of sockets.
    ("ECONNRESET", Done),
    ("ENOBUFS", Done),
    ("ENOMEM", Done),
];

/// accept(2).
const ACCEPT4: Errors = &[
    ("EAGAIN", Never("that nobody waits is what each last call answers, and no error")),
    ("EBADF", Never("the socket is uphold's own, and open")),
    ("ECONNABORTED", Said),
    ("EFAULT", Never("the memory is uphold's own")),
    ("EINTR", Said),
    ("EINVAL", Never("the socket listens")),
    ("EMFILE", Said),
    ("ENFILE", Said),
    ("ENOBUFS", Said),
    ("ENOMEM", Said),
    ("ENOTSOCK", Never("it is a socket")),
    ("EOPNOTSUPP", Never("it is a stream")),
    ("EPERM", Said),
    ("EPROTO", Said),
    // What various kernels return beside these, as the page has it.
    ("ENOSR", Said),
    ("ESOCKTNOSUPPORT", Said),
    ("EPROTONOSUPPORT", Said),
    ("ETIMEDOUT", Said),
];

/// epoll_wait(2).
const EPOLL_WAIT: Errors = &[
    ("EBADF", Never("the descriptor is uphold's own, and open")),
    ("EFAULT", Never("the memory is uphold's own")),
    ("EINTR", Again),
    ("EINVAL", Never("it is an epoll descriptor, and there is room for events")),
];

/// rename(2), and EIO, which any disk may answer.
const RENAME: Errors = &[
    ("EACCES", Said),
    ("EBUSY", Said),
    ("EDQUOT", Said),
    ("EEXIST", Never("of directories, and uphold renames files")),
    ("EFAULT", Never("the paths are uphold's own")),
    ("EINVAL", Never("of directories, and uphold renames files")),
    ("EIO", Said),
    ("EISDIR", Said),
    ("ELOOP", Said),
    ("EMLINK", Said),
    ("ENAMETOOLONG", Said),
    ("ENOENT", Said),
    ("ENOMEM", Said),
    ("ENOSPC", Said),
    ("ENOTDIR", Said),
    ("ENOTEMPTY", Never("of directories, and uphold renames files")),
    ("EPERM", Said),
    ("EROFS", Said),
    ("EXDEV", Said),
];

/// Each of these errors at each of the times, and said at some of them; after each error, the next uphold takes over.
fn bear(bench: &mut Bench, case: &Case<'_>, errors: Errors, times: &[&str], said_at: &[&str]) {
    for (errno, then) in errors {
        let (said, unsaid): (&[&str], &[&str]) = match then {
            Said => (case.said, &[]),
            Done | Again => (&[], case.said),
            Never(why) => {
                eprintln!("{} with {errno} is not provoked: {why}", case.call);
                continue;
            }
        };
        for when in times {
            let when = if matches!((then, *when), (Again, "1+")) { &MANY } else { when };
            let said = if said_at.contains(when) { said } else { &[] };
            bench.bears(&Case { errno, when, said, unsaid, ..*case });
        }
        bench.outlives_it(&format!("{} with {errno}", case.call));
    }
}

const ANY: Case<'_> = Case {
    call: "",
    beside: &[],
    errno: "",
    when: "",
    files: &[],
    threads: &[],
    said: &[],
    unsaid: &[],
    further: &[],
    follow: false,
    console: false,
};

fn all_of(case: &Case<'_>, errors: Errors) {
    let Some(mut bench) = Bench::new() else { return };
    bear(&mut bench, case, errors, &TIMES, &TIMES);
    bench.has_all_lines();
}

#[test]
fn clone3_may_fail() {
    all_of(&Case { call: "clone3", threads: &["spawn"], said: &["SpawnFailed"], ..ANY }, CLONE3);
}

#[test]
fn clone_may_fail() {
    let beside = &["clone3:error=ENOSYS:when=1+"];
    all_of(&Case { call: "clone", beside, threads: &["spawn"], said: &["SpawnFailed"], ..ANY }, CLONE);
}

#[test]
fn execve_may_fail() {
    let Some(mut bench) = Bench::new() else { return };
    let (further, said) = (&["POST /v1/units/tenth/restart"], &["SpawnFailed"]);
    let case = Case { call: "execve", follow: true, threads: &[CHILD], further, said, ..ANY };
    bear(&mut bench, &case, EXECVE, &TIMES, &TIMES);
    bear(&mut bench, &case, EXECVE_OF_ONE_IN_PATH, &TIMES, &["1", "10", "1+"]);
    bench.has_all_lines();
}

#[test]
fn openat_may_fail() {
    let (threads, further) = (&["spawn", "logs", "uphold-disk"], &["POST /v1/daemon-reload"]);
    let said = &["SpawnFailed", "cannot write the log", "nothing was reloaded"];
    let Some(mut bench) = Bench::new() else { return };
    // Not every open is needed for what was asked, and some are tried again; but all together are.
    bear(&mut bench, &Case { call: "openat", threads, said, further, ..ANY }, OPENAT, &TIMES, &["1+"]);
    let said = &["SpawnFailed", "cannot write the log"];
    let case = Case { call: "openat", threads, said, further, ..ANY };
    bear(&mut bench, &case, OPENAT_INTERRUPTED, &TIMES, &[]);
    bench.has_all_lines();
}

#[test]
fn write_to_a_log_may_fail() {
    let (files, said) = (&["log/LOG/stdout.log"], &["cannot write the log"]);
    all_of(&Case { call: "write", files, threads: &["logs"], said, ..ANY }, WRITE);
}

#[test]
fn write_to_the_state_may_fail() {
    let Some(mut bench) = Bench::new() else { return };
    let files = &["run/private/state", "run/private/state.new"];
    let said = &["cannot record the state"];
    // Where it cannot be written on, it is made anew: that does it, unless it fails, too.
    bear(
        &mut bench,
        &Case { call: "pwrite64", files, threads: &["uphold"], said, ..ANY },
        WRITE,
        &TIMES,
        &["1+"],
    );
    bench.has_all_lines();
}

#[test]
fn write_to_its_own_log_may_fail() {
    let case = Case { call: "write", files: &["stderr"], threads: &["uphold-voice"], ..ANY };
    all_of(&case, WRITE_TO_A_STREAM);
}

#[test]
fn write_to_its_own_output_may_fail() {
    let said = &["LogWriteFailed"];
    let case =
        Case { call: "write", files: &["stdout"], console: true, threads: &["log-inherit"], said, ..ANY };
    let Some(mut bench) = Bench::new() else { return };
    // There is one such stream only, and it rests for a second after each: one error for all times.
    bear(&mut bench, &case, WRITE_TO_A_STREAM, &["1"], &TIMES);
    bear(&mut bench, &case, &[("ENOSPC", Said)], &["2", "10", "1+"], &TIMES);
    bench.has_all_lines();
}

#[test]
fn write_to_a_client_may_fail() {
    all_of(&Case { call: "writev", threads: &["uphold"], ..ANY }, WRITE_TO_A_CLIENT);
}

#[test]
fn accept4_may_fail() {
    let said = &["cannot accept a client"];
    all_of(&Case { call: "accept4", threads: &["uphold"], said, ..ANY }, ACCEPT4);
}

#[test]
fn epoll_wait_may_fail() {
    all_of(&Case { call: "epoll_wait", threads: &["uphold", "logs"], ..ANY }, EPOLL_WAIT);
}

#[test]
fn rename_of_a_log_may_fail() {
    all_of(&Case { call: "rename", threads: &["logs"], said: &["cannot rotate the log"], ..ANY }, RENAME);
}

#[test]
fn rename_of_the_state_may_fail() {
    // It is made anew, with two writes, when it cannot be written on.
    let beside = &["pwrite64:error=ENOSPC:when=1+3"];
    let files = &["run/private/state", "run/private/state.new"];
    let said = &["cannot record the state"];
    all_of(&Case { call: "rename", beside, files, threads: &["uphold"], said, ..ANY }, RENAME);
}

#[test]
fn what_was_answered_while_the_state_could_not_be_written_is_on_record_once_it_can() {
    let Some(bench) = Bench::new() else { return };
    let mut uphold = bench.uphold;
    let files = ["run/private/state", "run/private/state.new"].map(|file| uphold.path(file));
    let fault = Fault::on(&uphold, &["pwrite64:error=ENOSPC:when=1+".to_owned()], &files, false);
    assert_eq!(uphold.http("POST /v1/units/op/stop?wait=true").map(|(status, _)| status), Some(200));
    drop(fault);
    // Nothing else happens.
    uphold.until_said("the state is recorded again");
    uphold.kill().again();
    assert_eq!(uphold.view("op")["reason"], "StoppedByOperator");
    assert_eq!(uphold.state("op"), "inactive");
}
