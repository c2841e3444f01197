//! Making directories: the parent's levels once, and groups while others remove their neighbours.

use crate::Error;
use crate::cpuset;
use crate::dir::{Dir, Gone};
use crate::hierarchy::Controller;
use crate::tree::Root;
use rustix::fs::XattrFlags;
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::path::Path;

/// How often a creation that collides with the removal of the level above is tried again before it is an error.
const TRIES: u32 = 10_000;
/// Marks the levels that [`Tree::open`] made, so that a later process can remove them.
const MADE: &str = "trusted.fastcontainer_cgroup";

pub(crate) fn is_marked(mount: &Dir, path: &str) -> bool {
    let mut value = [0u8; 1];
    mount
        .open_dir(path)
        .and_then(|dir| dir.with_fd(|fd| rustix::fs::fgetxattr(fd, MADE, &mut value[..])))
        .is_ok()
}

pub(crate) fn open_root(
    mount: &Path,
    parts: &[&str],
    serves: BTreeSet<Controller>,
    enable: Option<&[Controller]>,
) -> Result<Root, Error> {
    let top = Dir::open_root(mount)?;
    let mut path = String::new();
    for part in parts {
        let above = path.clone();
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
                dir.with_fd(|fd| rustix::fs::fsetxattr(fd, MADE, b"1", XattrFlags::empty()))
                    .map_err(|e| dir.error("mark as our own", "", e))?;
            }
            Err(Errno::EXIST) => {}
            Err(e) => {
                let hint = "is the cgroup file system read-only, or not delegated to this process?";
                return Err(top.error("make", &path, e).with_hint(hint));
            }
        }
        if enable.is_none() && serves.contains(&Controller::Cpuset) {
            cpuset::prepare_v1(&top, &above, &path)?;
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

pub(crate) struct New {
    pub(crate) dir: Dir,
    pub(crate) made: bool,
    pub(crate) made_above: bool,
}

/// The usual case is one mkdir and one open; whatever a concurrent removal takes away is made again.
pub(crate) fn make(root: &Root, path: &[&str], name: &str, gone: &Gone) -> Result<New, Error> {
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
            root.dir(name, gone).map(Some)
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
