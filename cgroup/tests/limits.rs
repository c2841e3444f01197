//! Every limit on the real kernel: applied, read back, changed on a living group, refused, and felt.
#![allow(clippy::unwrap_used)]

mod support;

use cgroup::{CpuLimit, Device, Error, Group, IoLimit, Limits, Setting, block_device_of_path};
use std::time::{Duration, Instant};
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
        eprintln!("skipped in part: no block device");
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
        eprintln!("skipped: no swap accounting: {error}");
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

#[test]
fn memory_below_use_is_refused_and_nothing_changes() {
    let Some(tree) = TestTree::new("inuse") else {
        return;
    };
    let group = tree.group(&["acme", "example.com"]).unwrap();
    group
        .apply(&Limits {
            pids_max: Setting::To(50),
            ..Limits::default()
        })
        .unwrap();
    let mut hog = Gated::new(
        &group,
        r#"a=$(head -c 9000000 /dev/zero | tr "\0" x); echo ready; read gate; echo ${#a}"#,
    );
    hog.go();
    assert_eq!(hog.line(), "ready");
    let lower = Limits {
        memory_max: Setting::To(4 * MIB),
        pids_max: Setting::To(40),
        ..Limits::default()
    };
    let error = group.apply(&lower).unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("cannot set memory.max of acme/example.com to 4M: below the "),
        "{text}"
    );
    assert!(text.ends_with("M in use; raise it or stop it"), "{text}");
    let now = group.read().unwrap();
    assert_eq!(
        (now.memory_max, now.pids_max),
        (Setting::Max, Setting::To(50))
    );
    // It lives on, and a limit above its use is taken.
    group
        .apply(&Limits {
            memory_max: Setting::To(64 * MIB),
            ..Limits::default()
        })
        .unwrap();
    hog.go();
    assert_eq!(hog.line(), "9000000");
    assert_eq!(group.usage().unwrap().oom_kills, Some(0));
}

#[test]
fn page_cache_does_not_stand_in_the_way_of_a_lower_limit() {
    let Some(tree) = TestTree::new("cache") else {
        return;
    };
    let group = tree.group(&["acme", "a"]).unwrap();
    let file = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = file.path().display();
    let script = format!("head -c 40000000 /dev/zero > {path}; sync {path}; echo ready; read gate");
    let mut writer = Gated::new(&group, &script);
    writer.go();
    assert_eq!(writer.line(), "ready");
    assert!(group.usage().unwrap().memory_current.unwrap() > 20 * MIB);
    group
        .apply(&Limits {
            memory_max: Setting::To(10 * MIB),
            ..Limits::default()
        })
        .unwrap();
    assert!(group.usage().unwrap().memory_current.unwrap() <= 10 * MIB);
}

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

#[test]
fn pids_limit_makes_fork_fail() {
    let Some(tree) = TestTree::new("pids") else {
        return;
    };
    let group = tree.group(&["acme", "a"]).unwrap();
    group
        .apply(&Limits {
            pids_max: Setting::To(2),
            ..Limits::default()
        })
        .unwrap();
    let mut forker = Gated::new(&group, "sleep 60 & sleep 60 & sleep 60 & exit 0");
    forker.go();
    assert!(!forker.wait().success());
    assert!(group.usage().unwrap().pids_max_events.unwrap() >= 1);
}

#[test]
fn memory_limit_kills_inside_only_and_is_counted() {
    let Some(tree) = TestTree::new("oom") else {
        return;
    };
    let group = tree.group(&["acme", "a"]).unwrap();
    group
        .apply(&Limits {
            memory_max: Setting::To(16 * MIB),
            ..Limits::default()
        })
        .unwrap();
    // Where there is swap it must not save the process.
    match group.apply(&Limits {
        swap_max: Setting::To(0),
        ..Limits::default()
    }) {
        Ok(_) | Err(Error::Unsupported { .. }) => {}
        Err(error) => panic!("{error}"),
    }
    let mut hog = Gated::new(
        &group,
        "a=$(head -c 100000000 /dev/zero | tr \"\\0\" x); echo survived",
    );
    hog.go();
    assert!(!hog.wait().success());
    let usage = group.usage().unwrap();
    assert!(usage.oom_kills.unwrap() >= 1, "{usage:?}");
    assert!(
        usage
            .memory_peak
            .is_none_or(|peak| peak > 10 * MIB && peak <= 16 * MIB),
        "{usage:?}"
    );
}

/// The share of one CPU that the group gets, in percent: over 30 periods, because the window may cut one more at its edge.
fn share(group: &Group) -> f64 {
    let (start, before) = (Instant::now(), group.usage().unwrap());
    // What is measured is time itself.
    std::thread::sleep(Duration::from_secs(3));
    let (elapsed, after) = (start.elapsed(), group.usage().unwrap());
    let used = after.cpu_usec.unwrap() - before.cpu_usec.unwrap();
    used as f64 * 100.0 / elapsed.as_micros() as f64
}

#[test]
fn cpu_limit_is_felt_and_changes_live() {
    let Some(tree) = TestTree::new("cpu") else {
        return;
    };
    let group = tree.group(&["acme", "a"]).unwrap();
    let mut burner = Gated::new(&group, "while :; do :; done");
    for (percent, tolerance) in [(20.0, 2.0), (50.0, 5.0)] {
        group
            .apply(&Limits {
                cpu: Setting::To(CpuLimit::percent(percent)),
                ..Limits::default()
            })
            .unwrap();
        if percent < 30.0 {
            burner.go();
        }
        let got = share(&group);
        assert!(
            (got - percent).abs() <= tolerance,
            "{got} instead of {percent}"
        );
    }
    let usage = group.usage().unwrap();
    assert!(
        usage.nr_throttled.unwrap() > 5 && usage.throttled_usec.unwrap() > 100_000,
        "{usage:?}"
    );
    assert!(usage.user_usec.unwrap() > 0);
}

#[test]
fn write_rate_is_felt() {
    let Some(tree) = TestTree::new("io") else {
        return;
    };
    let Ok(device) = block_device_of_path(env!("CARGO_TARGET_TMPDIR").as_ref()) else {
        eprintln!("skipped: the build directory is on no block device");
        return;
    };
    let group = tree.group(&["acme", "a"]).unwrap();
    let io = vec![IoLimit {
        write_bps: Setting::To(2_000_000),
        ..IoLimit::of(device)
    }];
    group
        .apply(&Limits {
            io,
            ..Limits::default()
        })
        .unwrap();
    let file = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let script = format!(
        "exec dd if=/dev/zero of={} bs=100k count=30 oflag=direct",
        file.path().display()
    );
    let mut writer = Gated::new(&group, &script);
    let start = Instant::now();
    writer.go();
    assert!(writer.wait().success());
    let rate = 30.0 * 102_400.0 / start.elapsed().as_secs_f64();
    assert!((1_700_000.0..2_300_000.0).contains(&rate), "{rate} bytes/s");
    let usage = group.usage().unwrap();
    assert!(
        usage.io_write_bytes.unwrap() >= 3_072_000 && usage.io_write_ops.unwrap() >= 30,
        "{usage:?}"
    );
}
