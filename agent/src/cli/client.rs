//! Requests to the agent: one connection each, HTTP/1.1 over its Unix socket.
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;

use super::failure::{Failure, Problem};

/// What is asked.
#[derive(Debug, Clone)]
pub(crate) struct Call<'a> {
    method: Method,
    path: String,
    body: Option<Vec<u8>>,
    /// The vhost it is about: 404 then means that there is none of that name.
    about: Option<&'a str>,
}

impl<'a> Call<'a> {
    /// About the host.
    pub(crate) fn host(method: Method, path: &str) -> Self {
        Self {
            method,
            path: path.to_owned(),
            body: None,
            about: None,
        }
    }

    /// About a vhost; `below` is what follows its name in the path.
    pub(crate) fn vhost(method: Method, vhost: &'a str, below: &str) -> Self {
        Self {
            path: format!("/v1/vhosts/{}{below}", segment(vhost)),
            about: Some(vhost),
            ..Self::host(method, "")
        }
    }

    /// The same, but any path.
    pub(crate) fn about(self, vhost: &'a str) -> Self {
        Self {
            about: Some(vhost),
            ..self
        }
    }

    /// With a JSON body.
    pub(crate) fn json(self, body: &serde_json::Value) -> Self {
        Self {
            body: Some(body.to_string().into_bytes()),
            ..self
        }
    }
}

/// A successful answer, whole.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The body as it came.
    pub(crate) body: Bytes,
}

impl Answer {
    /// The body as a value; what the agent sent otherwise is not the API of this fastctl.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.body).map_err(|e| {
            Failure::Failed(format!(
                "the agent's answer is not understood ({e}); are fastctl and fastcontainerd of one version?"
            ))
        })
    }
}

/// The way to the agent.
#[derive(Debug)]
pub(crate) struct Client {
    socket: PathBuf,
}

impl Client {
    /// Connects per request, so nothing happens yet.
    pub(crate) fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    /// Asks and waits for the whole answer.
    pub(crate) async fn ask(&self, call: Call<'_>) -> Result<Answer, Failure> {
        let body = self.open(call).await?.into_body();
        let body = body.collect().await.map_err(|e| self.cut(&e))?.to_bytes();
        Ok(Answer { body })
    }

    /// Asks and gives the answer's body as it comes.
    pub(crate) async fn open(&self, call: Call<'_>) -> Result<Response<Incoming>, Failure> {
        let about = call.about;
        let response = self.send(call, None).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(self.refusal(response, about).await)
    }

    /// Asks to go on with another protocol; gives the connection and what has been read from it already.
    pub(crate) async fn upgrade(
        &self,
        call: Call<'_>,
        protocol: &str,
    ) -> Result<(UnixStream, Bytes), Failure> {
        let about = call.about;
        let response = self.send(call, Some(protocol)).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            if response.status().is_success() {
                return Err(Failure::Failed(format!(
                    "the agent does not speak {protocol}"
                )));
            }
            return Err(self.refusal(response, about).await);
        }
        let upgraded = hyper::upgrade::on(response)
            .await
            .map_err(|e| self.cut(&e))?;
        let parts = upgraded
            .downcast::<TokioIo<tokio::net::UnixStream>>()
            .map_err(|_| {
                Failure::Failed("the connection to the agent cannot be taken over".to_owned())
            })?;
        let stream = parts
            .io
            .into_inner()
            .into_std()
            .map_err(|e| self.lost(&e))?;
        Ok((stream, parts.read_buf))
    }

    /// An error while the body was coming.
    pub(crate) fn cut(&self, error: &hyper::Error) -> Failure {
        Failure::Failed(format!(
            "the agent at {} broke off in the middle of its answer: {error}",
            self.socket.display()
        ))
    }

    async fn refusal(&self, response: Response<Incoming>, about: Option<&str>) -> Failure {
        let status = response.status().as_u16();
        let retry = response
            .headers()
            .get(header::RETRY_AFTER)
            .and_then(|v| v.to_str().ok())
            .map(str::to_owned);
        // A refusal whose reason is cut off is still a refusal.
        let body = response.into_body().collect().await;
        let body = body.map(|b| b.to_bytes()).unwrap_or_default();
        Failure::Refused(Problem::of(status, retry, &body, about))
    }

    async fn send(
        &self,
        call: Call<'_>,
        protocol: Option<&str>,
    ) -> Result<Response<Incoming>, Failure> {
        let stream = self.connect()?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| self.lost(&e))?;
        tokio::spawn(connection.with_upgrades());
        let mut request = Request::builder()
            .method(call.method)
            .uri(call.path)
            .header(header::HOST, "localhost")
            .header(
                header::USER_AGENT,
                concat!("fastctl/", env!("CARGO_PKG_VERSION")),
            );
        request = match protocol {
            Some(protocol) => request
                .header(header::CONNECTION, "Upgrade")
                .header(header::UPGRADE, protocol),
            None => request.header(header::CONNECTION, "close"),
        };
        if call.body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request
            .body(Full::new(Bytes::from(call.body.unwrap_or_default())))
            .map_err(|e| Failure::Usage(format!("this cannot be asked for: {e}")))?;
        sender
            .send_request(request)
            .await
            .map_err(|e| self.lost(&e))
    }

    /// Connects while blocking: a non-blocking connect fails at once when the listener's queue is full, a blocking one waits.
    fn connect(&self) -> Result<tokio::net::UnixStream, Failure> {
        let stream = UnixStream::connect(&self.socket).map_err(|e| match e.kind() {
            io::ErrorKind::PermissionDenied => Failure::NotAdmitted {
                socket: self.socket.clone(),
            },
            _ => self.lost(&e),
        })?;
        stream.set_nonblocking(true).map_err(|e| self.lost(&e))?;
        tokio::net::UnixStream::from_std(stream).map_err(|e| self.lost(&e))
    }

    fn lost(&self, cause: &dyn std::fmt::Display) -> Failure {
        Failure::Unreachable {
            socket: self.socket.clone(),
            cause: cause.to_string(),
        }
    }
}

/// A name as one segment of a path: whatever it contains, it stays one segment.
pub(crate) fn segment(name: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'.' if name.bytes().all(|b| b == b'.') => out.push_str("%2E"),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte))
            }
            // Writing to a String cannot fail.
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_one_segment() {
        assert_eq!(segment("www.example.com"), "www.example.com");
        assert_eq!(segment(".."), "%2E%2E");
        assert_eq!(segment("../x?y#z %"), "..%2Fx%3Fy%23z%20%25");
        assert_eq!(segment("ü\0"), "%C3%BC%00");
    }
}
