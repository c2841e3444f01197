//! What an owner bought and how they divide it. Pure arithmetic: no files, no clock.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::units::{Bytes, Count, Cpu, Percent, Unit as _};
use crate::promises::Bound;

use super::io_budget::{IoBudget, IoChange};

/// The whole, in hundredths of a percent.
pub const WHOLE: u64 = 10_000;

/// What operators let an owner use; what is not there is not limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Budget {
    /// CPU time of all sites together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cpu>,
    /// Memory of all sites together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Bytes>,
    /// Reading and writing of all sites together.
    #[serde(skip_serializing_if = "IoBudget::is_empty")]
    pub io: IoBudget,
    /// Sites that may be defined, and that may be awake at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sites: Option<Count>,
    /// Starts that may be under way at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub starts: Option<Count>,
}

impl Budget {
    /// This with what `defaults` say of what it leaves out. `max` is no limit, whoever says it.
    pub fn over(&self, defaults: &Budget) -> Budget {
        Budget {
            cpu: self
                .cpu
                .or(defaults.cpu)
                .filter(|cpu| cpu.permyriad().is_some()),
            memory: self
                .memory
                .or(defaults.memory)
                .filter(|memory| memory.finite().is_some()),
            io: self.io.over(&defaults.io),
            sites: self
                .sites
                .or(defaults.sites)
                .filter(|sites| sites.finite().is_some()),
            starts: self
                .starts
                .or(defaults.starts)
                .filter(|starts| starts.finite().is_some()),
        }
    }

    /// The most that sites may be promised under it.
    pub fn bound(&self) -> Bound {
        Bound {
            cpu: self.cpu.and_then(Cpu::permyriad),
            memory: self.memory.and_then(Bytes::finite),
        }
    }

    /// What is wrong with values that were read from a file.
    pub fn problems(&self) -> Vec<String> {
        let all = self.shown().into_iter();
        all.filter_map(|(key, value)| BudgetChange::parse(key, &value?).err())
            .collect()
    }
}

/// How a share binds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Never more than the share.
    Hard,
    /// The share is guaranteed; what others do not use may be used beside it.
    #[default]
    Lending,
}

/// An owner's division of their CPU budget.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Split {
    /// How the shares bind.
    pub kind: Kind,
    /// Parts of the budget by site.
    pub shares: BTreeMap<String, Percent>,
}

/// All that is kept of an owner.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Account {
    /// Set by operators.
    pub budget: Budget,
    /// Set by the owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<Split>,
}

/// What a site has of a divided budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// How it binds.
    pub kind: Kind,
    /// What is always there for it, in hundredths of a percent of one core.
    pub guarantee: u64,
    /// Its weight among its siblings.
    pub weight: u64,
}

impl Split {
    /// What the named sites have together.
    pub fn sum(&self) -> u64 {
        self.shares.values().map(|share| share.permyriad()).sum()
    }

    /// What is left for those not named.
    pub fn rest(&self) -> u64 {
        WHOLE.saturating_sub(self.sum())
    }

    /// The sum as one would write it: `20% + 5% + 80% = 105%`.
    fn arithmetic(&self) -> String {
        let parts: Vec<String> = self.shares.values().map(ToString::to_string).collect();
        format!("{} = {}", parts.join(" + "), Percent::from_raw(self.sum()))
    }
}

impl Account {
    /// This with what `defaults` say of what the budget leaves out.
    pub fn over(&self, defaults: &Budget) -> Account {
        Account {
            budget: self.budget.over(defaults),
            split: self.split.clone(),
        }
    }

    /// The CPU budget, where there is one.
    pub fn cpu(&self) -> Option<u64> {
        self.budget.cpu.and_then(Cpu::permyriad)
    }

    /// Why this division cannot be; it is the owner's to read.
    pub fn check_split(&self, split: &Split) -> Result<(), String> {
        if split.shares.is_empty() {
            return Ok(());
        }
        let Some(budget) = self.budget.cpu.filter(|cpu| cpu.permyriad().is_some()) else {
            return Err("there is no CPU budget to divide; an operator sets one with `fastctl owner budget`".into());
        };
        if split.sum() > WHOLE {
            return Err(format!(
                "the shares are more than the whole: {}, {} too much; lower some",
                split.arithmetic(),
                Percent::from_raw(split.sum() - WHOLE)
            ));
        }
        for (site, share) in &split.shares {
            let part = budget.permyriad().unwrap_or(0) * share.permyriad() / WHOLE;
            if Cpu::from_permyriad(part).is_none() {
                return Err(format!(
                    "the share of {site} is too small: {share} of {budget} is {} of a core, and with less than {} a site \
                     cannot even start",
                    Percent::from_raw(part),
                    Cpu::MIN
                ));
            }
        }
        Ok(())
    }

