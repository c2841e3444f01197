//! An agent with 100,000 definitions.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use harness::Host;

use crate::Effort;
use crate::report::{Figures, Row};

const DEFINITIONS: usize = 100_000;
const IDLE: Duration = Duration::from_secs(10);

/// CPU that a process has used, clock ticks.
pub(crate) fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let rest = stat.rsplit_once(')').unwrap().1;
    let words: Vec<&str> = rest.split_ascii_whitespace().collect();
    words[11].parse::<u64>().unwrap() + words[12].parse::<u64>().unwrap()
}

/// kB of a line of /proc/PID/status.
fn memory(pid: u32, key: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_ascii_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap()
}

/// A definition as they are: names of their own, the rest much like the neighbour's.
fn definition(n: usize) -> String {
    let mut text = format!(
        "name = \"site{n}.example.com\"\naliases = [\"www.site{n}.example.com\"]\nowner = \"owner{}\"\n",
        n / 20
    );
    let _ = writeln!(text, "documents = \"/srv/www/site{n}.example.com\"");
    text + "command = [\"apache2\", \"-D\", \"FOREGROUND\", \"-f\", \"/site/httpd.conf\"]\nlisten = \"tcp:8080\"\n\
        [limits]\ncpu = \"20%\"\nmemory = \"256M\"\npids = 128\n[idle]\ntimeout = \"60s\"\n"
}

pub(crate) fn measure(_: Effort) -> Vec<Row> {
    let host = Host::as_installed("");
    let empty = memory(host.pid(), "VmRSS:");
    host.signal_agent(libc::SIGTERM);
    for n in 0..DEFINITIONS {
        std::fs::write(
            host.dir.join(format!("vhosts.d/site{n}.example.com.toml")),
            definition(n),
        )
        .unwrap();
    }
    let began = Instant::now();
    host.start();
    let started = began.elapsed();
    let pid = host.pid();
    let known = host.request("GET", "/v1/vhosts/site99999.example.com", b"");
    assert_eq!(
        known.status,
        200,
        "{}",
        String::from_utf8_lossy(&known.body)
    );
    assert_eq!(
        host.request("GET", "/v1/status", b"").json()["vhosts"]["total"],
        DEFINITIONS
    );
    let (rss, peak) = (
        memory(pid, "VmRSS:") / 1024.0,
        memory(pid, "VmHWM:") / 1024.0,
    );
    // Whatever the start has left to do is over when two seconds in a row cost nothing.
    harness::wait_for("the agent is quiet", harness::seconds(60), || {
        let before = ticks(pid);
        std::thread::sleep(Duration::from_secs(2));
        ticks(pid) == before
    });
    let before = ticks(pid);
    std::thread::sleep(IDLE);
    let used = ticks(pid) - before;
    host.finish();
    let used = used as f64;
    vec![
        Row::new("agent with 100,000 definitions")
            .with(Figures::new("resident", "MB", vec![rss]))
            .with(Figures::new("resident, at its peak", "MB", vec![peak]))
            .with(Figures::new(
                "resident without definitions",
                "MB",
                vec![empty / 1024.0],
            ))
            .with(Figures::new(
                "start to first answer",
                "s",
                vec![started.as_secs_f64()],
            ))
            .with(Figures::new("CPU in 10 s of idleness", "ticks", vec![used]))
            .at_most("resident MB", rss, 150.0)
            .at_most("start to first answer s", started.as_secs_f64(), 3.0)
            .at_most("ticks in 10 s", used, 0.0),
    ]
}
