//! The limit holds to the byte, is changed live, and nobody inside gets out of it.

use super::*;

#[test]
fn holds_exactly_at_start_and_changed_live_and_the_tenant_cannot_leave() {
    let host = Host::new("");
    let Some(quotas) = Quotas::mount(&host, "ext4") else {
        return host.finish();
    };
    // What was there before counts too; where links lead does not.
    let documents = host.documents(SITE);
    let deep = documents.join("a/b/c");
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("old"), vec![1; MIB as usize]).unwrap();
    let outside = host.dir.join("www/outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "not the site's").unwrap();
    symlink(&outside, documents.join("link")).unwrap();
    symlink(outside.join("file"), deep.join("link")).unwrap();
    site(&host, SITE, "[limits]\ndisk = \"24M\"\n");
    assert_eq!(host.dispatch(SITE).status, 200);
    let entry = kept(&host, SITE).unwrap();
    let id = u32::try_from(entry["project"].as_u64().unwrap()).unwrap();
    for path in [&documents, &deep] {
        assert_eq!(project(path), (id, true));
    }
    assert_eq!(project(&deep.join("old")).0, id);
    for path in [&outside, &outside.join("file")] {
        assert_eq!(project(path), (0, false));
    }
    let status = host.status(SITE);
    assert_eq!(status["limits"]["disk"], "24M");
    assert!(used(&host) > MIB);

    fill_up(&host, 24 * MIB);
    wait_for("it is told", seconds(20), || {
        events(&host, "disk_full")
            .iter()
            .any(|event| (&event["limit"], &event["amount"]) == (&json!("24M"), &json!(1)))
    });
    let said = set(&host, &["disk=28M"]);
    assert!(said.contains("24M") && said.contains("28M"), "{said}");
    fill_up(&host, 28 * MIB);
    // Not its neighbour's concern, who is on the same file system.
    site(&host, "b.example.com", "[limits]\ndisk = \"16M\"\n");
    assert_eq!(ask(&host, "b.example.com", "fill/1024", 60), "1048576 0");
    assert_ne!(
        kept(&host, "b.example.com").unwrap()["project"],
        entry["project"]
    );

    // Below what is in use is refused, and what was in force stays.
    let answer = patch(&host, &json!({"disk": "20M", "pids": 60}));
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert_eq!(answer.status, 409, "{detail}");
    assert!(
        detail.contains("20M is below the 2")
            && detail.contains("in use; raise it or remove files"),
        "{detail}"
    );
    let limits = host.status(SITE)["limits"].clone();
    assert_eq!(
        (&limits["disk"], &limits["pids"]),
        (&json!("28M"), &status["limits"]["pids"])
    );
    let asked = host.ctl(&["set", SITE, "disk=20M", "--dry-run"]);
    let dry = text(&asked);
    assert!(
        !asked.status.success() && dry.contains("20M is below the 2"),
        "{dry}"
    );
    // Other limits of a site that is full can be set.
    set(&host, &["pids=60"]);

    // From inside: to none, to another, to not handing it down.
    let einval = libc::EINVAL.to_string();
    assert_eq!(
        ask(&host, SITE, "escape", 30),
        // A file has nothing to hand down.
        format!("{} 0", [einval.as_str(); 5].join(" "))
    );
    assert_eq!(project(&documents), (id, true));
    assert_eq!(project(&documents.join("fill")).0, id);
    // It is the user namespace that forbids it: outside the same calls of the same user work.
    let own = outside.join("own");
    fs::write(&own, "").unwrap();
    chown(&own, Some(OWNER), Some(OWNER)).unwrap();
    fs::set_permissions(
        &outside,
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let free = Command::new(checker())
        .arg("escape")
        .arg(&own)
        .uid(OWNER)
        .gid(OWNER)
        .output();
    assert_eq!(
        String::from_utf8(free.unwrap().stdout).unwrap().trim(),
        "0 0 0"
    );

    // Down, live, once there is room; then none at all.
    assert_eq!(ask(&host, SITE, "empty", 30), "empty");
    set(&host, &["disk=22M"]);
    fill_up(&host, 22 * MIB);
    set(&host, &["disk=max"]);
    assert_eq!(ask(&host, SITE, "fill/4096", 60), format!("{} 0", 4 * MIB));
    let after = host.status(SITE);
    assert_eq!(
        (&after["pid"], &after["limits"]["disk"]),
        (&status["pid"], &Value::Null)
    );
    host.verb(SITE, "down");
    host.verb("b.example.com", "down");
    drop(quotas);
    host.finish();
}

#[test]
fn xfs_holds_it_too() {
    let host = Host::new("");
    let Some(quotas) = Quotas::mount(&host, "xfs") else {
        return host.finish();
    };
    let documents = site(&host, SITE, "[limits]\ndisk = \"24M\"\n");
    put(&documents, "old", &"x".repeat(100_000));
    let before = host.status(SITE)["pid"].clone();
    fill_up(&host, 24 * MIB);
    assert_ne!(host.status(SITE)["pid"], before);
    let pid = host.status(SITE)["pid"].clone();
    set(&host, &["disk=28M"]);
    fill_up(&host, 28 * MIB);
    assert_eq!(patch(&host, &json!({"disk": "20M"})).status, 409);
    let einval = libc::EINVAL.to_string();
    let escaped = ask(&host, SITE, "escape", 30);
    assert!(
        escaped.starts_with(&format!("{einval} {einval}")),
        "{escaped}"
    );
    fill_up(&host, 28 * MIB);
    set(&host, &["disk=max"]);
    assert_eq!(ask(&host, SITE, "fill/4096", 60), format!("{} 0", 4 * MIB));
    assert_eq!(host.status(SITE)["pid"], pid);
    host.verb(SITE, "down");
    drop(quotas);
    host.finish();
}