    /// A site's part of the divided budget, when `unnamed` awake sites without a share of their own (with this one if
    /// it has none) share the rest. None where nothing is divided.
    pub fn part(&self, site: &str, unnamed: usize) -> Option<Part> {
        let (budget, split) = (self.cpu()?, self.split.as_ref()?);
        if split.shares.is_empty() {
            return None;
        }
        let share = match split.shares.get(site) {
            Some(share) => share.permyriad(),
            None => split.rest() / unnamed.max(1) as u64,
        };
        let least = Cpu::MIN.permyriad().unwrap_or(1);
        Some(Part {
            kind: split.kind,
            // A site with nothing must still be able to end; the budget above it holds all the same.
            guarantee: (budget * share / WHOLE).clamp(least.min(budget), budget),
            weight: share.clamp(1, WHOLE),
        })
    }

    /// The CPU quota of a site: the lowest of its own, its part with what it has been lent, and the budget. None is
    /// none but the budget's, which its owner's group enforces.
    pub fn quota(&self, own: Option<u64>, part: Option<Part>, lent: u64) -> Option<u64> {
        let budget = self.cpu();
        let part = part.map(|part| match part.kind {
            Kind::Hard => part.guarantee,
            Kind::Lending => part.guarantee.saturating_add(lent),
        });
        let lowest = match (own, part) {
            (Some(own), Some(part)) => Some(own.min(part)),
            (one, other) => one.or(other),
        };
        match (lowest, budget) {
            (Some(lowest), Some(budget)) => Some(lowest.min(budget)),
            (lowest, _) => lowest,
        }
    }
}

/// A change of a budget: a key's new value, nothing for that of agent.toml.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BudgetChange {
    /// `cpu`
    Cpu(Option<Cpu>),
    /// `memory`
    Memory(Option<Bytes>),
    /// `io.read` and its like
    Io(IoChange),
    /// `sites`
    Sites(Option<Count>),
    /// `starts`
    Starts(Option<Count>),
}

impl BudgetChange {
    /// Reads one; `max` lifts it, `default` and nothing go back to what agent.toml says.
    pub fn parse(key: &str, text: &str) -> Result<Self, String> {
        let lifted = matches!(text.trim(), "" | "none" | "default");
        fn value<T: std::str::FromStr>(
            text: &str,
            key: &str,
            lifted: bool,
        ) -> Result<Option<T>, String>
        where
            T::Err: std::fmt::Display,
        {
            if lifted {
                return Ok(None);
            }
            text.parse().map(Some).map_err(|e| format!("{key}: {e}"))
        }
        let counted = |value: Option<Count>| match value {
            Some(Count(0)) => Err(format!(
                "{key}: 0 would let no site live; use 1 or more, or max"
            )),
            other => Ok(other),
        };
        match key {
            "cpu" => value(text, key, lifted).map(Self::Cpu),
            "memory" => match value(text, key, lifted)? {
                Some(bytes) if bytes < LEAST_MEMORY => Err(format!(
                    "memory: {bytes} is less than one site needs; use {LEAST_MEMORY} or more"
                )),
                memory => Ok(Self::Memory(memory)),
            },
            "io.read" => value(text, key, lifted).map(IoChange::Read).map(Self::Io),
            "io.write" => value(text, key, lifted).map(IoChange::Write).map(Self::Io),
            "io.read_iops" => counted(value(text, key, lifted)?)
                .map(IoChange::ReadIops)
                .map(Self::Io),
            "io.write_iops" => counted(value(text, key, lifted)?)
                .map(IoChange::WriteIops)
                .map(Self::Io),
            "sites" => counted(value(text, key, lifted)?).map(Self::Sites),
            "starts" => counted(value(text, key, lifted)?).map(Self::Starts),
            other => Err(format!(
                "a budget has no {:?}; it has cpu, memory, io.read, io.write, io.read_iops, io.write_iops, sites and starts",
                crate::config::units::shorten(other)
            )),
        }
    }

    /// Makes the change.
    pub fn apply(self, budget: &mut Budget) {
        match self {
            Self::Cpu(cpu) => budget.cpu = cpu,
            Self::Memory(memory) => budget.memory = memory,
            Self::Io(change) => change.apply(&mut budget.io),
            Self::Sites(sites) => budget.sites = sites,
            Self::Starts(starts) => budget.starts = starts,
        }
    }
}

/// No site starts with less.
const LEAST_MEMORY: Bytes = Bytes(4 << 20);

impl Budget {
    /// Keys with their values as people write them.
    pub fn shown(&self) -> [(&'static str, Option<String>); 8] {
        let [read, write, read_iops, write_iops] = self.io.shown();
        [
            ("cpu", self.cpu.map(|v| v.to_string())),
            ("memory", self.memory.map(|v| v.to_string())),
            ("io.read", read),
            ("io.write", write),
            ("io.read_iops", read_iops),
            ("io.write_iops", write_iops),
            ("sites", self.sites.map(|v| v.to_string())),
            ("starts", self.starts.map(|v| v.to_string())),
        ]
    }
}
