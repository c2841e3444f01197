//! Stock servers run under the confinement, unmodified.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use common::*;
use rustix::process::Signal;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use shim::protocol::*;

/// Runs `f` in the site's network namespace.
fn inside<T: Send>(netns: &std::os::fd::OwnedFd, f: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            f()
        });
        thread.join().unwrap()
    })
}

/// Starts the site, fetches `path` from its port 8080, and stops it with `stop`.
fn fetch(site: Site, path: &str, stop: Signal) -> (String, ExitStatus) {
    let at = site
        .start
        .fds
        .iter()
        .position(|r| *r == FdRole::NetNs)
        .unwrap();
    let netns = site.fds[at].try_clone().unwrap();
    inside(&netns, || {
        assert!(
            Command::new("ip")
                .args(["link", "set", "lo", "up"])
                .status()
                .unwrap()
                .success()
        );
    });
    let spawner = Spawner::new();
    let c = site.run(&spawner);
    let began = Instant::now();
    let body = inside(&netns, || {
        loop {
            match TcpStream::connect("127.0.0.1:8080") {
                Ok(mut stream) => {
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    write!(stream, "GET {path} HTTP/1.0\r\nHost: test.example\r\n\r\n").unwrap();
                    let mut text = String::new();
                    stream.read_to_string(&mut text).unwrap();
                    return text;
                }
                Err(e) => assert!(
                    began.elapsed() < PATIENCE && !readable_now(&c),
                    "{e}: {}",
                    c.log()
                ),
            }
            std::thread::yield_now();
        }
    });
    c.signal(stop);
    let status = c.wait();
    assert!(body.starts_with("HTTP/1."), "{body}\n{}", c.log());
    (body, status)
}

fn readable_now(c: &Container) -> bool {
    readable_within(&c.pidfd, std::time::Duration::ZERO)
}

fn installed(program: &str) -> bool {
    let there = Path::new(program).exists();
    assert!(
        there || std::env::var_os("CI").is_none(),
        "{program} is needed for this test"
    );
    there
}

#[test]
fn apache_with_php() {
    if !installed("/usr/sbin/apache2") {
        println!("SKIPPED: no apache2");
        return;
    }
    let site = Site::new(&["apache2", "-D", "FOREGROUND", "-f", "/site/httpd.conf"]);
    let php = fs::read_dir("/usr/lib/apache2/modules")
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .find(|n| n.starts_with("libphp"))
        .expect("the PHP module of apache");
    let conf = format!(
        "ServerRoot /usr/lib/apache2\nServerName test.example\nListen 8080\nPidFile /run/site/pid\nMutex file:/run/site\n\
         LoadModule mpm_prefork_module modules/mod_mpm_prefork.so\nLoadModule authz_core_module modules/mod_authz_core.so\n\
         LoadModule php_module modules/{php}\nStartServers 3\nErrorLog /dev/stderr\nDocumentRoot /site\nMaxRequestWorkers 5\n\
         <Directory /site>\nRequire all granted\n</Directory>\n<FilesMatch \\.php$>\nSetHandler application/x-httpd-php\n</FilesMatch>\n"
    );
    fs::write(site.documents.0.join("httpd.conf"), conf).unwrap();
    fs::write(
        site.documents.0.join("index.php"),
        "<?php echo 'uid ', trim(`id -u`), ' ', 6*7, file_put_contents('/tmp/x', 'y');",
    )
    .unwrap();
    let mut site = site;
    site.start.program.env = vec![("PATH".into(), "/usr/sbin:/usr/bin".into())];
    let (body, status) = fetch(site, "/index.php", Signal::TERM);
    assert!(body.ends_with("uid 4321 421"), "{body}");
    assert_eq!(status, ExitStatus::Code(0));
}

#[test]
fn nginx() {
    if !installed("/usr/sbin/nginx") {
        println!("SKIPPED: no nginx");
        return;
    }
    let site = Site::new(&[
        "/usr/sbin/nginx",
        "-c",
        "/site/nginx.conf",
        "-e",
        "/dev/stderr",
    ]);
    let conf = "daemon off; worker_processes 2; pid /run/site/pid; error_log /dev/stderr; events {} \
                http { access_log /dev/stdout; client_body_temp_path /tmp/b; proxy_temp_path /tmp/p; fastcgi_temp_path /tmp/f; \
                uwsgi_temp_path /tmp/u; scgi_temp_path /tmp/s; server { listen 8080; root /site; } }";
    fs::write(site.documents.0.join("nginx.conf"), conf).unwrap();
    let (body, status) = fetch(site, "/index.html", Signal::QUIT);
    assert!(body.ends_with("hello\n"), "{body}");
    assert_eq!(status, ExitStatus::Code(0));
}

#[test]
fn a_forking_server_with_shared_memory_and_locks() {
    let script = r#"
        use IO::Socket::INET; use IPC::SysV qw(IPC_PRIVATE IPC_CREAT); use POSIX ();
        my $shm = shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0600) // die "shmget $!"; my $sem = semget(IPC_PRIVATE, 1, IPC_CREAT | 0600) // die "semget $!";
        open(my $lock, ">", "/tmp/lock") or die; flock($lock, 2) or die;
        my $s = IO::Socket::INET->new(LocalAddr => "0.0.0.0:8080", Listen => 5, ReuseAddr => 1) or die "listen $!";
        while (my $c = $s->accept) { my $pid = fork // die; if (!$pid) { <$c>; my $out = `id -u`; print $c "HTTP/1.0 200 OK\r\n\r\nforked $out"; close $c; POSIX::_exit(0) } close $c; waitpid($pid, 0); }
    "#;
    let (body, status) = fetch(Site::new(&["perl", "-e", script]), "/", Signal::TERM);
    assert!(body.ends_with("forked 4321\n"), "{body}");
    assert_eq!(status, ExitStatus::Signal(15));
}
