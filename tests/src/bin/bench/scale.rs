//! An agent with up to 100,000 definitions.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use harness::Host;

use crate::Effort;
use crate::report::{Figures, Line, Row};

const LEVELS: [usize; 4] = [1000, 10_000, 30_000, 100_000];
const IDLE: Duration = Duration::from_secs(10);

/// CPU that a process has used, clock ticks.
pub(crate) fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let rest = stat.rsplit_once(')').unwrap().1;
    let words: Vec<&str> = rest.split_ascii_whitespace().collect();
    words[11].parse::<u64>().unwrap() + words[12].parse::<u64>().unwrap()
}

/// kB of a line of /proc/PID/status.
pub(crate) fn memory(pid: u32, key: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_ascii_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap()
}

/// Whatever a start has left to do is over when two seconds in a row cost nothing.
fn quiet(pid: u32) {
    harness::wait_for("the agent is quiet", harness::seconds(60), || {
        let before = ticks(pid);
        std::thread::sleep(Duration::from_secs(2));
        ticks(pid) == before
    });
}

/// A definition as they are: names of their own, the rest much like the neighbour's.
pub(crate) fn definition(n: usize) -> String {
    let mut text = format!(
        "name = \"site{n}.example.com\"\naliases = [\"www.site{n}.example.com\"]\nowner = \"owner{}\"\n",
        n / 20
    );
    let _ = writeln!(text, "documents = \"/srv/www/site{n}.example.com\"");
    text + "command = [\"apache2\", \"-D\", \"FOREGROUND\", \"-f\", \"/site/httpd.conf\"]\nlisten = \"tcp:8080\"\n\
        [limits]\ncpu = \"20%\"\nmemory = \"256M\"\npids = 128\n[idle]\ntimeout = \"60s\"\n"
}

/// What was measured with so many definitions.
struct Level {
    /// MB.
    resident: f64,
    /// MB.
    peak: f64,
    started: Duration,
}

/// Starts the agent, which is not running, anew with these definitions too.
fn restart_with(host: &Host, definitions: std::ops::Range<usize>) -> Level {
    let count = definitions.end;
    for n in definitions {
        let file = host.dir.join(format!("vhosts.d/site{n}.example.com.toml"));
        std::fs::write(file, definition(n)).unwrap();
    }
    let began = Instant::now();
    host.start();
    let started = began.elapsed();
    let last = format!("/v1/vhosts/site{}.example.com", count - 1);
    let known = host.request("GET", &last, b"");
    assert_eq!(
        known.status,
        200,
        "{}",
        String::from_utf8_lossy(&known.body)
    );
    assert_eq!(
        host.request("GET", "/v1/status", b"").json()["vhosts"]["total"],
        count
    );
    let megabytes = |key| memory(host.pid(), key) / 1024.0;
    Level {
        resident: megabytes("VmRSS:"),
        peak: megabytes("VmHWM:"),
        started,
    }
}

pub(crate) fn measure(_: Effort) -> Vec<Row> {
    let host = Host::as_installed("");
    let empty = memory(host.pid(), "VmRSS:") / 1024.0;
    let mut resident = Line::new("registered sites", "memory of the agent (MB)", "");
    let mut start = Line::new(
        "registered sites",
        "start of the agent to its first answer (s)",
        "",
    );
    resident.add(0.0, empty);
    let mut before = 0;
    let mut last = None;
    for count in LEVELS {
        host.signal_agent(libc::SIGTERM);
        let level = restart_with(&host, before..count);
        resident.add(count as f64, level.resident);
        start.add(count as f64, level.started.as_secs_f64());
        (before, last) = (count, Some(level));
    }
    let Level {
        resident: rss,
        peak,
        started,
    } = last.unwrap();
    let started = started.as_secs_f64();
    quiet(host.pid());
    let used = ticks(host.pid());
    std::thread::sleep(IDLE);
    let used = (ticks(host.pid()) - used) as f64;
    host.finish();
    vec![
        Row::new("agent with 100,000 definitions")
            .with(Figures::new("resident", "MB", vec![rss]))
            .with(Figures::new("resident, at its peak", "MB", vec![peak]))
            .with(Figures::new(
                "resident without definitions",
                "MB",
                vec![empty],
            ))
            .with(Figures::new("start to first answer", "s", vec![started]))
            .with(Figures::new("CPU in 10 s of idleness", "ticks", vec![used]))
            .drawn(resident)
            .drawn(start)
            .at_most("resident MB", rss, 150.0)
            .at_most("start to first answer s", started, 3.0)
            .at_most("ticks in 10 s", used, 0.0),
    ]
}
