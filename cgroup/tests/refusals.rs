//! What is refused or fails leaves everything as it was.
#![allow(clippy::unwrap_used)]

mod support;

use cgroup::{CpuLimit, Device, Error, IoLimit, Limits, Setting};
use support::TestTree;

const MIB: u64 = 1 << 20;

#[test]
fn a_failure_in_the_middle_is_undone() {
    let Some(tree) = TestTree::new("undo") else {
        return;
    };
    let group = tree.group(&["acme", "a"]).unwrap();
    let before = Limits {
        cpu: Setting::To(CpuLimit::percent(30.0)),
        cpu_weight: Setting::To(70),
        pids_max: Setting::To(50),
        ..Limits::default()
    };
    group.apply(&before).unwrap();
    let before = group.read().unwrap();
    // No such disk: found by the kernel after the CPU limits have been written.
    let io = IoLimit {
        read_bps: Setting::To(1000),
        ..IoLimit::of(Device {
            major: 4000,
            minor: 77,
        })
    };
    let wrong = Limits {
        cpu: Setting::To(CpuLimit {
            quota_usec: 50_000,
            period_usec: 50_000,
            burst_usec: 10_000,
        }),
        cpu_weight: Setting::To(200),
        pids_max: Setting::To(5),
        io: vec![io],
        ..Limits::default()
    };
    let error = group.apply(&wrong).unwrap_err();
    assert!(error.to_string().contains("whole disk"), "{error}");
    assert_eq!(group.read().unwrap(), before);
}

#[test]
fn nonsense_is_refused_before_anything_is_written() {
    let Some(tree) = TestTree::new("nonsense") else {
        return;
    };
    let group = tree.group(&["acme", "a"]).unwrap();
    let before = group.read().unwrap();
    let keep = Limits::default;
    let cpu = |quota_usec, period_usec, burst_usec| Limits {
        cpu: Setting::To(CpuLimit {
            quota_usec,
            period_usec,
            burst_usec,
        }),
        ..Limits::default()
    };
    let mut cases = vec![
        cpu(0, 100_000, 0),
        cpu(999, 100_000, 0),
        cpu(5_000, 1_000_000, 0),
        cpu(20_000, 100_000, 20_001),
        cpu(u64::MAX, 100_000, 0),
        Limits {
            cpu_weight: Setting::To(0),
            ..keep()
        },
        Limits {
            cpu_weight: Setting::To(10_001),
            ..keep()
        },
        Limits {
            memory_max: Setting::To(0),
            ..keep()
        },
        Limits {
            memory_max: Setting::To(u64::MAX),
            ..keep()
        },
        Limits {
            pids_max: Setting::To(0),
            ..keep()
        },
        Limits {
            io_weight: Setting::To(0),
            ..keep()
        },
    ];
    let device = Device { major: 8, minor: 0 };
    cases.push(Limits {
        io: vec![IoLimit {
            write_bps: Setting::To(0),
            ..IoLimit::of(device)
        }],
        ..keep()
    });
    cases.push(Limits {
        io: vec![IoLimit::of(device), IoLimit::of(device)],
        ..keep()
    });
    for mut case in cases {
        if case.pids_max.is_keep() {
            case.pids_max = Setting::To(77);
        }
        let error = group.apply(&case).unwrap_err();
        assert!(matches!(error, Error::Refused { .. }), "{case:?}: {error}");
    }
    if !tree.v2() {
        let high = Limits {
            memory_high: Setting::To(MIB),
            pids_max: Setting::To(77),
            ..keep()
        };
        let error = group.apply(&high).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Unsupported {
                    limit: "memory.high",
                    ..
                }
            ),
            "{error}"
        );
    }
    assert_eq!(group.read().unwrap(), before);
}
