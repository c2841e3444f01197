//! What is measured, against what is wanted, as an aligned table.

use std::fmt;

use harness::Host;
use harness::limits::{SITE, set};
use serde_json::Value;

/// When a limit is given to the site.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum When {
    Start,
    Up,
    Down,
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Start => "at start",
            Self::Up => "live, up",
            Self::Down => "live, down",
        })
    }
}

/// The table of one family of limits, for one site.
pub(crate) struct Table<'a> {
    host: &'a Host,
    processes: Option<[Value; 2]>,
    rows: Vec<[String; 5]>,
    seen: Vec<(String, When)>,
}

impl<'a> Table<'a> {
    pub(crate) fn new(host: &'a Host) -> Self {
        Self {
            host,
            processes: None,
            rows: Vec::new(),
            seen: Vec::new(),
        }
    }

    /// Changes limits of the running site, whose processes stay the same ones.
    pub(crate) fn change(&mut self, words: &[&str]) {
        let before = self.processes();
        set(self.host, words);
        assert_eq!(self.processes(), before, "{words:?}: the same processes");
    }

    /// The site's processes, which are the same as ever.
    pub(crate) fn processes(&mut self) -> [Value; 2] {
        let status = self.host.status(SITE);
        assert_eq!(status["drift"], serde_json::json!([]), "{status}");
        let now = [status["pid"].clone(), status["init_pid"].clone()];
        assert!(now.iter().all(Value::is_u64), "it runs: {status}");
        let first = self.processes.get_or_insert(now.clone());
        assert_eq!(*first, now, "the same processes since its start");
        now
    }

    /// It was started again by intent.
    pub(crate) fn restarted(&mut self) {
        self.processes = None;
    }

    /// Adds a line.
    pub(crate) fn row(
        &mut self,
        limit: &str,
        when: When,
        wanted: &str,
        inside: &str,
        deviation: &str,
    ) {
        self.seen.push((limit.to_owned(), when));
        let words = [limit, &when.to_string(), wanted, inside, deviation];
        self.rows.push(words.map(str::to_owned));
    }

    /// A limit that this host does not have.
    pub(crate) fn refused(&mut self, limit: &str, when: When, wanted: &str) {
        self.row(limit, when, wanted, "refused", "as it must");
    }

    /// Exactly that.
    pub(crate) fn exact(&mut self, limit: &str, when: When, wanted: u64, inside: u64) {
        let deviation = i128::from(inside) - i128::from(wanted);
        let words = [
            wanted.to_string(),
            inside.to_string(),
            deviation.to_string(),
        ];
        self.row(limit, when, &words[0], &words[1], &words[2]);
        assert_eq!(inside, wanted, "{limit} {when}");
    }

    /// A rate or share, as near as `within`. It may be off because others keep the machine busy, or because the kernel counts
    /// in pieces of which one more or less fell into the time: then it is measured again, and two or three times as long.
    pub(crate) fn near(&mut self, cell: Cell<'_>, mut measure: impl FnMut(u32) -> f64) {
        let Cell {
            limit,
            when,
            wanted,
            unit,
            within,
        } = cell;
        let mut inside = 0.0;
        for longer in [1, 2, 2, 3, 3] {
            inside = measure(longer);
            println!("{limit} {when}: {inside:.1} {unit} of {wanted}");
            if (inside / wanted - 1.0).abs() <= within {
                break;
            }
        }
        let deviation = inside / wanted - 1.0;
        self.row(
            limit,
            when,
            &format!("{} {unit}", (wanted * 10.0).round() / 10.0),
            &format!("{inside:.1} {unit}"),
            &format!("{:+.1} %", deviation * 100.0),
        );
        assert!(
            deviation.abs() <= within,
            "{limit} {when}: {inside} instead of {wanted} {unit}, or this machine is too busy"
        );
    }

    /// Every one of these limits was seen at every time.
    pub(crate) fn finish(self, limits: &[&str]) {
        for limit in limits {
            for when in [When::Start, When::Up, When::Down] {
                let cell = ((*limit).to_owned(), when);
                assert!(self.seen.contains(&cell), "{limit} {when} is missing");
            }
        }
        assert!(
            self.seen
                .iter()
                .all(|(limit, _)| limits.contains(&limit.as_str()))
        );
    }
}

impl Drop for Table<'_> {
    /// As far as it got.
    fn drop(&mut self) {
        println!("\n{self}");
    }
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = if super::is_v2() { "v2" } else { "v1" };
        let head = [
            &format!("limit (cgroup {version})"),
            "when",
            "wanted",
            "measured inside",
            "deviation",
        ]
        .map(|s: &str| s.to_owned());
        let all = std::iter::once(&head).chain(&self.rows);
        let width = |column: usize| {
            all.clone()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: [usize; 5] = std::array::from_fn(width);
        for row in all.clone() {
            let [a, b, c, d, e] = &widths;
            writeln!(
                f,
                "{:a$}  {:b$}  {:>c$}  {:>d$}  {:>e$}",
                row[0], row[1], row[2], row[3], row[4]
            )?;
        }
        Ok(())
    }
}

/// What is measured, and how near it has to be.
#[derive(Clone, Copy)]
pub(crate) struct Cell<'a> {
    pub(crate) limit: &'a str,
    pub(crate) when: When,
    pub(crate) wanted: f64,
    pub(crate) unit: &'a str,
    pub(crate) within: f64,
}
