//! A container's life: start, signals, end, and what is recorded of it.
#![allow(clippy::unwrap_used)]

mod common;

use std::os::fd::AsFd;
use std::{fs, time::Instant};

use common::*;
use rustix::process::Signal;
use shim::protocol::*;

/// Waits until the command has written a line `text`.
fn wait_for_line(c: &Container, text: &str) {
    let began = Instant::now();
    // The log is a file: there is nothing to wait on that covers rename and creation alike.
    while !c.output().lines().any(|l| l == text) {
        assert!(began.elapsed() < PATIENCE, "no {text:?} in {}", c.log());
        std::thread::yield_now();
    }
}

fn wait_until_gone(pid: i32) {
    let began = Instant::now();
    while exists(pid) {
        assert!(began.elapsed() < PATIENCE, "{pid} lives on");
        std::thread::yield_now();
    }
}

fn exists(pid: i32) -> bool {
    fs::exists(format!("/proc/{pid}")).unwrap()
}

#[test]
fn a_command_runs_and_its_end_is_recorded() {
    let (status, output) = outcome("echo out; echo err >&2; pwd; id -u; id -g; hostname; exit 7");
    assert_eq!(status, ExitStatus::Code(7));
    for line in ["out", "err", "/site", "4321", "4322", "test-example"] {
        assert!(
            output.lines().any(|l| l == line),
            "{line:?} is missing in {output}"
        );
    }
}

#[test]
fn a_killed_command_is_recorded_as_such() {
    let spawner = Spawner::new();
    let c = Site::new(&["sleep", "1000"]).try_start(&spawner).unwrap();
    let pid = c.executed().unwrap();
    // Its descriptors are closed, which is what tells us, a moment before its arguments are to be seen.
    let began = Instant::now();
    while !fs::read_to_string(format!("/proc/{pid}/cmdline"))
        .unwrap()
        .starts_with("sleep")
    {
        assert!(began.elapsed() < PATIENCE, "the reported pid");
        std::thread::yield_now();
    }
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), Signal::KILL)
        .unwrap();
    assert_eq!(c.wait(), ExitStatus::Signal(9));
}

#[test]
fn signals_reach_the_command() {
    let spawner = Spawner::new();
    let c = Site::sh(
        "for s in HUP INT QUIT USR1 USR2 WINCH ALRM; do trap \"echo got $s\" $s; done; trap 'echo bye; exit 3' TERM; \
         echo ready; while :; do read x < /site/fifo; done",
    );
    let fifo = c.documents.0.join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from(0o666),
        0,
    )
    .unwrap();
    std::os::unix::fs::chown(&fifo, Some(UID), Some(GID)).unwrap();
    let c = c.run(&spawner);
    wait_for_line(&c, "ready");
    for (signal, name) in [
        (Signal::HUP, "HUP"),
        (Signal::INT, "INT"),
        (Signal::QUIT, "QUIT"),
        (Signal::USR1, "USR1"),
        (Signal::USR2, "USR2"),
        (Signal::WINCH, "WINCH"),
        (Signal::ALARM, "ALRM"),
    ] {
        c.signal(signal);
        wait_for_line(&c, &format!("got {name}"));
    }
    c.signal(Signal::TERM);
    assert_eq!(c.wait(), ExitStatus::Code(3));
    assert!(c.output().lines().any(|l| l == "bye"), "{}", c.output());
}

#[test]
fn orphans_are_reaped_and_end_with_the_command() {
    // Twenty grandchildren are left to init; then a daemon that would never end.
    let (status, output) = outcome(
        "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do (true &) ; done; \
         while grep -qs '^State:.*Z' /proc/[0-9]*/status; do :; done; echo clean; (setsid sleep 1000 &); exit 0",
    );
    assert_eq!(status, ExitStatus::Code(0));
    assert_eq!(output, "clean\n");
}

