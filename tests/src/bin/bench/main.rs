//! The benchmark: FastContainer and its peers in turn, in one run, on the same work. Run by `scripts/bench`.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod alone;
mod apache;
mod books;
mod bundle;
mod cold;
mod connect;
mod crowd;
mod density;
mod ends;
mod exits;
mod frozen;
mod guaranteed;
mod limits;
mod listen;
mod live;
mod memory;
mod parts;
mod report;
mod room;
mod scale;
mod storm;
mod warm;

use std::path::PathBuf;

use report::{Report, Row};

/// How much is done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    quick: bool,
}

impl Effort {
    /// `full` rounds, or a tenth of them.
    pub(crate) fn rounds(self, full: usize) -> usize {
        if self.quick { full.div_ceil(10) } else { full }
    }
}

type Measure = fn(Effort) -> Vec<Row>;

/// What can be measured, by name.
const ROWS: [(&str, Measure); 18] = [
    ("cold", cold::measure),
    ("connect", connect::measure),
    ("exit", exits::measure),
    ("apache", apache::measure),
    ("warm", warm::measure),
    ("listen", listen::measure),
    ("memory", memory::measure),
    ("parts", parts::measure),
    ("scale", scale::measure),
    ("limits", limits::measure),
    ("live", live::measure),
    ("density", density::measure),
    ("crowd", crowd::measure),
    ("ends", ends::measure),
    ("storm", storm::measure),
    ("books", books::measure),
    ("guaranteed", guaranteed::measure),
    ("frozen", frozen::measure),
];

fn usage() -> ! {
    let names: Vec<&str> = ROWS.iter().map(|(name, _)| *name).collect();
    eprintln!(
        "usage: bench [--quick] [--out FILE] [ROW…]\nrows: {}",
        names.join(" ")
    );
    std::process::exit(2)
}

fn main() {
    let (mut effort, mut out, mut wanted) = (Effort { quick: false }, None, Vec::new());
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--quick" => effort.quick = true,
            "--out" => out = Some(PathBuf::from(words.next().unwrap_or_else(|| usage()))),
            name if ROWS.iter().any(|(known, _)| *known == name) => wanted.push(word),
            _ => usage(),
        }
    }
    let mut report = Report::new(effort.quick);
    for (name, measure) in ROWS {
        if wanted.is_empty() || wanted.iter().any(|w| w == name) {
            eprintln!("measuring: {name}");
            // Each on a thread of its own: an agent of the harness moves its thread to another network namespace.
            let rows = std::thread::spawn(move || measure(effort)).join();
            match rows {
                Ok(rows) => rows.into_iter().for_each(|row| report.add(row)),
                Err(_) => report.failed(name),
            }
        }
    }
    report.print();
    if let Some(path) = out {
        report.write(&path);
    }
    std::process::exit(i32::from(!report.all_pass()))
}
