//! Which kinds of sockets can be made: none that reaches the network beside its rules, or rarely used parts of the kernel.

use libc::EINVAL;

use crate::calls::refused;
use crate::report::Report;
use crate::sys::Arg::N;

pub(crate) fn check(report: &mut Report) {
    let mut open = Vec::new();
    let harmless = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6];
    for family in (1..48).filter(|family| !harmless.contains(family)) {
        for kind in [
            libc::SOCK_STREAM,
            libc::SOCK_DGRAM,
            libc::SOCK_RAW,
            libc::SOCK_SEQPACKET,
        ] {
            for protocol in 0..if family == libc::AF_NETLINK { 23 } else { 1 } {
                let route = family == libc::AF_NETLINK && protocol == libc::NETLINK_ROUTE;
                let args = [N(family as u64), N(kind as u64), N(protocol as u64)];
                // EINVAL: no such type; anything else but a refusal would be a socket.
                let (denied, why) = refused(libc::SYS_socket, &args);
                let no_type = why == std::io::Error::from_raw_os_error(EINVAL).to_string();
                if !denied && !no_type && !route {
                    open.push(format!(
                        "family {family} type {kind} protocol {protocol}: {why}"
                    ));
                }
            }
        }
    }
    report.none("socket families", &open);
    for (name, args) in [
        ("raw IPv4", [libc::AF_INET, libc::SOCK_RAW, 255]),
        ("raw ICMP", [libc::AF_INET, libc::SOCK_RAW, 1]),
        ("raw IPv6", [libc::AF_INET6, libc::SOCK_RAW, 58]),
        ("SCTP", [libc::AF_INET, libc::SOCK_STREAM, 132]),
        ("packets by the old way", [libc::AF_INET, 10, 0x0300]),
    ] {
        let (ok, detail) = refused(libc::SYS_socket, &args.map(|n| N(n as u64)));
        report.add(name, ok, detail);
    }
}
