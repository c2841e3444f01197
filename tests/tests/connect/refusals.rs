//! Who gets no connection, and why.

use harness::client::as_user;
use serde_json::Value;

use super::*;

const OWNER: u32 = 71_001;
const FRONT: u32 = 71_033;

/// What one packet is answered with.
fn say(connector: &Connector, packet: &[u8]) -> Value {
    connector.send(packet).unwrap();
    connector.receive().unwrap().json
}

fn kind(said: &Value) -> (u64, &str) {
    let kind = said["type"].as_str().unwrap_or_default();
    (said["status"].as_u64().unwrap_or_default(), kind)
}

#[test]
fn what_cannot_be_is_said_and_the_connection_goes_on() {
    let host = Host::new("");
    host.site(SITE, PRIVATE);
    host.site("down.example.com", STATIC);
    host.verb("down.example.com", "down");
    host.site(
        "bad.example.com",
        "command = [\"/bin/false\"]\nlisten = \"tcp:8080\"\n",
    );
    let connector = host.connector();
    let mut long = format!("{{\"vhost\":\"{SITE}\"}}").into_bytes();
    long.resize(4000, b' ');
    for (packet, status, expected) in [
        (&b"{\"vhost\":\"x.example.com\"}"[..], 404, "unknown-vhost"),
        (b"{\"vhost\":\"down.example.com\"}", 503, "down"),
        (b"{\"vhost\":\"bad.example.com\"}", 503, "start-failed"),
        (
            b"{\"vhost\":\"a.example.com\",\"host\":1}",
            400,
            "bad-request",
        ),
        (b"{\"vhost\":\"a.example.com\"}{}", 400, "bad-request"),
        (b"{}", 400, "bad-request"),
        (b"\x00\xff\xfe", 400, "bad-request"),
        (&long, 413, "too-large"),
    ] {
        let said = say(&connector, packet);
        assert_eq!(kind(&said), (status, expected), "{said}");
        assert!(
            said["detail"]
                .as_str()
                .is_some_and(|detail| detail.len() > 10),
            "{said}"
        );
        assert_eq!(said["retry_after"].is_u64(), status == 503, "{said}");
    }
    // Several sent ahead are answered in their order.
    for vhost in [SITE, "x.example.com", SITE] {
        connector
            .send(format!("{{\"vhost\":\"{vhost}\"}}").as_bytes())
            .unwrap();
    }
    for status in [200, 404, 200] {
        assert_eq!(connector.receive().unwrap().json["status"], status);
    }
    // An empty packet is as good as the end.
    connector.send(b"").unwrap();
    assert!(connector.receive().is_err());
    host.finish();
}

#[test]
fn operators_and_proxies_are_handed_connections_and_owners_none() {
    let config = format!("dispatch_users = [{FRONT}]\n[owner.acme]\nuid = {OWNER}\n");
    let host = Host::new(&config);
    host.site(SITE, PRIVATE);
    let documents = host.documents("b.example.com");
    host.define(
        "b.example.com",
        &format!("owner = \"bolt\"\ndocuments = {documents:?}\n{STATIC}"),
    );
    let socket = host.run_dir.join("connect.sock");
    let asked = |uid: u32, vhost: &str| {
        as_user(uid, uid, &[], || {
            let said = Connector::new(&socket).unwrap().ask(vhost).unwrap().json;
            said["status"].as_u64().unwrap()
        })
    };
    for (uid, own, others) in [
        (0, 200, 200),
        (FRONT, 200, 200),
        (OWNER, 403, 403),
        (71_009, 403, 403),
    ] {
        assert_eq!(
            (asked(uid, SITE), asked(uid, "b.example.com")),
            (own, others),
            "uid {uid}"
        );
    }
    let told = as_user(OWNER, OWNER, &[], || {
        let said = Connector::new(&socket).unwrap().ask(SITE).unwrap().json;
        said["detail"].as_str().unwrap().to_owned()
    });
    assert!(told.contains("dispatch_users"), "{told}");
    host.finish();
}
