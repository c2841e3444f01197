//! Who is promised what, and whether one more promise can be kept. Pure arithmetic; every question costs the same
//! however many sites there are.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::config::units::{Bytes, Cpu, Unit as _};

/// The greatest weight among siblings, that of an owner who is promised the whole host.
const WEIGHTS: u64 = 10_000;

/// What one site, or all sites of somebody, are promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Promise {
    /// Hundredths of a percent of a core.
    pub cpu: u64,
    /// Bytes.
    pub memory: u64,
}

impl Promise {
    /// Whether there is none.
    pub fn is_none(self) -> bool {
        self == Self::default()
    }

    fn plus(self, other: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_add(other.cpu),
            memory: self.memory.saturating_add(other.memory),
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(other.cpu),
            memory: self.memory.saturating_sub(other.memory),
        }
    }
}

/// What there is to be promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// All processors, in hundredths of a percent of a core.
    pub cpu: u64,
    /// Of it, what is promised to nobody.
    pub cpu_reserve: u64,
    /// The host's memory in bytes.
    pub memory: u64,
    /// Of it, what is promised to nobody.
    pub memory_reserve: u64,
    /// Whether the kernel can keep promises of memory here.
    pub guarantees_memory: bool,
}

/// How an owner stands among the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// Somebody on this host is promised CPU time.
    pub contended: bool,
    /// What the owner's sites are promised together.
    pub promise: Promise,
    /// The owner's weight among those who are promised CPU time; 0 for one who is not.
    pub weight: u64,
}

/// What a change of promises means for others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Change {
    /// The owners for whose sites something has changed.
    pub owners: BTreeSet<Arc<str>>,
    /// The first promise of CPU time has come, or the last has gone: all owners have to be told.
    pub all: bool,
    /// Why the promise cannot be kept.
    pub unkept: Option<String>,
}

#[derive(Debug)]
struct Entry {
    owner: Arc<str>,
    promise: Promise,
    kept: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Ledger {
    offer: Offer,
    sites: HashMap<Arc<str>, Entry>,
    owners: HashMap<Arc<str>, Promise>,
    sum: Promise,
    unkept: BTreeSet<Arc<str>>,
}

impl Ledger {
    /// With nothing promised.
    pub fn new(offer: Offer) -> Self {
        Self {
            offer,
            sites: HashMap::new(),
            owners: HashMap::new(),
            sum: Promise::default(),
            unkept: BTreeSet::new(),
        }
    }

    /// What there is to be promised.
    pub fn offer(&self) -> Offer {
        self.offer
    }

    /// What all are promised.
    pub fn sum(&self) -> Promise {
        self.sum
    }

    /// How many sites are promised something.
    pub fn sites(&self) -> usize {
        self.sites.len() - self.unkept.len()
    }

    /// What a site is promised.
    pub fn kept(&self, site: &str) -> Promise {
        match self.sites.get(site) {
            Some(entry) if entry.kept => entry.promise,
            _ => Promise::default(),
        }
    }

    /// What a site of this owner has asked for, be it kept or not.
    pub fn asked(&self, site: &str, owner: &str) -> Promise {
        match self.sites.get(site) {
            Some(entry) if &*entry.owner == owner => entry.promise,
            _ => Promise::default(),
        }
    }

    /// Promises that cannot be kept, with the reason as it is now.
    pub fn unkept(&self) -> Vec<(Arc<str>, String)> {
        let why = |site: &Arc<str>| {
            let entry = self.sites.get(site)?;
            Some((site.clone(), self.check(site, entry.promise).err()?))
        };
        self.unkept.iter().filter_map(why).collect()
    }

    /// How an owner stands among the others.
    pub fn standing(&self, owner: &str) -> Standing {
        let promise = self.owners.get(owner).copied().unwrap_or_default();
        Standing {
            contended: self.sum.cpu > 0,
            promise,
            weight: weight(promise.cpu, self.offer.cpu),
        }
    }

