#![allow(clippy::unwrap_used)]
//! Random sets, passing time and restarts against what is remembered of everything that was ever said.

use proptest::prelude::*;

use super::temporary::time;
use super::*;
use std::time::Duration;

use crate::config::definition::{LimitKey, LimitPatch};

const KEYS: [LimitKey; 3] = [LimitKey::Cpu, LimitKey::Memory, LimitKey::IoWrite];

#[derive(Debug, Clone)]
enum Act {
    Set(Vec<(usize, Option<u64>)>, Option<u64>),
    Pass(u64),
    /// The agent dies and the next one reads what is kept.
    Restart,
    /// The timer comes, perhaps late: some of what is over has been over for a while.
    Revert,
}

fn act() -> impl Strategy<Value = Act> {
    let value = prop_oneof![1 => Just(None), 4 => (1u64..9).prop_map(|n| Some(n * 1_000))];
    let patch = prop::collection::vec((0..KEYS.len(), value), 1..3);
    prop_oneof![
        4 => (patch, prop::option::of(1u64..60)).prop_map(|(patch, time)| Act::Set(patch, time)),
        3 => (0u64..30).prop_map(Act::Pass),
        1 => Just(Act::Restart),
        2 => Just(Act::Revert),
    ]
}

fn patch(words: &[(usize, Option<u64>)]) -> LimitPatch {
    let mut patch = LimitPatch::default();
    for (key, value) in words {
        patch.0.retain(|(known, _)| *known != KEYS[*key]);
        patch.0.push((KEYS[*key], *value));
    }
    patch
}

/// What counts of one limit: the last that was said and is not over, unless something was said for good after it.
fn said(
    all: &[(LimitPatch, Option<u64>)],
    key: LimitKey,
    now: u64,
    defined: &Limits,
) -> Option<u64> {
    for (patch, until) in all.iter().rev() {
        let value = patch.0.iter().find(|(known, _)| *known == key);
        if let Some((_, value)) = value
            && until.is_none_or(|until| now < until)
        {
            return value.or(defined.get(key));
        }
    }
    defined.get(key)
}

proptest! {
    #[test]
    fn what_counts_is_the_last_word_that_is_not_over(acts in prop::collection::vec(act(), 1..60)) {
        let mut defined = Limits::default();
        defined.set(LimitKey::Cpu, Some(500));
        let mut kept = Kept::default();
        let (mut all, mut now) = (Vec::new(), 1_000_000);
        for act in acts {
            match act {
                Act::Set(words, time) => {
                    let patch = patch(&words);
                    let until = time.map(|time| now + time);
                    kept.change(&patch, until);
                    all.push((patch, until));
                }
                Act::Pass(time) => now += time,
                Act::Restart => {
                    let text = serde_json::to_vec(&kept).unwrap();
                    let read: Kept = serde_json::from_slice(&text).unwrap();
                    prop_assert_eq!(&read, &kept);
                    kept = read;
                }
                Act::Revert => {
                    let next = kept.temporary.next();
                    let before = kept.overrides_at(now);
                    let due = kept.temporary.over_at(now);
                    prop_assert_eq!(due.is_empty(), next.is_none_or(|next| now < next));
                    kept.temporary.expire(now);
                    prop_assert_eq!(kept.overrides_at(now), before, "to expire changes nothing that counts");
                    prop_assert!(kept.temporary.next().is_none_or(|next| now < next));
                }
            }
            let counts = defined.merge(&kept.overrides_at(now));
            for key in KEYS {
                prop_assert_eq!(counts.get(key), said(&all, key, now, &defined), "{} at {}", key, now);
            }
            // Nothing is kept that is never seen again: of each limit the ends come down towards the last.
            for key in KEYS {
                let seen = kept.temporary.in_force(now).into_iter().find(|(known, _)| *known == key);
                let last = all.iter().rev().take_while(|(patch, until)| {
                    until.is_some() || patch.0.iter().all(|(known, _)| *known != key)
                });
                let lasting = last.filter(|(patch, until)| {
                    patch.0.iter().any(|(known, _)| *known == key) && until.is_some_and(|until| now < until)
                });
                let newest = lasting.filter_map(|(_, until)| *until).next();
                prop_assert_eq!(seen.map(|(_, until)| until), newest);
            }
        }
    }
}

