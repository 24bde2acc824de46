//! The pump killed at every point where it touches its notes. What a kill leaves is what was done up to
//! there: the notes, the files, and what still waits in the pipe.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::journal::{Journal, Phase};
use super::lines::MARKER;
use super::pump::{Pump, Turn};
use super::tests::make_fifo;
use super::unfinished::{Place, Unfinished};
use super::*;
use crate::unit::Output;

/// More lives than any of these tests needs.
const LIVES: usize = 50;

/// Notes that outlive their pump: as it ends they go back to where the next one finds them.
struct Notes {
    bytes: Vec<u8>,
    shelf: Arc<Mutex<Vec<u8>>>,
    /// Uses until the kill.
    left: usize,
    /// What stands in for the FIFO.
    pipe: UnixStream,
}

struct Killed;

impl Region for Notes {
    fn bytes(&mut self) -> &mut [u8] {
        self.left -= 1;
        if self.left == 0 {
            resume_unwind(Box::new(Killed));
        }
        &mut self.bytes
    }

    fn waiting(&self, pipe: BorrowedFd<'_>) -> io::Result<usize> {
        let waiting = |pipe: BorrowedFd<'_>| {
            // Any socket can be asked as if it were this one.
            match TcpStream::from(pipe.try_clone_to_owned()?).peek(&mut vec![0; 1 << 20]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
                waiting => waiting,
            }
        };
        waiting(pipe).or_else(|_| waiting(self.pipe.as_fd()))
    }
}

impl Drop for Notes {
    fn drop(&mut self) {
        *self.shelf.lock().unwrap() = std::mem::take(&mut self.bytes);
    }
}

/// One stream of one service, whose pumps come and go.
struct World {
    dir: TempDir,
    runtime: Runtime,
    shelf: Arc<Mutex<Vec<u8>>>,
    service: Option<UnixStream>,
    ours: UnixStream,
    logs: unit::Logs,
    lives: usize,
    /// A pump that is not killed ends in good order.
    ends_in_order: bool,
    /// The service ends under a pump that has read all there is.
    ends_heard: bool,
    /// Its pipe is no FIFO, and no directory is writable.
    nameless: bool,
    /// Who holds the FIFO open.
    _writer: File,
}

thread_local! {
    /// Holds a FIFO, to be linked from every world: making one is a process.
    static FIFO: TempDir = {
        let dir = tempfile::tempdir().unwrap();
        make_fifo(&dir.path().join("fifo"));
        dir
    };
}

thread_local! {
    /// Files in memory, as far as the pump cares.
    static MADE: RefCell<HashMap<String, File>> = RefCell::default();
}

fn make(name: &str) -> io::Result<File> {
    let file = tempfile::tempfile()?;
    MADE.with_borrow_mut(|made| made.insert(name.to_owned(), file.try_clone().unwrap()));
    Ok(file)
}

fn handed_on() -> HashMap<String, File> {
    MADE.with_borrow(|made| {
        made.iter().map(|(name, file)| (name.clone(), file.try_clone().unwrap())).collect()
    })
}

fn bare() -> unit::Logs {
    unit::Logs { timestamps: false, keep: 999, ..unit::Logs::default() }
}

