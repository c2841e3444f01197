//! A container's network traffic: what it may carry and what it has carried.

use std::net::Ipv4Addr;
use std::sync::{MutexGuard, PoisonError};

use anyhow::{Context, Result, bail};
use netns::{Namespace, Shape};

use super::{Container, Drift, limits::in_force};
use crate::config::Limits;
use crate::config::definition::LimitKey;
use crate::platform::Platform;

/// What is known of a container's link.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// Its rates as they were last seen or set; None as long as nobody has looked.
    known: Option<Shape>,
    /// How often they were set.
    changes: u64,
}

/// The rates that limits demand of a link.
fn shape(limits: &Limits) -> Shape {
    Shape {
        egress: limits.egress().and_then(|rate| rate.finite()),
        ingress: limits.ingress().and_then(|rate| rate.finite()),
    }
}

fn no_link() -> anyhow::Error {
    anyhow::anyhow!(
        "cannot limit its network traffic: it has no link (mode = \"private\"); set network.mode = \"address\", or lift \
         the limits with egress=max ingress=max"
    )
}

/// Before the command of a new container runs. A link without limits is not even asked.
pub(super) fn limit_new(
    platform: &Platform,
    namespace: &Namespace,
    slot: u32,
    address: Option<Ipv4Addr>,
    limits: &Limits,
) -> Result<()> {
    let wanted = shape(limits);
    if wanted == Shape::default() {
        return Ok(());
    }
    if address.is_none() {
        bail!(no_link());
    }
    platform.host.shape(namespace, slot, wanted)?;
    Ok(())
}

impl Container {
    /// Bytes that it has received and sent over its address since its start; none where it has no address
    /// (`mode = "private"`) or it is gone. About 10 µs.
    pub fn network_bytes(&self) -> Option<(u64, u64)> {
        self.record.address?;
        let host = self.host.upgrade()?;
        host.link_bytes(self.record.slot).ok()
    }

    /// All limits in force, read from the kernel.
    pub fn limits(&self) -> Result<Limits> {
        self.limits_with(&self.group.read()?)
    }

    /// [`Self::limits`] for who has read its control group.
    pub fn limits_with(&self, group: &cgroup::Limits) -> Result<Limits> {
        let mut limits = in_force(group);
        let Shape { egress, ingress } = self.traffic()?;
        limits.set(LimitKey::Egress, egress);
        limits.set(LimitKey::Ingress, ingress);
        Ok(limits)
    }

    /// What its link carries otherwise than `limits` say.
    pub fn traffic_drift(&self, limits: &Limits) -> Result<Vec<Drift>> {
        let (wanted, found) = (shape(limits), self.ask_traffic()?);
        let show = |key: LimitKey, rate: Option<u64>| {
            rate.map_or_else(|| "max".to_owned(), |rate| key.show(rate))
        };
        let both = [
            (LimitKey::Egress, wanted.egress, found.egress),
            (LimitKey::Ingress, wanted.ingress, found.ingress),
        ];
        let differing = both
            .into_iter()
            .filter(|(_, wanted, found)| wanted != found);
        Ok(differing
            .map(|(key, wanted, found)| Drift {
                key: key.name().to_owned(),
                file: "the queue (tc-tbf) of its link".to_owned(),
                wanted: show(key, wanted),
                found: show(key, found),
            })
            .collect())
    }

    /// Limits its traffic as `limits` say, or lifts what they do not, then does `rest`. If that fails the traffic
    /// goes on as before.
    pub fn limit_traffic<T>(&self, limits: &Limits, rest: impl FnOnce() -> Result<T>) -> Result<T> {
        let (before, wanted) = (self.traffic()?, shape(limits));
        if before == wanted {
            return rest();
        }
        self.put_traffic(wanted)?;
        rest().map_err(|error| match self.put_traffic(before) {
            Ok(()) => error,
            Err(undo) => error.context(format!("the old traffic limits are not back: {undo:#}")),
        })
    }

    /// Whether it is known that its link has no rates, and `limits` want none: then it is not asked.
    pub fn has_no_rates(&self, limits: &Limits) -> bool {
        let none = Shape::default();
        shape(limits) == none && self.link().known == Some(none)
    }

    /// The rates of its link. A link known to have none is not asked: that takes as long as to read all the limits of the
    /// control groups three times, and what somebody else puts on it is found as drift.
    fn traffic(&self) -> Result<Shape> {
        let known = self.link().known;
        match known {
            Some(shape) if shape == Shape::default() => Ok(shape),
            _ => self.ask_traffic(),
        }
    }

    fn ask_traffic(&self) -> Result<Shape> {
        let changes = self.link().changes;
        let found = match (self.record.address, self.host.upgrade()) {
            (Some(_), Some(host)) => host.shape_of(&self.namespace, self.record.slot)?,
            _ => Shape::default(),
        };
        let mut link = self.link();
        // Else it is of the time before a change.
        if link.changes == changes {
            link.known = Some(found);
        }
        Ok(found)
    }

    fn put_traffic(&self, wanted: Shape) -> Result<()> {
        self.record.address.with_context(no_link)?;
        let host = self.host.upgrade().context("the agent is ending")?;
        let done = host.shape(&self.namespace, self.record.slot, wanted);
        {
            let mut link = self.link();
            link.changes += 1;
            link.known = done.is_ok().then_some(wanted);
        }
        done?;
        Ok(())
    }

    /// Packets dropped at its egress limit; nothing where it has none, which costs nothing to find out again.
    pub fn egress_dropped(&self) -> Option<u64> {
        self.record.address?;
        let known = self.link().known;
        if known.is_some_and(|shape| shape.egress.is_none()) {
            return None;
        }
        let dropped = self.host.upgrade()?.egress_dropped(&self.namespace).ok()?;
        if dropped.is_none() {
            // It may have lost its limit, and what else there is is not known.
            self.ask_traffic().ok()?;
        }
        dropped
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
