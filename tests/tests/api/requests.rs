//! Every kind of request that the API knows.

use super::*;

type Asked = (&'static str, String, Value);

/// Every request there is, about `vhost` and `owner`; those that end or remove it last.
pub(crate) fn everything(vhost: &str, owner: &str) -> Vec<Asked> {
    [of_host(), of_owner(owner), of_vhost(vhost)].concat()
}

/// Those about the host.
pub(crate) fn of_host() -> Vec<Asked> {
    let paths = [
        "/v1/status",
        "/v1/vhosts",
        "/v1/events?follow=false",
        "/v1/doctor",
        "/v1/usage",
        "/v1/capacity",
        "/v1/diagnose?window=100ms",
        "/metrics",
    ];
    paths.map(|path| ("GET", path.into(), Value::Null)).into()
}

/// Those about an owner.
pub(crate) fn of_owner(owner: &str) -> Vec<Asked> {
    let of = |rest: &str| format!("/v1/owners/{owner}{rest}");
    vec![
        ("GET", of(""), Value::Null),
        ("PATCH", of("/budget"), json!({"cpu": "100%"})),
        ("PATCH", of("/split"), json!({"shares": {}})),
    ]
}

/// Those about a vhost.
pub(crate) fn of_vhost(vhost: &str) -> Vec<Asked> {
    let of = |rest: &str| format!("/v1/vhosts/{vhost}{rest}");
    vec![
        ("GET", of(""), Value::Null),
        ("GET", of("/logs"), Value::Null),
        ("POST", of("/exec"), json!({"command": ["/bin/true"]})),
        ("POST", of("/signal"), json!({"signal": "hup"})),
        ("PATCH", of("/limits"), json!({"cpu": "20%"})),
        ("PATCH", of("/limits?for=10m"), json!({"cpu": "30%"})),
        (
            "PUT",
            of(""),
            json!({"owner": "acme", "command": ["/bin/true"], "listen": "tcp:80"}),
        ),
        ("POST", of("/start"), Value::Null),
        ("POST", of("/freeze"), Value::Null),
        ("POST", of("/thaw"), Value::Null),
        ("POST", of("/restart"), Value::Null),
        ("POST", of("/stop"), Value::Null),
        ("POST", of("/up"), Value::Null),
        ("POST", of("/down"), Value::Null),
        ("DELETE", of(""), Value::Null),
    ]
}
