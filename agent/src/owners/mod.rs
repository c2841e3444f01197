//! Owners: what operators let them use, how they divide it among their sites, and that the kernel holds both.
//!
//! A budget is a real cgroup above the sites, `<parent>/<owner>`. All CPU quotas and weights of an owner's sites are
//! written here, under one lock per owner: on cgroup v1 no group may have more than the one above it, at no moment.
//! [`model`] and [`lend`] decide, [`state`] writes, [`lender`] looks after those who lend.

mod above;
mod disks;
mod drift;
mod enforce;
#[cfg(test)]
mod enforce_tests;
pub mod io_budget;
mod lend;
mod lender;
mod live;
pub mod model;
#[cfg(test)]
mod model_tests;
mod places;
mod promised;
#[cfg(test)]
mod restand_tests;
mod state;
mod take_over;
#[cfg(test)]
mod take_over_tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail};
use cgroup::Group;
use tokio::sync::Notify;

use crate::persist::{self, Durable};
use crate::promises::Promises;
pub use disks::Disk;
pub use model::{Account, Budget, BudgetChange, Kind, Split};
pub use places::StartPlace;
use state::State;

/// All owners that have a budget, a division or a container.
#[derive(Debug)]
pub struct Owners {
    tree: cgroup::Tree,
    dir: PathBuf,
    promises: Arc<Promises>,
    /// Held while what all are guaranteed together is summed up and written.
    keeping: Mutex<()>,
    defaults: Defaults,
    /// Budgets with something that this host cannot keep.
    unkept: Vec<String>,
    all: Mutex<HashMap<Arc<str>, Arc<Owner>>>,
}

/// Budgets by agent.toml, for what operators have not set.
#[derive(Debug, Clone, Default)]
pub struct Defaults {
    /// Of everybody.
    pub all: Budget,
    /// Of one, before those of everybody.
    pub each: HashMap<String, Budget>,
}

impl Defaults {
    /// The budget of an owner of whom nothing is kept.
    pub fn of(&self, owner: &str) -> Budget {
        let own = self.each.get(owner).copied().unwrap_or_default();
        own.over(&self.all)
    }
}

/// One of them.
#[derive(Debug)]
struct Owner {
    name: Arc<str>,
    /// Changes of the account, one at a time.
    changing: Mutex<()>,
    state: Mutex<State>,
    /// Told when a start is over or more may be under way.
    place: Notify,
}

/// A site as its owner's division has it.
#[derive(Debug, Clone)]
pub struct Awake {
    /// Its part in hundredths of a percent of a core, where there is a division.
    pub guarantee: Option<u64>,
    /// The quota in force, likewise.
    pub quota: Option<u64>,
    /// CPU time so far, in µs.
    pub used: u64,
    /// Why the owner's I/O budget does not bind it, where it does not.
    pub without_io: Option<String>,
}

/// An owner as it is now.
#[derive(Debug, Default)]
pub struct Overview {
    /// What is kept.
    pub account: Account,
    /// Sites with a container.
    pub awake: Vec<(Arc<str>, Awake)>,
    /// Starts under way.
    pub starting: u64,
    /// The limits of the owner's group, read back; None while it has none.
    pub in_force: Option<cgroup::Limits>,
    /// What all sites together have used since that group was made.
    pub usage: Option<cgroup::Usage>,
}

