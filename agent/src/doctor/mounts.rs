//! Mounts: which file system carries a path, whether it can be idmapped, whether it has project quotas.
use std::path::{Path, PathBuf};

use super::idmap::{self, Tried};
use super::{Check, System};

/// One line of mountinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// Where.
    pub(super) point: PathBuf,
    /// File system type.
    pub(super) kind: String,
    /// Options of the superblock.
    pub(super) options: Vec<String>,
}

/// The mounts of a mountinfo file; lines that cannot be read are left out.
pub(super) fn parse(mountinfo: &str) -> Vec<Mount> {
    mountinfo.lines().filter_map(line).collect()
}

fn line(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let mut right = right.split(' ');
    Some(Mount {
        point: PathBuf::from(unescape(left.split(' ').nth(4)?)),
        kind: right.next()?.to_owned(),
        options: right.nth(1)?.split(',').map(str::to_owned).collect(),
    })
}

/// Spaces and the like are written as `\040`.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.as_bytes();
    while let Some((&first, rest)) = bytes.split_first() {
        let code = (first == b'\\').then(|| rest.get(..3)).flatten();
        let code = code.and_then(|c| u8::from_str_radix(std::str::from_utf8(c).ok()?, 8).ok());
        match code {
            Some(byte) => {
                out.push(byte);
                bytes = &rest[3..];
            }
            None => {
                out.push(first);
                bytes = rest;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The mount a path lies on: the longest mount point above it, the last mounted of several.
fn of_path<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    mounts
        .iter()
        .filter(|m| path.starts_with(&m.point))
        .max_by_key(|m| m.point.components().count())
}

pub(super) fn checks(system: &System, mounts: &[Mount], documents: &[PathBuf]) -> Vec<Check> {
    let usr = PathBuf::from("/usr");
    let mut all: Vec<Check> = [&usr]
        .into_iter()
        .chain(documents)
        .map(|path| {
            idmapped(
                path,
                of_path(mounts, path),
                &idmap::try_on(path),
                system.kernel(),
            )
        })
        .collect();
    all.extend(
        documents
            .iter()
            .map(|path| quota(path, of_path(mounts, path))),
    );
    all
}

/// What was tried decides; where it could not be tried, the type of the file system and the kernel's age.
fn idmapped(path: &Path, mount: Option<&Mount>, tried: &Tried, kernel: (u32, u32)) -> Check {
    let name = format!("idmapped {}", path.display());
    let kind = mount.map_or("unknown", |m| m.kind.as_str());
    let advice =
        "put it on ext4, xfs or btrfs; without it the container's users cannot own these files";
    match tried {
        Tried::Works => Check::ok(&name, format!("{kind}: works")),
        Tried::Refused(e) => Check::fail(&name, format!("{kind}: mount_setattr: {e}"), advice),
        Tried::Impossible(why) => match since(kind) {
            Some(version) if version <= kernel => {
                Check::ok(&name, format!("{kind}: this kernel can (not tried: {why})"))
            }
            Some(version) => Check::fail(
                &name,
                format!("{kind} can since Linux {}.{}", version.0, version.1),
                advice,
            ),
            None => Check::warn(
                &name,
                format!("{kind}: not known (not tried: {why})"),
                "run fastctl doctor as root",
            ),
        },
    }
}

/// The kernel that learnt to idmap a file system.
fn since(kind: &str) -> Option<(u32, u32)> {
    Some(match kind {
        "ext4" | "xfs" | "vfat" => (5, 12),
        "btrfs" => (5, 15),
        "f2fs" => (5, 18),
        "overlay" | "erofs" => (5, 19),
        "squashfs" => (6, 2),
        "tmpfs" => (6, 3),
        "ceph" => (6, 7),
        _ => return None,
    })
}

fn quota(path: &Path, mount: Option<&Mount>) -> Check {
    let name = format!("quota {}", path.display());
    let (kind, options) = mount.map_or(("unknown", &[][..]), |m| (m.kind.as_str(), &m.options[..]));
    let on = ["prjquota", "pquota"];
    if options
        .iter()
        .any(|o| on.contains(&o.split('=').next().unwrap_or(o)))
    {
        return Check::ok(&name, format!("{kind} with project quotas"));
    }
    Check::warn(
        &name,
        format!("{kind} without project quotas: no disk limits"),
        quota_advice(kind),
    )
}

/// How a file system of that type gets project quotas.
fn quota_advice(kind: &str) -> &'static str {
    match kind {
        "xfs" => "mount it with -o prjquota (for the root file system: rootflags=prjquota)",
        "ext4" => {
            "tune2fs -O project -Q prjquota on the unmounted file system, then mount it with -o prjquota"
        }
        _ => "put the documents on xfs or ext4 with project quotas, or do without disk limits",
    }
}

/// The type of the file system that a path is on, and how it gets project quotas.
pub fn project_quotas_advice(path: &Path) -> (String, &'static str) {
    let mounts = parse(&std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default());
    let kind = of_path(&mounts, path).map_or("an unknown file system", |m| &m.kind);
    (kind.to_owned(), quota_advice(kind))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::Outcome;
    use super::*;

    const INFO: &str = "\
22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro
30 22 0:26 / /srv rw shared:5 - tmpfs tmpfs rw
31 30 254:2 /x /srv/www\\040data rw,noatime - xfs /dev/vdb rw,attr2,prjquota
nonsense
";

    #[test]
    fn the_mount_of_a_path() {
        let mounts = parse(INFO);
        assert_eq!(mounts.len(), 3);
        let kind = |path: &str| of_path(&mounts, Path::new(path)).unwrap().kind.clone();
        assert_eq!(kind("/usr"), "ext4");
        assert_eq!(kind("/srvx"), "ext4");
        assert_eq!(kind("/srv/www"), "tmpfs");
        assert_eq!(kind("/srv/www data/a"), "xfs");
    }

    #[test]
    fn quota_needs_the_option() {
        let mounts = parse(INFO);
        let result = |path: &str| quota(Path::new(path), of_path(&mounts, Path::new(path)));
        assert_eq!(result("/srv/www data").result, Outcome::Ok);
        let root = result("/home");
        assert_eq!(root.result, Outcome::Warn);
        assert!(root.advice.unwrap().contains("tune2fs"));
    }

    #[test]
    fn what_was_tried_counts_more_than_what_is_known() {
        let mounts = parse(INFO);
        let of = |path: &str, tried, kernel| {
            let path = Path::new(path);
            idmapped(path, of_path(&mounts, path), &tried, kernel).result
        };
        let untried = || Tried::Impossible("not root".to_owned());
        assert_eq!(of("/usr", Tried::Works, (5, 0)), Outcome::Ok);
        assert_eq!(
            of("/usr", Tried::Refused("EINVAL".to_owned()), (6, 18)),
            Outcome::Fail
        );
        assert_eq!(of("/usr", untried(), (6, 1)), Outcome::Ok);
        assert_eq!(of("/srv", untried(), (6, 1)), Outcome::Fail);
        assert_eq!(of("/srv", untried(), (6, 3)), Outcome::Ok);
        assert_eq!(
            idmapped(Path::new("/x"), None, &untried(), (6, 1)).result,
            Outcome::Warn
        );
    }
}
