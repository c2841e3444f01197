//! The parent below the mounts, and the making and listing of groups in it.

use crate::Error;
use crate::dir::Dir;
use crate::dynmods::DynmodsGuard;
use crate::group::Group;
use crate::hierarchy::{Controller, Hierarchy, Version};
use crate::name::{components, validate_name};
use crate::plan::Backend;
use crate::v1::V1;
use crate::v2::V2;
use rustix::fs::XattrFlags;
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

/// How often a creation that collides with the removal of the level above is tried again before it is an error.
const TRIES: u32 = 10_000;
/// Marks the levels that [`Tree::open`] made, so that a later process can remove them.
const MADE: &str = "trusted.fastcontainer_cgroup";

/// One hierarchy that groups are made in, with the parent's directory.
#[derive(Debug)]
pub(crate) struct Root {
    pub(crate) parent: Dir,
    /// The controllers that this hierarchy serves.
    pub(crate) serves: BTreeSet<Controller>,
    pub(crate) v2: bool,
    /// To be enabled in `cgroup.subtree_control` of each level.
    enable: String,
    mount: Dir,
}

impl Root {
    pub(crate) fn backend(&self) -> &'static dyn Backend {
        if self.v2 { &V2 } else { &V1 }
    }
}

/// What the groups of a tree share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) hierarchy: Hierarchy,
    pub(crate) roots: Vec<Root>,
    parts: Vec<String>,
}

/// A parent below the mounts, in every hierarchy that is used. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tree(Arc<Shared>);

impl Tree {
    /// Opens the parent (`a/b/c`, relative to each mount), making what is missing, and on v2 enabling the controllers
    /// down to it.
    pub fn open(hierarchy: Hierarchy, parent: &str) -> Result<Self, Error> {
        let parts = components(parent)?;
        let mut roots = Vec::new();
        if let Some(mount) = hierarchy.v2_mount() {
            let enable = hierarchy.v2_to_enable();
            let mut serves: BTreeSet<_> = enable
                .iter()
                .copied()
                .chain([Controller::Freezer])
                .collect();
            if !hierarchy.is_v1(Controller::Cpuacct) {
                serves.insert(Controller::Cpuacct);
            }
            roots.push(open_root(mount, &parts, serves, Some(&enable))?);
        }
        let freezer = hierarchy
            .v2_mount()
            .is_none()
            .then_some(Controller::Freezer);
        for (mount, controllers) in hierarchy.v1_mounts() {
            let used = |c: &Controller| Controller::USED.contains(c) || freezer == Some(*c);
            let serves: BTreeSet<_> = controllers.iter().copied().filter(used).collect();
            if !serves.is_empty() {
                roots.push(open_root(mount, &parts, serves, None)?);
            }
        }
        let parts = parts.into_iter().map(str::to_owned).collect();
        Ok(Self(Arc::new(Shared {
            hierarchy,
            roots,
            parts,
        })))
    }

    /// The host's mounts.
    #[must_use]
    pub fn hierarchy(&self) -> &Hierarchy {
        &self.0.hierarchy
    }

    /// On hybrid hosts, an object that makes joining groups cheap while it lives; `None` on pure v2, where
    /// CLONE_INTO_CGROUP needs nothing of the kind.
    pub fn favor_dynmods(&self) -> Result<Option<DynmodsGuard>, Error> {
        match self.0.hierarchy.version() {
            Version::V2 => Ok(None),
            Version::Hybrid => DynmodsGuard::new().map(Some),
        }
    }

    /// Makes the group, or opens it where it exists. Levels above it are made as needed and get no limits; they can be
    /// opened as groups of their own. Safe against concurrent [`Group::remove`] of siblings.
    pub fn group(&self, path: &[&str]) -> Result<Group, Error> {
        let name = checked(path)?;
        let mut dirs = Vec::with_capacity(self.0.roots.len());
        let mut made = Vec::new();
        let mut made_above = false;
        for root in &self.0.roots {
            match make(root, path, &name) {
                Ok(new) => {
                    if new.made {
                        made.push(root);
                    }
                    made_above |= new.made_above;
                    dirs.push(Some(new.dir));
                }
                Err(error) => {
                    let undo = made.iter().filter_map(|r| {
                        r.parent
                            .rmdir(&name)
                            .err()
                            .map(|e| r.parent.error("remove", &name, e))
                    });
                    return Err(error.and(undo.collect()));
                }
            }
        }
        Ok(Group::new(self.0.clone(), path, name, dirs, made_above))
    }

