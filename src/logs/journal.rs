//! What the pump is about to do, written where it outlives the pump: the batch in flight, from the moment
//! before it is read until its last byte is in its file and what it left unfinished is kept.
//!
//! There is one thread, so there is one batch. A successor works it out anew from the bytes that were read and
//! what is noted here: the batch is the same, byte for byte, and goes on where the file says that it ended.
//! Each note that counts is one byte, stored after what it vouches for.
//!
//! ```text
//! 0 phase | 1 which place counts | 2 form | 8 bytes read | 16, 64 places | 128 intent | 8192 the bytes
//! ```

use crate::file_id::FileId;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::atomic::{Ordering, compiler_fence};

/// Read from one pipe at a turn, so that a service that never stops writing does not keep others waiting.
pub(super) const TURN: usize = 64 << 10;

const PHASE: usize = 0;
const CURRENT: usize = 1;
const FORM: usize = 2;
const TAKEN: usize = 8;
const PLACES: [usize; 2] = [16, 64];
const INTENT: usize = 128;
const BYTES: usize = 8192;
/// What is written here, and how a batch follows from it. One of another form is not understood.
const THIS_FORM: u8 = 1;

/// Bytes that a [`Region`] has.
pub const REGION: usize = BYTES + TURN;

/// Memory that outlives uphold, and what has to be known to use it. It holds zeroes at first.
pub trait Region: Send {
    /// Its [`REGION`] bytes. A store counts as soon as it is made, and in the order of the program.
    fn bytes(&mut self) -> &mut [u8];
    /// How many bytes wait in this pipe; a read of so many gives so many.
    fn waiting(&self, pipe: BorrowedFd<'_>) -> io::Result<usize>;
}

/// What outlives uphold, so that a successor goes on where it was killed.
pub struct Lasting {
    /// Where FIFOs are, and beside each what it has said of a line that is not at its end; `None`: nothing is
    /// writable.
    pub dir: Option<PathBuf>,
    /// For the batch in flight.
    pub region: Box<dyn Region>,
    /// The same of pipes that have no name, which is in memory; `None`: it outlives nothing.
    pub memory: Option<Memory>,
    /// For what is on its way to a console; `None`: it may be lost with an image.
    pub gate: Option<&'static dyn Gate>,
}

/// Keeps an image of uphold from ending while something is in hand that would be gone with it.
pub trait Gate: Sync {
    /// Something is about to be taken in hand: waits while the image is ending.
    fn enter(&self);
    /// It is where it belongs.
    fn leave(&self);
}

/// Files in memory, which an image of uphold hands on to the next.
pub struct Memory {
    /// What the image before had of lines that were not at their ends: all files whose names begin with
    /// [`NAMELESS`].
    pub handed_on: HashMap<String, File>,
    /// Makes one of this name.
    pub make: Make,
}

/// Makes a file in memory of this name.
pub type Make = fn(&str) -> io::Result<File>;

/// What stands in the notes for the name of a pipe that has none begins so, and no FIFO's name does.
pub const NAMELESS: &str = ":";

/// Memory that outlives nothing.
struct Plain(Vec<u8>);

impl Region for Plain {
    fn bytes(&mut self) -> &mut [u8] {
        &mut self.0
    }

    fn waiting(&self, _pipe: BorrowedFd<'_>) -> io::Result<usize> {
        Ok(usize::MAX)
    }
}

/// How far a batch in flight is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// There is none.
    Idle = 0,
    /// So many bytes are asked for; they came or they did not.
    Reading = 1,
    /// They came.
    Carrying = 2,
}

/// Where a part of the batch is being written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Bytes of the batch before it, which are written.
    pub(super) done: u64,
    /// Its own.
    pub(super) length: u64,
    /// Of the file.
    pub(super) id: FileId,
    /// Of the file before it; `None`: no regular file, so nothing tells how much of it was written.
    pub(super) size: Option<u64>,
    /// A newline goes before it, to end what somebody has left.
    pub(super) torn: bool,
}

