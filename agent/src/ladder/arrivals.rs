//! Data on a kept connection wakes who is frozen: the kernel tells of its packets, see [`netns::Arrivals`].

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use anyhow::{Context, Result};
use tokio::io::Interest;

use crate::platform::Platform;
use crate::site::Site;
use crate::sys;

/// Whose the addresses are that are watched: always as the kernel has them. One stays until data has come for it or another
/// vhost has it, so that no request that wakes a vhost pays for taking it out.
#[derive(Default)]
pub(crate) struct Watched(Mutex<HashMap<Ipv4Addr, Weak<Site>>>);

impl Watched {
    /// Data for this address is this vhost's.
    pub(crate) fn put(&self, address: Ipv4Addr, site: &Arc<Site>) -> netns::Result<()> {
        let mut watched = self.lock();
        watched.insert(address, Arc::downgrade(site));
        site.platform.host.watch(address)
    }

    /// Data has come for this vhost, which does not rest any more: what else comes is nothing to be told.
    pub(crate) fn remove(&self, address: Ipv4Addr, site: &Arc<Site>) -> netns::Result<()> {
        let mut watched = self.lock();
        let its_own = |other: &Weak<Site>| std::ptr::eq(other.as_ptr(), Arc::as_ptr(site));
        if !watched.get(&address).is_some_and(its_own) {
            return Ok(());
        }
        watched.remove(&address);
        site.platform.host.unwatch(address)
    }

    fn of(&self, address: Ipv4Addr) -> Option<Arc<Site>> {
        self.lock().get(&address)?.upgrade()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Ipv4Addr, Weak<Site>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes from now on whoever data comes for.
pub(super) fn attend(platform: &Arc<Platform>) {
    if let Err(error) = platform.host.arrivals() {
        tracing::warn!("data on a kept connection will not wake who is frozen: {error}");
        return;
    }
    let platform = Arc::downgrade(platform);
    tokio::spawn(async move {
        if let Err(error) = run(&platform).await {
            tracing::error!("data on a kept connection wakes nobody any more: {error:#}");
        }
    });
}

async fn run(platform: &Weak<Platform>) -> Result<()> {
    let host = platform.upgrade().context("no platform")?.host.clone();
    let arrivals = host
        .arrivals()
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    let fd = arrivals.as_fd().try_clone_to_owned()?;
    let readable = sys::watch_for(fd, Interest::READABLE)?;
    loop {
        readable.readable().await?.clear_ready();
        let told = arrivals.read()?;
        let Some(platform) = platform.upgrade() else {
            return Ok(());
        };
        for address in told.addresses {
            if let Some(site) = platform.ladder.watched.of(address) {
                site.data_came(address);
            }
        }
        if told.lost {
            // Too many at once. Whoever has something to read is woken.
            for site in platform.live.sites() {
                site.wake_if_unread().await;
            }
        }
    }
}
