//! What the image before in the same process had in the private directory, and somebody has removed since: it still
//! has each file open, and so has this one.

use std::fs;
use std::io;
use std::path::Path;

use super::inherited::Inherited;

/// What the next image needs, and under which names the image before may have it open. The state comes last: it
/// counts once all it speaks of is there.
const FILES: [(&str, &[&str]); 4] = [
    // One that could not be given its name is mapped all the same.
    ("runs", &["runs", "runs.new"]),
    ("crash", &["crash"]),
    ("pump", &["pump"]),
    ("state", &["state"]),
];

impl Inherited {
    /// Makes those files again that are missing in the private directory, with what stands in them. Call it before any
    /// of them is opened, and for an image that goes on: whatever lies in the directory of another uphold stays as it
    /// is. Errors are those of copying, and name the file.
    pub fn salvage(&self, private: &Path) -> io::Result<()> {
        // The directory may have been moved, or its file system unmounted.
        let lay_there = |place: &Path| place.parent().and_then(Path::file_name) == private.file_name();
        let failed = |path: &Path, error: io::Error| {
            io::Error::new(error.kind(), format!("{}: {error}", path.display()))
        };
        for (name, names) in FILES {
            let path = private.join(name);
            if path.symlink_metadata().is_ok() {
                continue;
            }
            let found = names.iter().flat_map(|name| self.named(name)).filter(|(_, place)| lay_there(place));
            let changed = |own: &Path| fs::metadata(own).and_then(|found| found.modified()).ok();
            // Also images before the last one may have left theirs.
            let Some((own, _)) = found.max_by_key(|(own, _)| changed(own)) else { continue };
            let draft = private.join(format!("{name}.new"));
            let copied = fs::copy(own, &draft).and_then(|_| fs::rename(&draft, &path));
            copied.map_err(|error| failed(&path, error))?;
        }
        Ok(())
    }
}
