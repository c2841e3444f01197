//! Who is promised what, and whether one more promise can be kept. Pure arithmetic; every question costs the same
//! however many sites there are.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::claim::{Bound, Claim, Promise};
use crate::config::units::Bytes;

/// The greatest weight among siblings, that of an owner who is promised the whole host.
const WEIGHTS: u64 = 10_000;

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
    claim: Claim,
    kept: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Ledger {
    offer: Offer,
    sites: HashMap<Arc<str>, Entry>,
    owners: HashMap<Arc<str>, Claim>,
    sum: Claim,
    /// Of owners without one of their own.
    bound: Bound,
    bounds: HashMap<Arc<str>, Bound>,
    unkept: BTreeSet<Arc<str>>,
}

impl Ledger {
    /// With nothing promised, and no owner bound.
    pub fn new(offer: Offer) -> Self {
        Self {
            offer,
            sites: HashMap::new(),
            owners: HashMap::new(),
            sum: Claim::default(),
            bound: Bound::default(),
            bounds: HashMap::new(),
            unkept: BTreeSet::new(),
        }
    }

    /// What there is to be promised.
    pub fn offer(&self) -> Offer {
        self.offer
    }

    /// What all are promised.
    pub fn sum(&self) -> Promise {
        self.sum.promise
    }

    /// What all are promised, now or later.
    pub fn room(&self) -> Promise {
        self.sum.room
    }

    /// How many sites are promised something.
    pub fn sites(&self) -> usize {
        self.sites.len() - self.unkept.len()
    }

    /// What a site is promised.
    pub fn kept(&self, site: &str) -> Promise {
        self.claimed(site, |_| true).promise
    }

    fn claimed(&self, site: &str, of: impl Fn(&str) -> bool) -> Claim {
        match self.sites.get(site) {
            Some(entry) if entry.kept && of(&entry.owner) => entry.claim,
            _ => Claim::default(),
        }
    }

    /// What a site of this owner has asked for, be it kept or not.
    pub fn asked(&self, site: &str, owner: &str) -> Claim {
        match self.sites.get(site) {
            Some(entry) if &*entry.owner == owner => entry.claim,
            _ => Claim::default(),
        }
    }

    /// Promises that cannot be kept, with the reason as it is now.
    pub fn unkept(&self) -> Vec<(Arc<str>, String)> {
        let why = |site: &Arc<str>| {
            let entry = self.sites.get(site)?;
            let why = self.check(site, &entry.owner, entry.claim).err()?;
            Some((site.clone(), why))
        };
        self.unkept.iter().filter_map(why).collect()
    }

    /// How an owner stands among the others.
    pub fn standing(&self, owner: &str) -> Standing {
        let promise = self.of_owner(owner).promise;
        Standing {
            contended: self.sum.promise.cpu > 0,
            promise,
            weight: weight(promise.cpu, self.offer.cpu),
        }
    }

    fn of_owner(&self, owner: &str) -> Claim {
        self.owners.get(owner).copied().unwrap_or_default()
    }

    /// Binds everybody who is not bound otherwise. Only while nothing is promised.
    pub fn bind_all(&mut self, bound: Bound) {
        self.bound = bound;
    }

    /// Whether an owner's sites are promised no more than that; if they are, the arithmetic.
    pub fn check_bound(&self, owner: &str, bound: Bound) -> Result<(), String> {
        let Some((what, most, sum)) = bound.exceeded(self.of_owner(owner).room) else {
            return Ok(());
        };
        let show = |raw| super::shown(what, raw);
        Err(format!(
            "its sites are promised {} {what}, {} more than {}; promise them less first",
            show(sum),
            show(sum - most),
            show(most)
        ))
    }

    /// Binds an owner; what is promised already stays.
    pub fn bind(&mut self, owner: &str, bound: Bound) -> Change {
        if bound == self.bound {
            self.bounds.remove(owner);
        } else {
            self.bounds.insert(owner.into(), bound);
        }
        let mut change = Change::default();
        let before = self.sum.promise.cpu > 0;
        self.keep_more(&mut change);
        change.all = before != (self.sum.promise.cpu > 0);
        change
    }

    /// Whether there is room for a promise to this site instead of the one it has, on this host and in its owner's budget;
    /// if not, the arithmetic.
    pub fn check(&self, site: &str, owner: &str, claim: Claim) -> Result<(), String> {
        let (asked, offer) = (claim.room, self.offer);
        if asked.memory > 0 && !offer.guarantees_memory {
            return Err(format!(
                "memory_min = {} cannot be promised on this host: its memory controller is cgroup v1, which has no \
                 guarantee (its soft limit is a wish); leave memory_min out, or boot with \
                 systemd.unified_cgroup_hierarchy=1",
                Bytes(asked.memory)
            ));
        }
        self.check_budget(site, owner, asked)?;
        let others = self.sum.minus(self.claimed(site, |_| true)).room;
        if asked.cpu > 0 {
            let there = (offer.cpu, offer.cpu_reserve);
            fits("CPU", asked.cpu, others.cpu, there)?;
        }
        if asked.memory > 0 {
            let there = (offer.memory, offer.memory_reserve);
            fits("memory", asked.memory, others.memory, there)?;
        }
        Ok(())
    }

