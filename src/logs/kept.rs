//! The last lines of each instance's last run, kept in memory for `describe` and for the sentence that says
//! why a unit is not up.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use memchr::memrchr_iter;

use crate::engine::Run;
use crate::unit::Name;

/// So many lines are kept.
pub(super) const LINES: usize = 10;
/// So many bytes of each, and none longer is shown.
const BYTES: usize = 512;

/// The kept lines of all instances; written by the log thread, read by everyone.
#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<BTreeMap<Name, Last>>);

#[derive(Debug, Default)]
struct Last {
    run: Run,
    /// What it said before this image began is not here.
    partial: bool,
    /// Stderr is a stream of its own.
    apart: bool,
    lines: VecDeque<Vec<u8>>,
    /// The last line of stderr, where it is apart.
    stderr: Option<Vec<u8>>,
    /// What stands unfinished on stdout and on stderr.
    unfinished: [Vec<u8>; 2],
}

impl Kept {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Name, Last>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A run begins (or its second stream does): what an earlier one said is forgotten. `anew`: it has said nothing
    /// yet.
    pub(super) fn begin(&self, instance: &Name, run: Run, apart: bool, anew: bool) {
        let mut all = self.lock();
        let last = all.entry(instance.clone()).or_default();
        if last.run < run {
            *last = Last { run, ..Last::default() };
        }
        last.apart |= apart;
        last.partial |= !anew;
    }

    pub(super) fn forget(&self, instance: &Name) {
        self.lock().remove(instance);
    }

    /// Keeps the last lines of a batch in which each begins with `lead` bytes that are not its text.
    pub(super) fn add(
        &self,
        instance: &Name,
        run: Run,
        stderr: bool,
        batch: &[u8],
        lead: usize,
        unfinished: &[u8],
    ) {
        let mut all = self.lock();
        let Some(last) = all.get_mut(&**instance).filter(|last| last.run == run) else { return };
        let body = batch.strip_suffix(b"\n").unwrap_or(batch);
        let start = memrchr_iter(b'\n', body).nth(LINES - 1).map_or(0, |at| at + 1);
        for line in body[start..].split(|byte| *byte == b'\n').filter(|_| !batch.is_empty()) {
            let text = line.get(lead..).unwrap_or_default();
            let mut room =
                if last.lines.len() < LINES { None } else { last.lines.pop_front() }.unwrap_or_default();
            refill(&mut room, text);
            last.lines.push_back(room);
            if stderr {
                refill(last.stderr.get_or_insert_default(), text);
            }
        }
        refill(&mut last.unfinished[usize::from(stderr)], unfinished);
    }

    /// The last line of stderr where it is apart, else of the output.
    pub(super) fn last_line(&self, instance: &Name) -> Option<String> {
        let all = self.lock();
        let last = all.get(&**instance)?;
        let unfinished = &last.unfinished[usize::from(last.apart)];
        let finished = if last.apart { last.stderr.as_ref() } else { last.lines.back() };
        if unfinished.is_empty() { finished.map(|line| shown(line)) } else { Some(shown(unfinished)) }
    }

    /// Its file may have more of the last lines than are here.
    pub(super) fn is_partial(&self, instance: &Name) -> bool {
        let all = self.lock();
        all.get(&**instance).is_none_or(|last| last.partial && last.lines.len() < LINES)
    }

    /// The last lines of both streams in the order of reading; what stands unfinished comes last.
    pub(super) fn tail(&self, instance: &Name) -> Vec<String> {
        self.tail_behind(instance, Vec::new())
    }

    /// The same with these finished lines, as they stand in a file, unless there are none.
    pub(super) fn tail_behind(&self, instance: &Name, mut lines: Vec<String>) -> Vec<String> {
        if let Some(last) = self.lock().get(&**instance) {
            let kept = last.lines.iter().filter(|_| lines.is_empty());
            let unfinished = last.unfinished.iter().filter(|line| !line.is_empty());
            let here: Vec<String> = kept.chain(unfinished).map(|line| shown(line)).collect();
            lines.extend(here);
        }
        let surplus = lines.len().saturating_sub(LINES);
        lines.drain(..surplus);
        lines
    }
}