    /// Opens a group that exists in at least one hierarchy, making nothing.
    pub fn open_group<S: AsRef<str>>(&self, path: &[S]) -> Result<Group, Error> {
        let path: Vec<&str> = path.iter().map(AsRef::as_ref).collect();
        let name = checked(&path)?;
        let mut dirs = Vec::with_capacity(self.0.roots.len());
        for root in &self.0.roots {
            match root.parent.open_dir(&name) {
                Ok(dir) => dirs.push(Some(dir)),
                Err(Errno::NOENT) => dirs.push(None),
                Err(e) => return Err(root.parent.error("open", &name, e)),
            }
        }
        if dirs.iter().all(Option::is_none) {
            let parent = self
                .0
                .roots
                .first()
                .map_or_else(|| name.clone(), |r| r.parent.path_of(&name));
            return Err(Error::sys("open", parent, Errno::NOENT)
                .with_hint("there is no such group in any hierarchy"));
        }
        Ok(Group::new(self.0.clone(), &path, name, dirs, false))
    }

    /// The groups without groups below them, over all hierarchies, sorted.
    pub fn existing(&self) -> Result<Vec<Vec<String>>, Error> {
        let mut all = BTreeSet::new();
        for root in &self.0.roots {
            let mut open = vec![Vec::new()];
            while let Some(path) = open.pop() {
                let names = match path.as_slice() {
                    [] => root.parent.subdirs()?,
                    path => match root.parent.open_dir(&path.join("/")) {
                        Ok(dir) => dir.subdirs()?,
                        // Removed since it was listed.
                        Err(Errno::NOENT | Errno::NODEV) => Vec::new(),
                        Err(e) => return Err(root.parent.error("open", &path.join("/"), e)),
                    },
                };
                for name in names {
                    let mut child: Vec<String> = path.clone();
                    child.push(name);
                    all.insert(child.clone());
                    open.push(child);
                }
            }
        }
        // What begins with a path sorts right after it.
        let mut sorted = all.into_iter().peekable();
        let mut leaves = Vec::new();
        while let Some(path) = sorted.next() {
            if !sorted.peek().is_some_and(|next| next.starts_with(&path)) {
                leaves.push(path);
            }
        }
        Ok(leaves)
    }

    /// Removes those levels of the parent path that [`Tree::open`] made, now or in an earlier process; the first that
    /// is not empty ends it in each hierarchy, and is an error only if it is the lowest.
    pub fn remove(&self) -> Result<(), Error> {
        let mut errors = Vec::new();
        for root in &self.0.roots {
            for depth in (1..=self.0.parts.len()).rev() {
                let path = self.0.parts.get(..depth).unwrap_or_default().join("/");
                if !is_marked(&root.mount, &path) {
                    break;
                }
                match root.mount.rmdir(&path) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(e) => {
                        if depth == self.0.parts.len() {
                            let hint = "groups or processes are still below it; stop them first";
                            errors.push(root.mount.error("remove", &path, e).with_hint(hint));
                        }
                        break;
                    }
                }
            }
        }
        Error::from_all(errors)
    }
}

fn checked(path: &[&str]) -> Result<String, Error> {
    if path.is_empty() {
        return Err(Error::InvalidName {
            name: String::new(),
            why: "a group needs a name",
        });
    }
    for part in path {
        validate_name(part)?;
    }
    Ok(path.join("/"))
}

fn is_marked(mount: &Dir, path: &str) -> bool {
    let mut value = [0u8; 1];
    mount
        .open_dir(path)
        .is_ok_and(|dir| rustix::fs::fgetxattr(dir.fd(), MADE, &mut value[..]).is_ok())
}

