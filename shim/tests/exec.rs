//! One more command in a running container.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use common::*;
use rustix::process::{Signal, pidfd_send_signal};
use shim::protocol::*;

struct Running {
    pidfd: OwnedFd,
    status: OwnedFd,
    output: std::io::PipeReader,
    exit: std::io::PipeReader,
}

impl Running {
    fn record(mut self) -> ExitStatus {
        let mut text = String::new();
        self.exit.read_to_string(&mut text).unwrap();
        text.parse::<ExitRecord>().unwrap().status
    }

    fn finish(mut self) -> (Result<i32, Failure>, String) {
        let pid = executed(&self.status);
        let mut text = String::new();
        self.output.read_to_string(&mut text).unwrap();
        wait_readable(&self.pidfd);
        (pid, text)
    }
}

fn request(c: &Container, command: &[&str], terminal: bool) -> Exec {
    Exec {
        id: next_id(),
        program: Program {
            ids: c.start.program.ids,
            command: command.iter().map(|s| (*s).to_owned()).collect(),
            env: vec![
                ("PATH".into(), "/usr/bin".into()),
                ("EXTRA".into(), "1".into()),
            ],
            workdir: "/tmp".into(),
            rlimits: vec![Rlimit {
                resource: 7,
                soft: 99,
                hard: 99,
            }],
        },
        terminal,
        fds: vec![
            FdRole::Status,
            FdRole::ExitFile,
            FdRole::Target,
            FdRole::Stdin,
            FdRole::Stdout,
            FdRole::Stderr,
        ],
    }
}

fn exec(spawner: &Spawner, c: &Container, command: &[&str], stdin: BorrowedFd<'_>) -> Running {
    exec_limited(spawner, c, command, stdin, 99)
}

/// With so many descriptors.
fn exec_limited(
    spawner: &Spawner,
    c: &Container,
    command: &[&str],
    stdin: BorrowedFd<'_>,
    files: u64,
) -> Running {
    let (status, theirs) = status_pair();
    let (output, write) = std::io::pipe().unwrap();
    let (exit, exit_write) = std::io::pipe().unwrap();
    let mut request = request(c, command, false);
    request.program.rlimits[0].soft = files;
    request.program.rlimits[0].hard = files;
    let exec = Request::Exec(Box::new(request));
    let fds = [
        theirs.as_fd(),
        exit_write.as_fd(),
        c.pidfd.as_fd(),
        stdin,
        write.as_fd(),
        write.as_fd(),
    ];
    let (_, pidfd) = spawner.ask(&exec, &fds).unwrap();
    Running {
        pidfd,
        status,
        output,
        exit,
    }
}

fn null() -> fs::File {
    fs::File::open("/dev/null").unwrap()
}

#[test]
fn few_descriptors_are_enough_whatever_the_spawner_has_open() {
    for spawner in [Spawner::new(), Spawner::without_ahead()] {
        // Each leaves its user namespaces open.
        for _ in 0..8 {
            assert_eq!(
                Site::new(&["true"]).run(&spawner).wait(),
                ExitStatus::Code(0)
            );
        }
        let mut site = Site::new(&["sleep", "1000"]);
        site.start.program.rlimits[0].soft = 16;
        site.start.program.rlimits[0].hard = 16;
        let c = site.run(&spawner);
        let limited = exec_limited(&spawner, &c, &["ls", "/proc/self/fd"], null().as_fd(), 16);
        let (pid, output) = limited.finish();
        pid.unwrap();
        assert_eq!(output, "0\n1\n2\n3\n");
    }
}

#[test]
fn it_joins_the_container_with_the_same_confinement() {
    let spawner = Spawner::new();
    let c = Site::new(&["sleep", "1000"]).run(&spawner);
    let script = "cat /proc/self/status; pwd; hostname; env; umask; readlink /proc/self/ns/{pid,mnt,user,net,ipc,uts,cgroup} | wc -l; \
                  ls /site; cat /proc/1/comm; ulimit -n; ls /proc/self/fd | wc -l; cat /proc/1/environ; cat /proc/$PPID/environ; echo end";
    let (pid, output) = exec(&spawner, &c, &["bash", "-c", script], null().as_fd()).finish();
    pid.unwrap();
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert!(
            output.contains(&format!("{set}\t0000000000000000")),
            "{set} in {output}"
        );
    }
    for line in [
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "Uid:\t4321\t4321\t4321\t4321",
        "Gid:\t4322\t4322\t4322\t4322",
    ] {
        assert!(output.contains(line), "{line} in {output}");
    }
    for line in [
        "/tmp",
        "test-example",
        "EXTRA=1",
        "0022",
        "7",
        "index.html",
        "99",
        "4",
        "end",
    ] {
        assert!(output.lines().any(|l| l == line), "{line:?} in {output}");
    }
    assert!(
        output.contains("fc:test.example"),
        "pid 1 is the container's init: {output}"
    );
}

