//! How much has passed a container's link.

use super::Host;
use super::attach::INSIDE;
use super::shape::at;
use crate::{Namespace, Result, route, shaper};

impl Host {
    /// Bytes that the container in `slot` has received and sent over its link since the link was made, Ethernet
    /// headers included; read from the host's end, where a tenant has no say. One request, some 10 µs.
    pub fn link_bytes(&self, slot: u32) -> Result<(u64, u64)> {
        let name = self.config().link_name(slot);
        let host = route::bytes_of(&mut self.route(), &name)?;
        // What the host's end sends is what the container receives.
        Ok((host.sent, host.received))
    }

    /// Packets of the container in `namespace` that were dropped at its egress limit since that was set; nothing where
    /// it has none. Some 50 µs.
    pub fn egress_dropped(&self, namespace: &Namespace) -> Result<Option<u64>> {
        namespace.with_route(|socket| at(socket, INSIDE, shaper::dropped))
    }
}