impl Owners {
    /// Reads what is kept in `dir`. A budget that cannot be read is not taken for none.
    pub fn load(
        tree: cgroup::Tree,
        dir: PathBuf,
        mut defaults: Defaults,
        promises: Arc<Promises>,
    ) -> Result<Self> {
        let mut all = HashMap::new();
        let no_io = disks::impossible(&tree).is_some();
        let mut unkept = match no_io {
            true => disks::strip(&mut defaults),
            false => Vec::new(),
        };
        promises.bind_all(Budget::default().over(&defaults.all).bound());
        for name in defaults.each.keys() {
            promises.bind(name, defaults.of(name).bound());
        }
        let entries =
            std::fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))?;
        for entry in entries {
            let name = entry?.file_name();
            let Some(name) = name.to_str().and_then(|name| name.strip_suffix(".json")) else {
                continue;
            };
            let account: Account = persist::read(&path(&dir, name))?.unwrap_or_default();
            if no_io && account.budget.io.is_limited() {
                unkept.push(format!("the budget of {name}"));
            }
            let name: Arc<str> = name.into();
            let mut state = State::new(Some(account), defaults.of(&name), no_io);
            state.division = promises.division();
            promises.bind(&name, state.account.budget.bound());
            all.insert(name.clone(), Arc::new(Owner::new(&name, state)));
        }
        Ok(Self {
            tree,
            dir,
            promises,
            keeping: Mutex::default(),
            defaults,
            unkept,
            all: Mutex::new(all),
        })
    }

    fn owner(&self, name: &str) -> Arc<Owner> {
        let mut all = lock(&self.all);
        if let Some(owner) = all.get(name) {
            return owner.clone();
        }
        let name: Arc<str> = name.into();
        let no_io = disks::impossible(&self.tree).is_some();
        let mut state = State::new(None, self.defaults.of(&name), no_io);
        state.division = self.promises.division();
        let owner = Arc::new(Owner::new(&name, state));
        all.insert(name, owner.clone());
        owner
    }

    fn known(&self, name: &str) -> Option<Arc<Owner>> {
        lock(&self.all).get(name).cloned()
    }

    /// What counts of an owner.
    pub fn account(&self, name: &str) -> Account {
        let default = || Account::default().over(&self.defaults.of(name));
        self.known(name)
            .map_or_else(default, |owner| owner.lock().account.clone())
    }

    /// Whether an operator has set a budget, or the owner divided it.
    pub fn is_kept(&self, name: &str) -> bool {
        self.known(name)
            .is_some_and(|owner| owner.lock().own.is_some())
    }

    /// The budget that agent.toml gives an owner.
    pub fn configured(&self, name: &str) -> Budget {
        self.defaults.of(name)
    }

    /// An owner as it is now. Reads the kernel's files.
    pub fn overview(&self, name: &str) -> Overview {
        let asleep = || Overview {
            account: self.account(name),
            ..Overview::default()
        };
        self.known(name)
            .map_or_else(asleep, |owner| owner.lock().overview())
    }

    /// Changes what is kept of an owner: `change` sees that and what counts of it with agent.toml's budget, and gives the
    /// new one or says why not. A budget below what its sites are promised is refused. On disk first, then in force, also
    /// for sites that run; if the kernel refuses, all is as it was. Answers what counted and what counts now. Blocks.
    pub fn change(
        &self,
        name: &str,
        dry_run: bool,
        change: impl FnOnce(&Account, &Account) -> Result<Account>,
    ) -> Result<(Account, Account)> {
        cgroup::validate_name(name)?;
        let owner = self.owner(name);
        let _one_at_a_time = lock(&owner.changing);
        let (before, old) = {
            let state = owner.lock();
            (state.own.clone(), state.account.clone())
        };
        let own = change(&before.clone().unwrap_or_default(), &old)?;
        let new = owner.lock().counted(Some(&own));
        let budget_before = before
            .as_ref()
            .map_or_else(Budget::default, |own| own.budget);
        self.check_io(&budget_before, &own.budget)?;
        let (bound, bound_before) = (new.budget.bound(), old.budget.bound());
        if dry_run {
            let possible = self.promises.check_bound(name, bound);
            return possible.map(|()| (old, new)).map_err(anyhow::Error::msg);
        }
        // From here on nothing more is promised than before and after allow.
        let bounded = self.promises.bind_lower(name, bound_before, bound);
        bounded.map_err(anyhow::Error::msg)?;
        let done = self.install(&owner, before, own);
        let counts = if done.is_ok() { bound } else { bound_before };
        self.keep_promises(&self.promises.bind(name, counts));
        done?;
        owner.place.notify_waiters();
        Ok((old, new))
    }

    /// Keeps another account of an owner and has it in force.
    fn install(&self, owner: &Arc<Owner>, before: Option<Account>, own: Account) -> Result<()> {
        let name = &owner.name;
        let file = path(&self.dir, name);
        persist::write(&file, &own, Durable::Host)?;
        let installed = {
            let mut state = owner.lock();
            let done = state.install(&self.tree, name, Some(own));
            if done.is_err()
                && let Err(error) = state.install(&self.tree, name, before.clone())
            {
                tracing::error!("owner {name}: cannot go back to the old budget: {error:#}");
            }
            self.lend(owner, &mut state);
            done
        };
        if let Err(error) = installed {
            match before {
                Some(before) => persist::write(&file, &before, Durable::Host)?,
                None => persist::remove_durably(&file)?,
            }
            return Err(error);
        }
        Ok(())
    }

    /// Has somebody look after an owner who lends and has somebody to lend to.
    fn lend(&self, owner: &Arc<Owner>, state: &mut State) {
        if state.begins_to_lend() {
            tokio::spawn(lender::run(owner.clone()));
        }
    }
}

impl Owner {
    fn new(name: &Arc<str>, state: State) -> Self {
        Self {
            name: name.clone(),
            changing: Mutex::default(),
            state: Mutex::new(state),
            place: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn owner_and_site(group: &Group) -> Result<(&str, &str)> {
    match group.path() {
        [owner, vhost] => Ok((owner, vhost)),
        _ => bail!("{} is no site's cgroup", group.name()),
    }
}

fn path(dir: &Path, owner: &str) -> PathBuf {
    dir.join(format!("{owner}.json"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
