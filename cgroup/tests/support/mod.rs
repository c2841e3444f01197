//! What the tests against the real kernel share: a parent of their own that goes away, and gated child processes.
#![allow(clippy::unwrap_used, dead_code)]

use cgroup::{Group, Hierarchy, Tree, Version};
use std::io::{BufRead, BufReader, Write};
use std::ops::Deref;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Long enough for a slow virtual machine.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// A tree below `fctest-<pid>-<name>`; when dropped, everything in it is killed and removed.
pub(crate) struct TestTree {
    tree: Tree,
    children: bool,
}

impl TestTree {
    /// `None`, with the reason printed, where the test cannot run.
    pub(crate) fn new(name: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("SKIPPED: needs root");
            return None;
        }
        let hierarchy = Hierarchy::detect().unwrap();
        let parent = format!("fctest-{}-{name}", std::process::id());
        Some(Self {
            tree: Tree::open(hierarchy, &parent).unwrap(),
            children: true,
        })
    }

    pub(crate) fn v2(&self) -> bool {
        self.hierarchy().version() == Version::V2
    }

    /// For tests that check the removal themselves.
    pub(crate) fn forget(mut self) {
        self.children = false;
        self.tree.remove().unwrap();
    }
}

impl Deref for TestTree {
    type Target = Tree;
    fn deref(&self) -> &Tree {
        &self.tree
    }
}

impl Drop for TestTree {
    fn drop(&mut self) {
        if !self.children {
            return;
        }
        for path in self.tree.existing().unwrap() {
            let group = self.tree.open_group(&path).unwrap();
            group.kill().unwrap();
            group.wait_empty(SOON).unwrap();
            group.remove(SOON).unwrap();
        }
        let removed = self.tree.remove();
        if !std::thread::panicking() {
            removed.unwrap();
        }
    }
}

/// A shell that has joined the group and waits for [`Gated::go`] before it runs its script.
pub(crate) struct Gated {
    pub(crate) child: Child,
    out: BufReader<std::process::ChildStdout>,
}

impl Gated {
    pub(crate) fn new(group: &Group, script: &str) -> Self {
        let mut child = Command::new("sh")
            .args(["-c", &format!("read gate; {script}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        group.attach(child.id()).unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    pub(crate) fn go(&mut self) {
        self.child
            .stdin
            .as_mut()
            .unwrap()
            .write_all(b"go\n")
            .unwrap();
    }

    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    pub(crate) fn wait(mut self) -> std::process::ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Gated {
    fn drop(&mut self) {
        // Fails only if it has been waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
