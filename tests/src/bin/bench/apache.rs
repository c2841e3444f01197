//! PHP behind Apache, and behind nginx: through the agent, and the same servers started on the plain host.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use harness::client::Client;
use harness::{Host, OWNER, sites};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::Effort;
use crate::cold::{ask, first_byte, stop};
use crate::report::{Figures, Row};

const LIMITS: &str = "[limits]\ncpu = \"200%\"\nmemory = \"256M\"\npids = 128\n";
const APACHE: [&str; 5] = ["apache2", "-D", "FOREGROUND", "-f", "/site/httpd.conf"];
const NGINX: [&str; 3] = ["/bin/sh", "-c", sites::NGINX];

/// A site's servers on the plain host.
struct Plain {
    command: Vec<String>,
    /// Holds what its container's `/site` and `/tmp` are.
    own: PathBuf,
}

impl Plain {
    /// With a copy of these documents, in which the host's paths are instead of the container's.
    fn new(host: &Host, documents: &Path, command: &[&str]) -> Self {
        let own = host
            .dir
            .join("plain")
            .join(documents.file_name().expect("a site's name"));
        for dir in [own.join("tmp"), own.join("site")] {
            fs::create_dir_all(&dir).unwrap();
            chown(&dir, Some(OWNER), Some(OWNER)).unwrap();
        }
        // In this order: those of both lie below /var/tmp.
        let on_host = |text: &str| {
            let [tmp, site] = ["tmp", "site"].map(|name| own.join(name).display().to_string());
            text.replace("/tmp", &tmp).replace("/site", &site)
        };
        for entry in fs::read_dir(documents).unwrap() {
            let from = entry.unwrap().path();
            let text = on_host(&fs::read_to_string(&from).unwrap());
            let name = from.file_name().unwrap().to_str().unwrap();
            sites::put(&own.join("site"), name, &text);
        }
        let command = command.iter().map(|word| on_host(word)).collect();
        Self { command, own }
    }

    /// Starts the servers as the site's user, asks until they answer, ends them.
    fn first_byte(&self) -> Duration {
        let mut command = Command::new(&self.command[0]);
        command
            .args(&self.command[1..])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .uid(OWNER)
            .gid(OWNER)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let began = Instant::now();
        let mut child = command.spawn().expect("the server starts");
        let took = loop {
            if let Ok(stream) = TcpStream::connect("127.0.0.1:8080") {
                break ask(stream, began);
            }
            assert!(
                began.elapsed() < harness::seconds(20),
                "{:?}: nobody listens",
                self.command
            );
            std::thread::sleep(Duration::from_micros(100));
        };
        harness::send_signal(child.id(), libc::SIGTERM);
        child.wait().unwrap();
        self.end_behind();
        took
    }

    /// Ends a server that has gone to the background.
    fn end_behind(&self) {
        let Ok(text) = fs::read_to_string(self.own.join("tmp/php-fpm.pid")) else {
            return;
        };
        let pid = Pid::from_raw(text.trim().parse().unwrap()).unwrap();
        let process = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        pidfd_send_signal(&process, Signal::TERM).unwrap();
        let ended = poll(&mut [PollFd::new(&process, PollFlags::IN)], None).unwrap();
        assert_eq!(ended, 1);
    }
}

/// One after the other, in turn, so that whatever else the machine does meets both alike.
fn compared(host: &Host, what: &str, vhost: &str, plain: &Plain, rounds: usize) -> Row {
    let mut client = Client::connect(&host.socket()).unwrap();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..rounds + 2 {
        let through = first_byte(&mut client, vhost);
        stop(&mut client, vhost);
        let bare = plain.first_byte();
        if round >= 2 {
            ours.push(through);
            theirs.push(bare);
        }
    }
    let ours = Figures::millis("fastcontainer", &ours);
    let theirs = Figures::millis("the same started on the host", &theirs);
    let ratio = ours.p50() / theirs.p50();
    let late = ours.at(99) / theirs.at(99);
    Row::new(&format!("{what}, cold request to first byte"))
        .with(ours)
        .with(theirs)
        .with(Figures::new("p99 against the plain host", "x", vec![late]))
        .at_most("p50 against the plain host", ratio, 1.05)
}

pub(crate) fn measure(effort: Effort) -> Vec<Row> {
    let host = Host::as_installed("");
    let rounds = effort.rounds(200);
    let apache = host.documents("apache.example.com");
    sites::apache_files(&apache);
    let nginx = host.documents("nginx.example.com");
    sites::nginx_files(&nginx);
    let servers: [(_, _, &[&str]); 2] = [
        ("Apache + PHP", apache, &APACHE),
        ("nginx + php-fpm", nginx, &NGINX),
    ];
    let rows = servers.map(|(what, documents, command)| {
        let vhost = documents.file_name().unwrap().to_str().unwrap();
        let rest = format!("command = {command:?}\nlisten = \"tcp:8080\"\n{LIMITS}");
        host.define(vhost, &Host::definition(&documents, &rest));
        let plain = Plain::new(&host, &documents, command);
        compared(&host, what, vhost, &plain, rounds)
    });
    host.finish();
    rows.into()
}
