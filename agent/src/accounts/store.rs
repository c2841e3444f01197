//! The database: one book per vhost and owner, and three histories.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use redb::backends::FileBackend;
use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, Table, TableDefinition,
    TableError, WriteTransaction,
};

use super::book::{Book, Closed, RINGS, Record};
use super::codec::{decode, encode};
use super::sums::{Bucket, Sums};

/// Vhost and owner → number, as keys of the other tables are short.
const NAMES: TableDefinition<'_, (&str, &str), u32> = TableDefinition::new("names");
/// Number → [`Book`].
const BOOKS: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("books");
/// Per ring: number of the book and of the stretch → [`Bucket`].
const HISTORY: [TableDefinition<'_, (u32, u32), &[u8]>; RINGS.len()] = [
    TableDefinition::new("5s"),
    TableDefinition::new("1min"),
    TableDefinition::new("1h"),
];
/// What the database has of the journal.
const STATE: TableDefinition<'_, &str, u64> = TableDefinition::new("state");
const JOURNALED: &str = "journaled";
const NEXT_NUMBER: &str = "next";

/// Memory for pages.
const CACHE: usize = 16 << 20;
/// After so many records, about half a millisecond, the processor is left to others for a moment: a kernel that is preempted
/// lazily would let who wakes meanwhile wait for its next tick.
const AT_ONCE: usize = 64;
const MOMENT: Duration = Duration::from_micros(100);
/// So many books are looked through for what is too old, each time something is written.
const SWEPT: usize = 4;

/// The history of one book in the stretch of time that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The vhost.
    pub vhost: String,
    /// Its owner.
    pub owner: String,
    /// Number of each stretch of the ring in which something was, and what; ascending.
    pub series: Vec<(u32, Bucket)>,
    /// All there ever was.
    pub total: Bucket,
}

impl Line {
    /// Of a vhost that has not used anything yet.
    pub fn empty(vhost: &str, owner: &str) -> Self {
        Self {
            vhost: vhost.to_owned(),
            owner: owner.to_owned(),
            series: Vec::new(),
            total: Bucket::default(),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Store {
    database: Database,
    /// The next book to be swept.
    swept: u32,
}

impl Store {
    /// Opens the database; one that is damaged is put aside and a new one begun.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let what = || format!("cannot use the database of usage {}", path.display());
        match Self::try_open(path) {
            Err(error) if is_damaged(&error) => {
                put_aside(path, &error.context(what()))?;
                Self::try_open(path).with_context(what)
            }
            other => other.with_context(what),
        }
    }

    fn try_open(path: &Path) -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)?;
        let mut builder = Database::builder();
        let builder = builder.set_cache_size(CACHE);
        let database = builder.create_with_backend(FileBackend::new(file)?)?;
        // Every table exists from now on: readers need not ask.
        let write = begin(&database)?;
        write.open_table(NAMES)?;
        write.open_table(BOOKS)?;
        write.open_table(STATE)?;
        for table in HISTORY {
            write.open_table(table)?;
        }
        write.commit()?;
        Ok(Self { database, swept: 0 })
    }

    /// Up to which number the journal is in the database.
    pub(super) fn journaled(&self) -> Result<u64> {
        let read = self.database.begin_read()?;
        let state = read.open_table(STATE)?;
        Ok(state.get(JOURNALED)?.map_or(0, |value| value.value()))
    }

    /// Accounts records in their order, all or none, and waits until the disk has them. `journaled` is the last number of
    /// the journal among them. Gives what each has added.
    pub(super) fn enter(
        &mut self,
        records: &[Record],
        journaled: Option<u64>,
    ) -> Result<Vec<Sums>> {
        let mut new = Vec::with_capacity(records.len());
        let write = begin(&self.database)?;
        {
            let mut names = write.open_table(NAMES)?;
            let mut books = write.open_table(BOOKS)?;
            let mut state = write.open_table(STATE)?;
            let mut history = Histories::open(&write)?;
            let mut now = 0;
            for (index, record) in records.iter().enumerate() {
                if index % AT_ONCE == AT_ONCE - 1 {
                    std::thread::sleep(MOMENT);
                }
                now = now.max(record.at);
                let number = number_of(&mut names, &mut state, record)?;
                let mut book: Book = match books.get(number)? {
                    Some(bytes) => decode(bytes.value())?,
                    None => Book::default(),
                };
                let entered = book.enter(record);
                new.push(entered.new);
                for closed in entered.closed {
                    history.close(number, closed, record.at)?;
                }
                books.insert(number, &*encode(&book, Vec::new())?)?;
            }
            if now > 0 {
                self.swept = sweep(&mut names, &mut books, &mut history, self.swept, now)?;
            }
            if let Some(journaled) = journaled {
                state.insert(JOURNALED, journaled)?;
            }
        }
        write.commit()?;
        Ok(new)
    }

    /// The stretches of a ring from number `from` on, of all books that `wanted` (vhost, owner) says yes to.
    pub(super) fn read(
        &self,
        ring: usize,
        from: u32,
        wanted: &dyn Fn(&str, &str) -> bool,
    ) -> Result<Vec<Line>> {
        let read = self.database.begin_read()?;
        let names = read.open_table(NAMES)?;
        let books = read.open_table(BOOKS)?;
        let history = read.open_table(*HISTORY.get(ring).context("there is no such ring")?)?;
        let mut lines = Vec::new();
        for name in names.iter()? {
            let (key, number) = name?;
            let (vhost, owner) = key.value();
            if !wanted(vhost, owner) {
                continue;
            }
            let number = number.value();
            let Some(bytes) = books.get(number)? else {
                continue;
            };
            let book: Book = decode(bytes.value())?;
            let mut series = std::collections::BTreeMap::<u32, Bucket>::new();
            for row in history.range((number, from)..=(number, u32::MAX))? {
                let (key, bucket) = row?;
                series.insert(key.value().1, decode(bucket.value())?);
            }
            if let Some((at, bucket)) = book.open(ring).filter(|(at, _)| *at >= from) {
                series.entry(at).or_default().merge(&bucket);
            }
            lines.push(Line {
                vhost: vhost.to_owned(),
                owner: owner.to_owned(),
                series: series.into_iter().collect(),
                total: book.total,
            });
        }
        Ok(lines)
    }
}

