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
        let Some(dir) = self.notebook() else {
            return Ok(());
        };
        rustix::fs::fsetxattr(dir.fd(), NAME, text.as_bytes(), XattrFlags::empty())
            .map_err(|e| dir.error("keep a note at", "", e))
    }

    /// What was kept; None if nothing was, or if that is no note.
    pub fn note(&self) -> Result<Option<String>, Error> {
        let Some(dir) = self.notebook() else {
            return Ok(None);
        };
        let mut buffer = [0u8; LONGEST];
        match rustix::fs::fgetxattr(dir.fd(), NAME, &mut buffer) {
            Ok(n) => Ok(buffer
                .get(..n)
                .and_then(|text| std::str::from_utf8(text).ok())
                .map(str::to_owned)),
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(None),
            Err(e) => Err(dir.error("read the note at", "", e)),
        }
    }
}
