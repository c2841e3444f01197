//! Host names and owner names: what may become part of a path, a cgroup or a file name.

use std::fmt;

/// Why a text is no host name, or cannot be used as one here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameError {
    name: String,
    wrong: &'static str,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "\"{}\" {}",
            super::units::shorten(&self.name),
            self.wrong
        )
    }
}

impl std::error::Error for NameError {}

fn refuse(name: &str, wrong: &'static str) -> Result<(), NameError> {
    Err(NameError {
        name: name.chars().take(80).collect(),
        wrong,
    })
}

/// Lower-case, without the dot that ends a fully qualified name: the one form in which names are kept and compared.
pub fn normal(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// Checks a host name in its normal form: labels of lower-case letters, digits and hyphens, 63 each, 253 in all.
///
/// What passes is a single path component that starts with no dot, so it can name a file, a directory or a cgroup.
pub fn check_host(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return refuse(
            name,
            "is empty; a host name such as \"example.com\" is expected",
        );
    }
    if name.len() > 253 {
        return refuse(name, "is longer than a host name can be (253 characters)");
    }
    for label in name.split('.') {
        if label.is_empty() {
            return refuse(
                name,
                "is no host name: it has an empty label (two dots together, or one at an end)",
            );
        }
        if label.len() > 63 {
            return refuse(
                name,
                "is no host name: a label is longer than 63 characters",
            );
        }
        if label.starts_with('-') || label.ends_with('-') {
            return refuse(
                name,
                "is no host name: a label begins or ends with a hyphen",
            );
        }
        if label.bytes().any(|b| b.is_ascii_uppercase()) {
            return refuse(name, "is not in lower case");
        }
        if !label
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        {
            return refuse(
                name,
                "is no host name: only letters, digits, hyphens and dots (international names in their xn-- form)",
            );
        }
    }
    if is_cgroup_file(name) {
        return refuse(
            name,
            "cannot be used: every cgroup directory holds a kernel file of this name",
        );
    }
    Ok(())
}

/// Checks an owner's name: `[a-z_][a-z0-9_.-]*`, at most 64 characters.
pub fn check_owner(name: &str) -> Result<(), NameError> {
    let mut bytes = name.bytes();
    if !bytes
        .next()
        .is_some_and(|b| b.is_ascii_lowercase() || b == b'_')
    {
        return refuse(
            name,
            "is no owner name: it must begin with a lower-case letter or _",
        );
    }
    if name.len() > 64 {
        return refuse(name, "is longer than an owner name may be (64 characters)");
    }
    if !bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_.-".contains(&b)) {
        return refuse(
            name,
            "is no owner name: only lower-case letters, digits, _ . and -",
        );
    }
    let first = name.split('.').next().unwrap_or(name);
    let reserved = ["tasks", "notify_on_release", "release_agent"].contains(&name);
    if reserved || (first != name && CONTROLLERS.contains(&first)) {
        return refuse(
            name,
            "cannot be used: the kernel names its files in cgroup directories so",
        );
    }
    Ok(())
}

/// What the kernel's files in a cgroup directory begin with, in v1 and v2.
const CONTROLLERS: [&str; 18] = [
    "blkio", "cgroup", "cpu", "cpuacct", "cpuset", "debug", "devices", "dmem", "freezer",
    "hugetlb", "io", "irq", "memory", "misc", "net_cls", "net_prio", "pids", "rdma",
];

/// The words of those files' names that a host name can hold, but for the first.
const WORDS: [&str; 58] = [
    "bfq",
    "burst",
    "clone",
    "controllers",
    "cost",
    "cpus",
    "current",
    "depth",
    "descendants",
    "effective",
    "events",
    "exclusive",
    "failcnt",
    "freeze",
    "group",
    "high",
    "idle",
    "kill",
    "latency",
    "limit",
    "list",
    "local",
    "low",
    "max",
    "mems",
    "min",
    "model",
    "nice",
    "oom",
    "partition",
    "peak",
    "pressure",
    "prio",
    "class",
    "procs",
    "qos",
    "reclaim",
    "reset",
    "rsvd",
    "sane",
    "shares",
    "stat",
    "state",
    "swap",
    "tasks",
    "threads",
    "type",
    "uclamp",
    "usage",
    "weight",
    "writeback",
    "zswap",
    "allow",
    "deny",
    "capacity",
    "forks",
    "numa",
    "isolated",
];

/// Whether a cgroup directory holds, or may come to hold, a file of this name.
fn is_cgroup_file(name: &str) -> bool {
    let Some((first, rest)) = name.split_once('.') else {
        return name == "tasks";
    };
    let size = |word: &str| matches!(word, "64kb" | "2mb" | "32mb" | "1gb" | "16gb");
    CONTROLLERS.contains(&first)
        && rest
            .split('.')
            .all(|word| WORDS.contains(&word) || size(word))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn host_names() {
        let long = format!("{}.com", "a".repeat(63));
        let longest = [
            long.as_str(),
            &"b".repeat(63),
            &"c".repeat(63),
            &"d".repeat(57),
        ]
        .join(".");
        for good in [
            "a",
            "example.com",
            "xn--bcher-kva.example",
            "1.2.3.4",
            "a-b.c",
            "memory.example.com",
            &long,
        ] {
            assert_eq!(check_host(good), Ok(()), "{good}");
        }
        assert_eq!(longest.len(), 253);
        assert_eq!(check_host(&longest), Ok(()));
        for (bad, why) in [
            ("", "empty"),
            (".", "empty label"),
            ("..", "empty label"),
            (".a", "empty label"),
            ("a..b", "empty label"),
            ("../x", "empty label"),
            ("a/b", "only letters"),
            ("a_b", "only letters"),
            ("a b", "only letters"),
            ("a\0", "only letters"),
            ("bücher.example", "only letters"),
            ("A.com", "lower case"),
            ("-a.com", "hyphen"),
            ("a-.com", "hyphen"),
            ("cgroup.procs", "kernel file"),
            ("memory.swap.max", "kernel file"),
            ("hugetlb.2mb.max", "kernel file"),
            ("tasks", "kernel file"),
            (&"a".repeat(64), "63"),
            (&format!("{longest}e"), "253"),
        ] {
            let error = check_host(bad).unwrap_err().to_string();
            assert!(error.contains(why), "{bad}: {error}");
        }
        assert_eq!(normal("WWW.Example.COM."), "www.example.com");
    }

    #[test]
    fn owner_names() {
        for good in ["acme", "_x", "a.b-c_9", "cpu"] {
            assert_eq!(check_owner(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "Acme",
            "9a",
            ".a",
            "a/b",
            "a\n",
            "cgroup.procs",
            "tasks",
            "memory.max_usage",
            &"a".repeat(65),
        ] {
            assert!(check_owner(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_passes_is_a_plain_component(name in "[a-zA-Z0-9./_\\-\\PC]{0,20}") {
            for name in [normal(&name), name] {
                if check_host(&name).is_ok() || check_owner(&name).is_ok() {
                    prop_assert!(!name.contains(['/', '\0']) && !name.starts_with('.') && !name.is_empty());
                    prop_assert!(name.is_ascii());
                }
            }
        }
    }
}
