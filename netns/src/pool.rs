//! Namespaces made ahead of need, refilled by one thread of low priority: as many as were taken lately, within bounds.

use crate::{Demand, Error, Host, Link, Namespace, Result, Slots, worker};
use rustix::fd::OwnedFd;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Making namespaces ahead may wait; whatever handles a request may not.
const NICENESS: i32 = 10;

/// Nor does it begin while the start that has just taken one is under way: the locks and caches are the same, and on a
/// small host the processors. Only an empty pool does not wait.
const REST: Duration = Duration::from_millis(5);
/// For a pool that is down to half: about as long as a fast start takes.
const SHORT_REST: Duration = Duration::from_micros(2_500);

/// What a namespace is connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Nothing: a loopback device only.
    Private,
    /// The host, by a routed veth with an address of its own.
    Address,
}

/// How many of each kind are kept ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolSize {
    /// Of [`Kind::Private`].
    pub private: usize,
    /// Of [`Kind::Address`]; needs a [`Host`].
    pub address: usize,
}

/// A namespace that is ready for a container. Its slot is the taker's, who gives it back to the
/// [`Slots`] when the container is gone.
#[derive(Debug)]
pub struct Prepared {
    /// The namespace.
    pub namespace: Namespace,
    /// Its link, for [`Kind::Address`].
    pub link: Option<Link>,
    /// A detached mount of its sysfs, see [`Namespace::sysfs_mount`], for [`Kind::Address`]: it costs as much as the namespace
    /// itself, and one without a link has nothing to show that others have not.
    pub sysfs: Option<OwnedFd>,
    /// Its slot.
    pub slot: u32,
}

/// Namespaces kept ready. Dropping it ends its thread and gives the unused slots back.
pub struct Pool {
    shared: Arc<Shared>,
    refill: Option<JoinHandle<()>>,
}

struct Shared {
    host: Option<Arc<Host>>,
    slots: Arc<dyn Slots>,
    state: Mutex<State>,
    wake: Condvar,
}

struct State {
    private: Queue,
    address: Queue,
    stop: bool,
    /// When one was taken last.
    taken: Option<Instant>,
    /// The refill failed: it is tried again at the next take, not in a loop.
    failed: Option<String>,
}

/// Those of one kind.
struct Queue {
    ready: VecDeque<Prepared>,
    demand: Demand,
}

impl Queue {
    fn new(least: usize, most: usize) -> Self {
        Self {
            ready: VecDeque::new(),
            demand: Demand::new(least, most),
        }
    }

    fn wanted(&mut self) -> usize {
        self.demand.wanted(Instant::now())
    }

    fn missing(&mut self) -> usize {
        self.wanted().saturating_sub(self.ready.len())
    }
}

impl Pool {
    /// Starts filling the pool, which has at least `least` ready and, when many are taken, up to `most`. Without a host there is
    /// no [`Kind::Address`].
    pub fn new(
        host: Option<Arc<Host>>,
        slots: Arc<dyn Slots>,
        least: PoolSize,
        most: PoolSize,
    ) -> Result<Self> {
        if host.is_none() && least.address.max(most.address) > 0 {
            return Err(Error::Invalid(
                "namespaces with an address need a host".into(),
            ));
        }
        let state = Mutex::new(State {
            private: Queue::new(least.private, most.private),
            address: Queue::new(least.address, most.address),
            stop: false,
            taken: None,
            failed: None,
        });
        let shared = Arc::new(Shared {
            host,
            slots,
            state,
            wake: Condvar::new(),
        });
        let filler = Arc::clone(&shared);
        let refill = std::thread::Builder::new()
            .name("netns-refill".into())
            .spawn(move || filler.refill())
            .map_err(|source| Error::os("start thread", "netns-refill", source))?;
        Ok(Self {
            shared,
            refill: Some(refill),
        })
    }

    /// A ready namespace, or one made on the spot when none is ready.
    pub fn take(&self, kind: Kind) -> Result<Prepared> {
        let ready = {
            let mut state = self.shared.state();
            state.failed = None;
            let now = Instant::now();
            state.taken = Some(now);
            let queue = state.queue(kind);
            queue.demand.take(now);
            queue.ready.pop_front()
        };
        self.shared.wake.notify_one();
        match ready {
            Some(ready) => Ok(ready),
            None => match self.shared.prepare(kind, Namespace::create) {
                // Those of the other kind may have what this one needs.
                Err(Error::NoSlot) => {
                    let unused = self.shared.state().other(kind).ready.pop_back();
                    self.shared.give_up(unused.ok_or(Error::NoSlot)?);
                    self.shared.prepare(kind, Namespace::create)
                }
                made => made,
            },
        }
    }

    /// How many are ready now.
    #[must_use]
    pub fn ready(&self) -> PoolSize {
        let state = self.shared.state();
        PoolSize {
            private: state.private.ready.len(),
            address: state.address.ready.len(),
        }
    }