    /// Whether there is room for a promise to this site instead of the one it has; if not, the arithmetic.
    pub fn check(&self, site: &str, promise: Promise) -> Result<(), String> {
        let others = self.sum.minus(self.kept(site));
        let offer = self.offer;
        if promise.memory > 0 && !offer.guarantees_memory {
            return Err(format!(
                "memory_min = {} cannot be promised on this host: its memory controller is cgroup v1, which has no \
                 guarantee (its soft limit is a wish); leave memory_min out, or boot with \
                 systemd.unified_cgroup_hierarchy=1",
                Bytes(promise.memory)
            ));
        }
        if promise.cpu > 0 {
            let show = |raw| Cpu::from_raw(raw).to_string();
            fits(
                "CPU",
                promise.cpu,
                others.cpu,
                (offer.cpu, offer.cpu_reserve),
                &show,
            )?;
        }
        if promise.memory > 0 {
            let show = |raw| Bytes(raw).to_string();
            let there = (offer.memory, offer.memory_reserve);
            fits("memory", promise.memory, others.memory, there, &show)?;
        }
        Ok(())
    }

    /// Promises it, or says why not and changes nothing.
    pub fn admit(&mut self, site: &str, owner: &str, promise: Promise) -> Result<Change, String> {
        self.check(site, promise)?;
        Ok(self.place(site, owner, promise))
    }

    /// Promises it if there is room; else the site is promised nothing until there is.
    pub fn place(&mut self, site: &str, owner: &str, promise: Promise) -> Change {
        let before = self.sum.cpu > 0;
        let mut change = Change::default();
        if let Some(old) = self.sites.get(site)
            && (&*old.owner, old.promise, old.kept) == (owner, promise, true)
        {
            return change;
        }
        self.take(site, &mut change);
        if !promise.is_none() {
            change.unkept = self.check(site, promise).err();
            let (site, owner): (Arc<str>, Arc<str>) = (site.into(), owner.into());
            if change.unkept.is_none() {
                self.keep(&owner, promise, &mut change);
            } else {
                self.unkept.insert(site.clone());
            }
            let kept = change.unkept.is_none();
            self.sites.insert(
                site,
                Entry {
                    owner,
                    promise,
                    kept,
                },
            );
        }
        self.keep_more(&mut change);
        change.all = before != (self.sum.cpu > 0);
        change
    }

    fn keep(&mut self, owner: &Arc<str>, promise: Promise, change: &mut Change) {
        let all = self.owners.entry(owner.clone()).or_default();
        *all = all.plus(promise);
        self.sum = self.sum.plus(promise);
        change.owners.insert(owner.clone());
    }

    fn take(&mut self, site: &str, change: &mut Change) {
        let Some(old) = self.sites.remove(site) else {
            return;
        };
        change.owners.insert(old.owner.clone());
        if !old.kept {
            self.unkept.remove(site);
            return;
        }
        self.sum = self.sum.minus(old.promise);
        if let Some(all) = self.owners.get_mut(&old.owner) {
            *all = all.minus(old.promise);
            if all.is_none() {
                self.owners.remove(&old.owner);
            }
        }
    }

    /// Keeps what there is room for now.
    fn keep_more(&mut self, change: &mut Change) {
        for site in self.unkept.clone() {
            let Some(entry) = self.sites.get_mut(&site) else {
                continue;
            };
            let (owner, promise) = (entry.owner.clone(), entry.promise);
            if self.check(&site, promise).is_ok() {
                self.keep(&owner, promise, change);
                self.unkept.remove(&site);
                if let Some(entry) = self.sites.get_mut(&site) {
                    entry.kept = true;
                }
            }
        }
    }
}

/// The weight of a part among siblings whose parts are at most the whole; never less than its due.
pub fn weight(part: u64, whole: u64) -> u64 {
    (part * WEIGHTS).div_ceil(whole.max(1)).min(WEIGHTS)
}

fn fits(
    what: &str,
    asked: u64,
    others: u64,
    (all, reserve): (u64, u64),
    show: &dyn Fn(u64) -> String,
) -> Result<(), String> {
    let room = all.saturating_sub(reserve);
    let sum = others.saturating_add(asked);
    if sum <= room {
        return Ok(());
    }
    Err(format!(
        "more {what} would be promised than this host has: {} promised to others + {} = {}, and there are {} - {} \
         reserve = {}, {} too much; promise less, or lower [reserve]",
        show(others),
        show(asked),
        show(sum),
        show(all),
        show(reserve),
        show(room),
        show(sum - room)
    ))
}
