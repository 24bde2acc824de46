//! What the next uphold has to know of each run and cannot be told in time: which process it is, and how it
//! ended. It stands in a mapped file, so that neither a kill at any moment nor a full disk comes between.
//!
//! ```text
//! header | slot | slot | …      64 bytes each
//! ```
//!
//! The kernel itself writes a child's pid here before it lets the child run (CLONE_PARENT_SETTID), and the child
//! when it started, before its exec. How a run ended is written before its process is reaped. A slot is free once
//! nobody needs it.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};

use super::inherited::Inherited;
use super::mapped::{Mapped, Place};
use super::{memory, sys};
use crate::engine::{Exit, Run};
use crate::file_id::FileId;
use crate::unit::Signal;

/// Slots of a file that is new, its header among them.
const FIRST: usize = 256;
/// And at most.
const MOST: usize = 1 << 20;
/// `upholds` and a version.
const MAGIC: u64 = u64::from_le_bytes(*b"upholds1");

/// Its name.
pub(super) const FILE: &str = "runs";

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
    _unused: AtomicU32,
    /// What the child has stored of itself before its exec: its start and the lowest bits of its pid ([`PID`]), so
    /// that what an older uphold leaves standing here is nobody else's. 0: nothing; it could not look, or an older
    /// uphold has made it.
    pub(super) early: AtomicU64,
    /// The uphold that has seen the main process alive last, by its pid and start ([`paired`]): the image that goes
    /// on in its place goes by what it saw. 0: none did.
    seen: AtomicU64,
    _rest: AtomicU64,
}

/// Bits for a pid: no kernel gives out more (PID_MAX_LIMIT).
const PID: u32 = 22;

/// A start and the pid that it is of, in one word, so that neither is ever there without the other.
pub(super) fn paired(pid: i32, start: u64) -> u64 {
    start << PID | u64::from(pid.cast_unsigned()) & ((1 << PID) - 1)
}

/// The pid and the start in such a word.
pub(super) fn unpaired(word: u64) -> (i32, u64) {
    (((word & ((1 << PID) - 1)) as u32).cast_signed(), word >> PID)
}

/// The start of this pid that uphold has stored, else the one that is paired with it.
fn either(pid: i32, start: u64, early: u64) -> u64 {
    if start == 0 && early == paired(pid, early >> PID) { early >> PID } else { start }
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
    let Ok(bytes) = sys::read_file(&private.join(FILE)) else { return Vec::new() };
    let (slots, _): (&[Bytes], _) = bytes.as_chunks();
    let records = slots.iter().skip(1).map(glimpse);
    records.filter(|record| record.run.0 != 0 && record.pid > 0).collect()
}

/// The processes that the slots in a private directory tell of, each by its pid and its start.
pub(super) fn peek_processes(private: &Path) -> Vec<(i32, u64)> {
    let Ok(bytes) = sys::read_file(&private.join(FILE)) else { return Vec::new() };
    let (slots, _): (&[Bytes], _) = bytes.as_chunks();
    let process = |slot: &Bytes| {
        let Record { pid, start, .. } = glimpse(slot);
        (pid, either(pid, start, early(slot)))
    };
    slots.iter().skip(1).map(process).filter(|(pid, start)| *pid > 0 && *start != 0).collect()
}

/// These had no process that executed its command: as if none had been made. For who has the lock and does not
/// have the slots yet.
pub(super) fn unbear(private: &Path, unborn: &[Record]) -> io::Result<()> {
    if unborn.is_empty() {
        return Ok(());
    }
    let file = File::options().read(true).write(true).open(private.join(FILE))?;
    let bytes = sys::read_file(&private.join(FILE))?;
    let (slots, _): (&[Bytes], _) = bytes.as_chunks();
    for (at, record) in slots.iter().map(glimpse).enumerate().skip(1) {
        if unborn.iter().any(|one| (one.run, one.pid) == (record.run, record.pid)) {
            let place = at * size_of::<Slot>() + std::mem::offset_of!(Slot, pid);
            file.write_all_at(&0_i32.to_ne_bytes(), place as u64)?;
        }
    }
    Ok(())
}

