//! `POST /v1/vhosts/{name}/exec`: one more command inside a running container, over an upgraded connection.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use anyhow::{Context, Result};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue, UPGRADE};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustix::pty::OpenptFlags;
use serde::Deserialize;
use shim::protocol::{Exec, ExitRecord, ExitStatus, FdRole};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::answer::Answer;
use super::body;
use super::problem::Problem;
use super::rights::Peer;
use super::server::Server;
use crate::cli::frames::{Decoder, Frame, PROTOCOL};
use crate::container::{Container, environment, rlimits};
use crate::site::Site;

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
    mut request: Request<Incoming>,
) -> Answer {
    let site = server.registry.find(name).await?;
    if !peer.role.owns(&site.owner()) {
        return Err(Problem::unknown_vhost(name));
    }
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
    let asked: Asked = body::json(server, request.into_body()).await?;
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
    let Some(container) = site.container() else {
        return Err(Problem::conflict(format!(
            "{name} is not running; `fastctl start {name}` starts it"
        ))
        .about(name));
    };
    let session = Session::start(&site, &container, &asked)
        .await
        .map_err(|e| {
            Problem::internal(format!(
                "cannot run {:?} in {name}: {e:#}",
                asked.command[0]
            ))
            .about(name)
        })?;
    tokio::spawn(async move {
        match upgrade.await {
            Ok(connection) => session.relay(TokioIo::new(connection)).await,
            Err(error) => tracing::debug!("exec: the peer has gone: {error}"),
        }
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
    stdin: Option<tokio::fs::File>,
    outputs: Vec<(tokio::fs::File, fn(Vec<u8>) -> Frame)>,
    terminal: Option<OwnedFd>,
    container: Arc<Container>,
}

impl Session {
    async fn start(site: &Arc<Site>, container: &Arc<Container>, asked: &Asked) -> Result<Self> {
        let platform = &site.platform;
        let definition = site.definition();
        let streams = Streams::new(asked)?;
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
        let [stdin, stdout, stderr] = &streams.theirs;
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
            ids: container.record.ids.into(),
            command: asked.command.clone(),
            env,
            workdir: if definition.documents.is_some() {
                "/site"
            } else {
                "/"
            }
            .to_owned(),
            rlimits: rlimits(&definition),
            terminal: asked.terminal,
            fds: roles,
        };
        let started = platform
            .spawner
            .request(id, &shim::protocol::Request::Exec(Box::new(request)), &fds)
            .await?;
        drop((theirs, exit_theirs, streams.theirs));
        crate::container::wait_for_exec(&status).await?;
        Ok(Self {
            process: crate::sys::watch(started.pidfd)?,
            exit,
            stdin: streams.stdin,
            outputs: streams.outputs,
            terminal: streams.terminal,
            container: container.clone(),
        })
    }

    /// Carries frames between the connection and the command until that ends.
    async fn relay(mut self, connection: TokioIo<hyper::upgrade::Upgraded>) {
        let (mut reader, mut writer) = tokio::io::split(connection);
        let (sender, mut frames) = mpsc::channel::<Frame>(16);
        let mut outputs = tokio::task::JoinSet::new();
        for (mut file, wrap) in self.outputs.drain(..) {
            let sender = sender.clone();
            outputs.spawn(async move {
                let mut buffer = vec![0; 16 * 1024];
                // A terminal's end is an error (EIO), a pipe's is 0 bytes.
                while let Ok(count @ 1..) = file.read(&mut buffer).await {
                    if sender.send(wrap(buffer[..count].to_vec())).await.is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let (mut stdin, terminal) = (self.stdin.take(), self.terminal.take());
        let input = tokio::spawn(async move {
            let mut decoder = Decoder::default();
            let mut buffer = vec![0; 16 * 1024];
            while let Ok(count @ 1..) = reader.read(&mut buffer).await {
                decoder.push(&buffer[..count]);
                loop {
                    match decoder.next_frame() {
                        Ok(Some(Frame::Stdin(data))) => {
                            if let Some(file) = &mut stdin
                                && (file.write_all(&data).await.is_err()
                                    || file.flush().await.is_err())
                            {
                                stdin = None;
                            }
                        }
                        Ok(Some(Frame::StdinClosed)) => stdin = None,
                        Ok(Some(Frame::Window { rows, cols })) => {
                            if let Some(terminal) = &terminal {
                                set_window(terminal, rows, cols);
                            }
                        }
                        Ok(Some(_)) => {}
                        Ok(None) => break,
                        Err(error) => {
                            tracing::debug!("exec: {error}");
                            return;
                        }
                    }
                }
            }
        });
        let mut bytes = Vec::new();
        let mut gone = false;
        // Output ends when the last process that holds the streams has closed them.
        loop {
            tokio::select! {
                frame = frames.recv() => match frame {
                    Some(frame) => {
                        bytes.clear();
                        frame.encode(&mut bytes);
                        if writer.write_all(&bytes).await.is_err() {
                            gone = true;
                            break;
                        }
                    }
                    None => break,
                },
                () = self.container.ended() => break,
            }
        }
        if gone || input.is_finished() {
            // Nobody listens any more: the command is told so, as by a terminal that hangs up.
            let _ = rustix::process::pidfd_send_signal(
                self.process.get_ref(),
                rustix::process::Signal::HUP,
            );
        }
        let _ = self
            .process
            .readable()
            .await
            .map(|mut guard| guard.retain_ready());
        let code = exit_code(&self.exit);
        bytes.clear();
        Frame::Exit(code).encode(&mut bytes);
        // Err: the peer has gone.
        let _ = writer.write_all(&bytes).await;
        let _ = writer.shutdown().await;
        input.abort();
        outputs.abort_all();
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

/// Both ends of the command's streams.
struct Streams {
    theirs: [OwnedFd; 3],
    stdin: Option<tokio::fs::File>,
    outputs: Vec<(tokio::fs::File, fn(Vec<u8>) -> Frame)>,
    terminal: Option<OwnedFd>,
}

impl Streams {
    fn new(asked: &Asked) -> Result<Self> {
        let file = |fd: OwnedFd| tokio::fs::File::from_std(std::fs::File::from(fd));
        if !asked.terminal {
            let pipe = || {
                rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
                    .context("cannot make a pipe")
            };
            let ((in_read, in_write), (out_read, out_write), (err_read, err_write)) =
                (pipe()?, pipe()?, pipe()?);
            return Ok(Self {
                theirs: [in_read, out_write, err_write],
                stdin: Some(file(in_write)),
                outputs: vec![
                    (file(out_read), Frame::Stdout),
                    (file(err_read), Frame::Stderr),
                ],
                terminal: None,
            });
        }
        let ours =
            rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
                .context("cannot make a terminal")?;
        rustix::pty::unlockpt(&ours).context("cannot unlock the terminal")?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let theirs = rustix::pty::ioctl_tiocgptpeer(&ours, flags)
            .context("cannot open the terminal's other end")?;
        set_window(&ours, asked.rows, asked.cols);
        Ok(Self {
            stdin: Some(file(ours.try_clone()?)),
            outputs: vec![(file(ours.try_clone()?), Frame::Stdout)],
            theirs: [theirs.try_clone()?, theirs.try_clone()?, theirs],
            terminal: Some(ours),
        })
    }
}

fn set_window(terminal: &OwnedFd, rows: u16, cols: u16) {
    if rows > 0 && cols > 0 {
        let size = rustix::termios::Winsize {
            ws_row: rows,
            ws_col: cols,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // A terminal that takes no size goes on without one.
        let _ = rustix::termios::tcsetwinsize(terminal, size);
    }
}
