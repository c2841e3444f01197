#![allow(clippy::unwrap_used)]
//! Needs root: makes control groups of its own.

use std::sync::Arc;

use cgroup::{Hierarchy, Limits, Setting, Tree};

use super::disks::Disk;
use super::model::Budget;
use super::state::State;
use crate::config::agent::Reserve;
use crate::promises::{Claim, Promise, Promises};

#[test]
fn a_group_that_cannot_be_told_keeps_no_other_from_being_told() {
    let parent = format!("fct-restand-{}", std::process::id());
    let tree = Tree::open(Hierarchy::detect().unwrap(), &parent).unwrap();
    let mut state = State::new(None, Budget::default(), false);
    let groups = ["a", "b"].map(|site| Arc::new(tree.group(&["acme", site]).unwrap()));
    for (site, group) in ["a", "b"].into_iter().zip(&groups) {
        state
            .join(site, group, &Limits::default(), Disk::None, true)
            .unwrap();
    }
    let promises = Arc::new(Promises::new(Reserve::default(), false));
    let promise = Promise {
        cpu: 1_000,
        memory: 0,
    };
    promises.place("a", "gone", Claim::from(promise));
    // Its owner's group is not there.
    let failed = state.restand(&promises, "gone", &tree);
    let told = groups.each_ref().map(|group| group.read().unwrap());
    drop(state);
    for group in groups {
        group.remove(std::time::Duration::from_secs(5)).unwrap();
    }
    tree.remove().unwrap();
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert_eq!(told[0].cpu_weight, Setting::To(10_000));
    assert_eq!(told[1].cpu_idle, Setting::To(true));
}
