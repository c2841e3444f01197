//! A container's network traffic: what it has carried.

use super::Container;

impl Container {
    /// Bytes that it has received and sent over its address since its start; none where it has no address
    /// (`mode = "private"`) or it is gone. About 10 µs.
    pub fn network_bytes(&self) -> Option<(u64, u64)> {
        self.record.address?;
        let host = self.host.upgrade()?;
        host.link_bytes(self.record.slot).ok()
    }
}