/// The bytes of a slot.
type Bytes = [u8; size_of::<Slot>()];

fn number_at(slot: &Bytes, at: usize) -> u64 {
    slot.get(at..at + 8).and_then(|word| word.try_into().ok()).map_or(0, u64::from_ne_bytes)
}

/// What the child has stored of itself, as it stands in the bytes of a slot.
fn early(slot: &Bytes) -> u64 {
    number_at(slot, std::mem::offset_of!(Slot, early))
}

/// Run, pid, start and uid as they stand in the bytes of a slot.
fn glimpse(slot: &Bytes) -> Record {
    let number = |at: usize| number_at(slot, at);
    let half =
        |at: usize| slot.get(at..at + 4).and_then(|word| word.try_into().ok()).map_or(0, u32::from_ne_bytes);
    Record {
        run: Run(number(std::mem::offset_of!(Slot, run))),
        pid: half(std::mem::offset_of!(Slot, pid)).cast_signed(),
        start: number(std::mem::offset_of!(Slot, start)),
        uid: half(std::mem::offset_of!(Slot, uid)),
        exit: None,
    }
}

/// The token of the slots in a private directory, as text; `None`: there are none.
pub(super) fn token(private: &Path) -> Option<String> {
    let mut header = [0; size_of::<Slot>()];
    sys::open_file(&private.join(FILE)).and_then(|file| file.read_exact_at(&mut header, 0)).ok()?;
    let Record { run, start, .. } = glimpse(&header);
    (run.0 == MAGIC).then(|| format!("{start:016x}"))
}

/// The slots in a private directory are of this token, for all that can be known.
fn may_be_of(private: &Path, token: u64) -> bool {
    let mut header = [0; size_of::<Slot>()];
    match sys::open_file(&private.join(FILE)).and_then(|file| file.read_exact_at(&mut header, 0)) {
        Ok(()) => {
            let Record { run, start, .. } = glimpse(&header);
            (run.0, start) == (MAGIC, token)
        }
        Err(error) if error.raw_os_error() == Some(nix::libc::ENXIO) => false,
        Err(error) => !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof),
    }
}

