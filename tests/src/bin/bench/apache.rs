//! Apache with PHP: through the agent, and the same server started on the plain host.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use harness::client::Client;
use harness::{Host, OWNER};

use crate::Effort;
use crate::cold::{first_byte, stop};
use crate::report::{Figures, Row};

/// Starts the server as the site's user, asks until it answers, ends it.
fn plain(config: &Path) -> Duration {
    let mut command = Command::new("/usr/sbin/apache2");
    command
        .args(["-D", "FOREGROUND", "-f"])
        .arg(config)
        .uid(OWNER)
        .gid(OWNER)
        .process_group(0);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let began = Instant::now();
    let mut child = command.spawn().expect("apache2 starts");
    let took = loop {
        if let Ok(mut stream) = TcpStream::connect("127.0.0.1:8080") {
            let mut byte = [0];
            stream
                .write_all(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")
                .unwrap();
            stream.read_exact(&mut byte).unwrap();
            break began.elapsed();
        }
        assert!(
            began.elapsed() < harness::seconds(20),
            "apache2 does not listen"
        );
        std::thread::sleep(Duration::from_micros(100));
    };
    harness::send_signal(child.id(), libc::SIGTERM);
    child.wait().unwrap();
    took
}

/// The site's configuration with the host's paths instead of the container's.
fn plain_config(host: &Host, documents: &Path) -> PathBuf {
    let own = host.dir.join("plain");
    fs::create_dir(&own).unwrap();
    std::os::unix::fs::chown(&own, Some(OWNER), Some(OWNER)).unwrap();
    let text = fs::read_to_string(documents.join("httpd.conf")).unwrap();
    // In this order: the directories of both lie below /var/tmp.
    let text = text
        .replace("/tmp", &own.display().to_string())
        .replace("/site", &documents.display().to_string())
        .replace("/dev/stderr", "/dev/null")
        .replace("/dev/stdout", "/dev/null");
    let path = own.join("httpd.conf");
    fs::write(&path, text).unwrap();
    path
}

pub(crate) fn measure(effort: Effort) -> Vec<Row> {
    let host = Host::as_installed("");
    harness::sites::apache(
        &host,
        "php.example.com",
        "[limits]\ncpu = \"200%\"\nmemory = \"256M\"\npids = 128\n",
    );
    let config = plain_config(&host, &host.dir.join("www/php.example.com"));
    let mut client = Client::connect(&host.socket()).unwrap();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..effort.rounds(200) + 2 {
        let through = first_byte(&mut client, "php.example.com");
        stop(&mut client, "php.example.com");
        let bare = plain(&config);
        if round >= 2 {
            ours.push(through);
            theirs.push(bare);
        }
    }
    host.finish();
    let ours = Figures::millis("fastcontainer", &ours);
    let theirs = Figures::millis("the same server on the host", &theirs);
    let ratio = ours.p50() / theirs.p50();
    vec![
        Row::new("Apache + PHP, cold request to first byte")
            .with(ours)
            .with(theirs)
            .at_most("p50 against the plain host", ratio, 1.15),
    ]
}
