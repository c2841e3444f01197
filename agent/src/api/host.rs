//! The host: status, health, doctor.

use std::collections::BTreeMap;

use hyper::{Response, StatusCode};
use serde_json::json;

use super::answer::{self, Answer, Body};
use super::problem::Problem;
use super::rights::{Peer, Role};
use super::server::Server;
use crate::seeing::host::Host;

pub(super) async fn status(server: &Server, peer: &Peer) -> Answer {
    let registry = &server.registry;
    let platform = registry.platform();
    let mut states: BTreeMap<&str, usize> = BTreeMap::new();
    for state in [
        "running",
        "frozen",
        "reclaimed",
        "starting",
        "stopping",
        "down",
        "failed",
        "stuck",
    ] {
        states.insert(state, 0);
    }
    let counts = registry.count(&peer.role);
    let awake: usize = counts.states.values().sum();
    states.extend(counts.states.iter().map(|(state, n)| (*state, *n)));
    *states.entry("stopped").or_default() += counts.defined.saturating_sub(awake);
    states.insert("total", counts.defined);
    let hierarchy = platform.tree.hierarchy();
    let controllers: Vec<String> = hierarchy
        .controllers()
        .iter()
        .map(|c| format!("{c:?}").to_lowercase())
        .collect();
    let problems = if peer.role == Role::Operator {
        registry.problems()
    } else {
        Vec::new()
    };
    answer::json(&json!({
        "host": rustix::system::uname().nodename().to_string_lossy(),
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "uptime_s": platform.uptime().as_secs(),
        "draining": registry.draining(),
        "cgroup": {
            "version": match hierarchy.version() { cgroup::Version::V2 => "v2", cgroup::Version::Hybrid => "hybrid" },
            "controllers": controllers,
            "parent": platform.config.cgroup_parent,
        },
        "spawner_pid": platform.spawner.pid().await,
        "readiness": if platform.readiness.is_notified() { "events" } else { "polling" },
        "machine": Host::now(),
        "promises": (peer.role == Role::Operator).then(|| platform.promises.view()),
        "starts": (peer.role == Role::Operator).then(|| platform.admission.standing()),
        "vhosts": states,
        "problems": problems,
    }))
}

/// Says whether this agent takes requests; wakes nothing.
pub(super) fn health(server: &Server) -> Response<Body> {
    let draining = server.registry.draining();
    let mut response = answer::with_type(
        if draining { "draining\n" } else { "serving\n" },
        "text/html; charset=utf-8",
    );
    if draining {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

pub(super) async fn doctor(server: &Server, peer: &Peer) -> Answer {
    if peer.role != Role::Operator {
        return Err(Problem::forbidden(
            "only root and the operators' group see the host: the doctor tells of all of it",
        ));
    }
    let platform = server.registry.platform().clone();
    let checks = tokio::task::spawn_blocking(move || {
        let mut checks = crate::doctor::checks_of(&crate::doctor::Subject {
            documents: Vec::new(),
            shim: platform.config.find_shim().ok(),
        });
        let looked = platform.live.sites().into_iter();
        let looked = looked.filter_map(|site| {
            // One that is ending has nothing to be read any more.
            let drift = site.drift(&*site.container()?).ok()?;
            Some((site.name.clone(), drift))
        });
        checks.push(crate::doctor::drift(&looked.collect::<Vec<_>>()));
        checks
    })
    .await
    .map_err(|e| Problem::internal(format!("the checks failed: {e}")))?;
    answer::json(&json!({"checks": checks}))
}
