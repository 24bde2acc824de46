//! A line of the state: JSON behind its sum, so that one that is cut or damaged is none.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use serde::Serialize;

/// The place of a sum, and the blank after it.
const NO_SUM: &[u8; 9] = b"00000000 ";
/// A line that is longer goes to the file in parts.
const PART: usize = 64 << 10;
/// Most lines are shorter.
const SHORT: usize = 8 << 10;

/// The JSON of a line that is whole.
pub fn unwrap(line: &[u8]) -> Option<&[u8]> {
    let line = line.strip_suffix(b"\n")?;
    let (sum, json) = line.split_at_checked(NO_SUM.len())?;
    let sum = std::str::from_utf8(sum).ok()?.strip_suffix(' ')?;
    (u32::from_str_radix(sum, 16).ok()? == crc32fast::hash(json)).then_some(json)
}

/// A line on its way to the file: a long one goes there in parts, and counts once its sum stands before it.
pub struct Line<'f> {
    file: &'f File,
    at: u64,
    written: u64,
    /// What is still to be written. Its beginning, that is [`NO_SUM`], is not summed up.
    held: Vec<u8>,
    sum: crc32fast::Hasher,
}

impl<'f> Line<'f> {
    /// Writes a value as a line at this place of the file, and gives its length.
    pub fn write(file: &'f File, at: u64, value: &impl Serialize) -> io::Result<u64> {
        let mut held = Vec::with_capacity(SHORT);
        held.extend_from_slice(NO_SUM);
        let mut line = Line { file, at, written: 0, held, sum: crc32fast::Hasher::new() };
        // To that, all writers are of one type: how a unit is written is in the binary once.
        let writer: &mut dyn Write = &mut line;
        serde_json::to_writer(writer, value)?;
        line.add_up();
        let sum = format!("{:08x}", line.sum.clone().finalize());
        line.held.push(b'\n');
        if line.written == 0 {
            line.held.splice(..sum.len(), sum.bytes());
            line.put()?;
        } else {
            line.put()?;
            file.write_all_at(sum.as_bytes(), at)?;
        }
        Ok(line.written)
    }

    /// Sums up what is held, all at once: piece by piece that costs more than to make the line.
    fn add_up(&mut self) {
        let begin = if self.written == 0 { NO_SUM.len() } else { 0 };
        self.sum.update(self.held.get(begin..).unwrap_or_default());
    }

    fn put(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.held, self.at + self.written)?;
        self.written += self.held.len() as u64;
        self.held.clear();
        Ok(())
    }
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.held.extend_from_slice(bytes);
        if self.held.len() >= PART { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.add_up();
        self.put()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_any_length_is_read_as_it_was_written() {
        let file = tempfile::tempfile().unwrap();
        for length in [0, 1, PART - NO_SUM.len() - 2, PART - NO_SUM.len() - 1, PART, 3 * PART + 7] {
            let text = "x".repeat(length);
            let written = Line::write(&file, 5, &text).unwrap();
            let mut line = vec![0; usize::try_from(written).unwrap()];
            file.read_exact_at(&mut line, 5).unwrap();
            assert!(unwrap(&line) == Some(format!("\"{text}\"").as_bytes()), "{length} bytes");
        }
    }
}
