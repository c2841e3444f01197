//! A few words of the caller's, kept by the kernel with a group: they go when it goes, and nobody below the host's own
//! root can write them (`trusted.` extended attributes).

use crate::Error;
use crate::dir::Dir;
use crate::group::Group;
use rustix::fs::XattrFlags;
use rustix::io::Errno;

const NAME: &str = "trusted.note";
/// The longest note.
const LONGEST: usize = 256;

impl Group {
    /// The directory that has the note: v2's, or without that the first.
    fn notebook(&self) -> Option<&Dir> {
        self.v2().or_else(|| self.each().next().map(|(_, dir)| dir))
    }

    /// Keeps `text`, in place of what was kept before.
    pub fn set_note(&self, text: &str) -> Result<(), Error> {
        self.notebook().map_or(Ok(()), |dir| keep(dir, NAME, text))
    }

    /// What was kept; None if nothing was, or if that is no note.
    pub fn note(&self) -> Result<Option<String>, Error> {
        self.notebook().map_or(Ok(None), |dir| kept(dir, NAME))
    }
}

/// Keeps `text` at one directory.
pub(crate) fn keep(dir: &Dir, name: &str, text: &str) -> Result<(), Error> {
    dir.with_fd(|fd| rustix::fs::fsetxattr(fd, name, text.as_bytes(), XattrFlags::empty()))
        .map_err(|e| dir.error("keep a note at", "", e))
}

/// What was kept there.
pub(crate) fn kept(dir: &Dir, name: &str) -> Result<Option<String>, Error> {
    let mut buffer = [0u8; LONGEST];
    match dir.with_fd(|fd| rustix::fs::fgetxattr(fd, name, &mut buffer)) {
        Ok(n) => Ok(buffer
            .get(..n)
            .and_then(|text| std::str::from_utf8(text).ok())
            .map(str::to_owned)),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(None),
        Err(e) => Err(dir.error("read the note at", "", e)),
    }
}

/// Keeps nothing there any more.
pub(crate) fn forget(dir: &Dir, name: &str) -> Result<(), Error> {
    dir.with_fd(|fd| rustix::fs::fremovexattr(fd, name))
        .map_err(|e| dir.error("remove the note at", "", e))
}