impl World {
    fn new(logs: unit::Logs) -> World {
        let dir = tempfile::tempdir().unwrap();
        let (service, ours) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let fifo = dir.path().join("web.1.out");
        FIFO.with(|one| fs::hard_link(one.path().join("fifo"), &fifo)).unwrap();
        World {
            runtime: Builder::new_current_thread().enable_all().build().unwrap(),
            shelf: Arc::new(Mutex::new(vec![0; REGION])),
            service: Some(service),
            dir,
            ours,
            logs,
            lives: 0,
            ends_in_order: false,
            ends_heard: false,
            nameless: false,
            _writer: File::options().read(true).write(true).open(fifo).unwrap(),
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.service.as_mut().unwrap().write_all(bytes).unwrap();
    }

    /// Dropping it would be no end while a child of another test has it, too, until its exec.
    fn close(&mut self) {
        if let Some(service) = self.service.take() {
            service.shutdown(std::net::Shutdown::Write).unwrap();
        }
    }

    fn fifo(&self) -> PathBuf {
        self.dir.path().join("web.1.out")
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("web/stdout.log")
    }

    fn notes(&self, left: usize) -> Box<Notes> {
        let bytes = self.shelf.lock().unwrap().clone();
        Box::new(Notes { bytes, shelf: self.shelf.clone(), left, pipe: self.ours.try_clone().unwrap() })
    }

    /// A pump reads what there is, unless it is killed before its `left`th use of the notes; 0: never. Says
    /// whether it was.
    fn live(&mut self, left: usize) -> bool {
        let left = if left == 0 { usize::MAX } else { left };
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let _context = self.runtime.enter();
            let settings = Settings { dir: Some(self.dir.path().to_owned()), default: Output::File };
            let shared = Arc::new(Shared::default());
            let (notices, _heard) = mpsc::unbounded_channel();
            let (own, _reader) = UnixStream::pair().unwrap();
            let consoles = [own.try_clone().unwrap(), own]
                .map(|own| Console::new(own.into(), "uphold's own stdout", notices.clone(), None));
            let (dir, memory) = match self.nameless {
                true => (None, Some(Memory { handed_on: handed_on(), make })),
                false => (Some(self.dir.path().to_owned()), None),
            };
            let lasting = Lasting { dir, region: self.notes(left), memory, gate: None };
            let mut pump = Pump::new(Arc::new(settings), shared, notices, consoles, Some(lasting));
            pump.recover();
            let pipe = self.ours.try_clone().unwrap().into();
            let (instance, logs) = (Name::new("web").unwrap(), self.logs.clone());
            let begins = match self.lives {
                0 => Begins::Anew,
                _ if self.nameless => Begins::Seamlessly,
                _ => Begins::AfterAGap,
            };
            let path = (!self.nameless).then(|| self.fifo());
            let source =
                Source { instance, run: Run(1), stderr: false, pipe, path, logs, begins, room: None };
            if let Some((id, _)) = pump.open(source) {
                while matches!(pump.turn(id), Turn::Read) {}
                if self.ends_heard {
                    self.close();
                    while matches!(pump.turn(id), Turn::Read) {}
                }
            }
            if self.ends_in_order {
                pump.finish();
            }
        }));
        self.lives += 1;
        match outcome {
            Ok(()) => false,
            Err(panic) if panic.is::<Killed>() => true,
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Lives until the stream is at its end.
    fn end(&mut self) {
        self.close();
        for _ in 0..LIVES {
            if !self.live(0) && !self.fifo().exists() {
                return;
            }
        }
        panic!("no end comes");
    }

    /// The kill came within a write(2): takes so many of its bytes off again.
    fn tear(&mut self, bytes: u64) {
        let flight = Journal::new(Some(self.notes(usize::MAX)), 0).flight();
        let Some(flight) = flight.filter(|flight| flight.phase == Phase::Carrying) else { return };
        let (kept, _) = Unfinished::resume(Place::Path(self.dir.path().join("web.1.out.part")));
        let Some(place) = flight.place else { return };
        let written = rotate::find(&self.log(), place.id);
        // What came after the write tells that all of it was done.
        if kept.seq() == flight.intent().unwrap().seq || written != Some(self.log()) || !self.fifo().exists()
        {
            return;
        }
        let file = File::options().write(true).open(self.log()).unwrap();
        let (length, size) = (file.metadata().unwrap().len(), place.size.unwrap());
        file.set_len(length.saturating_sub(bytes).max(size)).unwrap();
    }

    /// All that was logged there, without stamps, markers, and what uphold says itself.
    fn said(&self, path: &Path) -> String {
        let numbers = (0..1000).rev().map(|number| rotate::rotated(path, number));
        let bytes: Vec<u8> = numbers.filter_map(|path| fs::read(path).ok()).flatten().collect();
        let mut text = Vec::new();
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (stamp, line) = stamp::split(line);
            assert_eq!(stamp.is_some(), self.logs.timestamps, "{}", String::from_utf8_lossy(line));
            if !line.starts_with(b"uphold: ") {
                text.extend_from_slice(line);
            }
        }
        String::from_utf8(text).unwrap().replace(&format!("{}\n", str::from_utf8(MARKER).unwrap()), "")
    }
}

