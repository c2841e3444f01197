//! What can be reached.

use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixStream};
use std::time::Duration;

use rustix::net::sockopt;

use crate::report::{Report, Targets};

const PATIENCE: Duration = Duration::from_millis(700);

/// Connects and waits for the greeting that every server of the test sends at once.
fn greeted(address: &str) -> Result<String, String> {
    let address: SocketAddr = address.parse().map_err(|e| format!("{address}: {e}"))?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(|e| e.to_string())?;
    // A connection is a failure of the fence even if nobody says anything.
    let mut text = String::new();
    let _ = stream.set_read_timeout(Some(PATIENCE));
    let _ = stream.read_to_string(&mut text);
    Ok(text)
}

pub(crate) fn check(report: &mut Report, targets: &Targets) {
    for address in targets.list("refused") {
        let result = greeted(&address);
        report.add(
            &format!("reach {address}"),
            result.is_err(),
            format!("{result:?}"),
        );
    }
    for address in targets.list("open") {
        let result = greeted(&address);
        report.add(
            &format!("allowed {address}"),
            result.is_ok(),
            format!("{result:?}"),
        );
    }
    // Whether anything arrives is for the receiver to say.
    for address in targets.list("datagrams") {
        if let Ok(socket) = UdpSocket::bind("0.0.0.0:0") {
            let _ = socket.set_broadcast(true);
            let _ = socket.send_to(b"hello", &address);
        }
    }
    for name in targets.list("abstract") {
        let result = UnixAddr::from_abstract_name(name.as_bytes())
            .and_then(|a| UnixStream::connect_addr(&a));
        report.add(
            &format!("reach the abstract socket {name}"),
            result.is_err(),
            format!("{result:?}"),
        );
    }
    spoof(report, targets);
    let v6 = fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    let links: Vec<String> = v6
        .lines()
        .filter(|line| !line.trim_end().ends_with(" lo"))
        .map(str::to_owned)
        .collect();
    report.none("IPv6 addresses", &links);
    let mut names: Vec<String> = fs::read_dir("/sys/class/net")
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    report.equal(
        "interfaces",
        &names.join(" "),
        targets.text("interfaces").unwrap_or("lo"),
    );
    let sockets = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let strange: Vec<String> = sockets
        .lines()
        .skip(1)
        .filter_map(|l| l.split_whitespace().nth(7))
        .map(str::to_owned)
        .collect();
    report.none("Unix sockets with names", &strange);
}

/// Sends with addresses that are not its own, as far as the kernel lets it.
fn spoof(report: &mut Report, targets: &Targets) {
    let Some(to) = targets.text("spoof_to") else {
        return;
    };
    for from in targets.list("spoof") {
        let sent = (|| {
            let domain = rustix::net::AddressFamily::INET;
            let socket = rustix::net::socket(domain, rustix::net::SocketType::DGRAM, None)?;
            sockopt::set_ip_freebind(&socket, true)?;
            let own: SocketAddr = format!("{from}:0")
                .parse()
                .map_err(|_| rustix::io::Errno::INVAL)?;
            let to: SocketAddr = to.parse().map_err(|_| rustix::io::Errno::INVAL)?;
            rustix::net::bind(&socket, &own)?;
            rustix::net::sendto(&socket, b"spoofed", rustix::net::SendFlags::empty(), &to)
        })();
        report.add(
            &format!("send as {from}"),
            sent.is_err(),
            format!("{sent:?}"),
        );
    }
}
