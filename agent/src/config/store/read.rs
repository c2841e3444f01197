//! Reading definition files: relative to an open directory, regular files only, bounded.

use std::io::{ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};

use crate::config::definition::{Definition, Rules};
use crate::config::problem::Problem;

/// The largest definition file that is read.
pub const MOST_FILE_BYTES: u64 = 256 << 10;

/// An open directory of definition files.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

/// Whether a file of this name is a definition: `*.toml`, neither hidden nor an editor's.
pub fn is_definition_file(name: &str) -> bool {
    name.len() > ".toml".len()
        && name.ends_with(".toml")
        && !name.starts_with(['.', '#'])
        && !name.contains(['/', '\0'])
}

impl Dir {
    /// Opens the directory.
    pub fn open(path: &Path) -> Result<Self, Problem> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| {
            let hint = if e == rustix::io::Errno::NOENT {
                "; create it, or correct vhosts_dir in agent.toml"
            } else {
                ""
            };
            Problem::new(format!(
                "cannot open the directory {}: {e}{hint}",
                path.display()
            ))
        })?;
        Ok(Dir {
            fd,
            path: path.into(),
        })
    }

    /// The names of its definition files, sorted.
    pub fn names(&self) -> Result<Vec<String>, Problem> {
        let failed = |e: rustix::io::Errno| {
            Problem::new(format!("cannot list {}: {e}", self.path.display()))
        };
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd).map_err(failed)? {
            // A name that is not UTF-8 is no host name, so no definition's.
            if let Ok(name) = entry.map_err(failed)?.file_name().to_str()
                && is_definition_file(name)
            {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// The content of a file, or nothing if there is none of this name.
    ///
    /// Neither a symbolic link nor anything but a regular file is read, so a name never leads elsewhere or blocks.
    pub fn read(&self, name: &str) -> Result<Option<String>, Problem> {
        let problem = |what: String| Problem::new(what).in_file(name);
        if !is_definition_file(name) {
            return Err(problem(
                "is not the name of a definition file (*.toml)".into(),
            ));
        }
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(rustix::io::Errno::LOOP) => {
                return Err(problem("is a symbolic link, which is not followed".into()));
            }
            Err(e) => return Err(problem(format!("cannot be opened: {e}"))),
        };
        let stat =
            rustix::fs::fstat(&fd).map_err(|e| problem(format!("cannot be examined: {e}")))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(problem("is not a regular file".into()));
        }
        let mut text =
            String::with_capacity(usize::try_from(stat.st_size).unwrap_or(0).min(1 << 16) + 1);
        // One byte more than allowed tells a file that is too large from one that is just not, even if it grows.
        match std::fs::File::from(fd)
            .take(MOST_FILE_BYTES + 1)
            .read_to_string(&mut text)
        {
            Ok(read) if read as u64 > MOST_FILE_BYTES => Err(problem(format!(
                "is larger than a definition may be ({MOST_FILE_BYTES} bytes)"
            ))),
            Ok(_) => Ok(Some(text)),
            Err(e) if e.kind() == ErrorKind::InvalidData => {
                Err(problem("is not UTF-8 text".into()))
            }
            Err(e) => Err(problem(format!("cannot be read: {e}"))),
        }
    }
}

/// Reads and validates a definition's text; the problems name the file.
pub(super) fn parse(file: &str, text: &str, rules: &Rules) -> Result<Definition, Vec<Problem>> {
    let definition = Definition::from_toml(text).map_err(|problem| vec![problem.in_file(file)])?;
    match definition.validate(rules) {
        Ok(()) => Ok(definition),
        Err(problems) => Err(problems
            .into_iter()
            .map(|problem| problem.in_file(file))
            .collect()),
    }
}