#[test]
fn killing_init_ends_everything() {
    let spawner = Spawner::new();
    let c = Site::sh("sleep 1000 & sleep 1000").run(&spawner);
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", c.pid)).unwrap();
    let command: i32 = children.trim().parse().unwrap();
    c.signal(Signal::KILL);
    wait_readable(&c.pidfd);
    assert!(!exists(command));
    assert_eq!(c.state.read("exit"), "", "a killed init records nothing");
}

#[test]
fn a_container_outlives_the_spawner() {
    let mut spawner = Spawner::new();
    let c = Site::new(&["cat", "/site/fifo"]);
    let fifo = c.documents.0.join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from(0o666),
        0,
    )
    .unwrap();
    let c = c.run(&spawner);
    rustix::net::shutdown(&spawner.control, rustix::net::Shutdown::Both).unwrap();
    assert!(spawner.process.wait().unwrap().success());
    drop(spawner);
    // It still works, and its end is still recorded.
    fs::write(&fifo, "still here\n").unwrap();
    assert_eq!(c.wait(), ExitStatus::Code(0));
    assert_eq!(c.output(), "still here\n");
}

#[test]
fn a_failed_command_is_recorded_too() {
    let spawner = Spawner::new();
    let c = Site::new(&["no-such-command"]).try_start(&spawner).unwrap();
    c.executed().unwrap_err();
    assert_eq!(c.wait(), ExitStatus::Code(127));
}

#[test]
fn an_init_made_ahead_becomes_the_container() {
    let spawner = Spawner::new();
    let ahead = spawner.children();
    let c = Site::new(&["sleep", "1000"]).try_start(&spawner).unwrap();
    c.executed().unwrap();
    assert_eq!(ahead, [c.pid]);
    // Another takes its place.
    spawner.wait_for_ahead();
    assert_eq!(spawner.children().len(), 2);
}

#[test]
fn what_was_sent_to_an_init_that_waits_does_not_reach_its_container() {
    let spawner = Spawner::new();
    let pid = rustix::process::Pid::from_raw(spawner.children()[0]).unwrap();
    // Its child, which becomes the command, is there once init waits.
    let mut child = None;
    while child.is_none() {
        child = children(pid.as_raw_nonzero().get()).first().copied();
        std::thread::yield_now();
    }
    let child = rustix::process::Pid::from_raw(child.unwrap()).unwrap();
    for signal in [Signal::TERM, Signal::HUP] {
        rustix::process::kill_process(pid, signal).unwrap();
        rustix::process::kill_process(child, signal).unwrap();
    }
    let c = Site::sh("sleep 0.3; exit 5").run(&spawner);
    assert_eq!(c.pid, pid.as_raw_nonzero().get());
    assert_eq!(c.wait(), ExitStatus::Code(5));
}

#[test]
fn inits_made_ahead_end_with_their_sockets_not_with_the_spawner() {
    let mut spawner = Spawner::new();
    let site = Site::sh("exit 5");
    spawner.process.kill().unwrap();
    spawner.process.wait().unwrap();
    let pair = spawner.ahead.borrow_mut().pop_front().unwrap();
    // It waits for a request: there is one, which it refuses.
    let (status, theirs) = status_pair();
    let mut start = site.start.clone();
    start.fds = vec![FdRole::Status];
    let packet = postcard::to_stdvec(&Request::Start(Box::new(start))).unwrap();
    send(&pair.socket, &packet, &[theirs.as_fd()]);
    drop(theirs);
    let failure = executed(&status).unwrap_err();
    assert!(failure.object.contains("Mount(0)"), "{failure:?}");
    wait_until_gone(pair.pid);
    // And for the end.
    let spawner = Spawner::new();
    let pair = spawner.ahead.borrow_mut().pop_front().unwrap();
    assert!(spawner.children().contains(&pair.pid));
    drop(pair.socket);
    wait_until_gone(pair.pid);
}
