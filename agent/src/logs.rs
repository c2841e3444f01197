//! Reading the logs that init keeps: `current`, `.1`, `.2` … in a directory that the tenant cannot reach.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Most bytes that are read back for a tail, whatever is asked for.
const TAIL_BYTES: u64 = 4 << 20;

/// Opens one log file; never through a link.
fn open(dir: &Path, name: &str) -> io::Result<File> {
    File::options()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(dir.join(name))
}

/// Names of the files, newest first.
fn names() -> impl Iterator<Item = String> {
    std::iter::once("current".to_owned()).chain((1..1000).map(|n| format!(".{n}")))
}

/// The last `lines` lines, oldest first.
pub fn tail(dir: &Path, lines: usize) -> io::Result<Vec<u8>> {
    let mut kept: VecDeque<Vec<u8>> = VecDeque::new();
    let mut left = TAIL_BYTES;
    let mut count = 0;
    for name in names() {
        let mut file = match open(dir, &name) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if name == "current" {
                    continue;
                } else {
                    break;
                }
            }
            Err(error) => return Err(error),
        };
        let size = file.metadata()?.len();
        let take = size.min(left);
        file.seek(SeekFrom::Start(size - take))?;
        let mut bytes = Vec::new();
        file.take(take).read_to_end(&mut bytes)?;
        if take < size {
            // Begin with a whole line.
            let start = bytes
                .iter()
                .position(|b| *b == b'\n')
                .map_or(bytes.len(), |at| at + 1);
            bytes.drain(..start);
        }
        left -= take;
        count += bytes.iter().filter(|b| **b == b'\n').count();
        kept.push_front(bytes);
        if count >= lines || left == 0 {
            break;
        }
    }
    let all: Vec<u8> = kept.into_iter().flatten().collect();
    Ok(last_lines(&all, lines).to_vec())
}

fn last_lines(bytes: &[u8], lines: usize) -> &[u8] {
    let ends: Vec<usize> = bytes
        .iter()
        .enumerate()
        .filter(|(_, b)| **b == b'\n')
        .map(|(at, _)| at + 1)
        .collect();
    match ends.len().checked_sub(lines + 1) {
        Some(at) if lines > 0 => &bytes[ends[at]..],
        None => bytes,
        Some(_) => &[],
    }
}

/// The last lines for an error message: only the text, on one line, bounded.
pub fn last_output(dir: &Path, vhost: &str, lines: usize, bytes: usize) -> String {
    let text = tail(dir, lines).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let parts: Vec<&str> = text
        .lines()
        .map(|line| message(line, vhost))
        .filter(|part| !part.is_empty())
        .collect();
    let joined = parts.join(" | ");
    let skip = joined
        .char_indices()
        .rev()
        .map(|(at, _)| at)
        .find(|at| joined.len() - at >= bytes)
        .unwrap_or(0);
    joined[skip..].to_owned()
}

/// What follows `TIME VHOST out|err `.
fn message<'a>(line: &'a str, vhost: &str) -> &'a str {
    let mut rest = line.splitn(4, ' ');
    match (rest.next(), rest.next(), rest.next(), rest.next()) {
        (Some(_), Some(name), Some("out" | "err"), Some(text)) if name == vhost => text.trim(),
        _ => line.trim(),
    }
}

/// Follows `current` across rotations.
#[derive(Debug)]
pub struct Follower {
    dir: std::path::PathBuf,
    file: Option<(File, u64)>,
    first: bool,
}

impl Follower {
    /// Begins at the present end.
    pub fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            file: None,
            first: true,
        }
    }

    /// What has been written since the last call, at most 64 KiB at a time.
    pub fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        if let Some((file, _)) = &mut self.file {
            file.take(64 << 10).read_to_end(&mut bytes)?;
            if !bytes.is_empty() {
                return Ok(bytes);
            }
        }
        let current = match open(&self.dir, "current") {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.first = false;
                return Ok(bytes);
            }
            Err(error) => return Err(error),
        };
        let inode = current.metadata()?.ino();
        if self.file.as_ref().is_some_and(|(_, known)| *known == inode) {
            return Ok(bytes);
        }
        let mut current = current;
        if std::mem::take(&mut self.first) {
            current.seek(SeekFrom::End(0))?;
        } else {
            (&current).take(64 << 10).read_to_end(&mut bytes)?;
        }
        self.file = Some((current, inode));
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;

    #[test]
    fn tails_over_rotations() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(tail(dir.path(), 5).unwrap(), b"");
        fs::write(dir.path().join(".2"), "a\nb\n").unwrap();
        fs::write(dir.path().join(".1"), "c\n").unwrap();
        fs::write(dir.path().join("current"), "d\ne\n").unwrap();
        assert_eq!(tail(dir.path(), 4).unwrap(), b"b\nc\nd\ne\n");
        assert_eq!(tail(dir.path(), 1).unwrap(), b"e\n");
        assert_eq!(tail(dir.path(), 0).unwrap(), b"");
        assert_eq!(tail(dir.path(), 99).unwrap(), b"a\nb\nc\nd\ne\n");
    }

    #[test]
    fn the_message_of_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let lines = "2026-11-22T05:51:02.123456Z a.b err no such file\n2026-11-22T05:51:02.123456Z a.b out bye\n";
        fs::write(dir.path().join("current"), lines).unwrap();
        assert_eq!(last_output(dir.path(), "a.b", 5, 600), "no such file | bye");
        assert_eq!(last_output(dir.path(), "a.b", 5, 3), "bye");
    }

    #[test]
    fn follows_a_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let current = dir.path().join("current");
        fs::write(&current, "old\n").unwrap();
        let mut follower = Follower::new(dir.path());
        assert_eq!(follower.read().unwrap(), b"");
        fs::write(dir.path().join("more"), "").unwrap();
        let mut file = File::options().append(true).open(&current).unwrap();
        io::Write::write_all(&mut file, b"one\n").unwrap();
        assert_eq!(follower.read().unwrap(), b"one\n");
        fs::rename(&current, dir.path().join(".1")).unwrap();
        fs::write(&current, "two\n").unwrap();
        assert_eq!(follower.read().unwrap(), b"two\n");
        assert_eq!(follower.read().unwrap(), b"");
    }
}
