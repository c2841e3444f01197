//! `POST /v1/vhosts/{name}/exec`: one more command inside a running container, over an upgraded connection.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::header::{CONNECTION, HeaderValue, UPGRADE};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustix::process::Signal;
use serde::Deserialize;
use shim::protocol::{Exec, ExitRecord, ExitStatus, FdRole, Program};
use tokio::io::AsyncWriteExt;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use super::answer::Answer;
use super::body;
use super::exec_refused::{not_run, not_running};
use super::exec_streams::{Streams, read_output, write_input};
use super::problem::Problem;
use super::rights::Peer;
use super::server::Server;
use super::vhosts;
use crate::cli::frames::{Frame, PROTOCOL};
use crate::config::definition::LimitKey;
use crate::container::{Container, environment, rlimits, workdir};
use crate::site::Site;

/// How long a command may take to act on a hangup.
const HANG_UP_TIME: Duration = Duration::from_secs(1);
/// Makes the command's parent kill the command's whole process group.
const KILL_GROUP: Signal = Signal::POWER;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    command: Vec<String>,
    #[serde(default)]
    terminal: bool,
    #[serde(default)]
    rows: u16,
    #[serde(default)]
    cols: u16,
    #[serde(default)]
    env: std::collections::BTreeMap<String, String>,
}

pub(super) async fn exec(
    server: &Server,
    peer: &Peer,
    name: &str,
    mut request: Request<Bytes>,
) -> Answer {
    let site = vhosts::find(server, peer, name).await?;
    let wants = request
        .headers()
        .get(UPGRADE)
        .is_some_and(|value| value == PROTOCOL);
    if !wants {
        return Err(Problem::bad_request(format!(
            "this needs the headers Connection: Upgrade and Upgrade: {PROTOCOL}"
        )));
    }
    let upgrade = hyper::upgrade::on(&mut request);
    let asked: Asked = body::json(request.body())?;
    if asked.command.is_empty()
        || asked
            .command
            .iter()
            .chain(asked.env.values())
            .any(|word| word.contains('\0'))
    {
        return Err(
            Problem::bad_request("command must name a program, without NUL characters").about(name),
        );
    }
    let place = server.sessions.take(peer, &site.name)?;
    let (container, in_use) = site
        .begin_session()
        .map_err(|state| not_running(state, name))?;
    let session = Session::start(&site, &container, in_use, &asked)
        .await
        .map_err(|e| not_run(&e, name, &asked.command[0]))?;
    tokio::spawn(async move {
        match upgrade.await {
            Ok(connection) => session.relay(TokioIo::new(connection)).await,
            Err(error) => {
                tracing::debug!("exec: the peer has gone: {error}");
                hang_up(&session.process).await;
            }
        }
        drop(place);
    });
    let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("upgrade"));
    response
        .headers_mut()
        .insert(UPGRADE, HeaderValue::from_static(PROTOCOL));
    Ok(response)
}

/// A command that runs, and our ends of its streams.
struct Session {
    process: AsyncFd<OwnedFd>,
    /// Init-side parent writes how the command ended.
    exit: OwnedFd,
    streams: Streams,
    container: Arc<Container>,
    /// Keeps the container from being stopped as idle.
    _session: Arc<()>,
}

