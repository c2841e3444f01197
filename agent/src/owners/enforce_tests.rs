#![allow(clippy::unwrap_used)]
//! Needs root: makes control groups of its own.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cgroup::{CpuLimit, Device, Group, Hierarchy, Limits, Setting, Tree};

use super::disks::{Disk, Joining};
use super::model::{Account, Budget};
use super::state::State;

/// tmpfs, btrfs, NFS and their like have such a device.
const ANONYMOUS: Disk = Disk::Of(47);

fn tree(what: &str) -> Tree {
    let parent = format!("fct-{what}-{}", std::process::id());
    Tree::open(Hierarchy::detect().unwrap(), &parent).unwrap()
}

fn budget(json: &str) -> Budget {
    serde_json::from_str(json).unwrap()
}

fn finish(tree: Tree, groups: Vec<Arc<Group>>) {
    for group in groups {
        group.remove(Duration::from_secs(5)).unwrap();
    }
    tree.remove().unwrap();
}

fn site(site: &str, disk: Disk, new: bool) -> Joining<'_> {
    Joining { site, disk, new }
}

fn cpu(percent: f64) -> Limits {
    Limits {
        cpu: Setting::To(CpuLimit::percent(percent)),
        ..Limits::default()
    }
}

#[test]
fn a_site_on_no_disk_leaves_its_owner_the_budget_and_others_their_starts() {
    let tree = tree("nodisk");
    let budget = budget(r#"{"cpu": "50%", "io": {"write": "10MB/s"}}"#);
    let mut state = State::new(None, budget, false);
    let names = ["a", "b", "c", "d"];
    let groups = names.map(|site| Arc::new(tree.group(&["acme", site]).unwrap()));
    let [a, b, c, d] = &groups;
    let mut enforce = |group: &Arc<Group>, limits: &Limits, joining: Joining<'_>| {
        state.enforce(&tree, "acme", group, limits, joining)
    };
    let none = Limits::default();
    // Taken over.
    enforce(a, &none, site("a", ANONYMOUS, false)).unwrap();
    enforce(b, &none, site("b", Disk::Unknown, false)).unwrap();
    // Refused is who cannot be bounded, alone.
    enforce(c, &none, site("c", Disk::None, true)).unwrap();
    let refused = enforce(d, &none, site("d", ANONYMOUS, true)).unwrap_err();
    // Other limits can be changed.
    let got = enforce(a, &cpu(20.0), site("a", ANONYMOUS, false)).unwrap();
    let above = tree.open_group(&["acme"]).unwrap().read().unwrap();
    let overview = state.overview();
    drop(state);
    finish(tree, groups.into());
    assert!(
        refused.to_string().contains("cannot be kept for d"),
        "{refused:#}"
    );
    assert_eq!(got.cpu.value().unwrap().quota_usec, 20_000);
    assert_eq!(above.cpu.value().unwrap().quota_usec, 50_000);
    let without: Vec<(&str, bool)> = overview
        .awake
        .iter()
        .map(|(name, awake)| (&**name, awake.without_io.is_some()))
        .collect();
    assert_eq!(without, [("a", true), ("b", true), ("c", false)]);
}

#[test]
fn a_change_that_fails_above_is_undone_below() {
    let tree = tree("undone");
    let mut state = State::new(None, budget(r#"{"cpu": "50%"}"#), false);
    let group = Arc::new(tree.group(&["acme", "a"]).unwrap());
    let first = Limits {
        pids_max: Setting::To(20),
        ..cpu(20.0)
    };
    state
        .enforce(&tree, "acme", &group, &first, site("a", Disk::None, true))
        .unwrap();
    let before = group.read().unwrap();
    let asked = state.live["a"].asked.clone();
    state.above = None;
    let change = Limits {
        memory_max: Setting::To(64 << 20),
        pids_max: Setting::To(30),
        ..cpu(40.0)
    };
    // Its owner's group is not there.
    let failed = state.enforce(&tree, "gone", &group, &change, site("a", Disk::None, false));
    let after = group.read().unwrap();
    let live = &state.live["a"];
    assert_eq!(live.told.quota(), Some(2_000));
    assert_eq!(live.asked, asked);
    drop(state);
    finish(tree, vec![group]);
    failed.unwrap_err();
    assert_eq!(after, before);
}

#[test]
fn what_the_kernel_cannot_keep_of_a_budget_stays_written() {
    let own = Account {
        budget: budget(r#"{"io": {"write": "1MB/s"}}"#),
        split: None,
    };
    let state = State::new(Some(own.clone()), Budget::default(), true);
    assert!(!state.account.budget.io.is_limited());
    assert!(!state.counted(Some(&own)).budget.io.is_limited());
    assert_eq!(state.own, Some(own));
}

#[test]
fn a_disk_is_lifted_once_all_who_may_be_on_it_are_known() {
    let budget = budget(r#"{"io": {"write": "1MB/s"}}"#);
    let mut state = State::new(None, budget, false);
    let disks = [0, 16].map(|minor| Device { major: 8, minor });
    state.bounded.extend(disks);
    state.awaited.insert("b".into());
    let (limited, over) = state.io(None).unwrap();
    let limited = limited.iter().map(|io| (io.device, io.write_bps));
    assert!(limited.eq(disks.map(|disk| (disk, Setting::To(1_000_000)))));
    assert!(over.is_empty(), "{over:?}");
    state.awaited.clear();
    let (limited, over) = state.io(None).unwrap();
    assert!(limited.is_empty(), "{limited:?}");
    assert!(over.iter().map(|io| io.device).eq(disks));
    // Without such a budget nobody has to be waited for.
    let mut state = State::new(None, Budget::default(), false);
    state.bounded.extend(disks);
    state.awaited.insert("b".into());
    assert_eq!(state.io(None).unwrap().1.len(), 2);
}

#[test]
fn sites_on_one_disk_are_bounded_there_once() {
    let Ok(device) = cgroup::block_device_of_path(Path::new("/")) else {
        return println!("SKIPPED: / is on no disk");
    };
    let number = std::os::unix::fs::MetadataExt::dev(&Path::new("/").metadata().unwrap());
    let tree = tree("onedisk");
    let mut state = State::new(None, budget(r#"{"io": {"write": "1MB/s"}}"#), false);
    let groups = ["a", "b"].map(|site| Arc::new(tree.group(&["acme", site]).unwrap()));
    for (name, group) in ["a", "b"].into_iter().zip(&groups) {
        let joining = site(name, Disk::Of(number), true);
        let none = Limits::default();
        state.enforce(&tree, "acme", group, &none, joining).unwrap();
    }
    let above = tree.open_group(&["acme"]).unwrap().read().unwrap();
    drop(state);
    finish(tree, groups.into());
    let found: Vec<_> = above
        .io
        .iter()
        .map(|io| (io.device, io.write_bps))
        .collect();
    assert_eq!(found, [(device, Setting::To(1_000_000))]);
}
