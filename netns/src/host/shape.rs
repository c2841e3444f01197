//! How fast a container may send and receive.

use super::Host;
use super::attach::INSIDE;
use crate::netlink::Netlink;
use crate::{Error, Namespace, Result, route, shaper};
use rustix::io::Errno;

/// Rates in bytes per second as the container sees them, Ethernet headers included; nothing is unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shape {
    /// Out of the container.
    pub egress: Option<u64>,
    /// Into the container.
    pub ingress: Option<u64>,
}

impl Host {
    /// Limits the link of the container in `slot`, or lifts its limits; at once, and for open connections too. Returns
    /// what is in force, read back. If one direction fails, both are put back as they were.
    ///
    /// Each direction waits where it enters the link: that slows a sender down without losing its packets. For what
    /// the container sends, that place is inside its namespace; whoever is root in a user namespace of the container's
    /// own has no power over it, because this crate's namespaces are owned by the caller's.
    pub fn shape(&self, namespace: &Namespace, slot: u32, wanted: Shape) -> Result<Shape> {
        let before = self.shape_of(namespace, slot)?;
        let done = self.put_shape(namespace, slot, wanted);
        if done.is_err() {
            // The first error is the one to report.
            let _ = self.put_shape(namespace, slot, before);
        }
        done
    }

    /// The limits of the container in `slot`, read from the kernel.
    pub fn shape_of(&self, namespace: &Namespace, slot: u32) -> Result<Shape> {
        let name = self.config().link_name(slot);
        let ingress = at(&mut self.route(), &name, shaper::get)?;
        let egress = namespace.with_route(|socket| at(socket, INSIDE, shaper::get))?;
        Ok(Shape { egress, ingress })
    }

    fn put_shape(&self, namespace: &Namespace, slot: u32, wanted: Shape) -> Result<Shape> {
        let name = self.config().link_name(slot);
        let ingress = at(&mut self.route(), &name, |socket, index, name| {
            shaper::set(socket, index, name, wanted.ingress)
        })?;
        let egress = namespace.with_route(|socket| {
            at(socket, INSIDE, |socket, index, name| {
                shaper::set(socket, index, name, wanted.egress)
            })
        })?;
        Ok(Shape { egress, ingress })
    }
}

/// Does something with a link by its name.
pub(super) fn at<T>(
    socket: &mut Netlink,
    name: &str,
    work: impl FnOnce(&mut Netlink, u32, &str) -> Result<T>,
) -> Result<T> {
    let index = route::index_of(socket, name)?
        .ok_or_else(|| Error::os("look up interface", name, Errno::NODEV))?;
    work(socket, index, name)
}
