//! Bodies of answers.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::{Response, StatusCode, header};
use serde::Serialize;

use super::problem::Problem;

/// A whole body or a stream.
pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What a handler returns.
pub(super) type Answer = Result<Response<Body>, Problem>;

/// 200 with JSON.
pub(super) fn json<T: Serialize>(value: &T) -> Answer {
    let mut bytes = serde_json::to_vec(value)
        .map_err(|e| Problem::internal(format!("cannot write the answer: {e}")))?;
    bytes.push(b'\n');
    Ok(with_type(bytes, "application/json"))
}

/// 200 with text of some type.
pub(super) fn with_type(bytes: impl Into<Bytes>, kind: &'static str) -> Response<Body> {
    let mut response = Response::new(Full::new(bytes.into()).boxed_unsync());
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

/// 200 with a body that goes on.
pub(super) fn stream(body: Body, kind: &'static str) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::OK;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

/// A problem as an answer.
pub(super) fn problem(problem: &Problem) -> Response<Body> {
    problem.response().map(BodyExt::boxed_unsync)
}
