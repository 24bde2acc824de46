//! What the image before in the same process had in the private directory, and somebody has removed since: it still
//! has each file open, and so has this one.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::libc;

use super::crash::CRASHES;
use super::inherited::{Inherited, lay_in};
use super::memory::NOTES;
use super::{fifo, slots};
use crate::file_id::FileId;

/// What follows the name of a FIFO in that of the file for its unfinished line ([`logs`](crate::logs)).
const PART: &str = ".part";
/// A file that says something says it in so many bytes.
const BEGINNING: u64 = 4096;

impl Inherited {
    /// Makes those files again that are missing in the private directory, with what stands in them; `state` is the
    /// name of the state. Call it before any of them is opened, and for an image that goes on. Another uphold that has
    /// come since somebody removed the directory, and has gone in order, has left files of its own, and no state:
    /// these are replaced. Where there is a state, what lies beside it stays as it is.
    ///
    /// Gives what this image has to do without, and why. Errors are of those that it cannot do without, and name the
    /// file.
    pub fn salvage(&self, private: &Path, state: &str) -> io::Result<Option<String>> {
        let failed = |name: &str, error: io::Error| {
            io::Error::new(error.kind(), format!("{}: {error}", private.join(name).display()))
        };
        let is_own =
            FileId::at(&private.join(slots::FILE)).is_some_and(|there| self.has(private, slots::FILE, there));
        let is_anothers = !is_own && speaks(&private.join(state)).is_none();
        self.put_back(private, slots::FILE, is_anothers).map_err(|error| failed(slots::FILE, error))?;
        let mut lacks = Vec::new();
        for name in [CRASHES, NOTES].into_iter().chain(self.parts(private)) {
            if let Err(error) = self.put_back(private, name, is_anothers) {
                lacks.push(failed(name, error).to_string());
            }
        }
        // It comes last: it counts once all it speaks of is there.
        self.put_back(private, state, is_anothers).map_err(|error| failed(state, error))?;
        Ok((!lacks.is_empty()).then(|| {
            format!(
                "cannot put back what somebody has removed, and goes on without what stood there: {}",
                lacks.join("; ")
            )
        }))
    }

    /// Files of unfinished lines that are missing, or may be another's.
    fn parts<'a>(&'a self, private: &'a Path) -> impl Iterator<Item = &'a str> {
        let names = self.files().filter(|(_, place)| lay_in(private, place));
        let names = names.filter_map(|(_, place)| place.file_name()?.to_str());
        names.filter(|name| name.strip_suffix(PART).and_then(fifo::named).is_some())
    }

    /// Where this process finds the files that have this name in the private directory, or had it.
    fn of_name(&self, private: &Path, name: &str) -> impl Iterator<Item = PathBuf> {
        self.named(name).filter(|(_, place)| lay_in(private, place)).map(|(own, _)| own)
    }

    /// The file that lies there is one of them.
    fn has(&self, private: &Path, name: &str, there: FileId) -> bool {
        self.of_name(private, name).any(|own| FileId::behind(&own) == Some(there))
    }

    fn put_back(&self, private: &Path, name: &str, is_anothers: bool) -> io::Result<()> {
        let path = private.join(name);
        match speaks(&path) {
            Some(there) if !is_anothers || self.has(private, name, there) => return Ok(()),
            Some(_) | None => {}
        }
        let draft = format!("{name}.new");
        // One that could not be given its name is mapped all the same.
        let unnamed = (name == slots::FILE).then(|| self.of_name(private, &draft));
        let found = self.of_name(private, name).chain(unnamed.into_iter().flatten());
        let found = found.filter(|own| speaks(own).is_some());
        // Also images before the last one may have left theirs.
        let newest = found.max_by_key(|own| fs::metadata(own).and_then(|found| found.modified()).ok());
        let Some(own) = newest else { return Ok(()) };
        let draft = private.join(draft);
        // It may be the one that is copied: that is never cut short.
        drop(fs::remove_file(&draft));
        fs::copy(own, &draft).and_then(|_| fs::rename(&draft, &path))
    }
}

/// What lies there, if it says anything: the image before may have put a file back that it did not get to use, which
/// is empty, or all zeroes.
fn speaks(path: &Path) -> Option<FileId> {
    let mut begins = Vec::new();
    let options = || File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    // What cannot be read stays as it is.
    let read = options().and_then(|file| file.take(BEGINNING).read_to_end(&mut begins));
    FileId::at(path).filter(|_| read.is_err() || begins.iter().any(|byte| *byte != 0))
}

#[cfg(test)]
mod tests {
    use super::super::inherited::tests::inherited;
    use super::*;

    #[test]
    fn what_was_in_use_is_put_back_and_not_what_was_about_to_be() {
        let dir = tempfile::tempdir().unwrap();
        let private = dir.path().join("private");
        fs::create_dir(&private).unwrap();
        let made = |name: &str, text: &[u8]| {
            fs::write(private.join(name), text).unwrap();
            File::open(private.join(name)).unwrap()
        };
        // It could not be given its name.
        let runs = made("runs.new", b"slots");
        let notes = made("pump", b"a batch");
        let part = made("web.1.out.part", b"half a line");
        fs::remove_file(private.join("pump")).unwrap();
        fs::remove_file(private.join("web.1.out.part")).unwrap();
        let new = made("pump", &[0; 8192]);
        let state = made("state", b"a state");
        let inherited = inherited([runs, notes, part, new, state]);
        assert_eq!(inherited.salvage(&private, "state").unwrap(), None);
        inherited.close();
        for (name, text) in
            [("runs", "slots"), ("pump", "a batch"), ("web.1.out.part", "half a line"), ("state", "a state")]
        {
            assert_eq!(fs::read_to_string(private.join(name)).unwrap(), text, "{name}");
        }
    }
}
