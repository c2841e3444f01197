//! Cases in which somebody would have to say who makes a host slow.
#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::host::Memory;
use super::judge::{Kind, Verdict, judge};
use super::sample::{BlockedProcess, Cpu, Sample, SiteSample, Stalled};

const GIB: u64 = 1 << 30;

fn cpu(busy: f64, iowait: f64) -> Cpu {
    Cpu {
        user: busy * 0.75,
        system: busy * 0.25,
        iowait,
        steal: 0.0,
        idle: 100.0 - busy - iowait,
    }
}

/// A host of two CPUs with nothing to do.
fn quiet() -> Sample {
    Sample {
        seconds: 1.0,
        cpus: vec![cpu(2.0, 0.0); 2],
        memory: Memory {
            total_bytes: 4 * GIB,
            available_bytes: 3 * GIB,
            ..Memory::default()
        },
        stalled: Some(Stalled::default()),
        ..Sample::default()
    }
}

fn site(name: &str) -> SiteSample {
    SiteSample {
        vhost: name.into(),
        owner: "acme".into(),
        processes: 3,
        ..SiteSample::default()
    }
}

fn told(sample: &Sample) -> Vec<(Kind, Option<String>)> {
    let verdicts = judge(sample);
    verdicts.into_iter().map(|v| (v.kind, v.vhost)).collect()
}

fn named(kind: Kind, name: &str) -> (Kind, Option<String>) {
    (kind, Some(name.into()))
}

#[test]
fn nothing_to_do_is_idle() {
    let mut sample = quiet();
    sample.sites = vec![site("a"), site("b")];
    assert_eq!(told(&sample), [(Kind::Idle, None)]);
    assert_eq!(
        judge(&sample)[0].text,
        "98 % of 2 CPUs and 3G of 4G memory are free"
    );
    assert_eq!(told(&Sample::default()), [(Kind::Idle, None)]);
}

#[test]
fn each_part_of_divided_cpus_is_judged_for_itself() {
    let mut sample = quiet();
    sample.cpus = vec![cpu(10.0, 0.0), cpu(100.0, 0.0)];
    let using = |name: &str, cpus: &str, cpu: f64| SiteSample {
        cpus: Some(cpus.into()),
        cpu,
        ..site(name)
    };
    sample.sites = vec![
        using("shop", "0", 8.0),
        using("burner", "1", 30.0),
        using("modest", "1", 5.0),
        using("forks", "1", 65.0),
    ];
    let verdicts = judge(&sample);
    let told: Vec<_> = verdicts.iter().map(|v| v.text.as_str()).collect();
    let used = |name: &str, much: u32| {
        format!("{name} used {much} % of CPU 1 in the last second (limit: none)")
    };
    assert_eq!(told, [used("forks", 65), used("burner", 30)]);
}

#[test]
fn the_cpu_burner_is_named_and_the_others_are_not() {
    let mut sample = quiet();
    sample.cpus = vec![cpu(99.0, 0.0); 2];
    sample.sites = vec![
        SiteSample {
            cpu: 4.0,
            ..site("b.example.com")
        },
        SiteSample {
            cpu: 192.0,
            ..site("a.example.com")
        },
    ];
    assert_eq!(told(&sample), [named(Kind::CpuBound, "a.example.com")]);
    assert_eq!(
        judge(&sample)[0].text,
        "a.example.com used 96 % of the 2 CPUs in the last second (limit: none)"
    );
    sample.sites[1].cpu_limit = Some(195.0);
    sample.seconds = 2.5;
    assert!(
        judge(&sample)[0]
            .text
            .ends_with("in the last 2.5 s (limit: 195 %)")
    );
}

#[test]
fn what_is_no_site_is_not_blamed_on_one() {
    let mut sample = quiet();
    sample.cpus = vec![cpu(100.0, 0.0); 2];
    sample.sites = vec![SiteSample {
        cpu: 3.0,
        ..site("a")
    }];
    let verdicts = judge(&sample);
    assert_eq!(told(&sample), [(Kind::CpuBound, None)]);
    assert!(
        verdicts[0].text.starts_with("what is no site used 98 %"),
        "{verdicts:?}"
    );
    // A hypervisor that gives too little.
    sample.cpus = vec![
        Cpu {
            user: 20.0,
            steal: 80.0,
            ..Cpu::default()
        };
        2
    ];
    assert!(
        judge(&sample)[0]
            .text
            .starts_with("the hypervisor took 80 %")
    );
    // Many that use a little each.
    sample.cpus = vec![cpu(100.0, 0.0); 2];
    sample.sites = (0..50)
        .map(|i| SiteSample {
            cpu: 3.9,
            ..site(&format!("s{i}"))
        })
        .collect();
    assert!(
        judge(&sample)[0]
            .text
            .starts_with("50 sites together used 98 %")
    );
}

