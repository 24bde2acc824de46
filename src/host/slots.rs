//! What the next uphold has to know of each run and cannot be told in time: which process it is, and how it
//! ended. It stands in a mapped file, so that neither a kill at any moment nor a full disk comes between.
//!
//! ```text
//! header | slot | slot | …      64 bytes each
//! ```
//!
//! The kernel itself writes a child's pid here before it lets the child run (CLONE_PARENT_SETTID). How
//! a run ended is written before its process is reaped. A slot is free once nobody needs it.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering::SeqCst};

use super::inherited::Inherited;
use super::mapped::Mapped;
use crate::engine::{Exit, Run};
use crate::unit::Signal;

/// Slots of a file that is new, its header among them.
const FIRST: usize = 256;
/// And at most.
const MOST: usize = 1 << 20;
/// `upholds` and a version.
const MAGIC: u64 = u64::from_le_bytes(*b"upholds1");

/// Its name.
const FILE: &str = "runs";

/// One run.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Slot {
    /// Its number; 0: the slot is free. The header has [`MAGIC`] here.
    run: AtomicU64,
    /// Field 22 of /proc/PID/stat; 0: not known yet. The header has the token here.
    start: AtomicU64,
    /// Its main process; 0: there was none yet.
    pub(super) pid: AtomicI32,
    /// Who it runs as.
    uid: AtomicU32,
    /// How it ended: 0 for not yet, else a kind and a number.
    exit: AtomicU64,
    /// The signal of a stop was sent.
    told: AtomicU32,
    _rest: [AtomicU32; 6],
}

const _: () = assert!(size_of::<Slot>() == 64);

/// What a slot said when this uphold began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record {
    pub(super) run: Run,
    pub(super) pid: i32,
    pub(super) start: u64,
    pub(super) uid: u32,
    pub(super) exit: Option<Exit>,
}

/// What the slots in a private directory say of processes, for who does not have them.
pub(super) fn peek(private: &Path) -> Vec<Record> {
    let Ok(bytes) = std::fs::read(private.join(FILE)) else { return Vec::new() };
    let (slots, _) = bytes.as_chunks::<{ size_of::<Slot>() }>();
    let records = slots.iter().skip(1).map(glimpse);
    records.filter(|record| record.run.0 != 0 && record.pid > 0).collect()
}

/// These had no process that executed its command: as if none had been made. For who has the lock and does not
/// have the slots yet.
pub(super) fn unbear(private: &Path, unborn: &[Record]) -> io::Result<()> {
    if unborn.is_empty() {
        return Ok(());
    }
    let file = File::options().read(true).write(true).open(private.join(FILE))?;
    let bytes = std::fs::read(private.join(FILE))?;
    let (slots, _) = bytes.as_chunks::<{ size_of::<Slot>() }>();
    for (at, record) in slots.iter().map(glimpse).enumerate().skip(1) {
        if unborn.iter().any(|one| (one.run, one.pid) == (record.run, record.pid)) {
            let place = at * size_of::<Slot>() + std::mem::offset_of!(Slot, pid);
            file.write_all_at(&0_i32.to_ne_bytes(), place as u64)?;
        }
    }
    Ok(())
}

/// Run, pid and start as they stand in the bytes of a slot.
fn glimpse(slot: &[u8; size_of::<Slot>()]) -> Record {
    let number =
        |at: usize| slot.get(at..at + 8).and_then(|word| word.try_into().ok()).map_or(0, u64::from_ne_bytes);
    let pid = (number(std::mem::offset_of!(Slot, pid)) & 0xffff_ffff) as u32;
    Record {
        run: Run(number(std::mem::offset_of!(Slot, run))),
        pid: pid.cast_signed(),
        start: number(std::mem::offset_of!(Slot, start)),
        uid: 0,
        exit: None,
    }
}

/// The slots in a private directory are of this token, for all that can be known.
fn may_be_of(private: &Path, token: u64) -> bool {
    let mut header = [0; size_of::<Slot>()];
    match File::open(private.join(FILE)).and_then(|file| file.read_exact_at(&mut header, 0)) {
        Ok(()) => {
            let Record { run, start, .. } = glimpse(&header);
            (run.0, start) == (MAGIC, token)
        }
        Err(error) => !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof),
    }
}

