#![allow(clippy::unwrap_used)]
//! Needs root: makes control groups of its own.

use std::sync::Arc;
use std::time::Duration;

use cgroup::{CpuLimit, Hierarchy, Limits, Setting, Tree};

use super::disks::Disk;
use super::model::{Account, Budget, Split};
use super::{Defaults, Owners};
use crate::config::agent::Reserve;
use crate::promises::Promises;

fn owners(tree: &Tree, dir: &std::path::Path) -> Owners {
    let promises = Arc::new(Promises::new(Reserve::default(), false));
    Owners::load(tree.clone(), dir.into(), Defaults::default(), promises).unwrap()
}

fn tree(what: &str) -> Tree {
    let parent = format!("fct-{what}-{}", std::process::id());
    Tree::open(Hierarchy::detect().unwrap(), &parent).unwrap()
}

#[test]
fn what_the_last_agent_left_above_is_lifted_whoever_comes_first() {
    for new in [true, false] {
        let tree = tree(if new { "left-new" } else { "left-old" });
        let dir = tempfile::tempdir().unwrap();
        let old = tree.group(&["acme", "old"]).unwrap();
        let above = tree.open_group(&["acme"]).unwrap();
        let left = Limits {
            cpu: Setting::To(CpuLimit::percent(50.0)),
            memory_max: Setting::To(512 << 20),
            cpu_weight: Setting::To(500),
            ..Limits::default()
        };
        above.apply(&left).unwrap();
        let owners = owners(&tree, dir.path());
        owners.take_over().unwrap();
        let group = Arc::new(tree.group(&["acme", "a"]).unwrap());
        owners
            .enforce(&group, &Limits::default(), Disk::None, new)
            .unwrap();
        let found = above.read().unwrap();
        drop((owners, above));
        for group in [&old, &group] {
            group.remove(Duration::from_secs(5)).unwrap();
        }
        tree.remove().unwrap();
        assert_eq!(
            (found.cpu.value(), found.memory_max.value()),
            (None, None),
            "{new}"
        );
        assert_eq!(found.cpu_weight, Setting::To(100), "{new}");
    }
}

#[test]
fn an_owners_change_keeps_what_an_operator_said_of_io() {
    let tree = tree("kept-io");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("acme.json");
    let said = r#"{"budget": {"cpu": "100%", "io": {"write": "10MB/s"}}}"#;
    std::fs::write(&file, said).unwrap();
    let owners = owners(&tree, dir.path());
    let split = Split {
        shares: [("a".to_owned(), "20%".parse().unwrap())].into(),
        ..Split::default()
    };
    let change = |own: &Account, _: &Account| {
        Ok(Account {
            split: Some(split.clone()),
            ..own.clone()
        })
    };
    let changed = owners.change("acme", false, change);
    let kept: Account = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    // More than what has been said is refused where it cannot be kept.
    let impossible = super::disks::impossible(&tree).is_some();
    let counts = owners.account("acme").budget.io.is_limited();
    let more: Budget = serde_json::from_str(r#"{"io": {"write": "20MB/s"}}"#).unwrap();
    let refused = owners.change("acme", true, |_, _| {
        Ok(Account {
            budget: more,
            split: None,
        })
    });
    drop(owners);
    tree.remove().unwrap();
    changed.unwrap();
    assert!(kept.split.is_some());
    assert_eq!(kept.budget.io.write, Some("10MB/s".parse().unwrap()));
    assert_eq!(counts, !impossible);
    assert_eq!(refused.is_err(), impossible);
}