/// Opening after a crash must not take longer the more history there is.
fn begin(database: &Database) -> Result<WriteTransaction> {
    let mut write = database.begin_write()?;
    write.set_quick_repair(true);
    Ok(write)
}

/// Whether it is the content that is wrong, not the disk or another process that has it open.
pub(super) fn is_damaged(error: &anyhow::Error) -> bool {
    let storage = |error: &StorageError| match error {
        StorageError::Corrupted(_) => true,
        // So it calls what is no database at all.
        StorageError::Io(error) => {
            matches!(
                error.kind(),
                ErrorKind::InvalidData | ErrorKind::UnexpectedEof
            )
        }
        _ => false,
    };
    let of_table = |error: &TableError| match error {
        TableError::Storage(error) => storage(error),
        _ => true,
    };
    error.chain().any(|cause| {
        if let Some(error) = cause.downcast_ref::<DatabaseError>() {
            return match error {
                DatabaseError::Storage(error) => storage(error),
                DatabaseError::RepairAborted | DatabaseError::UpgradeRequired(_) => true,
                _ => false,
            };
        }
        cause.downcast_ref::<StorageError>().is_some_and(storage)
            || cause.downcast_ref::<TableError>().is_some_and(of_table)
            || cause.is::<postcard::Error>()
    })
}

/// Renames a database that is damaged, and says so.
pub(super) fn put_aside(path: &Path, error: &anyhow::Error) -> Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".bad-{:.0}", crate::time::unix_now() * 1e3));
    std::fs::rename(path, &aside)
        .with_context(|| format!("cannot put {} aside", path.display()))?;
    tracing::error!(
        "{error:#}; it is kept as {}, and usage is counted from zero in a new one",
        aside.display()
    );
    Ok(())
}

fn number_of(
    names: &mut Table<'_, (&'static str, &'static str), u32>,
    state: &mut Table<'_, &'static str, u64>,
    record: &Record,
) -> Result<u32> {
    let key = (record.vhost.as_str(), record.owner.as_str());
    if let Some(number) = names.get(key)? {
        return Ok(number.value());
    }
    let next = state.get(NEXT_NUMBER)?.map_or(0, |value| value.value());
    let number = u32::try_from(next).context("there are no numbers for vhosts left")?;
    state.insert(NEXT_NUMBER, next + 1)?;
    names.insert(key, number)?;
    Ok(number)
}

/// The three tables of stretches.
struct Histories<'t>([Table<'t, (u32, u32), &'static [u8]>; RINGS.len()]);

impl<'t> Histories<'t> {
    fn open(write: &'t WriteTransaction) -> Result<Self> {
        let [a, b, c] = HISTORY;
        Ok(Self([
            write.open_table(a)?,
            write.open_table(b)?,
            write.open_table(c)?,
        ]))
    }

    /// Stores a stretch that is over, and drops those that are too old by now.
    fn close(&mut self, book: u32, (ring, number, mut bucket): Closed, now: u64) -> Result<()> {
        let table = &mut self.0[ring];
        if let Some(stored) = table.get((book, number))? {
            bucket.merge(&decode(stored.value())?);
        }
        table.insert((book, number), &*encode(&bucket, Vec::new())?)?;
        self.drop_old(book, ring, now)
    }

    fn drop_old(&mut self, book: u32, ring: usize, now: u64) -> Result<()> {
        let oldest = RINGS[ring].oldest(now);
        let table = &mut self.0[ring];
        let old = |table: &Table<'_, (u32, u32), &'static [u8]>| -> Result<Option<u32>> {
            let first = table.range((book, 0)..(book, oldest))?.next().transpose()?;
            Ok(first.map(|(key, _)| key.value().1))
        };
        while let Some(number) = old(table)? {
            table.remove((book, number))?;
        }
        Ok(())
    }
}

/// Looks through the next few books for what is too old: vhosts that sleep or are gone must not keep more than others. A
/// book of which nothing is left in any ring is closed. Gives where to go on.
fn sweep(
    names: &mut Table<'_, (&'static str, &'static str), u32>,
    books: &mut Table<'_, u32, &'static [u8]>,
    history: &mut Histories<'_>,
    from: u32,
    now: u64,
) -> Result<u32> {
    let mut next = Vec::new();
    for entry in books.range(from..)?.take(SWEPT) {
        let (number, bytes) = entry?;
        let book: Book = decode(bytes.value())?;
        next.push((number.value(), book.last));
    }
    let longest = RINGS.map(|ring| ring.step * ring.keep);
    let longest = longest.into_iter().max().unwrap_or(0);
    for (number, last) in &next {
        for ring in 0..RINGS.len() {
            history.drop_old(*number, ring, now)?;
        }
        if last.saturating_add(longest) < now {
            books.remove(number)?;
            names.retain(|_, known| known != *number)?;
        }
    }
    // From the beginning again, after the last.
    Ok(match next.last() {
        Some((number, _)) if next.len() == SWEPT => number.saturating_add(1),
        _ => 0,
    })
}
