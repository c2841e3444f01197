//! Does a site listen? By the kernel's answer about one socket, and by reading /proc/net; while there are ever more
//! connections elsewhere on the host.

use std::net::{IpAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use harness::Host;
use netns::{Method, Namespace};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::Effort;
use crate::report::{Figures, Row};

/// How many connections of others there are at each measurement.
const FOREIGN: [usize; 3] = [0, 2_000, 8_000];

fn times(count: usize, mut ask: impl FnMut() -> bool) -> Vec<Duration> {
    assert!(ask(), "the site does not listen");
    (0..count)
        .map(|_| {
            let began = Instant::now();
            let listens = ask();
            let took = began.elapsed();
            assert!(listens);
            took
        })
        .collect()
}

/// Established connections of the namespace that the agent is in, both ends of each.
struct Foreign {
    listener: TcpListener,
    ends: Vec<[TcpStream; 2]>,
    /// How many descriptors this process was allowed before.
    allowed: (u64, u64),
}

impl Foreign {
    fn new() -> Self {
        let allowed = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, allowed.1, allowed.1).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self {
            listener,
            ends: Vec::new(),
            allowed,
        }
    }

    /// Makes as many as are missing.
    fn grow(&mut self, count: usize) {
        let address = self.listener.local_addr().unwrap();
        while self.ends.len() < count {
            let near = TcpStream::connect(address).unwrap_or_else(|e| {
                panic!(
                    "connection {} of {count}, which take two descriptors each of the {} allowed (ulimit -Hn): {e}",
                    self.ends.len(),
                    self.allowed.1
                )
            });
            self.ends.push([near, self.listener.accept().unwrap().0]);
        }
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let (soft, hard) = self.allowed;
        // Err: a lower limit is refused to nobody.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, soft, hard);
    }
}

pub(crate) fn measure(effort: Effort) -> Vec<Row> {
    let host = Host::as_installed("");
    host.site("a.example.com", harness::STATIC);
    let upstream = host.dispatch("a.example.com").upstream();
    let address: std::net::SocketAddr = upstream.parse().unwrap();
    let pid = u32::try_from(host.status("a.example.com")["pid"].as_u64().unwrap()).unwrap();
    let namespace = Namespace::of_pid(pid).unwrap();
    let ip: IpAddr = address.ip();
    let mut foreign = Foreign::new();
    let mut row = Row::new("listen check, with connections elsewhere on the host");
    let mut medians = Vec::new();
    for count in FOREIGN {
        foreign.grow(count);
        let diag = times(effort.rounds(10_000), || {
            namespace
                .diag()
                .tcp_listening(Method::SockDiag, ip, 8080)
                .unwrap()
        });
        let own = times(effort.rounds(1_000), || {
            netns::tcp_listening_proc(pid, ip, 8080).unwrap()
        });
        // A namespace whose sockets lie in the host's own table, as those that others make do.
        let table = times(effort.rounds(50), || {
            std::fs::read("/proc/self/net/tcp").is_ok()
        });
        let who = |what: &str| format!("{what}, {count} others");
        let diag = Figures::micros(&who("sock_diag"), &diag);
        medians.push(diag.p50());
        row = row
            .with(diag)
            .with(Figures::micros(&who("/proc/PID/net"), &own))
            .with(Figures::micros(&who("/proc/net, host's"), &table));
    }
    drop(foreign);
    // It would keep the namespace, and with it the link.
    drop(namespace);
    host.finish();
    let most = medians.iter().copied().fold(0.0, f64::max);
    vec![row.at_most("sock_diag, p50 us", most, 5.0).at_most(
        "sock_diag, most others against none, p50 x",
        medians[medians.len() - 1] / medians[0],
        1.2,
    )]
}