/// All slots. Lives on the deciding thread, but for single slots.
#[derive(Debug)]
pub struct Slots {
    /// `None`: nothing is kept.
    file: Option<Arc<File>>,
    chunks: Vec<&'static [Slot]>,
    /// Where a file is mapped, once for each chunk, and which: they differ after a replacement that has failed.
    places: Vec<(Place, Arc<File>)>,
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
            let mut slots = Slots { file: Some(Arc::new(file)), ..Slots::none() };
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
        let (chunks, places, free, used) = (Vec::new(), Vec::new(), Vec::new(), HashMap::new());
        Slots { file: None, chunks, places, length: 0, free, used }
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
        self.places.push((mapped.place(), file.clone()));
        // SAFETY: all fields of a slot are atomics of plain numbers.
        let slots = unsafe { mapped.forever::<Slot>(self.length * size_of::<Slot>(), length - self.length) };
        self.chunks.push(slots);
        self.length = length;
        Ok(())
    }

    /// They stand in a file in memory, or nowhere.
    pub(super) fn are_in_memory(&self) -> bool {
        self.file.as_ref().is_none_or(|file| memory::name_of(file.as_raw_fd()).is_some())
    }

    /// They stand in the file that is in the private directory.
    pub(super) fn are_in(&self, private: &Path) -> bool {
        let ours = self.file.as_deref().and_then(FileId::of);
        ours.is_some_and(|ours| ours.is_at(&private.join(FILE)))
    }

    /// Somebody has removed the file: a new one takes its place, in the directory and under every slot. What a
    /// start in flight stores meanwhile is in the new one, too.
    pub(super) fn renew(&mut self, private: &Path) -> io::Result<()> {
        if self.file.is_none() {
            return Ok(());
        }
        let draft = private.join("runs.new");
        // It may be the old one, if that could not be given its name: nothing under a slot is ever cut short.
        match std::fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut options = File::options();
        let new = options.read(true).write(true).create_new(true).mode(0o600).open(&draft)?;
        // All of it is allocated before anything depends on it.
        drop(Mapped::of(&new, self.length * size_of::<Slot>())?);
        let new = Arc::new(new);
        let mut offset = 0;
        for (slots, (place, file)) in self.chunks.iter().zip(&mut self.places) {
            let length = size_of_val(*slots);
            let (mut before, mut after) = (vec![0; length], vec![0; length]);
            file.read_exact_at(&mut before, offset)?;
            new.write_all_at(&before, offset)?;
            // SAFETY: the mappings of slots are there for good, and slots are atomics, shared.
            unsafe { place.put(&new) }?;
            let old = std::mem::replace(file, new.clone());
            old.read_exact_at(&mut after, offset)?;
            let ((before, _), (after, _)) = (before.as_chunks(), after.as_chunks());
            for (slot, (before, after)) in slots.iter().zip(before.iter().zip(after)) {
                slot.catch_up(before, after);
            }
            offset += length as u64;
        }
        self.file = Some(new);
        std::fs::rename(draft, private.join(FILE))
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
        self.seen.store(0, SeqCst);
        self.early.store(0, SeqCst);
    }

    /// What spawning threads have changed in the file before, after it was read and before this one took its
    /// place, is so here, too: all else is stored by this thread.
    fn catch_up(&self, before: &Bytes, after: &Bytes) {
        let word = |name: usize| (number_at(before, name), number_at(after, name));
        let (early, seen) = (word(std::mem::offset_of!(Slot, early)), word(std::mem::offset_of!(Slot, seen)));
        let (before, after) = (glimpse(before), glimpse(after));
        // What differs here by now was stored later still.
        let _ = self.pid.compare_exchange(before.pid, after.pid, SeqCst, SeqCst);
        let _ = self.uid.compare_exchange(before.uid, after.uid, SeqCst, SeqCst);
        let _ = self.start.compare_exchange(before.start, after.start, SeqCst, SeqCst);
        let _ = self.early.compare_exchange(early.0, early.1, SeqCst, SeqCst);
        let _ = self.seen.compare_exchange(seen.0, seen.1, SeqCst, SeqCst);
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

    /// When the process of this pid started, whoever has stored that: uphold, or itself before that; else 0.
    pub(super) fn started(&self, pid: i32) -> u64 {
        either(pid, self.start.load(SeqCst), self.early.load(SeqCst))
    }

    /// This uphold's process runs, and this tells it from a later one of its pid.
    pub(super) fn born(&self, pid: i32, start: u64, uid: u32) {
        self.pid.store(pid, SeqCst);
        self.uid.store(uid, SeqCst);
        self.start.store(start, SeqCst);
        self.see();
    }

    /// The process has ended.
    pub(super) fn ended(&self, exit: Exit) {
        self.exit.store(number(exit), SeqCst);
    }

    /// The signal of a stop was sent.
    pub(super) fn tell(&self) {
        self.told.store(1, SeqCst);
    }

    /// Whether it was.
    pub(super) fn is_told(&self) -> bool {
        self.told.load(SeqCst) != 0
    }

    /// This uphold sees the main process alive: its number is nobody else's meanwhile.
    pub(super) fn see(&self) {
        self.seen.store(this_uphold(), SeqCst);
    }

    #[cfg(test)]
    pub(super) fn seen_by_another(&self) {
        self.seen.store(paired(1, 1), SeqCst);
    }

    /// Whether this uphold did, or an image before it in the same process.
    pub(super) fn is_seen(&self) -> bool {
        let seen = self.seen.load(SeqCst);
        seen != 0 && seen == this_uphold()
    }
}

