//! Where a reader of a log stands, as a text that means nothing to who keeps it and that outlives the reader,
//! rotations and uphold itself: who gives it back reads on exactly there.

use std::fs::File;
use std::os::unix::fs::FileExt;

use memchr::memrchr;

use crate::file_id::FileId;

/// So many bytes before a place are known again at most.
const TAIL: usize = 64;

/// A place in a file of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Of the file.
    pub(super) id: FileId,
    /// Bytes from the file's beginning.
    pub(super) offset: u64,
    /// Of the line before: an inode may have become another file's.
    pub(super) sum: u32,
}

/// A place in each stream of a log; `None` where there was no file yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position(pub(super) Vec<Option<Place>>);

impl Position {
    /// Reads what a [`Line`](super::Line) had. `None`: it is no position.
    pub fn parse(text: &str) -> Option<Position> {
        text.split('~').map(place).collect::<Option<Vec<_>>>().map(Position)
    }
}

fn place(text: &str) -> Option<Option<Place>> {
    if text == "0" {
        return Some(None);
    }
    let mut numbers = text.split('.').map(|part| u64::from_str_radix(part, 16).ok());
    let mut next = || numbers.next().flatten();
    let id = FileId { device: next()?, inode: next()? };
    let place = Place { id, offset: next()?, sum: next().and_then(|sum| sum.try_into().ok())? };
    numbers.next().is_none().then_some(Some(place))
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (number, place) in self.0.iter().enumerate() {
            if number > 0 {
                f.write_str("~")?;
            }
            match place {
                None => f.write_str("0")?,
                Some(Place { id: FileId { device, inode }, offset, sum }) => {
                    write!(f, "{device:x}.{inode:x}.{offset:x}.{sum:x}")?;
                }
            }
        }
        Ok(())
    }
}

/// The sum of the line, its newline included, that ends these bytes; of its last bytes where it is long.
pub(super) fn sum(bytes: &[u8]) -> u32 {
    let bytes = &bytes[bytes.len().saturating_sub(TAIL)..];
    let line = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let start = memrchr(b'\n', line).map_or(0, |at| at + 1);
    crc32fast::hash(&bytes[start..])
}

/// The same of what stands before this place in a file; `None` where nothing does.
pub(super) fn sum_before(file: &File, offset: u64) -> Option<u32> {
    let mut bytes = [0; TAIL];
    let bytes = bytes.get_mut(..TAIL.min(usize::try_from(offset).unwrap_or(TAIL)))?;
    file.read_exact_at(bytes, offset - bytes.len() as u64).ok()?;
    Some(sum(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_back_and_nothing_else_is_one() {
        let place = Some(Place { id: FileId { device: 0xfd00, inode: 77 }, offset: 1 << 40, sum: u32::MAX });
        for places in [vec![], vec![None], vec![place], vec![place, None]] {
            let position = Position(places);
            if !position.0.is_empty() {
                assert_eq!(Position::parse(&position.to_string()), Some(position));
            }
        }
        for text in ["", "1", "1.2.3", "1.2.3.4.5", "1.2.3.100000000", "1.2.3.x", "0~", "-1.2.3.4"] {
            assert_eq!(Position::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_sum_is_that_of_the_last_line() {
        assert_eq!(sum(b"one\ntwo\n"), sum(b"two\n"));
        assert_ne!(sum(b"one\n"), sum(b"two\n"));
        let long = [vec![b'x'; 1000], b"\n".to_vec()].concat();
        assert_eq!(sum(&long), sum(&long[900..]));
    }
}
