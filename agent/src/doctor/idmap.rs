//! Tries an idmapped mount: a detached copy of the mount of a path, mapped by a throw-away user namespace, never attached.
#![allow(unsafe_code)]
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::mount::{OpenTreeFlags, open_tree};

/// How it went.
#[derive(Debug)]
pub(super) enum Tried {
    /// The file system can be idmapped.
    Works,
    /// The kernel refused, with its reason.
    Refused(String),
    /// It could not be tried, and why.
    Impossible(String),
}

/// Tries it on the mount of a path.
pub(super) fn try_on(path: &Path) -> Tried {
    if !rustix::process::geteuid().is_root() {
        return Tried::Impossible("not root".to_owned());
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = match open_tree(rustix::fs::CWD, path, flags) {
        Ok(tree) => tree,
        Err(e) => return Tried::Impossible(format!("open_tree: {e}")),
    };
    let namespace = match UserNamespace::new() {
        Ok(namespace) => namespace,
        Err(e) => return Tried::Impossible(format!("no user namespace: {e}")),
    };
    match map(tree.as_fd(), namespace.file.as_fd()) {
        Ok(()) => Tried::Works,
        Err(e) => Tried::Refused(e.to_string()),
    }
}

/// A user namespace with a map, kept by a child that waits for the end of its input.
struct UserNamespace {
    file: File,
    child: Child,
}

impl UserNamespace {
    fn new() -> io::Result<Self> {
        let mut child = Command::new("unshare")
            .args(["--user", "--map-root-user", "sh", "-c", "echo; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        // The first line proves that the namespace is there and mapped.
        let mut line = String::new();
        let read = child
            .stdout
            .take()
            .map(|out| BufReader::new(out).read_line(&mut line));
        let file = match read {
            Some(Ok(1..)) => File::open(format!("/proc/{}/ns/user", child.id())),
            _ => Err(io::Error::other("unshare --user failed")),
        };
        match file {
            Ok(file) => Ok(Self { file, child }),
            Err(e) => {
                end(&mut child);
                Err(e)
            }
        }
    }
}

impl Drop for UserNamespace {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Its input ends, so cat does.
fn end(child: &mut Child) {
    drop(child.stdin.take());
    let _ = child.wait();
}

/// `struct mount_attr` of the kernel.
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;

/// mount_setattr(2) of the whole detached mount; rustix has no such call.
fn map(tree: BorrowedFd<'_>, namespace: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = MountAttr {
        set: MOUNT_ATTR_IDMAP,
        clear: 0,
        propagation: 0,
        user_namespace: namespace.as_raw_fd() as u64,
    };
    // SAFETY: both descriptors are borrowed for the call; the path is an empty C string; the structure has the layout and the
    // size that are passed, outlives the call and is only read.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<MountAttr>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn proc_can_never_be_idmapped() {
        // Not only a path that works: the answer must be able to be no.
        match try_on(Path::new("/proc")) {
            Tried::Refused(e) => assert!(e.contains("Invalid argument"), "{e}"),
            Tried::Impossible(why) => assert!(
                !rustix::process::geteuid().is_root()
                    || why.contains("namespace")
                    || why.contains("open_tree"),
                "{why}"
            ),
            Tried::Works => panic!("procfs was idmapped"),
        }
        assert!(matches!(
            try_on(Path::new("/nonexistent")),
            Tried::Impossible(_)
        ));
    }
}
