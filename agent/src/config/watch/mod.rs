//! Watching directories: definitions that change, document directories that come and go.
//!
//! One inotify descriptor for all directories; the caller waits for it to become readable (poll, epoll, `AsyncFd`) and
//! then calls [`Watcher::read_changes`], which never blocks. A directory that is replaced or does not exist yet is
//! found again because its parent directories are watched too, for the one name that leads to it.

mod event;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use super::problem::Problem;
use event::concerns;
pub use event::{Event, Kind, Target};

/// Watches any number of directories.
pub struct Watcher {
    fd: OwnedFd,
    targets: Vec<(PathBuf, Kind)>,
    /// What each inotify watch is for; several paths may lead to one directory.
    watches: HashMap<i32, Vec<Role>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Role {
    /// The directory itself.
    Itself(Target),
    /// A directory above it, and the name in there that leads to it.
    Above(Target, String),
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher")
            .field("targets", &self.targets)
            .finish_non_exhaustive()
    }
}

impl AsFd for Watcher {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Watcher {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// Of a directory above: only what may replace the way to the target.
const ABOVE: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::MASK_ADD);

/// The directory is no longer where it was, or no longer at all.
const LOST: ReadFlags = ReadFlags::DELETE_SELF
    .union(ReadFlags::MOVE_SELF)
    .union(ReadFlags::UNMOUNT)
    .union(ReadFlags::IGNORED);

impl Watcher {
    /// Watches nothing yet.
    pub fn new() -> Result<Self, Problem> {
        let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).map_err(|e| {
            let hint = if e == Errno::MFILE {
                "; raise fs.inotify.max_user_instances"
            } else {
                ""
            };
            Problem::new(format!(
                "cannot start watching directories (inotify_init1): {e}{hint}"
            ))
        })?;
        Ok(Watcher {
            fd,
            targets: Vec::new(),
            watches: HashMap::new(),
        })
    }

    /// Watches a directory, which need not exist yet. Read it after this call, then nothing is missed.
    pub fn add(&mut self, path: &Path, kind: Kind) -> Result<Target, Problem> {
        if !path.is_absolute() {
            return Err(Problem::new(format!(
                "cannot watch {}: the path must be absolute",
                path.display()
            )));
        }
        let target = Target(self.targets.len());
        self.targets.push((path.into(), kind));
        match self.arm(target) {
            Ok(()) => Ok(target),
            Err(problem) => {
                self.disarm(target);
                self.targets.pop();
                Err(problem)
            }
        }
    }

    /// The path of a watched directory.
    pub fn path(&self, target: Target) -> Option<&Path> {
        self.targets.get(target.0).map(|(path, _)| path.as_path())
    }

    /// Reads what has happened since the last call, each thing once; nothing if nothing has.
    ///
    /// An error is about inotify itself.
    pub fn read_changes(&mut self) -> Result<Vec<Event>, Problem> {
        let (mut changes, mut lost) = (BTreeSet::new(), BTreeSet::new());
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        let mut reader = inotify::Reader::new(&self.fd, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) => {
                    let name = event.file_name().map(std::ffi::CStr::to_string_lossy);
                    self.note(
                        event.wd(),
                        event.events(),
                        name.as_deref(),
                        &mut changes,
                        &mut lost,
                    );
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(e) => {
                    return Err(Problem::new(format!(
                        "cannot read changes of directories (inotify): {e}"
                    )));
                }
            }
        }
        for target in lost {
            if let Err(problem) = self.arm(target) {
                changes.insert(Event::Failed(target, problem));
            }
            changes.insert(Event::Rescan(target));
        }
        let whole: BTreeSet<Target> = changes
            .iter()
            .filter_map(|event| match event {
                Event::Rescan(target) => Some(*target),
                _ => None,
            })
            .collect();
        changes.retain(|event| !matches!(event, Event::Entry(target, _) if whole.contains(target)));
        Ok(changes.into_iter().collect())
    }

    /// Sorts one event of the kernel into what it means for the targets.
    fn note(
        &self,
        wd: i32,
        what: ReadFlags,
        name: Option<&str>,
        changes: &mut BTreeSet<Event>,
        lost: &mut BTreeSet<Target>,
    ) {
        if what.contains(ReadFlags::QUEUE_OVERFLOW) {
            lost.extend((0..self.targets.len()).map(Target));
            return;
        }
        for role in self.watches.get(&wd).into_iter().flatten() {
            match role {
                Role::Itself(target) | Role::Above(target, _) if what.intersects(LOST) => {
                    lost.insert(*target);
                }
                Role::Above(target, leading)
                    if name == Some(leading) && !what.contains(ReadFlags::CLOSE_WRITE) =>
                {
                    lost.insert(*target);
                }
                Role::Itself(target) => {
                    if let (Some(name), Some((path, kind))) = (name, self.targets.get(target.0))
                        && concerns(path, *kind, name, what)
                    {
                        changes.insert(Event::Entry(*target, name.to_owned()));
                    }
                }
                Role::Above(..) => {}
            }
        }
    }

    /// Watches a target and the way to it as they are now, and stops watching what they were.
    fn arm(&mut self, target: Target) -> Result<(), Problem> {
        let Some((path, kind)) = self.targets.get(target.0).cloned() else {
            return Ok(());
        };
        let content = match kind {
            Kind::Files => WatchFlags::CLOSE_WRITE | ABOVE,
            Kind::Directories => ABOVE,
        };
        let before = self.disarm_later(target);
        let mut result = Ok(());
        // From the root down, so that whatever appears meanwhile is either found or reported.
        let way: Vec<&Path> = path.ancestors().collect();
        for (at, directory) in way.iter().enumerate().rev() {
            let (role, flags) = match at.checked_sub(1).and_then(|below| way[below].file_name()) {
                None => (Role::Itself(target), content),
                Some(name) => (
                    Role::Above(target, name.to_string_lossy().into_owned()),
                    ABOVE,
                ),
            };
            match inotify::add_watch(&self.fd, *directory, flags) {
                Ok(wd) => self.watches.entry(wd).or_default().push(role),
                // What is not there yet is waited for in the directory above.
                Err(Errno::NOENT | Errno::NOTDIR) => break,
                Err(e) => {
                    let hint = if e == Errno::NOSPC {
                        "; raise fs.inotify.max_user_watches"
                    } else {
                        ""
                    };
                    result = Err(Problem::new(format!(
                        "cannot watch {} (inotify): {e}{hint}",
                        directory.display()
                    )));
                    break;
                }
            }
        }
        self.drop_unused(before);
        result
    }

    fn disarm(&mut self, target: Target) {
        let before = self.disarm_later(target);
        self.drop_unused(before);
    }

    /// Takes a target's roles away and answers the watches that had them; some will be needed again.
    fn disarm_later(&mut self, target: Target) -> Vec<i32> {
        let of_target =
            |role: &Role| matches!(role, Role::Itself(t) | Role::Above(t, _) if *t == target);
        let mut touched = Vec::new();
        for (wd, roles) in &mut self.watches {
            let before = roles.len();
            roles.retain(|role| !of_target(role));
            if roles.len() < before {
                touched.push(*wd);
            }
        }
        touched
    }

    fn drop_unused(&mut self, watches: Vec<i32>) {
        for wd in watches {
            if self.watches.get(&wd).is_some_and(Vec::is_empty) {
                self.watches.remove(&wd);
                // The kernel has dropped it already if the directory is gone.
                let _ = inotify::remove_watch(&self.fd, wd);
            }
        }
    }
}
