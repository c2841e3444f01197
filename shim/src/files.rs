//! Directories and files of the container's tmpfs: mount points, writable directories, generated files.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, openat};
use shim::protocol::Start;

use crate::mounts;
use crate::report::{Done, Step};
use crate::root::Root;

/// The hidden part of the tmpfs, see [`crate::root`].
const HIDDEN: &str = "dev";

/// One writable directory that gets a bind of its own.
#[derive(Debug)]
struct Top {
    /// Where the tenant sees it.
    path: String,
    /// Where it lies in the tmpfs.
    place: String,
    /// It is shown inside another mount.
    covered: bool,
}

/// Where everything lies.
#[derive(Debug)]
pub(crate) struct Layout {
    mounts: Vec<String>,
    /// Writable directories by path: sorted, parents come before what is in them.
    writable: BTreeMap<String, u32>,
    tops: Vec<Top>,
}

/// A bind that waits to be attached.
pub(crate) struct Bind {
    pub(crate) mount: OwnedFd,
    pub(crate) path: String,
    pub(crate) covered: bool,
}

fn is_below(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory)
        .is_some_and(|rest| rest.starts_with('/'))
}

impl Layout {
    /// Sorts the request's paths.
    pub(crate) fn new(start: &Start) -> Self {
        let mounts: Vec<String> = start.mounts.iter().map(|m| m.target.clone()).collect();
        let mut writable: BTreeMap<String, u32> = start.writable.iter().cloned().collect();
        writable.entry("run/shm".to_owned()).or_insert(0o1777);
        let mut layout = Self {
            mounts,
            writable,
            tops: Vec::new(),
        };
        let top = |path: &String| !layout.writable.keys().any(|w| is_below(path, w));
        let tops: Vec<Top> = layout
            .writable
            .keys()
            .filter(|p| top(p))
            .enumerate()
            .map(|(i, p)| layout.top(i, p))
            .collect();
        layout.tops = tops;
        layout
    }

    fn top(&self, number: usize, path: &str) -> Top {
        let covered = self.is_covered(path);
        let place = if covered {
            format!("{HIDDEN}/w{number}")
        } else {
            path.to_owned()
        };
        Top {
            path: path.to_owned(),
            place,
            covered,
        }
    }

    /// Whether `path` lies in (or is) one of the mounts, or is otherwise not in the tmpfs.
    pub(crate) fn is_covered(&self, path: &str) -> bool {
        self.mounts.iter().any(|m| is_below(path, m))
    }

    /// Whether `path` is or lies in one of the mounts.
    fn is_shown_over(&self, path: &str) -> bool {
        self.mounts.iter().any(|m| m == path || is_below(path, m))
    }

    /// Where a writable directory lies in the tmpfs.
    fn place(&self, path: &str) -> String {
        for top in &self.tops {
            if path == top.path {
                return top.place.clone();
            }
            if is_below(path, &top.path) {
                return format!("{}{}", top.place, &path[top.path.len()..]);
            }
        }
        path.to_owned()
    }
}

/// Makes the mount point for `target`.
pub(crate) fn mount_point(root: &Root, target: &str, directory: bool) -> Done<()> {
    if directory {
        return root.directories(target);
    }
    if let Some((parent, _)) = target.rsplit_once('/') {
        root.directories(parent)?;
    }
    write(root, target, b"")
}

fn write(root: &Root, path: &str, content: &[u8]) -> Done<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file =
        openat(&root.fd, path, flags, Mode::from_raw_mode(0o644)).step("make the file", path)?;
    let mut rest = content;
    while !rest.is_empty() {
        let n = rustix::io::write(&file, rest).step("write the file", path)?;
        rest = rest.get(n..).unwrap_or_default();
    }
    Ok(())
}

/// Makes the writable directories, owned by the site's user.
pub(crate) fn writable(root: &Root, layout: &Layout) -> Done<()> {
    for (path, mode) in &layout.writable {
        let place = layout.place(path);
        if let Some((parent, _)) = place.rsplit_once('/') {
            root.directories(parent)?;
        }
        let (uid, gid) = (root.ids.host_uid(), root.ids.host_gid());
        if !root.directory(&place, *mode, uid, gid)? {
            // A mount point inside it came first.
            let mode = Mode::from_raw_mode(*mode);
            rustix::fs::chmodat(&root.fd, &place, mode, rustix::fs::AtFlags::empty())
                .step("change the mode of", path)?;
            root.own(&place, uid, gid)?;
        }
    }
    Ok(())
}

/// Clones a bind of every writable directory that is not inside another; the root must still be writable.
pub(crate) fn bind_writable(root: &Root, layout: &Layout) -> Done<Vec<Bind>> {
    let mut binds = Vec::with_capacity(layout.tops.len());
    for top in &layout.tops {
        let mount = mounts::clone_of(root, &top.place)?;
        if top.path == "run" || is_below(&top.path, "run") {
            mounts::set_no_exec(&mount).step("forbid programs in", &top.path)?;
        }
        binds.push(Bind {
            mount,
            path: top.path.clone(),
            covered: top.covered,
        });
    }
    Ok(binds)
}

/// Writes the generated files: those inside a mount into the hidden part, the others where they belong.
pub(crate) fn generated(root: &Root, layout: &Layout, start: &Start) -> Done<()> {
    for (i, file) in start.generated.iter().enumerate() {
        if layout.is_shown_over(&file.target) {
            write(root, &format!("{HIDDEN}/g{i}"), &file.content)?;
        } else {
            if let Some((parent, _)) = file.target.rsplit_once('/') {
                root.directories(parent)?;
            }
            write(root, &file.target, &file.content)?;
        }
    }
    Ok(())
}

/// Shows the generated files over those of the mounts; the root is read-only by now, and so are these binds.
pub(crate) fn bind_generated(root: &Root, layout: &Layout, start: &Start) -> Done<()> {
    for (i, file) in start.generated.iter().enumerate() {
        if layout.is_shown_over(&file.target) {
            let mount = mounts::clone_of(root, &format!("{HIDDEN}/g{i}"))?;
            mounts::attach(root, std::os::fd::AsFd::as_fd(&mount), &file.target)?;
        }
    }
    Ok(())
}
