//! The streams of a command: pipes, or a terminal, and what goes through them.

use std::io;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use rustix::pipe::PipeFlags;
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use tokio::io::AsyncReadExt;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use crate::cli::frames::{Decoder, Frame};

/// Our end of one stream. It never blocks, so that a command that neither reads nor writes holds no thread.
pub(super) struct Stream(AsyncFd<OwnedFd>);

impl Stream {
    fn new(fd: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        crate::sys::watch(fd).map(Self)
    }

    /// Reads what is there, after waiting for something to be.
    pub(super) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut guard = self.0.readable().await?;
            let read = guard.try_io(|fd| Ok(rustix::io::read(fd, &mut *buffer)?));
            if let Ok(result) = read {
                return result;
            }
        }
    }

    /// Writes all of it, waiting for the command to read.
    pub(super) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut guard = self.0.writable().await?;
            let written = guard.try_io(|fd| Ok(rustix::io::write(fd, bytes)?));
            if let Ok(result) = written {
                bytes = &bytes[result?..];
            }
        }
        Ok(())
    }

    /// Tells a terminal its size.
    pub(super) fn set_window(&self, rows: u16, cols: u16) {
        if rows > 0 && cols > 0 {
            let size = Winsize {
                ws_row: rows,
                ws_col: cols,
                ws_xpixel: 0,
                ws_ypixel: 0,
            };
            // A terminal that takes no size goes on without one.
            let _ = rustix::termios::tcsetwinsize(self.0.get_ref(), size);
        }
    }
}

/// Bytes as the frame that they travel in.
pub(super) type Wrap = fn(Vec<u8>) -> Frame;

/// Our ends of a command's streams.
pub(super) struct Streams {
    /// Its input.
    pub(super) stdin: Option<Stream>,
    /// Its outputs, and what their bytes become.
    pub(super) outputs: Vec<(Stream, Wrap)>,
    /// Its terminal, to be told its size.
    pub(super) terminal: Option<Stream>,
}

impl Streams {
    /// Makes them; the array is the command's ends.
    pub(super) fn new(terminal: bool, rows: u16, cols: u16) -> Result<(Self, [OwnedFd; 3])> {
        if !terminal {
            let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC).context("cannot make a pipe");
            let ((in_read, in_write), (out_read, out_write), (err_read, err_write)) =
                (pipe()?, pipe()?, pipe()?);
            let streams = Self {
                stdin: Some(Stream::new(in_write)?),
                outputs: vec![
                    (Stream::new(out_read)?, Frame::Stdout),
                    (Stream::new(err_read)?, Frame::Stderr),
                ],
                terminal: None,
            };
            return Ok((streams, [in_read, out_write, err_write]));
        }
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let ours = rustix::pty::openpt(flags).context("cannot make a terminal")?;
        rustix::pty::unlockpt(&ours).context("cannot unlock the terminal")?;
        let theirs = rustix::pty::ioctl_tiocgptpeer(&ours, flags)
            .context("cannot open the terminal's other end")?;
        let streams = Self {
            stdin: Some(Stream::new(ours.try_clone()?)?),
            outputs: vec![(Stream::new(ours.try_clone()?)?, Frame::Stdout)],
            terminal: Some(Stream::new(ours)?),
        };
        if let Some(terminal) = &streams.terminal {
            terminal.set_window(rows, cols);
        }
        Ok((streams, [theirs.try_clone()?, theirs.try_clone()?, theirs]))
    }
}

/// From the command to the connection.
pub(super) async fn read_output(stream: Stream, wrap: Wrap, sender: mpsc::Sender<Frame>) {
    let mut buffer = vec![0; 16 * 1024];
    // A terminal's end is an error (EIO), a pipe's is 0 bytes.
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        if sender.send(wrap(buffer[..count].to_vec())).await.is_err() {
            return;
        }
    }
}

/// From the connection to the command; returns when the peer has gone or talks nonsense.
pub(super) async fn write_input(
    mut reader: impl AsyncReadExt + Unpin,
    mut stdin: Option<Stream>,
    terminal: Option<Stream>,
) {
    let mut decoder = Decoder::default();
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = reader.read(&mut buffer).await {
        decoder.push(&buffer[..count]);
        loop {
            match decoder.next_frame() {
                Ok(Some(Frame::Stdin(data))) => {
                    if let Some(stream) = &stdin
                        && stream.write_all(&data).await.is_err()
                    {
                        stdin = None;
                    }
                }
                Ok(Some(Frame::StdinClosed)) => stdin = None,
                Ok(Some(Frame::Window { rows, cols })) => {
                    if let Some(terminal) = &terminal {
                        terminal.set_window(rows, cols);
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
}
