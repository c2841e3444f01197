//! A network namespace held by a descriptor.

use crate::netlink::{self, Netlink};
use crate::{Diag, Error, LocalArrivals, Result, route, settings, socket, worker};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A network namespace. It lives as long as this value, a process or a socket in it does.
#[derive(Debug)]
pub struct Namespace {
    fd: Arc<OwnedFd>,
    diag: Diag,
    /// For the one `Host::attach` that most namespaces see; opened while the thread was inside.
    route: Mutex<Option<Netlink>>,
    /// Made ahead for the next [`Self::tcp_socket`].
    spare: Arc<Mutex<Option<OwnedFd>>>,
}

impl Namespace {
    /// Makes a network namespace, owned by the caller's user namespace, with `lo` up.
    pub fn create() -> Result<Self> {
        worker::make(Self::furnish)
    }

    /// The same on the calling thread, which must be one of this crate's own.
    pub(crate) fn create_here() -> Result<Self> {
        worker::make_here(Self::furnish)
    }

    /// Sets up the new namespace that the calling thread is in.
    fn furnish() -> Result<Self> {
        let fd = Arc::new(worker::current()?);
        settings::write()?;
        let mut socket = Netlink::open(netlink::ROUTE)?;
        route::set_loopback_up(&mut socket)?;
        let diag = Diag::new(Arc::clone(&fd), Netlink::open(netlink::SOCK_DIAG)?);
        Ok(Self {
            fd,
            diag,
            route: Mutex::new(Some(socket)),
            spare: Arc::default(),
        })
    }

    /// The network namespace of a running process. The caller makes sure that `pid` is still the
    /// process it means.
    pub fn of_pid(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/ns/net");
        let fd = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|source| Error::os("open", path, source))?;
        Self::from_fd(fd)
    }

    /// A network namespace from a descriptor of a `/proc/PID/ns/net`.
    pub fn from_fd(fd: OwnedFd) -> Result<Self> {
        let fd = Arc::new(fd);
        let socket = worker::visit("open sock_diag socket", Arc::clone(&fd), || {
            Netlink::open(netlink::SOCK_DIAG)
        })?;
        let diag = Diag::new(Arc::clone(&fd), socket);
        Ok(Self {
            fd,
            diag,
            route: Mutex::new(None),
            spare: Arc::default(),
        })
    }

    /// The descriptor, for setns(2).
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The inode number that /proc/PID/ns/net shows for this namespace.
    pub fn inode(&self) -> Result<u64> {
        rustix::fs::fstat(&*self.fd)
            .map(|stat| stat.st_ino)
            .map_err(|source| Error::os("stat", "network namespace", source))
    }

    /// Who listens and what is connected inside.
    #[must_use]
    pub fn diag(&self) -> &Diag {
        &self.diag
    }

    /// Runs `job` on a thread of this crate that is inside the namespace. All namespaces share that
    /// thread: a job makes sockets or reads a file, and does not wait for anything.
    pub fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        worker::visit("work in network namespace", Arc::clone(&self.fd), job)
    }

    /// A listening TCP socket inside the namespace (close-on-exec, blocking). Port 0 lets the kernel
    /// choose.
    pub fn listen_tcp(&self, address: SocketAddr) -> Result<OwnedFd> {
        let socket = self.run(move || socket::tcp(&address))?;
        socket::listen(socket, &address)
    }

    /// A TCP socket connected from inside the namespace (close-on-exec, blocking), to be handed over.
    /// The calling thread waits for the connection, at most `within`; a port nobody listens on is
    /// refused at once.
    pub fn connect_tcp(&self, address: SocketAddr, within: Duration) -> Result<OwnedFd> {
        let socket = self.run(move || socket::tcp(&address))?;
        socket::connect(socket, &address, within)
    }

    /// Makes a TCP socket inside the namespace (IPv4, close-on-exec, non-blocking, not connected) without waiting
    /// for it: a thread of this crate hands it to `take`, which does not wait for anything either.
    pub fn tcp_socket(&self, take: impl FnOnce(Result<OwnedFd>) + Send + 'static) -> Result<()> {
        let spare = lock(&self.spare).take();
        match spare {
            Some(spare) => {
                take(Ok(spare));
                Ok(())
            }
            None => self.make_socket(take),
        }
    }

    /// Has a socket made ahead for the next [`Self::tcp_socket`], which is then handed over at once; waits for nothing.
    pub fn prepare_tcp_socket(&self) -> Result<()> {
        let spare = Arc::downgrade(&self.spare);
        self.make_socket(move |made| {
            // Without one the next is made when it is asked for, or tells why it cannot be.
            if let (Some(spare), Ok(made)) = (spare.upgrade(), made) {
                *lock(&spare) = Some(made);
            }
        })
    }

    fn make_socket(&self, take: impl FnOnce(Result<OwnedFd>) + Send + 'static) -> Result<()> {
        let namespace = Arc::clone(&self.fd);
        worker::visit_later("make socket", namespace, socket::nonblocking, take)
    }

    /// Each packet with data for this TCP port that comes over the namespace's own loopback is told from now on, for as long
    /// as what is answered lives; see [`Diag::tcp_open_local`] and [`Diag::tcp_unread`] for what came before. Needs Linux 5.12
    /// with nfnetlink_log and nft_log.
    pub fn local_arrivals(&self, port: u16) -> Result<LocalArrivals> {
        let (socket, number) = self.run(|| Netlink::open_numbered(netlink::NETFILTER))?;
        LocalArrivals::new(socket, number, port)
    }

    /// A new detached mount of sysfs that shows this namespace's devices: read-only, no setuid
    /// programs, no devices, no execution. Closing the descriptor ends a mount that was not moved to
    /// a place. Needs CAP_SYS_ADMIN.
    pub fn sysfs_mount(&self) -> Result<OwnedFd> {
        self.run(sysfs_here)
    }

    /// Works with an rtnetlink socket inside the namespace.
    pub(crate) fn with_route<T>(&self, work: impl FnOnce(&mut Netlink) -> Result<T>) -> Result<T> {
        let kept = lock(&self.route).take();
        let mut socket = match kept {
            Some(socket) => socket,
            None => self.run(|| Netlink::open(netlink::ROUTE))?,
        };
        // Closed afterwards: a namespace is attached once, and thousands may be open.
        work(&mut socket)
    }

    /// It is not going to be attached any more: a socket that nobody needs costs a descriptor and memory.
    pub(crate) fn is_attached(&self) {
        lock(&self.route).take();
    }

    pub(crate) fn raw_fd(&self) -> i32 {
        self.fd.as_raw_fd()
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// sysfs binds to the network namespace of the thread that calls fsopen.
fn sysfs_here() -> Result<OwnedFd> {
    let failed = |step| move |source: Errno| Error::os(step, "sysfs", source);
    let context =
        rustix::mount::fsopen("sysfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed("fsopen"))?;
    rustix::mount::fsconfig_create(&context).map_err(failed("fsconfig create"))?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .map_err(failed("fsmount"))
}
