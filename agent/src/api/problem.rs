//! Errors as users of the API see them: RFC 9457 problem+json.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, StatusCode, header};
use serde::Serialize;

use crate::machine::Refusal;

/// Bytes of a problem's `detail`.
const LONGEST_DETAIL: usize = 1500;

/// An error answer.
#[derive(Debug, Clone, Serialize)]
pub struct Problem {
    /// Short stable name, such as `start-failed`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// What it is, for people.
    pub title: &'static str,
    /// HTTP status.
    pub status: u16,
    /// This case: what was tried, on what, what to do.
    pub detail: String,
    /// The vhost it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vhost: Option<String>,
    /// Seconds after which trying again may help.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
}

impl Problem {
    fn new(
        status: u16,
        kind: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        let mut detail = detail.into();
        if detail.len() > LONGEST_DETAIL {
            // Most of it is what somebody sent: a name or a key of any length.
            detail.truncate(detail.floor_char_boundary(LONGEST_DETAIL));
            detail.push('…');
        }
        Self {
            kind,
            title,
            status,
            detail,
            vhost: None,
            retry_after: None,
        }
    }

    /// 400.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(400, "bad-request", "Bad request", detail)
    }

    /// 403.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(403, "forbidden", "Not yours", detail)
    }

    /// 403 for one who may do nothing.
    pub fn nobody(uid: u32) -> Self {
        Self::forbidden(format!("uid {uid} may not use this agent"))
    }

    /// 403 for a vhost that is somebody else's, under the name by which it was asked for.
    pub fn not_yours(name: &str) -> Self {
        Self::forbidden(format!("{name:?} is not yours")).about(name)
    }

    /// 403 for an owner who asks for a connection.
    pub fn no_connections(uid: u32) -> Self {
        Self::forbidden(format!(
            "uid {uid} is handed no connections, for its own sites neither: operators and the users of proxies are \
             (dispatch_users in agent.toml); ask POST /v1/dispatch for an address"
        ))
    }

    /// 404 for a vhost.
    pub fn unknown_vhost(name: &str) -> Self {
        let detail = format!("no vhost or alias named {name:?} is defined");
        Self::new(404, "unknown-vhost", "No such vhost", detail).about(name)
    }

    /// 404 for a path.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(404, "not-found", "No such resource", detail)
    }

    /// 405.
    pub fn method(detail: impl Into<String>) -> Self {
        Self::new(405, "method-not-allowed", "Method not allowed", detail)
    }

    /// 409.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(409, "conflict", "Conflict", detail)
    }

    /// 413.
    pub fn too_large(limit: usize) -> Self {
        let detail = format!("a request body may have {limit} bytes at most");
        Self::new(413, "too-large", "Body too large", detail)
    }

    /// 500.
    pub fn internal(detail: impl Into<String>) -> Self {
        Self::new(500, "internal", "Failed", detail)
    }

    /// 503.
    pub fn unavailable(
        kind: &'static str,
        title: &'static str,
        detail: impl Into<String>,
        retry: Duration,
    ) -> Self {
        let mut problem = Self::new(503, kind, title, detail);
        problem.retry_after = Some(retry.as_secs().max(1));
        problem
    }

    /// 409 for a vhost that has loopback only, where an address was asked for.
    pub fn unreachable(vhost: &str) -> Self {
        let detail = format!(
            "{vhost} listens on TCP and has loopback only (network.mode = \"private\"), so there is no address; \
             it is reached through connect.sock, or set mode = \"address\", or listen on a Unix socket"
        );
        Self::conflict(detail).about(vhost)
    }

    /// 504 for one that listens but accepts no connection.
    pub fn connect_timeout(vhost: &str, limit: Duration) -> Self {
        let limit = limit.as_secs_f64();
        let detail = format!("{vhost} has accepted no connection within {limit:.1} s");
        Self::new(504, "connect-timeout", "Connection timed out", detail).about(vhost)
    }

    /// 504.
    pub fn start_timeout(detail: impl Into<String>) -> Self {
        Self::new(504, "start-timeout", "Start timed out", detail)
    }

    /// Names the vhost.
    pub fn about(mut self, vhost: &str) -> Self {
        // As it was sent: a terminal must not obey it.
        let shown = vhost.chars().filter(|c| !c.is_control());
        self.vhost = Some(shown.take(255).collect());
        self
    }

    /// What a refusal by the state machine means to the one who asked. `because` is what is known of the last failure.
    pub fn refused(vhost: &str, refusal: Refusal, because: Option<&str>) -> Self {
        let why = because.map(|b| format!(": {b}")).unwrap_or_default();
        let wait = |d: Duration| format!("{:.1} s", d.as_secs_f64());
        let problem = match refusal {
            Refusal::Down => Self::unavailable(
                "down",
                "Down",
                format!("{vhost} is kept down by the operator; `fastctl up {vhost}` lifts that"),
                Duration::from_secs(60),
            ),
            Refusal::BackingOff(left) => Self::unavailable(
                "backing-off",
                "Backing off",
                format!(
                    "{vhost} failed and is not tried again for {}{why}",
                    wait(left)
                ),
                left,
            ),
            Refusal::StartFailed(left) => Self::unavailable(
                "start-failed",
                "Start failed",
                format!("cannot start {vhost}{why}"),
                left,
            ),
            Refusal::Stopped => Self::unavailable(
                "stopped",
                "Stopped",
                format!("{vhost} was stopped by the operator while it started"),
                Duration::from_secs(1),
            ),
            Refusal::Stuck => Self::unavailable(
                "stuck",
                "Stuck",
                format!(
                    "{vhost} cannot be ended: a process waits for storage that does not answer{why}"
                ),
                Duration::from_secs(30),
            ),
            Refusal::Overloaded => Self::unavailable(
                "overloaded",
                "Overloaded",
                format!("too many requests wait for starts on this host; {vhost} is not queued"),
                Duration::from_secs(1),
            ),
            Refusal::NotBegun => Self::unavailable(
                "overloaded",
                "Overloaded",
                format!("{vhost} was not started{why}"),
                Duration::from_secs(1),
            ),
            Refusal::Unknown => return Self::unknown_vhost(vhost),
            Refusal::NotRunning => Self::conflict(format!("{vhost} is not running")),
        };
        problem.about(vhost)
    }

    /// The HTTP answer.
    pub fn response(&self) -> Response<Full<Bytes>> {
        let body = serde_json::to_vec(self).unwrap_or_default();
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = Response::new(Full::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            header::HeaderValue::from_static("application/problem+json"),
        );
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}
