//! `exec`: a command inside the container, wired to this terminal or these pipes.
//!
//! One poll loop over standard input, the connection and signals; no threads. The terminal is in raw mode only as long as
//! [`RawMode`] lives, on whatever path the loop is left.
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use hyper::Method;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use serde_json::{Map, Value, json};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGWINCH};
use signal_hook::low_level::pipe;

use super::client::{Call, Client};
use super::failure::Failure;
use super::frames::{Decoder, Frame, PROTOCOL};
use super::screen::Screen;

/// Standard input is not read while more than this waits to be sent.
const MAX_QUEUED: usize = 256 * 1024;

/// Runs the command; success is exit code 0, all others come as [`Failure::Exit`]. `terminal`: yes, no, or find out.
pub(crate) async fn run(
    client: &Client,
    screen: &mut Screen,
    vhost: &str,
    command: &[String],
    terminal: Option<bool>,
) -> Result<(), Failure> {
    let stdin = io::stdin();
    let stdin_is_terminal = rustix::termios::isatty(&stdin);
    let terminal = terminal.unwrap_or(stdin_is_terminal && screen.out_is_terminal);
    let mut request = json!({"command": command, "terminal": terminal});
    if terminal {
        let size = tcgetwinsize(&stdin).ok();
        request["rows"] = json!(size.map_or(24, |s| s.ws_row.max(1)));
        request["cols"] = json!(size.map_or(80, |s| s.ws_col.max(1)));
        let term = std::env::var("TERM")
            .ok()
            .map(|t| ("TERM".to_owned(), Value::from(t)));
        request["env"] = Value::Object(Map::from_iter(term));
    }
    let call = Call::vhost(Method::POST, vhost, "/exec").json(&request);
    let (stream, early) = client.upgrade(call, PROTOCOL).await?;
    let raw = (terminal && stdin_is_terminal)
        .then(|| RawMode::enter(stdin.as_fd()))
        .transpose();
    let _raw =
        raw.map_err(|e| Failure::Failed(format!("cannot set the terminal to raw mode: {e}")))?;
    match session(&stream, &early, stdin.as_fd(), screen, terminal)? {
        0 => Ok(()),
        code => Err(Failure::Exit(exit_code(code))),
    }
}

/// A command's code as the code of a process: 8 bits, and never 0 for what is not 0.
fn exit_code(code: i32) -> u8 {
    u8::try_from(code).unwrap_or(255)
}

/// A terminal in raw mode until dropped.
struct RawMode<'a> {
    terminal: BorrowedFd<'a>,
    before: Termios,
}

