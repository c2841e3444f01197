//! Requests to the agent: one connection each, HTTP/1.1 over its Unix socket.
use std::future::Future;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::de::DeserializeOwned;

pub(crate) use super::call::{Call, segment};
use super::failure::{Failure, Problem};

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
    /// How long the agent may take to answer; None is for ever.
    limit: Option<Duration>,
}

impl Client {
    /// Connects per request, so nothing happens yet.
    pub(crate) fn new(socket: &Path, limit: Option<Duration>) -> Self {
        Self {
            socket: socket.to_owned(),
            limit,
        }
    }

    /// Asks and waits for the whole answer.
    pub(crate) async fn ask(&self, call: Call<'_>) -> Result<Answer, Failure> {
        let body = self.open(call).await?.into_body();
        let whole = async { body.collect().await.map_err(|e| self.cut(&e)) };
        let body = self.in_time(whole, false).await?.to_bytes();
        Ok(Answer { body })
    }

    /// Asks and gives the answer's body as it comes, which may go on for ever.
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
        let limit = self.limit.unwrap_or(Duration::MAX);
        let body = tokio::time::timeout(limit, response.into_body().collect()).await;
        let body = body.map(|b| b.map(|b| b.to_bytes()).unwrap_or_default());
        let body = body.unwrap_or_default();
        Failure::Refused(Problem::of(status, retry, &body, about))
    }

    async fn send(
        &self,
        call: Call<'_>,
        protocol: Option<&str>,
    ) -> Result<Response<Incoming>, Failure> {
        // What only looks is answered at once; what moves a site may wait for it, for longer than anybody knows here.
        let patient = call.method != Method::GET;
        let stream = connect(&self.socket, self.limit).map_err(|e| self.unconnected(&e))?;
        self.in_time(self.exchange(stream, call, protocol), patient)
            .await
    }

    /// Does `work` as long as the agent is there: until the time is over, or, where that is expected to take its time,
    /// until the agent does not say either that it is well.
    async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
        patient: bool,
    ) -> Result<T, Failure> {
        let Some(limit) = self.limit else {
            return work.await;
        };
        tokio::pin!(work);
        loop {
            if let Ok(done) = tokio::time::timeout(limit, &mut work).await {
                return done;
            }
            if !patient {
                return Err(self.silent(limit));
            }
            tokio::select! {
                done = &mut work => return done,
                alive = self.lives(limit) => if !alive {
                    return Err(self.silent(limit));
                },
            }
        }
    }

    /// Whether the agent does anything about a connection within `limit`.
    async fn lives(&self, limit: Duration) -> bool {
        let socket = self.socket.clone();
        let connecting = tokio::task::spawn_blocking(move || connect(&socket, Some(limit)));
        let Ok(Ok(stream)) = connecting.await else {
            return false;
        };
        // An error is an answer: one that hangs gives none.
        let health = Call::host(Method::GET, "/health.html");
        let asked = self.exchange(stream, health, None);
        tokio::time::timeout(limit, asked).await.is_ok()
    }

    async fn exchange(
        &self,
        stream: UnixStream,
        call: Call<'_>,
        protocol: Option<&str>,
    ) -> Result<Response<Incoming>, Failure> {
        let stream = stream
            .set_nonblocking(true)
            .and_then(|()| tokio::net::UnixStream::from_std(stream))
            .map_err(|e| self.lost(&e))?;
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

    fn unconnected(&self, error: &io::Error) -> Failure {
        match (error.kind(), self.limit) {
            (io::ErrorKind::PermissionDenied, _) => Failure::NotAdmitted {
                socket: self.socket.clone(),
            },
            (io::ErrorKind::WouldBlock, Some(limit)) => self.silent(limit),
            _ => self.lost(error),
        }
    }

    fn silent(&self, limit: Duration) -> Failure {
        let seconds = limit.as_secs_f64();
        self.lost(&format!("it is there and has not answered for {seconds} s"))
    }

    fn lost(&self, cause: &dyn std::fmt::Display) -> Failure {
        Failure::Unreachable {
            socket: self.socket.clone(),
            cause: cause.to_string(),
        }
    }
}

/// Connects while blocking: a non-blocking connect fails at once when the listener's queue is full, a blocking one waits,
/// here until `limit`; the error is then WouldBlock.
fn connect(socket: &Path, limit: Option<Duration>) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(socket)?;
    let (family, kind) = (AddressFamily::UNIX, SocketType::STREAM);
    let stream = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&stream, Timeout::Send, limit)?;
    rustix::net::connect(&stream, &address)?;
    // Whoever takes the connection over writes for as long as that takes.
    set_socket_timeout(&stream, Timeout::Send, None)?;
    Ok(stream.into())
}
