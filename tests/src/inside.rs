//! Sites whose command is the checker (tests/src/bin/checker), and what they report.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::{Host, OWNER, http, seconds};
use serde_json::Value;

/// The checker as a site's command.
pub const CHECKER: &str =
    "command = [\"/site/checker\", \"serve\", \"8080\"]\nlisten = \"tcp:8080\"\n";

/// The checker, static: from `FASTCONTAINER_BIN`, else built by cargo.
pub fn checker() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        let ready =
            std::env::var_os("FASTCONTAINER_BIN").map(|dir| Path::new(&dir).join("checker"));
        ready.filter(|path| path.is_file()).unwrap_or_else(build)
    })
}

fn build() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate lies in the workspace");
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(root)
        .args([
            "build",
            "--quiet",
            "--locked",
            "-p",
            "fastcontainer-tests",
            "--bin",
            "checker",
            "--target",
            &target,
        ])
        .output()
        .expect(
            "cargo builds the checker; where there is no cargo, FASTCONTAINER_BIN must hold it",
        );
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let directory =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    root.join(directory).join(target).join("debug/checker")
}

/// Puts the checker into documents.
pub fn put(documents: &Path) {
    let path = documents.join("checker");
    // A running program cannot be overwritten, but replaced.
    let _ = fs::remove_file(&path);
    fs::copy(checker(), &path).expect("a copy of the checker");
    chown(&path, Some(OWNER), Some(OWNER)).expect("its owner");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
}

/// A site of owner `acme` that runs the checker.
pub fn site(host: &Host, name: &str, rest: &str) -> PathBuf {
    put(&host.documents(name));
    host.site(name, &format!("{CHECKER}{rest}"))
}

/// Asks the checker of a site for something that takes up to `limit` seconds; None if it ended meanwhile.
pub fn try_ask(host: &Host, vhost: &str, what: &str, limit: u64) -> Option<String> {
    let upstream = host.dispatch(vhost).upstream();
    let answer = http::get(&upstream, &format!("/{what}"), seconds(limit)).ok()?;
    Some(String::from_utf8(answer.body).expect("text"))
}

/// As [`try_ask`]; it must answer.
pub fn ask(host: &Host, vhost: &str, what: &str, limit: u64) -> String {
    try_ask(host, vhost, what, limit)
        .unwrap_or_else(|| panic!("{vhost} did not answer to {what}: {}", host.status(vhost)))
}

/// One line of a report.
#[derive(Debug, Clone)]
pub struct Line {
    /// What was checked.
    pub check: String,
    /// Whether it is as it should be.
    pub ok: bool,
    /// What was found.
    pub detail: String,
}

/// Reads a report; it must be complete.
pub fn report(text: &str) -> Vec<Line> {
    let read = |line: &str| {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        Line {
            check: value["check"].as_str().unwrap_or_default().to_owned(),
            ok: value["ok"] == true,
            detail: value["detail"].as_str().unwrap_or_default().to_owned(),
        }
    };
    let lines: Vec<Line> = text.lines().map(read).collect();
    assert!(
        lines.last().is_some_and(|line| line.check == "complete"),
        "the report broke off:\n{text}"
    );
    assert!(lines.len() > 100, "only {} checks", lines.len());
    lines
}

/// The lines that are not fine.
pub fn broken(lines: &[Line]) -> Vec<String> {
    lines
        .iter()
        .filter(|line| !line.ok)
        .map(|line| format!("{}: {}", line.check, line.detail))
        .collect()
}

/// A file with all its blocks on the disk, which the checker in the site reads and writes past the page cache.
pub fn put_a_file(host: &Host, vhost: &str) {
    let path = host.documents(vhost).join("direct");
    fs::write(&path, vec![b'x'; 8 << 20]).expect("a file");
    let file = fs::File::open(&path).expect("the file");
    file.sync_all().expect("its blocks are on the disk");
    chown(&path, Some(OWNER), Some(OWNER)).expect("its owner");
}
