//! The part of /proc/self/mountinfo that concerns control groups. Pure.

/// One cgroup mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CgroupMount {
    /// Where it is mounted.
    pub(crate) point: String,
    /// Whether it is the unified hierarchy.
    pub(crate) v2: bool,
    /// Which directory of the hierarchy is mounted; "/" unless somebody bound a part of it.
    pub(crate) root: String,
    /// Super block options: on v1 the controllers, and `name=...`.
    pub(crate) options: Vec<String>,
}

/// All cgroup mounts in the text, in order; lines that are not understood are skipped.
pub(crate) fn parse(text: &str) -> Vec<CgroupMount> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<CgroupMount> {
    // The number of optional fields varies, therefore the separator is looked for.
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(3);
    let root = unescape(left.next()?);
    let point = unescape(left.next()?);
    let mut right = right.split(' ');
    let v2 = match right.next()? {
        "cgroup" => false,
        "cgroup2" => true,
        _ => return None,
    };
    let options = right.nth(1).unwrap_or("");
    let options = options.split(',').map(str::to_owned).collect();
    Some(CgroupMount {
        point,
        v2,
        root,
        options,
    })
}

/// Undoes the kernel's octal escapes (space, tab, newline, backslash).
fn unescape(field: &str) -> String {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let [first, tail @ ..] = rest {
        if let (b'\\', Some(value)) = (*first, tail.get(..3).and_then(octal)) {
            out.push(value);
            rest = tail.get(3..).unwrap_or_default();
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn octal(digits: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(digits).ok()?;
    u8::from_str_radix(text, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn understands_optional_fields_and_escapes() {
        let text = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
            33 31 0:29 / /sys/fs/my\\040group rw,nosuid shared:9 master:2 - cgroup cgroup rw,cpu,cpuacct\n\
            34 31 0:30 /x /u rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].point, "/sys/fs/my group");
        assert_eq!(mounts[0].options, ["rw", "cpu", "cpuacct"]);
        assert!(mounts[1].v2);
        assert_eq!(mounts[1].root, "/x");
    }

    proptest! {
        #[test]
        fn never_panics(text in ".*\n? - cgroup.*") {
            parse(&text);
        }

        #[test]
        fn unescape_never_panics(text in "[\\\\0-9a-z]*") {
            unescape(&text);
        }
    }
}
