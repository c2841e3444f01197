//! What was read at containers' ends and is not in the database yet: a file to which each is appended with one write.
//!
//! It lies in memory (the run directory), so that an end never waits for a disk, and survives the agent's death, which is
//! what it is for: a container's last counters go with its cgroup. The database is brought up within seconds and says
//! which record it had last; what a crash leaves in the file behind that is accounted by the next agent.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};

use super::book::Record;
use super::codec;

/// While the database takes nothing the file grows no further than this.
const LARGEST: u64 = 64 << 20;
/// Length and checksum before each record.
const HEAD: usize = 12;

/// See the module.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    length: u64,
    last: u64,
}

impl Journal {
    /// Opens the file, made if need be; gives what it holds, with numbers. New ones begin at `first`, which no other
    /// opening may have had.
    pub(super) fn open(path: &Path, first: u64) -> Result<(Self, Vec<(u64, Record)>)> {
        let attempt = || -> Result<_> {
            let mut file = OpenOptions::new()
                .read(true)
                .append(true)
                .create(true)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW)
                .open(path)?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            let (records, whole) = parse(&bytes);
            let length = u64::try_from(whole)?;
            // What comes after a torn record could not be found again.
            file.set_len(length)?;
            let journal = Self {
                file,
                length,
                last: first,
            };
            Ok((journal, records))
        };
        attempt().with_context(|| format!("cannot open {}", path.display()))
    }

    /// Appends a record; gives its number.
    pub(super) fn append(&mut self, record: &Record) -> Result<u64> {
        let number = self.last + 1;
        let mut bytes = vec![0; HEAD];
        bytes = postcard::to_extend(&number, bytes)?;
        bytes = codec::encode(record, bytes)?;
        let (head, body) = bytes.split_at_mut(HEAD);
        head[..4].copy_from_slice(&u32::try_from(body.len())?.to_le_bytes());
        head[4..].copy_from_slice(&checksum(body).to_le_bytes());
        let length = self.length + u64::try_from(bytes.len())?;
        anyhow::ensure!(
            length <= LARGEST,
            "the journal of usage is full: the database has taken nothing for long"
        );
        if let Err(error) = self.file.write_all(&bytes) {
            // A part of it may be there.
            let _ = self.file.set_len(self.length);
            return Err(error).context("cannot write to the journal of usage");
        }
        self.length = length;
        self.last = number;
        Ok(number)
    }

    /// The database has everything up to `number`: empties the file if that is all.
    pub(super) fn taken(&mut self, number: u64) -> Result<()> {
        if self.length > 0 && number == self.last {
            self.file
                .set_len(0)
                .context("cannot empty the journal of usage")?;
            self.length = 0;
        }
        Ok(())
    }
}

/// Those behind the one that the database had last; all if that is not among them, as the file is empty then once.
pub(super) fn after(records: Vec<(u64, Record)>, known: u64) -> Vec<(u64, Record)> {
    let had = records.iter().position(|(number, _)| *number == known);
    records
        .into_iter()
        .skip(had.map_or(0, |at| at + 1))
        .collect()
}

/// All whole records, and where they end.
fn parse(bytes: &[u8]) -> (Vec<(u64, Record)>, usize) {
    let mut records = Vec::new();
    let mut at = 0;
    while let Some((record, end)) = next(bytes, at) {
        records.push(record);
        at = end;
    }
    (records, at)
}

fn next(bytes: &[u8], at: usize) -> Option<((u64, Record), usize)> {
    let body = at.checked_add(HEAD)?;
    let length = bytes.get(at..at + 4)?.try_into().ok()?;
    let sum = bytes.get(at + 4..body)?.try_into().ok()?;
    let end = body.checked_add(usize::try_from(u32::from_le_bytes(length)).ok()?)?;
    let content = bytes.get(body..end)?;
    if checksum(content) != u64::from_le_bytes(sum) {
        return None;
    }
    let (number, rest) = postcard::take_from_bytes(content).ok()?;
    Some(((number, codec::decode(rest).ok()?), end))
}

pub(super) fn checksum(bytes: &[u8]) -> u64 {
    let mut hash = crate::fnv::Fnv::default();
    hash.add(bytes);
    hash.value()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::accounts::tests::record;

    #[test]
    fn what_was_written_is_found_again_and_what_was_torn_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j");
        let (mut journal, found) = Journal::open(&path, 7).unwrap();
        assert!(found.is_empty());
        let (first, second) = (record("a", 1, 10), record("b", 2, 20));
        assert_eq!(journal.append(&first).unwrap(), 8);
        assert_eq!(journal.append(&second).unwrap(), 9);
        let whole = std::fs::read(&path).unwrap();
        let (_, found) = Journal::open(&path, 100).unwrap();
        assert_eq!(found, [(8, first.clone()), (9, second.clone())]);
        assert_eq!(after(found.clone(), 8), [(9, second)]);
        assert_eq!(after(found.clone(), 9), []);
        assert_eq!(after(found.clone(), 7), found);
        for cut in 1..whole.len() {
            let (records, end) = parse(&whole[..cut]);
            assert!(records.len() < 2 && end <= cut);
        }
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        let (mut journal, found) = Journal::open(&path, 3).unwrap();
        assert_eq!(found, [(8, first.clone())]);
        assert_eq!(journal.append(&first).unwrap(), 4);
        assert_eq!(journal.append(&first).unwrap(), 5);
        // Not yet: there is one more.
        journal.taken(4).unwrap();
        assert_eq!(Journal::open(&path, 0).unwrap().1.len(), 3);
        journal.taken(5).unwrap();
        assert_eq!(journal.append(&first).unwrap(), 6);
        assert_eq!(Journal::open(&path, 0).unwrap().1, [(6, first)]);
    }
}