impl Session {
    async fn start(
        site: &Arc<Site>,
        container: &Arc<Container>,
        in_use: Arc<()>,
        asked: &Asked,
    ) -> Result<Self> {
        let platform = &site.platform;
        let definition = site.definition();
        let (streams, given) = Streams::new(asked.terminal, asked.rows, asked.cols)?;
        let (status, theirs) = crate::container::status_socket()?;
        let (exit, exit_theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let join = container.group.join_files()?;
        let target = container.pidfd();
        let mut roles = vec![
            FdRole::Status,
            FdRole::ExitFile,
            FdRole::Target,
            FdRole::Stdin,
            FdRole::Stdout,
            FdRole::Stderr,
        ];
        let [stdin, stdout, stderr] = &given;
        let mut fds = vec![
            theirs.as_fd(),
            exit_theirs.as_fd(),
            target.as_fd(),
            stdin.as_fd(),
            stdout.as_fd(),
            stderr.as_fd(),
        ];
        if let Some(directory) = container.group.dir() {
            roles.push(FdRole::CgroupDir);
            fds.push(directory);
        }
        for file in &join {
            roles.push(FdRole::CgroupProcs);
            fds.push(file.as_fd());
        }
        let mut limits = site.limits();
        let files = container.open_files_of_new(&limits);
        limits.set(LimitKey::Nofile, Some(files));
        let mut env = environment(&definition);
        env.retain(|(name, _)| !asked.env.contains_key(name));
        env.extend(
            asked
                .env
                .iter()
                .map(|(name, value)| (name.clone(), value.clone())),
        );
        let id = platform.spawner.next_id();
        let request = Exec {
            id,
            program: Program {
                ids: container.record.ids.into(),
                command: asked.command.clone(),
                env,
                workdir: workdir(&definition),
                rlimits: rlimits(&limits),
            },
            terminal: asked.terminal,
            fds: roles,
        };
        let started = platform
            .spawner
            .request(id, &shim::protocol::Request::Exec(Box::new(request)), &fds)
            .await?;
        drop((theirs, exit_theirs, given));
        crate::container::Executing::new(status).wait().await?;
        site.follow_open_files(container, files).await;
        Ok(Self {
            process: crate::sys::watch(started.pidfd)?,
            exit,
            streams,
            container: container.clone(),
            _session: in_use,
        })
    }

    /// Carries frames between the connection and the command until that ends.
    async fn relay(self, connection: TokioIo<hyper::upgrade::Upgraded>) {
        let (reader, mut writer) = tokio::io::split(connection);
        let (sender, mut frames) = mpsc::channel::<Frame>(4);
        let mut outputs = tokio::task::JoinSet::new();
        for (stream, wrap) in self.streams.outputs {
            outputs.spawn(read_output(stream, wrap, sender.clone()));
        }
        drop(sender);
        let mut input = tokio::spawn(write_input(
            reader,
            self.streams.stdin,
            self.streams.terminal,
        ));
        let mut bytes = Vec::new();
        // Output ends when the last process that holds the streams has closed them; the command may go on.
        let vanished = loop {
            tokio::select! {
                frame = frames.recv() => match frame {
                    Some(frame) => {
                        bytes.clear();
                        frame.encode(&mut bytes);
                        if writer.write_all(&bytes).await.is_err() {
                            break true;
                        }
                    }
                    None => tokio::select! {
                        () = ended(&self.process) => break false,
                        _ = &mut input => break true,
                    },
                },
                () = self.container.ended() => break false,
                _ = &mut input => break true,
            }
        };
        if vanished {
            hang_up(&self.process).await;
        }
        ended(&self.process).await;
        bytes.clear();
        Frame::Exit(exit_code(&self.exit)).encode(&mut bytes);
        // Err: the peer has gone.
        let _ = writer.write_all(&bytes).await;
        let _ = writer.shutdown().await;
        input.abort();
        outputs.abort_all();
    }
}

async fn ended(process: &AsyncFd<OwnedFd>) {
    // An error can only mean that the runtime is shutting down.
    let _ = process
        .readable()
        .await
        .map(|mut guard| guard.retain_ready());
}

/// Nobody listens any more: the command's group is told so, as by a terminal that hangs up, and then ended.
async fn hang_up(process: &AsyncFd<OwnedFd>) {
    for signal in [Signal::HUP, KILL_GROUP] {
        // Err: it has ended.
        let _ = rustix::process::pidfd_send_signal(process.get_ref(), signal);
        if tokio::time::timeout(HANG_UP_TIME, ended(process))
            .await
            .is_ok()
        {
            return;
        }
    }
}

/// What the command's parent wrote before it ended; a container that ended under it killed both.
fn exit_code(pipe: &OwnedFd) -> i32 {
    let mut buffer = [0; 128];
    let length = rustix::io::ioctl_fionbio(pipe, true)
        .and_then(|()| rustix::io::read(pipe, &mut buffer))
        .unwrap_or(0);
    let record = std::str::from_utf8(&buffer[..length])
        .ok()
        .and_then(|text| text.trim().parse::<ExitRecord>().ok());
    match record.map(|r| r.status) {
        Some(ExitStatus::Code(code)) => code,
        Some(ExitStatus::Signal(signal)) => 128 + signal,
        None => 128 + libc::SIGKILL,
    }
}
