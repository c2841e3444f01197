//! A network namespace of its own as "the host" for each test, on a thread of its own, so that the
//! tests neither see nor change the machine's network, under nextest and under `cargo test` alike.
#![allow(dead_code, clippy::unwrap_used)]

use netns::{Host, HostConfig, Namespace, Subnet};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::time::{Duration, Instant};

/// Long enough for a local connection, short enough to wait for a dropped one.
pub(crate) const PATIENCE: Duration = Duration::from_millis(400);

/// How much slower this machine is than a real one: 1, or what the virtual machine says.
pub(crate) fn time_scale() -> u32 {
    let text = std::env::var("FASTCONTAINER_TIME_SCALE");
    text.map_or(1, |text| text.parse().unwrap())
}

/// Runs `test` on a thread inside a new network namespace, which ends with it.
pub(crate) fn as_host(test: impl FnOnce() + Send + 'static) {
    let host = Namespace::create().unwrap();
    std::thread::spawn(move || {
        enter(&host);
        // A host has IPv6, which the namespaces for containers switch off.
        let setting = "/proc/sys/net/ipv6/conf/default/disable_ipv6";
        std::fs::write(setting, "0").unwrap();
        test();
    })
    .join()
    .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// Moves the calling thread of the test.
pub(crate) fn enter(namespace: &Namespace) {
    rustix::thread::move_into_link_name_space(
        namespace.fd(),
        Some(rustix::thread::LinkNameSpaceType::Network),
    )
    .unwrap();
}

/// Runs `work` inside the namespace on a thread of its own, so that it may wait.
pub(crate) fn inside<T: Send + 'static>(
    namespace: &Namespace,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let fd = namespace.fd().try_clone_to_owned().unwrap();
    let work = move || {
        let kind = Some(rustix::thread::LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(fd.as_fd(), kind).unwrap();
        work()
    };
    std::thread::spawn(work)
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

pub(crate) fn config() -> HostConfig {
    HostConfig::with_subnet("10.88.0.0/16".parse::<Subnet>().unwrap())
}

pub(crate) fn host() -> Host {
    Host::new(config()).unwrap()
}

/// Runs a program in the calling thread's namespace; its output.
pub(crate) fn run(line: &str) -> String {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap())
        .args(words)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// A service that answers each connection with `answer`, until its thread's process ends.
pub(crate) fn serve(listener: TcpListener, answer: &'static str) {
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.write_all(answer.as_bytes());
        }
    });
}

/// What a connection to `address` from the calling thread's namespace reads; none if refused or lost.
pub(crate) fn ask(address: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

/// Whether a datagram sent to `address` arrives at `receiver`.
pub(crate) fn datagram_arrives(receiver: &UdpSocket, send: impl FnOnce()) -> bool {
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    send();
    receiver.recv(&mut [0; 16]).is_ok()
}

pub(crate) fn ping(from: &Namespace, to: &'static str) -> bool {
    inside(from, move || {
        let done = Command::new("ping")
            .args(["-c", "1", "-W", "1", "-q", to])
            .output()
            .unwrap();
        done.status.success()
    })
}

pub(crate) fn ip(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "not within 20 s: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

pub(crate) fn listener(fd: OwnedFd) -> TcpListener {
    fd.into()
}
