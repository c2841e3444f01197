//! The programs under test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Where the programs are.
#[derive(Debug, Clone)]
pub struct Programs {
    /// fastcontainerd.
    pub daemon: PathBuf,
    /// fastctl.
    pub ctl: PathBuf,
    /// fastcontainer-shim, static.
    pub shim: PathBuf,
}

/// The programs: from `FASTCONTAINER_BIN`, else built once into cargo's target directory.
pub fn programs() -> &'static Programs {
    static FOUND: OnceLock<Programs> = OnceLock::new();
    FOUND.get_or_init(|| match std::env::var_os("FASTCONTAINER_BIN") {
        Some(dir) => {
            let dir = PathBuf::from(dir);
            let program = |name: &str| {
                let path = dir.join(name);
                assert!(
                    path.is_file(),
                    "{} is missing: FASTCONTAINER_BIN must hold all three programs",
                    path.display()
                );
                path
            };
            Programs {
                daemon: program("fastcontainerd"),
                ctl: program("fastctl"),
                shim: program("fastcontainer-shim"),
            }
        }
        None => build(),
    })
}

fn build() -> Programs {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate lies in the workspace");
    let script = root.join("scripts/build");
    let output = Command::new(&script)
        .arg("--print-dir")
        .output()
        .expect("scripts/build runs");
    assert!(
        output.status.success(),
        "{}: {}",
        script.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8_lossy(&output.stdout);
    let dir = PathBuf::from(
        text.lines()
            .last()
            .expect("scripts/build prints a directory")
            .trim(),
    );
    Programs {
        daemon: dir.join("fastcontainerd"),
        ctl: dir.join("fastctl"),
        shim: dir.join("fastcontainer-shim"),
    }
}