#[test]
fn its_end_is_recorded() {
    let spawner = Spawner::new();
    let c = Site::new(&["sleep", "1000"]).run(&spawner);
    let run = |command: &[&str]| exec(&spawner, &c, command, null().as_fd());
    assert_eq!(run(&["sh", "-c", "exit 3"]).record(), ExitStatus::Code(3));
    assert_eq!(
        run(&["sh", "-c", "kill -9 $$"]).record(),
        ExitStatus::Signal(9)
    );
    assert_eq!(run(&["sh", "-c", "echo hello"]).finish().1, "hello\n");
    let failed = run(&["no-such-command"]).finish().0.unwrap_err();
    assert_eq!(
        (failed.step.as_str(), failed.errno),
        ("execute", libc::ENOENT)
    );
    assert_eq!(run(&["no-such-command"]).record(), ExitStatus::Code(127));
}

#[test]
fn it_ends_with_its_parent_and_with_the_container() {
    let spawner = Spawner::new();
    let c = Site::new(&["sleep", "1000"]).run(&spawner);
    let one = exec(&spawner, &c, &["sleep", "1001"], null().as_fd());
    let pid = executed(&one.status).unwrap();
    let command = rustix::process::pidfd_open(
        rustix::process::Pid::from_raw(pid).unwrap(),
        rustix::process::PidfdFlags::empty(),
    )
    .unwrap();
    pidfd_send_signal(&one.pidfd, Signal::KILL).unwrap();
    wait_readable(&command);
    let two = exec(&spawner, &c, &["sleep", "1002"], null().as_fd());
    executed(&two.status).unwrap();
    c.signal(Signal::KILL);
    wait_readable(&two.pidfd);
}

#[test]
fn signals_go_on_to_the_command() {
    let spawner = Spawner::new();
    let c = Site::new(&["sleep", "1000"]).run(&spawner);
    let mut e = exec(
        &spawner,
        &c,
        &[
            "perl",
            "-e",
            "$SIG{INT} = sub { print 'caught'; exit }; $| = 1; print 'ready '; sleep 100",
        ],
        null().as_fd(),
    );
    let mut ready = [0u8; 6];
    e.output.read_exact(&mut ready).unwrap();
    pidfd_send_signal(&e.pidfd, Signal::INT).unwrap();
    let (_, rest) = e.finish();
    assert_eq!(rest, "caught");
}

#[test]
fn standard_input_can_be_a_terminal() {
    let spawner = Spawner::new();
    let c = Site::new(&["sleep", "1000"]).run(&spawner);
    let master =
        rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY)
            .unwrap();
    rustix::pty::grantpt(&master).unwrap();
    rustix::pty::unlockpt(&master).unwrap();
    let name = rustix::pty::ptsname(&master, Vec::new()).unwrap();
    let slave = rustix::fs::open(
        name.as_c_str(),
        rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY,
        rustix::fs::Mode::empty(),
    )
    .unwrap();
    let (status, theirs) = status_pair();
    let (_exit, exit_write) = std::io::pipe().unwrap();
    let exec = request(
        &c,
        &[
            "sh",
            "-c",
            "test -t 0 && cut -d' ' -f7 /proc/self/stat > /tmp/tty; read line; echo got $line $(cat /tmp/tty)",
        ],
        true,
    );
    let fds = [
        theirs.as_fd(),
        exit_write.as_fd(),
        c.pidfd.as_fd(),
        slave.as_fd(),
        slave.as_fd(),
        slave.as_fd(),
    ];
    let (_, pidfd) = spawner.ask(&Request::Exec(Box::new(exec)), &fds).unwrap();
    drop((theirs, slave, exit_write));
    executed(&status).unwrap();
    rustix::io::write(&master, b"typed\n").unwrap();
    wait_readable(&pidfd);
    let mut buffer = [0u8; 1000];
    let mut text = String::new();
    // A terminal hands out piece by piece, and an error once its other side is closed.
    while let Ok(n @ 1..) = rustix::io::read(&master, &mut buffer) {
        text.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    let tty: i32 = text
        .split_ascii_whitespace()
        .last()
        .unwrap()
        .parse()
        .unwrap();
    assert!(
        text.contains("got typed") && tty != 0,
        "a controlling terminal: {text:?}"
    );
}

#[test]
fn a_target_that_has_ended_is_an_error() {
    let spawner = Spawner::new();
    let c = Site::sh("true").run(&spawner);
    c.wait();
    let e = exec(&spawner, &c, &["true"], null().as_fd());
    let failed = e.finish().0.unwrap_err();
    assert_eq!(failed.step, "enter", "{failed:?}");
    assert_eq!(failed.errno, libc::ESRCH);
}
