//! Bodies of requests: bounded before they are read.

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde::de::DeserializeOwned;

use super::problem::Problem;
use super::rights::Role;
use super::server::Server;

/// Most of a body from those who define nothing.
const SMALL: usize = 64 * 1024;
/// Most of a body from those who may do nothing.
const TINY: usize = 4 * 1024;

/// Reads a body.
pub(super) async fn read(server: &Server, role: &Role, body: Incoming) -> Result<Bytes, Problem> {
    if hyper::body::Body::is_end_stream(&body) {
        return Ok(Bytes::new());
    }
    let most = match role {
        Role::Operator => server.max_body,
        // Requests of owners and proxies are small; what others send is only read to be answered.
        Role::Owner(_) | Role::Dispatcher => server.max_body.min(SMALL),
        Role::User(_) | Role::Nobody => server.max_body.min(TINY),
    };
    let declared = hyper::body::Body::size_hint(&body).lower();
    if declared > most as u64 {
        return Err(Problem::too_large(most));
    }
    let collecting = tokio::time::timeout(server.body_timeout, Limited::new(body, most).collect());
    let Ok(collected) = collecting.await else {
        return Err(Problem::bad_request("the body did not come in time"));
    };
    match collected {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Problem::too_large(most)),
        Err(error) => Err(Problem::bad_request(format!(
            "cannot read the body: {error}"
        ))),
    }
}

/// A body as JSON; an empty one is an empty object.
pub(super) fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let bytes = if bytes.is_empty() { b"{}" } else { bytes };
    serde_json::from_slice(bytes)
        .map_err(|e| Problem::bad_request(format!("the body is not what is expected here: {e}")))
}
