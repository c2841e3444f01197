//! Network: socket lookups, nftables, forwarding.
use std::path::PathBuf;
use std::process::Command;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

use super::{Check, System};
use crate::listening::Listening;

pub(super) fn checks(system: &System) -> Vec<Check> {
    vec![
        diag(
            "sock_diag",
            ask(&inet_request()),
            "modprobe inet_diag tcp_diag; listening is found through /proc/net meanwhile, at milliseconds each",
        ),
        diag(
            "unix_diag",
            ask(&unix_request()),
            "modprobe unix_diag; Unix sockets are found through /proc/net meanwhile",
        ),
        notices(),
        nft(),
        arrivals(),
        tbf(),
        forward(system.number("proc/sys/net/ipv4/ip_forward")),
        ports(system.number("proc/sys/net/ipv4/ip_unprivileged_port_start")),
    ]
}

fn diag(name: &str, answer: Result<(), rustix::io::Errno>, advice: &str) -> Check {
    match answer {
        Ok(()) => Check::ok(name, "answers"),
        Err(e) => Check::warn(name, format!("does not answer: {e}"), advice),
    }
}

fn notices() -> Check {
    let name = "listen notices";
    match Listening::new() {
        Ok(_) => Check::ok(name, "the kernel tells when a site begins to listen"),
        Err(error) => Check::warn(
            name,
            format!("the kernel does not tell when a site begins to listen: {error}"),
            "needs Linux 5.8 with CONFIG_BPF_EVENTS, CAP_BPF and CAP_PERFMON; sites are asked every 100 µs meanwhile",
        ),
    }
}

/// SOCK_DIAG_BY_FAMILY with NLM_F_REQUEST | NLM_F_DUMP before a request.
fn message(request: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(16 + request.len());
    // At most a few dozen bytes.
    out.extend_from_slice(&(16 + request.len() as u32).to_ne_bytes());
    out.extend_from_slice(&20u16.to_ne_bytes());
    out.extend_from_slice(&0x301u16.to_ne_bytes());
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(request);
    out
}

/// inet_diag_req_v2: TCP over v4, in a state that no socket has, so that the answer is short.
fn inet_request() -> Vec<u8> {
    let mut request = vec![0; 56];
    request[0] = 2; // AF_INET
    request[1] = 6; // TCP
    request
}

/// unix_diag_req: no state at all.
fn unix_request() -> Vec<u8> {
    let mut request = vec![0; 24];
    request[0] = 1; // AF_UNIX
    request
}

/// Sends the request and looks whether an answer comes or an error.
fn ask(request: &[u8]) -> Result<(), rustix::io::Errno> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        Some(netlink::SOCK_DIAG),
    )?;
    send(&socket, &message(request), SendFlags::empty())?;
    // The kernel has queued its answer before send returns.
    let mut answer = [0; 4096];
    let (_, length) = recv(&socket, &mut answer[..], RecvFlags::DONTWAIT)?;
    error_in(&answer[..length.min(4096)]).map_or(Ok(()), Err)
}

/// The errno of NLMSG_ERROR; None if the message is anything else.
fn error_in(answer: &[u8]) -> Option<rustix::io::Errno> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let errno = i32::from_ne_bytes(answer.get(16..20)?.try_into().ok()?);
    (kind == 2 && errno != 0).then(|| rustix::io::Errno::from_raw_os_error(-errno))
}

fn nft() -> Check {
    let Some(program) = find("nft") else {
        return Check::fail(
            "nftables",
            "there is no program nft",
            "apt-get install nftables",
        );
    };
    match Command::new(&program).args(["list", "tables"]).output() {
        Ok(output) if output.status.success() => {
            Check::ok("nftables", program.display().to_string())
        }
        // Without rights nothing can be said but that it is there.
        Ok(_) if !rustix::process::geteuid().is_root() => Check::ok(
            "nftables",
            format!("{} (not tried: not root)", program.display()),
        ),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Check::fail(
                "nftables",
                format!("nft list tables: {said}"),
                "use a kernel with nf_tables (modprobe nf_tables)",
            )
        }
        Err(e) => Check::fail(
            "nftables",
            format!("{}: {e}", program.display()),
            "apt-get install --reinstall nftables",
        ),
    }
}

