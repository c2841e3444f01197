//! What sites write: kept with time and name, bounded, slowing nobody.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use harness::sites::script;
use harness::{Host, STATIC, programs, seconds, wait_for};

const SITE: &str = "a.example.com";
const SERVE: &str = "busybox httpd -f -p 8080 -h /site";

fn tail(host: &Host, lines: &str) -> Vec<String> {
    let output = host.ctl(&["logs", "-n", lines, SITE]);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

/// `2026-11-22T05:51:02.123456Z a.example.com out text`.
fn checked(line: &str) -> (&str, &str) {
    let mut words = line.splitn(4, ' ');
    let (time, vhost, stream, text) = (
        words.next().unwrap(),
        words.next().unwrap(),
        words.next().unwrap(),
        words.next().unwrap_or_default(),
    );
    let digits: String = time.chars().filter(char::is_ascii_digit).collect();
    assert!(
        time.len() == 27 && time.ends_with('Z') && digits.len() == 20,
        "{line}"
    );
    assert_eq!(vhost, SITE, "{line}");
    (stream, text)
}

#[test]
fn each_line_has_time_name_and_stream() {
    let host = Host::new("");
    host.site(SITE, &script(&format!("echo one; echo two >&2; echo; printf 'no end'; sleep 0.2; echo; printf 'a\\tb\\033[2J\\n'; {SERVE}")));
    host.dispatch(SITE).upstream();
    let mut lines = Vec::new();
    wait_for("all lines are there", seconds(5), || {
        lines = tail(&host, "50");
        lines.len() >= 5
    });
    let texts: Vec<(&str, &str)> = lines.iter().map(|line| checked(line)).collect();
    let out: Vec<&str> = texts
        .iter()
        .filter(|(stream, _)| *stream == "out")
        .map(|(_, text)| *text)
        .collect();
    assert_eq!((out[0], out[1], out[2]), ("one", "", "no end"), "{lines:?}");
    assert!(texts.contains(&("err", "two")), "{lines:?}");
    // Nothing that a terminal would obey.
    assert!(!lines.concat().contains('\u{1b}'), "{lines:?}");
    assert_eq!(tail(&host, "1").len(), 1);
    // The log outlives the container.
    host.verb(SITE, "stop");
    assert!(
        tail(&host, "50")
            .iter()
            .any(|line| line.ends_with(" out one"))
    );
    host.finish();
}

#[test]
fn a_flood_is_bounded_and_slows_nobody() {
    let host = Host::new("[log]\nfile_bytes = \"64K\"\nfiles = 3\nrate = \"1MB/s\"\n");
    host.site("b.example.com", STATIC);
    host.dispatch("b.example.com").upstream();
    let median = || {
        let mut times: Vec<Duration> = (0..40)
            .map(|_| {
                let began = Instant::now();
                assert_eq!(host.get("b.example.com", "/").status, 200);
                began.elapsed()
            })
            .collect();
        times.sort();
        times[20]
    };
    let before = median();
    host.site(
        SITE,
        &format!(
            "{}[limits]\ncpu = \"30%\"\n",
            script(&format!("yes 0123456789abcdef & {SERVE}"))
        ),
    );
    host.dispatch(SITE).upstream();
    let directory = host.dir.join("state/logs").join(SITE);
    let sizes = || -> Vec<u64> {
        fs::read_dir(&directory)
            .unwrap()
            .flatten()
            .filter_map(|entry| Some(entry.metadata().ok()?.len()))
            .collect()
    };
    wait_for("it has been rotated", seconds(10), || sizes().len() == 3);
    // Not all the longer on a slow machine, whose time this takes.
    let end = Instant::now() + Duration::from_secs(3) * harness::time_scale().min(4);
    while Instant::now() < end {
        let sizes = sizes();
        assert!(
            sizes.len() <= 3 && sizes.iter().all(|size| *size <= 64 << 10),
            "{sizes:?}"
        );
    }
    let during = median();
    assert!(
        during < before * 10 + Duration::from_millis(50) * harness::time_scale(),
        "{before:?}, under the flood {during:?}"
    );
    // Still the whole lines of the last minute, each with its time.
    let lines = tail(&host, "100");
    assert_eq!(lines.len(), 100);
    let flood = lines
        .iter()
        .filter(|line| checked(line).1 == "0123456789abcdef")
        .count();
    assert!(flood >= 90, "{lines:?}");
    host.finish();
}

#[test]
fn a_log_can_be_followed() {
    let host = Host::new("");
    let documents = host.site(SITE, &script(&format!("echo old; {SERVE} & while :; do until [ -e /site/say ]; do sleep 0.05; done; mv /site/say /site/said; cat /site/said; done")));
    host.dispatch(SITE).upstream();
    wait_for("the first line", seconds(5), || tail(&host, "5").len() == 1);
    let mut follower = Command::new(&programs().ctl)
        .arg("--socket")
        .arg(host.socket())
        .args(["logs", "-f", "-n", "1", SITE])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    assert_eq!(checked(&lines.next().unwrap().unwrap()).1, "old");
    for text in ["first", "second"] {
        harness::sites::put(&documents, "new", &format!("{text}\n"));
        fs::rename(documents.join("new"), documents.join("say")).unwrap();
        assert_eq!(checked(&lines.next().unwrap().unwrap()), ("out", text));
    }
    // Over the container's end and the next one's start.
    host.verb(SITE, "restart");
    assert_eq!(checked(&lines.next().unwrap().unwrap()).1, "old");
    follower.kill().unwrap();
    follower.wait().unwrap();
    assert_eq!(
        host.ctl(&["logs", "nobody.example.com"]).status.code(),
        Some(3)
    );
    host.finish();
}
