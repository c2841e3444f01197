//! A vhost that rests is woken by data on a connection that was kept, or made without asking the agent.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use super::{Inner, Site, rest};
use crate::container::Container;
use crate::ladder::handed;
use crate::machine::Event;

impl Site {
    /// It is about to be frozen: data for it is told from now on. Before it is, so that none comes in between.
    pub(super) fn watch_for_data(self: &Arc<Self>, container: &Container) {
        let Some(address) = container.record.address else {
            return;
        };
        if let Err(error) = self.platform.ladder.watched.put(address, self) {
            tracing::warn!(
                "{}: data on a kept connection will not wake it: {error}",
                self.name
            );
        }
    }

    /// Data has come for this address.
    pub(crate) fn data_came(self: &Arc<Self>, address: Ipv4Addr) {
        // Under the lock under which it is frozen again.
        let mut inner = self.lock();
        let container = inner.container.as_ref();
        let its_own = container.is_some_and(|container| container.record.address == Some(address));
        if its_own {
            self.arrival(&mut inner);
        }
        if let Err(error) = self.platform.ladder.watched.remove(address, self) {
            tracing::warn!("{}: {error}", self.name);
        }
    }

    /// Data has come on a connection to this container that was handed over.
    pub(crate) fn handed_data_came(self: &Arc<Self>, container: &Arc<Container>) {
        let mut inner = self.lock();
        if rest::has(&inner, container) {
            self.arrival(&mut inner);
        }
    }

    fn arrival(self: &Arc<Self>, inner: &mut Inner) {
        // Otherwise a request has woken it before, or it is gone.
        if inner.machine.state().rests() {
            inner.last_request = Instant::now();
            self.step(inner, Event::Arrival);
        }
    }

    /// It is frozen. If somebody has a connection to it that was handed over, data on that wakes it from now on; what has come
    /// before does not, see [`Self::wake_if_unread`]. Whether it is watched since now.
    pub(super) async fn watch_handed(self: &Arc<Self>, container: &Arc<Container>) -> bool {
        if container.is_watched() {
            return false;
        }
        let (ladder, asked) = (self.platform.ladder.clone(), container.clone());
        let made = tokio::task::spawn_blocking(move || ladder.handed.watch(&asked)).await;
        let watch = match made {
            Ok(Ok(Some(watch))) => watch,
            Ok(Err(error)) => {
                self.platform.ladder.handed.failed(&self.name, &error);
                return false;
            }
            // Nobody has one, or the agent is ending.
            Ok(Ok(None)) | Err(_) => return false,
        };
        let (tell, over) = oneshot::channel();
        {
            let inner = self.lock();
            // Otherwise it is over by now.
            if inner.machine.state().rests() && rest::has(&inner, container) {
                container.watch_at_rest(tell);
            }
        }
        let attended = handed::attend(self.clone(), Arc::downgrade(container), watch, over);
        tokio::spawn(attended);
        true
    }

    /// Wakes it if data has come that nobody has read: while there was no agent, or more than could be told.
    pub(crate) async fn wake_if_unread(self: &Arc<Self>) {
        let Some(container) = self.container().filter(|_| self.state().rests()) else {
            return;
        };
        let asked = container.clone();
        let unread = tokio::task::spawn_blocking(move || asked.has_unread()).await;
        match unread {
            Ok(Ok(true)) => {
                self.feed_at_rest(&container, Event::Arrival);
            }
            Ok(Err(error)) => tracing::warn!("{}: {error:#}", self.name),
            // Nothing has come, or the agent is ending.
            Ok(Ok(false)) | Err(_) => {}
        }
    }

    /// It has just been frozen, because nobody had a connection to it. Wakes it if somebody had got one meanwhile: what came
    /// on that before it was watched is told by nobody.
    pub(super) async fn wake_if_connected(self: &Arc<Self>, container: &Arc<Container>) {
        if self.is_connected(container).await {
            self.feed_at_rest(container, Event::Arrival);
        }
    }
}
