//! Loading a whole directory of definitions on all cores.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::index::{Definitions, Reading, Readings};
use super::read::{self, Dir};
use crate::config::definition::{Pool, Rules};
use crate::config::problem::Problem;

/// Files that a thread takes at a time: enough that the counter is no contention, few enough to share evenly.
const BATCH: usize = 64;

/// Loads every definition file of a directory. Bad files are in [`Definitions::problems`]; an error is only that the
/// directory itself cannot be read.
///
/// Of two files that claim one name, the first by file name has it.
pub fn load_dir(path: &Path, rules: &Rules) -> Result<Definitions, Problem> {
    let dir = Dir::open(path)?;
    let names = dir.names()?;
    let mut definitions = Definitions::new(rules.clone());
    definitions.reserve(names.len());
    for (file, reading) in names.iter().zip(read_all(&dir, &names, rules)) {
        definitions.take_first(file, reading);
    }
    definitions.shrink();
    Ok(definitions)
}

/// Reads these files, on all cores if they are many.
pub fn read_files(dir: &Dir, names: &[String], rules: &Rules) -> Readings {
    Readings(
        names
            .iter()
            .cloned()
            .zip(read_all(dir, names, rules))
            .collect(),
    )
}

/// Reads files on all cores; one reading for each name, in their order.
fn read_all(dir: &Dir, names: &[String], rules: &Rules) -> Vec<Reading> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = cores.min(names.len().div_ceil(BATCH)).max(1);
    let next = AtomicUsize::new(0);
    let work = || {
        let (mut done, mut pool): (Vec<(usize, Reading)>, Pool) = Default::default();
        loop {
            let start = next.fetch_add(BATCH, Ordering::Relaxed);
            if start >= names.len() {
                return done;
            }
            let end = (start + BATCH).min(names.len());
            done.extend((start..end).map(|at| (at, read_one(dir, &names[at], rules, &mut pool))));
        }
    };
    let mut readings: Vec<Reading> = Vec::new();
    readings.resize_with(names.len(), || Reading::Gone);
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut done = work();
        for other in others {
            match other.join() {
                Ok(more) => done.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        done.into_iter()
            .for_each(|(at, reading)| readings[at] = reading);
    });
    readings
}

/// Reads one file.
fn read_one(dir: &Dir, name: &str, rules: &Rules, pool: &mut Pool) -> Reading {
    match dir.read(name) {
        Ok(None) => Reading::Gone,
        Ok(Some(text)) => Reading::of(read::parse(name, &text, rules).map(|mut definition| {
            pool.share(&mut definition);
            definition
        })),
        Err(problem) => Reading::Bad(vec![problem]),
    }
}
