//! What the registry knows of owners.

use std::sync::Arc;

use super::Registry;
use crate::api::problem::Problem;
use crate::config::Definition;
use crate::config::units::Count;

impl Registry {
    /// The sites of an owner that have definitions.
    pub fn sites_of(&self, owner: &str) -> Vec<Arc<str>> {
        let definitions = self.definitions();
        definitions
            .of_owner(owner)
            .map(|d| (&*d.name).into())
            .collect()
    }

    /// Whether the owner's budget has room for a definition that is not theirs yet.
    pub(super) fn within_budget(&self, definition: &Definition) -> Result<(), Problem> {
        let account = self.platform.owners.account(&definition.owner);
        let Some(most) = account.budget.sites.and_then(Count::finite) else {
            return Ok(());
        };
        let sites = self.sites_of(&definition.owner);
        let has = sites.len() as u64;
        if has < most || sites.iter().any(|name| **name == *definition.name) {
            return Ok(());
        }
        Err(Problem::conflict(format!(
            "the budget of {} is {most} sites, and {has} are defined: {has} + 1 > {most}; remove one or raise the budget",
            definition.owner
        ))
        .about(&definition.name))
    }
}
