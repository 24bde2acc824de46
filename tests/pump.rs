//! The log pump under `kill -9`, as often as it can be started: every line is in the log, once.
//!
//! This program writes to a FIFO, and is also, as its own child, the process whose pump reads it.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test, without the usual harness")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::libc;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use uphold::engine::Run;
use uphold::host::Inherited;
use uphold::logs::Begins;
use uphold::{logs, unit};

const KILLS: usize = 200;
/// The most bytes that are written before a kill.
const BETWEEN: u64 = 600_000;
/// So that the log is rotated about once in two lives.
const MAX_SIZE: u64 = 500_000;

fn main() {
    let words: Vec<String> = std::env::args().collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [_, "--pump", dir, mode] => pump(Path::new(dir), mode == "first", mode == "last"),
        _ if words.iter().any(|word| word == "--list") => {}
        _ => lines_survive_kills(),
    }
}

/// Pumps until it is killed, or to the end of the stream.
fn pump(dir: &Path, first: bool, last: bool) {
    let settings = logs::Settings { dir: Some(dir.to_owned()), default: unit::Output::File };
    let region = Box::new(Inherited::default().notes(Some(dir), logs::REGION).unwrap().0);
    let lasting = logs::Lasting { dir: Some(dir.to_owned()), region, memory: None, gate: None };
    let (notices, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let pump = logs::Logs::start(settings, Some(lasting), notices).unwrap();
    let path = dir.join("web.1.out");
    let pipe = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
    pump.open(logs::Source {
        instance: unit::Name::new("web").unwrap(),
        run: Run(1),
        stderr: false,
        pipe: pipe.into(),
        path: Some(path),
        logs: unit::Logs { max_size: MAX_SIZE, keep: 9999, ..unit::Logs::default() },
        begins: if first { Begins::Anew } else { Begins::AfterAGap },
        room: None,
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    if last {
        // The pipe has a reader: the parent may end the stream, and says when it has.
        println!("open");
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        return runtime.block_on(pump.finish(Duration::from_secs(60)));
    }
    panic!("{:?}", runtime.block_on(heard.recv()));
}

fn start(dir: &Path, mode: &str) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("--pump").arg(dir).arg(mode);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

/// Numbers that are random enough (Knuth's MMIX).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

fn line(number: u64, dice: &mut Dice) -> Vec<u8> {
    let length = match dice.below(100) {
        0 => dice.below(60_000),
        1..10 => dice.below(5_000),
        _ => dice.below(200),
    };
    let mut line = format!("{number} ").into_bytes();
    let fill = if dice.below(20) == 0 { 0 } else { b'a' + (number % 26) as u8 };
    line.resize(line.len() + usize::try_from(length).unwrap(), fill);
    line.push(b'\n');
    line
}

fn lines_survive_kills() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("web.1.out");
    mkfifo(&fifo, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    let mut service = File::options().read(true).write(true).open(&fifo).unwrap();
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64;
    let mut dice = Dice(seed);
    let (mut all, mut written, mut number) = (Vec::new(), 0, 0);
    for life in 0..KILLS {
        let mut child = start(dir.path(), if life == 0 { "first" } else { "next" });
        // The pipe holds little of this: most of it is read, or waited for, before the kill.
        let until = written + usize::try_from(dice.below(BETWEEN)).unwrap();
        while written < until {
            while all.len() < written + 8192 {
                all.extend(line(number, &mut dice));
                number += 1;
            }
            let step = usize::try_from(1 + dice.below(8192)).unwrap();
            service.write_all(&all[written..written + step]).unwrap();
            written += step;
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    all.truncate(written);
    let mut child = start(dir.path(), "last");
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    drop(service);
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    assert!(!fifo.exists(), "the stream did not end");
    compare(&all, &dir.path().join("web"), seed);
    println!("test {number} lines survive {KILLS} kills of their pump ... ok");
}

fn compare(all: &[u8], dir: &Path, seed: u64) {
    let count = fs::read_dir(dir).unwrap().count();
    let name = |number| if number == 0 { "stdout.log".to_owned() } else { format!("stdout.log.{number}") };
    let text: Vec<u8> = (0..count).rev().flat_map(|n| fs::read(dir.join(name(n))).unwrap()).collect();
    let mut expected = all.split(|byte| *byte == b'\n');
    let mut whole = Vec::new();
    for found in text.split_inclusive(|byte| *byte == b'\n') {
        let found = found.get(28..).unwrap_or_default();
        match found.strip_suffix(" …[continued]\n".as_bytes()) {
            Some(piece) => whole.extend_from_slice(piece),
            None => {
                whole.extend_from_slice(found.strip_suffix(b"\n").unwrap());
                let wanted = expected.next();
                if wanted != Some(&whole[..]) {
                    let short =
                        |line: &[u8]| String::from_utf8_lossy(&line[..line.len().min(60)]).into_owned();
                    panic!("seed {seed}: {:?} instead of {:?}", short(&whole), wanted.map(short));
                }
                whole.clear();
            }
        }
    }
    let rest: Vec<_> = expected.filter(|line| !line.is_empty()).collect();
    assert!(rest.is_empty(), "seed {seed}: {} lines are missing at the end", rest.len());
}