#[test]
fn one_full_cpu_of_many_makes_nobody_slow() {
    let mut sample = quiet();
    sample.cpus = vec![cpu(100.0, 0.0), cpu(1.0, 0.0), cpu(1.0, 0.0), cpu(1.0, 0.0)];
    sample.sites = vec![SiteSample {
        cpu: 99.0,
        ..site("a")
    }];
    assert_eq!(told(&sample), [named(Kind::Busy, "a"), (Kind::Idle, None)]);
}

#[test]
fn a_throttled_site_is_slow_but_not_the_host() {
    let mut sample = quiet();
    sample.sites = vec![SiteSample {
        cpu: 20.0,
        cpu_limit: Some(20.0),
        throttled: 80.0,
        ..site("a")
    }];
    assert_eq!(
        told(&sample),
        [named(Kind::Throttled, "a"), (Kind::Idle, None)]
    );
    assert_eq!(
        judge(&sample)[0].text,
        "a was held back by its CPU limit of 20 % for 0.8 s (over all CPUs) in the last second"
    );
}

#[test]
fn the_disk_writer_is_named() {
    let mut sample = quiet();
    sample.cpus = vec![cpu(10.0, 85.0), cpu(3.0, 0.0)];
    sample.stalled = Some(Stalled {
        io: 90.0,
        ..Stalled::default()
    });
    sample.sites = vec![
        SiteSample {
            written: 80.0 * 1024.0 * 1024.0,
            blocked: vec![BlockedProcess::default()],
            ..site("w")
        },
        SiteSample {
            read: 9000.0,
            ..site("r")
        },
    ];
    assert_eq!(told(&sample), [named(Kind::IoBound, "w")]);
    assert_eq!(
        judge(&sample)[0].text,
        "w read 0B/s and wrote 80M/s in the last second; processes waited for storage 90 % of the time"
    );
    // Kernels without pressure information.
    sample.stalled = None;
    assert_eq!(told(&sample), [named(Kind::IoBound, "w")]);
    // Nobody here.
    sample.sites.clear();
    assert_eq!(told(&sample), [(Kind::IoBound, None)]);
}

#[test]
fn writing_that_nobody_waits_for_is_no_trouble() {
    let mut sample = quiet();
    sample.sites = vec![SiteSample {
        written: 500e6,
        ..site("w")
    }];
    assert_eq!(
        told(&sample),
        [named(Kind::Writing, "w"), (Kind::Idle, None)]
    );
}

#[test]
fn swapping_is_told_and_not_taken_for_slow_storage() {
    let mut sample = quiet();
    sample.stalled = Some(Stalled {
        io: 95.0,
        memory: 60.0,
        cpu: 5.0,
    });
    (sample.swapped_in, sample.swapped_out) = (4000.0, 5000.0);
    sample.memory.available_bytes = 50 << 20;
    sample.sites = vec![
        SiteSample {
            major_faults: 900.0,
            memory_bytes: 3 * GIB,
            ..site("hog")
        },
        site("b"),
    ];
    assert_eq!(told(&sample), [named(Kind::Swapping, "hog")]);
    let text = &judge(&sample)[0].text;
    assert!(text.starts_with("hog had to wait for 900 pages/s and holds 3G; 50M of 4G memory available, 4000 pages/s swapped in, 5000 out"), "{text}");
    // Something is only put away.
    let mut sample = quiet();
    sample.swapped_out = 5000.0;
    assert_eq!(told(&sample), [(Kind::Idle, None)]);
}

#[test]
fn a_full_page_cache_is_not_a_full_memory() {
    let mut sample = quiet();
    // Everything but 100 MB is in use, and all of that can be given back.
    sample.memory.available_bytes = 4 * GIB - (100 << 20);
    assert_eq!(told(&sample), [(Kind::Idle, None)]);
    assert_eq!(sample.memory.used_bytes(), 100 << 20);
}

#[test]
fn dead_storage_is_blocked() {
    let mut sample = quiet();
    sample.sites = vec![SiteSample {
        blocked: vec![BlockedProcess {
            pid: 4711,
            name: "php".into(),
            waits_in: Some("nfs_wait".into()),
        }],
        ..site("n")
    }];
    sample.stalled = Some(Stalled {
        io: 100.0,
        ..Stalled::default()
    });
    assert_eq!(told(&sample), [named(Kind::Blocked, "n")]);
    assert_eq!(
        judge(&sample)[0].text,
        "n has 1 of 3 processes in uninterruptible sleep all through the last second: php (4711) in nfs_wait"
    );
}

#[test]
fn several_things_at_once_are_all_told() {
    let mut sample = quiet();
    sample.cpus = vec![cpu(95.0, 5.0); 2];
    sample.stalled = Some(Stalled {
        io: 70.0,
        cpu: 90.0,
        memory: 0.0,
    });
    sample.sites = vec![
        SiteSample {
            cpu: 170.0,
            ..site("burner")
        },
        SiteSample {
            written: 1e8,
            cpu: 12.0,
            ..site("writer")
        },
    ];
    assert_eq!(
        told(&sample),
        [
            named(Kind::IoBound, "writer"),
            named(Kind::CpuBound, "burner")
        ]
    );
}

