//! Requests the spawner must refuse, and what it must not keep of any.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::fd::AsFd;

use common::*;
use proptest::prelude::*;
use shim::protocol::*;

fn refusal(spawner: &Spawner, change: impl FnOnce(&mut Site)) -> Failure {
    let mut site = Site::sh("true");
    change(&mut site);
    match site.try_start(spawner) {
        Err(f) => f,
        // An init that was made ahead says so itself.
        Ok(c) => c.executed().unwrap_err(),
    }
}

fn descriptors(spawner: &Spawner) -> usize {
    // An answer means that it is past its own start and everything before this.
    spawner.send(b"x", &[]);
    assert!(matches!(spawner.reply().0, Reply::Refused { .. }));
    fs::read_dir(format!("/proc/{}/fd", spawner.process.id()))
        .unwrap()
        .count()
}

#[test]
fn what_does_not_fit_is_refused_with_a_reason() {
    let spawner = Spawner::new();
    type Change = fn(&mut Site);
    let cases: [(&str, Change); 17] = [
        ("..", |s| s.start.mounts[0].target = "../usr".into()),
        ("/usr", |s| s.start.mounts[0].target = "/usr".into()),
        ("proc/x", |s| s.start.mounts[0].target = "proc/x".into()),
        ("dev", |s| s.start.writable.push(("dev/shm".into(), 0o777))),
        ("4777", |s| s.start.writable.push(("w".into(), 0o4777))),
        ("sys/x", |s| s.start.writable.push(("sys/x".into(), 0o755))),
        ("a//b", |s| {
            s.start.symlinks.push(("a//b".into(), "c".into()))
        }),
        ("0", |s| s.start.program.ids.base = 0),
        ("0", |s| s.start.program.ids.uid = 0),
        ("0", |s| s.start.program.ids.gid = 0),
        ("test\nexample", |s| s.start.vhost = "test\nexample".into()),
        ("tmp", |s| s.start.program.workdir = "tmp".into()),
        ("A=B", |s| {
            s.start.program.env.push(("A=B".into(), String::new()))
        }),
        ("no Status", |s| s.start.fds.push(FdRole::Status)),
        ("two for NetNs", |s| {
            s.pass(FdRole::NetNs, fs::File::open("/dev/null").unwrap().into())
        }),
        ("mount 9 does not exist", |s| {
            s.pass(
                FdRole::Mount(9),
                fs::File::open("/dev/null").unwrap().into(),
            )
        }),
        ("Stdin does not belong here", |s| {
            s.pass(FdRole::Stdin, fs::File::open("/dev/null").unwrap().into())
        }),
    ];
    // What the spawner keeps of helpers, it keeps from the first on.
    refusal(&spawner, cases[0].1);
    let before = descriptors(&spawner);
    for (what, change) in cases {
        let f = refusal(&spawner, change);
        assert_ne!(f.errno, 0, "{f:?}");
        // A role too many is noticed by count.
        let named = f.object.contains(what)
            || (what == "no Status" && f.object.contains("descriptors for"));
        assert!(named, "{what:?} is not named in {f:?}");
    }
    assert_eq!(
        descriptors(&spawner),
        before,
        "descriptors of refused requests"
    );
    // And it still works.
    let c = Site::sh("exit 5").run(&spawner);
    assert_eq!(c.wait(), ExitStatus::Code(5));
}

#[test]
fn too_many_descriptors_are_refused() {
    let spawner = Spawner::new();
    let null = fs::File::open("/dev/null").unwrap();
    let before = descriptors(&spawner);
    spawner.send(b"x", &vec![null.as_fd(); 100]);
    let (reply, _) = spawner.reply();
    assert!(matches!(reply, Reply::Refused { .. }), "{reply:?}");
    assert_eq!(descriptors(&spawner), before);
}

#[test]
fn nothing_remains_of_finished_containers() {
    let spawner = Spawner::new();
    let site = || {
        let mut site = Site::sh("true");
        let wanted = Ids {
            base: 0x3fff_0000,
            uid: UID,
            gid: GID,
            direct: false,
        };
        std::os::unix::fs::chown(
            site.state.0.join("logs"),
            Some(wanted.base),
            Some(wanted.base),
        )
        .unwrap();
        site.start.program.ids = wanted;
        site
    };
    let count = |spawner: &Spawner| {
        spawner.wait_for_ahead();
        descriptors(spawner)
    };
    site().run(&spawner).wait();
    let before = count(&spawner);
    for _ in 0..30 {
        site().run(&spawner).wait();
    }
    assert_eq!(count(&spawner), before);
    // The one made ahead.
    assert_eq!(
        spawner.children().len(),
        1,
        "no process is left, no zombie either"
    );
    // Nor of any site.
    for i in 0..70 {
        let mut s = Site::sh("true");
        s.start.program.ids.base = 0x3000_0000 + i * Ids::RANGE;
        s.try_start(&spawner).unwrap().executed().unwrap();
    }
    assert_eq!(descriptors(&spawner), before);
}

#[test]
fn garbage_never_ends_the_spawner() {
    let spawner = Spawner::new();
    let null = fs::File::open("/dev/null").unwrap();
    let valid = {
        let site = Site::sh("true");
        postcard::to_stdvec(&Request::Start(Box::new(site.start.clone()))).unwrap()
    };
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 500,
        ..ProptestConfig::default()
    });
    let mutations = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8);
    let strategy = (
        mutations,
        proptest::collection::vec(any::<u8>(), 1..300),
        any::<bool>(),
        0usize..4,
    );
    let tested = runner.run(&strategy, |(mutations, noise, mutate, fds)| {
        let packet = if mutate {
            let mut p = valid.clone();
            for (at, byte) in mutations {
                let at = at.index(p.len());
                p[at] = byte;
            }
            p
        } else {
            noise
        };
        spawner.send(&packet, &vec![null.as_fd(); fds]);
        // Never started: the descriptors do not match the roles. Two numbers may be a request for an init made ahead,
        // which ends with its socket.
        let started = matches!(spawner.reply().0, Reply::Started { .. });
        prop_assert!(!started);
        Ok(())
    });
    tested.unwrap();
    assert_eq!(Site::sh("exit 5").run(&spawner).wait(), ExitStatus::Code(5));
}
