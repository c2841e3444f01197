//! Descriptors that follow a request, on its status socket.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use common::*;
use rustix::net::*;
use shim::protocol::*;

/// A site whose files follow, and those files.
fn site() -> (Site, Vec<FdRole>, Vec<OwnedFd>) {
    let mut site = Site::sh("echo ran > /site/ran; exit 7");
    site.start.joins_later = true;
    let (mut roles, mut fds) = (Vec::new(), Vec::new());
    for role in [FdRole::ExitFile, FdRole::LogDir] {
        let at = site.start.fds.iter().position(|r| *r == role).unwrap();
        roles.push(site.start.fds.remove(at));
        fds.push(site.fds.remove(at));
    }
    (site, roles, fds)
}

fn follow(container: &Container, roles: Vec<FdRole>, fds: &[OwnedFd]) {
    let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)));
    let bytes = postcard::to_stdvec(&Join { fds: roles }).unwrap();
    let bytes = [IoSlice::new(&bytes)];
    sendmsg(
        &container.status,
        &bytes,
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )
    .unwrap();
}

#[test]
fn what_follows_is_as_good_as_what_comes_at_once() {
    for spawner in [Spawner::new(), Spawner::without_ahead()] {
        let (site, roles, fds) = site();
        let container = site.try_start(&spawner).unwrap();
        follow(&container, roles, &fds);
        container.executed().unwrap();
        assert_eq!(container.wait(), ExitStatus::Code(7));
        assert_eq!(container.documents.read("ran"), "ran\n");
    }
}

#[test]
fn nothing_of_the_tenants_runs_if_nothing_follows() {
    for spawner in [Spawner::new(), Spawner::without_ahead()] {
        let (site, _, _) = site();
        let container = site.try_start(&spawner).unwrap();
        shutdown(&container.status, Shutdown::Write).unwrap();
        wait_readable(&container.pidfd);
        assert_eq!(container.documents.read("ran"), "");
    }
}

#[test]
fn only_what_may_follow_does() {
    let spawner = Spawner::new();
    let null = || -> OwnedFd { std::fs::File::open("/dev/null").unwrap().into() };
    let (early, roles, fds) = site();
    let container = early.try_start(&spawner).unwrap();
    let more = roles.into_iter().chain([FdRole::Listen]).collect();
    let fds: Vec<OwnedFd> = fds.into_iter().chain([null()]).collect();
    follow(&container, more, &fds);
    let failure = container.executed().unwrap_err();
    assert!(failure.object.contains("Listen"), "{failure:?}");
    // Files that are there already do not follow.
    let mut both = Site::sh("true");
    both.start.joins_later = true;
    let failure = both.try_start(&spawner).and_then(|c| c.executed());
    let failure = failure.unwrap_err();
    assert!(failure.object.contains("ExitFile"), "{failure:?}");
}
