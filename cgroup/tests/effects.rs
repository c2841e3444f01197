//! What limits do to the processes in a group, measured.
#![allow(clippy::unwrap_used)]

mod support;

use cgroup::{CpuLimit, Error, Group, IoLimit, Limits, Setting, block_device_of_path};
use std::time::{Duration, Instant};
use support::{Gated, TestTree};

const MIB: u64 = 1 << 20;
/// A directory on a disk rather than in memory.
const DISK: &str = "/var/tmp";

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
    let file = tempfile::NamedTempFile::new_in(DISK).unwrap();
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

/// The share of one CPU that the group gets, in percent: over 20 periods, because the window may cut one more at its
/// edge. And in which part of its periods it was its limit that held it back, not other work on this machine.
fn share(group: &Group) -> (f64, f64) {
    let (start, before) = (Instant::now(), group.usage().unwrap());
    // What is measured is time itself.
    std::thread::sleep(Duration::from_secs(2));
    let (elapsed, after) = (start.elapsed(), group.usage().unwrap());
    let used = after.cpu_usec.unwrap() - before.cpu_usec.unwrap();
    let periods = after.nr_periods.unwrap() - before.nr_periods.unwrap();
    let throttled = after.nr_throttled.unwrap() - before.nr_throttled.unwrap();
    (
        used as f64 * 100.0 / elapsed.as_micros() as f64,
        throttled as f64 / periods.max(1) as f64,
    )
}

#[test]
fn cpu_limit_is_felt_and_changes_live() {
    let Some(tree) = TestTree::new("cpu") else {
        return;
    };
    let group = tree.group(&["acme", "a"]).unwrap();
    let mut burner = Gated::new(&group, "while :; do :; done");
    for percent in [20.0, 50.0] {
        group
            .apply(&Limits {
                cpu: Setting::To(CpuLimit::percent(percent)),
                ..Limits::default()
            })
            .unwrap();
        if percent < 30.0 {
            burner.go();
        }
        // Never more than that; and no less, once the machine has left it enough to be held back in every period.
        let mut tries = 0;
        loop {
            let (got, held_back) = share(&group);
            assert!(got <= percent * 1.1, "{got} instead of {percent}");
            if got >= percent * 0.9 {
                break;
            }
            assert!(
                held_back < 0.95,
                "{got} instead of {percent}, although the limit held it back"
            );
            tries += 1;
            assert!(
                tries < 15,
                "this machine is too busy to give one process {percent} % of a CPU"
            );
        }
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
    let Ok(device) = block_device_of_path(DISK.as_ref()) else {
        println!("SKIPPED: {DISK} is on no block device");
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
    let file = tempfile::NamedTempFile::new_in(DISK).unwrap();
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