/// What makes a batch of what is read, and where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Intent<'a> {
    /// Of this batch; greater than those before it.
    pub(super) seq: u64,
    pub(super) run: u64,
    /// Bytes that are asked for,
    pub(super) asked: u64,
    /// of so many that wait.
    pub(super) waiting: u64,
    /// Bytes of the line that the batch begins within.
    pub(super) held: u64,
    /// See [`Ending`](super::lines::Ending).
    pub(super) ending: u64,
    pub(super) max_line: u64,
    pub(super) max_size: u64,
    pub(super) keep: u64,
    /// Which of uphold's own streams, where `path` is empty.
    pub(super) console: u64,
    /// The log file.
    pub(super) path: &'a [u8],
    /// The name of the FIFO, or what stands for it.
    pub(super) fifo: &'a [u8],
    pub(super) owner: &'a [u8],
    /// Before each line.
    pub(super) lead: &'a [u8],
}

const NUMBERS: usize = 10;

impl<'a> Intent<'a> {
    /// `None`: there is no room for names as long as these.
    fn write(&self, mut to: &mut [u8]) -> Option<()> {
        let Intent { seq, run, asked, waiting, held, ending, max_line, max_size, keep, console, .. } = *self;
        let numbers: [u64; NUMBERS] =
            [seq, run, asked, waiting, held, ending, max_line, max_size, keep, console];
        let mut put = |bytes: &[u8]| {
            let (place, rest) = std::mem::take(&mut to).split_at_mut_checked(bytes.len())?;
            place.copy_from_slice(bytes);
            to = rest;
            Some(())
        };
        for number in numbers {
            put(&number.to_le_bytes())?;
        }
        for text in [self.path, self.fifo, self.owner, self.lead] {
            put(&(text.len() as u64).to_le_bytes())?;
            put(text)?;
        }
        Some(())
    }

    fn read(mut from: &'a [u8]) -> Option<Intent<'a>> {
        let mut numbers = [0; NUMBERS];
        for number in &mut numbers {
            *number = take_number(&mut from)?;
        }
        let mut texts: [&[u8]; 4] = [&[]; 4];
        for text in &mut texts {
            let length = usize::try_from(take_number(&mut from)?).ok()?;
            (*text, from) = from.split_at_checked(length)?;
        }
        let [seq, run, asked, waiting, held, ending, max_line, max_size, keep, console] = numbers;
        let [path, fifo, owner, lead] = texts;
        let numbers = Intent {
            seq,
            run,
            asked,
            waiting,
            held,
            ending,
            max_line,
            max_size,
            keep,
            console,
            path,
            fifo,
            owner,
            lead,
        };
        Some(numbers)
    }
}

fn take_number(from: &mut &[u8]) -> Option<u64> {
    let (number, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(u64::from_le_bytes(*number))
}

/// A batch that a predecessor was killed in.
pub(super) struct Flight {
    pub(super) phase: Phase,
    /// Bytes read, once it is carrying.
    pub(super) taken: u64,
    /// The last part of it that was being written.
    pub(super) place: Option<Place>,
    head: Vec<u8>,
}

impl Flight {
    /// `None`: it was written by another uphold in another form.
    pub(super) fn intent(&self) -> Option<Intent<'_>> {
        if self.head[FORM] == THIS_FORM { Intent::read(&self.head[INTENT..]) } else { None }
    }
}

/// The notes of the pump, and the buffer that it reads into.
pub(super) struct Journal {
    region: Box<dyn Region>,
    seq: u64,
}

impl Journal {
    /// `now` is any number that grows from one uphold to the next.
    pub(super) fn new(region: Option<Box<dyn Region>>, now: u64) -> Journal {
        let mut region = region.unwrap_or_else(|| Box::new(Plain(vec![0; REGION])));
        if region.bytes().len() < REGION {
            region = Box::new(Plain(vec![0; REGION]));
        }
        let head = &region.bytes()[..BYTES];
        let last = Intent::read(&head[INTENT..]).filter(|_| head[FORM] == THIS_FORM);
        let last = last.map_or(0, |intent| intent.seq);
        Journal { region, seq: now.max(last) }
    }

