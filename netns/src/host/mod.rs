//! The host's side: routing, one nftables table, a routed veth per container.

mod arrivals;
mod attach;
mod config;
mod counters;
mod policy;
mod rules;
mod sets;
mod shape;

pub use arrivals::{Arrivals, Told};
pub use attach::Link;
pub use config::HostConfig;
pub use policy::{Destination, Policy, Protocol};
pub use shape::Shape;

use crate::netlink::{self, Netlink};
use crate::route::Requests;
use crate::{Error, Result};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use sets::Sets;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The network namespace that containers are attached to: that of the thread that called
/// [`Host::new`]. Later calls may come from any thread and act on the same namespace.
#[derive(Debug)]
pub struct Host {
    config: HostConfig,
    route: Mutex<Netlink>,
    sets: Mutex<Sets>,
    arrivals: Result<Arrivals>,
    /// /proc/sys/net/ipv6/conf of this namespace; none without IPv6.
    ipv6: Option<OwnedFd>,
    forwarding: Forwarding,
}

#[derive(Debug)]
struct Forwarding {
    file: std::fs::File,
    was_off: bool,
}

impl Host {
    /// Sets the calling thread's network namespace up for containers: forwarding on, the gateway
    /// address on `lo`, the subnet unreachable where it has no container, and the nftables table
    /// written anew in one transaction that keeps what running containers are allowed. Doing it again
    /// changes nothing.
    pub fn new(config: HostConfig) -> Result<Self> {
        config.check()?;
        let mut sets = Sets::open(&config.table)?;
        // The rules first: nothing is routed before it is filtered.
        let kept = sets.load()?;
        let mut arrivals = Arrivals::open();
        let loaded = match &arrivals {
            Ok(arrivals) => rules::load(&config, &kept, Some(arrivals.group())),
            Err(_) => rules::load(&config, &kept, None),
        };
        if let Err(error) = loaded {
            if arrivals.is_err() {
                return Err(error);
            }
            // nftables may have no `log` where nfnetlink_log is there: CONFIG_NFT_LOG is another one.
            rules::load(&config, &kept, None)?;
            arrivals = Err(error);
        }
        let mut route = Netlink::open(netlink::ROUTE)?;
        let mut requests = Requests::default();
        requests.loopback_address(config.subnet.gateway());
        requests.unreachable(config.subnet.base(), config.subnet.length());
        requests.send(&mut route, &config.subnet.to_string())?;
        let path = "/proc/sys/net/ipv6/conf";
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let ipv6 = match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(fd) => Some(fd),
            Err(Errno::NOENT) => None,
            Err(source) => return Err(Error::os("open", path, source)),
        };
        let forwarding = Forwarding::enable()?;
        Ok(Self {
            config,
            route: Mutex::new(route),
            sets: Mutex::new(sets),
            arrivals,
            ipv6,
            forwarding,
        })
    }

    /// What it was made with.
    #[must_use]
    pub fn config(&self) -> &HostConfig {
        &self.config
    }

    /// The address of a slot.
    pub fn address(&self, slot: u32) -> Result<Ipv4Addr> {
        self.config.subnet.address(slot).ok_or_else(|| {
            let (subnet, last) = (self.config.subnet, self.config.subnet.last_slot());
            Error::Invalid(format!(
                "slot {slot} has no address: {subnet} has slots 1 to {last}"
            ))
        })
    }

    /// Makes `policy` what the container at `address` may reach, in one transaction; before the first
    /// call it may reach nothing.
    pub fn allow(&self, address: Ipv4Addr, policy: &Policy) -> Result<()> {
        self.sets().replace(address, policy)
    }

    /// Takes back everything that [`Host::allow`] gave. It holds at once, for open connections too.
    pub fn revoke(&self, address: Ipv4Addr) -> Result<()> {
        self.sets().replace(address, &Policy::default())
    }

    /// Each packet with data for the container at `address` is told from now on by [`Host::arrivals`], until
    /// [`Host::unwatch`]; nothing where the kernel cannot tell.
    pub fn watch(&self, address: Ipv4Addr) -> Result<()> {
        self.set_watched(address, true)
    }

    /// Undoes [`Host::watch`]; no error if there is nothing to undo.
    pub fn unwatch(&self, address: Ipv4Addr) -> Result<()> {
        self.set_watched(address, false)
    }

    fn set_watched(&self, address: Ipv4Addr, on: bool) -> Result<()> {
        match &self.arrivals {
            Ok(arrivals) => arrivals.watch(&self.config.table, address, on),
            Err(_) => Ok(()),
        }
    }

    /// Tells of data for containers that are watched; why not, where the kernel cannot.
    pub fn arrivals(&self) -> std::result::Result<&Arrivals, &Error> {
        self.arrivals.as_ref()
    }

    /// What is in force, read from the kernel.
    pub fn policies(&self) -> Result<BTreeMap<Ipv4Addr, Policy>> {
        self.sets().load()
    }

    /// Undoes [`Host::new`]: the table, the gateway address and the route go, and forwarding if it was
    /// off before. Goes on after an error and reports the first.
    pub fn teardown(self) -> Result<()> {
        let table = self.sets().delete_table();
        let mut requests = Requests::default();
        requests.delete_loopback_address(self.config.subnet.gateway());
        requests.delete_unreachable(self.config.subnet.base(), self.config.subnet.length());
        let routes = requests.send(&mut self.route(), &self.config.subnet.to_string());
        let forwarding = if self.forwarding.was_off {
            self.forwarding.write("0")
        } else {
            Ok(())
        };
        table.and(routes).and(forwarding)
    }

    fn route(&self) -> MutexGuard<'_, Netlink> {
        self.route.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sets(&self) -> MutexGuard<'_, Sets> {
        self.sets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Forwarding {
    const PATH: &str = "/proc/sys/net/ipv4/ip_forward";

    fn enable() -> Result<Self> {
        // Kept open: an open sysctl file stays with the namespace it was opened in.
        let file = std::fs::File::options()
            .read(true)
            .write(true)
            .open(Self::PATH)
            .map_err(|source| Error::os("open", Self::PATH, source))?;
        let mut value = [0; 1];
        file.read_exact_at(&mut value, 0)
            .map_err(|source| Error::os("read", Self::PATH, source))?;
        let forwarding = Self {
            file,
            was_off: value == *b"0",
        };
        if forwarding.was_off {
            forwarding.write("1")?;
        }
        Ok(forwarding)
    }

    fn write(&self, value: &str) -> Result<()> {
        self.file
            .write_all_at(value.as_bytes(), 0)
            .map_err(|source| Error::os("write", Self::PATH, source))
    }
}