impl<'a> RawMode<'a> {
    fn enter(terminal: BorrowedFd<'a>) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(terminal, OptionalActions::Now, &raw)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for RawMode<'_> {
    fn drop(&mut self) {
        // Nothing can be done if the terminal is gone.
        let _ = tcsetattr(self.terminal, OptionalActions::Now, &self.before);
    }
}

/// Copies until the command has ended; gives its code.
fn session(
    stream: &UnixStream,
    early: &[u8],
    stdin: BorrowedFd<'_>,
    screen: &mut Screen,
    terminal: bool,
) -> Result<i32, Failure> {
    let broken = |e: io::Error| Failure::Failed(format!("the connection to the agent broke: {e}"));
    stream.set_nonblocking(true).map_err(broken)?;
    let window = Bell::new(&[SIGWINCH]).map_err(broken)?;
    // With a terminal in raw mode Ctrl-C is a byte like any other; these come from elsewhere.
    let end = Bell::new(&[SIGTERM, SIGHUP, SIGINT]).map_err(broken)?;
    let mut decoder = Decoder::default();
    let (mut queue, mut stdin_open, mut buffer) = (Vec::new(), true, vec![0; 64 * 1024]);
    decoder.push(early);
    loop {
        while let Some(frame) = decoder
            .next_frame()
            .map_err(|e| Failure::Failed(format!("the agent sent {e}")))?
        {
            match frame {
                Frame::Stdout(data) => {
                    screen.raw(&data)?;
                    screen.flush()?;
                }
                Frame::Stderr(data) => screen.raw_err(&data),
                Frame::Exit(code) => return Ok(code),
                Frame::Stdin(_) | Frame::Window { .. } | Frame::StdinClosed => {
                    return Err(Failure::Failed(
                        "the agent sent what only fastctl sends".to_owned(),
                    ));
                }
            }
        }
        let wants_input = stdin_open && queue.len() < MAX_QUEUED;
        let (on_stream, on_stdin, on_window, on_end) = {
            let stream_events = if queue.is_empty() {
                PollFlags::IN
            } else {
                PollFlags::IN | PollFlags::OUT
            };
            let mut fds = vec![
                PollFd::from_borrowed_fd(stream.as_fd(), stream_events),
                PollFd::from_borrowed_fd(window.heard.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(end.heard.as_fd(), PollFlags::IN),
            ];
            if wants_input {
                fds.push(PollFd::from_borrowed_fd(stdin, PollFlags::IN));
            }
            match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other.map_err(|e| broken(e.into()))?,
            };
            let ready = |i: usize| fds.get(i).map_or(PollFlags::empty(), PollFd::revents);
            (
                ready(0),
                !ready(3).is_empty(),
                !ready(1).is_empty(),
                !ready(2).is_empty(),
            )
        };
        if on_end {
            return Ok(128 + SIGTERM);
        }
        if on_window {
            window.quiet();
            if let (true, Ok(size)) = (terminal, tcgetwinsize(stdin)) {
                Frame::Window {
                    rows: size.ws_row,
                    cols: size.ws_col,
                }
                .encode(&mut queue);
            }
        }
        if on_stdin {
            match rustix::io::read(stdin, &mut buffer) {
                Ok(0) => {
                    stdin_open = false;
                    Frame::StdinClosed.encode(&mut queue);
                }
                Ok(n) => Frame::Stdin(buffer[..n].to_vec()).encode(&mut queue),
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                // A terminal that is gone, a directory, a closed descriptor: there is no input.
                Err(_) => {
                    stdin_open = false;
                    Frame::StdinClosed.encode(&mut queue);
                }
            }
        }
        if !queue.is_empty() {
            match (&*stream).write(&queue) {
                Ok(n) => drop(queue.drain(..n)),
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                    ) => {}
                // The command may have ended without reading its input: its exit frame is still to be read.
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {
                    queue.clear();
                    stdin_open = false;
                }
                Err(e) => return Err(broken(e)),
            }
        }
        if !on_stream.is_empty() {
            match (&*stream).read(&mut buffer) {
                Ok(0) => {
                    return Err(Failure::Failed(
                        "the agent closed the connection before the command had ended".to_owned(),
                    ));
                }
                Ok(n) => decoder.push(&buffer[..n]),
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                    ) => {}
                Err(e) => return Err(broken(e)),
            }
        }
    }
}

/// Signals as a readable descriptor.
struct Bell {
    heard: UnixStream,
    ids: Vec<signal_hook::SigId>,
}

impl Bell {
    fn new(signals: &[i32]) -> io::Result<Self> {
        let (heard, rung) = UnixStream::pair()?;
        heard.set_nonblocking(true)?;
        let mut bell = Self {
            heard,
            ids: Vec::new(),
        };
        for signal in signals {
            bell.ids.push(pipe::register(*signal, rung.try_clone()?)?);
        }
        Ok(bell)
    }

    /// Forgets what was heard.
    fn quiet(&self) {
        let mut scrap = [0; 64];
        while matches!((&self.heard).read(&mut scrap), Ok(n) if n > 0) {}
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        for id in &self.ids {
            signal_hook::low_level::unregister(*id);
        }
    }
}

#[cfg(test)]
#[path = "exec_tests.rs"]
mod tests;