#[test]
fn each_goes_back_to_what_it_found() {
    let words = |words: &[&str]| LimitPatch::parse(words).unwrap();
    let mut kept = Kept::default();
    kept.change(&words(&["cpu=30%"]), None);
    kept.change(&words(&["cpu=50%", "memory=64M"]), Some(600));
    kept.change(&words(&["cpu=70%"]), Some(300));
    let cpu = |kept: &Kept, now| kept.overrides_at(now).cpu().unwrap().to_string();
    assert_eq!(
        [100, 300, 600].map(|now| cpu(&kept, now)),
        ["70%", "50%", "30%"]
    );
    assert_eq!(
        kept.temporary.in_force(100),
        [(LimitKey::Cpu, 300), (LimitKey::Memory, 600)]
    );
    // For good: of this limit only.
    kept.change(&words(&["cpu=40%"]), None);
    assert_eq!([100, 700].map(|now| cpu(&kept, now)), ["40%", "40%"]);
    assert_eq!(kept.temporary.in_force(100), [(LimitKey::Memory, 600)]);
    // A change of the definition is the last word as well.
    let mut definition = crate::config::Definition::from_toml(
        "name = \"a.example\"\nowner = \"acme\"\ncommand = [\"/bin/true\"]\nlisten = \"tcp:80\"\n",
    )
    .unwrap();
    definition.limits = Limits::default().patched(&words(&["memory=80M"]));
    kept.follow(&definition);
    assert!(kept.temporary.is_empty(), "{kept:?}");
    assert_eq!(cpu(&kept, 100), "40%");
}

#[test]
fn times_have_bounds() {
    for (text, seconds) in [
        ("1s", 1),
        ("90s", 90),
        ("10m", 600),
        ("2h", 7200),
        ("30d", 2_592_000),
    ] {
        assert_eq!(time(text), Ok(Duration::from_secs(seconds)), "{text}");
    }
    for bad in [
        "",
        "0s",
        "999ms",
        "31d",
        "never",
        "max",
        "-5m",
        "10x",
        "true",
        "99999999999999999999d",
    ] {
        assert!(time(bad).is_err(), "{bad}");
    }
}

#[test]
fn what_cannot_be_for_a_time_is_refused() {
    let words = |words: &[&str]| LimitPatch::parse(words).unwrap();
    let mut kept = Kept::default();
    let mut times = 0..1_000;
    while kept.check_temporary().is_ok() {
        kept.change(&words(&["cpu=30%"]), Some(2_000 - times.next().unwrap()));
    }
}

#[test]
fn a_rise_at_the_end_of_a_time_is_foreseen() {
    let words = |words: &[&str]| LimitPatch::parse(words).unwrap();
    let defined = Limits::default().patched(&words(&["nofile=100"]));
    let rises =
        |kept: &Kept, defined: &Limits| kept.rises_later(LimitKey::Nofile, 4096, defined, 10);
    let mut kept = Kept::default();
    assert!(!rises(&kept, &defined));
    kept.change(&words(&["nofile=50"]), Some(20));
    assert!(rises(&kept, &defined));
    // By then there is less anyway.
    kept.change(&words(&["nofile=40"]), None);
    kept.change(&words(&["nofile=50"]), Some(20));
    assert!(!rises(&kept, &defined));
    // Back to 50 when this is over, and then to 40.
    kept.change(&words(&["nofile=45"]), Some(15));
    assert!(rises(&kept, &defined));
    let mut kept = Kept::default();
    kept.change(&words(&["nofile=200", "pids=30"]), Some(20));
    assert!(!rises(&kept, &defined));
    assert!(rises(&kept, &Limits::default()));
}
