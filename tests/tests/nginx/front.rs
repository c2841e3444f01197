//! nginx itself, and a visitor of it.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use harness::{Answer, Host, http, seconds, send_signal, wait_for};

pub(crate) const ADDRESS: &str = "127.0.0.1:8080";

/// nginx with the shipped files; only the agent's socket and the port to listen on are put in their place.
pub(crate) struct Nginx {
    child: Child,
    dir: PathBuf,
}

impl Nginx {
    pub(crate) fn start(host: &Host) -> Self {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/nginx");
        let dir = host.dir.join("nginx");
        for part in ["conf.d", "snippets", "sites-available"] {
            fs::create_dir_all(dir.join(part)).unwrap();
            for entry in fs::read_dir(shipped.join(part)).unwrap() {
                let path = entry.unwrap().path();
                let text = fs::read_to_string(&path)
                    .unwrap()
                    .replace(
                        "/run/fastcontainer/agent.sock",
                        host.socket().to_str().unwrap(),
                    )
                    .replace(
                        "listen 80 default_server",
                        &format!("listen {ADDRESS} default_server"),
                    )
                    .replace(
                        "listen [::]:80 default_server",
                        "listen [::1]:8080 default_server",
                    );
                fs::write(dir.join(part).join(path.file_name().unwrap()), text).unwrap();
            }
        }
        let d = dir.display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|kind| format!("    {kind}_temp_path {d}/{kind};\n"))
            .collect();
        let text = format!(
            "user www-data;\nworker_processes 2;\ndaemon off;\npid {d}/pid;\nerror_log {d}/error.log;\n\
             events {{ worker_connections 1024; }}\n\
             http {{\n    access_log off;\n{temporary}    include conf.d/*.conf;\n    include sites-available/*;\n}}\n"
        );
        fs::write(dir.join("nginx.conf"), text).unwrap();
        let mut command = Command::new("nginx");
        command
            .arg("-p")
            .arg(&dir)
            .arg("-c")
            .arg(dir.join("nginx.conf"))
            .arg("-e")
            .arg(dir.join("error.log"));
        let child = command.stdin(Stdio::null()).spawn().unwrap();
        let mut nginx = Self { child, dir };
        wait_for("nginx listens", seconds(10), || {
            assert!(
                nginx.child.try_wait().unwrap().is_none(),
                "nginx ended: {}",
                nginx.log()
            );
            TcpStream::connect(ADDRESS).is_ok()
        });
        nginx
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.join("error.log")).unwrap_or_default()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        send_signal(self.child.id(), libc::SIGTERM);
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- nginx's log\n{}", self.log());
        }
    }
}

/// Sends bytes, reads the whole answer.
pub(crate) fn send(bytes: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(ADDRESS).unwrap();
    stream.set_read_timeout(Some(seconds(30))).unwrap();
    stream.write_all(bytes).unwrap();
    http::read_answer(stream).unwrap()
}

pub(crate) fn ask(host: &str, path: &str, headers: &str) -> Answer {
    send(
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n")
            .as_bytes(),
    )
}

pub(crate) fn get(host: &str) -> Answer {
    ask(host, "/", "")
}

pub(crate) fn text(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}
