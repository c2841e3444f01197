//! What sites are promised: CPU time by `class = "guaranteed"`, memory by `memory_min`. Nothing is promised twice: the sum
//! never exceeds what the host has less the reserve. [`ledger`] is the arithmetic, [`crate::owners`] has the kernel keep it.

pub mod ledger;
#[cfg(test)]
mod ledger_tests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use crate::config::agent::Reserve;
use crate::config::definition::LimitKey;
use crate::config::units::{Bytes, Class, Cpu, Unit as _};
use crate::config::{Definition, Limits};
use crate::seeing::host::Host;
pub use ledger::{Change, Ledger, Offer, Promise, Standing};

/// What has been promised on this host.
#[derive(Debug)]
pub struct Promises {
    ledger: Mutex<Ledger>,
    /// There has been a promise since the agent's start: hosts without pay nothing for those with.
    ever: AtomicBool,
}

impl Promises {
    /// Nothing is promised yet. Memory can be guaranteed on cgroup v2 only.
    pub fn new(reserve: Reserve, memory: bool) -> Self {
        let host = Host::now();
        let cpu = host.cpus as u64 * 10_000;
        let offer = Offer {
            cpu,
            cpu_reserve: cpu * reserve.cpu.permyriad() / 10_000,
            memory: host.memory.total_bytes,
            memory_reserve: reserve.memory.0.min(host.memory.total_bytes),
            guarantees_memory: memory,
        };
        Self {
            ledger: Mutex::new(Ledger::new(offer)),
            ever: AtomicBool::new(false),
        }
    }

    /// Whether there has been any since the agent's start.
    pub fn ever(&self) -> bool {
        self.ever.load(Ordering::Acquire)
    }

    /// Promises it if there is room, instead of what the site was promised before; else says why not, and changes nothing.
    pub fn admit(&self, site: &str, owner: &str, promise: Promise) -> Result<Change, String> {
        self.note(promise);
        self.lock().admit(site, owner, promise)
    }

    /// Whether the site has asked for just that before, be it kept or not.
    pub fn is_known(&self, site: &str, owner: &str, promise: Promise) -> bool {
        match self.ever() {
            true => self.lock().asked(site, owner) == promise,
            false => promise.is_none(),
        }
    }

    /// Whether [`Self::admit`] would.
    pub fn check(&self, site: &str, promise: Promise) -> Result<(), String> {
        self.lock().check(site, promise)
    }

    /// As [`Self::admit`], but a promise that cannot be kept is remembered, and kept once there is room.
    pub fn place(&self, site: &str, owner: &str, promise: Promise) -> Change {
        if promise.is_none() && !self.ever() {
            return Change::default();
        }
        self.note(promise);
        let change = self.lock().place(site, owner, promise);
        if let Some(why) = &change.unkept {
            tracing::error!("{site}: {why}; it is treated as best effort");
        }
        change
    }

    fn note(&self, promise: Promise) {
        if !promise.is_none() {
            self.ever.store(true, Ordering::Release);
        }
    }

    /// How an owner stands among the others.
    pub fn standing(&self, owner: &str) -> Standing {
        self.lock().standing(owner)
    }

    /// What a site is promised; nothing for a promise that cannot be kept.
    pub fn of(&self, site: &str) -> Promise {
        match self.ever() {
            true => self.lock().kept(site),
            false => Promise::default(),
        }
    }

    /// Memory promised to all together.
    pub fn memory(&self) -> u64 {
        self.lock().sum().memory
    }

    /// Whether the kernel can keep promises of memory here.
    pub fn keeps_memory(&self) -> bool {
        self.lock().offer().guarantees_memory
    }

    /// Promises that cannot be kept, with the reason.
    pub fn unkept(&self) -> Vec<(Arc<str>, String)> {
        self.lock().unkept()
    }

    /// What a site is promised, for its status; null for nothing.
    pub fn view_of(&self, site: &str) -> Value {
        let promise = self.of(site);
        let some = |what, raw| (raw > 0).then(|| shown(what, raw));
        match promise.is_none() {
            true => Value::Null,
            false => {
                json!({"cpu": some("CPU", promise.cpu), "memory": some("memory", promise.memory)})
            }
        }
    }

    /// For the host's status.
    pub fn view(&self) -> Value {
        let ledger = self.lock();
        let (offer, sum) = (ledger.offer(), ledger.sum());
        let part = |all: u64, reserve: u64, sum: u64, show: &dyn Fn(u64) -> String| {
            json!({
                "host": show(all),
                "reserve": show(reserve),
                "promised": show(sum),
                "free": show(all.saturating_sub(reserve).saturating_sub(sum)),
            })
        };
        json!({
            "sites": ledger.sites(),
            "unkept": ledger.unkept().len(),
            "cpu": part(offer.cpu, offer.cpu_reserve, sum.cpu, &|raw| shown("CPU", raw)),
            "memory": match offer.guarantees_memory {
                true => part(offer.memory, offer.memory_reserve, sum.memory, &|raw| shown("memory", raw)),
                false => Value::Null,
            },
        })
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Promise {
    /// What limits promise; an error if they promise nothing definite.
    pub fn of(limits: &Limits) -> Result<Self, String> {
        let guaranteed = limits.class() == Some(Class::Guaranteed);
        let cpu = match limits.cpu().and_then(Cpu::permyriad) {
            Some(cpu) if guaranteed => cpu,
            None if guaranteed => {
                return Err(
                    "class = \"guaranteed\" needs cpu: it says how much is guaranteed".into(),
                );
            }
            _ => 0,
        };
        let memory = limits.memory_min().and_then(Bytes::finite).unwrap_or(0);
        Ok(Self { cpu, memory })
    }
}

/// A quantity of `CPU` or memory as text.
pub fn shown(what: &str, raw: u64) -> String {
    match what {
        "CPU" => Cpu::from_raw(raw).to_string(),
        _ => Bytes(raw).to_string(),
    }
}

/// Whether any of these layers says something that may be a promise: most say nothing, and nothing is computed for them.
pub fn may_promise(definition: &Definition, over: [&Limits; 2]) -> bool {
    let [defaults, overrides] = over;
    [&definition.limits, defaults, overrides]
        .into_iter()
        .any(|limits| {
            limits.get(LimitKey::Class).is_some() || limits.get(LimitKey::MemoryMin).is_some()
        })
}
