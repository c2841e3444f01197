//! A host with services on every kind of address and two tenants, one of which looks around.

use std::fs;
use std::io::Write;
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, XattrFlags, makedev, mknodat, setxattr};
use serde_json::json;

use crate::inside::{Line, checker, report, site};
use crate::{Host, OWNER, STATIC, outside_address};

/// A greeting to everybody who connects, for as long as the test runs.
pub fn greet(listener: TcpListener) -> String {
    let address = listener
        .local_addr()
        .expect("set-up of the test")
        .to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.and_then(|mut stream| stream.write_all(b"host"));
        }
    });
    address
}

fn port(address: &str) -> &str {
    address.rsplit(':').next().expect("set-up of the test")
}

/// Things that root has put into documents, none of which may lead anywhere.
fn plant(documents: &Path) {
    for (name, mode) in [
        ("setuid-root", 0o4755),
        ("setgid-root", 0o2755),
        ("capable", 0o755),
    ] {
        let path = documents.join(name);
        fs::copy(checker(), &path).expect("set-up of the test");
        chown(&path, Some(0), Some(0)).expect("set-up of the test");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set-up of the test");
    }
    // VFS_CAP_REVISION_2 with the effective bit: all capabilities permitted.
    let all = [0x0200_0001u32, u32::MAX, 0, u32::MAX, 0];
    let value: Vec<u8> = all.iter().flat_map(|n| n.to_le_bytes()).collect();
    setxattr(
        documents.join("capable"),
        "security.capability",
        &value,
        XattrFlags::empty(),
    )
    .expect("set-up of the test");
    let mode = Mode::from_raw_mode(0o666);
    mknodat(
        CWD,
        documents.join("memory"),
        FileType::CharacterDevice,
        mode,
        makedev(1, 1),
    )
    .expect("set-up of the test");
    mknodat(
        CWD,
        documents.join("zero"),
        FileType::CharacterDevice,
        mode,
        makedev(1, 5),
    )
    .expect("set-up of the test");
    mknodat(
        CWD,
        documents.join("disk"),
        FileType::BlockDevice,
        mode,
        makedev(254, 0),
    )
    .expect("set-up of the test");
    fs::write(documents.join("secret"), "of root\n").expect("set-up of the test");
    fs::set_permissions(documents.join("secret"), fs::Permissions::from_mode(0o600))
        .expect("set-up of the test");
    // A hard link to another tenant's file, as a tenant can make where fs.protected_hardlinks is off.
    fs::write(documents.join("other.tmp"), "of another tenant\n").expect("set-up of the test");
    chown(
        documents.join("other.tmp"),
        Some(OWNER + 1),
        Some(OWNER + 1),
    )
    .expect("set-up of the test");
    fs::set_permissions(
        documents.join("other.tmp"),
        fs::Permissions::from_mode(0o600),
    )
    .expect("set-up of the test");
    fs::hard_link(documents.join("other.tmp"), documents.join("other"))
        .expect("set-up of the test");
}

/// A host with two tenants, services on every kind of address, and a site `a` that looks around.
pub struct World {
    /// The host.
    pub host: Host,
    /// What the site tries to reach.
    pub services: Vec<String>,
    datagrams: UdpSocket,
    _abstract: UnixListener,
}

/// Makes it; `rest` is the rest of the definition of `a`.
pub fn world(rest: &str) -> World {
    let host = Host::new("");
    outside_address([203, 0, 113, 1].into());
    let v4 = greet(TcpListener::bind("0.0.0.0:0").expect("set-up of the test"));
    let v6 = greet(TcpListener::bind("[::]:0").expect("set-up of the test"));
    let lo = greet(TcpListener::bind("127.0.0.1:0").expect("set-up of the test"));
    let datagrams = UdpSocket::bind("0.0.0.0:0").expect("set-up of the test");
    datagrams.set_nonblocking(true).expect("set-up of the test");
    let udp = datagrams.local_addr().expect("set-up of the test").port();
    let name = format!("fct-{}", std::process::id());
    let abstract_name =
        SocketAddr::from_abstract_name(name.as_bytes()).expect("set-up of the test");
    let listener = UnixListener::bind_addr(&abstract_name).expect("set-up of the test");
    let other = host.site("other.example.com", STATIC);
    fs::write(other.join("fct-marker"), "of the other tenant\n").expect("set-up of the test");
    let others = host.dispatch("other.example.com").upstream();
    let mut services = Vec::new();
    for address in ["10.88.255.254", "203.0.113.1", "127.0.0.1"] {
        services.extend([
            format!("{address}:{}", port(&v4)),
            format!("{address}:{}", port(&v6)),
        ]);
    }
    services.extend([
        format!("[::1]:{}", port(&v6)),
        format!("[fe80::1%2]:{}", port(&v6)),
        lo,
        others.clone(),
    ]);
    let mut absent = vec![
        host.dir.clone(),
        host.socket(),
        other,
        host.dir.join("state"),
        host.run_dir.clone(),
    ];
    if !rest.contains("template") {
        absent.push("/var/lib".into());
    }
    let targets = json!({
        "marker": "fct-marker",
        "refused": services,
        "datagrams": [format!("10.88.255.254:{udp}"), format!("203.0.113.1:{udp}"), format!("255.255.255.255:{udp}"), format!("224.0.0.1:{udp}")],
        "abstract": [name],
        "spoof": ["10.88.255.254", "203.0.113.1", others.split(':').next().expect("set-up of the test"), "8.8.8.8"],
        "spoof_to": format!("203.0.113.1:{udp}"),
        "interfaces": if rest.contains("private") { "lo" } else { "eth0 lo" },
        "absent": absent,
        "unreadable": ["/site/secret", "/site/other", "/etc/shadow"],
        "setuid": ["/site/setuid-root", "/site/setgid-root", "/site/capable"],
        "devices": ["/site/memory", "/site/zero", "/site/disk"],
    });
    let documents = site(
        &host,
        "a.example.com",
        // Looking around is no use of the site, and takes a slow machine more than a minute.
        &format!("{rest}[idle]\ntimeout = \"1h\"\n"),
    );
    plant(&documents);
    fs::write(documents.join("targets"), targets.to_string()).expect("set-up of the test");
    World {
        host,
        services,
        datagrams,
        _abstract: listener,
    }
}

impl World {
    /// The report of a program that `fastctl exec` runs as the site's user.
    pub fn as_user(&self) -> Vec<Line> {
        let output = self
            .host
            .ctl(&["exec", "a.example.com", "--", "/site/checker", "report"]);
        let (text, errors) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(output.status.success(), "{errors}\n{text}");
        report(&text)
    }

    /// The report of uid 0 of the container's user namespace: `confined` as the command is, or `bare`.
    pub fn as_root(&self, how: &str) -> Vec<Line> {
        let status = self.host.status("a.example.com");
        let init = status["init_pid"].to_string();
        let like = match how {
            "confined" => status["pid"].to_string(),
            how => how.to_owned(),
        };
        let output = Command::new(checker())
            .args(["enter", &init, &like])
            .output()
            .expect("set-up of the test");
        let (text, errors) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(output.status.success(), "{errors}\n{text}");
        report(&text)
    }

    /// Nothing that was sent has arrived.
    pub fn no_datagrams(&self) {
        let received = self.datagrams.recv_from(&mut [0; 64]);
        assert!(received.is_err(), "a datagram came from {received:?}");
    }

    /// Ends everything.
    pub fn finish(self) {
        crate::run("ip", &["link", "del", "outside"]);
        self.host.finish();
    }
}
