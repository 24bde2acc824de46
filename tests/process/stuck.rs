//! A thread of uphold hangs in the kernel, where no signal reaches it: an exec would wait for it without end.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::libc::O_NONBLOCK;

use crate::dsl::*;
use crate::goes_on::until_image;

/// Where what changes file systems stands.
const SYSTEM: &str = "PATH=$PATH:/usr/sbin:/sbin";

/// A file system that is frozen, as who makes a backup of a disk does. It is thawed when this is dropped, and when
/// the test is killed.
struct Frozen(Child);

impl Frozen {
    fn new(dir: &Path) -> Frozen {
        let line = "trap '' HUP INT TERM; exec 3<\"$0\"; at=/proc/self/fd/3
            fsfreeze -f $at && echo frozen; read -r _; fsfreeze -u $at";
        let line = format!("{SYSTEM}; {line}");
        let mut command = Command::new("sh");
        command.arg("-c").arg(line).arg(dir).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut frozen = Frozen(command.spawn().unwrap());
        let mut said = String::new();
        BufReader::new(frozen.0.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "frozen\n");
        frozen
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// Is asked for an upgrade: why there is none. Were there one, nobody would answer.
fn refused(uphold: &Uphold) -> String {
    let answer = uphold.asked("POST /v1/upgrade");
    assert!(matches!(answer, Ok((409, _))), "{answer:?}");
    answer.unwrap().1
}

/// A thread of this name is in this state.
fn is(uphold: &Uphold, name: &str, state: char) -> bool {
    let tasks = fs::read_dir(format!("/proc/{}/task", uphold.pid())).unwrap().flatten();
    tasks
        .filter_map(|task| fs::read_to_string(task.path().join("stat")).ok())
        .any(|stat| stat.contains(&format!(" ({name}) {state} ")))
}

#[test]
fn an_upgrade_while_the_file_system_of_the_logs_is_frozen_is_refused_and_done_after_that() {
    let tools = ["mkfs.ext4", "fsfreeze"].into_iter().all(have);
    if !is_root() || !tools || !Path::new("/dev/loop-control").exists() {
        return skip("only root can freeze a file system, with e2fsprogs, util-linux and a loop device");
    }
    let uphold = Uphold::new();
    let (image, log, fifo) = (uphold.path("image"), uphold.path("log"), uphold.path("in"));
    File::create(&image).unwrap().set_len(16 << 20).unwrap();
    fs::create_dir(&log).unwrap();
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let echoing = format!("command = [\"sh\", \"-c\", \"exec cat <>{}\"]\n", fifo.display());
    let (made, at) = (image.display(), log.display());
    let mount = format!("{SYSTEM}; mkfs.ext4 -q {made}; mount -o loop {made} {at}");
    let uphold = uphold.after_mounting(&mount).unit("web", &echoing).start();
    let pid = uphold.until("web", "running").main_pid("web");
    let tell = |line: &str| writeln!(File::options().write(true).open(&fifo).unwrap(), "{line}").unwrap();
    let says = |uphold: &Uphold, line: &str| uphold.ctl(&["logs", "web"]).1.contains(line);
    tell("one");
    uphold.eventually("it has said it", |uphold| says(uphold, "one"));
    let root = format!("/proc/{}/root{}", uphold.pid(), log.display());
    let frozen = Frozen::new(Path::new(&root));
    tell("two");
    uphold.eventually("the write hangs", |uphold| is(uphold, "logs", 'D'));
    for _ in 0..2 {
        let why = refused(&uphold);
        assert!(why.contains("not upgraded: thread logs hangs in the kernel"), "{why}");
    }
    until_image(&uphold, 1);
    uphold.until_own_event("UpgradeFailed not upgraded: thread logs hangs in the kernel (state D, in ");
    drop(frozen);
    uphold.eventually("it is written", |uphold| says(uphold, "two"));
    let (code, _, err) = uphold.ctl(&["upgrade"]);
    assert_eq!(code, 0, "{err}");
    until_image(&uphold, 2);
    assert_eq!(uphold.main_pid("web"), pid);
}

/// A FUSE that answers nothing but its mounting.
struct Silent(File);

impl Silent {
    /// Once it is mounted.
    fn begins(mut file: File) -> Silent {
        let mut request = [0; 1 << 17];
        let _ = file.read(&mut request).unwrap();
        // linux/fuse.h: fuse_out_header (length, error, the request's number), then fuse_init_out.
        let words: [u32; 4] = [80, 0, word(&request, 8), word(&request, 12)];
        let init: [u32; 16] = [7, 31, word(&request, 48), 0, 0, 1 << 16, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let answer: Vec<u8> = words.iter().chain(&init).flat_map(|word| word.to_ne_bytes()).collect();
        assert_eq!(file.write(&answer).unwrap(), answer.len());
        Silent(file)
    }

    /// There is a request, which waits for an answer from here on.
    fn takes(&self) -> bool {
        (&self.0).read(&mut [0; 1 << 17]).is_ok()
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

#[test]
fn an_upgrade_while_a_fuse_server_answers_nothing_is_refused_and_done_after_that() {
    let fuse = File::options().read(true).write(true).custom_flags(O_NONBLOCK).open("/dev/fuse");
    let (true, Ok(fuse)) = (is_root(), fuse) else {
        return skip("only root can mount, and there is no FUSE");
    };
    let uphold = Uphold::new();
    let at = uphold.path("fuse");
    fs::create_dir(&at).unwrap();
    let at = at.display();
    let late =
        format!("autostart = false\ncommand = [\"true\"]\nenvironment_files = [\"{at}/environment\"]\n");
    let options = "fd=0,rootmode=40000,user_id=0,group_id=0";
    let mount = format!("mount -i -t fuse -o {options} none {at}; exec </dev/null");
    let mut uphold = uphold.after_mounting(&mount).unit("late", &late);
    let mut command = uphold.command();
    command.stdin(fuse.try_clone().unwrap()).stderr(File::create(uphold.path("stderr")).unwrap());
    uphold.again_by(command);
    let fuse = Silent::begins(fuse);
    assert_eq!(uphold.ctl(&["start", "--no-wait", "late"]).0, 0);
    uphold.eventually("it asks for the file", |_| fuse.takes());
    let why = refused(&uphold);
    assert!(why.contains("not upgraded: thread spawn hangs in the kernel"), "{why}");
    until_image(&uphold, 1);
    drop(fuse);
    uphold.until_event("late", "environment");
    let (code, _, err) = uphold.ctl(&["upgrade"]);
    assert_eq!(code, 0, "{err}");
    until_image(&uphold, 2);
}