/// Kills pumps at these uses of their notes, one after the other, each after another chunk was written while
/// there are any. Says which were killed.
///
/// With few files to keep, what is there is the end of all that was said.
fn act(logs: unit::Logs, chunks: &[&[u8]], kills: &[usize], tear: u64) -> Vec<bool> {
    let all = logs.keep >= 999;
    let mut world = World::new(logs);
    let mut killed = Vec::new();
    for at in 0..chunks.len().max(kills.len()) {
        if let Some(chunk) = chunks.get(at) {
            world.write(chunk);
        }
        if at + 1 >= chunks.len() {
            world.close();
        }
        let died = world.live(kills.get(at).copied().unwrap_or(0));
        if died {
            world.tear(tear);
        }
        killed.push(died);
    }
    world.end();
    let mut expected = String::from_utf8(chunks.concat()).unwrap();
    if !expected.ends_with('\n') {
        expected.push('\n');
    }
    let said = world.said(&world.log());
    let before = expected.strip_suffix(&said);
    let right = before.is_some_and(|before| before.is_empty() || !all && before.ends_with('\n'));
    assert!(right, "killed at {kills:?}, {tear} bytes torn: {said:?} instead of {expected:?}");
    let parts = fs::read_dir(world.dir.path()).unwrap().flatten();
    let parts: Vec<_> = parts.map(|entry| entry.file_name().into_string().unwrap()).collect();
    assert_eq!(parts, ["web"], "killed at {kills:?}");
    killed
}

const CHUNKS: [&[u8]; 3] = [b"one\n\ntwo and ha", b"lf\nthree\nfour\nfive\nsi", b"x\nseven\neig"];

#[test]
fn a_kill_at_any_point_loses_no_line_and_doubles_none() {
    let small = unit::Logs { max_size: 12, ..bare() };
    let stamped = unit::Logs { timestamps: true, ..small.clone() };
    let kept = |keep| unit::Logs { keep, ..small.clone() };
    let (none, one) = (kept(0), kept(1));
    let cut = unit::Logs { max_line: 3, ..bare() };
    let (a, b) = (vec![b'a'; 5_000], vec![b'b'; 9_000]);
    let c = [b"\n", &b[..]].concat();
    let long = [&a, &b, &c].map(Vec::as_slice);
    let keys = [bare(), none, one, small, stamped, cut].map(|logs| (logs, CHUNKS));
    for (logs, chunks) in keys.into_iter().chain([(bare(), long)]) {
        for tear in [0, 3] {
            for life in 0..CHUNKS.len() {
                let mut at = 1;
                loop {
                    let mut kills = vec![0; CHUNKS.len()];
                    kills[life] = at;
                    if !act(logs.clone(), &chunks, &kills, tear)[life] {
                        break;
                    }
                    at += 1;
                }
                assert!(at > 20, "only {at} points in life {life}");
            }
        }
    }
}

#[test]
fn a_kill_while_a_successor_makes_good_a_kill_is_no_different() {
    let logs = unit::Logs { max_size: 20, ..bare() };
    let mut first = 1;
    loop {
        let mut second = 1;
        loop {
            let killed = act(logs.clone(), &CHUNKS[..2], &[0, first, second, second / 2], 3);
            if !killed[1] {
                assert!(first > 20, "only {first} points");
                return;
            }
            if !killed[2] {
                break;
            }
            second += 1;
        }
        first += 1;
    }
}

#[test]
fn zeroes_that_were_read_are_told_from_none_by_what_waits() {
    for left in 1..60 {
        act(bare(), &[b"one", b"\0\0\0"], &[0, left], 0);
    }
}

#[test]
fn keys_that_change_after_a_kill_lose_nothing_and_double_nothing() {
    let other = |world: &World| world.dir.path().join("other");
    for left in 1..60 {
        let mut world = World::new(unit::Logs { max_size: 12, ..bare() });
        world.write(CHUNKS[0]);
        world.live(0);
        world.write(CHUNKS[1]);
        world.live(left);
        let stdout = Some(Output::Path(other(&world)));
        world.logs = unit::Logs { stdout, max_line: 4, ..bare() };
        world.write(CHUNKS[2]);
        world.close();
        world.live(0);
        world.end();
        let said = world.said(&world.log()) + &world.said(&other(&world));
        assert_eq!(said.as_bytes(), [CHUNKS.concat(), b"\n".to_vec()].concat(), "killed at {left}");
    }
}

