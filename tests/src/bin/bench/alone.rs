//! What the system calls behind a container take alone: the program `bare`, which makes them and nothing else,
//! as they are mostly made: each container has a sysfs of its own, and enters its root by pivot_root.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use harness::Host;

/// The program.
pub(crate) struct Alone {
    child: Child,
    told: std::io::Lines<BufReader<ChildStdout>>,
}

impl Alone {
    /// Its groups are next to those of `host`'s owners, its documents those of this name.
    pub(crate) fn new(host: &Host, documents: &str) -> Self {
        let program = std::env::current_exe().unwrap().with_file_name("bare");
        let groups = harness::cgroup_roots().into_iter().filter_map(|root| {
            let parent = Path::new(&root).join(&host.cgroup_parent);
            parent.is_dir().then_some(parent)
        });
        let mut child = Command::new(&program)
            .arg(host.dir.join("bare"))
            .arg(host.documents(documents))
            .args(groups)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{}: {e}; scripts/bench builds it", program.display()));
        let told = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, told }
    }

    /// A no-op in a container, until nothing is left of that.
    pub(crate) fn run_to_exit(&mut self) -> Duration {
        self.ask("exit")
    }

    /// The server among the documents, until the first byte of its answer; its network namespace is there before.
    pub(crate) fn first_byte(&mut self) -> Duration {
        self.ask("serve")
    }

    fn ask(&mut self, what: &str) -> Duration {
        let stdin = self.child.stdin.as_mut().unwrap();
        writeln!(stdin, "{what}").unwrap();
        let micros = self.told.next().expect("it has ended").unwrap();
        Duration::from_micros(micros.parse().unwrap())
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        // Its end, too.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
