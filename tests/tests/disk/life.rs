//! The limit belongs to the vhost: it outlives the agent, sleep and its directory, and goes with the definition.

use super::*;

#[test]
fn outlives_agent_and_sleep_and_goes_with_the_vhost() {
    let host = Host::new("");
    let Some(quotas) = Quotas::mount(&host, "ext4") else {
        return host.finish();
    };
    let definition = "[limits]\ndisk = \"24M\"\n";
    let documents = site(&host, SITE, definition);
    assert_eq!(host.dispatch(SITE).status, 200);
    let id = project(&documents).0;
    host.crash_and_restart();
    assert_eq!(host.status(SITE)["limits"]["disk"], "24M");
    fill_up(&host, 24 * MIB);
    assert_eq!(ask(&host, SITE, "empty", 30), "empty");

    // A definition that is broken when the agent starts is not gone.
    let file = host.dir.join(format!("vhosts.d/{SITE}.toml"));
    let good = fs::read_to_string(&file).unwrap();
    host.signal_agent(libc::SIGTERM);
    fs::write(&file, "name = ").unwrap();
    host.start();
    assert_eq!(kept(&host, SITE).unwrap()["project"], id);
    let (complete, bytes) = upload(&documents, "upload");
    assert!(!complete && bytes < 24 * MIB, "{bytes}");
    fs::remove_file(documents.join("upload")).unwrap();
    fs::write(&file, good).unwrap();
    wait_for("it is in force again", seconds(10), || {
        host.dispatch(SITE).status == 200
    });
    assert_eq!(project(&documents), (id, true));

    // It holds while the site sleeps, for whoever writes there then.
    host.verb(SITE, "stop");
    set(&host, &["disk=20M"]);
    let (complete, bytes) = upload(&documents, "upload");
    assert!(!complete && bytes < 20 * MIB, "{bytes}");
    fs::remove_file(documents.join("upload")).unwrap();

    // Another directory at the same place is labelled at the next start, with the same project.
    fs::rename(&documents, host.dir.join("www/old")).unwrap();
    fs::create_dir(&documents).unwrap();
    chown(&documents, Some(OWNER), Some(OWNER)).unwrap();
    for name in ["checker", "index.html"] {
        let new = documents.join(name);
        fs::copy(host.dir.join("www/old").join(name), &new).unwrap();
        chown(&new, Some(OWNER), Some(OWNER)).unwrap();
    }
    put(&documents, "new", "new");
    fs::remove_dir_all(host.dir.join("www/old")).unwrap();
    assert_eq!(project(&documents), (0, false));
    assert_eq!(host.dispatch(SITE).status, 200);
    assert_eq!(project(&documents), (id, true));
    assert_eq!(project(&documents.join("new")).0, id);
    fill_up(&host, 20 * MIB);

    // A site inside a site: whose would the files be?
    let inner = documents.join("inner");
    fs::create_dir(&inner).unwrap();
    chown(&inner, Some(OWNER), Some(OWNER)).unwrap();
    let text = Host::definition(&inner, &format!("{STATIC}{definition}"));
    host.define("inner.example.com", &text);
    assert_eq!(host.dispatch("inner.example.com").status, 503);
    let why = host.status("inner.example.com")["last_failure"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        why.contains(&format!("inside, the documents of {SITE}")),
        "{why}"
    );

    // With the vhost its limit goes, and nobody gets its project while files have it.
    assert_eq!(ask(&host, SITE, "empty", 30), "empty");
    fs::remove_file(host.dir.join(format!("vhosts.d/{SITE}.toml"))).unwrap();
    wait_for("its limit is lifted", seconds(20), || {
        kept(&host, SITE).is_none()
    });
    assert_eq!(upload(&documents, "upload"), (true, 25 * MIB));
    site(&host, "c.example.com", definition);
    assert_eq!(host.dispatch("c.example.com").status, 200);
    assert_ne!(project(&host.dir.join("www/c.example.com")).0, id);
    host.verb("c.example.com", "down");
    drop(quotas);
    host.finish();
}
