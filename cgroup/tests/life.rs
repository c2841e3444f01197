//! Making, freezing, killing, listing and removing groups on the real kernel.
#![allow(clippy::unwrap_used)]

mod support;

use cgroup::{Error, Group, Hierarchy, Limits, Setting, Tree, Version};
use std::io::Write;
use std::time::{Duration, Instant};
use support::{Gated, SOON, TestTree};

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let Some(tree) = TestTree::new("names") else {
        return;
    };
    for bad in [
        &["a/b"][..],
        &[".."],
        &["a", "."],
        &[""],
        &["memory.max"],
        &["cgroup.procs"],
        &["a\0"],
        &[],
    ] {
        assert!(
            matches!(tree.group(bad), Err(Error::InvalidName { .. })),
            "{bad:?}"
        );
        assert!(
            matches!(tree.open_group(bad), Err(Error::InvalidName { .. })),
            "{bad:?}"
        );
    }
    assert!(matches!(
        Tree::open(Hierarchy::detect().unwrap(), "a/../b"),
        Err(Error::InvalidName { .. })
    ));
    assert_eq!(tree.existing().unwrap(), Vec::<Vec<String>>::new());
}

#[test]
fn frozen_means_no_cpu_time_and_thawed_means_some() {
    let Some(tree) = TestTree::new("freeze") else {
        return;
    };
    let group = tree.group(&["acme", "a"]).unwrap();
    let mut burner = Gated::new(&group, "echo on; while :; do :; done");
    burner.go();
    assert_eq!(burner.line(), "on");
    for _ in 0..20 {
        group.freeze(SOON).unwrap();
        assert!(group.is_frozen().unwrap());
        let before = group.usage().unwrap().cpu_usec.unwrap();
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(group.usage().unwrap().cpu_usec.unwrap(), before);
        group.thaw(SOON).unwrap();
        assert!(!group.is_frozen().unwrap());
        let deadline = Instant::now() + SOON;
        while group.usage().unwrap().cpu_usec.unwrap() == before {
            assert!(Instant::now() < deadline, "it does not run again");
            std::thread::yield_now();
        }
    }
}

#[test]
fn kill_ends_a_frozen_tree_of_processes() {
    let Some(tree) = TestTree::new("kill") else {
        return;
    };
    let group = tree.group(&["acme", "a"]).unwrap();
    let mut parent = Gated::new(
        &group,
        "sleep 600 & sleep 600 & (sleep 600 & sleep 600) & echo on; wait",
    );
    parent.go();
    assert_eq!(parent.line(), "on");
    assert!(group.populated().unwrap());
    assert!(group.pids().unwrap().len() >= 4);
    group.freeze(SOON).unwrap();
    assert!(matches!(
        group.wait_empty(Duration::from_millis(20)),
        Err(Error::Timeout { state: "empty", .. })
    ));
    group.kill().unwrap();
    group.wait_empty(SOON).unwrap();
    assert!(!group.populated().unwrap());
    assert_eq!(group.pids().unwrap(), Vec::<i32>::new());
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(parent.wait().signal(), Some(9));
}

#[test]
fn a_process_joins_by_itself() {
    let Some(tree) = TestTree::new("join") else {
        return;
    };
    let group = tree.group(&["acme", "a"]).unwrap();
    let files = group.join_files().unwrap();
    assert_eq!(files.is_empty(), tree.v2());
    // A shell is handed each file as its stdout in turn.
    for file in files {
        let mut shell = std::process::Command::new("sh")
            .args(["-c", "echo 0; read gate"])
            .stdin(std::process::Stdio::piped())
            .stdout(file)
            .spawn()
            .unwrap();
        let pid = i32::try_from(shell.id()).unwrap();
        let deadline = Instant::now() + SOON;
        while !group.pids().unwrap().contains(&pid) {
            assert!(Instant::now() < deadline, "it has not joined");
            std::thread::yield_now();
        }
        shell.stdin.take().unwrap().write_all(b"\n").unwrap();
        shell.wait().unwrap();
    }
}

#[test]
fn removal_waits_and_names_who_is_left() {
    let Some(tree) = TestTree::new("remove") else {
        return;
    };
    let group = tree.group(&["acme", "a"]).unwrap();
    let mut busy = Gated::new(&group, "exit 0");
    let text = group
        .remove(Duration::from_millis(30))
        .unwrap_err()
        .to_string();
    assert!(text.contains(&busy.child.id().to_string()), "{text}");
    assert_eq!(tree.existing().unwrap(), [["acme", "a"]]);
    // It ends while the removal is waiting for it.
    busy.go();
    group.remove(SOON).unwrap();
    group.remove(SOON).unwrap();
    assert_eq!(tree.existing().unwrap(), Vec::<Vec<String>>::new());
    let error = tree.open_group(&["acme", "a"]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(2));
    busy.wait();
    tree.forget();
}

