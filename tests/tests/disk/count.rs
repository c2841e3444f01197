//! What was there before is counted: many documents, and an agent that may not exceed quotas.

use super::*;

/// How long it took to go through a site's documents.
fn walked(host: &Host, name: &str) -> Option<f64> {
    let log = host.log();
    let lines = log.lines();
    let mut lines = lines.filter(|line| line.contains("are counted for its disk limit"));
    let line = lines.find(|line| line.contains(&format!("{name}: ")))?;
    let (_, took) = line.rsplit_once('(')?;
    took.trim_end_matches(" s)").parse().ok()
}

#[test]
fn many_documents_take_no_start_its_time_and_the_limit_holds_from_the_first() {
    let host = Host::new("");
    let Some(quotas) = Quotas::mount(&host, "ext4") else {
        return host.finish();
    };
    let limited = "[limits]\ndisk = \"100M\"\n";
    site(&host, SITE, limited);
    // Well above what one takes whose documents are counted already, and what a disk that is busy takes for one step.
    let once = || {
        host.verb(SITE, "stop");
        let began = Instant::now();
        assert_eq!(host.dispatch(SITE).status, 200);
        began.elapsed()
    };
    once();
    let start = (3 * once().max(once())).max(Duration::from_millis(1500));
    // More and more, until going through them takes longer than a start may.
    let enough = [12_000, 50_000, 100_000].into_iter().any(|files| {
        let name = format!("n{files}.example.com");
        let documents = host.documents(&name);
        fs::create_dir(documents.join("many")).unwrap();
        for number in 0..files {
            fs::File::create(documents.join(format!("many/{number}"))).unwrap();
        }
        let limit = format!("[start]\ntimeout = \"{}ms\"\n{limited}", start.as_millis());
        site(&host, &name, &limit);
        let early = std::thread::scope(|scope| {
            let (socket, body) = (host.socket(), json!({"vhost": name}).to_string());
            let dispatch = scope.spawn(move || {
                http::request(&socket, "POST", "/v1/dispatch", body.as_bytes())
                    .unwrap()
                    .status
            });
            // ext4 tells in a project's directories how large the project may be.
            let limit_is_set = || {
                let fs = rustix::fs::statvfs(&documents).unwrap();
                fs.f_blocks * fs.f_frsize == 100 * MIB
            };
            wait_for("the limit is set", seconds(120), || {
                limit_is_set() || dispatch.is_finished()
            });
            let early = limit_is_set() && walked(&host, &name).is_none();
            assert_eq!(dispatch.join().unwrap(), 200, "of {files} files");
            early
        });
        let took = walked(&host, &name).unwrap();
        host.verb(&name, "down");
        let long = took > start.as_secs_f64();
        assert!(
            early || !long,
            "no limit while {files} files are gone through"
        );
        long
    });
    assert!(enough, "no walk took longer than {start:?}");
    host.verb(SITE, "down");
    drop(quotas);
    host.finish();
}

#[test]
fn an_agent_without_resources_counts_what_is_more_than_the_limit() {
    // Quotas hold for it too: what is above a limit cannot be given to a project while that has it.
    let resources = rustix::thread::CapabilitySet::SYS_RESOURCE;
    rustix::thread::remove_capability_from_bounding_set(resources).unwrap();
    let host = Host::new("");
    let Some(quotas) = Quotas::mount(&host, "ext4") else {
        return host.finish();
    };
    let documents = site(&host, SITE, "");
    put(&documents, "old", &"x".repeat(6 << 20));
    for running in [false, true] {
        if running {
            assert_eq!(host.dispatch(SITE).status, 200);
        }
        let refused = patch(&host, &json!({"disk": "4M"}));
        let why = refused.json()["detail"].as_str().unwrap().to_owned();
        assert_eq!(refused.status, 409, "{why}");
        assert!(why.contains("4M is below"), "{why}");
    }
    host.verb(SITE, "stop");
    site(&host, SITE, "[limits]\ndisk = \"4M\"\n");
    assert_eq!(host.dispatch(SITE).status, 200);
    let id = u32::try_from(kept(&host, SITE).unwrap()["project"].as_u64().unwrap()).unwrap();
    assert_eq!(project(&documents.join("old")).0, id);
    let (complete, bytes) = upload(&documents, "upload");
    assert!(!complete && bytes == 0, "{bytes}");
    host.verb(SITE, "down");
    drop(quotas);
    host.finish();
}