    /// Why the pool could not be refilled, if so; it tries again at the next [`Pool::take`].
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.shared.state().failed.clone()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.state().stop = true;
        self.shared.wake.notify_one();
        if let Some(refill) = self.refill.take() {
            // It does not panic; if it did, there is nothing left to end.
            let _ = refill.join();
        }
        let mut state = self.shared.state();
        let State {
            private, address, ..
        } = &mut *state;
        for unused in private.ready.drain(..).chain(address.ready.drain(..)) {
            self.shared.give_up(unused);
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("ready", &self.ready())
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refill(&self) {
        // Without the right to change it, the thread runs at the usual priority.
        let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICENESS);
        // The thread makes namespaces itself, so that its low priority holds for that too.
        let home = worker::go_home();
        let mut state = self.state();
        if let Err(error) = home {
            state.failed = Some(error.to_string());
        }
        while !state.stop {
            if let Some(surplus) = state.surplus() {
                drop(state);
                self.give_up(surplus);
                state = self.state();
                continue;
            }
            let Some(kind) = state.missing() else {
                state = match state.falls_in() {
                    None => self
                        .wake
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner),
                    Some(time) => {
                        let woken = self.wake.wait_timeout(state, time);
                        woken.unwrap_or_else(PoisonError::into_inner).0
                    }
                };
                continue;
            };
            if let Some(rest) = state.rest(kind) {
                let woken = self.wake.wait_timeout(state, rest);
                state = woken.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            drop(state);
            let prepared = self.prepare(kind, Namespace::create_here);
            state = self.state();
            match prepared {
                Ok(prepared) => state.queue(kind).ready.push_back(prepared),
                Err(error) => state.failed = Some(error.to_string()),
            }
        }
    }

    /// The kernel takes the namespace apart in the background.
    fn give_up(&self, unused: Prepared) {
        let slot = unused.slot;
        drop(unused);
        self.slots.give_back(slot);
    }

    fn prepare(&self, kind: Kind, create: fn() -> Result<Namespace>) -> Result<Prepared> {
        let slot = self.slots.take().ok_or(Error::NoSlot)?;
        self.prepare_slot(kind, slot, create)
            .inspect_err(|_| self.slots.give_back(slot))
    }

    fn prepare_slot(
        &self,
        kind: Kind,
        slot: u32,
        create: fn() -> Result<Namespace>,
    ) -> Result<Prepared> {
        let namespace = create()?;
        let link = match (kind, &self.host) {
            (Kind::Private, _) => None,
            (Kind::Address, Some(host)) => Some(host.attach(&namespace, slot)?),
            (Kind::Address, None) => {
                return Err(Error::Invalid(
                    "a namespace with an address needs a host".into(),
                ));
            }
        };
        namespace.is_attached();
        let sysfs = link.as_ref().map(|_| namespace.sysfs_mount()).transpose()?;
        Ok(Prepared {
            namespace,
            link,
            sysfs,
            slot,
        })
    }
}

impl State {
    fn queue(&mut self, kind: Kind) -> &mut Queue {
        match kind {
            Kind::Private => &mut self.private,
            Kind::Address => &mut self.address,
        }
    }

    fn other(&mut self, kind: Kind) -> &mut Queue {
        match kind {
            Kind::Private => self.queue(Kind::Address),
            Kind::Address => self.queue(Kind::Private),
        }
    }

    /// How long the refill of a kind has to wait yet.
    fn rest(&mut self, kind: Kind) -> Option<Duration> {
        let queue = self.queue(kind);
        let rest = match queue.ready.len() {
            0 => return None,
            ready if ready * 2 > queue.wanted() => REST,
            _ => SHORT_REST,
        };
        let left = rest.saturating_sub(self.taken?.elapsed());
        (!left.is_zero()).then_some(left)
    }

    /// A kind of which there are too few; the one that is shorter of its size by more.
    fn missing(&mut self) -> Option<Kind> {
        match (self.private.missing(), self.address.missing()) {
            _ if self.failed.is_some() => None,
            (0, 0) => None,
            (private, address) if private > address => Some(Kind::Private),
            _ => Some(Kind::Address),
        }
    }

    /// One of those that are too many.
    fn surplus(&mut self) -> Option<Prepared> {
        for queue in [&mut self.private, &mut self.address] {
            if queue.wanted() < queue.ready.len() {
                return queue.ready.pop_back();
            }
        }
        None
    }

    /// When there may be too many, though nothing is taken.
    fn falls_in(&self) -> Option<Duration> {
        let queues = [&self.private, &self.address].into_iter();
        let at = queues.filter_map(|queue| queue.demand.falls_at()).min()?;
        Some(at.saturating_duration_since(Instant::now()))
    }
}
