//! A container's log: its lines, its bounds, and that a flood slows nobody.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::time::{Duration, Instant};

use common::*;
use shim::protocol::*;

fn files(c: &Container) -> Vec<(String, u64)> {
    let mut files: Vec<(String, u64)> = fs::read_dir(c.state.0.join("logs"))
        .unwrap()
        .map(|e| e.unwrap())
        .map(|e| {
            (
                e.file_name().into_string().unwrap(),
                e.metadata().unwrap().len(),
            )
        })
        .collect();
    files.sort();
    files
}

#[test]
fn every_line_has_time_vhost_and_stream() {
    let spawner = Spawner::new();
    let c = Site::sh("echo one; echo two >&2; printf 'no end'; printf 'a\\tb\\033[0m\\377\\n' >&2")
        .run(&spawner);
    c.wait();
    let log = c.log();
    assert_eq!(log.lines().count(), 4, "{log}");
    for line in log.lines() {
        let (time, rest) = line.split_once(' ').unwrap();
        assert!(
            time.len() == 27 && time.ends_with('Z') && time.as_bytes()[10] == b'T',
            "{line}"
        );
        assert!(
            rest.starts_with("test.example out ") || rest.starts_with("test.example err "),
            "{line}"
        );
    }
    for end in ["out one", "err two", "out no end", "err a\tb\\x1b[0m\\xff"] {
        assert!(log.lines().any(|l| l.ends_with(end)), "{end:?} in {log}");
    }
}

#[test]
fn a_log_is_continued_by_the_next_start() {
    let spawner = Spawner::new();
    let mut site = Site::sh("echo second");
    let logs = site.state.0.join("logs");
    fs::write(logs.join("current"), "first\n").unwrap();
    std::os::unix::fs::chown(
        logs.join("current"),
        Some(site.start.program.ids.base),
        None,
    )
    .unwrap();
    site.start.log.files = 1;
    let c = site.run(&spawner);
    c.wait();
    let log = c.log();
    assert!(
        log.starts_with("first\n") && log.ends_with("out second\n"),
        "{log}"
    );
}

#[test]
fn a_flood_is_bounded_and_does_not_block() {
    let spawner = Spawner::new();
    let mut site = Site::sh("timeout 2 yes flood; echo done > /site/done; echo last words >&2");
    site.start.log = LogRule {
        file_bytes: 64 << 10,
        files: 3,
        rate_bytes: 200_000,
        burst_bytes: 100_000,
    };
    // More files than the rule keeps, from earlier times.
    for n in 3..6 {
        fs::write(site.state.0.join(format!("logs/.{n}")), "old").unwrap();
    }
    let began = Instant::now();
    let c = site.run(&spawner);
    assert_eq!(c.wait(), ExitStatus::Code(0));
    assert!(
        began.elapsed() < Duration::from_secs(8) * time_scale(),
        "{:?}",
        began.elapsed()
    );
    assert!(c.documents.0.join("done").exists());
    let files = files(&c);
    assert_eq!(
        files.iter().map(|f| f.0.as_str()).collect::<Vec<_>>(),
        [".1", ".2", "current"]
    );
    assert!(files.iter().all(|f| f.1 <= 64 << 10), "{files:?}");
    let all: String = files
        .iter()
        .map(|f| c.state.read(&format!("logs/{}", f.0)))
        .collect();
    let dropped: u64 = all
        .lines()
        .filter_map(|l| {
            l.split_once("… dropped ")?
                .1
                .split(' ')
                .next()?
                .parse::<u64>()
                .ok()
        })
        .sum();
    assert!(
        dropped > 100_000 / u64::from(time_scale()),
        "the lines left out are counted: {dropped}"
    );
    assert!(all.lines().all(|l| l.contains(" out flood")
        || l.contains("… dropped ")
        || l.contains(" err last words")));
}

#[test]
fn long_lines_are_cut() {
    let spawner = Spawner::new();
    let c = Site::sh(
        "head -c 20000 /dev/zero | tr '\\0' x; echo; head -c 5000 /dev/zero; echo; echo end",
    )
    .run(&spawner);
    c.wait();
    let log = c.log();
    assert!(
        log.lines().all(|l| l.len() <= 8192 + 80),
        "{:?}",
        log.lines().map(str::len).collect::<Vec<_>>()
    );
    let long = log
        .lines()
        .filter_map(|l| l.split_once(" out x"))
        .map(|(_, rest)| 1 + rest.matches('x').count());
    assert_eq!(long.sum::<usize>(), 20_000);
    assert_eq!(log.matches("\\x00").count(), 5000);
    assert!(log.lines().any(|l| l.ends_with('…')));
    assert!(log.ends_with(" out end\n"));
}

#[test]
fn an_unwritable_log_stops_nothing() {
    let spawner = Spawner::new();
    let site = Site::sh("yes | head -c 1000000; echo done > /site/done");
    // The directory belongs to somebody else: no file can be made.
    std::os::unix::fs::chown(site.state.0.join("logs"), Some(0), Some(0)).unwrap();
    let c = site.run(&spawner);
    assert_eq!(c.wait(), ExitStatus::Code(0));
    assert!(c.documents.0.join("done").exists());
    assert!(files(&c).is_empty());
}

#[test]
fn programs_can_reopen_their_standard_error() {
    let spawner = Spawner::new();
    let c =
        Site::sh("echo through the device > /dev/stderr; echo and > /proc/self/fd/1").run(&spawner);
    assert_eq!(c.wait(), ExitStatus::Code(0), "{}", c.log());
    assert!(
        c.output().contains("through the device\n") && c.output().contains("and\n"),
        "{}",
        c.log()
    );
}
