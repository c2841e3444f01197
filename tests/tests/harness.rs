//! The harness itself leaves nothing behind when a test fails.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use harness::{Host, programs};

const INSIDE: &str = "FASTCONTAINER_TEST_INSIDE";

#[test]
fn an_agent_that_never_answers_ends_with_its_test() {
    if std::env::var_os(INSIDE).is_some() {
        Host::new("");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *--teardown*) exit 0;; esac\necho $$ >{}\necho waiting for nothing\nexec sleep 4321\n",
        path("pid").display()
    );
    fs::write(path("fastcontainerd"), script).unwrap();
    fs::set_permissions(path("fastcontainerd"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink(&programs().ctl, path("fastctl")).unwrap();
    symlink(&programs().shim, path("fastcontainer-shim")).unwrap();
    // This test once more, with that agent.
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "an_agent_that_never_answers_ends_with_its_test"])
        .env(INSIDE, "1")
        .env("FASTCONTAINER_BIN", dir.path())
        .env("FASTCONTAINER_TIME_SCALE", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(!output.status.success(), "{said}");
    assert!(
        said.contains("the agent's first answer: not within"),
        "{said}"
    );
    assert!(said.contains("waiting for nothing"), "its log: {said}");
    let pid = fs::read_to_string(path("pid")).unwrap();
    assert!(
        !Path::new("/proc").join(pid.trim()).exists(),
        "{pid} runs on"
    );
}
