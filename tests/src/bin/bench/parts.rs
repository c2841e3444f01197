//! What the parts of a container cost in memory, each by many of it: what is made ahead, and the control groups.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use harness::Host;

use crate::Effort;
use crate::density::used;
use crate::report::{Figures, Row};

/// So many of each.
const COUNT: usize = 400;
/// What the kernel has still to do is over by then.
const SETTLE: Duration = Duration::from_secs(2);

/// Memory in use, kB, with an agent that has these made ahead.
fn with(pool: &str) -> f64 {
    let host = Host::as_installed(&format!("[pool]\n{pool}\n"));
    host.settled_descriptors();
    thread::sleep(SETTLE);
    let used = used();
    host.finish();
    thread::sleep(SETTLE);
    used
}

/// Groups in each hierarchy that the agent uses, beside those of owners. The kernel keeps a kilobyte in each memory cgroup for every
/// 64 superblocks that there have ever been at a time since boot.
pub(crate) fn groups(host: &Host, count: usize) -> (f64, usize) {
    let parent = |root: String| Path::new(&root).join(&host.cgroup_parent);
    let parents: Vec<PathBuf> = harness::cgroup_roots().into_iter().map(parent).collect();
    let parents: Vec<PathBuf> = parents.into_iter().filter(|path| path.is_dir()).collect();
    let each = |work: &dyn Fn(PathBuf)| {
        for parent in &parents {
            (0..count).for_each(|n| work(parent.join(format!("part{n}"))));
        }
    };
    let before = used();
    each(&|path| std::fs::create_dir(path).unwrap());
    thread::sleep(SETTLE);
    let after = used();
    each(&|path| std::fs::remove_dir(path).unwrap());
    (after - before, parents.len())
}

pub(crate) fn measure(effort: Effort) -> Vec<Row> {
    let count = effort.rounds(COUNT);
    let none = "address = 0\nprivate = 0\ninits = 0";
    let nothing = with(none);
    let mut row = Row::new(&format!(
        "memory of the parts of a container, by {count} of each"
    ));
    let mut add = |what: &str, kb: f64| {
        let figures = Figures::new(what, "kB each", vec![kb / count as f64]);
        row = row.clone().with(figures);
    };
    for (what, key) in [
        ("network namespace with loopback", "private"),
        ("the same with a link to the host", "address"),
        ("init with its namespaces, bare root and /proc", "inits"),
    ] {
        let only = none.replace(&format!("{key} = 0"), &format!("{key} = {count}"));
        add(what, with(&only) - nothing);
    }
    let host = Host::as_installed("");
    let (kb, hierarchies) = groups(&host, count);
    host.finish();
    add(&format!("control groups in {hierarchies} hierarchies"), kb);
    vec![row]
}