/// This process, over all its images; 0: nobody can tell.
fn this_uphold() -> u64 {
    static THIS: OnceLock<u64> = OnceLock::new();
    *THIS.get_or_init(|| match super::own_start() {
        0 => 0,
        start => paired(std::process::id().cast_signed(), start),
    })
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
            assert!(!slot.is_told());
            slot.tell();
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
        let slot = slots.get(Run(5)).unwrap();
        assert!(slot.is_told() && slot.is_seen());
        slot.seen_by_another();
        assert!(!slot.is_seen());
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
    fn a_file_that_was_removed_is_replaced_under_those_who_write_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut slots = opened(dir.path(), 7);
        let taken: Vec<_> = (1..=600).map(|run| slots.take(Run(run)).unwrap().unwrap()).collect();
        assert!(slots.are_in(dir.path()));
        let pids = |path: &Path| peek(path).into_iter().map(|record| (record.run.0, record.pid));
        let (half, rest) = taken.split_at(300);
        let born = |slots: &[&Slot], add: i32| {
            for slot in slots {
                slot.pid.store(slot.run.load(SeqCst) as i32 + add, SeqCst);
            }
        };
        born(half, 1000);
        std::fs::remove_file(dir.path().join("runs")).unwrap();
        assert!(!slots.are_in(dir.path()));
        // Others are born all the while.
        std::thread::scope(|scope| {
            scope.spawn(|| born(rest, 1000));
            slots.renew(dir.path()).unwrap();
        });
        assert!(slots.are_in(dir.path()));
        let all: Vec<(u64, i32)> = pids(dir.path()).collect();
        assert_eq!(all, (1..=600).map(|run| (run, run as i32 + 1000)).collect::<Vec<_>>());
        // And later, and in slots that are not there yet.
        born(&taken, 2000);
        slots.take(Run(601)).unwrap().unwrap().pid.store(1, SeqCst);
        drop(slots);
        let slots = opened(dir.path(), 7);
        assert_eq!(slots.get(Run(600)).unwrap().record().pid, 2600);
        assert_eq!((slots.get(Run(1)).unwrap().record().pid, slots.runs().len()), (2001, 601));
    }

    #[test]
    fn what_is_stored_after_a_replacement_that_failed_half_way_outlives_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let mut slots = opened(dir.path(), 7);
        let taken: Vec<_> = (1..=600).map(|run| slots.take(Run(run)).unwrap().unwrap()).collect();
        std::fs::remove_file(dir.path().join("runs")).unwrap();
        let whole = std::mem::replace(&mut slots.places[1].0, super::super::mapped::tests::nowhere());
        assert!(slots.renew(dir.path()).is_err());
        assert!(!slots.are_in(dir.path()));
        for slot in &taken {
            let run = slot.run.load(SeqCst);
            slot.born(run as i32 + 1000, run, 33);
            slot.ended(Exit::Code(3));
        }
        slots.places[1].0 = whole;
        slots.renew(dir.path()).unwrap();
        assert!(slots.are_in(dir.path()));
        drop(slots);
        let slots = opened(dir.path(), 7);
        for run in 1..=600 {
            let record = slots.get(Run(run)).unwrap().record();
            let expected = (run as i32 + 1000, run, 33, Some(Exit::Code(3)));
            assert_eq!((record.pid, record.start, record.uid, record.exit), expected);
        }
    }

    #[test]
    fn what_a_start_has_stored_in_the_file_before_is_not_lost() {
        let slot = |pid: i32, start: u64| -> Bytes {
            let mut bytes = [0; size_of::<Slot>()];
            bytes[std::mem::offset_of!(Slot, pid)..][..4].copy_from_slice(&pid.to_ne_bytes());
            bytes[std::mem::offset_of!(Slot, start)..][..8].copy_from_slice(&start.to_ne_bytes());
            bytes
        };
        let dir = tempfile::tempdir().unwrap();
        let mut slots = opened(dir.path(), 7);
        let ours = slots.take(Run(1)).unwrap().unwrap();
        ours.catch_up(&slot(0, 0), &slot(5, 50));
        assert_eq!((ours.record().pid, ours.record().start), (5, 50));
        // There is no child any more: that was stored here already.
        ours.pid.store(0, SeqCst);
        ours.catch_up(&slot(5, 50), &slot(5, 60));
        assert_eq!((ours.record().pid, ours.record().start), (0, 60));
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
