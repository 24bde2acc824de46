//! What was written against what is in the logs.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::units::Kind;

/// What stands in a log of which the rest is lost, around the number of the run.
const UNREAD: (&str, &str) =
    ("uphold: run ", " ended while no uphold ran: what it had written and nobody had read is lost");

/// What has been read of the logs so far.
pub struct Ledger {
    dir: PathBuf,
    units: Vec<Reader>,
}

struct Reader {
    kind: Kind,
    offset: u64,
    /// The last line of each run.
    last: HashMap<u64, u64>,
    /// Runs of which the log says that a rest was not read.
    unread: HashSet<u64>,
}

/// The count at the end.
#[derive(Debug, Default)]
pub struct Sum {
    pub lines: u64,
    pub runs: u64,
    /// Those of them of which the log says that they ended while no uphold ran,
    pub unread_runs: u64,
    /// and lines of them that are not there.
    pub unread: u64,
    pub wrong: Vec<String>,
}

impl Ledger {
    pub fn new(dir: &Path, kinds: &[Kind]) -> Ledger {
        let reader = |kind: &Kind| Reader {
            kind: kind.clone(),
            offset: 0,
            last: HashMap::new(),
            unread: HashSet::new(),
        };
        let units = kinds.iter().map(reader).collect();
        Ledger { dir: dir.to_owned(), units }
    }

    /// Reads on in all logs that are in one file: what is torn, doubled or missing in between.
    pub fn read_on(&mut self) -> Vec<String> {
        let dir = self.dir.clone();
        let logs = self.units.iter_mut().filter(|unit| !unit.kind.rotates);
        logs.flat_map(|unit| unit.read_on(&dir)).collect()
    }

    /// After everything has ended.
    pub fn close(mut self) -> Sum {
        let mut sum = Sum { wrong: self.read_on(), ..Sum::default() };
        let dir = self.dir.clone();
        for unit in self.units.iter_mut().filter(|unit| unit.kind.rotates) {
            let wrong = unit.read_all(&dir);
            sum.wrong.extend(wrong);
        }
        for unit in &self.units {
            for (run, written) in runs(&self.dir, &unit.kind.name) {
                let read = unit.last.get(&run).copied().unwrap_or(0);
                sum.runs += 1;
                sum.lines += read;
                sum.unread_runs += u64::from(unit.unread.contains(&run));
                // A run that was killed may have written one line more than it could note.
                if read == written || read == written + 1 {
                    continue;
                }
                if read < written && unit.unread.contains(&run) {
                    sum.unread += written - read;
                } else {
                    let name = &unit.kind.name;
                    sum.wrong.push(format!("{name} {run}: {written} lines were written, {read} are there"));
                }
            }
        }
        sum
    }
}

/// Each run of a unit, and how many lines it has noted.
pub fn runs(dir: &Path, unit: &str) -> BTreeMap<u64, u64> {
    let entries = fs::read_dir(dir.join("ledger")).unwrap().flatten();
    let ours = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let run = name.strip_prefix(unit)?.strip_prefix('.')?.parse().ok()?;
        let bytes = fs::read(entry.path()).ok()?;
        let written = bytes.get(..8).map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
        Some((run, written))
    });
    ours.collect()
}

impl Reader {
    fn log(&self, dir: &Path) -> PathBuf {
        dir.join("log").join(&self.kind.name).join("stdout.log")
    }

    fn read_on(&mut self, dir: &Path) -> Vec<String> {
        let Ok(mut file) = File::open(self.log(dir)) else { return Vec::new() };
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(self.offset)).unwrap();
        file.read_to_end(&mut bytes).unwrap();
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        self.offset += whole as u64;
        self.take(&bytes[..whole])
    }

    fn read_all(&mut self, dir: &Path) -> Vec<String> {
        let log = self.log(dir);
        let mut files = Vec::new();
        for entry in fs::read_dir(log.parent().unwrap()).into_iter().flatten().flatten() {
            let name = entry.file_name().into_string().unwrap();
            let number = name.strip_prefix("stdout.log").unwrap_or_default();
            let number = if number.is_empty() { Some(0) } else { number[1..].parse::<u64>().ok() };
            files.extend(number.map(|number| (number, entry.path())));
        }
        files.sort();
        let mut wrong = Vec::new();
        for (_, path) in files.into_iter().rev() {
            let bytes = fs::read(path).unwrap();
            wrong.extend(self.take(&bytes));
        }
        wrong
    }

    fn take(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut wrong = Vec::new();
        for line in String::from_utf8_lossy(bytes).lines() {
            if let Some((_, rest)) = line.split_once(UNREAD.0)
                && let Some(run) = rest.strip_suffix(UNREAD.1)
            {
                self.unread.insert(run.parse().unwrap());
                continue;
            }
            // Half of the units have stamps.
            let plain = line.find(&self.kind.name).map(|at| &line[at..]);
            let words: Vec<&str> = plain.unwrap_or_default().split(' ').collect();
            let numbers = match words[..] {
                [unit, run, number] if unit == self.kind.name => {
                    run.parse::<u64>().ok().zip(number.parse::<u64>().ok())
                }
                _ => None,
            };
            let Some((run, number)) = numbers else {
                wrong.push(format!("{}: torn: `{line}`", self.kind.name));
                continue;
            };
            let last = self.last.entry(run).or_default();
            if number != *last + 1 {
                wrong.push(format!("{} {run}: {number} follows {last}", self.kind.name));
            }
            *last = number.max(*last);
        }
        wrong
    }
}
