//! What sites are promised: CPU time by `class = "guaranteed"`, memory by `memory_min`. Nothing is promised twice: the sum
//! never exceeds what the host has less the reserve. [`ledger`] is the arithmetic, [`crate::owners`] has the kernel keep it.

mod claim;
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
use crate::division::Division;
use crate::seeing::host::Host;
pub use claim::{Bound, Claim, Promise};
pub use ledger::{Change, Ledger, Offer, Standing};

/// What has been promised on this host.
#[derive(Debug)]
pub struct Promises {
    ledger: Mutex<Ledger>,
    division: Option<Division>,
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
            division: None,
            ever: AtomicBool::new(false),
        }
    }

    /// On a host where some CPUs are for guaranteed sites only: no more than these can be promised. Before anything is.
    #[must_use]
    pub fn dividing(mut self, division: Option<Division>) -> Self {
        self.division = division;
        let ledger = self
            .ledger
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        let mut offer = ledger.offer();
        if let Some(division) = division {
            let others = offer
                .cpu
                .saturating_sub(division.guaranteed.len() as u64 * 10_000);
            offer.cpu_reserve = offer.cpu_reserve.max(others);
        }
        *ledger = Ledger::new(offer);
        self
    }

    /// Which CPUs are for whom.
    pub fn division(&self) -> Option<Division> {
        self.division
    }

    /// Whether there has been any since the agent's start.
    pub fn ever(&self) -> bool {
        self.ever.load(Ordering::Acquire)
    }

    /// Promises it if there is room, instead of what the site was promised before; else says why not, and changes nothing.
    /// `dry_run` only asks. Once it is sure, or has failed, [`Self::place`] says what is promised: until then the room of what
    /// the site gives up stays with it. What changes has to be told to [`crate::owners::Owners::keep_promises`].
    pub fn admit(
        &self,
        site: &str,
        owner: &str,
        claim: Claim,
        dry_run: bool,
    ) -> Result<Change, String> {
        // Most sites are promised nothing before and after.
        if claim.is_none() && !self.ever() {
            return Ok(Change::default());
        }
        let mut ledger = self.lock();
        // What has been asked for before is no news, be it kept or not.
        if ledger.asked(site, owner) == claim {
            return Ok(Change::default());
        }
        if dry_run {
            return ledger.check(site, owner, claim).map(|()| Change::default());
        }
        self.note(claim);
        ledger.admit(site, owner, claim)
    }

    /// As [`Self::admit`], but a promise that cannot be kept is remembered, and kept once there is room.
    pub fn place(&self, site: &str, owner: &str, claim: Claim) -> Change {
        if claim.is_none() && !self.ever() {
            return Change::default();
        }
        self.note(claim);
        let change = self.lock().place(site, owner, claim);
        if let Some(why) = &change.unkept {
            tracing::error!("{site}: {why}; it is treated as best effort");
        }
        change
    }

    fn note(&self, claim: Claim) {
        if !claim.is_none() {
            self.ever.store(true, Ordering::Release);
        }
    }

    /// The most that the sites of everybody without a budget of their own may be promised. Before anything is.
    pub fn bind_all(&self, bound: Bound) {
        self.lock().bind_all(bound);
    }

    /// The most that an owner's sites may be promised together; what they are already stays.
    pub fn bind(&self, owner: &str, bound: Bound) -> Change {
        self.lock().bind(owner, bound)
    }

    /// Whether an owner's sites are promised no more than that; if they are, the arithmetic.
    pub fn check_bound(&self, owner: &str, bound: Bound) -> Result<(), String> {
        self.lock().check_bound(owner, bound)
    }

    /// [`Self::check_bound`] and [`Self::bind`] to no more than that and what counts now, in one.
    pub fn bind_lower(&self, owner: &str, now: Bound, new: Bound) -> Result<(), String> {
        let mut ledger = self.lock();
        ledger.check_bound(owner, new)?;
        ledger.bind(owner, now.least(new));
        Ok(())
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

    /// [`Self::division`], where it makes a difference.
    pub fn divided(&self) -> Option<Division> {
        self.division.filter(Division::divides)
    }

    /// The CPUs that a site may use, where these are divided.
    pub fn cpus_of(&self, site: &str) -> Option<String> {
        let division = self.divided()?;
        Some(division.of_site(self.of(site).cpu).to_string())
    }

    /// For the host's status.
    pub fn view(&self) -> Value {
        let ledger = self.lock();
        let (offer, sum) = (ledger.offer(), ledger.room());
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
            "cpus": self.divided().map(|division| json!({
                "guaranteed": division.guaranteed.to_string(),
                "others": division.others.to_string(),
            })),
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

impl Claim {
    /// What limits promise, with room for what those that follow them will; an error if they promise nothing definite.
    pub fn of(now: &Limits, later: impl IntoIterator<Item = Limits>) -> Result<Self, String> {
        let now = Self::from(Promise::of(now)?);
        later.into_iter().try_fold(now, |claim, limits| {
            Ok(claim.and_later(Promise::of(&limits)?))
        })
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
