//! `connect.sock`: a dispatch that is answered with a connection, made inside the site's network namespace.
//!
//! A packet is a request, the body of `POST /v1/dispatch`, and a packet answers it: the answer of that, or a problem, with
//! `status`; and with status 200 one descriptor. One request of a connection is being answered at a time, those behind it
//! wait in the kernel: how many are served at once is bounded by the number of connections.

use std::future::Future;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{RecvFlags, SocketFlags};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::time::timeout;

use super::body;
use super::dispatch::{self, Asked, Told};
use super::problem::Problem;
use super::rights::{Peer, Role};
use super::server::Server;
use super::wire::HangUp;
use crate::packet;
use crate::site::{NoConnection, Ready};

/// The largest request; a host name has 253 characters at most.
const LARGEST: usize = 2048;

/// A connection to a site that is ready.
type Handed = (Ready, OwnedFd);

impl Server {
    /// Serves until `stop` turns true.
    pub async fn serve_connections(
        self: Arc<Self>,
        listener: AsyncFd<OwnedFd>,
        mut stop: watch::Receiver<bool>,
    ) {
        loop {
            let accepted = tokio::select! {
                accepted = accept(&listener) => accepted,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            match accepted {
                Ok(socket) => {
                    let (server, stop) = (self.clone(), stop.clone());
                    tokio::spawn(async move {
                        if let Some((peer, place)) = server.peer(&socket).await {
                            // Err: the peer has gone, or does not read.
                            if let Err(error) = server.converse(socket, &peer, stop).await {
                                tracing::debug!("connect: uid {}: {error}", peer.uid);
                            }
                            drop(place);
                        }
                    });
                }
                Err(error) => {
                    // Out of descriptors: those in use have to end first.
                    tracing::error!("cannot accept a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Answers one request after the other, until the peer has gone or the agent ends.
    async fn converse(
        &self,
        socket: OwnedFd,
        peer: &Peer,
        mut stop: watch::Receiver<bool>,
    ) -> io::Result<()> {
        let hang_up = HangUp::of(socket.as_fd())?;
        let socket = crate::sys::watch(socket)?;
        // A proxy keeps its connections.
        let patience = (!peer.role.holds_connections()).then_some(self.head_timeout);
        let mut buffer = [0; LARGEST];
        loop {
            let length = tokio::select! {
                received = within(patience, receive(&socket, &mut buffer)) => received?,
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
            };
            // Its end; an empty packet looks the same.
            if length == 0 {
                return Ok(());
            }
            let answer = tokio::select! {
                biased;
                answer = self.hand_over(peer, buffer.get(..length)) => answer,
                () = hang_up.wait() => return Ok(()),
            };
            let (bytes, handed) = packed(answer);
            let connection = handed.as_ref().map(|(_, connection)| connection.as_fd());
            let sent = packet::send(&socket, &bytes, connection.as_slice());
            within(Some(self.body_timeout), sent).await?;
            if let Some((ready, _)) = handed {
                ready.container.prepare_connection();
            }
        }
    }

    /// The answer to one request, None for one that is too large.
    async fn hand_over(&self, peer: &Peer, request: Option<&[u8]>) -> Result<Handed, Problem> {
        let peer = peer.now(|owner| self.registry.has_owner(owner));
        if peer.role == Role::Nobody {
            return Err(Problem::nobody(peer.uid));
        }
        if !peer.role.holds_connections() {
            return Err(Problem::no_connections(peer.uid));
        }
        let request = request.ok_or_else(|| Problem::too_large(LARGEST))?;
        let asked: Asked = body::json(request)?;
        let site = dispatch::find(self, &peer, &asked.vhost).await?;
        site.connect().await.map_err(|error| match error {
            NoConnection::Refused(refused) => dispatch::refusal(&site, &refused),
            NoConnection::TimedOut(limit) => Problem::connect_timeout(&site.name, limit),
            NoConnection::Failed(error) => Problem::unavailable(
                "no-connection",
                "No connection",
                format!("cannot connect to {}: {error}", site.name),
                Duration::from_secs(1),
            )
            .about(&site.name),
        })
    }
}

/// The packet of an answer, and what goes with it.
fn packed(answer: Result<Handed, Problem>) -> (Vec<u8>, Option<Handed>) {
    let (bytes, handed) = match answer {
        Ok(handed) => (
            serde_json::to_vec(&Told::new(Some(200), &handed.0)),
            Some(handed),
        ),
        Err(problem) => (serde_json::to_vec(&problem), None),
    };
    // Err cannot be: both are texts and numbers.
    (bytes.unwrap_or_default(), handed)
}

async fn within<T>(
    limit: Option<Duration>,
    work: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    match limit {
        Some(limit) => timeout(limit, work).await?,
        None => work.await,
    }
}

async fn accept(listener: &AsyncFd<OwnedFd>) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    loop {
        let mut guard = listener.readable().await?;
        let accepted = guard.try_io(|listener| Ok(rustix::net::accept_with(listener, flags)?));
        if let Ok(accepted) = accepted {
            return accepted;
        }
    }
}

/// The true length of the next packet, which may be more than the buffer's. Descriptors in it are not taken.
async fn receive(socket: &AsyncFd<OwnedFd>, buffer: &mut [u8]) -> io::Result<usize> {
    let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
    loop {
        let mut guard = socket.readable().await?;
        let received = guard.try_io(|socket| {
            let (_, length) = rustix::net::recv(socket, &mut *buffer, flags)?;
            Ok(length)
        });
        if let Ok(received) = received {
            return received;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use rustix::net::{AddressFamily, SendFlags, SocketType};

    use super::*;

    /// What clients are told to have room for.
    const LARGEST_ANSWER: usize = 16 << 10;

    fn pair() -> (AsyncFd<OwnedFd>, OwnedFd) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (unix, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
        let (ours, theirs) = rustix::net::socketpair(unix, kind, flags, None).unwrap();
        (crate::sys::watch(ours).unwrap(), theirs)
    }

    #[tokio::test]
    async fn packets_keep_their_ends_and_tell_their_length() {
        let (ours, theirs) = pair();
        let mut buffer = [0; LARGEST];
        for length in [1, LARGEST, LARGEST + 1, 3 * LARGEST, 7] {
            let packet = vec![b'x'; length];
            rustix::net::send(&theirs, &packet, SendFlags::empty()).unwrap();
            assert_eq!(receive(&ours, &mut buffer).await.unwrap(), length);
        }
        drop(theirs);
        assert_eq!(receive(&ours, &mut buffer).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn descriptors_that_are_sent_are_not_taken() {
        let (ours, theirs) = pair();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let theirs = crate::sys::watch(theirs).unwrap();
        packet::send(&theirs, b"{}", &[writer.as_fd()])
            .await
            .unwrap();
        drop(writer);
        assert_eq!(receive(&ours, &mut [0; 16]).await.unwrap(), 2);
        // The end of the pipe: nobody has its other end any more.
        assert_eq!(rustix::io::read(&reader, &mut [0; 1]).unwrap(), 0);
    }

    proptest! {
        #[test]
        fn any_packet_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = body::json::<Asked>(&bytes);
        }

        #[test]
        fn any_name_is_understood_and_any_problem_is_one_packet(name in "\\PC{0,300}") {
            let request = serde_json::json!({ "vhost": name }).to_string();
            prop_assert_eq!(&body::json::<Asked>(request.as_bytes()).unwrap().vhost, &name);
            let (bytes, connection) = packed(Err(Problem::unknown_vhost(&name)));
            prop_assert!(connection.is_none() && bytes.len() < LARGEST_ANSWER);
            let told: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            prop_assert_eq!(&told["status"], 404);
        }
    }
}