/// All slots. Lives on the deciding thread, but for single slots.
#[derive(Debug)]
pub struct Slots {
    /// `None`: nothing is kept.
    file: Option<File>,
    chunks: Vec<&'static [Slot]>,
    length: usize,
    free: Vec<&'static Slot>,
    used: HashMap<Run, &'static Slot>,
}

impl Slots {
    /// Opens the file of this token, in the private directory or in memory, or begins it anew. An error beside it
    /// says why it is in memory although there is a directory. It is not if the file in the directory may be of this
    /// token: that names what lives.
    pub fn open(
        inherited: &Inherited,
        private: Option<&Path>,
        token: u64,
    ) -> io::Result<(Slots, Option<io::Error>)> {
        let opened = inherited.lasting(private, FILE, |file| {
            let there = usize::try_from(file.metadata()?.len()).unwrap_or(0) / size_of::<Slot>();
            let mut slots = Slots { file: Some(file), ..Slots::none() };
            slots.map(there.next_power_of_two().clamp(FIRST, MOST))?;
            slots.begin(token);
            Ok(slots)
        })?;
        match opened {
            (_, Some(error)) if private.is_some_and(|dir| may_be_of(dir, token)) => Err(error),
            opened => Ok(opened),
        }
    }

    /// Where nothing can be kept.
    pub fn none() -> Slots {
        Slots { file: None, chunks: Vec::new(), length: 0, free: Vec::new(), used: HashMap::new() }
    }

    /// Takes what stands there if it is of this token; else wipes it.
    fn begin(&mut self, token: u64) {
        let Some(header) = self.chunks.first().and_then(|chunk| chunk.first()) else { return };
        let ours = header.run.load(SeqCst) == MAGIC && header.start.load(SeqCst) == token;
        for slot in self.chunks.iter().copied().flatten().skip(1) {
            let run = slot.run.load(SeqCst);
            if ours && run != 0 {
                self.used.insert(Run(run), slot);
            } else {
                slot.clear();
                self.free.push(slot);
            }
        }
        self.free.reverse();
        header.start.store(token, SeqCst);
        header.run.store(MAGIC, SeqCst);
    }

    /// Maps the file up to so many slots.
    fn map(&mut self, length: usize) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let mapped = Mapped::of(file, length * size_of::<Slot>())?;
        // SAFETY: all fields of a slot are atomics of plain numbers.
        let slots = unsafe { mapped.forever::<Slot>(self.length * size_of::<Slot>(), length - self.length) };
        self.chunks.push(slots);
        self.length = length;
        Ok(())
    }

    /// A slot for a run that is about to be started. `None`: nothing is kept at all. An error says that there
    /// is no room: the run must not be started, for nobody would find it again.
    pub(super) fn take(&mut self, run: Run) -> io::Result<Option<&'static Slot>> {
        if self.file.is_none() {
            return Ok(None);
        }
        if self.free.is_empty() {
            let before = self.length;
            if before >= MOST {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.map(before * 2)?;
            self.free.extend(self.chunks.last().copied().into_iter().flatten().rev());
        }
        let Some(slot) = self.free.pop() else { return Err(io::ErrorKind::StorageFull.into()) };
        slot.clear();
        slot.run.store(run.0, SeqCst);
        self.used.insert(run, slot);
        Ok(Some(slot))
    }

    /// The slot of a run that has one.
    pub(super) fn get(&self, run: Run) -> Option<&'static Slot> {
        self.used.get(&run).copied()
    }

    /// Nobody needs the run's slot any more.
    pub(super) fn release(&mut self, run: Run) {
        if let Some(slot) = self.used.remove(&run) {
            slot.clear();
            self.free.push(slot);
        }
    }

    /// Every run that has a slot.
    pub(super) fn runs(&self) -> Vec<Run> {
        self.used.keys().copied().collect()
    }
}

impl Slot {
    fn clear(&self) {
        self.run.store(0, SeqCst);
        self.start.store(0, SeqCst);
        self.pid.store(0, SeqCst);
        self.uid.store(0, SeqCst);
        self.exit.store(0, SeqCst);
        self.told.store(0, SeqCst);
    }

    pub(super) fn record(&self) -> Record {
        Record {
            run: Run(self.run.load(SeqCst)),
            pid: self.pid.load(SeqCst),
            start: self.start.load(SeqCst),
            uid: self.uid.load(SeqCst),
            exit: exit(self.exit.load(SeqCst)),
        }
    }