    /// What was in flight when a predecessor was killed.
    pub(super) fn flight(&mut self) -> Option<Flight> {
        let head = self.region.bytes()[..BYTES].to_vec();
        let phase = match head[PHASE] {
            0 => return None,
            1 => Phase::Reading,
            _ => Phase::Carrying,
        };
        let place = self.place();
        Some(Flight { phase, taken: number(&head, TAKEN), place, head })
    }

    /// The region is gone by its name: goes on in this one. Nothing must be in flight.
    pub(super) fn move_to(&mut self, mut region: Box<dyn Region>) {
        if region.bytes().len() >= REGION {
            self.region = region;
            self.idle();
        }
    }

    /// How many bytes wait in this pipe.
    pub(super) fn waiting(&self, pipe: BorrowedFd<'_>) -> io::Result<usize> {
        self.region.waiting(pipe)
    }

    /// The bytes of the batch.
    pub(super) fn bytes(&mut self, count: usize) -> &mut [u8] {
        &mut self.region.bytes()[BYTES..][..count.min(TURN)]
    }

    /// The number of the batch in flight.
    pub(super) fn seq(&self) -> u64 {
        self.seq
    }

    /// A batch begins; its number is set here. With bytes to ask for, the buffer is zeroes where they will be,
    /// which is how a successor knows whether they came.
    pub(super) fn begin(&mut self, intent: Intent<'_>) {
        self.idle();
        self.seq = self.seq.wrapping_add(1);
        let asked = usize::try_from(intent.asked).unwrap_or(TURN);
        let phase = if asked == 0 { Phase::Carrying } else { Phase::Reading };
        self.bytes(asked).fill(0);
        self.store(CURRENT, 0);
        self.region.bytes()[TAKEN..][..8].fill(0);
        let intent = Intent { seq: self.seq, ..intent };
        if intent.write(&mut self.region.bytes()[INTENT..BYTES]).is_some() {
            self.store(FORM, THIS_FORM);
            self.store(PHASE, phase as u8);
        }
    }

    /// So many bytes came.
    pub(super) fn took(&mut self, count: usize) {
        if self.region.bytes()[PHASE] == Phase::Reading as u8 {
            self.region.bytes()[TAKEN..][..8].copy_from_slice(&(count as u64).to_le_bytes());
            self.store(PHASE, Phase::Carrying as u8);
        }
    }

    /// A part of the batch is about to be written.
    pub(super) fn put(&mut self, place: Place) {
        let next = if self.region.bytes()[CURRENT] == 1 { 2 } else { 1 };
        let Place { done, length, id, size, torn } = place;
        let flags = u64::from(torn) | u64::from(size.is_some()) << 1;
        let at = PLACES[next - 1];
        let numbers = [done, length, id.device, id.inode, size.unwrap_or(0), flags];
        for (number, at) in numbers.into_iter().zip((at..).step_by(8)) {
            self.region.bytes()[at..][..8].copy_from_slice(&number.to_le_bytes());
        }
        self.store(CURRENT, next as u8);
    }

    fn place(&mut self) -> Option<Place> {
        let bytes = self.region.bytes();
        let at = *PLACES.get(usize::from(bytes[CURRENT]).checked_sub(1)?)?;
        let at = |index: usize| number(bytes, at + 8 * index);
        let size = (at(5) & 2 != 0).then_some(at(4));
        Some(Place {
            done: at(0),
            length: at(1),
            id: FileId { device: at(2), inode: at(3) },
            size,
            torn: at(5) & 1 != 0,
        })
    }

    /// All of the batch is where it belongs.
    pub(super) fn idle(&mut self) {
        self.store(PHASE, Phase::Idle as u8);
    }

    /// Stores a byte after everything that was stored before, and before everything after.
    fn store(&mut self, at: usize, value: u8) {
        compiler_fence(Ordering::SeqCst);
        self.region.bytes()[at] = value;
        compiler_fence(Ordering::SeqCst);
    }
}

fn number(bytes: &[u8], at: usize) -> u64 {
    take_number(&mut &bytes[at..]).unwrap_or(0)
}
