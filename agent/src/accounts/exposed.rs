//! What monitoring is shown of the accounts: counters since the agent's start, for a bounded number of vhosts and owners.

use std::collections::HashMap;
use std::sync::Arc;

use super::book::Record;
use super::busiest::Busiest;
use super::sums::Sums;

/// A vhost of an owner.
pub type Name = (Arc<str>, Arc<str>);

/// Counters of the busiest.
#[derive(Debug)]
pub struct Exposed {
    vhosts: Busiest<Name>,
    owners: Busiest<Arc<str>>,
}

/// One line of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown<K> {
    /// Whose; None for all that have no line of their own.
    pub name: Option<K>,
    /// Counted while it was shown, or for the others: while they were not.
    pub sums: Sums,
    /// Bytes of memory of its living containers.
    pub memory: u64,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The busiest vhosts by name, then the others.
    pub vhosts: Vec<Shown<Name>>,
    /// The busiest owners by name, then the others.
    pub owners: Vec<Shown<Arc<str>>>,
    /// Everything together.
    pub all: Shown<()>,
}

impl Exposed {
    /// Shows so many.
    pub fn new(vhosts: usize, owners: usize) -> Self {
        Self {
            vhosts: Busiest::new(vhosts),
            owners: Busiest::new(owners),
        }
    }

    /// What records have added to the books.
    pub(super) fn count(&mut self, records: &[Record], new: &[Sums], now: u64) {
        self.vhosts.rank(now);
        self.owners.rank(now);
        for (record, new) in records.iter().zip(new) {
            let owner: Arc<str> = record.owner.as_str().into();
            self.owners.count(&owner, new);
            self.vhosts
                .count(&(record.vhost.as_str().into(), owner), new);
        }
    }

    /// As it is now; `living` are the memories of living containers.
    pub fn snapshot(&self, living: &[(Name, u64)]) -> Snapshot {
        let vhosts = living.iter().cloned();
        let owners = living.iter().map(|((_, owner), m)| (owner.clone(), *m));
        Snapshot {
            vhosts: lines(&self.vhosts, vhosts),
            owners: lines(&self.owners, owners),
            all: Shown {
                name: Some(()),
                sums: *self.vhosts.all(),
                memory: living.iter().map(|(_, memory)| memory).sum(),
            },
        }
    }
}

fn lines<K: std::hash::Hash + Ord + Clone>(
    busiest: &Busiest<K>,
    memories: impl Iterator<Item = (K, u64)>,
) -> Vec<Shown<K>> {
    let mut lines: HashMap<K, Shown<K>> = busiest
        .shown()
        .map(|(name, sums)| {
            let shown = Shown {
                name: Some(name.clone()),
                sums: *sums,
                memory: 0,
            };
            (name.clone(), shown)
        })
        .collect();
    let mut other = Shown {
        name: None,
        sums: *busiest.other(),
        memory: 0,
    };
    for (name, memory) in memories {
        lines.get_mut(&name).unwrap_or(&mut other).memory += memory;
    }
    let mut lines: Vec<Shown<K>> = lines.into_values().collect();
    lines.sort_by(|a, b| a.name.cmp(&b.name));
    lines.push(other);
    lines
}