fn refill(room: &mut Vec<u8>, text: &[u8]) {
    room.clear();
    room.extend_from_slice(&text[..text.len().min(BYTES)]);
}

/// A line as it may be shown on a terminal: nothing in it moves the cursor, changes colours or turns the
/// direction of writing; at most 512 bytes.
pub(super) fn shown(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut out = String::with_capacity(text.len());
    for character in text.strip_suffix('\r').unwrap_or(&text).chars() {
        let before = out.len();
        match character {
            '\t' => out.push(' '),
            '\u{7f}' | '\0'..'\u{20}' => out.push_str(&format!("\\x{:02x}", u32::from(character))),
            '\u{80}'..='\u{9f}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}' => out.extend(character.escape_unicode()),
            _ => out.push(character),
        }
        if out.len() > BYTES {
            out.truncate(before);
            break;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> Name {
        Name::new("web").unwrap()
    }

    #[test]
    fn nothing_that_a_terminal_obeys_is_shown() {
        assert_eq!(shown(b"a\x1b[31mb\x07\tc\x7f\r"), "a\\x1b[31mb\\x07 c\\x7f");
        assert_eq!(shown("\u{9b}31m\u{202e}é".as_bytes()), "\\u{9b}31m\\u{202e}é");
        assert_eq!(shown(b"\xff\xfe"), "\u{fffd}\u{fffd}");
        assert_eq!(shown(&[0x1b; 600]).len(), 512);
        assert!(shown("é".repeat(600).as_bytes()).len() <= 512);
    }

    #[test]
    fn the_last_ten_lines_of_the_last_run_are_kept() {
        let kept = Kept::default();
        kept.begin(&name(), Run(1), false, true);
        let batch: String = (0..25).map(|i| format!("> {i}\n")).collect();
        kept.add(&name(), Run(1), false, batch.as_bytes(), 2, b"unfin");
        assert_eq!(kept.last_line(&name()).as_deref(), Some("unfin"));
        assert_eq!((kept.tail(&name()).len(), &*kept.tail(&name())[0]), (10, "16"));
        kept.add(&name(), Run(1), false, b"> \n", 2, b"");
        assert_eq!(kept.last_line(&name()).as_deref(), Some(""));
        kept.begin(&name(), Run(2), false, true);
        kept.add(&name(), Run(1), false, b"> late\n", 2, b"");
        assert_eq!(kept.tail(&name()), Vec::<String>::new());
        kept.forget(&name());
        kept.add(&name(), Run(2), false, b"> gone\n", 2, b"");
        assert_eq!(kept.last_line(&name()), None);
    }

    #[test]
    fn what_a_run_said_before_this_image_began_is_not_here_until_ten_lines_have_come() {
        let kept = Kept::default();
        assert!(kept.is_partial(&name()));
        kept.begin(&name(), Run(1), false, false);
        kept.add(&name(), Run(1), false, b"1\n2\n3\n4\n5\n6\n7\n8\n9\n", 0, b"");
        assert!(kept.is_partial(&name()));
        kept.add(&name(), Run(1), false, b"10\n", 0, b"");
        assert!(!kept.is_partial(&name()));
        kept.begin(&name(), Run(2), false, true);
        assert!(!kept.is_partial(&name()));
    }

    #[test]
    fn stderr_that_is_apart_has_the_last_word() {
        let kept = Kept::default();
        kept.begin(&name(), Run(1), true, true);
        kept.add(&name(), Run(1), true, b"bad\n", 0, b"");
        kept.add(&name(), Run(1), false, b"fine\n", 0, b"");
        assert_eq!(kept.last_line(&name()).as_deref(), Some("bad"));
        assert_eq!(kept.tail(&name()), ["bad", "fine"]);
    }
}
