//! What is watched for, and what is reported.

use std::path::Path;

use rustix::fs::inotify::ReadFlags;
use rustix::fs::{AtFlags, FileType};

use crate::config::problem::Problem;

/// What in a directory is of interest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Its files and their content.
    Files,
    /// Its sub-directories, as they come and go.
    Directories,
}

/// A watched directory, by the order in which they were added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target(pub(super) usize);

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// The directory came, went or was replaced, or events were lost: read it whole.
    Rescan(Target),
    /// The entry of this name came, changed or went: look at it.
    Entry(Target, String),
    /// The directory cannot be watched any longer; read it now and then.
    Failed(Target, Problem),
}

/// Whether an event on an entry matters to who watches the directory.
pub(super) fn concerns(directory: &Path, kind: Kind, name: &str, what: ReadFlags) -> bool {
    match kind {
        Kind::Directories => what.contains(ReadFlags::ISDIR),
        Kind::Files if what.contains(ReadFlags::ISDIR) => false,
        // A file just created is empty; its content comes with CLOSE_WRITE. A link or a special file is all there is.
        Kind::Files if what.contains(ReadFlags::CREATE) => rustix::fs::statat(
            rustix::fs::CWD,
            directory.join(name),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .is_ok_and(|stat| {
            FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_nlink > 1
        }),
        Kind::Files => true,
    }
}
