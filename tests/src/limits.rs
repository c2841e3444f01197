//! Changing limits and looking at what they did.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;

use crate::{Answer, Host, cgroup_roots};

/// The site whose limits are tested, of owner `acme`.
pub const SITE: &str = "a.example.com";

/// What a command has said.
pub fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// `fastctl set`, which must work.
pub fn set(host: &Host, words: &[&str]) -> String {
    let output = host.ctl(&[&["set", SITE], words].concat());
    assert!(output.status.success(), "set {words:?}: {}", text(&output));
    text(&output)
}

/// `PATCH /v1/vhosts/NAME/limits`.
pub fn patch(host: &Host, body: &Value) -> Answer {
    host.request(
        "PATCH",
        &format!("/v1/vhosts/{SITE}/limits"),
        body.to_string().as_bytes(),
    )
}

/// Events of one kind about the site.
pub fn events(host: &Host, kind: &str) -> Vec<Value> {
    let output = host.ctl(&["--json", "events"]);
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let all = lines
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    all.filter(|event| event["event"] == kind && event["vhost"] == SITE)
        .collect()
}

/// Whether the kernel lets root here raise a hard limit: CAP_SYS_RESOURCE.
#[must_use]
pub fn may_raise_files() -> bool {
    let status = fs::read_to_string("/proc/self/status").expect("own status");
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let held = line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    held.expect("own capabilities") & (1 << 24) != 0
}

/// The value of a file in the site's cgroup, where the controller is.
pub fn in_cgroup(host: &Host, names: [&str; 2]) -> String {
    let path = file(host, &format!("acme/{SITE}"), names);
    let text = fs::read_to_string(path).expect("a file that was there");
    text.trim().to_owned()
}

/// Writes a file of the group below the agent's, as somebody does who knows nothing of the agent.
pub fn by_hand(host: &Host, group: &str, names: [&str; 2], value: &str) {
    let path = file(host, group, names);
    fs::write(&path, value).unwrap_or_else(|e| panic!("{value} into {}: {e}", path.display()));
}

/// The first of these files that there is, in whichever hierarchy.
fn file(host: &Host, group: &str, names: [&str; 2]) -> PathBuf {
    let group = format!("{}/{group}", host.cgroup_parent);
    let mut paths = cgroup_roots()
        .into_iter()
        .flat_map(|root| names.map(|name| Path::new(&root).join(&group).join(name)));
    paths
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("no {names:?} in {group}"))
}

/// From now on a test's sites get the processors before everybody else who runs on this machine: what is measured is how they
/// stand among each other, not how busy the machine is otherwise.
pub fn first_of_all(host: &Host) {
    let written = cgroup_roots().into_iter().flat_map(|root| {
        let parent = Path::new(&root).join(&host.cgroup_parent);
        [("cpu.weight", "10000"), ("cpu.shares", "262144")].map(|(name, value)| {
            let path = parent.join(name);
            path.exists()
                .then(|| fs::write(&path, value).expect("the weight of all"))
        })
    });
    assert_eq!(
        written.flatten().count(),
        1,
        "one hierarchy has the CPU controller"
    );
}