#[test]
fn orphans_are_listed_even_if_only_one_hierarchy_has_them() {
    let Some(tree) = TestTree::new("orphan") else {
        return;
    };
    tree.group(&["acme", "a"]).unwrap();
    tree.group(&["acme", "b"]).unwrap();
    tree.group(&["other"]).unwrap();
    let parent = format!("fctest-{}-orphan", std::process::id());
    let host = tree.hierarchy();
    let mount = match host.version() {
        Version::V2 => host.v2_mount().unwrap().to_owned(),
        Version::Hybrid => host
            .v1_mounts()
            .find(|(p, _)| p.ends_with("memory"))
            .unwrap()
            .0
            .to_owned(),
    };
    std::fs::create_dir(mount.join(&parent).join("acme/only-here")).unwrap();
    let names: Vec<String> = tree
        .existing()
        .unwrap()
        .iter()
        .map(|p| p.join("/"))
        .collect();
    assert_eq!(names, ["acme/a", "acme/b", "acme/only-here", "other"]);
    let orphan = tree.open_group(&["acme", "only-here"]).unwrap();
    orphan.kill().unwrap();
    orphan.remove(SOON).unwrap();
    assert_eq!(tree.existing().unwrap().len(), 3);
}

#[test]
fn whoever_is_only_in_a_part_of_a_group_holds_up_its_removal_and_is_killed() {
    let Some(tree) = TestTree::new("part") else {
        return;
    };
    let host = tree.hierarchy();
    if host.version() == Version::V2 {
        println!("SKIPPED: a group has no parts on cgroup v2");
        return;
    }
    let parent = format!("fctest-{}-part", std::process::id());
    let group = tree.group(&["a"]).unwrap();
    let mut process = std::process::Command::new("sleep")
        .arg("1000")
        .spawn()
        .unwrap();
    // The last hierarchy, so that all others are removed by the time this one refuses.
    let place = host
        .v1_mounts()
        .map(|(mount, _)| mount.join(&parent).join("a"))
        .filter(|place| place.is_dir())
        .last()
        .unwrap();
    std::fs::write(place.join("cgroup.procs"), process.id().to_string()).unwrap();
    assert!(!group.remove_if_empty().unwrap());
    assert!(group.populated().unwrap());
    group.kill().unwrap();
    assert!(!process.wait().unwrap().success());
    group.wait_empty(SOON).unwrap();
    assert!(!group.populated().unwrap());
    group.remove(SOON).unwrap();
}

#[test]
fn siblings_come_and_go_at_once() {
    let Some(tree) = TestTree::new("race") else {
        return;
    };
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let tree = &tree;
            scope.spawn(move || {
                let name = format!("site-{thread}");
                for round in 0..200 {
                    let group = tree
                        .group(&["acme", &name])
                        .unwrap_or_else(|e| panic!("round {round}: {e}"));
                    let limits = Limits {
                        pids_max: Setting::To(10 + round),
                        ..Limits::default()
                    };
                    group
                        .apply(&limits)
                        .unwrap_or_else(|e| panic!("round {round}: {e}"));
                    group
                        .remove(SOON)
                        .unwrap_or_else(|e| panic!("round {round}: {e}"));
                }
            });
        }
    });
    assert_eq!(tree.existing().unwrap(), Vec::<Vec<String>>::new());
    tree.forget();
}

#[test]
fn the_parent_may_have_levels_and_outlives_the_process_that_made_it() {
    if TestTree::new("levels").is_none() {
        return;
    }
    let top = format!("fctest-{}-deep", std::process::id());
    let parent = format!("{top}/b/c");
    let first = Tree::open(Hierarchy::detect().unwrap(), &parent).unwrap();
    let group = first.group(&["acme", "a"]).unwrap();
    assert!(group.made_above());
    assert!(!first.group(&["acme", "b"]).unwrap().made_above());
    drop(first);
    let second = Tree::open(Hierarchy::detect().unwrap(), &parent).unwrap();
    let text = second.remove().unwrap_err().to_string();
    assert!(text.contains("stop them first"), "{text}");
    for path in second.existing().unwrap() {
        second.open_group(&path).unwrap().remove(SOON).unwrap();
    }
    second.remove().unwrap();
    let host = Hierarchy::detect().unwrap();
    let mounts = host.v1_mounts().map(|(p, _)| p).chain(host.v2_mount());
    for mount in mounts {
        assert!(!mount.join(&top).exists(), "{}", mount.display());
    }
}