#[test]
fn a_line_whose_beginning_could_not_be_kept_is_marked_and_the_others_are_whole() {
    for left in 1..60 {
        let mut world = World::new(bare());
        world.write(CHUNKS[0]);
        world.live(0);
        world.write(CHUNKS[1]);
        let killed = world.live(left);
        let flight = Journal::new(Some(world.notes(usize::MAX)), 0).flight().is_some();
        if !(killed && flight) {
            continue;
        }
        fs::remove_file(world.dir.path().join("web.1.out.part")).unwrap();
        world.write(CHUNKS[2]);
        world.close();
        world.live(0);
        world.end();
        let said = world.said(&world.log());
        let (begun, rest) = said.split_at("one\n\n".len());
        assert_eq!(begun, "one\n\n");
        let marked = ["two and half\n", "??????????lf\n", "lf\n"].iter().find_map(|l| rest.strip_prefix(l));
        assert!(
            matches!(
                marked,
                Some("three\nfour\nfive\nsix\nseven\neig\n" | "three\nfour\nfive\nx\nseven\neig\n")
            ),
            "killed at {left}: {said}"
        );
    }
}

#[test]
fn of_a_pipe_without_a_name_every_line_is_there_once_too() {
    for left in 1..120 {
        MADE.take();
        let mut world = World::new(bare());
        world.nameless = true;
        for (chunk, left) in CHUNKS.iter().zip([0, left, 0]) {
            world.write(chunk);
            world.live(left);
        }
        world.close();
        world.live(left);
        world.live(0);
        let said = world.said(&world.log());
        assert_eq!(said.as_bytes(), [CHUNKS.concat(), b"\n".to_vec()].concat(), "killed at {left}");
    }
}

#[test]
fn a_run_whose_last_writer_died_unheard_is_said_to_have_lost_what_it_wrote() {
    let mut world = World::new(bare());
    world.write(b"whole\nhalf");
    world.live(0);
    world.end();
    let text = fs::read_to_string(world.log()).unwrap();
    let said = "uphold: run 1 ended while no uphold ran: what it had written and nobody had read is lost";
    assert_eq!(text, format!("whole\nhalf\n{said}\n"));
}

#[test]
fn a_run_that_was_silent_until_it_ended_under_the_next_pump_has_lost_nothing() {
    let mut world = World::new(bare());
    world.write(b"whole\nhalf");
    world.live(0);
    world.ends_heard = true;
    world.live(0);
    assert!(!world.fifo().exists());
    assert_eq!(fs::read_to_string(world.log()).unwrap(), "whole\nhalf\n");
}

#[test]
fn an_unfinished_line_is_left_to_a_successor_and_is_a_piece_at_an_end_in_good_order() {
    for (ends_in_order, wanted) in [(false, "half\n"), (true, "ha …[continued]\nlf\n")] {
        let mut world = World::new(bare());
        world.ends_in_order = ends_in_order;
        world.write(b"ha");
        world.live(0);
        world.write(b"lf\n");
        world.live(0);
        assert_eq!(fs::read_to_string(world.log()).unwrap(), wanted);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn whatever_is_written_and_however_often_it_is_killed_every_line_is_there_once(
        chunks in prop::collection::vec("(\u{0}|[a-z]{0,30}\n|[a-zé]{0,20}){0,8}", 1..6),
        kills in prop::collection::vec(0_usize..120, 0..20),
        tear in 0_u64..40, max_line in 4_u64..60, max_size in 0_u64..100, timestamps in any::<bool>(),
    ) {
        let logs = unit::Logs { max_line, max_size, timestamps, ..bare() };
        // Zeroes alone may be taken for nothing while others wait behind them.
        let zeroes = |chunk: &&[u8]| chunk.iter().all(|byte| *byte == 0);
        let chunks = chunks.iter().map(|chunk| chunk.as_bytes()).map(|c| if zeroes(&c) { b"a" } else { c });
        let chunks: Vec<&[u8]> = chunks.collect();
        if chunks.concat().is_empty() {
            return Ok(());
        }
        act(logs, &chunks, &kills, tear);
    }
}
