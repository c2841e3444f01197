//! Which names may become control groups.

use crate::Error;

/// Beginnings of the kernel's own files in a cgroup directory; a group of such a name could hide or be mistaken for one.
const RESERVED: [&str; 13] = [
    "cgroup.", "cpu.", "cpuacct.", "cpuset.", "memory.", "io.", "blkio.", "pids.", "freezer.",
    "devices.", "hugetlb.", "rdma.", "misc.",
];

/// Files of v1 without a controller's prefix.
const RESERVED_WHOLE: [&str; 3] = ["tasks", "notify_on_release", "release_agent"];

/// Whether `name` may be one component of a group's path.
pub fn validate_name(name: &str) -> Result<(), Error> {
    let why = if name.is_empty() {
        "it is empty"
    } else if name.len() > 255 {
        "it is longer than 255 bytes"
    } else if name == "." || name == ".." {
        "it leads to another directory"
    } else if name.contains('/') {
        "it contains a slash"
    } else if name.chars().any(char::is_control) {
        "it contains a control character"
    } else if RESERVED.iter().any(|p| name.starts_with(p)) || RESERVED_WHOLE.contains(&name) {
        "the kernel uses such names for its own files"
    } else {
        return Ok(());
    };
    let name = name.chars().take(300).collect();
    Err(Error::InvalidName { name, why })
}

/// The components of a path such as `a/b/c`, each validated.
pub(crate) fn components(path: &str) -> Result<Vec<&str>, Error> {
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    if parts.is_empty() {
        return Err(Error::InvalidName {
            name: path.chars().take(300).collect(),
            why: "it names no directory",
        });
    }
    for part in &parts {
        validate_name(part)?;
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_host_names_and_refuses_what_is_dangerous() {
        for good in [
            "example.com",
            "a",
            "xn--bcher-kva.example",
            "cpu",
            "memory",
            "io-site.example",
            &"x".repeat(255),
        ] {
            assert!(validate_name(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "/",
            "a\0b",
            "a\nb",
            "cgroup.procs",
            "memory.max",
            "cpu.example",
            "tasks",
            &"x".repeat(256),
        ] {
            assert!(validate_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn splits_paths() {
        assert_eq!(components("/a//b/").ok(), Some(vec!["a", "b"]));
        assert!(components("a/../b").is_err());
        assert!(components("//").is_err());
    }
}
