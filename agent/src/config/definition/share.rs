//! Sharing the memory of equal parts: on a hosting machine thousands of definitions have the same command and limits.

use std::collections::HashSet;

use super::{Definition, Env, Limits, Words};

/// Beyond this many different values of a part, sharing saves nothing worth its search.
const MOST: usize = 4096;

/// Parts that definitions seen so far have. Wanted only while many are loaded.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    commands: HashSet<Words>,
    environments: HashSet<Env>,
    limits: HashSet<Limits>,
}

impl Pool {
    /// Replaces parts of the definition by equal ones that were there before.
    pub(crate) fn share(&mut self, definition: &mut Definition) {
        one(&mut self.commands, &mut definition.command);
        one(&mut self.environments, &mut definition.env);
        one(&mut self.limits, &mut definition.limits);
    }
}

fn one<T: Clone + Eq + std::hash::Hash>(known: &mut HashSet<T>, part: &mut T) {
    if let Some(same) = known.get(part) {
        *part = same.clone();
    } else if known.len() < MOST {
        known.insert(part.clone());
    }
}