/// Tried without being put in force.
fn arrivals() -> Check {
    let name = "data notices";
    let rule = "add table inet fastcontainer-doctor; add chain inet fastcontainer-doctor wake; \
                add rule inet fastcontainer-doctor wake log group 64512";
    match Command::new("nft").args(["--check", rule]).output() {
        Ok(output) if output.status.success() => {
            Check::ok(name, "the kernel tells of data for sites that are frozen")
        }
        Ok(output) if rustix::process::geteuid().is_root() => Check::warn(
            name,
            format!(
                "the kernel does not tell of data for sites that are frozen: {}",
                String::from_utf8_lossy(&output.stderr)
                    .lines()
                    .next()
                    .unwrap_or_default()
            ),
            "modprobe nft_log nfnetlink_log; data on a kept connection does not wake who is frozen meanwhile",
        ),
        // There is a check of its own for the program.
        _ => Check::ok(name, "not tried"),
    }
}

/// Tried in a network namespace of its own, which is gone afterwards.
fn tbf() -> Check {
    let name = "tc-tbf";
    match netns::try_shaping() {
        Ok(()) => Check::ok(name, "limits network traffic"),
        // Without rights there is no namespace to try it in.
        Err(_) if !rustix::process::geteuid().is_root() => Check::ok(name, "not tried: not root"),
        Err(e) => Check::warn(
            name,
            format!("egress and ingress cannot be limited: {e}"),
            "modprobe sch_tbf, or use a kernel with CONFIG_NET_SCH_TBF (not one for clouds or appliances that lacks it)",
        ),
    }
}

/// A program in PATH or where system programs are.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin"].map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|p| p.is_file())
}

fn forward(value: Option<u64>) -> Check {
    match value {
        Some(1..) => Check::ok("ip_forward", "on"),
        Some(0) => Check::warn(
            "ip_forward",
            "off: sites with outbound = true reach nothing",
            "sysctl net.ipv4.ip_forward=1 (and in /etc/sysctl.d)",
        ),
        None => Check::warn(
            "ip_forward",
            "cannot be read",
            "use a kernel with IPv4, and mount /proc",
        ),
    }
}

fn ports(first: Option<u64>) -> Check {
    match first {
        Some(n) => Check::ok(
            "unprivileged ports",
            format!("from {n} on the host; sites listen on 1024 and above unless set otherwise"),
        ),
        None => Check::warn(
            "unprivileged ports",
            "cannot be read",
            "use a kernel with IPv4, and mount /proc",
        ),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::Outcome;
    use super::*;

    #[test]
    fn an_error_is_told_from_an_answer() {
        let mut refusal = message(&(-2i32).to_ne_bytes());
        refusal[4..6].copy_from_slice(&2u16.to_ne_bytes());
        assert_eq!(error_in(&refusal), Some(rustix::io::Errno::NOENT));
        assert_eq!(error_in(&message(&inet_request())), None);
        assert_eq!(error_in(b""), None);
    }

    #[test]
    fn a_family_without_diagnosis_is_refused() {
        // No protocol family has this number: the kernel itself must say no.
        let mut request = unix_request();
        request[0] = 200;
        assert!(ask(&request).is_err());
    }

    #[test]
    fn forwarding() {
        assert_eq!(forward(Some(1)).result, Outcome::Ok);
        assert_eq!(forward(Some(0)).result, Outcome::Warn);
        assert_eq!(ports(None).result, Outcome::Warn);
        assert!(find("sh").is_some());
        assert!(find("no-such-program").is_none());
    }
}
