//! What a process has after a change, by what it had.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::config::definition::LimitPatch;

fn change(before: u64, wanted: u64) -> OpenFiles {
    OpenFiles { before, wanted }
}

#[test]
fn the_soft_limit_follows_the_hard_one_as_at_a_start() {
    let limits = |word: &str| Limits::default().patched(&LimitPatch::parse([word]).unwrap());
    for (word, expected) in [
        ("nofile=64", (64, 64)),
        ("nofile=2000", (2000, 2000)),
        ("nofile=10000", (4096, 10_000)),
        ("nofile=max", (4096, 4096)),
        ("pids=20", (4096, 4096)),
    ] {
        let hard = hard(&limits(word));
        assert_eq!((soft(hard), hard), expected, "{word}");
        // Whoever had what it began with has what it would begin with.
        for before in [16, 64, 4096, 5000, 1 << 20] {
            let own = (soft(before), before);
            assert_eq!(change(before, hard).of(own), expected, "{before}");
        }
    }
}

#[test]
fn what_a_process_has_decided_itself_it_keeps_as_far_as_it_may() {
    for (before, wanted, own, expected) in [
        // It has given some up.
        (4096, 8192, (10, 20), (10, 20)),
        (4096, 100, (10, 20), (10, 20)),
        (4096, 100, (300, 500), (100, 100)),
        (4096, 8192, (0, 0), (0, 0)),
        // It has taken what it may have.
        (8192, 16384, (8192, 8192), (8192, 16384)),
        (8192, 6000, (8192, 8192), (6000, 6000)),
        (8192, 16384, (100, 8192), (100, 16384)),
        // Somebody has given it more.
        (100, 200, (5000, 5000), (200, 200)),
    ] {
        assert_eq!(change(before, wanted).of(own), expected);
    }
}

#[test]
fn no_process_gets_more_than_is_wanted_or_a_soft_limit_above_its_hard_one() {
    let values = [0, 1, 16, 100, 4095, 4096, 4097, 8192, 1 << 20];
    for before in values {
        for wanted in values {
            for own_hard in values {
                for own_soft in values.into_iter().filter(|soft| *soft <= own_hard) {
                    let (soft, hard) = change(before, wanted).of((own_soft, own_hard));
                    assert!(soft <= hard && hard <= wanted);
                    // A lower limit never raises one, which the kernel would refuse.
                    assert!(wanted > before || hard <= own_hard);
                }
            }
        }
    }
}

#[test]
fn a_lower_limit_is_never_refused() {
    assert!(!change(200, 100).is_refused());
    let raise = change(100, 200);
    assert_eq!(raise.is_refused(), !raise_is_allowed());
    let said = raise.refusal("a.example.com");
    for part in [
        "from 100 to 200",
        "CAP_SYS_RESOURCE",
        "fastctl stop a.example.com",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
}
