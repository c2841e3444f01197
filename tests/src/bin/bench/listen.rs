//! Does a site listen? By the kernel's answer about one socket, and by reading /proc/net.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use harness::Host;
use netns::{Method, Namespace};

use crate::Effort;
use crate::report::{Figures, Row};

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

pub(crate) fn measure(effort: Effort) -> Vec<Row> {
    let host = Host::as_installed("");
    host.site("a.example.com", harness::STATIC);
    let upstream = host.dispatch("a.example.com").upstream();
    let address: std::net::SocketAddr = upstream.parse().unwrap();
    let pid = u32::try_from(host.status("a.example.com")["pid"].as_u64().unwrap()).unwrap();
    let namespace = Namespace::of_pid(pid).unwrap();
    let ip: IpAddr = address.ip();
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
    let table = times(effort.rounds(200), || {
        std::fs::read("/proc/self/net/tcp").is_ok()
    });
    // It would keep the namespace, and with it the link.
    drop(namespace);
    host.finish();
    let diag = Figures::micros("sock_diag, one socket", &diag);
    let p50 = diag.p50();
    vec![
        Row::new("listen check")
            .with(diag)
            .with(Figures::micros("/proc/PID/net, own table", &own))
            .with(Figures::micros("/proc/net, the host's table", &table))
            .at_most("p50 us", p50, 10.0),
    ]
}