prop_compose! {
    fn any_site(count: usize)(
        i in 0..count, cpu in 0.0..400.0f64, limit in proptest::option::of(1.0..400.0f64), throttled in 0.0..400.0f64,
        read in 0.0..1e10f64, written in 0.0..1e10f64, faults in 0.0..1e5f64, blocked in 0..3usize,
    ) -> SiteSample {
        SiteSample {
            cpu, cpu_limit: limit, throttled, read, written, major_faults: faults,
            blocked: vec![BlockedProcess::default(); blocked],
            ..site(&format!("s{i}"))
        }
    }
}

prop_compose! {
    fn any_sample()(
        busy in proptest::collection::vec((0.0..=100.0f64, 0.0..=1.0f64), 0..5), sites in proptest::collection::vec(any_site(40), 0..20),
        stalled in proptest::option::of((0.0..=100.0f64, 0.0..=100.0f64)), swapped in (0.0..1e5f64, 0.0..1e5f64),
        seconds in 0.0..10.0f64, available in 0..=4 * GIB,
    ) -> Sample {
        let mut sample = quiet();
        sample.cpus = busy.into_iter().map(|(busy, wait)| cpu(busy, (100.0 - busy) * wait)).collect();
        sample.stalled = stalled.map(|(io, memory)| Stalled { io, memory, cpu: 0.0 });
        (sample.swapped_in, sample.swapped_out) = swapped;
        sample.memory.available_bytes = available;
        Sample { sites, seconds, ..sample }
    }
}

proptest! {
    /// Something is always said, nobody is named who is not there, and the worst is said first.
    #[test]
    fn every_verdict_is_about_what_was_measured(sample in any_sample()) {
        let verdicts = judge(&sample);
        prop_assert!(!verdicts.is_empty());
        prop_assert!(verdicts.windows(2).all(|pair| pair[0].kind <= pair[1].kind));
        let slow = verdicts.iter().any(|v| v.kind.is_slow());
        prop_assert_eq!(slow, !verdicts.iter().any(|v| v.kind == Kind::Idle));
        for Verdict { vhost, text, .. } in &verdicts {
            prop_assert!(!text.is_empty() && !text.contains("NaN") && !text.contains("inf"));
            if let Some(name) = vhost {
                prop_assert!(sample.sites.iter().any(|s| s.vhost == *name) && text.starts_with(name.as_str()));
            }
        }
    }

    /// Whoever does more of what is wrong is not let off while one who does less is named.
    #[test]
    fn the_greatest_is_named_first(sample in any_sample()) {
        let of = |kind| {
            let verdicts = judge(&sample);
            let first = verdicts.into_iter().find(|v| v.kind == kind && v.vhost.is_some());
            first.and_then(|v| v.vhost)
        };
        let most = |measure: fn(&SiteSample) -> f64| sample.sites.iter().map(measure).fold(0.0, f64::max);
        let measured = |name: &str, measure: fn(&SiteSample) -> f64| {
            sample.sites.iter().filter(|s| s.vhost == name).map(measure).fold(0.0, f64::max)
        };
        if let Some(name) = of(Kind::CpuBound) {
            prop_assert_eq!(measured(&name, |s| s.cpu), most(|s| s.cpu));
        }
        if let Some(name) = of(Kind::IoBound) {
            prop_assert_eq!(measured(&name, SiteSample::moved), most(SiteSample::moved));
        }
        if let Some(name) = of(Kind::Swapping) {
            prop_assert_eq!(measured(&name, |s| s.major_faults), most(|s| s.major_faults));
        }
    }
}

#[test]
fn who_runs_against_their_limits_is_named_however_quiet_the_host_is() {
    let mut sample = quiet();
    let bomb = SiteSample {
        processes: 128,
        process_limit: Some(128),
        forks_refused: 4000.0,
        ..site("bomb")
    };
    let hog = SiteSample {
        memory_limit: Some(256 << 20),
        oom_kills: 2,
        ..site("hog")
    };
    let writer = SiteSample {
        written: 100.0 * 1024.0 * 1024.0,
        ..site("writer")
    };
    sample.sites = vec![bomb, hog, writer, site("quiet")];
    let verdicts = judge(&sample);
    let texts: Vec<&str> = verdicts.iter().map(|v| v.text.as_str()).collect();
    assert_eq!(
        texts[..3],
        [
            "bomb has 128 processes, may have 128, and was refused 4000 more a second in the last second",
            "hog wants more memory than it may have (256M): the kernel ended 2 of its processes in the last second",
            "writer read 0B/s and wrote 100M/s in the last second",
        ]
    );
    assert_eq!(told(&sample)[3], (Kind::Idle, None));
    // Where somebody waits for it, that is said instead.
    sample.stalled = Some(Stalled {
        io: 60.0,
        ..Stalled::default()
    });
    let expected = [
        named(Kind::IoBound, "writer"),
        named(Kind::Forking, "bomb"),
        named(Kind::OutOfMemory, "hog"),
    ];
    assert_eq!(told(&sample), expected);
}
