//! Data on a kept connection wakes who is frozen: the kernel tells of its packets, see [`netns::Arrivals`].

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::Interest;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::platform::Platform;
use crate::site::Site;
use crate::sys;

/// Between two searches for what could not be told: each asks for all that rest.
const BETWEEN_SEARCHES: Duration = Duration::from_secs(1);

/// How long whoever freezes a vhost waits for what was told before.
const PATIENCE: Duration = Duration::from_millis(100);

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

    /// Whose it is. If that one is gone, with which all is gone that could have taken its address out, nobody watches it any more.
    fn of(&self, address: Ipv4Addr, host: &netns::Host) -> Option<Arc<Site>> {
        let mut watched = self.lock();
        match whose(&mut watched, address)? {
            Some(site) => Some(site),
            None => {
                if let Err(error) = host.unwatch(address) {
                    tracing::warn!("{error}");
                }
                None
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Ipv4Addr, Weak<Site>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whose an address is, if it is watched: Some(None) is said once of one who is gone.
#[allow(clippy::option_option, reason = "three answers")]
fn whose<T>(watched: &mut HashMap<Ipv4Addr, Weak<T>>, address: Ipv4Addr) -> Option<Option<Arc<T>>> {
    let one = watched.get(&address)?.upgrade();
    if one.is_none() {
        watched.remove(&address);
    }
    Some(one)
}

/// Whoever waits until all is attended to that the kernel has told by now.
#[derive(Default)]
pub(crate) struct Told(OnceLock<mpsc::UnboundedSender<oneshot::Sender<()>>>);

impl Told {
    /// What came for a vhost while it ran was told, too, if it has rested before: that does not undo a freeze that begins after
    /// this.
    pub(crate) async fn attended_to(&self) {
        let (done, over) = oneshot::channel();
        if let Some(asks) = self.0.get()
            && asks.send(done).is_ok()
        {
            // Elapsed: there is no end of it.
            let _ = tokio::time::timeout(PATIENCE, over).await;
        }
    }
}

/// Wakes from now on whoever data comes for.
pub(super) fn attend(platform: &Arc<Platform>) {
    if let Err(error) = platform.host.arrivals() {
        tracing::warn!("data on a kept connection will not wake who is frozen: {error}");
        return;
    }
    let (tell, asks) = mpsc::unbounded_channel();
    if platform.ladder.told.0.set(tell).is_err() {
        return;
    }
    let platform = Arc::downgrade(platform);
    tokio::spawn(async move {
        if let Err(error) = run(&platform, asks).await {
            tracing::error!("data on a kept connection wakes nobody any more: {error:#}");
        }
    });
}

/// Those who ask for what [`Told`] says.
type Asks = mpsc::UnboundedReceiver<oneshot::Sender<()>>;

async fn run(platform: &Weak<Platform>, asks: Asks) -> Result<()> {
    let lost = Notify::new();
    tokio::select! {
        ended = attend_to_notices(platform, asks, &lost) => ended,
        () = find_lost(platform, &lost) => Ok(()),
    }
}

async fn attend_to_notices(platform: &Weak<Platform>, mut asks: Asks, lost: &Notify) -> Result<()> {
    let host = platform.upgrade().context("no platform")?.host.clone();
    let arrivals = host
        .arrivals()
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    let fd = arrivals.as_fd().try_clone_to_owned()?;
    let readable = sys::watch_for(fd, Interest::READABLE)?;
    loop {
        let (ready, asked) = tokio::select! {
            ready = readable.readable() => (Some(ready?), None),
            asked = asks.recv() => (None, asked),
        };
        loop {
            let told = arrivals.read()?;
            let Some(platform) = platform.upgrade() else {
                return Ok(());
            };
            for address in told.addresses {
                if let Some(site) = platform.ladder.watched.of(address, &host) {
                    site.data_came(address);
                }
            }
            if told.lost {
                lost.notify_one();
            }
            if !told.more {
                break;
            }
            drop(platform);
            // Whoever sends without a pause does not keep the others of this thread from their turn.
            tokio::task::yield_now().await;
        }
        if let Some(mut ready) = ready {
            ready.clear_ready();
        }
        if let Some(asked) = asked {
            // Err: it has waited for long enough.
            let _ = asked.send(());
        }
    }
}

/// There were too many notices at once: whoever rests and has something to read is woken. Notices are read meanwhile.
async fn find_lost(platform: &Weak<Platform>, lost: &Notify) {
    loop {
        lost.notified().await;
        let Some(platform) = platform.upgrade() else {
            return;
        };
        for site in platform.live.sites() {
            if site.state().rests() {
                site.wake_if_unread().await;
            }
        }
        drop(platform);
        tokio::time::sleep(BETWEEN_SEARCHES).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_gone_is_not_watched_any_more() {
        let (address, one) = (Ipv4Addr::new(10, 88, 0, 1), Arc::new("site"));
        let mut watched = HashMap::from([(address, Arc::downgrade(&one))]);
        assert_eq!(whose(&mut watched, address), Some(Some(one.clone())));
        drop(one);
        assert_eq!(whose(&mut watched, address), Some(None));
        assert_eq!(whose(&mut watched, address), None);
    }
}
