//! A routed veth: no bridge, no ARP, one /32 route on each side.

use super::Host;
use crate::route::{self, End, Mac, Requests};
use crate::{Error, Namespace, Result};
use netlink_packet_route::link::LinkFlags;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// The name of the link's end in the container.
pub(super) const INSIDE: &str = "eth0";
/// The kernel sets a veth running within microseconds, or within a second when its link watcher
/// has put the event off.
const RUNNING_WITHIN: Duration = Duration::from_secs(3);
const ASK_AGAIN: Duration = Duration::from_micros(20);

/// A namespace's connection to the host. It is gone when the namespace is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The interface on the host.
    pub name: String,
    /// The interface number on the host.
    pub index: u32,
    /// The slot.
    pub slot: u32,
    /// The container's address.
    pub address: Ipv4Addr,
}

impl Host {
    /// Gives the namespace an `eth0` with the slot's address, and the host the way to it; returns when
    /// packets can pass. It may reach nothing before [`Host::allow`].
    ///
    /// The slot must be the caller's. An interface that still carries its number is what a dead
    /// container left (the kernel clears namespaces away in the background) and is removed.
    pub fn attach(&self, namespace: &Namespace, slot: u32) -> Result<Link> {
        let address = self.address(slot)?;
        let name = self.config().link_name(slot);
        let outside_end = End {
            name: &name,
            mac: mac(Side::Host, slot),
        };
        let inside_end = End {
            name: INSIDE,
            mac: mac(Side::Container, slot),
        };
        let create = || {
            let mut requests = Requests::default();
            requests.veth(&outside_end, &inside_end, namespace.raw_fd());
            requests.send(&mut self.route(), &name)
        };
        match create() {
            Err(error) if error.is(Errno::EXIST) => {
                self.remove_link(&name)?;
                create()?;
            }
            other => other?,
        }
        match self.connect(namespace, slot, &name, address) {
            Ok(index) => Ok(Link {
                name,
                index,
                slot,
                address,
            }),
            Err(error) => {
                // The first error is the one to report; the pair goes with its namespace anyway.
                let _ = self.remove_link(&name);
                Err(error)
            }
        }
    }

    fn connect(&self, inside: &Namespace, slot: u32, name: &str, to: Ipv4Addr) -> Result<u32> {
        let gone = || Error::os("look up interface", name, Errno::NODEV);
        let gateway = self.config().subnet.gateway();
        self.silence_ipv6(name)?;
        let index = {
            let mut socket = self.route();
            let index = route::index_of(&socket, name)?.ok_or_else(gone)?;
            let mut requests = Requests::default();
            requests.up(index, LinkFlags::Noarp);
            requests.neighbour(index, to, mac(Side::Container, slot));
            requests.host_route(index, to, gateway);
            requests.send(&mut socket, name)?;
            index
        };
        inside.with_route(|socket| {
            let eth0 = route::index_of(socket, INSIDE)?.ok_or_else(gone)?;
            let mut requests = Requests::default();
            requests.up(eth0, LinkFlags::Noarp);
            requests.address(eth0, to);
            requests.neighbour(eth0, gateway, mac(Side::Host, slot));
            requests.default_route(eth0, gateway);
            requests.send(socket, INSIDE)?;
            // Until both ends run, packets are lost and the first connection stalls for a second.
            wait_until_running(name, || route::is_running(socket, eth0))
        })?;
        wait_until_running(name, || route::is_running(&mut self.route(), index))?;
        Ok(index)
    }

    /// No IPv6 on the host's end: no link-local address that a tenant could talk to.
    fn silence_ipv6(&self, name: &str) -> Result<()> {
        let Some(directory) = &self.ipv6 else {
            return Ok(());
        };
        let path = format!("{name}/disable_ipv6");
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        rustix::fs::openat(directory, &path, flags, Mode::empty())
            .and_then(|file| rustix::io::write(file, b"1"))
            .map(drop)
            .map_err(|source| Error::os("write /proc/sys/net/ipv6/conf", path, source))
    }

    /// The host's ends that exist now, with their slots, in order of slot.
    pub fn links(&self) -> Result<Vec<(String, u32)>> {
        let names = route::link_names(&mut self.route())?;
        let slot = |name: String| self.config().slot_of(&name).map(|slot| (name, slot));
        let mut links: Vec<_> = names.into_iter().filter_map(slot).collect();
        links.sort_by_key(|(_, slot)| *slot);
        Ok(links)
    }

    /// Removes one of this host's links, and its other end with it. Takes about 20 ms: for orphans;
    /// otherwise drop the namespace. A link that is gone already is no error.
    pub fn remove_link(&self, name: &str) -> Result<()> {
        if self.config().slot_of(name).is_none() {
            return Err(Error::Invalid(format!(
                "`{name}` is not a container's link"
            )));
        }
        let mut socket = self.route();
        let Some(index) = route::index_of(&socket, name)? else {
            return Ok(());
        };
        let mut requests = Requests::default();
        requests.delete_link(index);
        match requests.send(&mut socket, name) {
            Err(error) if error.is(Errno::NODEV) => Ok(()),
            other => other,
        }
    }
}

fn wait_until_running(name: &str, mut running: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + RUNNING_WITHIN;
    while !running()? {
        if Instant::now() > deadline {
            return Err(Error::os("wait for link", name, Errno::TIMEDOUT));
        }
        std::thread::sleep(ASK_AGAIN);
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Side {
    Host = 0x02,
    Container = 0x06,
}

/// A locally administered address made of the slot, so that both sides know each other's.
fn mac(side: Side, slot: u32) -> Mac {
    let [a, b, c, d] = slot.to_be_bytes();
    [side as u8, 0xfc, a, b, c, d]
}
