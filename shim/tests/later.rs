//! What follows the packets of a pair that was made ahead.
#![allow(clippy::unwrap_used)]

mod common;

use std::os::fd::{AsFd, OwnedFd};

use common::*;
use shim::protocol::*;

/// A site that has been given to a pair, all but what follows.
fn begun(spawner: &Spawner) -> (Pair, Container, Rest) {
    let pair = spawner.ahead.borrow_mut().pop_front().unwrap();
    let site = Site::sh("echo ran > /site/ran; exit 7");
    let (container, rest) = site.begin(spawner, &pair).unwrap();
    (pair, container, rest)
}

fn null() -> OwnedFd {
    std::fs::File::open("/dev/null").unwrap().into()
}

/// It ends without having run.
fn ends(container: &Container) {
    wait_readable(&container.pidfd);
    assert_eq!(container.documents.read("ran"), "");
}

#[test]
fn a_command_runs_once_all_is_there() {
    let spawner = Spawner::new();
    let (pair, container, rest) = begun(&spawner);
    pair.follow(&rest);
    container.executed().unwrap();
    assert_eq!(container.wait(), ExitStatus::Code(7));
    assert_eq!(container.documents.read("ran"), "ran\n");
}

#[test]
fn nothing_of_the_tenants_runs_if_nothing_follows() {
    let spawner = Spawner::new();
    let (pair, container, _rest) = begun(&spawner);
    drop(pair);
    ends(&container);
}

#[test]
fn nothing_of_the_tenants_runs_before_its_limits_are_in_force() {
    let spawner = Spawner::new();
    let (pair, container, rest) = begun(&spawner);
    let groups: Vec<_> = rest.groups.1.iter().map(AsFd::as_fd).collect();
    pair.tell(&pair.main, &Later::Join(rest.groups.0.clone()), &groups);
    // Its init has done everything else by now: it tells when its child has ended.
    let files = rest.files.1.iter().map(AsFd::as_fd);
    let all: Vec<_> = groups.iter().copied().chain(files).collect();
    let roles = [&rest.groups.0[..], &rest.files.0].concat();
    pair.tell(&pair.socket, &Later::Join(roles), &all);
    drop(pair);
    ends(&container);
    let failure = container.executed().unwrap_err();
    assert_eq!(failure.step, "wait for");
}

#[test]
fn only_what_may_follow_does() {
    type Change = fn(&mut Rest);
    let cases: [(&str, Change); 4] = [
        ("Listen does not belong here", |rest| {
            rest.files.0.push(FdRole::Listen);
            rest.files.1.push(null());
        }),
        ("no LogDir", |rest| {
            let at = rest.files.0.iter().position(|r| *r == FdRole::LogDir);
            rest.files.0.remove(at.unwrap());
            rest.files.1.remove(at.unwrap());
        }),
        ("two for ExitFile", |rest| {
            rest.files.0.push(FdRole::ExitFile);
            rest.files.1.push(null());
        }),
        ("no CgroupProcs", |rest| {
            rest.groups = (Vec::new(), Vec::new());
        }),
    ];
    for (what, change) in cases {
        let spawner = Spawner::new();
        let (pair, container, mut rest) = begun(&spawner);
        change(&mut rest);
        pair.follow(&rest);
        let failure = container.executed().unwrap_err();
        assert!(failure.object.contains(what), "{what}: {failure:?}");
        drop(pair);
        wait_readable(&container.pidfd);
    }
}

#[test]
fn a_command_takes_nothing_that_is_inits() {
    let spawner = Spawner::new();
    let pair = spawner.ahead.borrow_mut().pop_front().unwrap();
    let (status, theirs) = status_pair();
    let site = Site::sh("true");
    let run = Run {
        vhost: site.start.vhost.clone(),
        program: site.start.program.clone(),
        fds: vec![FdRole::Status, FdRole::SiteUsers],
    };
    let bytes = postcard::to_stdvec(&Request::Run(Box::new(run))).unwrap();
    send(&pair.main, &bytes, &[theirs.as_fd(), null().as_fd()]);
    drop(theirs);
    let failure = executed(&status).unwrap_err();
    assert!(failure.object.contains("SiteUsers"), "{failure:?}");
}
