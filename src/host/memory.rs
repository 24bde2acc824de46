//! Files in memory: for what is to outlive an image and has no place on a disk. An exec of uphold by itself
//! hands them on, as every descriptor, and the new image knows them by their names. With any other end of
//! uphold they are gone.

use std::ffi::CString;
use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::inherited::Inherited;
use super::mapped::Mapped;
use super::patience::patiently;
use super::{kin, sys};

/// Before the name, so that no other file in memory is taken for one of these.
const OURS: &str = "uphold:";
/// The file of the notes of the log pump.
pub(super) const NOTES: &str = "pump";
/// A file with this mode counts; one that is being made has another.
const COUNTS: u32 = 0o600;

/// MFD_NOEXEC_SEAL, from Linux 6.3 on.
const NOT_TO_EXECUTE: MFdFlags = MFdFlags::from_bits_retain(nix::libc::MFD_NOEXEC_SEAL);

/// Makes a file in memory. It is no successor's before it [counts](count): half of it would say something else.
/// A name has 240 bytes at most.
pub fn memory(name: &str) -> io::Result<File> {
    let name = CString::new(format!("{OURS}{name}"))?;
    // Nobody executes it, and a machine may refuse one that somebody could.
    let made = match memfd_create(&*name, MFdFlags::MFD_CLOEXEC | NOT_TO_EXECUTE) {
        // A kernel before 6.3.
        Err(Errno::EINVAL) => memfd_create(&*name, MFdFlags::MFD_CLOEXEC),
        made => made,
    };
    Ok(sys::above_stdio(made?)?.into())
}

/// From here on a successor finds it.
pub fn count(file: &File) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(COUNTS))
}

/// Where every process that may look at this one finds a file that it has open.
pub fn path_of(file: &File) -> PathBuf {
    let own = std::process::id().cast_signed();
    kin::place(own, &format!("fd/{}", file.as_raw_fd())).unwrap_or_default().into()
}

/// What a descriptor is called, if it is of a file in memory that counts.
pub(super) fn name_of(fd: RawFd) -> Option<String> {
    name_in(fd, &std::fs::read_link(own(fd)).ok()?)
}

/// The same where it is known what /proc calls it.
pub(super) fn name_in(fd: RawFd, link: &Path) -> Option<String> {
    let name = link.to_str()?.strip_prefix("/memfd:")?.strip_prefix(OURS)?.strip_suffix(" (deleted)")?;
    let mode = std::fs::metadata(own(fd)).ok()?.permissions().mode();
    (mode & 0o777 == COUNTS).then(|| name.to_owned())
}

/// Where this process finds its own descriptor.
pub(super) fn own(fd: RawFd) -> PathBuf {
    format!("/proc/self/fd/{fd}").into()
}

impl Inherited {
    /// Opens the file of this name that successors need: the one that the image before has handed on; else that
    /// in the directory; and where that cannot serve, or there is no directory, a new one in memory. `serve` is
    /// what has to work. An error beside it says why it is in memory although there is a directory: then it
    /// outlives an image, and no kill.
    pub(super) fn lasting<T>(
        &self,
        dir: Option<&Path>,
        name: &str,
        serve: impl Fn(File) -> io::Result<T>,
    ) -> io::Result<(T, Option<io::Error>)> {
        if let Some(file) = self.memory(name) {
            return Ok((serve(file?)?, None));
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        options.custom_flags(nix::libc::O_NOFOLLOW);
        let lack = match dir.map(|dir| patiently(|| serve(options.open(dir.join(name))?))) {
            Some(Ok(served)) => return Ok((served, None)),
            Some(Err(error)) => Some(error),
            None => None,
        };
        let file = memory(name)?;
        count(&file)?;
        Ok((serve(file)?, lack))
    }

    /// The notes of the log pump, so many bytes: handed on, in the directory, or in memory. An error beside them says
    /// why they are in memory although there is a directory.
    pub fn notes(&self, dir: Option<&Path>, size: usize) -> io::Result<(Mapped, Option<io::Error>)> {
        self.lasting(dir, NOTES, |file| Mapped::new(file, size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn a_file_in_memory_is_known_by_its_name_once_it_counts() {
        let mut file = memory("state").unwrap();
        assert_eq!(name_of(file.as_raw_fd()), None);
        count(&file).unwrap();
        assert_eq!(name_of(file.as_raw_fd()).as_deref(), Some("state"));
        file.write_all(b"text").unwrap();
        let mut text = String::new();
        File::open(path_of(&file)).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "text");
        assert_eq!(name_of(File::open("/dev/null").unwrap().as_raw_fd()), None);
    }

    #[test]
    fn what_a_directory_cannot_serve_memory_does_and_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let none = Inherited::default();
        let length = |file: File| Ok(file.metadata()?.len());
        assert!(matches!(none.lasting(Some(dir.path()), "runs", length), Ok((0, None))));
        std::fs::write(dir.path().join("runs"), "four").unwrap();
        assert!(matches!(none.lasting(Some(dir.path()), "runs", length), Ok((4, None))));
        let refuses = |file: File| match length(file)? {
            0 => Ok(()),
            _ => Err(Errno::ENODEV.into()),
        };
        let (_, lack) = none.lasting(Some(dir.path()), "runs", refuses).unwrap();
        assert_eq!(lack.unwrap().raw_os_error(), Some(Errno::ENODEV as i32));
        assert!(matches!(none.lasting(None, "runs", length), Ok((0, None))));
    }
}