fn open_root(
    mount: &Path,
    parts: &[&str],
    serves: BTreeSet<Controller>,
    enable: Option<&[Controller]>,
) -> Result<Root, Error> {
    let top = Dir::open_root(mount)?;
    let mut path = String::new();
    for part in parts {
        if let Some(enable) = enable {
            enable_missing(&top, &path, enable)?;
        }
        if !path.is_empty() {
            path.push('/');
        }
        path.push_str(part);
        match top.mkdir(&path) {
            Ok(()) => {
                let dir = top
                    .open_dir(&path)
                    .map_err(|e| top.error("open", &path, e))?;
                rustix::fs::fsetxattr(dir.fd(), MADE, b"1", XattrFlags::empty())
                    .map_err(|e| dir.error("mark as our own", "", e))?;
            }
            Err(Errno::EXIST) => {}
            Err(e) => {
                let hint = "is the cgroup file system read-only, or not delegated to this process?";
                return Err(top.error("make", &path, e).with_hint(hint));
            }
        }
    }
    if let Some(enable) = enable {
        enable_missing(&top, &path, enable)?;
    }
    let parent = top
        .open_dir(&path)
        .map_err(|e| top.error("open", &path, e))?;
    let words: Vec<String> = enable
        .unwrap_or_default()
        .iter()
        .map(|c| format!("+{}", c.v2_name()))
        .collect();
    Ok(Root {
        parent,
        serves,
        v2: enable.is_some(),
        enable: words.join(" "),
        mount: top,
    })
}

/// Enables, one by one so that each failure is known, what the level does not hand down yet.
fn enable_missing(top: &Dir, level: &str, controllers: &[Controller]) -> Result<(), Error> {
    let file = if level.is_empty() {
        "cgroup.subtree_control".to_owned()
    } else {
        format!("{level}/cgroup.subtree_control")
    };
    let now = top.read(&file)?;
    let mut errors = Vec::new();
    for controller in controllers {
        let name = controller.v2_name();
        if now.split_whitespace().any(|c| c == name) {
            continue;
        }
        if let Err(errno) = top.write_raw(&file, &format!("+{name}")) {
            let hint = match errno {
                Errno::BUSY => {
                    "processes sit in this group itself, which cgroup v2 does not allow; move them into a group below it \
                     (systemd: DelegateSubgroup=agent)"
                }
                Errno::NOENT => {
                    "the level above does not hand this controller down (systemd: Delegate=yes)"
                }
                _ => "",
            };
            errors.push(
                top.error(&format!("write +{name} to"), &file, errno)
                    .with_hint(hint),
            );
        }
    }
    Error::from_all(errors)
}

struct New {
    dir: Dir,
    made: bool,
    made_above: bool,
}

/// The usual case is one mkdir and one open; whatever a concurrent removal takes away is made again.
fn make(root: &Root, path: &[&str], name: &str) -> Result<New, Error> {
    let mut made = false;
    let mut made_above = false;
    let mut last = Errno::NOENT;
    for _ in 0..TRIES {
        let mut step = || -> Result<Option<Dir>, Errno> {
            match root.parent.mkdir(name) {
                Ok(()) => made = true,
                Err(Errno::EXIST) => {}
                Err(Errno::NOENT | Errno::NODEV) if path.len() > 1 => {
                    for depth in 1..path.len() {
                        match root
                            .parent
                            .mkdir(&path.get(..depth).unwrap_or_default().join("/"))
                        {
                            Ok(()) => made_above = true,
                            Err(Errno::EXIST) => {}
                            Err(e) => return Err(e),
                        }
                    }
                    return Ok(None);
                }
                Err(e) => return Err(e),
            }
            if !root.enable.is_empty() {
                // Also where the level above exists: whoever made it may not have come to this line yet.
                for depth in 1..path.len() {
                    let level = path.get(..depth).unwrap_or_default().join("/");
                    root.parent
                        .write_raw(&format!("{level}/cgroup.subtree_control"), &root.enable)?;
                }
            }
            root.parent.open_dir(name).map(Some)
        };
        match step() {
            Ok(Some(dir)) => {
                return Ok(New {
                    dir,
                    made,
                    made_above,
                });
            }
            Ok(None) => {}
            Err(e @ (Errno::NOENT | Errno::NODEV)) => last = e,
            Err(e) => return Err(root.parent.error("make", name, e)),
        }
    }
    Err(root
        .parent
        .error("make", name, last)
        .with_hint("somebody else keeps removing the level above"))
}
