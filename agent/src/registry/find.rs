//! From a name that somebody asks for to a vhost.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::Registry;
use crate::api::problem::Problem;
use crate::config::{Definition, host};
use crate::container::documents::{self, DocumentsError};
use crate::machine::State;
use crate::site::Site;

/// How long a directory may take to answer whether it exists.
const LOOK_LIMIT: Duration = Duration::from_secs(5);

impl Registry {
    /// Whether a vhost of a definition or a pattern is this owner's, whoever else has how many.
    pub fn has_owner(&self, owner: &str) -> bool {
        self.definitions().has_owner(owner) || self.patterns().has_owner(owner)
    }

    /// The vhost that answers under a name or alias, if `may` lets its owner's vhosts be asked for.
    ///
    /// 403 for somebody else's and 404 for none: an owner can tell by it which names this host serves. That is no
    /// secret, the web server in front tells it to everybody who asks for a page, and an answer that says what is
    /// wrong helps those who misspell. What is not said is whose it is, or the name that an alias stands for.
    pub async fn find(
        self: &Arc<Self>,
        asked: &str,
        may: &(dyn Fn(&str) -> bool + Sync),
    ) -> Result<Arc<Site>, Problem> {
        let permitted = |site: Arc<Site>| {
            if may(&site.owner()) {
                Ok(site)
            } else {
                Err(Problem::not_yours(asked))
            }
        };
        // A name longer than any host name is not even copied.
        if asked.len() > 254 {
            return Err(Problem::unknown_vhost(asked));
        }
        let name = host::normal(asked);
        loop {
            let defined = self.definitions().by_host(&name).cloned();
            let key = defined
                .as_ref()
                .map_or(&*name, |definition| &*definition.name);
            match self.site(key) {
                Some(site) if !site.withdrawn() => return permitted(site),
                // Its old container has to be gone before the name can have a new one.
                Some(old) => match old.settled().await {
                    State::Gone => {
                        old.forgotten().await;
                        self.forget(&old);
                    }
                    _ => return permitted(old),
                },
                None => {
                    let definition = match &defined {
                        Some(definition) => definition.clone(),
                        None => self
                            .matched_by_pattern(&name)
                            .await
                            .map_err(|error| {
                                // Nothing is made for a name of which nobody knows whether it is a site.
                                let detail =
                                    format!("cannot tell whether {name} is a site: {error}");
                                Problem::unavailable("storage", "No storage", detail, LOOK_LIMIT)
                                    .about(&name)
                            })?
                            .ok_or_else(|| Problem::unknown_vhost(asked))?,
                    };
                    // Before anything is made: whoever may not have it makes this host keep nothing of it.
                    if !may(&definition.owner) {
                        return Err(Problem::not_yours(asked));
                    }
                    self.cleared(&definition.name).await?;
                    if let Some(site) = self.wake(definition, defined.is_some())? {
                        return permitted(site);
                    }
                }
            }
        }
    }

    /// What the first matching pattern makes of a host name, if its directory exists; an error if its storage cannot
    /// tell, which unmakes no vhost and makes none.
    pub(super) async fn matched_by_pattern(
        &self,
        host: &str,
    ) -> Result<Option<Arc<Definition>>, DocumentsError> {
        let definition = self.pattern_definition(host);
        let Some((definition, path)) =
            definition.and_then(|d| Some((d.clone(), d.documents.clone()?)))
        else {
            return Ok(None);
        };
        match documents::open(&path, LOOK_LIMIT).await {
            Ok(_) => Ok(Some(definition)),
            Err(error) if error.says_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn pattern_definition(&self, host: &str) -> Option<Arc<Definition>> {
        self.patterns().find(host)
    }

    /// Whether there is a definition or a pattern for it now.
    pub(super) fn is_defined(&self, vhost: &str) -> bool {
        self.definitions().get(vhost).is_some() || self.pattern_definition(vhost).is_some()
    }

    /// The structure of a vhost, made if it has none. None if its definition has changed meanwhile, or what is left of its
    /// last container is being removed; `defined` says that it comes from a file, not from a pattern.
    fn wake(
        self: &Arc<Self>,
        definition: Arc<Definition>,
        defined: bool,
    ) -> Result<Option<Arc<Site>>, Problem> {
        let fresh = Site::new(self.platform.clone(), definition.clone()).map_err(|e| {
            Problem::internal(format!("cannot serve {}: {e:#}", definition.name))
                .about(&definition.name)
        })?;
        // Both locks, in this order: a definition that goes finds the site or comes before it.
        let definitions = self.definitions();
        let now = definitions.by_host(&definition.name);
        let same = now.is_some_and(|now| Arc::ptr_eq(now, &definition));
        if same != defined || (!defined && now.is_some()) {
            return Ok(None);
        }
        // What files promise is known already.
        if !defined && fresh.may_promise() && self.site(&fresh.name).is_none() {
            self.place_woken(&fresh);
        }
        let mut sites = self.sites.write().unwrap_or_else(PoisonError::into_inner);
        let Ok(found) = self.unclaimed.take(&fresh.name) else {
            // Its last container has to be gone first.
            return Ok(sites.get(&fresh.name).cloned());
        };
        let site = sites.entry(fresh.name.clone()).or_insert(fresh).clone();
        if let Some(found) = found {
            Self::give(&site, found);
        }
        site.begin_temporary();
        Ok(Some(site))
    }

    /// The structure of a vhost that the last agent knew, without asking its storage.
    pub(super) fn wake_known(self: &Arc<Self>, vhost: &str) -> Option<Arc<Site>> {
        let defined = self.definitions().get(vhost).cloned();
        let from_file = defined.is_some();
        let definition = defined.or_else(|| self.pattern_definition(vhost))?;
        match self.wake(definition, from_file) {
            Ok(site) => site,
            Err(problem) => {
                tracing::error!("{}", problem.detail);
                None
            }
        }
    }
}
