//! The parent below the mounts, and the making and listing of groups in it.

use crate::Error;
use crate::dir::{Dir, Gone};
use crate::dynmods::DynmodsGuard;
use crate::group::Group;
use crate::hierarchy::{Controller, Hierarchy};
use crate::make::{is_marked, make, open_root};
use crate::name::{components, validate_name};
use crate::plan::Backend;
use crate::v1::V1;
use crate::v2::V2;
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::sync::Arc;

/// One hierarchy that groups are made in, with the parent's directory.
#[derive(Debug)]
pub(crate) struct Root {
    pub(crate) parent: Dir,
    /// The controllers that this hierarchy serves.
    pub(crate) serves: BTreeSet<Controller>,
    pub(crate) v2: bool,
    /// To be enabled in `cgroup.subtree_control` of each level.
    pub(crate) enable: String,
    pub(crate) mount: Dir,
}

impl Root {
    pub(crate) fn backend(&self) -> &'static dyn Backend {
        if self.v2 { &V2 } else { &V1 }
    }

    /// The directory of a group that exists. By v2's a process is cloned into the group, frozen and killed.
    pub(crate) fn dir(&self, name: &str, gone: &Gone) -> Result<Dir, Errno> {
        match self.v2 {
            true => self.parent.open_dir(name),
            false => Ok(self.parent.below(name, gone.clone())),
        }
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
        let cpuset = hierarchy.cpuset.then_some(Controller::Cpuset);
        for (mount, controllers) in hierarchy.v1_mounts() {
            let used = |c: &Controller| {
                Controller::USED.contains(c) || [freezer, cpuset].contains(&Some(*c))
            };
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

    pub(crate) fn root_of(&self, controller: Controller) -> Option<&Root> {
        let mut roots = self.0.roots.iter();
        roots.find(|root| root.serves.contains(&controller))
    }

    /// The host's mounts.
    #[must_use]
    pub fn hierarchy(&self) -> &Hierarchy {
        &self.0.hierarchy
    }

    /// An object that makes joining groups cheap while it lives. Only CLONE_INTO_CGROUP does not need it.
    pub fn favor_dynmods(&self) -> Result<DynmodsGuard, Error> {
        DynmodsGuard::new()
    }

    /// Makes the group, or opens it where it exists. Levels above it are made as needed and get no limits; they can be
    /// opened as groups of their own. Safe against concurrent [`Group::remove`] of siblings.
    pub fn group(&self, path: &[&str]) -> Result<Group, Error> {
        let name = checked(path)?;
        let gone = Gone::default();
        let mut dirs = Vec::with_capacity(self.0.roots.len());
        let mut made = Vec::new();
        let mut made_above = false;
        for root in &self.0.roots {
            match make(root, path, &name, &gone) {
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
        Ok(Group::new(
            self.0.clone(),
            path,
            name,
            dirs,
            gone,
            made_above,
        ))
    }

    /// Opens a group that exists in at least one hierarchy, making nothing.
    pub fn open_group<S: AsRef<str>>(&self, path: &[S]) -> Result<Group, Error> {
        let path: Vec<&str> = path.iter().map(AsRef::as_ref).collect();
        let name = checked(&path)?;
        let gone = Gone::default();
        let mut dirs = Vec::with_capacity(self.0.roots.len());
        for root in &self.0.roots {
            let opened = root.parent.open_dir(&name);
            match opened.and_then(|_exists| root.dir(&name, &gone)) {
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
        Ok(Group::new(self.0.clone(), &path, name, dirs, gone, false))
    }

    /// The parent itself, for limits of all groups together.
    pub fn parent(&self) -> Result<Group, Error> {
        let open = |root: &Root| {
            let dir = root.parent.open_dir(".");
            dir.map(Some).map_err(|e| root.parent.error("open", ".", e))
        };
        let dirs = self.0.roots.iter().map(open).collect::<Result<_, _>>()?;
        let name = self.0.parts.join("/");
        let gone = Gone::default();
        Ok(Group::new(self.0.clone(), &[], name, dirs, gone, false))
    }

    /// Of the levels above the parent on v2 the one with the least `memory.min`, which bounds what the groups here are
    /// guaranteed: its path and bytes. None where no level is in between, or memory is not on v2.
    #[must_use]
    pub fn memory_min_above(&self) -> Option<(String, u64)> {
        let root = self.0.roots.iter().find(|root| root.v2)?;
        let above = (1..self.0.parts.len()).filter_map(|depth| {
            let level = self.0.parts.get(..depth)?.join("/");
            let file = format!("{level}/memory.min");
            let text = root.mount.read_optional(&file).ok().flatten()?;
            let bytes = match crate::stat::number_or_max(&text)? {
                crate::Setting::To(bytes) => bytes,
                _ => u64::MAX,
            };
            Some((root.mount.path_of(&level), bytes))
        });
        above.min_by_key(|(_, bytes)| *bytes)
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

    /// Removes a level (`["acme"]`) in every hierarchy in which nothing is below it. Safe against concurrent
    /// [`Tree::group`].
    pub fn prune<S: AsRef<str>>(&self, path: &[S]) -> Result<(), Error> {
        let path: Vec<&str> = path.iter().map(AsRef::as_ref).collect();
        checked(&path)?;
        self.0
            .prune(&path.into_iter().map(str::to_owned).collect::<Vec<_>>())
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
