//! Limits of living containers that somebody else has changed.
use std::sync::Arc;

use super::Check;
use crate::container::Drift;

/// How many are named.
const NAMED: usize = 5;

/// Judges what was found in each container that was looked at.
pub fn drift(looked: &[(Arc<str>, Vec<Drift>)]) -> Check {
    let lines: Vec<String> = looked
        .iter()
        .flat_map(|(vhost, all)| {
            all.iter().map(move |d| {
                format!(
                    "{vhost}: {} is {} instead of {} in {}",
                    d.key, d.found, d.wanted, d.file
                )
            })
        })
        .collect();
    let sites = looked.iter().filter(|(_, all)| !all.is_empty());
    let Some((first, _)) = sites.clone().next() else {
        return Check::ok(
            "limits by hand",
            format!("none: all are as told in {} containers", looked.len()),
        );
    };
    let mut detail = lines[..lines.len().min(NAMED)].join("; ");
    if lines.len() > NAMED {
        detail += &format!(
            "; and {} more, in {} sites",
            lines.len() - NAMED,
            sites.count()
        );
    }
    Check::warn(
        "limits by hand",
        detail,
        format!(
            "fastctl set {first} --mend writes what should be; whoever wrote these files should use fastctl set"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;

    #[test]
    fn what_was_changed_is_named_up_to_a_bound() {
        let one = Drift {
            key: "cpu".into(),
            file: "/sys/fs/cgroup/x/cpu.max".into(),
            wanted: "20%".into(),
            found: "50%".into(),
        };
        let looked: Vec<(Arc<str>, Vec<Drift>)> =
            vec![("a".into(), vec![]), ("b".into(), vec![one.clone()])];
        assert_eq!(drift(&looked[..1]).result, Outcome::Ok);
        let check = drift(&looked);
        assert_eq!(check.result, Outcome::Warn);
        assert_eq!(
            check.detail,
            "b: cpu is 50% instead of 20% in /sys/fs/cgroup/x/cpu.max"
        );
        assert!(
            check
                .advice
                .is_some_and(|advice| advice.contains("set b --mend"))
        );
        let check = drift(&[("c".into(), vec![one; 9])]);
        assert!(
            check.detail.ends_with("; and 4 more, in 1 sites"),
            "{}",
            check.detail
        );
    }
}
