//! Sites that do their worst, and what requests to another one take beside them.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::sites::script;
use crate::{Host, http, run, seconds};

/// A vhost, what it does beside being a server, and what `diagnose` may call that.
pub type Culprit = (&'static str, &'static str, &'static [&'static str]);

/// A fork bomb, a memory hog, a disk writer and a CPU burner.
pub const CULPRITS: [Culprit; 4] = [
    (
        "forks.example.com",
        "python3 -c '\nimport os\nwhile True:\n  try: os.fork()\n  except OSError: pass' &",
        &["forking"],
    ),
    (
        "hog.example.com",
        "(while :; do python3 -c 'x = []\nwhile True: x.append(bytearray(b\"x\" * 1000000))'; done) &",
        &["out-of-memory"],
    ),
    (
        "writer.example.com",
        "(while :; do dd if=/dev/zero of=/site/big bs=1M count=256 conv=fsync 2>/dev/null; done) &",
        &["writing", "io-bound"],
    ),
    (
        "burner.example.com",
        "for i in $(seq $(($(nproc) * 4))); do while :; do :; done & done",
        &["cpu-bound", "busy"],
    ),
];

/// Has them all do it.
pub fn begin(host: &Host) {
    for (name, busy, _) in CULPRITS {
        let documents = host.documents(name).display().to_string();
        // A server, so that the site counts as up.
        let rest = script(&format!("{busy}\nexec busybox httpd -f -p 8080 -h /site"));
        let limits = "[limits]\nmemory = \"256M\"\npids = 256\n[idle]\ntimeout = \"1h\"\n";
        host.define(
            name,
            &format!("owner = \"others\"\ndocuments = {documents:?}\n{rest}\n{limits}"),
        );
        assert_eq!(host.dispatch(name).status, 200, "{name}");
    }
}

/// Half of the CPUs, for guaranteed sites only: what a kernel that is not preempted does for the others without a pause (forks,
/// ends of large processes) is waited for by whoever is to run on the same CPU, whatever their ranks are.
#[must_use]
pub fn half_of_the_cpus() -> String {
    let stat = std::fs::read_to_string("/proc/stat").expect("/proc/stat");
    match (stat.lines().filter(|l| l.starts_with("cpu")).count() - 1) / 2 {
        0 => panic!("nothing can be divided on a host with one CPU"),
        1 => "0".to_owned(),
        half => format!("0-{}", half - 1),
    }
}

/// Times of requests in the order of their length, one after the other with a pause between.
///
/// Whoever asks is somewhere else as a rule, or is the web server in front: here the asking thread must not wait for a processor
/// itself, or its own waits would be measured. It is a real-time one on these CPUs, which are the site's.
#[must_use]
pub fn times(upstream: &str, requests: usize, cpus: Option<&str>) -> Vec<Duration> {
    let address = upstream.parse().expect("an address");
    let cpus = cpus.map(str::to_owned);
    let asking = std::thread::spawn(move || {
        let thread = rustix::thread::gettid().as_raw_nonzero().to_string();
        run("chrt", &["--fifo", "--pid", "1", &thread]);
        if let Some(cpus) = cpus {
            run("taskset", &["--cpu-list", "--pid", &cpus, &thread]);
        }
        let once = |_| {
            let began = Instant::now();
            let mut stream =
                TcpStream::connect_timeout(&address, seconds(10)).expect("a connection");
            stream
                .write_all(b"GET / HTTP/1.0\r\n\r\n")
                .expect("a request");
            let answer = http::read_answer(&mut stream).expect("an answer");
            assert_eq!(answer.status, 200);
            let took = began.elapsed();
            std::thread::sleep(Duration::from_millis(2));
            took
        };
        let mut times: Vec<Duration> = (0..requests).map(once).collect();
        times.sort();
        times
    });
    asking.join().expect("the thread that asks")
}