    /// A site that another owner had takes nothing of its new owner's with it.
    fn check_budget(&self, site: &str, owner: &str, asked: Promise) -> Result<(), String> {
        let old = self.claimed(site, |of| of == owner);
        let others = self.of_owner(owner).minus(old).room;
        let bound = self.bounds.get(owner).copied().unwrap_or(self.bound);
        // What is not asked for is nothing that could be too much.
        let bound = Bound {
            cpu: bound.cpu.filter(|_| asked.cpu > 0),
            memory: bound.memory.filter(|_| asked.memory > 0),
        };
        let Some((what, most, sum)) = bound.exceeded(others.plus(asked)) else {
            return Ok(());
        };
        let (show, asked) = (
            |raw| super::shown(what, raw),
            if what == "CPU" {
                asked.cpu
            } else {
                asked.memory
            },
        );
        Err(format!(
            "the {what} budget of {owner} is {}, and its sites would be promised {} + {} = {}, {} too much",
            show(most),
            show(sum - asked),
            show(asked),
            show(sum),
            show(sum - most)
        ))
    }

    /// Promises it, or says why not and changes nothing. What this gives up is nobody else's until [`Self::place`] tells how
    /// the change has ended: one that fails gives the site back what it had, whoever waits for room.
    pub fn admit(
        &mut self,
        site: &str,
        owner: &str,
        claim: impl Into<Claim>,
    ) -> Result<Change, String> {
        let claim = claim.into();
        self.check(site, owner, claim)?;
        let held = claim.and_later(self.claimed(site, |_| true).room);
        let stays = !self.claimed(site, |of| of == owner).is_none();
        // The budget of another owner may have no room for more than is asked for.
        let claim = match stays || self.check(site, owner, held).is_ok() {
            true => held,
            false => claim,
        };
        Ok(self.replace(site, owner, claim, None))
    }

    /// Promises it if there is room; else the site is promised nothing until there is.
    pub fn place(&mut self, site: &str, owner: &str, claim: impl Into<Claim>) -> Change {
        let claim = claim.into();
        if let Some(old) = self.sites.get(site)
            && (&*old.owner, old.claim, old.kept) == (owner, claim, true)
        {
            return Change::default();
        }
        let unkept = self.check(site, owner, claim).err();
        self.replace(site, owner, claim, unkept)
    }

    fn replace(&mut self, site: &str, owner: &str, claim: Claim, unkept: Option<String>) -> Change {
        let before = self.sum.promise.cpu > 0;
        let mut change = Change {
            unkept,
            ..Change::default()
        };
        self.take(site, &mut change);
        if !claim.is_none() {
            let (site, owner): (Arc<str>, Arc<str>) = (site.into(), owner.into());
            if change.unkept.is_none() {
                self.keep(&owner, claim, &mut change);
            } else {
                self.unkept.insert(site.clone());
            }
            let kept = change.unkept.is_none();
            self.sites.insert(site, Entry { owner, claim, kept });
        }
        self.keep_more(&mut change);
        change.all = before != (self.sum.promise.cpu > 0);
        change
    }

    fn keep(&mut self, owner: &Arc<str>, claim: Claim, change: &mut Change) {
        let all = self.owners.entry(owner.clone()).or_default();
        *all = all.plus(claim);
        self.sum = self.sum.plus(claim);
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
        self.sum = self.sum.minus(old.claim);
        if let Some(all) = self.owners.get_mut(&old.owner) {
            *all = all.minus(old.claim);
            if all.is_none() {
                self.owners.remove(&old.owner);
            }
        }
    }

    /// Keeps what there is room for now.
    fn keep_more(&mut self, change: &mut Change) {
        for site in self.unkept.clone() {
            let Some(entry) = self.sites.get(&site) else {
                continue;
            };
            let (owner, claim) = (entry.owner.clone(), entry.claim);
            if self.check(&site, &owner, claim).is_ok() {
                self.keep(&owner, claim, change);
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

fn fits(what: &str, asked: u64, others: u64, (all, reserve): (u64, u64)) -> Result<(), String> {
    let room = all.saturating_sub(reserve);
    let sum = others.saturating_add(asked);
    if sum <= room {
        return Ok(());
    }
    let show = |raw| super::shown(what, raw);
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