#[test]
fn favordynmods_can_be_had() {
    let Some(tree) = TestTree::new("dynmods") else {
        return;
    };
    let _guard = tree.favor_dynmods().unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(
        !mounts.contains("name=fastcontainer"),
        "it must be mounted nowhere"
    );
}

#[test]
fn a_note_stays_with_the_group_and_goes_with_it() {
    let Some(tree) = TestTree::new("note") else {
        return;
    };
    let group = tree.group(&["acme", "a"]).unwrap();
    assert_eq!(group.note().unwrap(), None);
    group.set_note("first").unwrap();
    group.set_note("second").unwrap();
    let again = tree.open_group(&["acme", "a"]).unwrap();
    assert_eq!(again.note().unwrap().as_deref(), Some("second"));
    // Too long to be a note of ours.
    group.set_note(&"x".repeat(300)).unwrap();
    assert_eq!(group.note().unwrap(), None);
    drop((group, again));
    tree.open_group(&["acme", "a"])
        .unwrap()
        .remove(SOON)
        .unwrap();
    assert_eq!(tree.group(&["acme", "a"]).unwrap().note().unwrap(), None);
}

#[test]
fn the_clock_above_goes_on_while_anything_below_runs() {
    let Some(tree) = TestTree::new("clock") else {
        return;
    };
    let [group, sibling] = ["a", "b"].map(|name| tree.group(&["acme", name]).unwrap());
    let clock = group.clock_above().unwrap().unwrap();
    let own = |group: &Group| group.cpu_usec().unwrap().unwrap();
    let mut burner = Gated::new(&sibling, "while read -r line; do echo $line; done");
    burner.go();
    for _ in 0..20 {
        let (stood, before) = (clock.usec().unwrap().unwrap(), own(&sibling));
        let deadline = Instant::now() + SOON;
        // Once may be too little to be counted, where the clock is coarse.
        while own(&sibling) == before {
            assert!(Instant::now() < deadline, "it has run");
            burner.go();
            assert_eq!(burner.line(), "go");
        }
        assert!(clock.usec().unwrap().unwrap() > stood);
    }
    assert_eq!(own(&group), 0);
    sibling.freeze(SOON).unwrap();
    let stands = clock.usec().unwrap();
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(clock.usec().unwrap(), stands);
    sibling.thaw(SOON).unwrap();
    drop(burner);
    // What has ended is still counted, and the group has to be there.
    sibling.wait_empty(SOON).unwrap();
    sibling.remove(SOON).unwrap();
    assert!(clock.usec().unwrap() >= stands);
    let above = tree.open_group(&["acme"]).unwrap().clock_above();
    assert!(above.unwrap().unwrap().usec().unwrap() >= stands);
    assert!(tree.parent().unwrap().clock_above().unwrap().is_none());
    group.remove(SOON).unwrap();
    assert!(clock.usec().is_err());
}

#[test]
fn a_group_that_was_removed_is_not_the_next_one_of_its_name() {
    let Some(tree) = TestTree::new("again") else {
        return;
    };
    let old = tree.group(&["acme", "a"]).unwrap();
    assert!(old.remove_if_empty().unwrap());
    let new = tree.group(&["acme", "a"]).unwrap();
    let limits = Limits {
        pids_max: Setting::To(7),
        ..Limits::default()
    };
    new.apply(&limits).unwrap();
    let other = Limits {
        pids_max: Setting::To(9),
        ..Limits::default()
    };
    assert!(old.apply(&other).is_err());
    assert!(old.usage().is_err() && old.freeze(SOON).is_err());
    let mut inside = Gated::new(&new, "echo on; read end");
    inside.go();
    assert_eq!(inside.line(), "on");
    // Err: there is nothing to kill.
    let _ = old.kill();
    assert_eq!(new.read().unwrap().pids_max, Setting::To(7));
    assert_eq!(new.pids().unwrap().len(), 1);
    new.kill().unwrap();
    new.wait_empty(SOON).unwrap();
    // Another value of the same group finds it gone as the kernel says it.
    let last = tree.open_group(&["acme", "a"]).unwrap();
    new.remove_alone(SOON).unwrap();
    assert!(last.usage().is_err() && last.remove_if_empty().unwrap());
}
