//! A connection of which one can wait for the peer's going, while nothing is written to it.
//!
//! A peer that has closed its sending half still waits for its answer (`half_close` of the server), so the end of
//! what it sends says nothing. That it has gone altogether is said by EPOLLHUP alone; whoever writes nothing for a
//! long time has to ask for that.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;

/// One connection; clones are the same one.
#[derive(Debug, Clone)]
pub(super) struct Wire(Arc<UnixStream>);

/// Waits for the peer's going. Holds a descriptor of its own: epoll watches one descriptor for one thing only.
#[derive(Debug)]
pub(super) struct HangUp(AsyncFd<OwnedFd>);

impl Wire {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self(Arc::new(stream))
    }

    /// What an answer that goes on waits for beside its next piece.
    pub(super) fn hang_up(&self) -> io::Result<HangUp> {
        HangUp::of(self.0.as_fd())
    }
}

impl HangUp {
    /// Of any connection.
    pub(super) fn of(socket: BorrowedFd<'_>) -> io::Result<Self> {
        let copy = socket.try_clone_to_owned()?;
        // Of the interests this is the one that asks for nothing a peer does by talking.
        crate::sys::watch_for(copy, Interest::PRIORITY).map(Self)
    }

    /// Returns when the peer has closed its end, or its process has ended.
    pub(super) async fn wait(&self) {
        // An error can only mean that the runtime is shutting down.
        while let Ok(mut guard) = self.0.ready(Interest::PRIORITY).await {
            if guard.ready().is_read_closed() {
                return;
            }
            // Out-of-band data, which nobody asked for.
            guard.clear_ready();
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(context))?;
            let space = buffer.initialize_unfilled();
            let mut read = 0;
            let result = self.0.try_io(Interest::READABLE, || {
                read = rustix::io::read(&*self.0, &mut *space)?;
                // Less than asked for is all there was: to say so saves a system call that would find nothing.
                let drained = read > 0 && read < space.len();
                if drained {
                    Err(io::ErrorKind::WouldBlock.into())
                } else {
                    Ok(())
                }
            });
            match result {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                    return Poll::Ready(Err(error));
                }
                Err(_) if read == 0 => {}
                _ => {
                    buffer.advance(read);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl Wire {
    fn poll_try(
        &self,
        context: &mut Context<'_>,
        mut write: impl FnMut(&UnixStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(context))?;
            match write(&self.0) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_try(context, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_try(context, |stream| stream.try_write_vectored(pieces))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Err: the peer has gone before.
        let _ = rustix::net::shutdown(&*self.0, rustix::net::Shutdown::Write);
        Poll::Ready(Ok(()))
    }
}