    /// The process runs, and this tells it from a later one of its pid.
    pub(super) fn born(&self, pid: i32, start: u64, uid: u32) {
        self.pid.store(pid, SeqCst);
        self.uid.store(uid, SeqCst);
        self.start.store(start, SeqCst);
    }

    /// The process has ended.
    pub(super) fn ended(&self, exit: Exit) {
        self.exit.store(number(exit), SeqCst);
    }

    /// The signal of a stop is being sent; `false`: it was before.
    pub(super) fn tell(&self) -> bool {
        self.told.swap(1, SeqCst) == 0
    }
}

const CODE: u64 = 1 << 32;
const SIGNAL: u64 = 2 << 32;

fn number(exit: Exit) -> u64 {
    match exit {
        Exit::Code(code) => CODE | u64::from(code.cast_unsigned()),
        Exit::Signal { signal, oom: _ } => SIGNAL | u64::from(signal.number().cast_unsigned()),
        Exit::Unknown => 0,
    }
}

fn exit(number: u64) -> Option<Exit> {
    let low = (number & 0xffff_ffff) as u32;
    match number & !0xffff_ffff {
        CODE => Some(Exit::Code(low.cast_signed())),
        SIGNAL => Signal::from_number(low.cast_signed()).map(|signal| Exit::Signal { signal, oom: false }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(dir: &Path, token: u64) -> Slots {
        Slots::open(&Inherited::default(), Some(dir), token).unwrap().0
    }

    #[test]
    fn what_was_stored_is_there_for_the_next_who_opens_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut slots = opened(dir.path(), 7);
        for run in 1..=600 {
            let slot = slots.take(Run(run)).unwrap().unwrap();
            slot.born(run as i32, run * 10, 33);
            assert!(slot.tell() && !slot.tell());
        }
        slots.get(Run(5)).unwrap().ended(Exit::Signal { signal: Signal::KILL, oom: false });
        slots.release(Run(6));
        drop(slots);
        let slots = opened(dir.path(), 7);
        let mut runs = slots.runs();
        runs.sort_unstable();
        assert_eq!(runs.len(), 599);
        let record = slots.get(Run(5)).unwrap().record();
        assert_eq!((record.run, record.pid, record.start, record.uid), (Run(5), 5, 50, 33));
        assert_eq!(record.exit, Some(Exit::Signal { signal: Signal::KILL, oom: false }));
        assert!(!slots.get(Run(5)).unwrap().tell());
        assert_eq!(slots.get(Run(600)).unwrap().record().exit, None);
        assert!(slots.get(Run(6)).is_none());
        drop(slots);
        assert!(opened(dir.path(), 8).runs().is_empty());
    }

    #[test]
    fn what_was_never_born_is_as_if_it_had_not_been_made() {
        let dir = tempfile::tempdir().unwrap();
        let mut slots = opened(dir.path(), 7);
        for run in 1..=3 {
            slots.take(Run(run)).unwrap().unwrap().pid.store(run as i32 + 10, SeqCst);
        }
        drop(slots);
        let unborn: Vec<Record> =
            peek(dir.path()).into_iter().filter(|record| record.run == Run(2)).collect();
        unbear(dir.path(), &unborn).unwrap();
        let slots = opened(dir.path(), 7);
        let pid = |run| slots.get(Run(run)).unwrap().record().pid;
        assert_eq!([pid(1), pid(2), pid(3)], [11, 0, 13]);
    }

    #[test]
    fn slots_of_ones_own_are_never_left_for_others_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        drop(opened(dir.path(), 7));
        let runs = dir.path().join("runs");
        // A link is not opened.
        let whole = std::fs::read(&runs).unwrap();
        std::fs::remove_file(&runs).unwrap();
        std::fs::write(dir.path().join("there"), whole).unwrap();
        std::os::unix::fs::symlink("there", &runs).unwrap();
        let none = Inherited::default();
        assert!(Slots::open(&none, Some(dir.path()), 7).is_err());
        let (mut slots, lack) = Slots::open(&none, Some(dir.path()), 8).unwrap();
        assert!(lack.is_some() && slots.take(Run(1)).unwrap().is_some());
        assert!(Slots::open(&none, None, 7).unwrap().1.is_none());
        assert!(Slots::none().take(Run(1)).unwrap().is_none());
    }
}
