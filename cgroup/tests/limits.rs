//! Every limit on the real kernel: applied, read back, changed on a living group.
#![allow(clippy::unwrap_used)]

mod support;

use cgroup::{CpuLimit, Device, Error, Group, IoLimit, Limits, Setting, block_device_of_path};
use support::{Gated, TestTree};

const MIB: u64 = 1 << 20;

/// A disk whose rates can be limited: that of the working directory, or any that the host has.
fn some_disk() -> Option<Device> {
    if let Ok(device) = block_device_of_path(".".as_ref()) {
        return Some(device);
    }
    let disks = std::fs::read_dir("/sys/block").ok()?;
    disks.flatten().find_map(|d| {
        cgroup::stat::device(std::fs::read_to_string(d.path().join("dev")).ok()?.trim())
    })
}

#[test]
fn every_limit_is_in_force_and_changes_while_populated() {
    let Some(tree) = TestTree::new("all") else {
        return;
    };
    let group = tree.group(&["acme", "example.com"]).unwrap();
    let _sleeper = Gated::new(&group, "exit 0");
    let mut first = Limits {
        cpu: Setting::To(CpuLimit {
            quota_usec: 20_000,
            period_usec: 100_000,
            burst_usec: 5_000,
        }),
        cpu_weight: Setting::To(250),
        memory_max: Setting::To(64 * MIB + 123),
        pids_max: Setting::To(33),
        ..Limits::default()
    };
    let mut second = Limits {
        cpu: Setting::To(CpuLimit {
            quota_usec: 4_000,
            period_usec: 10_000,
            burst_usec: 0,
        }),
        cpu_weight: Setting::To(1),
        memory_max: Setting::To(128 * MIB),
        pids_max: Setting::To(2),
        ..Limits::default()
    };
    if let Some(device) = some_disk() {
        let (bps, iops) = (Setting::To(2_000_000), Setting::To(200));
        first.io = vec![IoLimit {
            read_bps: bps,
            write_iops: iops,
            ..IoLimit::of(device)
        }];
        second.io = vec![IoLimit {
            read_bps: Setting::Max,
            write_bps: bps,
            ..IoLimit::of(device)
        }];
    } else {
        println!("without I/O limits: no block device");
    }
    if tree.v2() {
        first.memory_high = Setting::To(48 * MIB);
        first.memory_min = Setting::To(4 * MIB);
    }
    let mut expected = first.clone();
    expected.memory_max = Setting::To(64 * MIB);
    let got = group.apply(&first).unwrap();
    assert_eq!(forget_io(got), forget_io(expected.clone()));
    let got = group.read().unwrap();
    assert_eq!(
        (got.cpu, got.cpu_weight, got.pids_max),
        (expected.cpu, expected.cpu_weight, expected.pids_max)
    );
    assert_eq!(got.memory_max, expected.memory_max);
    check_io(&group, &first);

    group.apply(&second).unwrap();
    let got = group.read().unwrap();
    assert_eq!(
        (got.cpu, got.cpu_weight, got.pids_max),
        (second.cpu, second.cpu_weight, second.pids_max)
    );
    assert_eq!(got.memory_max, second.memory_max);
    if tree.v2() {
        assert_eq!(got.memory_high, first.memory_high, "Keep keeps");
    }
    check_io(&group, &second);

    // Lifting all leaves a group like a new one.
    let fresh = tree.group(&["acme", "fresh"]).unwrap().read().unwrap();
    let max = Setting::Max;
    let lift_io = |io: &IoLimit| IoLimit {
        read_bps: max,
        write_bps: max,
        read_iops: max,
        write_iops: max,
        ..*io
    };
    let lift = Limits {
        cpu: Setting::Max,
        cpu_weight: Setting::Max,
        memory_max: max,
        memory_high: max,
        memory_min: max,
        pids_max: max,
        io: first.io.iter().map(lift_io).collect(),
        ..Limits::default()
    };
    group.apply(&lift).unwrap();
    assert_eq!(group.read().unwrap(), fresh);
}

fn forget_io(mut limits: Limits) -> Limits {
    limits.io.clear();
    limits
}

/// The rates that were asked for are those that a fresh read shows.
fn check_io(group: &Group, asked: &Limits) {
    let got = group.read().unwrap().io;
    for io in &asked.io {
        let found = got.iter().find(|g| g.device == io.device).unwrap();
        let pairs = [
            (io.read_bps, found.read_bps),
            (io.write_bps, found.write_bps),
            (io.read_iops, found.read_iops),
            (io.write_iops, found.write_iops),
        ];
        for (asked, got) in pairs {
            assert!(asked == Setting::Keep || asked == got, "{asked:?} {got:?}");
        }
    }
}

#[test]
fn memory_and_swap_go_up_and_down_in_the_right_order() {
    let Some(tree) = TestTree::new("swap") else {
        return;
    };
    let group = tree.group(&["acme", "a"]).unwrap();
    let both = |memory: u64, swap: u64| Limits {
        memory_max: Setting::To(memory * MIB),
        swap_max: Setting::To(swap * MIB),
        ..Limits::default()
    };
    if let Err(error) = group.apply(&both(64, 16)) {
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
        println!("SKIPPED: no swap accounting: {error}");
        return;
    }
    for (memory, swap) in [(256, 0), (32, 8), (32, 500), (600, 1), (20, 0)] {
        let got = group.apply(&both(memory, swap)).unwrap();
        assert_eq!(
            (got.memory_max, got.swap_max),
            (Setting::To(memory * MIB), Setting::To(swap * MIB))
        );
    }
    group.apply(&both(20, 8)).unwrap();
    // The swap that was allowed beside it stays what it was.
    group
        .apply(&Limits {
            memory_max: Setting::To(40 * MIB),
            ..Limits::default()
        })
        .unwrap();
    assert_eq!(group.read().unwrap().swap_max, Setting::To(8 * MIB));
    group
        .apply(&Limits {
            memory_max: Setting::Max,
            swap_max: Setting::Max,
            ..Limits::default()
        })
        .unwrap();
    let got = group.read().unwrap();
    assert_eq!((got.memory_max, got.swap_max), (Setting::Max, Setting::Max));
}

#[test]
fn io_weight_is_read_back_or_an_error() {
    let Some(tree) = TestTree::new("weight") else {
        return;
    };
    let group = tree.group(&["acme", "a"]).unwrap();
    match group.apply(&Limits {
        io_weight: Setting::To(50),
        ..Limits::default()
    }) {
        Ok(got) => {
            assert_eq!(got.io_weight, Setting::To(50));
            assert_eq!(group.read().unwrap().io_weight, Setting::To(50));
        }
        Err(error) => assert!(matches!(error, Error::Unsupported { .. }), "{error}"),
    }
}
