//! The threads that enter network namespaces, so that callers never do.
//!
//! A thread of this crate is at home in the *nursery*: an empty network namespace that exists once
//! per process. Being at home there pins no namespace of a caller, and a namespace that is made
//! from there inherits the nursery's `tcp_child_ehash_entries`, that is, gets a small TCP hash table
//! of its own, without any change of the host's settings.
#![allow(unsafe_code)]

use crate::{Error, Result};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};

/// Buckets of a namespace's own TCP hash table: 16 kB, walked in microseconds.
const TCP_BUCKETS: &str = "1024";

type Job = Box<dyn FnOnce() + Send>;

struct Worker {
    name: &'static str,
    sender: Mutex<Option<Sender<Job>>>,
}

// Two threads, so that a short visit does not wait for the making of a namespace.
static VISITOR: Worker = Worker {
    name: "netns-visit",
    sender: Mutex::new(None),
};
static MAKER: Worker = Worker {
    name: "netns-make",
    sender: Mutex::new(None),
};
static NURSERY: Mutex<Option<Arc<OwnedFd>>> = Mutex::new(None);

/// Runs `job` on a thread that is inside `namespace`.
pub(crate) fn visit<T: Send + 'static>(
    action: &'static str,
    namespace: Arc<OwnedFd>,
    job: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    VISITOR.run(action, move || {
        enter(&namespace)?;
        drop(namespace);
        job()
    })
}

/// [`visit`] without waiting: the thread hands what came of it to `tell`, which is dropped uncalled if `job` panics.
pub(crate) fn visit_later<T: Send + 'static>(
    action: &'static str,
    namespace: Arc<OwnedFd>,
    job: impl FnOnce() -> Result<T> + Send + 'static,
    tell: impl FnOnce(Result<T>) + Send + 'static,
) -> Result<()> {
    VISITOR.submit(action, tell, move || {
        enter(&namespace)?;
        drop(namespace);
        job()
    })
}

/// Runs `job` on a thread that is inside a network namespace made for it.
pub(crate) fn make<T: Send + 'static>(
    job: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    MAKER.run("create network namespace", move || {
        unshare_network()?;
        job()
    })
}

/// The same on the calling thread, which must be one that is [at home](go_home) in the nursery.
pub(crate) fn make_here<T>(job: impl FnOnce() -> Result<T>) -> Result<T> {
    let made = unshare_network().and_then(|()| job());
    go_home()?;
    made
}

/// Takes the calling thread, which must belong to this crate, to the nursery.
pub(crate) fn go_home() -> Result<()> {
    enter(&*nursery()?)
}

/// The network namespace of the calling thread.
pub(crate) fn current() -> Result<OwnedFd> {
    let path = "/proc/thread-self/ns/net";
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|source| Error::os("open", path, source))
}

impl Worker {
    fn run<T: Send + 'static>(
        &'static self,
        action: &'static str,
        job: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (answer, result) = mpsc::sync_channel(1);
        let tell = move |done| {
            // The caller waits below; if it is gone, nobody needs the result.
            let _ = answer.send(done);
        };
        self.submit(action, tell, job)?;
        result.recv().unwrap_or(Err(Error::Thread { action }))
    }

    fn submit<T: Send + 'static>(
        &'static self,
        action: &'static str,
        tell: impl FnOnce(Result<T>) + Send + 'static,
        job: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<()> {
        let job: Job = Box::new(move || {
            // A panic in a job must not leave the thread in a foreign namespace.
            let _ = catch_unwind(AssertUnwindSafe(move || tell(job())));
        });
        self.send(action, job)
    }

    fn send(&'static self, action: &'static str, job: Job) -> Result<()> {
        let mut sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        let mut job = job;
        // A second turn only when the thread has ended, which is when it could not go home.
        for _ in 0..2 {
            let current = match &mut *sender {
                Some(current) => current,
                none => none.insert(self.spawn()?),
            };
            match current.send(job) {
                Ok(()) => return Ok(()),
                Err(returned) => {
                    job = returned.0;
                    *sender = None;
                }
            }
        }
        Err(Error::Thread { action })
    }

    fn spawn(&'static self) -> Result<Sender<Job>> {
        let home = nursery()?;
        let (sender, jobs) = mpsc::channel::<Job>();
        std::thread::Builder::new()
            .name(self.name.into())
            .spawn(move || {
                while enter(&home).is_ok() {
                    let Ok(job) = jobs.recv() else { return };
                    job();
                }
            })
            .map_err(|source| Error::os("start thread", self.name, source))?;
        Ok(sender)
    }
}

fn nursery() -> Result<Arc<OwnedFd>> {
    let mut nursery = NURSERY.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(nursery) = &*nursery {
        return Ok(Arc::clone(nursery));
    }
    let made = std::thread::Builder::new()
        .name("netns-nursery".into())
        .spawn(|| {
            unshare_network()?;
            let path = "/proc/sys/net/ipv4/tcp_child_ehash_entries";
            match std::fs::write(path, TCP_BUCKETS) {
                // Linux before 6.1: the host's table is shared, and only the counting is slower.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other.map_err(|source| Error::os("write", path, source))?,
            }
            current()
        })
        .map_err(|source| Error::os("start thread", "netns-nursery", source))?
        .join()
        .unwrap_or(Err(Error::Thread {
            action: "create nursery namespace",
        }))?;
    Ok(Arc::clone(nursery.insert(Arc::new(made))))
}

fn enter(namespace: &OwnedFd) -> Result<()> {
    use rustix::fd::AsFd;
    rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|source| Error::os("enter", "network namespace", source))
}

fn unshare_network() -> Result<()> {
    // SAFETY: the only documented hazard is UnshareFlags::FILES, which is not given: the descriptor
    // table stays shared with the other threads.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
        .map_err(|source| Error::os("create", "network namespace", source))
}
