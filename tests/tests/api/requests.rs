//! Every kind of request that the API knows.

use super::*;

/// Every request there is, about `vhost`; those that end or remove it last.
pub(crate) fn everything(vhost: &str) -> Vec<(&'static str, String, Value)> {
    let of = |rest: &str| format!("/v1/vhosts/{vhost}{rest}");
    vec![
        ("GET", "/v1/status".into(), Value::Null),
        ("GET", "/v1/vhosts".into(), Value::Null),
        ("GET", "/v1/events?follow=false".into(), Value::Null),
        ("GET", "/v1/doctor".into(), Value::Null),
        ("GET", "/v1/usage".into(), Value::Null),
        ("GET", "/metrics".into(), Value::Null),
        ("GET", of(""), Value::Null),
        ("GET", of("/logs"), Value::Null),
        ("POST", of("/exec"), json!({"command": ["/bin/true"]})),
        ("POST", of("/signal"), json!({"signal": "hup"})),
        ("PATCH", of("/limits"), json!({"cpu": "20%"})),
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
